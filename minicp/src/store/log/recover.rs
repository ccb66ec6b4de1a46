//! From files to a state: which files count, what a crash may have left, and what no crash explains.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::disk::Disk;
use super::frame::{self, FRAME_HEAD_LEN, FileKind, HEADER_LEN, Record};
use crate::store::{Entry, Op, Revision};

/// What is on the disk.
#[derive(Default)]
pub(crate) struct Recovered {
    pub keys: BTreeMap<Rc<str>, Entry>,
    /// No revision up to here may be given out again.
    pub revision: Revision,
    /// The last change that is known: of the log, or else the snapshot's revision.
    pub changed: Revision,
    pub generation: u64,
    /// Length of the log of `generation`, header included.
    pub log_len: u64,
    /// Length of the snapshot, 0 if there is none.
    pub snapshot_len: u64,
}

/// Why a store cannot be opened. Nothing was changed.
#[derive(thiserror::Error, Debug)]
pub enum OpenError {
    #[error("store {0}: {1}")]
    Io(String, io::Error),
    #[error(
        "store {file}: damaged at byte {at} and whole records follow: this is no torn write; move the store folder away and restore a backup (`mote snapshot restore`)"
    )]
    Damaged { file: String, at: usize },
    #[error("store {0}: not a store file, or its header is damaged")]
    Header(String),
    #[error("store {0}: written by a later version (format {1})")]
    Version(String, u8),
    #[error("store {0}: log without the snapshot it follows")]
    NoSnapshot(String),
}

pub(crate) fn log_name(generation: u64) -> String {
    format!("log-{generation:016x}")
}
pub(crate) fn snapshot_name(generation: u64) -> String {
    format!("snap-{generation:016x}")
}

/// A state as the files tell it, and what a crash left to put right before more is written.
pub(crate) struct Found {
    pub state: Recovered,
    pub log: LogFile,
    /// Files of earlier generations, and snapshots that were not finished.
    pub superseded: Vec<String>,
}

/// What there is of the log that `state` ends with.
pub(crate) enum LogFile {
    /// Not there, or less than a header: made anew.
    Begin {
        exists: bool,
    },
    Whole,
    /// A write that a crash interrupted (or that another process is about to finish) begins at `log_len`.
    Torn {
        bytes: usize,
    },
}

/// Reads the newest snapshot and its log; changes nothing.
pub(crate) fn read(disk: &dyn Disk) -> Result<Found, OpenError> {
    let names = disk.list().map_err(|e| OpenError::Io("folder".into(), e))?;
    let generation_of = |name: &str, kind: &str| u64::from_str_radix(name.strip_prefix(kind)?, 16).ok();
    let newest = |kind: &str| names.iter().filter_map(|n| generation_of(n, kind)).max();
    let (snapshot, log) = (newest("snap-"), newest("log-"));
    let generation = snapshot.unwrap_or(0);
    if let Some(log) = log.filter(|l| *l > generation) {
        return Err(OpenError::NoSnapshot(log_name(log)));
    }
    let mut state = Recovered { generation, ..Recovered::default() };
    if snapshot.is_some() {
        let name = snapshot_name(generation);
        let bytes = disk.read(&name).map_err(|e| OpenError::Io(name.clone(), e))?;
        read_snapshot(&name, &bytes, &mut state)?;
    }
    let log = read_log(disk, &mut state, log == Some(generation))?;
    let live = [log_name(generation), snapshot_name(generation)];
    Ok(Found { state, log, superseded: names.into_iter().filter(|n| !live.contains(n)).collect() })
}

/// [`read`], then cuts off a torn tail and removes what is superseded.
pub(crate) fn recover(disk: &mut dyn Disk) -> Result<Recovered, OpenError> {
    let Found { mut state, log, superseded } = read(disk)?;
    let name = log_name(state.generation);
    let io = |e| OpenError::Io(name.clone(), e);
    match log {
        LogFile::Begin { exists } => state.log_len = start_log(disk, state.generation, exists).map_err(io)?,
        LogFile::Whole => {}
        LogFile::Torn { bytes } => {
            let at = state.log_len;
            log::warn!("store {name}: {bytes} bytes of a write that a crash interrupted were cut off at byte {at}");
            disk.truncate(&name, at).map_err(io)?;
            disk.sync(&name).map_err(io)?;
        }
    }
    for name in superseded {
        disk.remove(&name).map_err(|e| OpenError::Io(name, e))?;
    }
    Ok(state)
}

