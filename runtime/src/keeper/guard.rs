//! Two processes, each of which may be killed: the worker runs the loop and is the parent of the containers; the guard is the worker's parent,
//! does nothing, and inherits the containers when the worker dies.
//!
//! - The worker dies: its children become the guard's (a subreaper), which notes their exit statuses, holds their log FIFOs open, and forks
//!   another worker, which reads the run folder.
//! - The guard dies: the worker hears of it (PR_SET_PDEATHSIG), forks, and is the guard of the child, which goes on with all of its memory and
//!   connections.
//! - Both die before the other can fork, or first the worker of a container and later the guard that took it over: the kernel gives what they had
//!   to init, for nobody can be put above a process that runs already. The containers go on; their statuses are a stranger's: told by pidfd on
//!   kernels from 6.15 on, by the process connector ([`super::exits`]) on older ones. What ends while neither is there at all is told by
//!   pidfd to who has kept one ([`super::Witness`], the agent; from 6.15 on); before that, the exit's note says that its status is lost.
//! - The worker ends for an upgrade: the guard executes the newer binary in place, so the containers stay its children.
//!
//! Guard and worker share a socket: the worker hands over copies of descriptors ([`Kept`]: FIFOs, terminals, clients' pipes), which are safe once
//! sent, and which the next worker inherits.

use super::kept::{Guard, Kept};
use super::record;
use super::rundir::RunDir;
use super::server::{Outcome, Server};
use crate::cgroup::Layout;
use crate::sys::{self, Ended};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The worker's exit code when a newer binary is to go on.
const UPGRADE_CODE: i32 = 77;
/// A worker that lives shorter is not started again at once.
const SHORT_LIFE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(5);

enum Role {
    Guard { worker: Pid, socket: OwnedFd, born: Instant },
    Worker(Box<Server>),
}

/// Runs as guard and forks workers, until one of them was told to end.
pub(crate) struct Pair {
    dir: RunDir,
    listener: UnixListener,
    kept: Kept,
    pause: Duration,
}

