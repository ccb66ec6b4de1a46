//! A connection whose other side does not read: after a while it is cut, so that what waits for it does not stay in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Time in which a client must take at least a byte of what is sent to it.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Stall<IO> {
    io: IO,
    after: Duration,
    /// Runs while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<IO> Stall<IO> {
    pub(crate) fn new(io: IO, after: Duration) -> Stall<IO> {
        Stall { io, after, timer: None }
    }
    fn judge<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.timer = None;
            return poll;
        }
        let after = self.after;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Stall<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Stall<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write(cx, buf);
        this.judge(cx, poll)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_flush(cx);
        this.judge(cx, poll)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_shutdown(cx);
        this.judge(cx, poll)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.judge(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_cut() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut stalled = Stall::new(ours, WRITE_TIMEOUT);
        stalled.write_all(b"12345678").await.unwrap();
        let wait = tokio::time::Instant::now();
        assert_eq!(stalled.write_all(b"9").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(wait.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
        // Who reads now and then is not.
        let (ours, slow) = tokio::io::duplex(8);
        let mut stalled = Stall::new(ours, WRITE_TIMEOUT);
        let mut slow = slow;
        let reader = async move {
            let mut byte = [0; 1];
            for _ in 0..16 {
                tokio::time::sleep(WRITE_TIMEOUT / 2).await;
                slow.read_exact(&mut byte).await.unwrap();
            }
        };
        let writer = async { stalled.write_all(&[7; 16]).await.unwrap() };
        tokio::join!(reader, writer);
        assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 8);
    }
}
