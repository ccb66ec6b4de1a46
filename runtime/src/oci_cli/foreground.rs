//! Staying with a program until it ends: signals are passed on, and with a terminal, what is typed and what is shown.

use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{read, write};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 8192;

/// Signals are ours to read from here on. Before the start: none may get lost.
pub(super) fn watch_signals() -> Result<SignalFd, String> {
    let set = SigSet::all();
    set.thread_block().map_err(|e| format!("block signals: {e}"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|e| format!("make signalfd: {e}"))
}

/// The terminal's master as it comes over our own socket.
pub(super) fn receive_terminal(socket: &OwnedFd) -> Result<OwnedFd, String> {
    let mut text = [0u8; 64];
    let mut slices = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!(std::os::fd::RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let told = |e: Errno| format!("receive terminal: {e}");
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags).map_err(told)?;
    for control in message.cmsgs().map_err(told)? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            return Ok(sys::own(*fd));
        }
    }
    Err("receive terminal: none came".into())
}

/// Our own terminal, put back as it was in the end.
struct Raw(Option<Termios>);

impl Raw {
    fn new(stdin: BorrowedFd<'_>) -> Self {
        let Ok(before) = tcgetattr(stdin) else { return Self(None) };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        Self(tcsetattr(stdin, SetArg::TCSANOW, &raw).is_ok().then_some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, before); // gone with its window
        }
    }
}

/// Until `pid`, our child, has ended: its exit code as a shell says it.
pub(super) fn wait(pid: i32, pidfd: &OwnedFd, signals: &SignalFd, terminal: Option<OwnedFd>) -> u8 {
    let mut proxy = terminal.map(Proxy::new);
    let code = loop {
        if let Some(code) = reap(pid) {
            break code;
        }
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if let Some(proxy) = &proxy {
            proxy.interest(&mut fds);
        }
        let _ = poll(&mut fds, PollTimeout::NONE); // EINTR: looked at anew
        while let Ok(Some(info)) = signals.read_signal() {
            match (info.ssi_signo as i32, &proxy) {
                (libc::SIGCHLD | libc::SIGPIPE, _) => {}
                (libc::SIGWINCH, Some(proxy)) => proxy.resize(),
                (signal, _) => {
                    let _ = sys::pidfd_send_signal(pidfd.as_fd(), signal); // dead: the next round sees it
                }
            }
        }
        if let Some(proxy) = &mut proxy {
            proxy.pump();
        }
    };
    if let Some(proxy) = &mut proxy {
        proxy.drain();
    }
    u8::try_from(code).unwrap_or(255)
}

/// Reaps everything that is dead; the code of `pid` if it is among them.
fn reap(pid: i32) -> Option<i32> {
    let mut ended = None;
    while let Some((dead, status)) = sys::reap_one() {
        if dead == pid {
            ended = Some(crate::keeper::exit_code(status));
        }
    }
    ended
}

struct Proxy {
    master: OwnedFd,
    /// Typed, and not yet taken by the terminal.
    typed: Vec<u8>,
    stdin_open: bool,
    master_open: bool,
    _raw: Raw,
}

impl Proxy {
    fn new(master: OwnedFd) -> Self {
        let _ = fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)); // without it, input may wait for output
        let proxy = Self {
            master,
            typed: Vec::new(),
            stdin_open: true,
            master_open: true,
            _raw: Raw::new(std::io::stdin().as_fd()),
        };
        proxy.resize();
        proxy
    }

    fn resize(&self) {
        if let Some((rows, columns)) = sys::window_size(std::io::stdin().as_fd()) {
            let _ = sys::set_window_size(self.master.as_fd(), rows, columns); // ended meanwhile
        }
    }

    fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if self.master_open {
            let mut wanted = PollFlags::POLLIN;
            wanted.set(PollFlags::POLLOUT, !self.typed.is_empty());
            fds.push(PollFd::new(self.master.as_fd(), wanted));
        }
        if self.stdin_open && self.typed.is_empty() {
            fds.push(PollFd::new(sys::stdin(), PollFlags::POLLIN));
        }
    }

    fn pump(&mut self) {
        self.show();
        let mut buffer = [0u8; CHUNK_BYTES];
        if self.stdin_open && self.typed.is_empty() && readable(sys::stdin()) {
            match read(sys::stdin(), &mut buffer) {
                Ok(0) => self.stdin_open = false,
                Ok(count) => self.typed.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => self.stdin_open = false,
            }
        }
        if !self.typed.is_empty() {
            match write(&self.master, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => self.typed.clear(),
            }
        }
    }

    /// True = something was shown.
    fn show(&mut self) -> bool {
        let mut buffer = [0u8; CHUNK_BYTES];
        match read(&self.master, &mut buffer) {
            Ok(count) if count > 0 => {
                let mut left = buffer.get(..count).unwrap_or_default();
                while !left.is_empty() {
                    match write(std::io::stdout(), left) {
                        Ok(count) => left = left.get(count..).unwrap_or_default(),
                        Err(Errno::EINTR | Errno::EAGAIN) => {}
                        Err(_) => break,
                    }
                }
                true
            }
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            // EIO: nobody holds the other end any more.
            _ => {
                self.master_open = false;
                false
            }
        }
    }

    /// What was written before the end.
    fn drain(&mut self) {
        while self.master_open && self.show() {}
    }
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}
