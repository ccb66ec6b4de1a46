//! A blocking client, for the command line and tests. The agent speaks the same frames from its own loop.

use super::protocol::{Call, Decoder, Event, Failure, FailureKind, FrameError, Message, Reply, Request, encode};
use super::rundir::RunDir;
use crate::descriptors;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for one answer; starts and execs are bounded by the keeper.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(120);

pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
    seq: u32,
    events: VecDeque<Event>,
}

impl Client {
    /// `dir` is the keeper's run folder.
    pub fn connect(dir: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(RunDir::new(dir).socket())?;
        stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
        Ok(Self { stream, decoder: Decoder::default(), seq: 0, events: VecDeque::new() })
    }

    /// Asks and waits; events that come meanwhile are kept for [`Client::event`].
    ///
    /// # Errors
    /// What the keeper said, or a lost connection as `Limit`.
    pub fn call(&mut self, request: Request) -> Result<Reply, Failure> {
        self.call_with(request, &[])
    }

    /// The same, with descriptors for the request.
    pub(crate) fn call_with(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, Failure> {
        self.seq = self.seq.wrapping_add(1);
        let lost = |e: io::Error| {
            let skew = e.get_ref().and_then(|e| e.downcast_ref()).is_some_and(|e| matches!(e, FrameError::Version(_)));
            Failure::new(if skew { FailureKind::Version } else { FailureKind::Limit }, format!("talk to keeper: {e}"))
        };
        let frame =
            encode(&Call { seq: self.seq, request }).map_err(|e| Failure::new(FailureKind::Invalid, e.to_string()))?;
        let sent = if fds.is_empty() { Ok(0) } else { descriptors::send(&self.stream, &frame, fds) };
        let rest = frame.get(sent.map_err(|e| lost(e.into()))?..).unwrap_or_default();
        self.stream.write_all(rest).map_err(lost)?;
        let until = Instant::now() + ANSWER_WAIT_MAX;
        loop {
            match self.message(until).map_err(lost)? {
                Some(Message::Reply { reply: Reply::Failed(failure), seq }) if seq == self.seq || seq == 0 => {
                    return Err(failure);
                }
                Some(Message::Reply { seq, reply }) if seq == self.seq => return Ok(reply),
                Some(Message::Reply { .. }) => {}
                Some(Message::Event(event)) => self.events.push_back(event),
                None => return Err(lost(io::ErrorKind::TimedOut.into())),
            }
        }
    }

    /// The next event, `None` after `wait` (needs `Hello { events: true }` before).
    pub fn event(&mut self, wait: Duration) -> io::Result<Option<Event>> {
        let until = Instant::now() + wait;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.message(until)? {
                Some(Message::Event(event)) => return Ok(Some(event)),
                Some(Message::Reply { .. }) => {}
                None => return Ok(None),
            }
        }
    }

    fn message(&mut self, until: Instant) -> io::Result<Option<Message>> {
        let mut buffer = [0u8; 16 << 10];
        loop {
            if let Some(message) = self.decoder.next_frame().map_err(io::Error::other)? {
                return Ok(Some(message));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::ConnectionReset.into()),
                Ok(count) => self.decoder.push(buffer.get(..count).unwrap_or_default()),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
