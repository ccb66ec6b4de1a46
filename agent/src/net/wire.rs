//! The netlink message format: headers and attributes, written and read without IO.
//!
//! Headers are in the machine's own byte order (include/uapi/linux/netlink.h). What attributes hold differs: rtnetlink uses
//! the machine's order, nfnetlink big-endian; so every number is written by a method that names its order.

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
/// Length of `struct nlattr`.
const ATTR_LEN: usize = 4;
/// The two top bits of an attribute's type are flags (nested, network order).
const ATTR_TYPE_MASK: u16 = 0x3fff;
const ATTR_NESTED: u16 = 0x8000;

/// `NLM_F_*` of requests.
pub(crate) mod flags {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
}

/// One or several requests, back to back in one buffer.
#[derive(Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// An attribute or message outgrew its length field; such a buffer must not be sent.
    overflow: bool,
    count: u32,
}

impl Messages {
    /// Adds a message: `body` writes the fixed part and the attributes. Sequence numbers count up from 1.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Messages)) {
        let start = self.bytes.len();
        self.count += 1;
        let seq = self.count;
        self.bytes.extend_from_slice(&[0; 4]);
        self.ne16(kind);
        self.ne16(flags | flags::REQUEST);
        self.ne32(seq);
        self.ne32(0);
        body(self);
        let len = u32::try_from(self.bytes.len() - start).unwrap_or_else(|_| {
            self.overflow = true;
            0
        });
        self.patch(start, &len.to_ne_bytes());
        self.pad();
    }

    /// A single message.
    pub(crate) fn one(kind: u16, flags: u16, body: impl FnOnce(&mut Messages)) -> Messages {
        let mut messages = Messages::default();
        messages.message(kind, flags, body);
        messages
    }

    /// How many messages were added.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The bytes to send, unless a length field overflowed.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        (!self.overflow).then_some(&self.bytes)
    }

    /// Raw bytes of a fixed header.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn ne16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    pub(crate) fn ne32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    /// An attribute of raw bytes.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) {
        self.attr_with(kind, |m| m.raw(value));
    }

    /// An attribute of a text with its final zero.
    pub(crate) fn attr_str(&mut self, kind: u16, value: &str) {
        self.attr_with(kind, |m| {
            m.raw(value.as_bytes());
            m.raw(&[0]);
        });
    }

    /// An attribute of a number in the machine's order (rtnetlink).
    pub(crate) fn attr_ne32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// An attribute of a big-endian number (nfnetlink).
    pub(crate) fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// An attribute of attributes.
    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Messages)) {
        self.attr_with(kind | ATTR_NESTED, body);
    }

    fn attr_with(&mut self, kind: u16, body: impl FnOnce(&mut Messages)) {
        let start = self.bytes.len();
        self.ne16(0);
        self.ne16(kind);
        body(self);
        let len = u16::try_from(self.bytes.len() - start).unwrap_or_else(|_| {
            self.overflow = true;
            0
        });
        self.patch(start, &len.to_ne_bytes());
        self.pad();
    }

    fn patch(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

/// One message of a reply.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: &'a [u8],
}

/// The messages of one datagram; ends at the first that does not fit.
pub(crate) struct Replies<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Replies<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let len = usize::try_from(ne32(self.0, 0)?).ok()?;
        let message = Message { kind: ne16(self.0, 4)?, flags: ne16(self.0, 6)?, body: self.0.get(HEADER_LEN..len)? };
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes of a body as (type without flags, value); ends at the first that does not fit.
pub(crate) struct Attrs<'a>(pub(crate) &'a [u8]);

impl<'a> Attrs<'a> {
    /// The attributes behind a fixed header of `skip` bytes.
    pub(crate) fn after(body: &'a [u8], skip: usize) -> Attrs<'a> {
        Attrs(body.get(align(skip)..).unwrap_or_default())
    }

    /// The value of the first attribute of this type.
    pub(crate) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        Attrs(self.0).find_map(|(k, value)| (k == kind).then_some(value))
    }

    /// The attribute that lies at the end of a path of nested ones.
    pub(crate) fn find_path(&self, path: &[u16]) -> Option<&'a [u8]> {
        path.iter().try_fold(self.0, |bytes, kind| Attrs(bytes).find(*kind))
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let len = usize::from(ne16(self.0, 0)?);
        let kind = ne16(self.0, 2)? & ATTR_TYPE_MASK;
        let value = self.0.get(ATTR_LEN..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

pub(crate) fn ne16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

pub(crate) fn ne32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

pub(crate) fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// A text attribute without its final zero.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_what_it_reads() {
        let mut m = Messages::default();
        m.message(16, flags::ACK, |m| {
            m.raw(&[7; 4]);
            m.attr_str(3, "eth0");
            m.nest(18, |m| {
                m.attr(1, &[1, 2, 3]);
                m.attr_be32(2, 0x0102_0304);
            });
        });
        m.message(17, 0, |_| {});
        let bytes = m.bytes().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let all: Vec<_> = Replies(bytes).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[0].flags), (16, 5));
        assert_eq!((all[1].kind, all[1].body.len()), (17, 0));
        assert_eq!(ne32(bytes, bytes.len() - 8), Some(2), "sequence numbers count up");
        let attrs = Attrs::after(all[0].body, 4);
        assert_eq!(attrs.find(3).map(text).as_deref(), Some("eth0"));
        assert_eq!(attrs.find_path(&[18, 1]), Some(&[1, 2, 3][..]));
        assert_eq!(attrs.find_path(&[18, 2]), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attrs.find(99), None);
    }

    #[test]
    fn refuses_an_attribute_that_is_too_long() {
        assert!(Messages::one(1, 0, |m| m.attr(1, &vec![0; 65531])).bytes().is_some());
        assert!(Messages::one(1, 0, |m| m.attr(1, &vec![0; 65532])).bytes().is_none());
        assert!(Messages::one(1, 0, |m| m.nest(1, |m| (0..5).for_each(|_| m.attr(1, &[0; 16_000])))).bytes().is_none());
    }

    proptest! {
        #[test]
        fn hostile_replies_end(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for message in Replies(&bytes) {
                for (_, value) in Attrs(message.body) {
                    let _ = Attrs(value).count();
                }
            }
            prop_assert!(Attrs(&bytes).count() <= 100);
        }
    }
}
