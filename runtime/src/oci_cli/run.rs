//! `create`, `start`, `run`: the stages on a bundle.

use super::args::Args;
use super::state::{self, Group, State, Status, poststop};
use super::{foreground, spec, warn};
use crate::bundle::{self, Bundle};
use crate::cgroup::systemd::{self, Address, Unit};
use crate::cgroup::{Layout, rdt};
use crate::container::extras::Hooks;
use crate::container::{NamespaceKind, Resources, Rootfs, Stdio};
use crate::keeper::protocol::{Failure, FailureKind};
use crate::stages::report::Heard;
use crate::stages::{self, GO, Launch, Launched, RESULT, hooks, netdev};
use crate::sys;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde_json::{Value, json};
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

struct Made {
    bundle: Bundle,
    folder: PathBuf,
    layout: Layout,
    launched: Launched,
    /// Our end of a terminal that stays with us.
    terminal: Option<OwnedFd>,
    /// Of systemd's, that is the container's group.
    unit: Option<Unit>,
}

impl Made {
    fn group(&self) -> Group<'_> {
        group_of(&self.bundle, self.unit.as_ref())
    }
}

pub(super) fn group_of<'a>(bundle: &'a Bundle, unit: Option<&'a Unit>) -> Group<'a> {
    let container = &bundle.container;
    let rdt = bundle.extras.rdt.as_ref();
    let resctrl = rdt.map(|wanted| rdt::own(Path::new(rdt::ROOT), &container.id, wanted));
    let unit = unit.map_or("", |unit| unit.name.as_str());
    Group { cgroup: &container.cgroup.path, unit, resctrl: resctrl.unwrap_or_default() }
}

/// Who gets the terminal's master.
pub(super) struct Console {
    /// The child's end, or the engine's socket.
    pub(super) socket: Option<OwnedFd>,
    /// Ours, in the foreground.
    ours: Option<OwnedFd>,
}

impl Console {
    pub(super) fn new(args: &Args, terminal: bool, detached: bool) -> Result<Self, String> {
        let path = args.path("console-socket").filter(|p| !p.as_os_str().is_empty());
        match (path, terminal) {
            (None, false) => Ok(Self { socket: None, ours: None }),
            (Some(_), false) => {
                Err("cannot use console socket if the process has no terminal (process.terminal is false)".into())
            }
            (Some(path), true) => {
                let socket = UnixStream::connect(&path)
                    .map_err(|e| format!("connect console socket {}: {e}", path.display()))?;
                Ok(Self { socket: Some(socket.into()), ours: None })
            }
            (None, true) if detached => {
                Err("cannot allocate tty if mote-oci will detach without setting console socket".into())
            }
            (None, true) => {
                let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
                let (ours, theirs) = pair.map_err(|e| format!("make socket pair: {e}"))?;
                Ok(Self { socket: Some(theirs), ours: Some(ours) })
            }
        }
    }

    pub(super) fn terminal(self) -> Result<Option<OwnedFd>, String> {
        self.ours.map(|socket| foreground::receive_terminal(&socket)).transpose()
    }
}

/// `--preserve-fds` and the sockets of socket activation: how many descriptors from 3 up the program keeps.
pub(super) fn kept_fds(args: &Args, env: &mut Vec<String>) -> Result<u32, String> {
    let asked = args.number("preserve-fds")?.unwrap_or(0);
    let passed = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    if passed > 0 {
        env.push(format!("LISTEN_FDS={passed}"));
        env.push("LISTEN_PID=1".into());
    }
    let asked = u32::try_from(asked).map_err(|_| format!("--preserve-fds {asked}: out of range"))?;
    let kept = asked.saturating_add(passed).min(FDS_MAX);
    for fd in 3..3 + kept {
        if !Path::new(&format!("/proc/self/fd/{fd}")).exists() {
            return Err(format!("please check that preserved-fd {fd} is present"));
        }
    }
    Ok(kept)
}

/// Most descriptors that are passed on.
const FDS_MAX: u32 = 1024;

