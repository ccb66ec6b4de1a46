//! How a container starts: two ordered tables. The parent's stages each have an undo; the child's live in namespaces that vanish with it.
//!
//! `launch` runs the parent's table up to clone3 and returns at once; what the child meets is heard on a pipe ([`report`]). When it
//! reports a failure the caller runs [`undo`]. Only single-threaded programs may call: the keeper and the OCI command line.

mod enter;
mod mounts;
mod options;
mod program;
pub(crate) mod report;
pub(crate) mod rooted;
mod rootfs;

pub(crate) use enter::{Enter, enter};
pub(crate) use mounts::{sysctl_path, write_sysctl};

use crate::cgroup::{self, Layout};
use crate::container::{Cgroup, Container, NamespaceKind, Rootfs, Stdio, valid_id};
use crate::keeper::protocol::{Failure, FailureKind};
use crate::sys::{self, Cloned};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use report::{Fault, at, errno, plain};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Names of the FIFOs in a container's run folder.
pub(crate) const OUT: &str = "out";
pub(crate) const ERR: &str = "err";
pub(crate) const GO: &str = "go";
pub(crate) const RESULT: &str = "result";

/// One start.
pub(crate) struct Launch<'a> {
    pub(crate) container: &'a Container,
    /// The container's run folder: FIFOs lie here, and the overlay is mounted over it (in the container's mount namespace only).
    pub(crate) scratch: &'a Path,
    pub(crate) layout: &'a Layout,
    /// Stop before exec until someone writes to the `go` FIFO (OCI create/start).
    pub(crate) hold: bool,
}

pub(crate) struct Launched {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// Read end of the child's report.
    pub(crate) report: OwnedFd,
    pub(crate) warnings: Vec<String>,
}

/// State of the parent's table.
struct Parent<'a> {
    launch: &'a Launch<'a>,
    warnings: Vec<String>,
    launched: Option<(i32, OwnedFd, OwnedFd)>,
}

struct ParentStage {
    name: &'static str,
    run: fn(&mut Parent<'_>) -> Result<(), Fault>,
    /// Tolerates "never done".
    undo: fn(&Launch<'_>),
}

const PARENT: [ParentStage; 4] = [
    ParentStage { name: "check", run: check, undo: |_| {} },
    ParentStage { name: "cgroup", run: make_cgroup, undo: remove_cgroup },
    ParentStage { name: "stdio", run: make_fifos, undo: remove_fifos },
    ParentStage { name: "clone", run: clone, undo: |_| {} },
];

/// State of the child's table.
pub(crate) struct Child<'a> {
    pub(crate) container: &'a Container,
    pub(crate) layout: &'a Layout,
    scratch: &'a Path,
    /// Where reports go; replaced by the `result` FIFO once held.
    report: File,
    /// The host's /dev/null.
    null: OwnedFd,
    /// Future root, once there is one apart from `/`.
    root: Option<OwnedFd>,
    hold: Option<(File, File)>,
    program: Option<program::Program>,
    listener: Option<program::Listener>,
}

impl Child<'_> {
    fn root(&self) -> Result<&OwnedFd, Fault> {
        self.root
            .as_ref()
            .ok_or_else(|| plain("mounts, devices and paths need a root file system and a mount namespace"))
    }
    fn warn(&mut self, text: &str) {
        report::write_record(&mut self.report, report::WARNING, text.as_bytes());
    }
    fn has(&self, kind: NamespaceKind) -> bool {
        self.container.namespaces.iter().any(|n| n.kind == kind)
    }
}

type ChildStage = (&'static str, fn(&mut Child<'_>) -> Result<(), Fault>);

