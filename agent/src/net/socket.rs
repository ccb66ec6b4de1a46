//! A netlink socket: sends requests, collects acknowledgements and dumps. Netlink answers while the request is being sent, so
//! these calls do not wait for anything but the kernel's own work.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::wire::{self, Attrs, HEADER_LEN, Messages, Replies};
use super::{Error, sys};

/// The kernel fills dump datagrams up to the reader's buffer.
const RECV_LEN: usize = 32 * 1024;
/// The kernel answers at once; this only keeps a bug from hanging the agent.
const ANSWER_MAX_S: i64 = 5;
/// A dump that changed while it was read is started again this often.
const DUMP_TRIES: usize = 4;
/// The most bytes of one transaction, about 100,000 Services.
pub(crate) const BATCH_MAX: usize = 128 * 1024 * 1024;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A netlink socket of the network namespace it was opened in, wherever it is used afterwards.
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

/// The kernel's refusal of one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    pub(crate) words: String,
    pub(crate) seq: u32,
}

impl Refusal {
    fn of(errno: Errno) -> Refusal {
        Refusal { errno: errno as i32, words: String::new(), seq: 0 }
    }

    /// The refusal of someone who has not even asked.
    pub(crate) fn unknown() -> Refusal {
        Refusal::of(Errno::ENODATA)
    }

    /// As an error about an operation on an object.
    pub(crate) fn error(self, op: &'static str, object: impl Into<String>) -> Error {
        let mut cause = Errno::from_raw(self.errno).desc().to_owned();
        if !self.words.is_empty() {
            cause = format!("{cause}: {}", self.words);
        }
        Error::Kernel { op, object: object.into(), cause, errno: self.errno }
    }
}

impl Socket {
    /// A socket for links, addresses, routes.
    pub(crate) fn route() -> Result<Socket, Error> {
        Socket::open(SockProtocol::NetlinkRoute)
    }

    /// A socket for nf_tables and connection tracking.
    pub(crate) fn netfilter() -> Result<Socket, Error> {
        Socket::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Socket, Error> {
        let open = || -> Result<OwnedFd, Errno> {
            let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_MAX_S))?;
            Ok(fd)
        };
        let fd = open().map_err(|e| Refusal::of(e).error("open netlink socket", format!("{protocol:?}")))?;
        sys::want_words(&fd);
        Ok(Socket { fd, buffer: vec![0; RECV_LEN] })
    }

    /// Sends messages that all carry the ACK flag and waits until each is acknowledged.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) fn request(&mut self, messages: &Messages) -> Result<(), Refusal> {
        self.send(messages)?;
        let mut first = Ok(());
        let mut open = messages.count();
        while open > 0 {
            let len = self.recv(MsgFlags::empty())?;
            for reply in Replies(self.buffer.get(..len).unwrap_or_default()) {
                if reply.kind == NLMSG_ERROR {
                    open = open.saturating_sub(1);
                    if first.is_ok() {
                        first = verdict(&reply);
                    }
                }
            }
        }
        first
    }

    /// Sends one request with the DUMP flag and hands each reply's kind and body to `each`, with a fresh `T` for every try: the
    /// dump begins anew when the kernel's tables changed in between.
    ///
    /// # Errors
    /// The kernel's refusal, or EAGAIN when the tables never held still.
    pub(crate) fn dump<T>(&mut self, messages: &Messages, each: impl Fn(&mut T, u16, &[u8])) -> Result<T, Refusal>
    where
        T: Default,
    {
        for _ in 0..DUMP_TRIES {
            let mut found = T::default();
            self.send(messages)?;
            if self.read_dump(&mut found, &each)? {
                return Ok(found);
            }
        }
        Err(Refusal::of(Errno::EAGAIN))
    }

    /// The replies of kind `new` of a dump, as far as `parse` has a use for them.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub(crate) fn list<T>(
        &mut self,
        messages: &Messages,
        new: u16,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        self.dump(messages, |found: &mut Vec<T>, kind, body| {
            if kind == new {
                found.extend(parse(body));
            }
        })
    }

    fn read_dump<T>(&mut self, found: &mut T, each: &impl Fn(&mut T, u16, &[u8])) -> Result<bool, Refusal> {
        let mut whole = true;
        loop {
            let len = self.recv(MsgFlags::empty())?;
            for reply in Replies(self.buffer.get(..len).unwrap_or_default()) {
                whole &= reply.flags & NLM_F_DUMP_INTR == 0;
                match reply.kind {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => return verdict(&reply).map(|()| whole),
                    kind => each(found, kind, reply.body),
                }
            }
        }
    }

    /// Sends one request and hands its one reply to `read`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn get<T>(&mut self, messages: &Messages, read: impl Fn(&[u8]) -> T) -> Result<T, Refusal> {
        self.send(messages)?;
        loop {
            let len = self.recv(MsgFlags::empty())?;
            for reply in Replies(self.buffer.get(..len).unwrap_or_default()) {
                if reply.kind != NLMSG_ERROR {
                    return Ok(read(reply.body));
                }
                verdict(&reply)?;
            }
        }
    }

    /// Sends an nfnetlink batch: all or nothing. The kernel has worked it off when the send returns, so no answer means success.
    ///
    /// # Errors
    /// The first refusal (nothing changed then).
    pub(crate) fn batch(&mut self, messages: &Messages) -> Result<(), Refusal> {
        let len = messages.bytes().map_or(0, <[u8]>::len);
        if len > BATCH_MAX {
            return Err(Refusal::of(Errno::EMSGSIZE));
        }
        // The kernel copies the whole batch into one socket buffer; it doubles the number itself.
        if let Err(e) = setsockopt(&self.fd, sockopt::SndBufForce, &(len.saturating_add(64 * 1024))) {
            log::debug!("grow netlink send buffer to {len} bytes: {e}");
        }
        self.send(messages)?;
        let mut first = Ok(());
        loop {
            let len = match self.recv(MsgFlags::MSG_DONTWAIT) {
                Ok(len) => len,
                Err(e) if e.errno == Errno::EAGAIN as i32 => return first,
                // More refusals than the buffer holds: the first one tells.
                Err(e) if e.errno == Errno::ENOBUFS as i32 && first.is_err() => continue,
                Err(e) => return Err(e),
            };
            for reply in Replies(self.buffer.get(..len).unwrap_or_default()) {
                if reply.kind == NLMSG_ERROR && first.is_ok() {
                    first = verdict(&reply);
                }
            }
        }
    }

    fn send(&mut self, messages: &Messages) -> Result<(), Refusal> {
        let bytes = messages.bytes().ok_or_else(|| Refusal::of(Errno::EMSGSIZE))?;
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(Refusal::of(e)),
            }
        }
    }

    fn recv(&mut self, flags: MsgFlags) -> Result<usize, Refusal> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, flags) {
                Ok(len) => return Ok(len),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(Refusal::of(e)),
            }
        }
    }
}