fn prepare(args: &Args, id: &str) -> Result<Bundle, String> {
    let dir = std::fs::canonicalize(args.bundle()).map_err(|e| format!("bundle {}: {e}", args.bundle().display()))?;
    let mut bundle = bundle::load(&dir, id).map_err(|e| e.to_string())?;
    bundle.warnings.iter().for_each(|w| warn(w));
    if args.flag("debug") {
        bundle.notes.iter().for_each(|n| super::say("debug", n));
    }
    bundle.container.stdio = Stdio::Inherit;
    bundle.extras.no_pivot = args.flag("no-pivot");
    bundle.extras.own_keyring = !args.flag("no-new-keyring");
    bundle.extras.keep_fds = kept_fds(args, &mut bundle.container.process.env)?;
    Ok(bundle)
}

/// Where the container's group is one of systemd's.
pub(super) fn unit(args: &Args, id: &str, bundle: &mut Bundle) -> Result<Option<Unit>, String> {
    if !args.flag("systemd-cgroup") {
        return Ok(None);
    }
    if !Path::new("/run/systemd/system").is_dir() {
        return Err("systemd not running on this host, cannot use systemd cgroups manager".into());
    }
    let told = |e: crate::cgroup::CgroupError| e.to_string();
    let unit = Unit::new(&bundle.cgroups_path, id, &bundle.annotations).map_err(told)?;
    bundle.container.cgroup.path = systemd::path_of(&Address::of_host(), &unit).map_err(told)?;
    Ok(Some(unit))
}

/// Not so for an ordinary user to whom none is delegated.
pub(super) fn has_group(bundle: &Bundle, layout: &Layout) -> bool {
    nix::unistd::geteuid().is_root() || crate::cgroup::may_create(layout, &bundle.container.cgroup.path)
}

/// As an ordinary user without a delegated group: no group and no limits, as every rootless runtime.
fn without_cgroup(bundle: &mut Bundle, layout: &Layout) {
    if has_group(bundle, layout) {
        return;
    }
    let cgroup = &mut bundle.container.cgroup;
    let limits = Resources { devices: Vec::new(), ..cgroup.resources.clone() };
    if limits != Resources::default() {
        warn("cgroups: not delegated to this user, limits are not applied");
    }
    cgroup.path.clear();
}

fn make_folder(args: &Args, id: &str) -> Result<PathBuf, String> {
    let root = args.root();
    let told = |path: &Path, e: std::io::Error| format!("make {}: {e}", path.display());
    DirBuilder::new().recursive(true).mode(0o711).create(&root).map_err(|e| told(&root, e))?;
    let folder = root.join(id);
    match DirBuilder::new().mode(0o711).create(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(format!("container with id {id} already exists"))
        }
        result => result.map(|()| folder.clone()).map_err(|e| told(&folder, e)),
    }
}