impl Pair {
    pub(crate) fn new(dir: RunDir, listener: UnixListener) -> Self {
        Self { dir, listener, kept: Kept::default(), pause: Duration::ZERO }
    }

    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut role = self.fork(None)?;
        loop {
            role = match role {
                Role::Worker(mut server) => match server.run()? {
                    Outcome::Shutdown => self.end(),
                    Outcome::Upgrade => sys::exit_now(UPGRADE_CODE),
                    Outcome::Orphaned => self.fork(Some(server))?,
                },
                Role::Guard { worker, socket, born } => match self.watch(worker, &socket)? {
                    0 => return Ok(()),
                    status => {
                        self.kept.receive(&socket);
                        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == UPGRADE_CODE {
                            self.upgrade();
                        } else {
                            self.rest(born, status);
                        }
                        self.fork(None)?
                    }
                },
            };
        }
    }

    /// The child is the worker: with `server` it goes on as what we were until now, without it reads the run folder anew.
    fn fork(&mut self, server: Option<Box<Server>>) -> io::Result<Role> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let guard = std::process::id() as i32;
        match sys::fork_pid()? {
            None => {
                drop(ours);
                let kept = std::mem::take(&mut self.kept);
                nix::sys::prctl::set_child_subreaper(true)?;
                nix::sys::prctl::set_name(c"mote-keeper")?;
                sys::tell_parent_death(libc::SIGUSR2)?;
                if nix::unistd::getppid().as_raw() != guard {
                    return Err(io::Error::other("guard died at once"));
                }
                let link = Guard::new(theirs);
                let server = match server {
                    Some(mut server) => {
                        server.adopted(link);
                        server
                    }
                    None => {
                        let listener = self.listener.try_clone()?;
                        Box::new(Server::new(self.dir.clone(), Layout::discover(), listener, link, kept)?)
                    }
                };
                record::write_pid(self.dir.path());
                Ok(Role::Worker(server))
            }
            Some(worker) => {
                if let Some(server) = server {
                    self.kept = server.into_kept();
                }
                let _ = nix::sys::prctl::set_name(c"mote-guard");
                Ok(Role::Guard { worker: Pid::from_raw(worker), socket: ours, born: Instant::now() })
            }
        }
    }

    /// The worker's last act: the guard and the socket go first, so that whoever waits for the worker finds nothing left.
    fn end(&self) -> ! {
        let _ = std::fs::remove_file(self.dir.socket());
        let guard = nix::unistd::getppid();
        if guard.as_raw() > 1 {
            let _ = nix::sys::signal::kill(guard, Signal::SIGKILL);
        }
        sys::exit_now(0)
    }

    /// Wait status of the worker; until then notes every other child's end and keeps what it is handed.
    fn watch(&mut self, worker: Pid, socket: &OwnedFd) -> io::Result<i32> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.thread_block()?;
        let children = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        loop {
            while let Ok(Some(_)) = children.read_signal() {}
            while let Some(Ended { pid, status }) = sys::peek_ended() {
                if pid != worker.as_raw() {
                    self.note(pid, status);
                }
                sys::reap(pid);
                if pid == worker.as_raw() {
                    return Ok(status);
                }
            }
            let mut fds =
                [PollFd::new(children.as_fd(), PollFlags::POLLIN), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            if !self.kept.receive(socket) {
                // The worker is dead or dying: only its end is of interest now.
                let mut fds = [PollFd::new(children.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(20u16));
            }
        }
    }

    /// Before it is reaped: afterwards its number may be another's.
    fn note(&self, pid: i32, status: i32) {
        let Some(born) = record::start_time(pid) else { return };
        for entry in std::fs::read_dir(self.dir.containers()).into_iter().flatten().flatten() {
            let folder = entry.path();
            if record::read_state(&folder).is_some_and(|r| r.pid == pid && r.start_time == born) {
                if let Err(e) = record::write_status(&folder, status) {
                    complain!("note end of {}: {e}", folder.display());
                }
                return;
            }
        }
    }

    fn rest(&mut self, born: Instant, status: i32) {
        complain!("keeper ended with status {status:#x}: starting another");
        // Killed from without is not the worker's own fault, nor will it be the next one's.
        let killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        self.pause = match born.elapsed() < SHORT_LIFE && !killed {
            true => (self.pause * 2).clamp(Duration::from_millis(1), PAUSE_MAX),
            false => Duration::ZERO,
        };
        if self.pause > Duration::from_millis(8) {
            std::thread::sleep(self.pause);
        }
    }

    /// Becomes the binary named in the folder; comes back when that cannot be.
    fn upgrade(&mut self) {
        let exe = match std::fs::read_to_string(self.dir.upgrade()) {
            Ok(text) => PathBuf::from(text),
            Err(e) => return complain!("read {}: {e}", self.dir.upgrade().display()),
        };
        // A binary that does not even start must not take the guard with it.
        let probe =
            std::process::Command::new(&exe).args(["keeper", "--dir", "/"]).env(super::RESUME, super::PROBE).output();
        if let Some(said) =
            probe.as_ref().map_or_else(|e| Some(e.to_string()), |o| (!o.status.success()).then(|| o.status.to_string()))
        {
            return complain!("upgrade to {}: {said}", exe.display());
        }
        sys::keep_over_exec(self.listener.as_raw_fd());
        let inherited = format!("{},{}", self.listener.as_raw_fd(), self.kept.over_exec());
        let error = std::process::Command::new(&exe)
            .args(["keeper", "--dir"])
            .arg(self.dir.path())
            .env(super::RESUME, inherited)
            .exec();
        complain!("execute {}: {error}", exe.display());
    }
}

/// Goes on after [`Pair::upgrade`] in the older binary, whose words these are.
pub(crate) fn resumed(dir: RunDir, text: &str) -> io::Result<Pair> {
    let mut words = text.split(',');
    let listener = words.next().and_then(|n| n.parse::<RawFd>().ok()).filter(|n| *n > 2).map(sys::received_fd);
    let listener = listener.ok_or_else(|| io::Error::other("resume: no listener"))?;
    let kept = Kept::after_exec(words);
    Ok(Pair { kept, ..Pair::new(dir, UnixListener::from(listener)) })
}
