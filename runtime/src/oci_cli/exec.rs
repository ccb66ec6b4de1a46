//! `exec`: one more process in a running container.

use super::args::Args;
use super::foreground;
use super::run::{Console, kept_fds, write_pid};
use super::state::{State, Status};
use super::warn;
use crate::bundle;
use crate::cgroup::Layout;
use crate::container::extras::Extras;
use crate::container::{CapSet, Process};
use crate::stages::report::Heard;
use crate::stages::{self, Enter, Launched};
use crate::sys;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

pub(super) fn exec(args: &Args, id: &str) -> Result<u8, String> {
    let state = State::read(args, id)?;
    match state.status() {
        Status::Stopped => return Err("exec failed: cannot exec in a stopped container".into()),
        Status::Paused if !args.flag("ignore-paused") => {
            return Err("exec failed: cannot exec in a paused container (use --ignore-paused to override)".into());
        }
        _ => {}
    }
    let (process, extras) = described(args, &state)?;
    let detached = args.flag("detach");
    let console = Console::new(args, extras.process.terminal, detached)?;
    let signals = if detached { None } else { Some(foreground::watch_signals()?) };
    let target = sys::pidfd_open(state.pid()).map_err(|e| format!("exec failed: {e}"))?;
    if state.status() == Status::Stopped {
        return Err("exec failed: cannot exec in a stopped container".into()); // the descriptor may name somebody else
    }
    let cgroup = match args.value("cgroup") {
        // `controller:path` names one hierarchy; the group is the same in all of ours.
        Some(sub) => format!("{}/{}", state.cgroup(), sub.rsplit(':').next().unwrap_or(sub).trim_matches('/')),
        None => state.cgroup().to_owned(),
    };
    let layout = Layout::discover();
    let enter = Enter {
        process: &process,
        cgroup: cgroup.trim_end_matches('/'),
        layout: &layout,
        target: &target,
        stdio: None,
        extras: &extras,
        console: console.socket.as_ref().map(AsFd::as_fd),
    };
    let launched = stages::enter(&enter).map_err(|f| format!("exec failed: {}", f.message))?;
    if let Err(e) = heard(&launched) {
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(launched.pid), None); // it ends by itself
        return Err(format!("exec failed: {e}"));
    }
    write_pid(args, launched.pid)?;
    let terminal = console.terminal()?;
    match signals {
        None => Ok(0),
        Some(signals) => Ok(foreground::wait(launched.pid, &launched.pidfd, &signals, terminal)),
    }
}

/// Until the program runs, or the reason why not.
fn heard(launched: &Launched) -> Result<(), String> {
    let mut report = File::from(launched.report.try_clone().map_err(|e| e.to_string())?);
    let mut bytes = Vec::new();
    report.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    let mut heard = Heard::default();
    heard.push(&bytes);
    heard.finish().map(|warnings| warnings.iter().for_each(|w| warn(w))).map_err(|f| f.message)
}

/// The process by a file of its own, or by the container's description and the words given.
fn described(args: &Args, state: &State) -> Result<(Process, Extras), String> {
    let told = |e: bundle::BundleError| format!("exec failed: {e}");
    let container = state.described()?;
    let mut process = container.container.process;
    let mut own = container.extras.process;
    if let Some(path) = args.path("process") {
        let bytes = std::fs::read(&path).map_err(|e| format!("exec failed: open {}: {e}", path.display()))?;
        let value =
            serde_json::from_slice(&bytes).map_err(|e| format!("exec failed: parse {}: {e}", path.display()))?;
        let (read, extras, warnings) = bundle::load_process(&value).map_err(told)?;
        warnings.iter().for_each(|w| warn(w));
        process = Process { seccomp: process.seccomp, ..read };
        own = extras;
    } else {
        process.args = args.words.iter().skip(2).cloned().collect();
        own.terminal = args.flag("tty");
        own.console_size = None;
        if let Some(cwd) = args.value("cwd") {
            process.cwd = cwd.to_owned();
        }
        process.env.extend(args.values("env").map(str::to_owned));
        change_user(args, &mut process)?;
        for name in args.values("cap") {
            let Some(set) = CapSet::parse(name) else {
                warn(&format!("ignoring unknown capability {name}"));
                continue;
            };
            let caps = &mut process.capabilities;
            for part in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted, &mut caps.ambient] {
                *part = part.with(set);
            }
            caps.inheritable = caps.inheritable.with(set);
        }
        process.no_new_privileges |= args.flag("no-new-privs");
    }
    if process.args.is_empty() {
        return Err("exec failed: process args cannot be empty".into());
    }
    own.apparmor = args.value("apparmor").map(str::to_owned).or(own.apparmor);
    own.selinux = args.value("process-label").map(str::to_owned).or(own.selinux);
    let keep_fds = kept_fds(args, &mut process.env)?;
    Ok((process, Extras { process: own, keep_fds, ..Extras::default() }))
}

fn change_user(args: &Args, process: &mut Process) -> Result<(), String> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("exec failed: user {text:?}: must be a number"));
    if let Some(user) = args.value("user") {
        let (uid, gid) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g)));
        process.user.uid = number(uid)?;
        if let Some(gid) = gid {
            process.user.gid = number(gid)?;
        }
    }
    for gid in args.values("additional-gids") {
        process.user.groups.push(number(gid)?);
    }
    Ok(())
}
