//! The three parts of a layer's way to the disk, each in a thread of its own: one fetches, hashes and inflates, one hashes what came out,
//! one writes it. Between them a few buffers go round. An image of one large layer, or of layers whose windows have to wait for one
//! another, keeps the processors busy too: without instructions for it, sha256 takes half of all their time.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use super::codec::Decoder;
use super::hashing::{Hashing, TooLong};
use crate::digest::Hasher;
use crate::limits::{AHEAD_BUFFERS, STAGE_BUFFER_BYTES};

/// A buffer and how much of it is full.
type Filled = (Vec<u8>, usize);

/// The end where inflated bytes go in.
pub struct Supply {
    full: SyncSender<io::Result<Filled>>,
    empty: Receiver<Vec<u8>>,
    /// Buffers that are under way.
    made: usize,
}

/// Half way: what comes by is hashed.
pub struct Tally {
    full: Receiver<io::Result<Filled>>,
    hashed: SyncSender<io::Result<Filled>>,
}

/// The end where they come out, within a limit.
pub struct Ahead {
    full: Receiver<io::Result<Filled>>,
    empty: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    total: u64,
    total_max: u64,
    broken: bool,
}

/// Both ends; at most `total_max` bytes may come out.
pub fn line(total_max: u64) -> (Supply, Ahead) {
    let (full_in, full_out) = sync_channel(AHEAD_BUFFERS);
    let (empty_in, empty_out) = sync_channel(AHEAD_BUFFERS);
    let supply = Supply { full: full_in, empty: empty_out, made: 0 };
    let (buffer, start, end) = (Vec::new(), 0, 0);
    let ahead = Ahead { full: full_out, empty: empty_in, buffer, start, end, total: 0, total_max, broken: false };
    (supply, ahead)
}

impl Tally {
    /// Hashes all that comes by; ends with the first of both ends.
    pub fn run(self) -> Hasher {
        let mut hasher = Hasher::default();
        for filled in self.full {
            if let Ok((buffer, end)) = &filled {
                hasher.update(buffer.get(..*end).unwrap_or_default());
            }
            if self.hashed.send(filled).is_err() {
                break;
            }
        }
        hasher
    }
}

impl Supply {
    /// Inflates to the end, to the first error, or until nobody wants more; then what lies behind the compressed stream is read too, since
    /// it belongs to the layer's digest. `taken` is the count of compressed bytes. The reader below, and how that last part ended.
    pub fn run<R: Read>(mut self, mut decoder: Decoder<Hashing<R>>, taken: &AtomicU64) -> (Hashing<R>, io::Result<()>) {
        let mut is_whole = false;
        while let Some(mut buffer) = self.buffer() {
            let filled = fill(&mut decoder, &mut buffer);
            taken.store(decoder.get_ref().total(), Ordering::Relaxed);
            is_whole = matches!(filled, Ok(0));
            let is_last = is_whole || filled.is_err();
            if is_whole || self.full.send(filled.map(|n| (buffer, n))).is_err() || is_last {
                break;
            }
        }
        let mut source = decoder.into_inner();
        let done = if is_whole { source.drain() } else { Ok(()) };
        (source, done)
    }

    /// One that came back, else a new one as long as there may be more; `None` when the other end is gone.
    fn buffer(&mut self) -> Option<Vec<u8>> {
        match self.empty.try_recv() {
            Err(TryRecvError::Empty) if self.made < AHEAD_BUFFERS => {
                self.made += 1;
                Some(vec![0; STAGE_BUFFER_BYTES])
            }
            Err(TryRecvError::Empty) => self.empty.recv().ok(),
            done => done.ok(),
        }
    }
}

/// A decoder hands out small pieces; they are gathered, so that few large ones go over.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut end = 0;
    while let Some(room) = buffer.get_mut(end..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) => break,
            Ok(n) => end += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(end)
}

