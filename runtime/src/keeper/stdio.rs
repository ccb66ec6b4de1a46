//! What a container's first process reads and writes: FIFOs in its run folder, or a terminal; the log; and who is attached.
//!
//! A terminal's output goes the same way as any other: splice(2) moves it into the FIFO of stdout, so the journal covers it too.

use super::attach::{ATTACHED_MAX, Attachment, Audience};
use super::journal::Journal;
use super::kept::{Kept, key};
use super::line::{CHUNK_BYTES, Stream};
use super::log::LogFile;
use super::protocol::{Attached, Failure, FailureKind, WantedAttach};
use super::session;
use crate::container::{self, Log, Stdin};
use crate::stages::{ERR, IN, IN_ONCE, OUT};
use crate::{descriptors, sys};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More than two FIFOs and a terminal hold, however large their owner has made them (fs.pipe-max-size is 1 MiB).
const REST_BYTES_MAX: usize = 4 << 20;
/// Under this word after its id the guard keeps a container's terminal.
const TERMINAL: &str = "t";
/// And its clients under this letter and their numbers.
const CLIENT: &str = "a";

pub(crate) struct Stdio {
    pub(crate) out: File,
    pub(crate) err: File,
    pub(crate) terminal: Terminal,
    pub(crate) audience: Audience,
    input: Option<Input>,
    file: LogFile,
}

/// Both ends of stdin's FIFO.
struct Input {
    path: PathBuf,
    fifo: File,
    once: bool,
}

pub(crate) enum Terminal {
    None,
    /// Comes by this socket, whose other end is the child's.
    Awaited {
        ours: OwnedFd,
        theirs: Option<OwnedFd>,
    },
    Here {
        master: File,
        /// Open so that the master is never hung up while the container lives, whoever closes his.
        _peer: OwnedFd,
    },
}

impl Terminal {
    fn here(master: OwnedFd) -> io::Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let _peer = sys::open_terminal_peer(master.as_fd())?;
        Ok(Terminal::Here { master: master.into(), _peer })
    }

    pub(crate) fn master(&self) -> Option<&File> {
        match self {
            Terminal::Here { master, .. } => Some(master),
            _ => None,
        }
    }
}

/// Made if missing, and both its ends opened: it then never shows an end of file, and nobody who opens one end waits for the other.
fn fifo(path: &Path) -> io::Result<File> {
    match nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e.into()),
    }
    File::options().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

impl Stdio {
    /// For a container that is yet to be started; `None` = nobody hears it. The log is opened when the container is on its way.
    pub(crate) fn make(folder: &Path, wanted: &container::Stdio) -> io::Result<Option<Self>> {
        let Some(log) = wanted.log() else { return Ok(None) };
        let mut made = Self::open(folder, log)?;
        if let container::Stdio::Talk(talk) = wanted {
            let name = match talk.stdin {
                _ if talk.terminal => None,
                Stdin::None => None,
                Stdin::Open => Some(IN),
                Stdin::Once => Some(IN_ONCE),
            };
            made.input = name.map(|name| Input::open(folder, name)).transpose()?;
            if talk.terminal {
                let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
                made.terminal = Terminal::Awaited { ours, theirs: Some(theirs) };
            }
        }
        Ok(Some(made))
    }

    /// Of a container that another worker has started: what has a name is opened anew, the rest is among what the guard kept.
    pub(crate) fn recover(folder: &Path, log: &Log, id: &str, kept: &mut Kept) -> io::Result<Self> {
        let mut found = Self::open(folder, log)?;
        let _ = found.reopen_log(); // tried again when there is something to write
        for name in [IN, IN_ONCE] {
            if folder.join(name).exists() {
                found.input = Some(Input::open(folder, name)?);
            }
        }
        for (name, fds) in kept.take_of(id) {
            let mut fds = fds.into_iter();
            match (name.strip_prefix(CLIENT).and_then(|n| n.parse().ok()), fds.next(), fds.next()) {
                (Some(number), Some(out), Some(err)) => found.audience.0.push(Attachment::new(number, out, err)),
                (None, Some(master), None) if name == TERMINAL => found.terminal = Terminal::here(master)?,
                _ => {}
            }
        }
        Ok(found)
    }

