//! What a turn of the loop waits for: descriptors, and what each stands for.

use crate::sys;
use nix::errno::Errno;
use nix::poll::{PollFlags, PollTimeout};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

/// What a ready descriptor stands for. Containers by their ids, which are shared: the loop makes nothing on the heap.
pub(super) enum Source {
    Listener,
    Children,
    Client(u64),
    Report(Rc<str>),
    Output(Rc<str>),
    Attached(Rc<str>, u64),
    Parting(u64),
    Adopted(Rc<str>),
    ExecOutput(i32),
    ExecReport(i32),
}

/// Emptied by each turn, and kept for its memory.
#[derive(Default)]
pub(super) struct Polled {
    fds: Vec<sys::PollFd>,
    sources: Vec<Source>,
}

impl Polled {
    pub(super) fn add(&mut self, fd: BorrowedFd<'_>, flags: PollFlags, source: Source) {
        self.fds.push(sys::PollFd::new(fd, flags));
        self.sources.push(source);
    }

    pub(super) fn wait(&mut self, timeout: PollTimeout) -> io::Result<()> {
        match sys::poll(&mut self.fds, timeout) {
            Ok(()) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// What the last wait was for, and how it is.
    pub(super) fn ready(&mut self) -> impl Iterator<Item = (Source, PollFlags)> {
        let states = self.fds.drain(..).map(|fd| fd.state());
        self.sources.drain(..).zip(states).filter(|(_, state)| !state.is_empty())
    }
}
