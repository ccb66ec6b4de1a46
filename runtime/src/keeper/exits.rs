//! How containers ended that were handed to init, on kernels that do not tell it by pidfd (before 6.15).
//!
//! A container becomes somebody else's when its worker dies, and init's when the guard that took it over dies too. From the first of these moments
//! the worker of the time subscribes to the ends of such processes: the kernel queues each before anybody can reap it. Nothing is woken
//! by that; the queue is read when a pidfd says that one has ended. Needs CAP_NET_ADMIN on the host; without it, or in a container, the
//! race with init for the zombie remains.

use crate::sys;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// The first kernel whose pidfds tell the status of a reaped process (PIDFD_INFO_EXIT).
const BY_PIDFD: (u32, u32) = (6, 15);

#[derive(Default)]
pub(crate) struct Exits {
    socket: Option<OwnedFd>,
    known: BTreeMap<i32, i32>,
}

impl Exits {
    /// Of all processes, until [`Exits::narrow`]: who looks for strangers must hear them before.
    pub(crate) fn listen() -> Self {
        if by_pidfd(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()) {
            return Self::default();
        }
        Self { socket: Self::open(), known: BTreeMap::new() }
    }

    fn open() -> Option<OwnedFd> {
        let socket = sys::exit_news().ok()?;
        sys::exit_news_wanted(socket.as_fd()).ok()?;
        Some(socket)
    }

    /// Of these alone; none = no more.
    pub(crate) fn narrow(&mut self, pids: &[i32]) {
        let Some(socket) = &self.socket else { return };
        self.known.retain(|pid, _| pids.contains(pid));
        if pids.is_empty() || sys::exit_news_of(socket.as_fd(), pids).is_err() {
            *self = Self::default();
            return;
        }
        self.read(|pid| pids.contains(&pid));
    }

    /// Wait status of one that has ended.
    pub(crate) fn status(&mut self, pid: i32) -> Option<i32> {
        self.read(|_| true);
        self.known.get(&pid).copied()
    }

    fn read(&mut self, wanted: impl Fn(i32) -> bool) {
        while let Some((pid, status)) = self.socket.as_ref().and_then(|s| sys::next_exit(s.as_fd())) {
            if wanted(pid) {
                self.known.insert(pid, status);
            }
        }
    }
}

fn by_pidfd(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= BY_PIDFD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        for (release, wanted) in [
            ("6.15.0", true),
            ("6.14.11-x", false),
            ("7.0-rc1", true),
            ("5.15.0-generic", false),
            ("6.18.44", true),
            ("", false),
        ] {
            assert_eq!(by_pidfd(release), wanted, "{release}");
        }
    }

    /// Needs root and a kernel with CONFIG_PROC_EVENTS, as distributions have.
    #[test]
    fn ends_are_heard_before_and_after_they_are_reaped() {
        let mut exits = Exits { socket: Exits::open(), known: BTreeMap::new() };
        assert!(exits.socket.is_some());
        let run = |script: &str| std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let mut early = run("exit 3");
        let early_pid = early.id() as i32;
        early.wait().unwrap();
        let (mut killed, mut other) = (run("kill -9 $$; exit 1"), run("read x; exit 4"));
        let killed_pid = killed.id() as i32;
        exits.narrow(&[early_pid, killed_pid]);
        assert_eq!(exits.status(early_pid), Some(3 << 8), "queued before it was asked for");
        killed.wait().unwrap();
        other.wait().unwrap();
        assert_eq!(exits.status(killed_pid).map(|s| s & 0x7f), Some(9));
        assert_eq!(exits.status(other.id() as i32), None, "not asked for");
        exits.narrow(&[]);
        assert!(exits.socket.is_none());
    }
}
