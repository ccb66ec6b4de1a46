//! The beginning of a compressed layer on the disk while the rest is still to come, so that a pull that was killed, or cut off with the
//! power, goes on where it stopped: what is here is read through the same pipeline again, the network begins behind it.
//!
//! ```text
//! partial/<digest>         the bytes; flock'ed by whoever works on it
//! partial/<digest>.sums    "mote partial 1\n", boot id "\n", then records: u64 end, u32 CRC-32 of the bytes since the record before,
//!                          u32 CRC-32 of the twelve bytes before (little-endian). A record is written after its bytes were synced.
//! ```
//!
//! Within one boot the kernel has all that was written, killed writer or not; of an earlier boot only what the records vouch for is
//! taken. Either way the layer's digest decides in the end, so no ETag is needed: the name is the content.
//!
//! A link that brings the whole layer within [`SPOOL_WORTH`] is not worth it: then the spool is dropped after its first
//! [`JUDGE_EVERY_BYTES`], before anything reaches the disk. Likewise when the disk runs short: the layer itself comes first.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::Inner;
use super::disk::Disk;
use crate::file::{names, read_bounded};
use crate::limits::{
    JUDGE_EVERY_BYTES, PARTIAL_AGE_MAX, PARTIALS_BYTES_MAX, SPOOL_SYNC_EVERY, SPOOL_WORTH, STAGE_BUFFER_BYTES,
};
use crate::{Digest, Error};

const MAGIC: &str = "mote partial 1\n";
const RECORD_BYTES: usize = 16;
/// A record for every ten seconds of a month.
const SUMS_BYTES_MAX: u64 = 4 << 20;

/// When a layer's bytes are kept on the way.
#[derive(Clone, Copy)]
pub struct SpoolPolicy {
    /// Layers that arrive faster than this are not worth it.
    pub worth: Duration,
    /// A power cut costs at most so much time of transfer.
    pub sync_every: Duration,
}

impl Default for SpoolPolicy {
    fn default() -> SpoolPolicy {
        SpoolPolicy { worth: SPOOL_WORTH, sync_every: SPOOL_SYNC_EVERY }
    }
}

/// A partial file that is ours for now.
pub struct Partial<'a> {
    inner: &'a Inner,
    path: PathBuf,
    sums: PathBuf,
    file: File,
    /// Bytes that can be read again.
    length: u64,
    /// How many of them a record vouches for.
    vouched: u64,
}

impl Inner {
    /// The partial file of a blob, empty if there was none. `None` if another process works on it.
    pub(crate) fn partial(&self, digest: &Digest) -> Result<Option<Partial<'_>>, Error> {
        let path = self.layout.partial(digest);
        let sums = sums_path(&path);
        let fail = |e| Error::io("open", &path, e);
        let file = File::options().read(true).append(true).create(true).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
        }
        let mut partial = Partial { inner: self, path, sums, file, length: 0, vouched: 0 };
        partial.take_stock().map_err(|e| Error::io("read", &partial.path, e))?;
        Ok(Some(partial))
    }

    /// Partial files (those nobody works on) whose bytes are not what was noted about them, and why.
    pub(crate) fn damaged_partials(&self) -> Result<Vec<(String, String)>, Error> {
        let dir = self.layout.dir("partial");
        let mut damaged = Vec::new();
        for name in names(&dir)?.into_iter().filter(|name| !name.ends_with(".sums")) {
            let path = dir.join(&name);
            let Ok(file) = File::open(&path) else { continue }; // finished or given up meanwhile
            if file.try_lock().is_err() {
                continue;
            }
            let sums = read_bounded(&sums_path(&path), SUMS_BYTES_MAX)?.unwrap_or_default();
            let records = parse(&sums).unwrap_or_default().1;
            let Some((end, _)) = records.last() else { continue }; // nothing is vouched for: nothing is used
            let (good, _) = vouched_prefix(&file, &records).map_err(|e| Error::io("read", &path, e))?;
            if good != *end {
                damaged.push((name, format!("{end} bytes are noted as come, {good} of them are right")));
            }
        }
        Ok(damaged)
    }

    /// Forgets a partial file.
    pub(crate) fn discard_partial(&self, name: &str) {
        let path = self.layout.dir("partial").join(name);
        remove(&*self.layout.disk, &path, &sums_path(&path));
    }

    /// Deletes partial files that nobody works on: those of an age, and the oldest of too many. `all`: every one. Bytes freed.
    pub(crate) fn sweep_partials(&self, all: bool) -> Result<u64, Error> {
        let dir = self.layout.dir("partial");
        let mut found: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for name in names(&dir)?.into_iter().filter(|name| !name.ends_with(".sums")) {
            let path = dir.join(name);
            if let Ok(meta) = path.metadata() {
                found.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), path));
            }
        }
        found.sort();
        let mut total: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
        let mut freed = 0;
        for (changed, bytes, path) in found {
            let is_old = changed.elapsed().is_ok_and(|age| age > PARTIAL_AGE_MAX);
            let Ok(file) = File::open(&path) else { continue };
            if (all || is_old || total > PARTIALS_BYTES_MAX) && file.try_lock().is_ok() {
                let _ = self.layout.disk.unlink(&sums_path(&path));
                self.layout.disk.unlink(&path).map_err(|e| Error::io("delete", &path, e))?;
                total -= bytes;
                freed += bytes;
            }
        }
        Ok(freed)
    }
}

