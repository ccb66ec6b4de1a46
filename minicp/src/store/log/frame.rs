//! The bytes of a store file. All numbers are little-endian.
//!
//! ```text
//! file   = magic "motelog" | "motesnp", version u8 = 1, generation u64, crc32 u32 of the 16 bytes before; then frames
//! frame  = length u32 of the payload, crc32 u32 of the payload, payload = records
//! record = 1 commit  revision u64, count u32, count * (1 put key value | 2 delete key)
//!        | 2 reserve revision u64: revisions up to this may have been given out to what is not on disk
//!        | 3 entry   created u64, modified u64, key, value      (snapshot)
//!        | 4 end     revision u64, entries u64                  (snapshot, last record)
//! key, value = length u32, bytes
//! ```
//! One group commit is one frame: a frame that is torn can only be the last one, all before it were synced.

use bytes::Bytes;
use std::rc::Rc;

use crate::store::{Entry, Op, Revision};

/// Bytes before the first frame.
pub(crate) const HEADER_LEN: usize = 20;
/// Bytes before a frame's payload.
pub(crate) const FRAME_HEAD_LEN: usize = 8;
/// Payload of one frame. A group commit above it is split by the writer's queue limit, far below.
pub(crate) const FRAME_BYTES_MAX: usize = 256 << 20;
const VERSION: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileKind {
    Log,
    Snapshot,
}

impl FileKind {
    fn magic(self) -> &'static [u8; 7] {
        match self {
            Self::Log => b"motelog",
            Self::Snapshot => b"motesnp",
        }
    }
}

/// One record, as read.
#[derive(Debug, PartialEq)]
pub(crate) enum Record {
    Commit(Revision, Vec<Op>),
    Reserve(Revision),
    Entry(Rc<str>, Entry),
    End { revision: Revision, entries: u64 },
}

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Damage {
    /// The header is not one of ours.
    Header,
    Version(u8),
    /// A frame's checksum holds but its records make no sense.
    Records,
}

pub(crate) fn header(kind: FileKind, generation: u64) -> Vec<u8> {
    let mut out = kind.magic().to_vec();
    out.push(VERSION);
    out.extend(generation.to_le_bytes());
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out
}

/// The generation a header names.
pub(crate) fn check_header(kind: FileKind, bytes: &[u8]) -> Result<u64, Damage> {
    let (head, crc) = bytes.get(..HEADER_LEN).and_then(|h| h.split_at_checked(16)).ok_or(Damage::Header)?;
    if head.get(..7) != Some(kind.magic()) || crc != crc32fast::hash(head).to_le_bytes() {
        return Err(Damage::Header);
    }
    let mut reader = Reader(head.get(7..).unwrap_or_default());
    match reader.u8() {
        Some(VERSION) => reader.u64().ok_or(Damage::Header),
        version => Err(Damage::Version(version.unwrap_or(0))),
    }
}

/// Collects records into one frame.
pub(crate) struct FrameWriter(Vec<u8>);

impl FrameWriter {
    pub(crate) fn new() -> FrameWriter {
        FrameWriter(vec![0; FRAME_HEAD_LEN])
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == FRAME_HEAD_LEN
    }
    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
    fn bytes(&mut self, bytes: &[u8]) {
        // Values are bounded by the object limit, far below 4 GiB.
        self.0.extend((bytes.len() as u32).to_le_bytes());
        self.0.extend(bytes);
    }
    pub(crate) fn commit(&mut self, revision: Revision, ops: &[Op]) {
        self.0.push(1);
        self.0.extend(revision.0.to_le_bytes());
        self.0.extend((ops.len() as u32).to_le_bytes());
        for op in ops {
            match op {
                Op::Put(key, value) => {
                    self.0.push(1);
                    self.bytes(key.as_bytes());
                    self.bytes(value);
                }
                Op::Delete(key) => {
                    self.0.push(2);
                    self.bytes(key.as_bytes());
                }
            }
        }
    }
    pub(crate) fn reserve(&mut self, revision: Revision) {
        self.0.push(2);
        self.0.extend(revision.0.to_le_bytes());
    }
    pub(crate) fn entry(&mut self, key: &str, created: Revision, modified: Revision, value: &[u8]) {
        self.0.push(3);
        self.0.extend(created.0.to_le_bytes());
        self.0.extend(modified.0.to_le_bytes());
        self.bytes(key.as_bytes());
        self.bytes(value);
    }
    pub(crate) fn end(&mut self, revision: Revision, entries: u64) {
        self.0.push(4);
        self.0.extend(revision.0.to_le_bytes());
        self.0.extend(entries.to_le_bytes());
    }
    /// The frame, ready to append.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let (head, payload) = self.0.split_at_mut(FRAME_HEAD_LEN);
        let (len, crc) = head.split_at_mut(4);
        len.copy_from_slice(&(payload.len() as u32).to_le_bytes());
        crc.copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        self.0
    }
}

