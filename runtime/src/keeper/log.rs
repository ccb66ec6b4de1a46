//! CRI log files: written line by line ([`line`]), turned over by size.
//!
//! Nothing is held back: what a read brings is written at once, the unfinished end of a line as `P` (readers join it with what follows
//! of the same stream), so there is no memory per container. What is between FIFO and file is in the [`Journal`]: the keeper may die anywhere and
//! no byte is lost or doubled.

use super::journal::Journal;
use super::line::{self, CHUNK_BYTES, Stream};
use crate::container::Log;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Rounds over one stream before the others, and who asks something, get their turn: about what a FIFO holds.
const ROUNDS_MAX: usize = 4;

/// The live file of one container.
pub(crate) struct LogFile {
    log: Log,
    file: Option<File>,
    bytes: u64,
}

impl LogFile {
    /// Not open yet.
    pub(crate) fn new(log: Log) -> Self {
        Self { log, file: None, bytes: 0 }
    }

    /// For the first time, or after someone else moved the file away.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        let (file, bytes) = open_append(&self.log.path)?;
        (self.file, self.bytes) = (Some(file), bytes);
        Ok(())
    }

    /// Reads what is there (bounded); each chunk is then for `heard`, until that says no. True = the stream may hold more.
    pub(crate) fn pump(
        &mut self,
        from: &mut File,
        stream: Stream,
        now_ns: i64,
        buffer: &mut [u8; CHUNK_BYTES],
        journal: &Journal,
        heard: &mut impl FnMut(&[u8]) -> bool,
    ) -> bool {
        for _ in 0..ROUNDS_MAX {
            // First, so that the length noted in the journal is that of the file the chunk goes to.
            let prepared = self.prepare();
            let place = (self.log.path.as_path(), stream, now_ns, self.bytes);
            match journal.take(from, place, buffer.as_mut_slice()) {
                Ok(0) => return false,
                Ok(count) => {
                    let chunk = buffer.get(..count).unwrap_or_default();
                    let written = prepared.and_then(|()| line::format(chunk, stream, now_ns, |text| self.append(text)));
                    if let Err(e) = written.and_then(|()| journal.clear()) {
                        complain!("write log {}: {e}", self.log.path.display());
                        let _ = journal.clear();
                        self.file = None; // tried again at the next read: a full disk may have been emptied
                    }
                    if !heard(buffer.get(..count).unwrap_or_default()) {
                        return true;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn prepare(&mut self) -> io::Result<()> {
        if self.log.max_bytes > 0 && self.bytes >= self.log.max_bytes {
            self.rotate()?;
        }
        if self.file.is_none() { self.reopen() } else { Ok(()) }
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(text)?;
            self.bytes += text.len() as u64;
        }
        Ok(())
    }

    /// `path` -> `path.20261121-022853`, the oldest beyond `max_files` gone.
    fn rotate(&mut self) -> io::Result<()> {
        let stamp = line::timestamp(super::record::now_ns());
        let short: String =
            stamp.chars().take(19).filter(|c| *c != '-' && *c != ':').map(|c| if c == 'T' { '-' } else { c }).collect();
        let aside = with_suffix(&self.log.path, &short);
        if aside.exists() {
            return Ok(()); // twice in a second: the file grows a little longer
        }
        std::fs::rename(&self.log.path, &aside)?;
        self.reopen()?;
        let mut old = rotated(&self.log.path);
        old.sort();
        let keep = self.log.max_files.max(1) as usize - 1;
        for path in old.iter().take(old.len().saturating_sub(keep)) {
            let _ = std::fs::remove_file(path); // gone already is fine
        }
        Ok(())
    }
}

fn open_append(path: &Path) -> io::Result<(File, u64)> {
    let open = || OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    let file = match (open(), path.parent()) {
        (Err(e), Some(folder)) if e.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder)?;
            open()
        }
        (opened, _) => opened,
    }?;
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o640))?;
    }
    Ok((file, bytes))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = |p: &PathBuf| {
        let rest =
            p.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(name)).and_then(|n| n.strip_prefix('.'));
        rest.is_some_and(|r| r.len() == 15 && r.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
    };
    entries.map(|e| e.path()).filter(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_so_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let mut log = LogFile::new(Log { path: path.clone(), max_bytes: 10, max_files: 2 });
        log.reopen().unwrap();
        for old in ["20200101-000000", "20200102-000000"] {
            std::fs::write(with_suffix(&path, old), "x").unwrap();
        }
        std::fs::write(with_suffix(&path, "keep-me"), "x").unwrap();
        log.append(b"0123456789").unwrap();
        log.prepare().unwrap();
        log.append(b"next").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"next");
        let old = rotated(&path);
        assert_eq!(old.len(), 1);
        assert_eq!(std::fs::read(&old[0]).unwrap(), b"0123456789");
        assert!(with_suffix(&path, "keep-me").exists());
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        log.reopen().unwrap();
        log.append(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }
}