fn sums_path(path: &Path) -> PathBuf {
    path.with_extension("sums")
}

impl<'a> Partial<'a> {
    /// How many bytes of the blob are here.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Deletes it.
    pub fn discard(self) {
        remove(&*self.inner.layout.disk, &self.path, &self.sums);
    }

    /// Makes the finished file a blob of the store.
    pub fn keep(self, to: &Path) -> Result<(), Error> {
        self.inner.layout.settle(&self.path, to).map_err(|e| Error::io("write", to, e))?;
        let _ = self.inner.layout.disk.unlink(&self.sums);
        Ok(())
    }

    /// Finds out what can be used; cuts the file down to it and has the sums say so.
    fn take_stock(&mut self) -> io::Result<()> {
        let there = self.file.metadata()?.len();
        let sums = read_bounded(&self.sums, SUMS_BYTES_MAX).map_err(io::Error::other)?.unwrap_or_default();
        let (boot, records) = parse(&sums).unwrap_or_default();
        let vouched = records.last().map_or(0, |(end, _)| *end);
        if boot == self.inner.boot && !boot.is_empty() && vouched <= there {
            // Half a record at the end would put those behind it out of step.
            let whole = MAGIC.len() + boot.len() + 1 + records.len() * RECORD_BYTES;
            if whole != sums.len() {
                File::options().write(true).open(&self.sums)?.set_len(whole as u64)?;
            }
            (self.length, self.vouched) = (there, vouched);
            return Ok(());
        }
        let (good, whole) = vouched_prefix(&self.file, &records)?;
        self.file.set_len(good)?;
        let mut fresh = format!("{MAGIC}{}\n", self.inner.boot).into_bytes();
        if good > 0 {
            fresh.extend(record(good, whole));
        }
        // What vouches for bytes of an earlier boot must outlive the next cut as well.
        let layout = &self.inner.layout;
        if good > 0 { layout.replace(&self.sums, &fresh) } else { layout.replace_for_now(&self.sums, &fresh) }
            .map_err(io::Error::other)?;
        (self.length, self.vouched) = (good, good);
        Ok(())
    }
}

/// How far the bytes are those the records speak of, and the CRC-32 of all of them.
fn vouched_prefix(file: &File, records: &[(u64, u32)]) -> io::Result<(u64, u32)> {
    let (mut good, mut whole) = (0u64, crc32fast::Hasher::new());
    let mut buffer = vec![0; STAGE_BUFFER_BYTES];
    for (end, crc) in records {
        let (mut at, mut part, mut with) = (good, crc32fast::Hasher::new(), whole.clone());
        while at < *end {
            let length = buffer.len().min(usize::try_from(*end - at).unwrap_or(usize::MAX));
            let n = file.read_at(buffer.get_mut(..length).unwrap_or_default(), at)?;
            let Some(piece) = buffer.get(..n).filter(|piece| !piece.is_empty()) else { break };
            part.update(piece);
            with.update(piece);
            at += n as u64;
        }
        if at != *end || part.finalize() != *crc {
            break;
        }
        (good, whole) = (at, with);
    }
    Ok((good, whole.finalize()))
}

fn remove(disk: &dyn Disk, path: &Path, sums: &Path) {
    let _ = disk.unlink(sums); // what stays is swept by age
    let _ = disk.unlink(path);
}

fn record(end: u64, crc: u32) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    let own = [&end.to_le_bytes()[..], &crc.to_le_bytes()].concat();
    let sum = crc32fast::hash(&own);
    own.iter().chain(&sum.to_le_bytes()).zip(&mut bytes).for_each(|(from, to)| *to = *from);
    bytes
}

/// The sums file of these bytes.
#[cfg(test)]
pub(super) fn sums_of(boot: &str, bytes: &[u8]) -> Vec<u8> {
    let record = record(bytes.len() as u64, crc32fast::hash(bytes));
    [format!("{MAGIC}{boot}\n").as_bytes(), &record].concat()
}

/// Boot id and `(end, CRC-32)` of each record up to the first that is damaged; ends only grow.
fn parse(bytes: &[u8]) -> Option<(String, Vec<(u64, u32)>)> {
    let rest = bytes.strip_prefix(MAGIC.as_bytes())?;
    let line = rest.iter().position(|b| *b == b'\n')?;
    let boot = std::str::from_utf8(rest.get(..line)?).ok()?.to_owned();
    let mut records = Vec::new();
    let mut last = 0;
    for bytes in rest.get(line + 1..)?.as_chunks::<RECORD_BYTES>().0 {
        let [e0, e1, e2, e3, e4, e5, e6, e7, c0, c1, c2, c3, ..] = *bytes;
        let (end, crc) = (u64::from_le_bytes([e0, e1, e2, e3, e4, e5, e6, e7]), u32::from_le_bytes([c0, c1, c2, c3]));
        if record(end, crc) != *bytes || end <= last {
            break;
        }
        last = end;
        records.push((end, crc));
    }
    Some((boot, records))
}

