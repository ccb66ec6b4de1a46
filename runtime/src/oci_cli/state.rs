//! `<root>/<id>/state.json`, and the commands that only look, signal or remove.

use super::args::Args;
use super::spec::VERSION;
use super::warn;
use crate::bundle::{self, Bundle};
use crate::cgroup::systemd::{self, Address, Unit};
use crate::cgroup::{self, Layout, rdt};
use crate::container::extras::{Hook, Hooks};
use crate::show;
use crate::stages::hooks;
use crate::sys;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Most that is read of ps(1).
const PS_BYTES_MAX: u64 = 4 << 20;
/// Its presence says "paused": looking at the freezer needs a look at every mount first.
pub(super) const PAUSED: &str = "paused";

/// Our copy of the bundle's config.json: an exec or a hook must not follow a file that changes.
pub(super) const CONFIG: &str = "config.json";

pub(super) struct State {
    pub(super) folder: PathBuf,
    value: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl State {
    pub(super) fn write(folder: &Path, value: &Value) -> Result<(), String> {
        let next = folder.join("state.next");
        let told = |e: std::io::Error| format!("write {}: {e}", next.display());
        std::fs::write(&next, value.to_string()).map_err(told)?;
        std::fs::rename(&next, folder.join("state.json")).map_err(told)
    }

    pub(super) fn read(args: &Args, id: &str) -> Result<Self, String> {
        let folder = args.root().join(id);
        let bytes = std::fs::read(folder.join("state.json")).map_err(|_| format!("container {id:?} does not exist"))?;
        let value = serde_json::from_slice(&bytes).map_err(|e| format!("read state of {id}: {e}"))?;
        Ok(Self { folder, value })
    }

    fn number(&self, key: &str) -> i64 {
        self.value.get(key).and_then(Value::as_i64).unwrap_or(0)
    }

    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.number("pid")).unwrap_or(0)
    }

    fn text(&self, key: &str) -> &str {
        self.value.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn id(&self) -> &str {
        self.text("id")
    }

    pub(super) fn cgroup(&self) -> &str {
        self.text("cgroup")
    }

    pub(super) fn unit(&self) -> Option<Unit> {
        Some(self.text("unit")).filter(|name| !name.is_empty()).map(Unit::named)
    }

    pub(super) fn group(&self) -> Group<'_> {
        let resctrl = bundle::tree::strings(&self.value, "resctrl").into_iter().map(PathBuf::from).collect();
        Group { cgroup: self.cgroup(), unit: self.text("unit"), resctrl }
    }

    /// What the container was made from.
    pub(super) fn described(&self) -> Result<Bundle, String> {
        described(&self.folder, Path::new(self.text("bundle")), self.id())
    }

    pub(super) fn hooks(&self) -> Hooks {
        // The whole description is only read where there is something to run.
        if self.value.get("hooks").and_then(Value::as_bool) != Some(true) {
            return Hooks::default();
        }
        self.described().map(|b| b.extras.hooks).unwrap_or_default()
    }

    /// What hooks read, up to status and pid.
    pub(super) fn hook_state(&self) -> String {
        let part = |key: &str| self.value.get(key).unwrap_or(&Value::Null);
        let (id, bundle, annotations) = (part("id"), part("bundle"), part("annotations"));
        format!("\"ociVersion\":\"{VERSION}\",\"id\":{id},\"bundle\":{bundle},\"annotations\":{annotations}")
    }

    pub(super) fn status(&self) -> Status {
        let pid = self.pid();
        let same =
            pid > 0 && crate::keeper::start_time(pid).is_some_and(|t| i64::try_from(t) == Ok(self.number("startTime")));
        let dead = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |s| s.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])));
        if !same || dead {
            return Status::Stopped;
        }
        if self.folder.join(PAUSED).exists() {
            return Status::Paused;
        }
        if self.folder.join(crate::stages::GO).exists() { Status::Created } else { Status::Running }
    }

    fn json(&self) -> Value {
        let status = self.status();
        let word = match status {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        };
        json!({
            "ociVersion": VERSION, "id": self.id(), "status": word,
            "pid": if status == Status::Stopped { 0 } else { self.pid() },
            "bundle": self.text("bundle"), "rootfs": self.text("rootfs"), "created": self.text("created"),
            "owner": owner(self.number("owner")), "annotations": self.value.get("annotations").unwrap_or(&Value::Null),
        })
    }
}

