//! The sockets of the keeper's clients: never waited for, bounded, dropped when slow or strange. Descriptors that come with a request
//! wait for it to be taken up; those nobody takes are closed.

use super::protocol::{Event, Failure, FailureKind, FrameError, Reply, Told, encode_onto};
use crate::descriptors;
use nix::sys::socket::MsgFlags;
use std::io::{self, ErrorKind, Write};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

pub(crate) const CLIENTS_MAX: usize = 32;
/// Unsent bytes per client; more = it does not read, and it is dropped.
const BACKLOG_BYTES_MAX: usize = 8 << 20;
/// Kept of a client's buffers when they are empty, and by us when he has gone.
const BUFFER_BYTES: usize = 16 << 10;
/// Read per turn.
const READ_BYTES_MAX: usize = 1 << 20;

pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) stream: UnixStream,
    pub(crate) events: bool,
    /// What came and is not handled yet.
    inbox: Vec<u8>,
    unsent: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Ends once everything is sent.
    closing: bool,
    dead: bool,
}

#[derive(Default)]
pub(crate) struct Clients {
    all: Vec<Client>,
    last_id: u64,
    /// Buffers of those who have gone: there are never more than of the most who were here at once.
    spare: Vec<Vec<u8>>,
}

impl Clients {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.all.iter()
    }

    /// All who have come by now: their ids.
    pub(crate) fn accept(&mut self, listener: &UnixListener) -> RangeInclusive<u64> {
        let first = self.last_id + 1;
        while let Ok((stream, _)) = listener.accept() {
            if self.all.len() >= CLIENTS_MAX || !trusted(&stream) || stream.set_nonblocking(true).is_err() {
                continue; // dropped = closed
            }
            self.last_id += 1;
            let id = self.last_id;
            let mut buffer = || self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES));
            let (inbox, unsent) = (buffer(), buffer());
            self.all.push(Client {
                id,
                stream,
                events: false,
                inbox,
                unsent,
                descriptors: Vec::new(),
                closing: false,
                dead: false,
            });
        }
        first..=self.last_id
    }

    /// Everything that has come from client `id` by now; to be given back by [`Clients::handled`].
    pub(crate) fn read(&mut self, id: u64, buffer: &mut [u8]) -> Vec<u8> {
        let Some(client) = self.all.iter_mut().find(|c| c.id == id) else { return Vec::new() };
        let mut total = 0;
        while total < READ_BYTES_MAX && !client.closing {
            match client.receive(buffer) {
                Ok(0) => client.dead = true,
                Ok(count) => {
                    total += count;
                    client.inbox.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => client.dead = e.kind() != ErrorKind::WouldBlock,
            }
            break;
        }
        std::mem::take(&mut client.inbox)
    }

    /// The first `count` bytes of what was read are done with.
    pub(crate) fn handled(&mut self, id: u64, mut inbox: Vec<u8>, count: usize) {
        let Some(client) = self.all.iter_mut().find(|c| c.id == id) else { return };
        inbox.drain(..count.min(inbox.len()));
        if inbox.is_empty() {
            inbox.shrink_to(BUFFER_BYTES); // a large start request must not stay in the keeper's memory
        }
        client.inbox = inbox;
    }

    /// The stream of client `id` makes no sense any more.
    pub(crate) fn refuse(&mut self, id: u64, error: &FrameError) {
        if let Some(client) = self.all.iter_mut().find(|c| c.id == id) {
            client.refuse(error);
        }
    }

    /// The descriptors that came with the last requests of client `id`.
    pub(crate) fn descriptors(&mut self, id: u64) -> Vec<OwnedFd> {
        let client = self.all.iter_mut().find(|c| c.id == id);
        client.map(|c| std::mem::take(&mut c.descriptors)).unwrap_or_default()
    }

    pub(crate) fn subscribe(&mut self, id: u64) {
        if let Some(client) = self.all.iter_mut().find(|c| c.id == id) {
            client.events = true;
        }
    }

    pub(crate) fn reply(&mut self, (id, seq): (u64, u32), reply: Reply) {
        if let Some(client) = self.all.iter_mut().find(|c| c.id == id) {
            client.send(&Told::Reply { seq, reply: &reply });
        }
    }

    pub(crate) fn tell(&mut self, event: &Event) {
        for client in self.all.iter_mut().filter(|c| c.events) {
            client.send(&Told::Event(event));
        }
    }

    pub(crate) fn flush(&mut self, id: u64) {
        if let Some(client) = self.all.iter_mut().find(|c| c.id == id) {
            client.flush();
        }
    }

    pub(crate) fn sweep(&mut self) {
        let gone = |c: &mut Client| c.dead || c.closing && c.unsent.is_empty();
        for mut client in self.all.extract_if(.., gone) {
            for buffer in [&mut client.inbox, &mut client.unsent].map(std::mem::take) {
                let mut buffer = buffer;
                buffer.clear();
                buffer.shrink_to(BUFFER_BYTES);
                self.spare.push(buffer);
            }
        }
    }
}

/// Root, or whoever runs this keeper.
fn trusted(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let peer = nix::sys::socket::getsockopt(&stream.as_fd(), nix::sys::socket::sockopt::PeerCredentials);
    peer.is_ok_and(|p| p.uid() == 0 || p.uid() == own)
}

impl Client {
    pub(crate) fn wants_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, came) = descriptors::receive(&self.stream, buffer, MsgFlags::empty())?;
        self.descriptors.extend(came);
        self.descriptors.truncate(descriptors::AT_ONCE_MAX);
        Ok(count)
    }

    fn refuse(&mut self, error: &FrameError) {
        let kind = if matches!(error, FrameError::Version(_)) { FailureKind::Version } else { FailureKind::Invalid };
        let reply = Reply::Failed(Failure::new(kind, error.to_string()));
        self.send(&Told::Reply { seq: 0, reply: &reply });
        self.closing = true;
    }

    fn send(&mut self, message: &Told<'_>) {
        match encode_onto(std::mem::take(&mut self.unsent), message) {
            Ok(unsent) if unsent.len() <= BACKLOG_BYTES_MAX => {
                self.unsent = unsent;
                self.flush();
            }
            _ => self.dead = true,
        }
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => break,
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.dead |= !self.unsent.is_empty();
        if self.unsent.is_empty() {
            self.unsent.shrink_to(BUFFER_BYTES);
        }
    }
}
