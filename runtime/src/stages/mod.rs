//! How a container starts: two ordered tables. The parent's stages each have an undo; the child's live in namespaces that vanish with it.
//!
//! `launch` runs the parent's table up to clone3 and returns at once; what the child meets is heard on a pipe ([`report`]). When it
//! reports a failure the caller runs [`undo`]. Only single-threaded programs may call: the keeper and the OCI command line.

mod birth;
mod copy_up;
mod enter;
mod group;
pub(crate) mod hooks;
mod mounts;
mod namespaces;
pub(crate) mod netdev;
mod options;
mod program;
pub(crate) mod report;
pub(crate) mod rooted;
mod rootfs;
mod scheduling;
mod stdio;
mod terminal;
mod userns;

pub(crate) use enter::{Enter, enter};
pub(crate) use mounts::{sysctl_path, write_sysctl};
pub(crate) use netdev::valid_name as netdev_name;
pub(crate) use options::known as mount_options;
pub(crate) use stdio::{ERR, GO, IN, IN_ONCE, OUT, RESULT};

use crate::cgroup::Layout;
use crate::cgroup::rdt::Groups;
use crate::cgroup::systemd::Unit;
use crate::container::extras::Extras;
use crate::container::{Container, NamespaceKind, Rootfs, valid_id};
use crate::failure::{Failure, FailureKind};
use crate::sys;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use report::{Fault, at, errno, plain};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// One start.
pub(crate) struct Launch<'a> {
    pub(crate) container: &'a Container,
    /// The container's run folder: FIFOs lie here, and the overlay is mounted over it (in the container's mount namespace only).
    pub(crate) scratch: &'a Path,
    pub(crate) layout: &'a Layout,
    /// Stop before exec until someone writes to the `go` FIFO (OCI create/start).
    pub(crate) hold: bool,
    pub(crate) extras: &'a Extras,
    /// Gets the master of the container's terminal.
    pub(crate) console: Option<BorrowedFd<'a>>,
    /// For hooks: the state's JSON without braces, status and pid.
    pub(crate) state: &'a str,
    /// The group is one of systemd's.
    pub(crate) unit: Option<&'a Unit>,
}

impl<'a> Launch<'a> {
    /// Without anything that only OCI's command line asks for.
    pub(crate) fn plain(container: &'a Container, scratch: &'a Path, layout: &'a Layout) -> Self {
        Self { container, scratch, layout, hold: false, extras: &NO_EXTRAS, console: None, state: "", unit: None }
    }
}

pub(crate) static NO_EXTRAS: LazyLock<Extras> = LazyLock::new(Extras::default);

pub(crate) struct Launched {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// Read end of the child's report.
    pub(crate) report: OwnedFd,
    /// When the child reports [`report::HOOKS`], it goes on at a byte written here, and gives up when it is closed.
    pub(crate) answer: Option<OwnedFd>,
    pub(crate) warnings: Vec<String>,
}

/// State of the parent's table.
struct Parent<'a> {
    launch: &'a Launch<'a>,
    warnings: Vec<String>,
    launched: Option<Launched>,
    /// Of mounts with other owners, by their place.
    trees: Vec<(usize, OwnedFd)>,
    /// Holds systemd's unit until the container lives in it.
    waiting: Option<group::Waiting>,
    rdt: Groups,
}

