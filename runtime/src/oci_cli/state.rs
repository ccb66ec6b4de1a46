//! `<root>/<id>/state.json`, and the commands that only look, signal or remove.

use super::Args;
use crate::cgroup::{self, Layout};
use crate::sys;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long `delete --force` waits for a killed container.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);

pub(super) struct State {
    pub(super) folder: PathBuf,
    value: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Running,
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
        let folder = args.root.join(id);
        let bytes = std::fs::read(folder.join("state.json")).map_err(|_| format!("container {id} does not exist"))?;
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

    pub(super) fn cgroup(&self) -> &str {
        self.text("cgroup")
    }

    pub(super) fn status(&self) -> Status {
        let pid = self.pid();
        let same =
            pid > 0 && crate::keeper::start_time(pid).is_some_and(|t| i64::try_from(t) == Ok(self.number("startTime")));
        let dead = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |s| s.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])));
        match (same && !dead, self.folder.join(crate::stages::GO).exists()) {
            (false, _) => Status::Stopped,
            (true, true) => Status::Created,
            (true, false) => Status::Running,
        }
    }

    fn json(&self) -> Value {
        let status = self.status();
        let word = match status {
            Status::Created => "created",
            Status::Running => "running",
            Status::Stopped => "stopped",
        };
        json!({
            "ociVersion": "1.2.0", "id": self.text("id"), "status": word,
            "pid": if status == Status::Stopped { 0 } else { self.pid() },
            "bundle": self.text("bundle"), "rootfs": self.text("rootfs"), "created": self.text("created"), "owner": "root",
            "annotations": self.value.get("annotations").unwrap_or(&Value::Null),
        })
    }
}

pub(super) fn print(args: &Args, id: &str) -> Result<(), String> {
    println!("{:#}", State::read(args, id)?.json());
    Ok(())
}

pub(super) fn list(args: &Args) -> Result<(), String> {
    let entries = std::fs::read_dir(&args.root).into_iter().flatten().flatten();
    let mut ids: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    ids.sort();
    let states: Vec<Value> = ids.iter().filter_map(|id| State::read(args, id).ok()).map(|s| s.json()).collect();
    match args.format.as_str() {
        "json" => println!("{}", Value::Array(states)),
        "table" if args.quiet => {
            states.iter().for_each(|s| println!("{}", s.get("id").and_then(Value::as_str).unwrap_or_default()))
        }
        "table" => {
            println!("{:<24}{:<10}{:<12}{:<32}CREATED", "ID", "PID", "STATUS", "BUNDLE");
            for s in &states {
                let text = |key: &str| s.get(key).and_then(Value::as_str).unwrap_or_default();
                let pid = s.get("pid").and_then(Value::as_i64).unwrap_or_default();
                println!(
                    "{:<23} {pid:<9} {:<11} {:<31} {}",
                    text("id"),
                    text("status"),
                    text("bundle"),
                    text("created")
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

pub(super) fn kill(args: &Args, id: &str) -> Result<(), String> {
    let state = State::read(args, id)?;
    let signal = signal_number(args.words.get(2).map_or("TERM", String::as_str))?;
    if args.all {
        cgroup::signal_all(&Layout::discover(), state.cgroup(), signal).map_err(|e| e.to_string())?;
    }
    if state.status() == Status::Stopped {
        return if args.all { Ok(()) } else { Err(format!("container {id} is not running")) };
    }
    let told = |e: nix::errno::Errno| format!("signal {id}: {}", crate::stages::report::cause(e));
    let pidfd = sys::pidfd_open(state.pid()).map_err(told)?;
    if state.status() == Status::Stopped {
        return Ok(()); // gone between the two looks; the descriptor may name somebody else
    }
    sys::pidfd_send_signal(pidfd.as_fd(), signal).map_err(told)
}

pub(super) fn delete(args: &Args, id: &str) -> Result<(), String> {
    let state = match State::read(args, id) {
        Ok(state) => state,
        // Left half-made by a creator that was killed.
        Err(_) if args.force => return remove_folder(&args.root.join(id)),
        Err(e) => return Err(e),
    };
    match state.status() {
        Status::Running if !args.force => {
            return Err(format!("container {id} is running: kill it first, or delete --force"));
        }
        Status::Stopped => {}
        _ => {
            if let Ok(pidfd) = sys::pidfd_open(state.pid()) {
                let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
            let until = Instant::now() + KILL_WAIT_MAX;
            while state.status() != Status::Stopped && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    remove(&state.folder, state.cgroup())
}

/// The container's traces: its group with all that is left in it, and its folder.
pub(super) fn remove(folder: &Path, cgroup: &str) -> Result<(), String> {
    cgroup::remove(&Layout::discover(), cgroup).map_err(|e| e.to_string())?;
    remove_folder(folder)
}

fn remove_folder(folder: &Path) -> Result<(), String> {
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