    fn open(folder: &Path, log: &Log) -> io::Result<Self> {
        Ok(Self {
            out: fifo(&folder.join(OUT))?,
            err: fifo(&folder.join(ERR))?,
            terminal: Terminal::None,
            audience: Audience::default(),
            input: None,
            file: LogFile::new(log.clone()),
        })
    }

    /// The child's end of the socket its terminal comes by.
    pub(crate) fn console_for_child(&mut self) -> Option<OwnedFd> {
        match &mut self.terminal {
            Terminal::Awaited { theirs, .. } => theirs.take(),
            _ => None,
        }
    }

    /// The stages have ended well, so the terminal is in the socket, if there is to be one.
    pub(crate) fn take_terminal(&mut self) -> io::Result<()> {
        if let Terminal::Awaited { ours, .. } = &self.terminal {
            let master = session::receive_terminal(ours)?;
            self.terminal = Terminal::here(master)?;
        }
        Ok(())
    }

    /// All that the guard is to keep: key, descriptors.
    pub(crate) fn kept(&self, id: &str) -> Vec<(String, Vec<RawFd>)> {
        let mut all = vec![(id.to_owned(), self.fifos())];
        if let Some(master) = self.terminal.master() {
            all.push((key(id, TERMINAL), vec![master.as_raw_fd()]));
        }
        all.extend(self.audience.0.iter().map(|a| (client_key(id, a.number), a.raw().to_vec())));
        all
    }

    pub(crate) fn fifos(&self) -> Vec<RawFd> {
        let input = self.input.as_ref().map(|i| i.fifo.as_raw_fd());
        [self.out.as_raw_fd(), self.err.as_raw_fd()].into_iter().chain(input).collect()
    }

    /// The same for a guard that was a worker.
    pub(crate) fn into_kept(self, id: &str, kept: &mut Kept) {
        let input = self.input.map(|i| i.fifo.into());
        kept.insert(id.to_owned(), [self.out.into(), self.err.into()].into_iter().chain(input).collect());
        if let Terminal::Here { master, .. } = self.terminal {
            kept.insert(key(id, TERMINAL), vec![master.into()]);
        }
        for client in self.audience.0 {
            kept.insert(client_key(id, client.number), client.into_pipes());
        }
    }

    pub(crate) fn reopen_log(&mut self) -> io::Result<()> {
        self.file.reopen()
    }

    /// Reads what there is, but no further than clients can follow. True = there may be more.
    pub(crate) fn pump(&mut self, buffer: &mut [u8; CHUNK_BYTES], journal: &Journal) -> bool {
        self.pump_while(buffer, journal, |audience, _| !audience.waits())
    }

    /// Everything that is there at the container's end. Who lives on and goes on writing is not waited for: false = somebody does.
    pub(crate) fn drain(&mut self, buffer: &mut [u8; CHUNK_BYTES], journal: &Journal) -> bool {
        self.drain_within(REST_BYTES_MAX, buffer, journal)
    }

    fn drain_within(&mut self, mut left: usize, buffer: &mut [u8; CHUNK_BYTES], journal: &Journal) -> bool {
        let mut more = true;
        while more && left > 0 {
            more = self.pump_while(buffer, journal, |_, taken| {
                left = left.saturating_sub(taken);
                left > 0
            });
        }
        (self.input, self.terminal) = (None, Terminal::None);
        !more
    }

    fn pump_while(
        &mut self,
        buffer: &mut [u8; CHUNK_BYTES],
        journal: &Journal,
        mut go_on: impl FnMut(&Audience, usize) -> bool,
    ) -> bool {
        let now = super::record::now_ns();
        let said = self.terminal.master().is_some_and(|master| forward(master, &mut self.out, buffer));
        let audience = &mut self.audience;
        let mut more = said;
        for (fifo, stream) in [(&mut self.out, Stream::Stdout), (&mut self.err, Stream::Stderr)] {
            more |= go_on(audience, 0)
                && self.file.pump(fifo, stream, now, buffer, journal, &mut |chunk| {
                    audience.copy(stream, chunk);
                    go_on(audience, chunk.len())
                });
        }
        more
    }

