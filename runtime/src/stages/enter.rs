//! A process inside a running container: joins the namespaces and groups of its first process, then the last stages of a start.

use super::report::{Fault, at, errno};
use super::{Child, ChildStage, Launched, PidNamespace, enter_cgroup, fail, pipe, program, session};
use crate::cgroup::{self, Layout};
use crate::container::{Cgroup, Container, Process};
use crate::keeper::protocol::Failure;
use crate::sys::{self, Cloned};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// A process to run inside a running container.
pub(crate) struct Enter<'a> {
    pub(crate) process: &'a Process,
    pub(crate) cgroup: &'a str,
    pub(crate) layout: &'a Layout,
    /// The container's first process.
    pub(crate) target: &'a OwnedFd,
    /// stdout and stderr; absent = inherit all three.
    pub(crate) output: Option<&'a OwnedFd>,
}

/// Namespaces an exec joins when they differ from ours; joining one's own is harmless.
const ENTERED: [CloneFlags; 5] = [
    CloneFlags::CLONE_NEWNET,
    CloneFlags::CLONE_NEWIPC,
    CloneFlags::CLONE_NEWUTS,
    CloneFlags::CLONE_NEWCGROUP,
    CloneFlags::CLONE_NEWNS,
];

pub(crate) fn enter(enter: &Enter<'_>) -> Result<Launched, Failure> {
    let start = || {
        let (report, child_end) = pipe()?;
        let born_in = cgroup::open_for_clone(enter.layout, enter.cgroup);
        let target = enter.target.try_clone().map_err(|e| at("copy", "pidfd")(errno(&e)))?;
        let _guard = PidNamespace::enter(Some(target))?;
        match sys::clone3(0, born_in.as_ref().map(AsFd::as_fd)).map_err(at("clone", "exec"))? {
            Cloned::Child => {
                drop(report);
                run_entered(enter, child_end.into())
            }
            Cloned::Parent { pid, pidfd } => Ok(Launched { pid, pidfd, report, warnings: Vec::new() }),
        }
    };
    start().map_err(|fault: Fault| fault.failure("exec"))
}

fn run_entered(enter: &Enter<'_>, report: File) -> ! {
    let cgroup = Cgroup { path: enter.cgroup.to_owned(), ..Cgroup::default() };
    let container = Container { process: enter.process.clone(), cgroup, ..Container::default() };
    let mut report = report;
    let prepare = || -> Result<OwnedFd, Fault> {
        let null =
            File::options().read(true).write(true).open("/dev/null").map_err(|e| at("open", "/dev/null")(errno(&e)))?;
        if let Some(output) = enter.output {
            nix::unistd::dup2_stdin(&null)
                .and_then(|()| nix::unistd::dup2_stdout(output))
                .and_then(|()| nix::unistd::dup2_stderr(output))
                .map_err(at("connect", "stdio"))?;
        }
        Ok(null.into())
    };
    let null = match prepare() {
        Ok(null) => null,
        Err(fault) => fail(&mut report, &fault, "stdio"),
    };
    let mut child = Child {
        container: &container,
        layout: enter.layout,
        scratch: Path::new("/"),
        report,
        null,
        root: None,
        hold: None,
        program: None,
        listener: None,
    };
    let stages: [ChildStage; 7] = [
        ("session", session),
        ("seccomp listener", program::connect_listener),
        ("cgroup", enter_cgroup),
        ("rlimits", program::rlimits),
        ("identity", program::identity),
        ("find program", program::find),
        ("exec", program::exec),
    ];
    for (name, stage) in stages {
        let joined =
            if name == "rlimits" { join_target(enter).and_then(|()| program::cwd(&mut child)) } else { Ok(()) };
        if let Err(fault) = joined.and_then(|()| stage(&mut child)) {
            fail(&mut child.report, &fault, name);
        }
    }
    sys::exit_now(1)
}

fn join_target(enter: &Enter<'_>) -> Result<(), Fault> {
    for flag in ENTERED {
        setns(enter.target, flag).map_err(at("join", "namespaces of the container"))?;
    }
    Ok(())
}
