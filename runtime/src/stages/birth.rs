//! The clone: one clone3 into all new namespaces, or, where a user or time namespace is made or a user namespace joined, by way of a
//! process in between that enters those first and then has the container's process as *our* child (CLONE_PARENT).

use super::namespaces::{self, PidNamespace};
use super::report::{self, Fault, at, errno, plain};
use super::{Launched, Parent, pipe, run_child, userns};
use crate::cgroup;
use crate::container::extras::Extras;
use crate::container::{Namespace, NamespaceKind, Rlimit};
use crate::sys::{self, Cloned};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the clone itself has to make. The cgroup namespace is made in the child, once it sits in its group: its root is where its
/// maker is. User and time namespaces are the process's in between.
fn flags(namespaces: &[Namespace]) -> u64 {
    let late = [NamespaceKind::Cgroup, NamespaceKind::User, NamespaceKind::Time];
    let made = namespaces.iter().filter(|n| n.path.is_none() && !late.contains(&n.kind));
    made.fold(0, |all, n| all | namespaces::flag(n.kind).bits() as u32 as u64)
}

fn needs_between(namespaces: &[Namespace]) -> bool {
    namespaces.iter().any(|n| n.kind == NamespaceKind::User || (n.kind == NamespaceKind::Time && n.path.is_none()))
}

pub(super) fn clone(parent: &mut Parent<'_>) -> Result<(), Fault> {
    let launch = parent.launch;
    let container = launch.container;
    let hooks = &launch.extras.hooks;
    let wait = !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty() && launch.extras.devices.is_empty());
    let (report, child_end) = pipe()?;
    let (answer_end, answer) = if wait { pipe().map(|(r, w)| (Some(r), Some(w)))? } else { (None, None) };
    let born_in = cgroup::open_for_clone(launch.layout, &container.cgroup.path);
    let born_in = born_in.as_ref().map(AsFd::as_fd);
    let flags = flags(&container.namespaces);
    let cloned = if needs_between(&container.namespaces) {
        let between = Between {
            joins: namespaces::open_all(&container.namespaces)?,
            make_user: container.namespaces.iter().any(|n| n.kind == NamespaceKind::User && n.path.is_none()),
            make_time: container.namespaces.iter().any(|n| n.kind == NamespaceKind::Time && n.path.is_none()),
            extras: launch.extras,
            rlimits: &container.process.rlimits,
            flags,
        };
        between.cross(born_in)?
    } else {
        let pid = container.namespaces.iter().find(|n| n.kind == NamespaceKind::Pid).and_then(namespaces::open);
        let _guard = PidNamespace::enter(pid.transpose()?)?;
        sys::clone3(flags, born_in).map_err(at("clone", "container"))?
    };
    match cloned {
        Cloned::Child => {
            drop(report);
            drop(answer);
            run_child(parent, child_end.into(), answer_end)
        }
        Cloned::Parent { pid, pidfd } => {
            if parent.waiting.take().is_some() {
                let tracked = cgroup::track(launch.layout, &container.cgroup.path, pid);
                tracked.map_err(|e| plain(e.to_string()))?;
            }
            parent.launched = Some(Launched { pid, pidfd, report, answer, warnings: Vec::new() });
            Ok(())
        }
    }
}

/// The process in between.
pub(super) struct Between<'a> {
    /// Namespaces to join. Those of the host's are entered while we still may; those that belong to the user namespace after it.
    pub(super) joins: Vec<(CloneFlags, OwnedFd)>,
    pub(super) make_user: bool,
    pub(super) make_time: bool,
    pub(super) extras: &'a Extras,
    pub(super) rlimits: &'a [Rlimit],
    /// For the clone that follows.
    pub(super) flags: u64,
}

const MAP: u8 = b'M';
const BORN: u8 = b'B';