/// Everything up to the child's "ready" (or, without `hold`, its exec).
fn make(args: &Args, id: &str, hold: bool, detached: bool) -> Result<Made, String> {
    let mut bundle = prepare(args, id)?;
    let console = Console::new(args, bundle.extras.process.terminal, detached)?;
    let layout = Layout::discover();
    let unit = unit(args, id, &mut bundle)?;
    if unit.is_none() {
        without_cgroup(&mut bundle, &layout);
    }
    let folder = make_folder(args, id)?;
    let config = folder.join(state::CONFIG);
    if let Err(e) = std::fs::write(&config, &bundle.text) {
        let _ = std::fs::remove_dir_all(&folder); // the failure itself is what to tell
        return Err(format!("write {}: {e}", config.display()));
    }
    let state = hook_state(args, id, &bundle);
    let launch = Launch {
        hold,
        extras: &bundle.extras,
        console: console.socket.as_ref().map(AsFd::as_fd),
        state: &state,
        unit: unit.as_ref(),
        ..Launch::plain(&bundle.container, &folder, &layout)
    };
    let heard = stages::launch(&launch).and_then(|mut launched| match hear(&mut launched, hold, &bundle, &state) {
        Ok(warnings) => {
            warnings.iter().for_each(|w| warn(w));
            Ok(launched)
        }
        Err(failure) => {
            let _ = sys::pidfd_send_signal(launched.pidfd.as_fd(), libc::SIGKILL); // it is ending by itself
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(launched.pid), None);
            stages::undo(&launch);
            poststop(&bundle.extras.hooks, &state);
            Err(failure)
        }
    });
    let launched = heard.map_err(|failure| {
        let _ = std::fs::remove_dir_all(&folder); // the failure itself is what to tell
        failure.message
    })?;
    let mut made = Made { bundle, folder, layout, launched, terminal: None, unit };
    match console.terminal().and_then(|terminal| remember(&made, args, id).map(|()| terminal)) {
        Ok(terminal) => made.terminal = terminal,
        Err(e) => {
            let _ = sys::pidfd_send_signal(made.launched.pidfd.as_fd(), libc::SIGKILL);
            let _ = made.group().remove(&made.layout, &made.folder);
            poststop(&made.bundle.extras.hooks, &state);
            return Err(e);
        }
    }
    Ok(made)
}

/// The state hooks read, up to status and pid.
fn hook_state(args: &Args, id: &str, bundle: &Bundle) -> String {
    let path = std::fs::canonicalize(args.bundle()).unwrap_or_else(|_| args.bundle());
    let value = json!({
        "ociVersion": spec::VERSION, "id": id, "bundle": path, "annotations": annotations(bundle),
    });
    let text = value.to_string();
    text.trim_start_matches('{').trim_end().strip_suffix('}').unwrap_or_default().to_owned()
}

fn annotations(bundle: &Bundle) -> Value {
    Value::Object(bundle.annotations.iter().map(|(k, v)| (k.clone(), json!(v))).collect())
}

fn failed(text: String) -> Failure {
    Failure::new(FailureKind::Stage, text)
}