struct ParentStage {
    name: &'static str,
    run: fn(&mut Parent<'_>) -> Result<(), Fault>,
    /// Tolerates "never done".
    undo: fn(&Launch<'_>),
}

const PARENT: [ParentStage; 6] = [
    ParentStage { name: "check", run: check, undo: |_| {} },
    ParentStage { name: "cgroup", run: group::make, undo: group::remove },
    ParentStage { name: "intel rdt", run: group::make_rdt, undo: group::remove_rdt },
    ParentStage { name: "stdio", run: stdio::make, undo: stdio::remove },
    ParentStage { name: "mapped mounts", run: mapped_mounts, undo: |_| {} },
    ParentStage { name: "clone", run: birth::clone, undo: |_| {} },
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
    /// Folders of the v1 groups it has entered.
    groups: Vec<PathBuf>,
    rdt: Groups,
    /// Device and inode of our own executable, which is no program of a container.
    own: Option<(u64, u64)>,
    extras: &'a Extras,
    console: Option<BorrowedFd<'a>>,
    state: &'a str,
    answer: Option<OwnedFd>,
    sources: Vec<Option<Source>>,
    root_source: Option<OwnedFd>,
    /// Label files and what to write into them right before the program.
    labels: Vec<(File, String)>,
}

/// Where a bind mount comes from, opened while the starter's rights are ours.
enum Source {
    Place(OwnedFd),
    /// A detached tree that shows other owners.
    Tree(OwnedFd),
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
    /// Whether it runs in a namespace of this kind apart from the starter's, made or joined.
    fn has(&self, kind: NamespaceKind) -> bool {
        self.container.namespaces.iter().any(|n| n.kind == kind)
    }
}

type ChildStage = (&'static str, fn(&mut Child<'_>) -> Result<(), Fault>);

const CHILD: [ChildStage; 25] = [
    ("session", session),
    ("seccomp listener", program::connect_listener),
    ("cgroup", group::enter),
    ("stdio", stdio::connect),
    ("mounts", mounts::sources),
    ("scheduling", scheduling::before),
    ("namespaces", namespaces::join),
    ("oom", oom_score),
    ("user namespace", userns::become_root),
    ("hostname", hostname),
    ("propagation", rootfs::propagation),
    ("rootfs", rootfs::root),
    ("mounts", mounts::mounts),
    ("devices", mounts::devices),
    ("terminal", terminal::connect),
    ("hooks", hooks::create),
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
    LazyLock::force(&program::OWN_EXECUTABLE); // once here rather than in every child
    let mut parent = Parent {
        launch,
        warnings: Vec::new(),
        launched: None,
        trees: Vec::new(),
        waiting: None,
        rdt: Groups::default(),
    };
    for (done, stage) in PARENT.iter().enumerate() {
        if let Err(fault) = (stage.run)(&mut parent) {
            PARENT.iter().take(done).rev().for_each(|s| (s.undo)(launch));
            return Err(fault.failure(stage.name));
        }
    }
    let launched = parent.launched.take().ok_or_else(|| Failure::new(FailureKind::Stage, "clone: no child"))?;
    Ok(Launched { warnings: parent.warnings, ..launched })
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

fn mapped_mounts(parent: &mut Parent<'_>) -> Result<(), Fault> {
    let extras = parent.launch.extras;
    for (place, maps) in &extras.mount_maps {
        let mount = parent.launch.container.mounts.get(*place).ok_or_else(|| plain("map owners: no such mount"))?;
        parent.trees.push((*place, userns::mapped_tree(&mount.source, maps, extras)?));
    }
    Ok(())
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Fault> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(at("make", "pipe"))
}

impl<'a> Child<'a> {
    fn new(launch: &Launch<'a>, report: File) -> Self {
        let null = match File::options().read(true).write(true).open("/dev/null") {
            Ok(file) => file.into(),
            Err(e) => {
                let mut report = report;
                fail(&mut report, &at("open", "/dev/null")(errno(&e)), "stdio")
            }
        };
        Child {
            container: launch.container,
            layout: launch.layout,
            scratch: launch.scratch,
            report,
            null,
            root: None,
            hold: None,
            program: None,
            listener: None,
            groups: Vec::new(),
            rdt: Groups::default(),
            own: *program::OWN_EXECUTABLE,
            extras: launch.extras,
            console: launch.console,
            state: launch.state,
            answer: None,
            sources: Vec::new(),
            root_source: None,
            labels: Vec::new(),
        }
    }
}

fn run_child(parent: &mut Parent<'_>, report: File, answer: Option<OwnedFd>) -> ! {
    let launch = parent.launch;
    let mut child = Child::new(launch, report);
    child.answer = answer;
    child.rdt = std::mem::take(&mut parent.rdt);
    for (place, tree) in std::mem::take(&mut parent.trees) {
        child.sources.resize_with(child.sources.len().max(place + 1), || None);
        if let Some(source) = child.sources.get_mut(place) {
            *source = Some(Source::Tree(tree));
        }
    }
    if launch.hold {
        match stdio::open_hold(launch.scratch) {
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

fn session(child: &mut Child<'_>) -> Result<(), Fault> {
    sys::signal_mask_clear();
    sys::close_on_exec_from(child.extras.keep_fds.saturating_add(3));
    nix::sys::stat::umask(Mode::empty());
    // EPERM = already a leader (mote-oci run in the foreground keeps the terminal's session otherwise).
    let _ = nix::unistd::setsid();
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
        sys::set_domainname(name).map_err(at("set domainname", name))?;
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