/// A blob's bytes: those of its partial file, then those of the network, which are added to the file as they pass.
pub struct Spooled<'a, R> {
    partial: Option<Partial<'a>>,
    /// Kept for good: neither speed nor space ends it.
    keep: bool,
    policy: SpoolPolicy,
    network: R,
    /// Of the blob.
    size: u64,
    replay_at: u64,
    /// Where the network's bytes begin, and when.
    from: u64,
    began: Option<Instant>,
    at: u64,
    judged: u64,
    crc: crc32fast::Hasher,
    synced: Instant,
}

impl<'a, R: Read> Spooled<'a, R> {
    /// `network` begins behind the partial file's bytes.
    pub fn new(partial: Option<Partial<'a>>, keep: bool, size: u64, network: R) -> Spooled<'a, R> {
        let from = partial.as_ref().map_or(0, Partial::length);
        let policy = partial.as_ref().map_or_else(SpoolPolicy::default, |partial| partial.inner.spool);
        Spooled {
            partial,
            keep,
            policy,
            network,
            size,
            replay_at: 0,
            from,
            began: None,
            at: from,
            judged: from,
            crc: crc32fast::Hasher::new(),
            synced: Instant::now(),
        }
    }

    /// Bytes that have come, from the disk or the network.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The partial file, if it was not dropped.
    pub fn into_partial(self) -> Option<Partial<'a>> {
        self.partial
    }

    fn replay(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(partial) = &self.partial else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let length = out.len().min(usize::try_from(self.from - self.replay_at).unwrap_or(usize::MAX));
        let n = partial.file.read_at(out.get_mut(..length).unwrap_or_default(), self.replay_at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Bytes behind the last record have no checksum yet.
        let known = usize::try_from(partial.vouched.saturating_sub(self.replay_at)).unwrap_or(usize::MAX).min(n);
        self.crc.update(out.get(known..n).unwrap_or_default());
        self.replay_at += n as u64;
        Ok(n)
    }

    /// Adds to the partial file. It is never the reason for a layer to fail, unless it was to be kept.
    fn spool(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(partial) = &mut self.partial else { return Ok(()) };
        let disk = &*partial.inner.layout.disk;
        if let Err(e) = disk.append(&mut partial.file, bytes, &partial.path) {
            if self.keep {
                return Err(io::Error::other(Error::io("write", &partial.path, e)));
            }
            log::info!(
                "write {}: {e}; a pull that breaks off will fetch this layer from its start",
                partial.path.display()
            );
            self.drop_partial();
            return Ok(());
        }
        self.crc.update(bytes);
        if self.at - self.judged >= JUDGE_EVERY_BYTES {
            self.judged = self.at;
            if !self.keep && !self.is_worth_it() {
                self.drop_partial();
                return Ok(());
            }
        }
        if self.synced.elapsed() >= self.policy.sync_every && self.at < self.size {
            self.vouch();
            self.synced = Instant::now();
        }
        Ok(())
    }

    fn is_worth_it(&self) -> bool {
        let Some(partial) = &self.partial else { return false };
        let fetched = (self.at - self.from).max(1);
        let took = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let expected = took.mul_f64((self.size - self.from) as f64 / fetched as f64);
        // What an earlier attempt brought is not thrown away because the link is better now.
        let is_slow = self.from > 0 || expected > self.policy.worth;
        let free = partial.inner.layout.space().map_or(u64::MAX, |space| space.available);
        is_slow && free / 4 > self.size - self.at + JUDGE_EVERY_BYTES
    }

    /// The bytes, then the record about them, then both names.
    fn vouch(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        let disk = &*partial.inner.layout.disk;
        let crc = std::mem::take(&mut self.crc).finalize();
        let first = partial.vouched == 0;
        let done = || -> io::Result<()> {
            disk.sync_file(&partial.path)?;
            let mut sums = File::options().append(true).open(&partial.sums)?;
            disk.append(&mut sums, &record(self.at, crc), &partial.sums)?;
            disk.sync_file(&partial.sums)?;
            if first { disk.sync_folder(partial.path.parent().unwrap_or(&partial.path)) } else { Ok(()) }
        };
        match done() {
            Ok(()) => partial.vouched = self.at,
            Err(e) => {
                log::info!("write {}: {e}", partial.sums.display());
                self.policy.sync_every = Duration::MAX; // its checksum is gone
            }
        }
    }

    fn drop_partial(&mut self) {
        if let Some(partial) = self.partial.take() {
            partial.discard();
        }
    }
}

impl<R: Read> Read for Spooled<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.replay_at < self.from {
            return self.replay(out);
        }
        self.began.get_or_insert_with(Instant::now);
        let n = self.network.read(out)?;
        self.at += n as u64;
        if n > 0 && self.at <= self.size {
            self.spool(out.get(..n).unwrap_or_default())?;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
