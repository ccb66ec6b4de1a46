//! CRI log files: `2026-11-21T02:28:53.123456789Z stdout F line`.
//!
//! Nothing is held back: what a read brings is written at once, the unfinished end of a line as `P` (readers join it with what follows
//! of the same stream), so there is no memory per container. What is between FIFO and file is in the [`Journal`]: the keeper may die anywhere and
//! no byte is lost or doubled.

use super::journal::Journal;
use crate::container::Log;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest piece of a line, as containerd and CRI-O write it.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;
/// A timestamp, and a sign before its year.
const STAMP_BYTES: usize = 31;
/// Rounds over one stream before the others get their turn.
const ROUNDS_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

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
                    let written = prepared.and_then(|()| format(chunk, stream, now_ns, |text| self.append(text)));
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
        let stamp = timestamp(super::record::now_ns());
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

/// Whole lines as `F`, the unfinished rest as `P`, in pieces: written where the memory for them is, which is bounded and not the heap.
pub(crate) fn format(
    bytes: &[u8],
    stream: Stream,
    now_ns: i64,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let name = match stream {
        Stream::Stdout => " stdout ",
        Stream::Stderr => " stderr ",
    };
    let stamp = timestamp(now_ns);
    let mut text: heapless::Vec<u8, CHUNK_BYTES> = heapless::Vec::new();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let (kind, line) = line.strip_suffix(b"\n").map_or((b"P ", line), |whole| (b"F ", whole));
        for part in [stamp.as_bytes(), name.as_bytes(), kind, line, b"\n"] {
            if text.extend_from_slice(part).is_ok() {
                continue;
            }
            write(&text)?;
            text.clear();
            if text.extend_from_slice(part).is_err() {
                write(part)?; // as long as a chunk by itself
            }
        }
    }
    write(&text)
}

/// RFC 3339, UTC, always nine digits of a second.
pub(crate) fn timestamp(now_ns: i64) -> heapless::String<STAMP_BYTES> {
    let (seconds, nanos) = (now_ns.div_euclid(1_000_000_000), now_ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's civil_from_days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut stamp = heapless::String::new();
    // Always fits: nanoseconds in 64 bits end in the year 2262.
    let _ = write!(stamp, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z");
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8], stream: Stream) -> Vec<u8> {
        let mut text = Vec::new();
        format(bytes, stream, 0, |piece| io::Write::write_all(&mut text, piece)).unwrap();
        text
    }

    #[test]
    fn lines_and_pieces() {
        let text = |bytes: &[u8], stream| String::from_utf8(whole(bytes, stream)).unwrap();
        let (long, text) = (text(&[b'x'; 2 * CHUNK_BYTES], Stream::Stdout), text(b"a\n\nb", Stream::Stderr));
        let stamp = "1970-01-01T00:00:00.000000000Z stderr";
        assert_eq!(text, format!("{stamp} F a\n{stamp} F \n{stamp} P b\n"));
        assert!(whole(b"", Stream::Stdout).is_empty());
        assert_eq!(long.len(), "1970-01-01T00:00:00.000000000Z stdout P \n".len() + 2 * CHUNK_BYTES);
        let many = String::from_utf8(whole("line\n".repeat(3000).as_bytes(), Stream::Stderr)).unwrap();
        assert_eq!(many, format!("{stamp} F line\n").repeat(3000), "more than one piece");
    }

    #[test]
    fn times() {
        assert_eq!(timestamp(1_709_210_096_000_000_007).as_str(), "2024-02-29T12:34:56.000000007Z");
        assert_eq!(timestamp(1_795_228_133_123_456_789).as_str(), "2026-11-21T02:28:53.123456789Z");
        assert_eq!(timestamp(-1).as_str(), "1969-12-31T23:59:59.999999999Z");
    }

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
