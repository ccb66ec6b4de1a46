//! The disk's side of the engine: appends frames, rolls over to a snapshot. Runs on a blocking thread.

use std::io;

use bytes::Bytes;

use super::disk::Disk;
use super::frame::{self, FileKind, FrameWriter};
use super::recover::{log_name, snapshot_name, start_log};
use crate::store::{Entry, Revision};

/// Bytes of one frame of a snapshot.
const SNAPSHOT_FRAME_BYTES: usize = 256 << 10;
const SNAPSHOT_TEMP: &str = "snap.tmp";

/// Owns the disk.
pub(super) struct Writer {
    pub disk: Box<dyn Disk>,
    pub generation: u64,
    /// Bytes of the log that are known to be on disk.
    pub log_len: u64,
    pub snapshot_len: u64,
    /// Bytes of log beyond which a snapshot is made (or twice the last snapshot, if that is more).
    pub log_bytes_max: u64,
}

/// A value as a snapshot takes it to the blocking thread.
pub(crate) struct Kept {
    pub key: Box<str>,
    pub created: Revision,
    pub modified: Revision,
    pub value: Bytes,
}

impl Kept {
    pub(crate) fn new(key: &str, entry: &Entry) -> Kept {
        Kept { key: key.into(), created: entry.created, modified: entry.modified, value: entry.value.clone() }
    }
}

/// What went wrong with a write.
#[derive(Debug)]
pub(super) enum WriteError {
    /// No room; the log is as it was before.
    Full,
    /// Nobody knows what is on the disk.
    Broken(String),
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl Writer {
    /// Safe on disk when it returns Ok.
    pub(crate) fn append(&mut self, frame: &[u8]) -> Result<(), WriteError> {
        let name = log_name(self.generation);
        match self.disk.append(&name, frame).and_then(|()| self.disk.sync(&name)) {
            Ok(()) => {
                self.log_len += frame.len() as u64;
                Ok(())
            }
            Err(e) => match self.disk.truncate(&name, self.log_len).and_then(|()| self.disk.sync(&name)) {
                Ok(()) if is_full(&e) => Err(WriteError::Full),
                _ => Err(WriteError::Broken(format!("write {name}: {e}"))),
            },
        }
    }
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.log_len > self.log_bytes_max.max(2 * self.snapshot_len)
    }
    /// Writes all that is true at `revision` and starts a new log. On failure the old log goes on, unless even that is unknown.
    pub(crate) fn roll(&mut self, kept: &[Kept], revision: Revision) -> Result<(), WriteError> {
        let next = self.generation + 1;
        let written = write_snapshot(&mut *self.disk, SNAPSHOT_TEMP, next, kept, revision);
        let len = match written {
            Ok(len) => len,
            Err(e) => {
                let _ = self.disk.remove(SNAPSHOT_TEMP);
                log::warn!("store: write snapshot: {e}; the log goes on growing");
                // Not again at once: after as much log again.
                self.snapshot_len = self.log_len;
                return Ok(());
            }
        };
        // From the rename on, the new generation is the truth: a failure leaves us without a log to write to.
        let roll = self
            .disk
            .rename(SNAPSHOT_TEMP, &snapshot_name(next))
            .and_then(|()| self.disk.sync_names())
            .and_then(|()| start_log(&mut *self.disk, next, false));
        match roll {
            Ok(log_len) => (self.log_len, self.snapshot_len) = (log_len, len),
            Err(e) => return Err(WriteError::Broken(format!("start log {next:016x}: {e}"))),
        }
        for old in [log_name(self.generation), snapshot_name(self.generation)] {
            // The next start removes what is left.
            let _ = self.disk.remove(&old);
        }
        self.generation = next;
        Ok(())
    }
}

/// Writes a whole snapshot under a name of no meaning yet, and syncs it. Returns its length.
pub(crate) fn write_snapshot(
    disk: &mut dyn Disk,
    name: &str,
    generation: u64,
    kept: &[Kept],
    revision: Revision,
) -> io::Result<u64> {
    let _ = disk.remove(name);
    let header = frame::header(FileKind::Snapshot, generation);
    let mut len = header.len() as u64;
    disk.append(name, &header)?;
    let mut frame = FrameWriter::new();
    for k in kept {
        frame.entry(&k.key, k.created, k.modified, &k.value);
        if frame.len() > SNAPSHOT_FRAME_BYTES {
            let bytes = std::mem::replace(&mut frame, FrameWriter::new()).finish();
            len += bytes.len() as u64;
            disk.append(name, &bytes)?;
        }
    }
    frame.end(revision, kept.len() as u64);
    let bytes = frame.finish();
    len += bytes.len() as u64;
    disk.append(name, &bytes)?;
    disk.sync(name)?;
    Ok(len)
}