/// What an error message says: errno 0 is an acknowledgement.
fn verdict(reply: &wire::Message<'_>) -> Result<(), Refusal> {
    let code = wire::ne32(reply.body, 0).map_or(-(Errno::EBADMSG as i32), u32::cast_signed);
    if code == 0 {
        return Ok(());
    }
    let mut words = String::new();
    if reply.flags & NLM_F_ACK_TLVS != 0 {
        let copied = if reply.flags & NLM_F_CAPPED == 0 { wire::ne32(reply.body, 4) } else { None };
        let skip = 4 + copied.map_or(HEADER_LEN, |len| usize::try_from(len).unwrap_or(HEADER_LEN));
        words = Attrs::after(reply.body, skip).find(NLMSGERR_ATTR_MSG).map(wire::text).unwrap_or_default();
    }
    Err(Refusal { errno: code.saturating_neg(), words, seq: wire::ne32(reply.body, 12).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32, flags: u16, tail: &[u8]) -> Vec<u8> {
        let mut body = code.to_ne_bytes().to_vec();
        body.extend_from_slice(&20u32.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&7u32.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(tail);
        let _ = flags;
        body
    }

    fn read(body: &[u8], flags: u16) -> Result<(), Refusal> {
        verdict(&wire::Message { kind: NLMSG_ERROR, flags, body })
    }

    #[test]
    fn reads_errors_in_words() {
        assert_eq!(read(&error(0, 0, &[]), 0), Ok(()));
        let words = [&8u16.to_ne_bytes()[..], &1u16.to_ne_bytes()[..], b"bad\0"].concat();
        let want = Refusal { errno: 17, words: "bad".into(), seq: 7 };
        assert_eq!(read(&error(-17, 0, &words), NLM_F_ACK_TLVS | NLM_F_CAPPED), Err(want.clone()));
        let with_copy = [&[0; 4][..], &words].concat();
        assert_eq!(read(&error(-17, 0, &with_copy), NLM_F_ACK_TLVS), Err(want));
        assert_eq!(read(&error(-1, 0, &words), 0).unwrap_err().words, "");
    }

    #[test]
    fn a_short_error_is_an_error() {
        assert_eq!(read(&[0, 0], 0).unwrap_err().errno, Errno::EBADMSG as i32);
        assert!(read(&i32::MIN.to_ne_bytes(), NLM_F_ACK_TLVS).is_err());
    }
}
