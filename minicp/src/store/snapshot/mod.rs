//! Backups: one file that holds everything durable that was true at one revision.
//!
//! It is a store's own snapshot file (`log::frame`: every frame has a checksum, the last record counts the entries), so that there is one format. A
//! folder is read without its lock: snapshots never change, a log only grows, and what is being written is cut off like after a crash. Values are
//! as the store has them: encrypted Secrets stay so, and the keys (`encryption.yaml`, `pki/`) are never in the file.
//!
//! A restored store goes on [`REVISIONS_AHEAD`] revisions later: whoever remembers a revision of the life that was lost is told 410 and lists again,
//! instead of being told of other changes under the same numbers.

mod etcd;
pub mod schedule;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mote_api::tree::Value;

use super::log::disk::{Disk, Folder};
use super::log::writer::{Kept, write_snapshot};
use super::log::{OpenError, recover};
use super::{Range, Revision, is_kept};

/// Revisions between a snapshot's and the restored store's: more than any store writes between a backup and its loss.
pub const REVISIONS_AHEAD: u64 = 1_000_000_000;
/// No store has come so far: a million commits a second for a hundred thousand years.
const REVISION_MAX: Revision = Revision(1 << 62);
/// Bytes of a file that is read.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Times a folder is read anew because its files were replaced meanwhile.
const READS_MAX: u32 = 5;
/// Generation of a restored store and of backups.
const GENERATION: u64 = 1;

