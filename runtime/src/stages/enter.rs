//! A process inside a running container: joins the namespaces and groups of its first process, then the last stages of a start.

use super::birth::Between;
use super::namespaces::{PidNamespace, differs};
use super::report::{Fault, at, errno, plain};
use super::{Child, Launch, Launched, fail, group, pipe, program, scheduling, session, stdio, terminal, userns};
use crate::cgroup::{self, Layout};
use crate::container::extras::Extras;
use crate::container::{Cgroup, Container, Process};
use crate::failure::Failure;
use crate::sys::{self, Cloned};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::LazyLock;

/// A process to run inside a running container.
pub(crate) struct Enter<'a> {
    pub(crate) process: &'a Process,
    pub(crate) cgroup: &'a str,
    pub(crate) layout: &'a Layout,
    /// The container's first process.
    pub(crate) target: &'a OwnedFd,
    /// stdin, stdout, stderr; absent = inherit all three.
    pub(crate) stdio: Option<[BorrowedFd<'a>; 3]>,
    pub(crate) extras: &'a Extras,
    /// Gets the master of the process's terminal.
    pub(crate) console: Option<BorrowedFd<'a>>,
}

/// Namespaces an exec joins where they differ from ours; the mount namespace last.
const ENTERED: [(&str, CloneFlags); 6] = [
    ("net", CloneFlags::CLONE_NEWNET),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("time", CloneFlags::from_bits_retain(sys::CLONE_NEWTIME as i32)),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

pub(crate) fn enter(enter: &Enter<'_>) -> Result<Launched, Failure> {
    LazyLock::force(&program::OWN_EXECUTABLE);
    let start = || {
        let pid = pid_of(enter.target)?;
        let (report, child_end) = pipe()?;
        let born_in = cgroup::open_for_clone(enter.layout, enter.cgroup);
        let born_in = born_in.as_ref().map(AsFd::as_fd);
        let cloned = if differs(pid, "user") {
            through_user_namespace(enter, pid, born_in)?
        } else {
            let target = enter.target.try_clone().map_err(|e| at("copy", "pidfd")(errno(&e)))?;
            let _guard = PidNamespace::enter(Some(target))?;
            sys::clone3(0, born_in).map_err(at("clone", "exec"))?
        };
        match cloned {
            Cloned::Child => {
                drop(report);
                run_entered(enter, pid, child_end.into())
            }
            Cloned::Parent { pid, pidfd } => Ok(Launched { pid, pidfd, report, answer: None, warnings: Vec::new() }),
        }
    };
    start().map_err(|fault: Fault| fault.failure("exec"))
}

fn through_user_namespace(enter: &Enter<'_>, pid: i32, born_in: Option<BorrowedFd<'_>>) -> Result<Cloned, Fault> {
    let mut joins = Vec::new();
    let kinds = ENTERED.iter().filter(|(name, _)| *name != "mnt");
    for (name, flag) in kinds.chain(&[("pid", CloneFlags::CLONE_NEWPID), ("user", CloneFlags::CLONE_NEWUSER)]) {
        if differs(pid, name) {
            let path = format!("/proc/{pid}/ns/{name}");
            joins.push((*flag, File::open(&path).map_err(|e| at("open", &path)(errno(&e)))?.into()));
        }
    }
    let rlimits = &enter.process.rlimits;
    Between { joins, make_user: false, make_time: false, extras: enter.extras, rlimits, flags: 0 }.cross(born_in)
}

fn run_entered(enter: &Enter<'_>, pid: i32, report: File) -> ! {
    let cgroup = Cgroup { path: enter.cgroup.to_owned(), ..Cgroup::default() };
    let container = Container { process: enter.process.clone(), cgroup, ..Container::default() };
    let launch = Launch {
        extras: enter.extras,
        console: enter.console,
        ..Launch::plain(&container, Path::new("/"), enter.layout)
    };
    let mut child = Child::new(&launch, report);
    // Looked up while /proc is the host's.
    let kinds: Vec<CloneFlags> = ENTERED.iter().filter(|(name, _)| differs(pid, name)).map(|(_, flag)| *flag).collect();
    let other_user = differs(pid, "user");
    type Step<'s> = (&'static str, &'s dyn Fn(&mut Child<'_>) -> Result<(), Fault>);
    let affinity = &enter.extras.process.cpu_affinity;
    let steps: [Step<'_>; 14] = [
        ("stdio", &|_| out_of_reach().and_then(|()| enter.stdio.map_or(Ok(()), stdio::wire))),
        ("session", &session),
        ("seccomp listener", &program::connect_listener),
        ("cpu affinity", &|_| scheduling::affinity(affinity.0.as_ref())),
        ("cgroup", &group::enter),
        ("cpu affinity", &|_| scheduling::affinity(affinity.1.as_ref())),
        ("scheduling", &scheduling::before),
        ("namespaces", &|_| join_target(enter, &kinds)),
        ("user namespace", &|_| if other_user { userns::root_inside() } else { Ok(()) }),
        ("terminal", &terminal::connect),
        ("rlimits", &program::rlimits),
        ("cwd", &program::cwd),
        ("identity", &program::identity),
        ("find program", &program::find),
    ];
    for (name, step) in steps {
        if let Err(fault) = step(&mut child) {
            fail(&mut child.report, &fault, name);
        }
    }
    match program::exec(&mut child) {
        Err(fault) => fail(&mut child.report, &fault, "exec"),
        Ok(()) => sys::exit_now(1),
    }
}

/// We are among the container's processes now, and not yet its program: by /proc/PID/exe one of them could get hold of the runtime's file
/// (CVE-2019-5736). The execve to come lifts it again.
fn out_of_reach() -> Result<(), Fault> {
    // An ordinary user's files under /proc would become root's, and he could not set himself up; nor can he be made to overwrite anything.
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    nix::sys::prctl::set_dumpable(false).map_err(at("hide", "exec process"))
}

fn join_target(enter: &Enter<'_>, kinds: &[CloneFlags]) -> Result<(), Fault> {
    for kind in kinds {
        setns(enter.target, *kind).map_err(at("join", "namespaces of the container"))?;
    }
    Ok(())
}

/// Of the process a pidfd stands for, in our PID namespace.
fn pid_of(pidfd: &OwnedFd) -> Result<i32, Fault> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path).map_err(|e| at("read", &path)(errno(&e)))?;
    let pid = text.lines().find_map(|l| l.strip_prefix("Pid:")).and_then(|n| n.trim().parse().ok());
    pid.filter(|p| *p > 0).ok_or_else(|| plain("exec: the container's process is gone"))
}