fn hear(launched: &mut Launched, hold: bool, bundle: &Bundle, state: &str) -> Result<Vec<String>, Failure> {
    let copy = launched.report.try_clone();
    let mut report = File::from(copy.map_err(|e| failed(format!("read report: {e}")))?);
    let mut heard = Heard { warnings: std::mem::take(&mut launched.warnings), ..Heard::default() };
    let mut buffer = [0u8; 4096];
    while !(hold && heard.ready) {
        match report.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => heard.push(buffer.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        if heard.hooks
            && let Some(answer) = launched.answer.take()
        {
            let all = &bundle.extras.hooks;
            let creating = hooks::state(state, "creating", launched.pid);
            netdev::hand_over(&bundle.extras.devices, launched.pid)
                .map_err(|f| failed(f.failure("devices").message))?;
            hooks::run_all("prestart", &all.prestart, &creating)
                .and_then(|()| hooks::run_all("createRuntime", &all.create_runtime, &creating))
                .map_err(failed)?;
            File::from(answer).write_all(b"!").map_err(|e| failed(format!("answer the container: {e}")))?;
        }
    }
    heard.exec |= heard.ready;
    heard.finish()
}

fn remember(made: &Made, args: &Args, id: &str) -> Result<(), String> {
    let container = &made.bundle.container;
    let bundle = std::fs::canonicalize(args.bundle()).unwrap_or_else(|_| args.bundle());
    let hooks = &made.bundle.extras.hooks;
    let own_pids = container.namespaces.iter().any(|n| n.kind == NamespaceKind::Pid && n.path.is_none());
    let value = json!({
        "id": id, "pid": made.launched.pid, "startTime": crate::keeper::start_time(made.launched.pid).unwrap_or_default(),
        "bundle": bundle, "rootfs": match &container.rootfs {
            Rootfs::Path(path) => path.display().to_string(),
            Rootfs::Overlay { upper, .. } => upper.display().to_string(),
        },
        "created": crate::keeper::timestamp_now(), "cgroup": container.cgroup.path, "ownPids": own_pids, "hooks": !(hooks.poststart.is_empty() && hooks.poststop.is_empty()),
        "resctrl": made.group().resctrl,
        "unit": made.unit.as_ref().map_or("", |unit| unit.name.as_str()),
        "annotations": annotations(&made.bundle), "owner": nix::unistd::getuid().as_raw(),
    });
    State::write(&made.folder, &value)?;
    write_pid(args, made.launched.pid)
}

/// Engines poll for the pid file: it must never be seen half-written.
pub(super) fn write_pid(args: &Args, pid: i32) -> Result<(), String> {
    let Some(path) = args.path("pid-file").filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    let next = PathBuf::from(name);
    std::fs::write(&next, pid.to_string())
        .and_then(|()| std::fs::rename(&next, &path))
        .map_err(|e| format!("write {}: {e}", path.display()))
}

pub(super) fn create(args: &Args, id: &str) -> Result<u8, String> {
    make(args, id, true, true).map(|_| 0)
}

pub(super) fn start(args: &Args, id: &str) -> Result<u8, String> {
    let state = State::read(args, id)?;
    match state.status() {
        Status::Created => {}
        Status::Running | Status::Paused => return Err("cannot start an already running container".into()),
        Status::Stopped => return Err("cannot start a container that has stopped".into()),
    }
    let open = |name: &str, write: bool| {
        let path = state.folder.join(name);
        let flags = OFlag::O_NONBLOCK.bits();
        File::options()
            .read(!write)
            .write(write)
            .custom_flags(flags)
            .open(&path)
            .map_err(|e| format!("open {}: {e}", path.display()))
    };
    let result = open(RESULT, false)?;
    let mut go = open(GO, true)?;
    nix::fcntl::fcntl(&result, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))
        .map_err(|e| format!("start {id}: {e}"))?;
    go.write_all(b"!").map_err(|e| format!("start {id}: {e}"))?;
    let mut bytes = Vec::new();
    (&result).read_to_end(&mut bytes).map_err(|e| format!("start {id}: {e}"))?;
    let _ = std::fs::remove_file(state.folder.join(GO)); // its absence says "started"
    let mut heard = Heard::default();
    heard.push(&bytes);
    heard.finish().map_err(|f| f.message)?;
    started(&state.hooks(), &state.hook_state(), state.pid())
}

/// A poststart hook that fails ends the container (specification 1.2, lifecycle step 8).
fn started(all: &Hooks, state: &str, pid: i32) -> Result<u8, String> {
    if all.poststart.is_empty() {
        return Ok(0);
    }
    hooks::run_all("poststart", &all.poststart, &hooks::state(state, "running", pid)).map(|()| 0).inspect_err(|_| {
        if let Ok(pidfd) = sys::pidfd_open(pid) {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL); // may have ended by itself
        }
    })
}

/// In the foreground: signals are passed on, the exit code is the program's, and nothing stays.
pub(super) fn run(args: &Args, id: &str) -> Result<u8, String> {
    let detached = args.flag("detach");
    let signals = if detached {
        None
    } else {
        if !args.flag("no-subreaper") {
            nix::sys::prctl::set_child_subreaper(true).map_err(|e| format!("run {id}: {e}"))?;
        }
        Some(foreground::watch_signals()?)
    };
    let mut made = make(args, id, false, detached)?;
    let pid = made.launched.pid;
    let all = &made.bundle.extras.hooks;
    let state = if all.poststart.is_empty() && all.poststop.is_empty() {
        String::new()
    } else {
        hook_state(args, id, &made.bundle)
    };
    let after = started(all, &state, pid);
    let Some(signals) = signals else { return after };
    let code = foreground::wait(pid, &made.launched.pidfd, &signals, made.terminal.take());
    if !args.flag("keep") {
        let removed = made.group().remove(&made.layout, &made.folder);
        poststop(all, &state);
        removed?;
    }
    after.map(|_| code)
}