    /// Who went or was too slow is let go: their numbers.
    pub(crate) fn drop_over(&mut self, now: std::time::Instant) -> Vec<u64> {
        self.audience.take_over(now).into_iter().map(|client| client.number).collect()
    }

    /// One more client. `stdin` is handed over at most once where it is to end with its first holder: the guard must be told then.
    pub(crate) fn attach(
        &mut self,
        asked: &WantedAttach<'_>,
        number: u64,
        fds: Vec<OwnedFd>,
    ) -> Result<Attached, Failure> {
        let refused = |kind, text: String| Failure::new(kind, format!("attach to {}: {text}", asked.id));
        let Ok([socket, out, err]) = <[OwnedFd; 3]>::try_from(fds) else {
            return Err(refused(FailureKind::Invalid, "three descriptors must come with it".into()));
        };
        if self.audience.0.len() >= ATTACHED_MAX {
            return Err(refused(FailureKind::Limit, format!("{ATTACHED_MAX} clients are attached already")));
        }
        let told = |e: io::Error| refused(FailureKind::Stage, e.to_string());
        for pipe in [&out, &err] {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| told(e.into()))?;
        }
        let mut given = Attached::default();
        let hand_over = |fd: &OwnedFd| descriptors::send(&socket, b"!", &[fd.as_fd()]).map_err(|e| told(e.into()));
        if let Some(master) = self.terminal.master() {
            hand_over(&master.as_fd().try_clone_to_owned().map_err(told)?)?;
            given = Attached { input: true, terminal: true };
        } else if let (Some(input), true) = (&self.input, asked.stdin) {
            hand_over(&input.writer().map_err(told)?)?;
            given.input = true;
            if input.once {
                // Its end is the program's end of input, so nobody else may hold one, nor open another.
                std::fs::remove_file(&input.path).map_err(told)?;
                self.input = None;
            }
        }
        self.audience.0.push(Attachment::new(number, out, err));
        Ok(given)
    }
}

pub(crate) fn client_key(id: &str, number: u64) -> String {
    key(id, &format!("{CLIENT}{number}"))
}

impl Input {
    fn open(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        Ok(Self { fifo: fifo(&path)?, once: name == IN_ONCE, path })
    }

    /// Cannot wait: we are a reader.
    fn writer(&self) -> io::Result<OwnedFd> {
        Ok(File::options().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&self.path)?.into())
    }
}

/// What the terminal has said goes on into the FIFO; true = something did. A full FIFO leaves it where it is.
fn forward(master: &File, fifo: &mut File, buffer: &mut [u8; CHUNK_BYTES]) -> bool {
    match sys::splice_into(master.as_fd(), fifo.as_fd(), buffer.len()) {
        Ok(count) => count > 0,
        // Kernels before 5.11 cannot splice from a terminal: by hand, no more than a FIFO takes whole (PIPE_BUF).
        Err(Errno::EINVAL) => {
            const PIECE_BYTES: usize = 4096;
            let mut master = master;
            let piece = buffer.get_mut(..PIECE_BYTES).unwrap_or_default();
            match master.read(piece) {
                Ok(count) => count > 0 && fifo.write_all(piece.get(..count).unwrap_or_default()).is_ok(),
                Err(_) => false,
            }
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_log_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, mut buffer) = (Journal::open(dir.path()).unwrap(), [0; CHUNK_BYTES]);
        let log = Log { path: dir.path().join("log"), ..Log::default() };
        let mut stdio = Stdio::open(dir.path(), &log).unwrap();
        let (bound, all) = (CHUNK_BYTES, 3 * CHUNK_BYTES); // a FIFO holds four
        stdio.out.write_all(&vec![b'x'; all]).unwrap();
        let written = || std::fs::read(&log.path).unwrap().iter().filter(|b| **b == b'x').count();
        assert!(!stdio.drain_within(bound, &mut buffer, &journal), "there is more");
        assert_eq!(written(), bound);
        assert!(stdio.drain(&mut buffer, &journal), "that was all");
        assert_eq!(written(), all);
    }
}