/// The payload of the frame that starts `bytes`, if it is whole.
pub(crate) fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(bytes);
    let len = usize::try_from(reader.u32()?).ok()?;
    let crc = reader.u32()?;
    let payload = reader.0.get(..len).filter(|p| !p.is_empty() && p.len() <= FRAME_BYTES_MAX)?;
    (crc32fast::hash(payload) == crc).then_some(payload)
}

/// The records of a whole frame.
pub(crate) fn records(payload: &[u8]) -> Result<Vec<Record>, Damage> {
    let mut reader = Reader(payload);
    let mut out = Vec::new();
    while !reader.0.is_empty() {
        out.push(reader.record().ok_or(Damage::Records)?);
    }
    Ok(out)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    fn revision(&mut self) -> Option<Revision> {
        self.u64().map(Revision)
    }
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(usize::try_from(len).ok()?)
    }
    fn key(&mut self) -> Option<Rc<str>> {
        std::str::from_utf8(self.bytes()?).ok().map(Rc::from)
    }
    fn record(&mut self) -> Option<Record> {
        match self.u8()? {
            1 => {
                let (revision, count) = (self.revision()?, self.u32()?);
                let ops = (0..count).map(|_| self.op()).collect::<Option<Vec<_>>>()?;
                Some(Record::Commit(revision, ops))
            }
            2 => self.revision().map(Record::Reserve),
            3 => {
                let (created, modified) = (self.revision()?, self.revision()?);
                let key = self.key()?;
                Some(Record::Entry(key, Entry { value: Bytes::copy_from_slice(self.bytes()?), created, modified }))
            }
            4 => Some(Record::End { revision: self.revision()?, entries: self.u64()? }),
            _ => None,
        }
    }
    fn op(&mut self) -> Option<Op> {
        match self.u8()? {
            1 => Some(Op::Put(self.key()?, Bytes::copy_from_slice(self.bytes()?))),
            2 => self.key().map(Op::Delete),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_format_stays() {
        // Written down by hand from the module's description: a change of these bytes is a new version.
        assert_eq!(
            header(FileKind::Log, 3),
            [
                b"motelog\x01\x03\0\0\0\0\0\0\0".as_slice(),
                &crc32fast::hash(b"motelog\x01\x03\0\0\0\0\0\0\0").to_le_bytes()
            ]
            .concat()
        );
        let mut w = FrameWriter::new();
        w.commit(Revision(258), &[Op::Put("/a".into(), "xy".into()), Op::Delete("/b".into())]);
        let payload = b"\x01\x02\x01\0\0\0\0\0\0\x02\0\0\0\x01\x02\0\0\0/a\x02\0\0\0xy\x02\x02\0\0\0/b";
        let bytes = w.finish();
        assert_eq!(bytes[8..], *payload);
        assert_eq!(
            bytes[..8],
            [&(payload.len() as u32).to_le_bytes()[..], &crc32fast::hash(payload).to_le_bytes()].concat()
        );
        assert_eq!(check_header(FileKind::Log, &header(FileKind::Log, 3)), Ok(3));
        assert_eq!(check_header(FileKind::Snapshot, &header(FileKind::Log, 3)), Err(Damage::Header));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut h = header(FileKind::Log, 1);
        h[7] = 9;
        let crc = crc32fast::hash(&h[..16]).to_le_bytes();
        h[16..].copy_from_slice(&crc);
        assert_eq!(check_header(FileKind::Log, &h), Err(Damage::Version(9)));
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (check_header(FileKind::Log, &bytes), frame(&bytes), records(&bytes));
        }
        #[test]
        fn a_flipped_bit_is_seen(bit in 0usize..400) {
            let mut w = FrameWriter::new();
            w.commit(Revision(7), &[Op::Put("/registry/core/pods/default/x".into(), "{\"a\":1}".into())]);
            w.reserve(Revision(9));
            let mut bytes = w.finish();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(frame(&bytes), None);
        }
    }
}
