//! From files to a state: which files count, what a crash may have left, and what no crash explains.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::disk::Disk;
use super::frame::{self, FRAME_HEAD_LEN, FileKind, HEADER_LEN, Record};
use crate::store::{Entry, Op, Revision};

/// What is on the disk.
pub(super) struct Recovered {
    pub keys: BTreeMap<Rc<str>, Entry>,
    /// No revision up to here may be given out again.
    pub revision: Revision,
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
    #[error("store {file}: damaged at byte {at} and whole records follow: this is no torn write; restore a snapshot")]
    Damaged { file: String, at: usize },
    #[error("store {0}: not a store file, or its header is damaged")]
    Header(String),
    #[error("store {0}: written by a later version (format {1})")]
    Version(String, u8),
    #[error("store {0}: log without the snapshot it follows")]
    NoSnapshot(String),
}

pub(super) fn log_name(generation: u64) -> String {
    format!("log-{generation:016x}")
}
pub(super) fn snapshot_name(generation: u64) -> String {
    format!("snap-{generation:016x}")
}

/// Reads the newest snapshot and its log, cuts off a torn tail, removes what is superseded.
pub(super) fn recover(disk: &mut dyn Disk) -> Result<Recovered, OpenError> {
    let names = disk.list().map_err(|e| OpenError::Io("folder".into(), e))?;
    let generation_of = |name: &str, kind: &str| u64::from_str_radix(name.strip_prefix(kind)?, 16).ok();
    let newest = |kind: &str| names.iter().filter_map(|n| generation_of(n, kind)).max();
    let (snapshot, log) = (newest("snap-"), newest("log-"));
    let generation = snapshot.unwrap_or(0);
    if let Some(log) = log.filter(|l| *l > generation) {
        return Err(OpenError::NoSnapshot(log_name(log)));
    }
    let mut state = Recovered { keys: BTreeMap::new(), revision: Revision(0), generation, log_len: 0, snapshot_len: 0 };
    if snapshot.is_some() {
        read_snapshot(disk, &mut state)?;
    }
    read_log(disk, &mut state, log == Some(generation))?;
    let live = [log_name(generation), snapshot_name(generation)];
    for name in names.iter().filter(|n| !live.contains(n)) {
        disk.remove(name).map_err(|e| OpenError::Io(name.clone(), e))?;
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

fn read_snapshot(disk: &dyn Disk, state: &mut Recovered) -> Result<(), OpenError> {
    let name = snapshot_name(state.generation);
    let bytes = disk.read(&name).map_err(|e| OpenError::Io(name.clone(), e))?;
    check_header(&name, FileKind::Snapshot, &bytes)?;
    let mut at = HEADER_LEN;
    let mut end = None;
    while let Some(payload) = bytes.get(at..).and_then(frame::frame) {
        let damaged = OpenError::Damaged { file: name.clone(), at };
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
            state.revision = revision;
            state.snapshot_len = bytes.len() as u64;
            Ok(())
        }
        _ => Err(OpenError::Damaged { file: name, at }),
    }
}

fn read_log(disk: &mut dyn Disk, state: &mut Recovered, exists: bool) -> Result<(), OpenError> {
    let name = log_name(state.generation);
    let io = |e| OpenError::Io(log_name(state.generation), e);
    let bytes = if exists { disk.read(&name).map_err(io)? } else { Vec::new() };
    // A crash while the file was made leaves less than a header, or one that was not synced, and nothing after it.
    if bytes.len() <= HEADER_LEN && check_header(&name, FileKind::Log, &bytes).is_err() {
        return start_log(disk, state.generation, exists).map(|len| state.log_len = len).map_err(io);
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
    let tail = bytes.get(at..).unwrap_or_default();
    if !tail.is_empty() {
        if (1..tail.len()).any(|i| tail.get(i..).and_then(frame::frame).is_some_and(|p| frame::records(p).is_ok())) {
            return Err(OpenError::Damaged { file: name, at });
        }
        log::warn!("store {name}: {} bytes of a write that a crash interrupted were cut off at byte {at}", tail.len());
        let io = |e| OpenError::Io(name.clone(), e);
        disk.truncate(&name, at as u64).map_err(io)?;
        disk.sync(&name).map_err(io)?;
    }
    state.log_len = at as u64;
    Ok(())
}

/// Makes an empty log; returns its length.
pub(super) fn start_log(disk: &mut dyn Disk, generation: u64, exists: bool) -> io::Result<u64> {
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
        }
        Record::Reserve(revision) => state.revision = state.revision.max(revision),
        Record::Entry(..) | Record::End { .. } => {}
    }
}