impl Between<'_> {
    /// As clone3: returns twice.
    pub(super) fn cross(&self, born_in: Option<BorrowedFd<'_>>) -> Result<Cloned, Fault> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(at("make", "socket pair"))?;
        let (mut ours, mut theirs) = (File::from(ours), File::from(theirs));
        match sys::clone3(0, born_in).map_err(at("clone", "process in between"))? {
            Cloned::Child => {
                drop(ours);
                match self.enter(&mut theirs) {
                    Ok(Cloned::Child) => Ok(Cloned::Child),
                    Ok(Cloned::Parent { pid, .. }) => {
                        let [a, b, c, d] = pid.to_ne_bytes();
                        let _ = theirs.write_all(&[BORN, a, b, c, d]); // a dead parent needs no answer
                        sys::exit_now(0)
                    }
                    Err(fault) => {
                        report::write_failure(&mut theirs, &fault.failure("user namespace"));
                        sys::exit_now(1)
                    }
                }
            }
            Cloned::Parent { pid, .. } => {
                drop(theirs);
                let born = self.attend(pid, &mut ours);
                drop(ours); // it may wait for us: let it see the end
                let _ = waitpid(Pid::from_raw(pid), None); // it has ended, or does now
                let born = born?;
                let pidfd = sys::pidfd_open(born).map_err(at("open pidfd of", born))?;
                Ok(Cloned::Parent { pid: born, pidfd })
            }
        }
    }

    /// The parent's side: maps when asked for, then the pid.
    fn attend(&self, pid: i32, socket: &mut File) -> Result<i32, Fault> {
        let mut heard = report::Heard::default();
        loop {
            let mut kind = [0u8; 1];
            let read = socket.read(&mut kind).unwrap_or(0);
            match (read, kind) {
                (1, [MAP]) => {
                    userns::write_maps(pid, self.extras)?;
                    socket.write_all(b"!").map_err(|e| at("answer", "process in between")(errno(&e)))?;
                }
                (1, [BORN]) => {
                    let mut number = [0u8; 4];
                    socket.read_exact(&mut number).map_err(|e| at("read", "pid")(errno(&e)))?;
                    return Ok(i32::from_ne_bytes(number));
                }
                (1, [byte]) => {
                    let mut rest = vec![byte];
                    let _ = socket.read_to_end(&mut rest); // what came is judged
                    heard.push(&rest);
                    break;
                }
                _ => break,
            }
        }
        Err(match heard.failure {
            Some(failure) => Fault { what: failure.message, errno: Errno::UnknownErrno },
            None => plain("enter user namespace: the process in between died"),
        })
    }

    fn enter(&self, socket: &mut File) -> Result<Cloned, Fault> {
        userns::prepare(self.rlimits);
        let mut late: Vec<&(CloneFlags, OwnedFd)> = Vec::new();
        let user = CloneFlags::CLONE_NEWUSER;
        for join in &self.joins {
            if join.0 == user || setns(&join.1, join.0).is_err() {
                late.push(join);
            }
        }
        late.sort_by_key(|(flag, _)| *flag != user);
        for (flag, file) in late {
            match setns(file, *flag) {
                // One's own user namespace cannot be joined, and need not.
                Err(Errno::EINVAL) if *flag == user => {}
                result => result.map_err(at("join", "namespace by path"))?,
            }
        }
        if self.make_user {
            unshare(user).map_err(at("make", "user namespace"))?;
            let mut answer = [0u8; 1];
            socket
                .write_all(&[MAP])
                .and_then(|()| socket.read_exact(&mut answer))
                .map_err(|e| at("ask for", "id maps")(errno(&e)))?;
        }
        if self.make_time {
            time_namespace(self.extras)?;
        }
        sys::clone3(self.flags | sys::CLONE_PARENT, None).map_err(at("clone", "container"))
    }
}

/// Offsets can only be set while the namespace is empty; we stay outside, our child is born inside.
fn time_namespace(extras: &Extras) -> Result<(), Fault> {
    unshare(CloneFlags::from_bits_retain(sys::CLONE_NEWTIME as i32)).map_err(at("make", "time namespace"))?;
    for (clock, seconds, nanoseconds) in &extras.time_offsets {
        let line = format!("{clock} {seconds} {nanoseconds}\n");
        std::fs::write("/proc/self/timens_offsets", &line)
            .map_err(|e| at("set time offset", line.trim())(errno(&e)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_namespaces_come_later() {
        let all =
            [NamespaceKind::Mount, NamespaceKind::Cgroup, NamespaceKind::User, NamespaceKind::Time].map(Namespace::new);
        assert_eq!(flags(&all), CloneFlags::CLONE_NEWNS.bits() as u64);
        assert!(needs_between(&all) && !needs_between(&all[..2]));
        let joined = [Namespace::join(NamespaceKind::Time, "/x"), Namespace::join(NamespaceKind::Mount, "/x")];
        assert!(!needs_between(&joined) && flags(&joined) == 0);
    }
}
