//! What has left a container's FIFO and is perhaps not yet in its log: one chunk at most, in a file beside the socket.
//!
//! The kernel moves a chunk from the FIFO into the file by one splice(2), so at every moment each byte is in the FIFO, in the journal or in the
//! log. A keeper that dies in between leaves the journal to the next one, which finishes the writing: how much of it the log has already
//! shows in the log's length, noted before the chunk was taken.

use super::line::{self, Stream};
use crate::sys;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const DATA: &str = "journal";
const NOTE: &str = "journal.note";
const NOTE_BYTES_MAX: u64 = 8192;

/// Where the chunk goes.
#[derive(Serialize)]
struct Note<'a> {
    path: &'a Path,
    stderr: bool,
    now_ns: i64,
    /// Bytes of the log before the chunk.
    length: u64,
}

pub(crate) struct Journal {
    data: File,
    note: File,
}

impl Journal {
    /// Opens the journal of `dir`, and finishes what it holds.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let open =
            |name: &str| File::options().create(true).truncate(false).read(true).write(true).open(dir.join(name));
        let journal = Self { data: open(DATA)?, note: open(NOTE)? };
        let length = journal.data.metadata()?.len();
        if length > 0 {
            if let Err(e) = journal.finish(length) {
                complain!("finish log chunk of {length} bytes: {e}");
            }
            journal.clear()?;
        }
        Ok(journal)
    }

    /// Moves up to `most` bytes out of the FIFO; they are in `buffer` then, and in the journal until [`Journal::clear`]. 0 = there are none.
    pub(crate) fn take(
        &self,
        from: &File,
        (path, stream, now_ns, length): (&Path, Stream, i64, u64),
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let note = Note { path, stderr: stream == Stream::Stderr, now_ns, length };
        let mut space = [0; NOTE_BYTES_MAX as usize];
        self.note.write_all_at(postcard::to_slice(&note, &mut space).map_err(io::Error::other)?, 0)?;
        let moved = match sys::splice_to_start(from.as_fd(), self.data.as_fd(), buffer.len()) {
            Ok(count) => count,
            Err(Errno::EAGAIN) => 0,
            Err(e) => return Err(e.into()),
        };
        self.data.read_exact_at(buffer.get_mut(..moved).unwrap_or_default(), 0)?;
        Ok(moved)
    }

    /// The chunk is in the log.
    pub(crate) fn clear(&self) -> io::Result<()> {
        self.data.set_len(0)
    }

    fn finish(&self, length: u64) -> io::Result<()> {
        let size = self.note.metadata()?.len().min(NOTE_BYTES_MAX);
        let mut bytes = vec![0; size as usize];
        self.note.read_exact_at(&mut bytes, 0)?;
        let (note, _): (OwnedNote, _) = postcard::take_from_bytes(&bytes).map_err(io::Error::other)?;
        let mut chunk = vec![0; length.min(line::CHUNK_BYTES as u64) as usize];
        self.data.read_exact_at(&mut chunk, 0)?;
        let stream = if note.stderr { Stream::Stderr } else { Stream::Stdout };
        let mut text = Vec::new();
        line::format(&chunk, stream, note.now_ns, |piece| {
            text.extend_from_slice(piece);
            Ok(())
        })?;
        let mut file = File::options().append(true).create(true).open(&note.path)?;
        let written = file.metadata()?.len().saturating_sub(note.length);
        file.write_all(text.get(written as usize..).unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct OwnedNote {
    path: PathBuf,
    stderr: bool,
    now_ns: i64,
    length: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A FIFO that holds `text`, and the end that keeps it.
    fn fifo(dir: &Path, text: &[u8]) -> File {
        let path = dir.join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut file = File::options().read(true).write(true).open(path).unwrap();
        file.write_all(text).unwrap();
        file
    }

    #[test]
    fn a_chunk_is_finished_wherever_the_writing_stopped() {
        let mut whole = Vec::new();
        line::format(b"one\ntwo\nthr", Stream::Stderr, 7, |piece| whole.write_all(piece)).unwrap();
        for stopped_at in 0..=whole.len() {
            let dir = tempfile::tempdir().unwrap();
            let log = dir.path().join("0.log");
            std::fs::write(&log, b"before\n").unwrap();
            let journal = Journal::open(dir.path()).unwrap();
            let from = fifo(dir.path(), b"one\ntwo\nthr");
            let mut buffer = [0u8; 64];
            let count = journal.take(&from, (&log, Stream::Stderr, 7, 7), &mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"one\ntwo\nthr");
            std::fs::write(&log, [b"before\n", &whole[..stopped_at]].concat()).unwrap();
            drop(journal); // dies here
            let next = Journal::open(dir.path()).unwrap();
            assert_eq!(std::fs::read(&log).unwrap(), [b"before\n", &whole[..]].concat(), "stopped at {stopped_at}");
            assert_eq!(next.data.metadata().unwrap().len(), 0);
            drop(Journal::open(dir.path()).unwrap());
            assert_eq!(std::fs::read(&log).unwrap().len(), 7 + whole.len(), "once is enough");
        }
    }

    #[test]
    fn damage_and_emptiness_are_no_end() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(DATA), b"chunk").unwrap();
        std::fs::write(dir.path().join(NOTE), [0xff; 9]).unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let from = fifo(dir.path(), b"");
        nix::fcntl::fcntl(&from, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        assert_eq!(journal.take(&from, (dir.path(), Stream::Stdout, 0, 0), &mut [0; 8]).unwrap(), 0);
    }
}