pub(super) fn described(folder: &Path, bundle: &Path, id: &str) -> Result<Bundle, String> {
    let path = folder.join(CONFIG);
    let bytes = std::fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let value = serde_json::from_slice(&bytes).map_err(|e| format!("parse {}: {e}", path.display()))?;
    bundle::convert(&value, bundle, id).map_err(|e| e.to_string())
}

/// A login name, or the number of a user without one.
fn owner(uid: i64) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    match crate::user::resolve(&uid.to_string(), &passwd, "") {
        Ok(found) if !found.name.is_empty() => found.name,
        _ => uid.to_string(),
    }
}

pub(super) fn print(args: &Args, id: &str) -> Result<u8, String> {
    show!("{:#}", State::read(args, id)?.json());
    Ok(0)
}

pub(super) fn list(args: &Args) -> Result<(), String> {
    let entries = std::fs::read_dir(args.root()).into_iter().flatten().flatten();
    let mut ids: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    ids.sort();
    let states: Vec<Value> = ids.iter().filter_map(|id| State::read(args, id).ok()).map(|s| s.json()).collect();
    match args.value("format").unwrap_or("table") {
        _ if args.flag("quiet") => {
            states.iter().for_each(|s| show!("{}", s.get("id").and_then(Value::as_str).unwrap_or_default()))
        }
        "json" => show!("{}", Value::Array(states)),
        "table" => {
            show!("{:<24}{:<10}{:<12}{:<32}{:<32}OWNER", "ID", "PID", "STATUS", "BUNDLE", "CREATED");
            for s in &states {
                let text = |key: &str| s.get(key).and_then(Value::as_str).unwrap_or_default();
                let pid = s.get("pid").and_then(Value::as_i64).unwrap_or_default();
                show!(
                    "{:<23} {pid:<9} {:<11} {:<31} {:<31} {}",
                    text("id"),
                    text("status"),
                    text("bundle"),
                    text("created"),
                    text("owner")
                );
            }
        }
        other => return Err(format!("list: unknown format {other:?}")),
    }
    Ok(())
}

fn signal_number(word: &str) -> Result<i32, String> {
    if let Ok(number) = word.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(format!("signal {number}: out of range")) };
    }
    let upper = word.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    Signal::from_str(&name).map(|s| s as i32).map_err(|_| format!("signal {word:?}: unknown"))
}

pub(super) fn kill(args: &Args, id: &str) -> Result<u8, String> {
    let state = State::read(args, id)?;
    if args.words.len() > 3 {
        return Err("kill: too many arguments".into());
    }
    let signal = signal_number(args.words.get(2).map_or("TERM", String::as_str))?;
    // Without a PID namespace of its own, the end of its first process ends nobody else.
    let shared_pids = state.value.get("ownPids").and_then(Value::as_bool) == Some(false);
    let all = args.flag("all") || (shared_pids && signal == libc::SIGKILL);
    if all && !state.cgroup().is_empty() {
        cgroup::signal_all(&Layout::discover(), state.cgroup(), signal).map_err(|e| e.to_string())?;
    }
    if state.status() == Status::Stopped {
        return if all { Ok(0) } else { Err("container not running".into()) };
    }
    let told = |e: nix::errno::Errno| format!("signal {id}: {}", crate::stages::report::cause(e));
    let pidfd = sys::pidfd_open(state.pid()).map_err(told)?;
    if state.status() == Status::Stopped {
        return Ok(0); // gone between the two looks; the descriptor may name somebody else
    }
    sys::pidfd_send_signal(pidfd.as_fd(), signal).map(|()| 0).map_err(told)
}

