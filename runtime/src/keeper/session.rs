//! The client's ends of a process that somebody talks to: one more inside a container ([`open`]), or a container's first ([`attach`]). Pipes, or a
//! terminal's master, made here and handed to the keeper with the request. The caller has an event loop.

use super::client::Client;
use super::protocol::{self, Attach, Call, Failure, FailureKind, Reply, Request, Session, encode};
use super::rundir::RunDir;
use crate::{descriptors, sys};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::MsgFlags;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A keeper that does not read for so long is not there.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// What an attached client's pipe for stdout holds.
const PIPE_BYTES: i32 = 1 << 18;

/// What the client holds of one session. All of it non-blocking.
pub struct Ends {
    /// Frames of the keeper: one answer, [`super::protocol::Reply::Exec`] or a failure.
    pub answer: UnixStream,
    pub talk: Talk,
}

/// How process and client hear each other.
pub enum Talk {
    /// Write to the first, read from the others. Without stdin the process reads nothing.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// Gives the terminal's master once the process has it: see [`receive_terminal`].
    Terminal(UnixStream),
}

/// Asks the keeper of `dir` to run a session.
///
/// # Errors
/// Of the socket or of making pipes; what the keeper thinks of it comes as its answer.
pub fn open(dir: &RunDir, session: Session, stdin: bool) -> io::Result<Ends> {
    let answer = UnixStream::connect(dir.socket())?;
    answer.set_write_timeout(Some(WRITE_WITHIN))?;
    let terminal = session.terminal;
    let frame = encode(&Call { seq: 1, request: Request::Session(session) }).map_err(io::Error::other)?;
    let send = |descriptors: &[BorrowedFd<'_>]| {
        let sent = descriptors::send(&answer, &frame, descriptors)?;
        (&answer).write_all(frame.get(sent..).unwrap_or_default())
    };
    let talk = if terminal {
        let (ours, theirs) = UnixStream::pair()?;
        send(&[theirs.as_fd()])?;
        ours.set_nonblocking(true)?;
        Talk::Terminal(ours)
    } else {
        let (out, theirs_out) = pipe()?;
        let (err, theirs_err) = pipe()?;
        let (theirs_in, input) = if stdin {
            let (theirs, ours) = pipe()?;
            (theirs, Some(ours))
        } else {
            (File::open("/dev/null")?.into(), None)
        };
        send(&[theirs_in.as_fd(), theirs_out.as_fd(), theirs_err.as_fd()])?;
        for end in [Some(&out), Some(&err), input.as_ref()].into_iter().flatten() {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Talk::Pipes { stdin: input, stdout: out, stderr: err }
    };
    answer.set_nonblocking(true)?;
    Ok(Ends { answer, talk })
}

/// What a client holds that is attached to a running container's first process. All of it non-blocking.
pub struct Attached {
    /// Bytes for the program: stdin's writing end, whose closing is the end of input where stdin is [`Stdin::Once`](crate::container::Stdin);
    /// or the terminal's master, to write and to [`resize`], never to read. `None` = the program has no stdin (any more), or it was not wanted.
    pub input: Option<OwnedFd>,
    pub terminal: bool,
    /// From now on. Both end when the container has ended (how, says [`super::protocol::Event::Exited`]), or when nobody read for some seconds.
    /// With a terminal all comes on the first.
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Attaches to container `id` of the keeper of `dir`; `stdin`: wants its stdin too. Waits for the keeper's answer, some milliseconds. Nothing of what
/// comes back depends on the keeper's being the same process for ever.
///
/// # Errors
/// The keeper's refusal (`NotFound`; `Busy` when it does not run; `Limit`), or `Limit` when it cannot be reached.
pub fn attach(dir: &RunDir, id: &str, stdin: bool) -> Result<Attached, Failure> {
    let lost = |e: io::Error| Failure::new(FailureKind::Limit, format!("attach to {id}: {e}"));
    let (stdout, out) = pipe().map_err(lost)?;
    let (stderr, err) = pipe().map_err(lost)?;
    for end in [&out, &stdout, &stderr] {
        // More to hold than 64 KiB makes a hasty writer wait less; not everybody may.
        let _ = fcntl(end, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| lost(e.into()))?;
    }
    let (ours, theirs) = UnixStream::pair().map_err(lost)?;
    ours.set_nonblocking(true).map_err(lost)?;
    let request = Request::Attach(Attach { id: id.to_owned(), stdin });
    let mut client = Client::connect(dir.path()).map_err(lost)?;
    let reply = client.call_with(request, &[theirs.as_fd(), out.as_fd(), err.as_fd()])?;
    let Reply::Attached(protocol::Attached { input, terminal }) = reply else {
        return Err(Failure::new(FailureKind::Invalid, format!("attach to {id}: unexpected answer")));
    };
    let input = input.then(|| receive_terminal(&ours)).transpose().map_err(lost)?;
    Ok(Attached { input, terminal, stdout, stderr })
}

/// Reading end, writing end.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// The master of the session's terminal, non-blocking.
///
/// # Errors
/// `WouldBlock` while it is not there yet; `UnexpectedEof` when the start failed and none will come.
pub fn receive_terminal(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut text = [0; 64];
    let (_, came) = descriptors::receive(socket, &mut text, MsgFlags::MSG_DONTWAIT)?;
    let master = came.into_iter().next().ok_or(ErrorKind::UnexpectedEof)?;
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(master)
}

/// Sets a terminal's size; the program hears of it by SIGWINCH.
///
/// # Errors
/// When it is no terminal.
pub fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    Ok(sys::set_window_size(terminal, rows, columns)?)
}
