//! Reading CRI log files: tail, since, follow, across rotations.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use crate::clock::{self, Moment};
use crate::inotify::Watch;

/// Longest line of a log file that is read (the keeper cuts at 16 KiB).
const LINE_BYTES_MAX: usize = 64 << 10;
const CHUNK_BYTES: usize = 16 << 10;

/// What `kubectl logs` asked for.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct Options {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only so many last lines.
    pub tail: Option<u64>,
    /// Only lines not older than this.
    pub since: Option<Moment>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// End after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// One line of a CRI log file, taken apart.
#[derive(PartialEq, Eq, Debug)]
pub struct Line<'a> {
    /// RFC 3339 with nanoseconds.
    pub time: &'a str,
    /// The line goes on in the next one.
    pub partial: bool,
    /// What was written.
    pub text: &'a [u8],
}

/// Takes `TIME STREAM TAG TEXT` apart; `None` if it is not of that form.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = parts.next()?;
    let tag = parts.next()?;
    if !matches!(stream, b"stdout" | b"stderr") || time.len() < 20 {
        return None;
    }
    let partial = tag.split(|b| *b == b':').next() == Some(b"P");
    Some(Line { time, partial, text: parts.next().unwrap_or_default() })
}

/// Turns lines of the file into what the reader wants to see.
struct Filter {
    options: Options,
    left: u64,
    within_line: bool,
}

impl Filter {
    fn new(options: Options) -> Filter {
        Filter { left: options.limit_bytes.unwrap_or(u64::MAX), options, within_line: false }
    }

    /// Appends what this line gives; false when the limit is reached.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = parse(line) else { return true };
        if let Some(since) = self.options.since
            && clock::parse(line.time).is_none_or(|time| time < since)
        {
            return true;
        }
        let start = out.len();
        if self.options.timestamps && !self.within_line {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.within_line = line.partial;
        let added = u64::try_from(out.len().saturating_sub(start)).unwrap_or(u64::MAX);
        if added > self.left {
            out.truncate(start.saturating_add(usize::try_from(self.left).unwrap_or(usize::MAX)));
            self.left = 0;
        } else {
            self.left -= added;
        }
        self.left > 0
    }
}

/// The files of one run, oldest first: what rotation made (`N.log.<stamp>`), then the live one.
pub fn files(live: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    if let Some((folder, name)) = live.parent().zip(live.file_name()) {
        let prefix = format!("{}.", name.to_string_lossy());
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                all.push(entry.path());
            }
        }
    }
    all.sort();
    all.push(live.to_owned());
    all
}

/// Where the last `lines` lines of a file begin, and how many it has of them.
fn tail_start(file: &mut File, lines: u64) -> std::io::Result<(u64, u64)> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok((end, 0));
    }
    let mut at = end;
    let mut found = 0;
    let mut buffer = vec![0u8; CHUNK_BYTES];
    while at > 0 {
        let n = at.min(CHUNK_BYTES as u64);
        at -= n;
        file.seek(SeekFrom::Start(at))?;
        let part = buffer.get_mut(..usize::try_from(n).unwrap_or(0)).unwrap_or_default();
        file.read_exact(part)?;
        for (offset, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let after = at + offset as u64 + 1;
            if after == end {
                continue; // the end of the last line begins no line
            }
            found += 1;
            if found == lines {
                return Ok((after, found));
            }
        }
    }
    Ok((0, found + u64::from(end > 0)))
}

