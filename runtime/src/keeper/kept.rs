//! Descriptors that must outlive the worker, by name: a container's FIFOs under its id, the rest of it under `id/…` (no id has a slash).
//!
//! The worker hands copies of them over its socket to the guard ([`Guard`]), which keeps them ([`Kept`]): `+` and a name with the descriptors, `-` and
//! a name when they may go.

use crate::sys;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const MESSAGE_BYTES_MAX: usize = 256;

/// Stands for the FIFOs an older binary has left, until the worker has opened its own.
pub(crate) const UNCLAIMED: &str = ".";

/// The name of something of a container.
pub(crate) fn key(id: &str, name: &str) -> String {
    format!("{id}/{name}")
}

/// The worker's end of the socket it shares with its guard.
pub(crate) struct Guard(OwnedFd);

impl Guard {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Keeps these open until [`Guard::release`], whatever becomes of us.
    pub(crate) fn hold(&self, id: &str, fds: &[RawFd]) {
        self.send(&format!("+{id}"), &[ControlMessage::ScmRights(fds)]);
    }

    pub(crate) fn release(&self, id: &str) {
        self.send(&format!("-{id}"), &[]);
    }

    fn send(&self, text: &str, rights: &[ControlMessage<'_>]) {
        // A dead guard is noticed elsewhere, and whoever follows it has the descriptors from us.
        let _ =
            sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(text.as_bytes())], rights, MsgFlags::MSG_NOSIGNAL, None);
    }
}

#[derive(Default)]
pub(crate) struct Kept(BTreeMap<String, Vec<OwnedFd>>);

impl Kept {
    pub(crate) fn insert(&mut self, key: String, fds: Vec<OwnedFd>) {
        self.0.insert(key, fds);
    }

    /// With all that belongs to it.
    pub(crate) fn remove(&mut self, key: &str) {
        self.0.retain(|k, _| k.strip_prefix(key).is_none_or(|rest| !rest.is_empty() && !rest.starts_with('/')));
    }

    /// Takes what the worker has sent; false = its end is closed.
    pub(crate) fn receive(&mut self, socket: &OwnedFd) -> bool {
        let mut buffer = [0u8; MESSAGE_BYTES_MAX];
        let mut space = cmsg_space!([RawFd; 4]);
        loop {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let received = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(received) => received,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return true,
                Err(_) => return false,
            };
            let mut fds = Vec::new();
            for message in received.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::ScmRights(raw) = message {
                    fds.extend(raw.into_iter().map(sys::received_fd));
                }
            }
            let count = received.bytes;
            if count == 0 {
                return false;
            }
            let text = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).into_owned();
            match text.split_at_checked(1) {
                Some(("+", id)) => self.insert(id.to_owned(), fds),
                Some(("-", id)) => self.remove(id),
                _ => {}
            }
        }
    }

    /// What is there of a container beside its FIFOs: names and descriptors.
    pub(crate) fn take_of(&mut self, id: &str) -> Vec<(String, Vec<OwnedFd>)> {
        let own = |k: &&String| k.strip_prefix(id).is_some_and(|rest| rest.starts_with('/'));
        let keys: Vec<String> = self.0.keys().filter(own).cloned().collect();
        let found = keys.into_iter().filter_map(|k| self.0.remove_entry(&k));
        found.filter_map(|(k, fds)| Some((k.split_once('/')?.1.to_owned(), fds))).collect()
    }

    /// Leaves all of them open for the program executed next, and says so: FIFOs, which that opens anew, by number alone, the rest with
    /// their names. Older binaries understand the numbers.
    pub(crate) fn over_exec(&self) -> String {
        let mut words = Vec::new();
        for (key, fds) in &self.0 {
            fds.iter().for_each(|fd| sys::keep_over_exec(fd.as_raw_fd()));
            let numbers: Vec<String> = fds.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
            match key.contains('/') {
                true => words.push(format!("{key}={}", numbers.join("+"))),
                false => words.extend(numbers),
            }
        }
        words.join(",")
    }

    /// What the predecessor has said by [`Kept::over_exec`].
    pub(crate) fn after_exec<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let open = |n: &str| n.parse::<RawFd>().ok().filter(|n| *n > 2).map(sys::received_fd);
        let (mut kept, mut unclaimed) = (Self::default(), Vec::new());
        for word in words {
            match word.split_once('=') {
                Some((key, numbers)) => kept.insert(key.to_owned(), numbers.split('+').filter_map(open).collect()),
                None => unclaimed.extend(open(word)),
            }
        }
        kept.insert(UNCLAIMED.to_owned(), unclaimed);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn keys(kept: &Kept) -> Vec<&str> {
        kept.0.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_container_goes_whole_and_alone() {
        let mut kept = Kept::default();
        for name in ["c", "c/t", "c/a1", "c2", "c2/t", "c.x"] {
            kept.insert(name.to_owned(), vec![fd()]);
        }
        kept.remove("c/a1");
        assert_eq!(keys(&kept), ["c", "c.x", "c/t", "c2", "c2/t"]);
        kept.remove("c");
        assert_eq!(keys(&kept), ["c.x", "c2", "c2/t"]);
        let of: Vec<String> = kept.take_of("c2").into_iter().map(|(name, _)| name).collect();
        assert_eq!((of, keys(&kept)), (vec!["t".to_owned()], vec!["c.x", "c2"]));
    }

    #[test]
    fn what_a_worker_hands_over_is_kept_until_it_is_let_go() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let (guard, mut kept, null) = (Guard::new(theirs), Kept::default(), fd());
        guard.hold("c", &[null.as_raw_fd(), null.as_raw_fd()]);
        guard.hold("c/t", &[null.as_raw_fd()]);
        guard.hold("d", &[null.as_raw_fd()]);
        assert!(kept.receive(&ours));
        assert_eq!((keys(&kept), kept.0["c"].len()), (vec!["c", "c/t", "d"], 2));
        guard.release("c");
        assert!(kept.receive(&ours), "and nothing more");
        assert_eq!(keys(&kept), ["d"]);
        drop(guard);
        assert!(!kept.receive(&ours), "the worker is gone");
        assert_eq!(keys(&kept), ["d"], "what it handed over is not");
    }

    #[test]
    fn names_survive_an_exec() {
        let mut kept = Kept::default();
        kept.insert("c".into(), vec![fd(), fd()]);
        kept.insert("c/t".into(), vec![fd()]);
        let text = kept.over_exec();
        // As the program executed next would find them: open, with no owner yet.
        kept.0.into_values().flatten().for_each(std::mem::forget);
        let mut after = Kept::after_exec(text.split(','));
        assert_eq!(keys(&after), [UNCLAIMED, "c/t"]);
        assert_eq!(after.0[UNCLAIMED].len(), 2);
        assert_eq!(after.take_of("c")[0].1.len(), 1);
        assert_eq!(keys(&Kept::after_exec("x,1,=,a/b=".split(','))), ["", UNCLAIMED, "a/b"], "damage is nothing");
    }
}
