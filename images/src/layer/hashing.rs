//! A buffered reader that hashes and counts what passes through it, with a limit on the count.

use std::io::{self, BufRead, Read};

use crate::digest::Hasher;
use crate::limits::STAGE_BUFFER_BYTES;

/// Reads `inner` in pieces of [`STAGE_BUFFER_BYTES`], hashing each piece once.
pub struct Hashing<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    hasher: Option<Hasher>,
    total: u64,
    total_max: u64,
}

/// More bytes came than were allowed.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes")]
pub struct TooLong(pub u64);

impl<R: Read> Hashing<R> {
    /// At most `total_max` bytes may come out of `inner`.
    pub fn new(inner: R, total_max: u64) -> Hashing<R> {
        Hashing {
            inner,
            buffer: vec![0; STAGE_BUFFER_BYTES].into(),
            start: 0,
            end: 0,
            hasher: Some(Hasher::default()),
            total: 0,
            total_max,
        }
    }

    /// Counts only: for bytes that are hashed elsewhere.
    pub fn counting(inner: R, total_max: u64) -> Hashing<R> {
        Hashing { hasher: None, ..Hashing::new(inner, total_max) }
    }

    /// Bytes read from `inner` so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What is below.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Reads to the end, so that the hash covers everything.
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            let n = self.fill_buf()?.len();
            if n == 0 {
                return Ok(());
            }
            self.consume(n);
        }
    }

    /// Hash of everything read (unless it only counted), count, and the reader below.
    pub fn finish(self) -> (Option<Hasher>, u64, R) {
        (self.hasher, self.total, self.inner)
    }
}

impl<R: Read> BufRead for Hashing<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            // A decoder hands out small pieces; gather them, so that the stages above see few large ones.
            self.start = 0;
            self.end = 0;
            while let Some(room) = self.buffer.get_mut(self.end..).filter(|room| !room.is_empty()) {
                match self.inner.read(room) {
                    Ok(0) => break,
                    Ok(n) => self.end += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            let fresh = self.buffer.get(..self.end).unwrap_or_default();
            self.total = self.total.saturating_add(fresh.len() as u64);
            if self.total > self.total_max {
                self.end = 0;
                return Err(io::Error::other(TooLong(self.total_max)));
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(fresh);
            }
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.start = self.end.min(self.start.saturating_add(n));
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    struct Drip<'a>(&'a [u8]);
    impl Read for Drip<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(out.len()).min(7);
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn hash_and_count_cover_everything_once() {
        let data: Vec<u8> = (0..200_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let mut reader = Hashing::new(Drip(&data), u64::MAX);
        let mut head = [0; 1000];
        reader.read_exact(&mut head).unwrap();
        assert_eq!(head, data[..1000]);
        reader.drain().unwrap();
        let (hasher, total, _) = reader.finish();
        assert_eq!((hasher.unwrap().digest(), total), (Digest::of(&data), 200_000));
    }

    #[test]
    fn the_limit_is_exact() {
        assert!(Hashing::counting(&b"1234"[..], 4).drain().is_ok());
        assert!(Hashing::counting(&b"12345"[..], 4).drain().is_err());
        assert!(Hashing::new(&b"12345"[..], 5).drain().is_ok());
        assert!(Hashing::new(&b"12345"[..], 4).drain().is_err());
    }
}