impl Ahead {
    /// What comes out from here on is hashed before.
    pub fn tallied(&mut self) -> Tally {
        let (hashed, full) = sync_channel(AHEAD_BUFFERS);
        Tally { full: std::mem::replace(&mut self.full, full), hashed }
    }

    /// Bytes that have come out.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Wants no more. Whether an error of the other end came over.
    pub fn finish(self) -> bool {
        self.broken
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            let used = std::mem::take(&mut self.buffer);
            (self.start, self.end) = (0, 0);
            if !used.is_empty() {
                let _ = self.empty.send(used); // nobody fills it any more: then the end is near
            }
            match self.full.recv() {
                Ok(Ok((buffer, end))) => (self.buffer, self.end) = (buffer, end),
                Ok(Err(e)) => {
                    self.broken = true;
                    return Err(e);
                }
                Err(_) => return Ok(&[]), // all of it has come
            }
            let fresh = self.buffer.get(..self.end).unwrap_or_default();
            self.total = self.total.saturating_add(fresh.len() as u64);
            if self.total > self.total_max {
                self.end = 0;
                return Err(io::Error::other(TooLong(self.total_max)));
            }
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.start = self.end.min(self.start.saturating_add(n));
    }
}

impl Read for Ahead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DiffId;
    use crate::digest::Digest;

    /// What comes out at the far end with its hash, and what became of the near one.
    fn through(input: impl Read + Send, total_max: u64) -> (io::Result<Vec<u8>>, Ahead, DiffId, u64) {
        let (supply, mut ahead) = line(total_max);
        let tally = ahead.tallied();
        let taken = AtomicU64::new(0);
        let mut out = Vec::new();
        let (done, hasher) = std::thread::scope(|scope| {
            let middle = scope.spawn(|| tally.run());
            let below = scope.spawn(|| supply.run(Decoder::new(Hashing::new(input, u64::MAX)).unwrap(), &taken));
            let done = ahead.read_to_end(&mut out);
            ahead.full = sync_channel(1).1; // wants no more
            (below.join().unwrap().1.and(done), middle.join().unwrap())
        });
        (done.map(|_| out), ahead, hasher.diff_id(), taken.into_inner())
    }

    #[test]
    fn every_byte_comes_over_once_in_order_and_hashed() {
        for length in [0, 1, STAGE_BUFFER_BYTES - 1, STAGE_BUFFER_BYTES, 9 * STAGE_BUFFER_BYTES + 7] {
            let data: Vec<u8> = (0..length as u32).map(|i| (i * 7 + i / 251) as u8).collect();
            let (out, ahead, diff_id, taken) = through(&data[..], u64::MAX);
            assert!(out.unwrap() == data && ahead.total() == length as u64 && taken == length as u64);
            assert_eq!((diff_id, ahead.finish()), (DiffId::of_plain(Digest::of(&data)), false));
        }
    }

    #[test]
    fn the_limit_and_errors_end_both_sides() {
        let many = [7u8; 20 * STAGE_BUFFER_BYTES];
        assert!(through(&many[..], many.len() as u64).0.is_ok());
        let (out, ahead, ..) = through(&many[..], many.len() as u64 - 1);
        assert!(out.unwrap_err().to_string().contains("more than") && !ahead.finish());
        struct Breaks;
        impl Read for Breaks {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let (out, ahead, ..) = through((&many[..]).chain(Breaks), u64::MAX);
        assert!(out.unwrap_err().to_string() == "gone" && ahead.finish());
        // one that stops in the middle: the other end does not wait for ever
        let (supply, mut ahead) = line(u64::MAX);
        let tally = ahead.tallied();
        drop(ahead);
        let middle = std::thread::spawn(|| tally.run());
        let (source, done) =
            supply.run(Decoder::new(Hashing::new(io::repeat(1), u64::MAX)).unwrap(), &AtomicU64::new(0));
        assert!(done.is_ok() && source.total() <= (STAGE_BUFFER_BYTES * (AHEAD_BUFFERS + 1)) as u64);
        middle.join().unwrap();
    }
}