const CHILD: [ChildStage; 20] = [
    ("session", session),
    ("seccomp listener", program::connect_listener),
    ("cgroup", enter_cgroup),
    ("stdio", open_stdio),
    ("namespaces", join_namespaces),
    ("hostname", hostname),
    ("oom", oom_score),
    ("propagation", rootfs::propagation),
    ("rootfs", rootfs::root),
    ("mounts", mounts::mounts),
    ("devices", mounts::devices),
    ("sysctls", mounts::sysctls),
    ("readonly paths", mounts::readonly_paths),
    ("masked paths", mounts::masked_paths),
    ("pivot", rootfs::pivot),
    ("rlimits", program::rlimits),
    ("cwd", program::cwd),
    ("identity", program::identity),
    ("find program", program::find),
    ("exec", program::exec),
];

pub(crate) fn launch(launch: &Launch<'_>) -> Result<Launched, Failure> {
    let mut parent = Parent { launch, warnings: Vec::new(), launched: None };
    for (done, stage) in PARENT.iter().enumerate() {
        if let Err(fault) = (stage.run)(&mut parent) {
            PARENT.iter().take(done).rev().for_each(|s| (s.undo)(launch));
            return Err(fault.failure(stage.name));
        }
    }
    let (pid, pidfd, report) =
        parent.launched.take().ok_or_else(|| Failure::new(FailureKind::Stage, "clone: no child"))?;
    Ok(Launched { pid, pidfd, report, warnings: parent.warnings })
}

/// Everything the parent's stages made, after the child is dead and reaped.
pub(crate) fn undo(launch: &Launch<'_>) {
    PARENT.iter().rev().for_each(|s| (s.undo)(launch));
}

fn check(parent: &mut Parent<'_>) -> Result<(), Fault> {
    let container = parent.launch.container;
    if !valid_id(&container.id) {
        return Err(plain(format!("container id {:?}: invalid", container.id)));
    }
    if container.process.args.first().is_none_or(String::is_empty) {
        return Err(plain("process has no arguments"));
    }
    for kind in [NamespaceKind::User, NamespaceKind::Time] {
        if container.namespaces.iter().any(|n| n.kind == kind) {
            return Err(plain(format!("{kind:?} namespaces are not supported by this build")));
        }
    }
    if let Rootfs::Overlay { upper, work, lower, .. } = &container.rootfs {
        if lower.is_empty() {
            return Err(plain("overlay root file system without layers"));
        }
        for dir in [upper, work] {
            std::fs::create_dir_all(dir).map_err(|e| at("make folder", dir.display())(errno(&e)))?;
        }
    }
    Ok(())
}

fn make_cgroup(parent: &mut Parent<'_>) -> Result<(), Fault> {
    let Cgroup { path, resources } = &parent.launch.container.cgroup;
    if path.is_empty() {
        return Ok(());
    }
    let warnings = cgroup::create(parent.launch.layout, path, resources).map_err(|e| plain(e.to_string()))?;
    parent.warnings.extend(warnings);
    Ok(())
}

fn remove_cgroup(launch: &Launch<'_>) {
    let path = &launch.container.cgroup.path;
    if !path.is_empty() {
        let _ = cgroup::remove(launch.layout, path); // the failure that brought us here is the one to tell
    }
}

fn fifos(launch: &Launch<'_>) -> Vec<PathBuf> {
    let names: &[&str] = match (&launch.container.stdio, launch.hold) {
        (Stdio::Log(_), true) => &[OUT, ERR, GO, RESULT],
        (Stdio::Log(_), false) => &[OUT, ERR],
        (_, true) => &[GO, RESULT],
        _ => &[],
    };
    names.iter().map(|n| launch.scratch.join(n)).collect()
}

fn make_fifos(parent: &mut Parent<'_>) -> Result<(), Fault> {
    for fifo in fifos(parent.launch) {
        match nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(at("make fifo", fifo.display())(e)),
        }
    }
    Ok(())
}

fn remove_fifos(launch: &Launch<'_>) {
    for fifo in fifos(launch) {
        let _ = std::fs::remove_file(fifo); // never made, or gone
    }
}