fn check_header(name: &str, kind: FileKind, bytes: &[u8]) -> Result<(), OpenError> {
    match frame::check_header(kind, bytes) {
        Ok(_) => Ok(()),
        Err(frame::Damage::Version(v)) => Err(OpenError::Version(name.into(), v)),
        Err(_) => Err(OpenError::Header(name.into())),
    }
}

/// A whole snapshot into an empty `state`.
pub(crate) fn read_snapshot(name: &str, bytes: &[u8], state: &mut Recovered) -> Result<(), OpenError> {
    check_header(name, FileKind::Snapshot, bytes)?;
    let mut at = HEADER_LEN;
    let mut end = None;
    while let Some(payload) = bytes.get(at..).and_then(frame::frame) {
        let damaged = OpenError::Damaged { file: name.into(), at };
        for record in frame::records(payload).map_err(|_| damaged)? {
            match record {
                Record::Entry(key, entry) => {
                    state.keys.insert(key, entry);
                }
                Record::End { revision, entries } => end = Some((revision, entries)),
                Record::Commit(..) | Record::Reserve(_) => {}
            }
        }
        at += FRAME_HEAD_LEN + payload.len();
    }
    // A snapshot gets its name after it was synced whole: a part of one is damage.
    match end {
        Some((revision, entries)) if at == bytes.len() && entries == state.keys.len() as u64 => {
            (state.revision, state.changed) = (revision, revision);
            state.snapshot_len = bytes.len() as u64;
            Ok(())
        }
        _ => Err(OpenError::Damaged { file: name.into(), at }),
    }
}

fn read_log(disk: &dyn Disk, state: &mut Recovered, exists: bool) -> Result<LogFile, OpenError> {
    let name = log_name(state.generation);
    let bytes = if exists { disk.read(&name).map_err(|e| OpenError::Io(name.clone(), e))? } else { Vec::new() };
    // A crash while the file was made leaves less than a header, or one that was not synced, and nothing after it.
    if bytes.len() <= HEADER_LEN && check_header(&name, FileKind::Log, &bytes).is_err() {
        return Ok(LogFile::Begin { exists });
    }
    check_header(&name, FileKind::Log, &bytes)?;
    let mut at = HEADER_LEN;
    while let Some(payload) = bytes.get(at..).and_then(frame::frame) {
        let damaged = OpenError::Damaged { file: name.clone(), at };
        for record in frame::records(payload).map_err(|_| damaged)? {
            replay(state, record);
        }
        at += FRAME_HEAD_LEN + payload.len();
    }
    state.log_len = at as u64;
    let tail = bytes.get(at..).unwrap_or_default();
    if (1..tail.len()).any(|i| tail.get(i..).and_then(frame::frame).is_some_and(|p| frame::records(p).is_ok())) {
        return Err(OpenError::Damaged { file: name, at });
    }
    Ok(if tail.is_empty() { LogFile::Whole } else { LogFile::Torn { bytes: tail.len() } })
}

/// Makes an empty log; returns its length.
pub(crate) fn start_log(disk: &mut dyn Disk, generation: u64, exists: bool) -> io::Result<u64> {
    let name = log_name(generation);
    if exists {
        disk.truncate(&name, 0)?;
    }
    disk.append(&name, &frame::header(FileKind::Log, generation))?;
    disk.sync(&name)?;
    disk.sync_names()?;
    Ok(HEADER_LEN as u64)
}

fn replay(state: &mut Recovered, record: Record) {
    match record {
        Record::Commit(revision, ops) => {
            for op in ops {
                match op {
                    Op::Put(key, value) => {
                        let created = state.keys.get(&key).map_or(revision, |e| e.created);
                        state.keys.insert(key, Entry { value, created, modified: revision });
                    }
                    Op::Delete(key) => {
                        state.keys.remove(&key);
                    }
                }
            }
            state.revision = state.revision.max(revision);
            state.changed = state.changed.max(revision);
        }
        Record::Reserve(revision) => state.revision = state.revision.max(revision),
        Record::Entry(..) | Record::End { .. } => {}
    }
}
