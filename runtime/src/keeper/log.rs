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
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Rounds over one stream before the others, and who asks something, get their turn: about what a FIFO holds.
const ROUNDS_MAX: usize = 4;

/// The live file of one container.
pub(crate) struct LogFile {
    log: Log,
    file: Option<File>,
    bytes: u64,
    /// Taken from the container since the disk took the last of it.
    lost_bytes: u64,
}

impl LogFile {
    /// Not open yet.
    pub(crate) fn new(log: Log) -> Self {
        Self { log, file: None, bytes: 0, lost_bytes: 0 }
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
                    match written.and_then(|()| journal.clear()) {
                        Ok(()) => self.go_on(),
                        Err(e) => {
                            self.lose(count, &e);
                            let _ = journal.clear();
                        }
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

    /// The container goes on whatever becomes of its log. Told once, for this comes with every line while a disk is full.
    fn lose(&mut self, count: usize, cause: &io::Error) {
        if self.lost_bytes == 0 {
            complain!("write log {}: {cause}: lost until that can be done again", self.log.path.display());
        }
        self.lost_bytes += count as u64;
        self.file = None; // tried again at the next read: the disk may have been emptied
    }

    fn go_on(&mut self) {
        if self.lost_bytes > 0 {
            complain!("write log {}: can be done again, {} bytes were lost", self.log.path.display(), self.lost_bytes);
            self.lost_bytes = 0;
        }
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
        match std::fs::rename(&self.log.path, &aside) {
            // Moved by us already, and then there was no room for the next.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
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

/// Where to go on, and how many bytes are there. A line that a full disk or a power cut has torn is ended, or the next would be part of it.
fn open_append(path: &Path) -> io::Result<(File, u64)> {
    let open = || OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path);
    let mut file = match (open(), path.parent()) {
        (Err(e), Some(folder)) if e.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder)?;
            open()
        }
        (opened, _) => opened,
    }?;
    let mut bytes = file.metadata()?.len();
    if bytes == 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o640))?;
        return Ok((file, bytes));
    }
    let mut last = [0];
    if file.read_at(&mut last, bytes - 1)? == 1 && last != *b"\n" {
        file.write_all(b"\n")?;
        bytes += 1;
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
        (log.bytes, log.file) = (log.log.max_bytes, None);
        std::fs::remove_file(&path).unwrap();
        rotated(&path).iter().for_each(|old| std::fs::remove_file(old).unwrap()); // or it would be twice in a second
        log.prepare().unwrap();
        assert_eq!((log.bytes, path.exists()), (0, true), "it is made as soon as it can be");
    }

    #[test]
    fn a_full_disk_loses_lines_and_tells_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let journal = Journal::open(dir.path()).unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let nonblock = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let mut from = File::options().read(true).write(true).custom_flags(nonblock).open(fifo).unwrap();
        let mut log = LogFile::new(Log { path: path.clone(), ..Log::default() });
        let mut say = |log: &mut LogFile, text: &str| {
            from.write_all(text.as_bytes()).unwrap();
            let more = log.pump(&mut from, Stream::Stdout, 0, &mut [0; CHUNK_BYTES], &journal, &mut |_| true);
            assert!(!more, "what cannot be written is no reason to stay");
            log.lost_bytes
        };
        assert_eq!(say(&mut log, "one\n"), 0);
        // Torn as a disk does that is full in the middle of a line; then no file can be opened either.
        log.file.as_mut().unwrap().write_all(b"1970-01-01T00:00:00.000000000Z stdout F tw").unwrap();
        log.file = Some(File::options().append(true).open("/dev/full").unwrap());
        std::fs::rename(&path, dir.path().join("aside")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(say(&mut log, "two\n"), 4);
        assert_eq!(say(&mut log, "three\n"), 10);
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(dir.path().join("aside"), &path).unwrap();
        assert_eq!(say(&mut log, "four\n"), 0);
        let line = |text| format!("1970-01-01T00:00:00.000000000Z stdout F {text}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), ["one", "tw", "four"].map(line).concat());
    }
}
