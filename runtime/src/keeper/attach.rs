//! Clients that hear a container's output as it comes, beside its log.
//!
//! Each has two pipes, whose reading ends are its own. What they do not take at once waits here, and the container's further output waits in its
//! FIFOs meanwhile, as it would for a terminal; a client that takes nothing for [`STALL_MAX`] is dropped. The guard holds copies of the pipes, so that a
//! worker's death ends no conversation. The log is exact; of the copy, what waited here is lost with a killed worker.

use super::line::{CHUNK_BYTES, Stream};
use nix::poll::PollFlags;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Clients of one container.
pub(crate) const ATTACHED_MAX: usize = 16;
/// Longest time a client may hold up a container's output.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(2);
/// What may wait for a client: the end of a container brings all its pipes hold at once.
const PENDING_BYTES_MAX: usize = 512 << 10;

struct Lane {
    pipe: File,
    pending: Vec<u8>,
}

impl Lane {
    fn new(pipe: OwnedFd) -> Self {
        Self { pipe: pipe.into(), pending: Vec::new() }
    }

    /// How many bytes were taken.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.pipe.write(rest) {
                Ok(count) => taken += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(taken)
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = if self.pending.is_empty() { self.write(bytes)? } else { 0 };
        let rest = bytes.get(taken..).unwrap_or_default();
        if self.pending.len() + rest.len() > PENDING_BYTES_MAX {
            return Err(ErrorKind::OutOfMemory.into());
        }
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<bool> {
        let pending = std::mem::take(&mut self.pending);
        let taken = self.write(&pending)?;
        if taken < pending.len() {
            self.pending = pending;
            self.pending.drain(..taken);
        }
        Ok(taken > 0)
    }
}

/// One client of one container.
pub(crate) struct Attachment {
    /// Ours alone among all that ever were.
    pub(crate) number: u64,
    stdout: Lane,
    stderr: Lane,
    /// Since when it has taken nothing of what waits.
    stalled: Option<Instant>,
    dead: bool,
}

impl Attachment {
    /// Both pipes must be non-blocking.
    pub(crate) fn new(number: u64, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        Self { number, stdout: Lane::new(stdout), stderr: Lane::new(stderr), stalled: None, dead: false }
    }

    pub(crate) fn copy(&mut self, stream: Stream, bytes: &[u8]) {
        let lane = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        self.dead |= lane.push(bytes).is_err();
        if self.waits() {
            self.stalled.get_or_insert_with(Instant::now);
        }
    }

    /// Something waits for the client.
    pub(crate) fn waits(&self) -> bool {
        !(self.stdout.pending.is_empty() && self.stderr.pending.is_empty())
    }

    /// Writes what can be written.
    pub(crate) fn flush(&mut self) {
        match self.stdout.flush().and_then(|one| Ok(one | self.stderr.flush()?)) {
            Err(_) => self.dead = true,
            Ok(_) if !self.waits() => self.stalled = None,
            Ok(true) => self.stalled = Some(Instant::now()),
            Ok(false) => {}
        }
    }

    /// It has gone away.
    pub(crate) fn hang_up(&mut self) {
        self.dead = true;
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.dead || self.deadline().is_some_and(|at| at <= now)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stalled.map(|since| since + STALL_MAX)
    }

    /// What to poll: a pipe without a reader is told as an error, which needs no asking.
    pub(crate) fn watched(&self) -> [(BorrowedFd<'_>, PollFlags); 2] {
        [&self.stdout, &self.stderr].map(|lane| {
            let flags = if lane.pending.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            (lane.pipe.as_fd(), flags)
        })
    }

    pub(crate) fn raw(&self) -> [RawFd; 2] {
        [self.stdout.pipe.as_raw_fd(), self.stderr.pipe.as_raw_fd()]
    }

    pub(crate) fn into_pipes(self) -> Vec<OwnedFd> {
        vec![self.stdout.pipe.into(), self.stderr.pipe.into()]
    }
}

/// Everybody who hears one container.
#[derive(Default)]
pub(crate) struct Audience(pub(crate) Vec<Attachment>);

impl Audience {
    pub(crate) fn copy(&mut self, stream: Stream, bytes: &[u8]) {
        self.0.iter_mut().for_each(|a| a.copy(stream, bytes));
    }

    /// The container's output has to wait.
    pub(crate) fn waits(&self) -> bool {
        self.0.iter().any(Attachment::waits)
    }

    /// Those who have gone or were too slow, taken out.
    pub(crate) fn take_over(&mut self, now: Instant) -> Vec<Attachment> {
        self.0.extract_if(.., |a| a.is_over(now)).collect()
    }
}

/// One chunk must always fit.
const _: () = assert!(CHUNK_BYTES <= PENDING_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use std::io::Read;

    fn pipes() -> (Attachment, File, File) {
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let ((out, out_end), (err, err_end)) = (pipe(), pipe());
        (Attachment::new(1, out_end, err_end), out.into(), err.into())
    }

    fn read(from: &mut File) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(count) = from.read(&mut piece) {
            if count == 0 {
                break;
            }
            all.extend_from_slice(&piece[..count]);
        }
        all
    }

    #[test]
    fn what_a_client_does_not_take_waits_in_order() {
        let (mut client, mut out, mut err) = pipes();
        client.copy(Stream::Stderr, b"e");
        let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        bytes.chunks(CHUNK_BYTES).for_each(|chunk| client.copy(Stream::Stdout, chunk));
        assert!(client.waits() && client.deadline().is_some());
        let mut got = read(&mut out);
        assert!(got.len() < bytes.len());
        client.flush();
        got.extend(read(&mut out));
        assert_eq!((got, read(&mut err)), (bytes, b"e".to_vec()));
        assert!(!client.waits() && client.deadline().is_none() && !client.is_over(Instant::now() + STALL_MAX));
    }

    #[test]
    fn who_takes_nothing_or_leaves_is_dropped() {
        let (mut client, _out, _err) = pipes();
        (0..5).for_each(|_| client.copy(Stream::Stdout, &[0; CHUNK_BYTES]));
        client.flush();
        assert!(!client.is_over(Instant::now()) && client.is_over(Instant::now() + STALL_MAX));
        (0..40).for_each(|_| client.copy(Stream::Stdout, &[0; CHUNK_BYTES]));
        assert!(client.is_over(Instant::now()), "more than may wait");
        let (mut gone, out, _err) = pipes();
        drop(out);
        gone.copy(Stream::Stdout, b"x");
        let mut audience = Audience(vec![gone, pipes().0]);
        assert_eq!(audience.take_over(Instant::now()).len(), 1);
        assert_eq!(audience.0.len(), 1);
    }
}