pub(super) fn pause(args: &Args, id: &str) -> Result<u8, String> {
    let state = State::read(args, id)?;
    if !matches!(state.status(), Status::Running | Status::Created) {
        return Err("container not running or created: paused or stopped".into());
    }
    let marker = state.folder.join(PAUSED);
    std::fs::write(&marker, "").map_err(|e| format!("write {}: {e}", marker.display()))?;
    cgroup::freeze(&Layout::discover(), state.cgroup(), true).map(|()| 0).map_err(|e| {
        let _ = std::fs::remove_file(&marker); // the freezer's word is what to tell
        e.to_string()
    })
}

pub(super) fn resume(args: &Args, id: &str) -> Result<u8, String> {
    let state = State::read(args, id)?;
    if state.status() != Status::Paused {
        return Err("container not paused".into());
    }
    cgroup::freeze(&Layout::discover(), state.cgroup(), false).map_err(|e| e.to_string())?;
    let marker = state.folder.join(PAUSED);
    std::fs::remove_file(&marker).map(|()| 0).map_err(|e| format!("remove {}: {e}", marker.display()))
}

/// The pids of the container's group, or ps(1) of the host with only their lines.
pub(super) fn ps(args: &Args, id: &str) -> Result<u8, String> {
    let state = State::read(args, id)?;
    let pids = cgroup::processes(&Layout::discover(), state.cgroup()).map_err(|e| e.to_string())?;
    match args.value("format").unwrap_or("table") {
        "json" => {
            show!("{}", json!(pids));
            return Ok(0);
        }
        "table" => {}
        other => return Err(format!("invalid format option: {other}")),
    }
    let options = args.words.get(2..).filter(|w| !w.is_empty()).map_or_else(|| vec!["-ef".to_owned()], <[_]>::to_vec);
    // std's own way of starting programs is larger than all of this file.
    let path =
        ["/usr/bin/ps", "/bin/ps"].into_iter().find(|p| Path::new(p).exists()).ok_or("run ps: no such program")?;
    let args = std::iter::once("ps".to_owned()).chain(options).collect();
    let text = hooks::output(&Hook { path: path.into(), args, ..Hook::default() }, b"", PS_BYTES_MAX)?;
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or("couldn't find PID field in ps output")?;
    show!("{head}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|n| n.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            show!("{line}");
        }
    }
    Ok(0)
}

/// A container's group: rootless ones may have none, and few are systemd's.
pub(super) struct Group<'a> {
    pub(super) cgroup: &'a str,
    pub(super) unit: &'a str,
    /// Of its own.
    pub(super) resctrl: Vec<PathBuf>,
}

impl Group<'_> {
    /// The container's traces: its group with all that is left in it, and its folder.
    pub(super) fn remove(&self, layout: &Layout, folder: &Path) -> Result<(), String> {
        let told = |e: cgroup::CgroupError| e.to_string();
        if !self.unit.is_empty() {
            cgroup::kill_all(layout, self.cgroup).map_err(told)?;
            systemd::stop(&Address::of_host(), &Unit::named(self.unit)).map_err(told)?;
        }
        if !self.cgroup.is_empty() {
            cgroup::remove(layout, self.cgroup).map_err(told)?;
        }
        rdt::remove(&self.resctrl);
        remove_folder(folder)
    }
}

/// After the removal: one that fails is a warning, and the next is run (specification, lifecycle).
pub(super) fn poststop(all: &Hooks, state: &str) {
    for hook in &all.poststop {
        if let Err(e) = hooks::run(hook, hooks::state(state, "stopped", 0).as_bytes()) {
            warn(&format!("error running poststop hook: {e}"));
        }
    }
}

pub(super) fn remove_folder(folder: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("remove {}: {e}", folder.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn signals_by_any_name() {
        for (word, number) in [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("hup", 1)] {
            assert_eq!(super::signal_number(word), Ok(number));
        }
        for bad in ["0", "65", "SIGNOTHING", ""] {
            assert!(super::signal_number(bad).is_err(), "{bad}");
        }
    }
}
