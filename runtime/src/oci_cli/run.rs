//! `create`, `start`, `run`: the stages on a bundle.

use super::state::{self, State, Status};
use super::{Args, warn};
use crate::bundle::{self, Bundle};
use crate::cgroup::Layout;
use crate::container::Stdio;
use crate::stages::report::Heard;
use crate::stages::{self, GO, Launch, Launched, RESULT};
use crate::sys;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::json;
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

struct Made {
    bundle: Bundle,
    folder: PathBuf,
    layout: Layout,
    launched: Launched,
}

/// Everything up to the child's "ready" (or, without `hold`, its exec).
fn make(args: &Args, id: &str, hold: bool) -> Result<Made, String> {
    let dir = std::fs::canonicalize(&args.bundle).map_err(|e| format!("bundle {}: {e}", args.bundle.display()))?;
    let mut bundle = bundle::load(&dir, id).map_err(|e| e.to_string())?;
    bundle.warnings.iter().for_each(|w| warn(w));
    if bundle.terminal {
        return Err("process.terminal: is not supported by this build".into());
    }
    bundle.container.stdio = Stdio::Inherit;
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&args.root)
        .map_err(|e| format!("make {}: {e}", args.root.display()))?;
    let folder = args.root.join(id);
    match DirBuilder::new().mode(0o711).create(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(format!("container with id {id} already exists"));
        }
        result => result.map_err(|e| format!("make {}: {e}", folder.display()))?,
    }
    let layout = Layout::discover();
    let launch = Launch { container: &bundle.container, scratch: &folder, layout: &layout, hold };
    let heard = stages::launch(&launch).and_then(|mut launched| match hear(&mut launched, hold) {
        Ok(warnings) => {
            warnings.iter().for_each(|w| warn(w));
            Ok(launched)
        }
        Err(failure) => {
            let _ = sys::pidfd_send_signal(launched.pidfd.as_fd(), libc::SIGKILL); // it is ending by itself
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(launched.pid), None);
            stages::undo(&launch);
            Err(failure)
        }
    });
    match heard {
        Ok(launched) => Ok(Made { bundle, folder, layout, launched }),
        Err(failure) => {
            let _ = std::fs::remove_dir_all(&folder); // the failure itself is what to tell
            Err(failure.message)
        }
    }
}

fn hear(launched: &mut Launched, hold: bool) -> Result<Vec<String>, crate::keeper::protocol::Failure> {
    let mut report = File::from(launched.report.try_clone().map_err(|e| {
        crate::keeper::protocol::Failure::new(crate::keeper::protocol::FailureKind::Stage, format!("read report: {e}"))
    })?);
    let mut heard = Heard { warnings: std::mem::take(&mut launched.warnings), ..Heard::default() };
    let mut buffer = [0u8; 4096];
    while !(hold && heard.ready) {
        match report.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => heard.push(buffer.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    heard.exec |= heard.ready;
    heard.finish()
}

fn remember(made: &Made, args: &Args, id: &str) -> Result<(), String> {
    let container = &made.bundle.container;
    let bundle = std::fs::canonicalize(&args.bundle).unwrap_or_else(|_| args.bundle.clone());
    let annotations: serde_json::Map<String, serde_json::Value> =
        made.bundle.annotations.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let value = json!({
        "id": id, "pid": made.launched.pid, "startTime": crate::keeper::start_time(made.launched.pid).unwrap_or_default(),
        "bundle": bundle, "rootfs": match &container.rootfs {
            crate::container::Rootfs::Path(path) => path.display().to_string(),
            crate::container::Rootfs::Overlay { upper, .. } => upper.display().to_string(),
        },
        "created": crate::keeper::timestamp_now(), "cgroup": container.cgroup.path, "annotations": annotations,
    });
    State::write(&made.folder, &value)?;
    match &args.pid_file {
        Some(path) => write_whole(path, &made.launched.pid.to_string()),
        None => Ok(()),
    }
}

/// Engines poll for the pid file: it must never be seen half-written.
fn write_whole(path: &Path, text: &str) -> Result<(), String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    let next = PathBuf::from(name);
    std::fs::write(&next, text)
        .and_then(|()| std::fs::rename(&next, path))
        .map_err(|e| format!("write {}: {e}", path.display()))
}

pub(super) fn create(args: &Args, id: &str) -> Result<(), String> {
    let made = make(args, id, true)?;
    remember(&made, args, id).inspect_err(|_| {
        let _ = sys::pidfd_send_signal(made.launched.pidfd.as_fd(), libc::SIGKILL);
        let _ = state::remove(&made.folder, &made.bundle.container.cgroup.path);
    })
}

pub(super) fn start(args: &Args, id: &str) -> Result<(), String> {
    let state = State::read(args, id)?;
    match state.status() {
        Status::Created => {}
        Status::Running => return Err(format!("start {id}: is running already")),
        Status::Stopped => return Err(format!("start {id}: has stopped")),
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
    heard.finish().map(drop).map_err(|f| f.message)
}

/// In the foreground: signals are passed on, the exit code is the program's, and nothing stays.
pub(super) fn run(args: &Args, id: &str) -> Result<u8, String> {
    let mut set = SigSet::all();
    set.remove(Signal::SIGCHLD);
    let signals = if args.detach {
        None
    } else {
        nix::sys::prctl::set_child_subreaper(true).map_err(|e| format!("run {id}: {e}"))?;
        let mut watched = set;
        watched.add(Signal::SIGCHLD);
        watched.thread_block().map_err(|e| format!("run {id}: {e}"))?;
        Some(SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC).map_err(|e| format!("run {id}: {e}"))?)
    };
    let made = make(args, id, false)?;
    let cgroup = made.bundle.container.cgroup.path.clone();
    let Some(signals) = signals else {
        return remember(&made, args, id).map(|()| 0);
    };
    if let Err(e) = remember(&made, args, id) {
        let _ = sys::pidfd_send_signal(made.launched.pidfd.as_fd(), libc::SIGKILL);
        let _ = state::remove(&made.folder, &cgroup);
        return Err(e);
    }
    let code = loop {
        let mut ended = None;
        while let Some((pid, status)) = sys::reap_one() {
            if pid == made.launched.pid {
                ended = Some(crate::keeper::exit_code(status));
            }
        }
        if let Some(code) = ended {
            break code;
        }
        if let Ok(Some(info)) = signals.read_signal() {
            let signal = info.ssi_signo as i32;
            if signal != libc::SIGCHLD {
                let _ = sys::pidfd_send_signal(made.launched.pidfd.as_fd(), signal); // dead: the next round sees it
            }
        }
    };
    crate::cgroup::remove(&made.layout, &cgroup).map_err(|e| e.to_string())?;
    std::fs::remove_dir_all(&made.folder).map_err(|e| format!("remove {}: {e}", made.folder.display()))?;
    Ok(u8::try_from(code).unwrap_or(255))
}