fn clone_flag(kind: NamespaceKind) -> CloneFlags {
    match kind {
        NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
        NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
        NamespaceKind::Network => CloneFlags::CLONE_NEWNET,
        NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
        NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
        NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        NamespaceKind::User => CloneFlags::CLONE_NEWUSER,
        NamespaceKind::Time => CloneFlags::from_bits_retain(sys::CLONE_NEWTIME as i32),
    }
}

/// setns for a PID namespace moves children only; back again afterwards.
struct PidNamespace(Option<OwnedFd>);

impl PidNamespace {
    fn enter(target: Option<OwnedFd>) -> Result<Self, Fault> {
        let Some(target) = target else { return Ok(Self(None)) };
        let own = File::open("/proc/self/ns/pid").map_err(|e| at("open", "/proc/self/ns/pid")(errno(&e)))?;
        setns(&target, CloneFlags::CLONE_NEWPID).map_err(at("join", "pid namespace"))?;
        Ok(Self(Some(own.into())))
    }
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        if let Some(own) = &self.0 {
            // Cannot fail: our own namespace, by a descriptor opened before.
            let _ = setns(own, CloneFlags::CLONE_NEWPID);
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Fault> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(at("make", "pipe"))
}

fn clone(parent: &mut Parent<'_>) -> Result<(), Fault> {
    let launch = parent.launch;
    let mut flags = 0u64;
    let mut pid_namespace = None;
    for namespace in &launch.container.namespaces {
        match (&namespace.path, namespace.kind) {
            // Made in the child, once it sits in its cgroup: the namespace's root is where its maker is.
            (None, NamespaceKind::Cgroup) => {}
            (None, kind) => flags |= clone_flag(kind).bits() as u32 as u64,
            (Some(path), NamespaceKind::Pid) => {
                pid_namespace = Some(File::open(path).map_err(|e| at("open", path.display())(errno(&e)))?.into());
            }
            (Some(_), _) => {}
        }
    }
    let (report, child_end) = pipe()?;
    let born_in = cgroup::open_for_clone(launch.layout, &launch.container.cgroup.path);
    let cloned = {
        let _guard = PidNamespace::enter(pid_namespace)?;
        sys::clone3(flags, born_in.as_ref().map(AsFd::as_fd)).map_err(at("clone", "container"))?
    };
    match cloned {
        Cloned::Child => {
            drop(report);
            run_child(launch, child_end.into())
        }
        Cloned::Parent { pid, pidfd } => {
            parent.launched = Some((pid, pidfd, report));
            Ok(())
        }
    }
}

fn run_child(launch: &Launch<'_>, mut report: File) -> ! {
    let null = match File::options().read(true).write(true).open("/dev/null") {
        Ok(file) => file.into(),
        Err(e) => {
            report::write_failure(&mut report, &at("open", "/dev/null")(errno(&e)).failure("stdio"));
            sys::exit_now(1)
        }
    };
    let mut child = Child {
        container: launch.container,
        layout: launch.layout,
        scratch: launch.scratch,
        report,
        null,
        root: None,
        hold: None,
        program: None,
        listener: None,
    };
    if launch.hold {
        match open_hold(launch.scratch) {
            Ok(fifos) => child.hold = Some(fifos),
            Err(fault) => fail(&mut child.report, &fault, "hold"),
        }
    }
    for (name, stage) in CHILD {
        if let Err(fault) = stage(&mut child) {
            fail(&mut child.report, &fault, name);
        }
    }
    sys::exit_now(1)
}

fn fail(report: &mut File, fault: &Fault, stage: &str) -> ! {
    report::write_failure(report, &fault.failure(stage));
    sys::exit_now(1)
}

/// Read-write: the FIFO then never shows an end of file, and nobody waits for us to open it.
fn open_both(path: &Path) -> Result<File, Fault> {
    File::options().read(true).write(true).open(path).map_err(|e| at("open", path.display())(errno(&e)))
}

fn open_hold(scratch: &Path) -> Result<(File, File), Fault> {
    Ok((open_both(&scratch.join(GO))?, open_both(&scratch.join(RESULT))?))
}

fn session(_: &mut Child<'_>) -> Result<(), Fault> {
    sys::signal_mask_clear();
    sys::close_on_exec_from(3);
    nix::sys::stat::umask(Mode::empty());
    // EPERM = already a leader (mote-oci run in the foreground keeps the terminal's session otherwise).
    let _ = nix::unistd::setsid();
    Ok(())
}

fn enter_cgroup(child: &mut Child<'_>) -> Result<(), Fault> {
    let path = &child.container.cgroup.path;
    if !path.is_empty() && !child.layout.v1.is_empty() {
        cgroup::enter_self(child.layout, path).map_err(|e| plain(e.to_string()))?;
    }
    if child.container.namespaces.iter().any(|n| n.kind == NamespaceKind::Cgroup && n.path.is_none()) {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(at("make", "cgroup namespace"))?;
    }
    Ok(())
}

fn open_stdio(child: &mut Child<'_>) -> Result<(), Fault> {
    let wire = at("connect", "stdio");
    let user = &child.container.process.user;
    match &child.container.stdio {
        Stdio::Inherit => return Ok(()),
        Stdio::Null => nix::unistd::dup2_stdin(&child.null)
            .and_then(|()| nix::unistd::dup2_stdout(&child.null))
            .and_then(|()| nix::unistd::dup2_stderr(&child.null)),
        Stdio::Log(_) => {
            let (out, err) = (open_both(&child.scratch.join(OUT))?, open_both(&child.scratch.join(ERR))?);
            for fifo in [&out, &err] {
                // So that the program may open /dev/stdout anew, as web servers do with their logs.
                let (uid, gid) = (nix::unistd::Uid::from_raw(user.uid), nix::unistd::Gid::from_raw(user.gid));
                nix::unistd::fchown(fifo, Some(uid), Some(gid)).map_err(at("chown", "log fifo"))?;
            }
            nix::unistd::dup2_stdin(&child.null)
                .and_then(|()| nix::unistd::dup2_stdout(&out))
                .and_then(|()| nix::unistd::dup2_stderr(&err))
        }
    }
    .map_err(wire)
}

fn join_namespaces(child: &mut Child<'_>) -> Result<(), Fault> {
    // All opened before the first is joined: a mount namespace would take the paths away.
    let mut joins = Vec::new();
    for namespace in &child.container.namespaces {
        if let (Some(path), true) = (&namespace.path, namespace.kind != NamespaceKind::Pid) {
            let file = File::open(path).map_err(|e| at("open", path.display())(errno(&e)))?;
            joins.push((file, namespace.kind, path));
        }
    }
    joins.sort_by_key(|(_, kind, _)| *kind == NamespaceKind::Mount);
    for (file, kind, path) in joins {
        setns(&file, clone_flag(kind)).map_err(at("join namespace", path.display()))?;
    }
    Ok(())
}

fn hostname(child: &mut Child<'_>) -> Result<(), Fault> {
    if let Some(name) = &child.container.hostname {
        if !child.has(NamespaceKind::Uts) {
            return Err(plain("set hostname: needs a UTS namespace"));
        }
        nix::unistd::sethostname(name).map_err(at("set hostname", name))?;
    }
    if let Some(name) = &child.container.domainname {
        std::fs::write("/proc/sys/kernel/domainname", name).map_err(|e| at("set domainname", name)(errno(&e)))?;
    }
    Ok(())
}

fn oom_score(child: &mut Child<'_>) -> Result<(), Fault> {
    let Some(score) = child.container.process.oom_score_adj else { return Ok(()) };
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            child.warn(&format!("oom_score_adj {score}: lowering it is not permitted here (no CAP_SYS_RESOURCE)"));
            Ok(())
        }
        Err(e) => Err(at("set oom_score_adj", score)(errno(&e))),
    }
}