/// Why a snapshot was not saved, read or restored: operation, object, cause.
#[derive(thiserror::Error, Debug)]
pub enum SnapshotError {
    #[error("{0} {path}: {2}", path = .1.display())]
    Io(&'static str, PathBuf, io::Error),
    #[error("{path}: {1}", path = .0.display())]
    Store(PathBuf, OpenError),
    #[error("{path}: damaged at byte {1}: not all of it is here, or not as it was; take another backup", path = .0.display())]
    Damaged(PathBuf, usize),
    #[error("{}: holds a store already; restore into a fresh data folder, and move it into place then", .0.display())]
    NotEmpty(PathBuf),
    #[error("{}: no store is there", .0.display())]
    NotThere(PathBuf),
    /// Says itself what is the matter.
    #[error("{0}")]
    Etcd(String),
    #[error("{path}: {key}: {why}", path = .file.display())]
    Value { file: PathBuf, key: String, why: &'static str },
}

/// Everything durable at one revision.
pub struct Snapshot {
    pub revision: Revision,
    /// The last change before it.
    pub changed: Revision,
    pub(crate) entries: Vec<Kept>,
}

/// What is in a snapshot, for people.
pub struct Summary {
    pub revision: Revision,
    pub entries: usize,
    /// Of all values.
    pub bytes: u64,
    /// Values that need a key of `encryption.yaml`.
    pub encrypted: usize,
    /// Entries by `<group or core>/<plural>`.
    pub resources: BTreeMap<String, usize>,
}

impl Snapshot {
    fn of(state: recover::Recovered) -> Snapshot {
        let keep = |(key, e): (std::rc::Rc<str>, super::Entry)| Kept::new(&key, &e);
        let entries = state.keys.into_iter().filter(|(k, _)| is_kept(k)).map(keep).collect();
        Snapshot { revision: state.revision, changed: state.changed, entries }
    }
    /// Of what an engine answered.
    pub(crate) fn of_range(range: &Range) -> Snapshot {
        let kept: Vec<Kept> = range.entries.iter().filter(|(k, _)| is_kept(k)).map(|(k, e)| Kept::new(k, e)).collect();
        let changed = kept.iter().map(|k| k.modified).max().unwrap_or_default();
        Snapshot { revision: range.revision, changed, entries: kept }
    }
    /// Of a store's folder, whether a server runs on it or not.
    pub fn of_folder(folder: &Path) -> Result<Snapshot, SnapshotError> {
        if !folder.is_dir() {
            return Err(SnapshotError::NotThere(folder.into()));
        }
        let disk = Folder::unlocked(folder);
        let mut tries = 0;
        loop {
            match recover::read(&disk) {
                Ok(found) if found.state.log_len == 0 && found.state.snapshot_len == 0 => {
                    return Err(SnapshotError::NotThere(folder.into()));
                }
                Ok(found) => return Ok(Self::of(found.state)),
                // A new generation took the place of the one that was being read.
                Err(OpenError::Io(..) | OpenError::NoSnapshot(_)) if tries < READS_MAX => tries += 1,
                Err(e) => return Err(SnapshotError::Store(folder.into(), e)),
            }
        }
    }
    /// From a file, every checksum and count compared, every value looked at.
    pub fn read(file: &Path) -> Result<Snapshot, SnapshotError> {
        let failed = |e| SnapshotError::Io("read", file.into(), e);
        if std::fs::metadata(file).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(failed(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes"))));
        }
        let bytes = std::fs::read(file).map_err(failed)?;
        let mut state = recover::Recovered::default();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        recover::read_snapshot(&name, &bytes, &mut state).map_err(|e| match e {
            OpenError::Damaged { at, .. } => SnapshotError::Damaged(file.into(), at),
            e => SnapshotError::Store(file.into(), e),
        })?;
        let snapshot = Self::of(state);
        if snapshot.revision > REVISION_MAX {
            return Err(SnapshotError::Damaged(file.into(), bytes.len()));
        }
        for kept in &snapshot.entries {
            if kept.created > kept.modified || kept.modified > snapshot.revision {
                let why = "written after the last revision";
                return Err(SnapshotError::Value { file: file.into(), key: kept.key.to_string(), why });
            }
            if !super::sealed::is_sealed(&kept.value) && serde_json::from_slice::<Value>(&kept.value).is_err() {
                let why = "neither an object nor encrypted";
                return Err(SnapshotError::Value { file: file.into(), key: kept.key.to_string(), why });
            }
        }
        Ok(snapshot)
    }
    /// Writes it to `file` (mode 0600); there is the whole of it afterwards, or what was there before. Returns its length.
    pub fn write(&self, file: &Path) -> Result<u64, SnapshotError> {
        let failed = |e| SnapshotError::Io("write", file.into(), e);
        let name = file.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?.to_string_lossy();
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut disk = Folder::unlocked(folder);
        self.put(&mut disk, &name, self.revision).map_err(failed)
    }
    fn put(&self, disk: &mut Folder, name: &str, revision: Revision) -> io::Result<u64> {
        let temp = format!(".{name}.tmp");
        let written = write_snapshot(disk, &temp, GENERATION, &self.entries, revision)
            .and_then(|len| disk.rename(&temp, name).map(|()| len))
            .and_then(|len| disk.sync_names().map(|()| len));
        written.inspect_err(|_| {
            let _ = disk.remove(&temp);
        })
    }
    /// Makes a store of it in a folder where none is. Returns the revision it goes on from.
    pub fn restore(&self, folder: &Path) -> Result<Revision, SnapshotError> {
        let failed = |e| SnapshotError::Io("restore into", folder.into(), e);
        let mut disk = Folder::open(folder).map_err(failed)?;
        if !disk.list().map_err(failed)?.is_empty() {
            return Err(SnapshotError::NotEmpty(folder.into()));
        }
        let revision = Revision(self.revision.0.saturating_add(REVISIONS_AHEAD));
        self.put(&mut disk, &recover::snapshot_name(GENERATION), revision).map_err(failed)?;
        Ok(revision)
    }
    pub fn summary(&self) -> Summary {
        let mut out = Summary {
            revision: self.revision,
            entries: self.entries.len(),
            bytes: 0,
            encrypted: 0,
            resources: BTreeMap::new(),
        };
        for kept in &self.entries {
            out.bytes += kept.value.len() as u64;
            out.encrypted += usize::from(super::sealed::is_sealed(&kept.value));
            let resource: Vec<&str> = kept.key.trim_start_matches("/registry/").splitn(3, '/').take(2).collect();
            *out.resources.entry(resource.join("/")).or_default() += 1;
        }
        out
    }
}

#[cfg(test)]
mod tests;