/// Sends the log of one run, and with `follow` goes on until `ended` says that the container has.
pub async fn send(
    live: &Path,
    options: Options,
    sender: Sender<Bytes>,
    ended: impl Fn() -> bool,
) -> std::io::Result<()> {
    let mut filter = Filter::new(options.clone());
    let mut begin: Vec<(PathBuf, u64)> = files(live).into_iter().map(|path| (path, 0)).collect();
    if let Some(mut wanted) = options.tail {
        for (path, start) in begin.iter_mut().rev() {
            if let Ok(mut file) = File::open(&*path) {
                let (from, found) = tail_start(&mut file, wanted)?;
                *start = from;
                wanted = wanted.saturating_sub(found);
            }
        }
    }
    let watch = if options.follow { live.parent().and_then(|folder| Watch::new(folder).ok()) } else { None };
    let mut pending = Vec::new();
    let mut at = 0;
    let mut open = None;
    for (path, start) in begin {
        let Ok(mut file) = File::open(&path) else { continue };
        at = start;
        if !pump(&mut file, &mut at, &mut pending, &mut filter, &sender).await? {
            return Ok(());
        }
        open = Some(file);
    }
    if !options.follow {
        return Ok(());
    }
    loop {
        // Asked before the last read: what was written until the end is then read.
        let over = ended();
        if let Some(file) = &mut open
            && !pump(file, &mut at, &mut pending, &mut filter, &sender).await?
        {
            return Ok(());
        }
        if rotated(open.as_ref(), live) {
            open = File::open(live).ok();
            at = 0;
            pending.clear();
            if open.is_some() {
                continue;
            }
        }
        if over || sender.is_closed() {
            return Ok(());
        }
        let pause = std::time::Duration::from_secs(if watch.is_some() { 5 } else { 1 });
        let changed = async {
            match &watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = sender.closed() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Whether another file has taken the live one's name.
fn rotated(open: Option<&File>, live: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(now) = std::fs::metadata(live) else { return false };
    match open.and_then(|file| file.metadata().ok()) {
        Some(old) => (old.ino(), old.dev()) != (now.ino(), now.dev()),
        None => true,
    }
}

/// Sends what is new in the file; false when nobody listens or the limit is reached.
async fn pump(
    file: &mut File,
    at: &mut u64,
    pending: &mut Vec<u8>,
    filter: &mut Filter,
    sender: &Sender<Bytes>,
) -> std::io::Result<bool> {
    let mut buffer = vec![0u8; CHUNK_BYTES];
    loop {
        file.seek(SeekFrom::Start(*at))?;
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(true);
        }
        *at += n as u64;
        pending.extend_from_slice(buffer.get(..n).unwrap_or_default());
        let mut out = Vec::new();
        let mut more = true;
        let mut used = 0;
        for line in pending.split_inclusive(|b| *b == b'\n') {
            let Some((b'\n', whole)) = line.split_last() else { break };
            used += line.len();
            more = filter.line(whole, &mut out);
            if !more {
                break;
            }
        }
        pending.drain(..used);
        if pending.len() > LINE_BYTES_MAX {
            pending.clear();
        }
        if !out.is_empty() && sender.send(Bytes::from(out)).await.is_err() {
            return Ok(false);
        }
        if !more {
            return Ok(false);
        }
    }
}

/// The last bytes of what a container wrote.
pub fn last_bytes(live: &Path, bytes_max: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(live)?;
        let (from, _) = tail_start(&mut file, 80)?;
        file.seek(SeekFrom::Start(from))?;
        let mut raw = Vec::new();
        file.take(256 << 10).read_to_end(&mut raw)?;
        Ok(raw)
    };
    let mut filter = Filter::new(Options::default());
    let mut out = Vec::new();
    for line in read().unwrap_or_default().split(|b| *b == b'\n') {
        filter.line(line, &mut out);
    }
    let from = out.len().saturating_sub(bytes_max);
    String::from_utf8_lossy(out.get(from..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "2026-11-21T00:00:0";

    fn text(options: Options, log: &str) -> String {
        let mut filter = Filter::new(options);
        let mut out = Vec::new();
        for line in log.lines() {
            if !filter.line(line.as_bytes(), &mut out) {
                break;
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_joined_stamped_and_cut() {
        let log =
            format!("{T}1.000000000Z stdout P a\n{T}1.000000000Z stdout F b\nbroken\n{T}5.000000000Z stderr F c d\n");
        assert_eq!(text(Options::default(), &log), "ab\nc d\n");
        let stamped = Options { timestamps: true, ..Options::default() };
        assert_eq!(text(stamped, &log), format!("{T}1.000000000Z ab\n{T}5.000000000Z c d\n"));
        let since = Options { since: clock::parse(&format!("{T}3Z")), ..Options::default() };
        assert_eq!(text(since, &log), "c d\n");
        for (limit, expected) in [(0, ""), (1, "a"), (3, "ab\n"), (4, "ab\nc"), (99, "ab\nc d\n")] {
            assert_eq!(text(Options { limit_bytes: Some(limit), ..Options::default() }, &log), expected, "{limit}");
        }
    }

    #[test]
    fn tails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for (content, lines, expected) in [
            ("a\nb\nc\n", 1, (4, 1)),
            ("a\nb\nc\n", 2, (2, 2)),
            ("a\nb\nc\n", 3, (0, 3)),
            ("a\nb\nc\n", 9, (0, 3)),
            ("", 5, (0, 0)),
            ("a\nb", 1, (2, 1)),
            ("a\n", 0, (2, 0)),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(tail_start(&mut File::open(&path).unwrap(), lines).unwrap(), expected, "{content:?} {lines}");
        }
        let long = "x".repeat(CHUNK_BYTES * 2);
        std::fs::write(&path, format!("{long}\nend\n")).unwrap();
        assert_eq!(tail_start(&mut File::open(&path).unwrap(), 1).unwrap(), (long.len() as u64 + 1, 1));
    }

    #[test]
    fn a_whole_log_over_rotations_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let live = dir.path().join("0.log");
        std::fs::write(dir.path().join("0.log.20261121-000001"), format!("{T}1.000000000Z stdout F one\n")).unwrap();
        std::fs::write(&live, format!("{T}2.000000000Z stdout F two\n{T}3.000000000Z stdout F three\n")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let read = |options: Options| {
            runtime.block_on(async {
                let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
                send(&live, options, sender, || true).await.unwrap();
                let mut out = Vec::new();
                while let Some(bytes) = receiver.recv().await {
                    out.extend_from_slice(&bytes);
                }
                String::from_utf8(out).unwrap()
            })
        };
        assert_eq!(read(Options::default()), "one\ntwo\nthree\n");
        assert_eq!(read(Options { tail: Some(1), ..Options::default() }), "three\n");
        assert_eq!(read(Options { tail: Some(3), ..Options::default() }), "one\ntwo\nthree\n");
        assert_eq!(read(Options { follow: true, tail: Some(0), ..Options::default() }), "");
    }
}
