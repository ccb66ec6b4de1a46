//! What the keeper knows of a container, as files in its run folder: written whole, renamed into place, read again by the next keeper.
//!
//! `state` (an intent with pid 0 before the clone, then the facts), `status` (of one that ended while there was only a guard) and `exit`. Each is `u16` version (little-endian) and postcard.

use super::protocol::Exit;
use crate::container::Log;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;
use std::path::Path;

const VERSION: u16 = 1;
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) labels: Vec<(String, String)>,
    /// 0 = about to be cloned.
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) started_at: i64,
    pub(crate) cgroup: String,
    pub(crate) log: Option<Log>,
    /// Sandboxes whose namespaces it joined.
    pub(crate) sandboxes: Vec<String>,
    /// Its first process is the init of a PID namespace: with it the kernel ends all others.
    pub(crate) own_pids: bool,
}

const STATE: &str = "state";
const EXIT: &str = "exit";
const STATUS: &str = "status";

pub(crate) fn write_state(folder: &Path, record: &Record) -> io::Result<()> {
    write(folder, STATE, record)
}

pub(crate) fn write_exit(folder: &Path, exit: &Exit) -> io::Result<()> {
    write(folder, EXIT, exit)
}

/// Who answers in this folder; nobody reads it but [`super::replace`].
pub(crate) fn write_pid(dir: &Path) {
    let write = || {
        let next = dir.join("keeper.pid.next");
        std::fs::write(&next, std::process::id().to_string())?;
        std::fs::rename(&next, dir.join("keeper.pid"))
    };
    if let Err(e) = write() {
        complain!("write keeper.pid: {e}");
    }
}

/// Wait status of a container that ended in the guard's hands.
pub(crate) fn write_status(folder: &Path, status: i32) -> io::Result<()> {
    write(folder, STATUS, &status)
}

pub(crate) fn read_status(folder: &Path) -> Option<i32> {
    read(&folder.join(STATUS))
}

pub(crate) fn read_state(folder: &Path) -> Option<Record> {
    read(&folder.join(STATE))
}

pub(crate) fn read_exit(folder: &Path) -> Option<Exit> {
    read(&folder.join(EXIT))
}

fn write(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let bytes = postcard::to_extend(value, VERSION.to_le_bytes().to_vec()).map_err(io::Error::other)?;
    let next = folder.join(format!("{name}.next"));
    std::fs::write(&next, bytes)?;
    std::fs::rename(&next, folder.join(name))
}

fn read<T: DeserializeOwned>(file: &Path) -> Option<T> {
    if std::fs::metadata(file).ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let bytes = std::fs::read(file).ok()?;
    let (version, payload) = bytes.split_first_chunk::<2>()?;
    (u16::from_le_bytes(*version) == VERSION).then(|| postcard::from_bytes(payload).ok())?
}

/// Field 22 of /proc/PID/stat: clock ticks since boot.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and brackets: count from its last one.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Field 52 of /proc/PID/stat: the wait status of a process that is dead and not yet reaped, whoever's child it is.
pub(crate) fn zombie_status(pid: i32, born: u64) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let is_it = fields.first() == Some(&"Z") && fields.get(19)?.parse::<u64>().ok()? == born;
    if is_it { fields.get(49)?.parse().ok() } else { None }
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damage_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { id: "a".into(), pid: 7, ..Record::default() };
        write_state(dir.path(), &record).unwrap();
        assert_eq!(read_state(dir.path()), Some(record));
        assert_eq!(read_exit(dir.path()), None);
        let file = dir.path().join("state");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[0] = 9;
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(read_state(dir.path()), None);
        std::fs::write(&file, [1, 0, 200]).unwrap();
        assert_eq!(read_state(dir.path()), None);
    }

    #[test]
    fn a_zombies_status_is_read_before_it_is_reaped() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 33"]).spawn().unwrap();
        let pid = child.id() as i32;
        let born = start_time(pid).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while zombie_status(pid, born).is_none() && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(zombie_status(pid, born), Some(33 << 8));
        assert_eq!(zombie_status(pid, born + 1), None, "another of that number");
        child.wait().unwrap();
        assert_eq!(zombie_status(pid, born), None);
        assert_eq!(zombie_status(std::process::id() as i32, start_time(std::process::id() as i32).unwrap()), None);
    }

    #[test]
    fn own_start_time_is_stable() {
        let pid = std::process::id() as i32;
        assert!(start_time(pid).is_some());
        assert_eq!(start_time(pid), start_time(pid));
        assert_eq!(start_time(i32::MAX), None);
    }
}
