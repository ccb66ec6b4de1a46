//! What exec and attach have in common: a client on one side, pipes or a terminal on the other. Output goes straight to the client, so
//! that a slow client holds the program back and nothing piles up here.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use mote_api::tree::{Value, json, set};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::negotiate::Wire;
use super::session::{Input, Output, Session, Wanted};

/// Time for a client to open the streams it announced.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);
/// Bytes moved at a time.
const PIECE_BYTES: usize = 16 << 10;
/// Input that the program has not read; more stays with the client.
pub(super) const INPUT_BYTES_MAX: usize = 64 << 10;

/// The client's side.
pub(super) struct Conversation<IO> {
    client: IO,
    session: Session,
    /// What it said and nobody has taken yet.
    pub(super) inputs: VecDeque<Input>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Conversation<IO> {
    /// Waits for the streams that the client announced.
    pub(super) async fn open(client: IO, wire: Wire, wanted: Wanted) -> io::Result<Self> {
        let mut talk = Conversation { client, session: Session::new(wire, wanted), inputs: VecDeque::new() };
        let streams = async {
            while !talk.session.ready() {
                talk.listen().await?;
            }
            Ok(())
        };
        tokio::time::timeout(STREAMS_WITHIN, streams)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, "the client's streams did not come")))?;
        Ok(talk)
    }

    /// The last word.
    pub(super) async fn finish(mut self, status: &Value) -> io::Result<()> {
        let mut out = Vec::new();
        self.session.finish(&mut out, status);
        self.send(&out).await?;
        self.client.shutdown().await
    }

    /// Waits for bytes and takes in what they say.
    pub(super) async fn listen(&mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        let read = self.client.read(&mut piece).await?;
        if read == 0 {
            self.inputs.push_back(Input::End);
            return Ok(());
        }
        self.session.receive(piece.get(..read).unwrap_or_default());
        let mut out = Vec::new();
        while let Some(input) = self.session.next(&mut out).map_err(io::Error::other)? {
            self.inputs.push_back(input);
        }
        self.send(&out).await
    }

    pub(super) async fn output(&mut self, to: Output, bytes: &[u8]) -> io::Result<()> {
        let mut out = Vec::with_capacity(bytes.len() + 16);
        self.session.output(&mut out, to, bytes);
        self.send(&out).await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.client.write_all(bytes).await?;
        self.client.flush().await
    }
}

/// A pipe's or a terminal's end.
pub(super) struct End(AsyncFd<File>);

impl End {
    pub(super) fn new(fd: OwnedFd) -> io::Result<End> {
        // `register`, its successor, is unsafe; what it wants holds here: `File` owns the descriptor as long as the registration lives.
        #[allow(deprecated)]
        AsyncFd::new(File::from(fd)).map(End)
    }

    /// To ask the kernel about it.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// What is there; nothing at its end. Waits for ever without one.
pub(super) async fn read(end: &mut Option<End>) -> io::Result<Vec<u8>> {
    let Some(end) = end else { return std::future::pending().await };
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let mut ready = end.0.readable().await?;
        if let Ok(read) = ready.try_io(|file| file.get_ref().read(&mut piece)) {
            piece.truncate(read?);
            return Ok(piece);
        }
    }
}

pub(super) async fn write(end: &mut Option<End>, bytes: &[u8]) -> io::Result<usize> {
    let Some(end) = end else { return std::future::pending().await };
    loop {
        let mut ready = end.0.writable().await?;
        if let Ok(written) = ready.try_io(|file| file.get_ref().write(bytes)) {
            return written;
        }
    }
}

/// How it went wrong, as upstream says it.
pub(super) fn failure(reason: &str, message: String, details: Value) -> Value {
    let mut status = json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason});
    if reason == "InternalError" {
        set(&mut status, &["code"], json!(500));
    }
    if !details.is_null() {
        set(&mut status, &["details"], details);
    }
    status
}
