//! A descriptor of a container's first process, for who wants to know its end even if nobody of the keeper saw it.

use super::protocol::{Exit, Listed, State};
use super::record::start_time;
use crate::sys;
use std::os::fd::{AsFd, OwnedFd};

/// Kept by the agent, one for each container: kernels from 6.15 on tell by it how the process ended, whoever reaped it and however long ago.
pub struct Witness(OwnedFd);

impl Witness {
    /// `None` when it has ended already and been reaped.
    pub fn of(listed: &Listed) -> Option<Self> {
        let pidfd = sys::pidfd_open(listed.pid).ok().filter(|_| listed.pid > 1)?;
        // Asked after the opening, so it is the very process.
        (start_time(listed.pid) == Some(listed.start_time)).then_some(Self(pidfd))
    }

    /// Mends an exit whose code the keeper could not learn. What it says otherwise stands.
    pub fn mend(&self, exit: &mut Exit) {
        if exit.note.is_empty() {
            return;
        }
        if let Some(status) = sys::pidfd_exit_status(self.0.as_fd()) {
            *exit = Exit { oom_killed: exit.oom_killed, finished_at: exit.finished_at, ..Exit::of(status) };
        }
    }

    /// The same of what a keeper lists.
    pub fn mend_listed(&self, listed: &mut Listed) {
        if let State::Exited(exit) = &mut listed.state {
            self.mend(exit);
        }
    }
}
