//! The keeper: one small single-threaded process per node, parent of all its containers.
//!
//! It clones, reaps, writes CRI log files and answers on one Unix socket. Agent and keeper may each die or be replaced at any
//! moment: what the keeper knows is in `<dir>` (a tmpfs under /run), and containers hold their log FIFOs open for themselves.
//!
//! A keeper is two processes, `guard` and worker; `server` is the worker's loop, `journal` what is on its way from FIFO to log, `held` one
//! container, `sandbox` a pod's namespaces, `exec` a process inside, [`session`] the client's ends of one, `log` the CRI files, `line` one line in them, `record` what
//! survives on the tmpfs, `kept` what survives in the guard, `exits` how strangers end, `witness` what an agent may keep, `stdio` what the first process reads and writes, `attach` who listens, `removal` a container on its way out, `clients` the sockets, [`protocol`] the bytes on them.
//!
//! Memory: a turn of the loop (logs, ends, attached clients) and short requests use none of the heap. What describes something (Start, Sandbox, Exec,
//! Session, Update, the answer to List) is of any length up to a frame, [`protocol::FRAME_BYTES_MAX`], so it is on the heap by nature: one at a time,
//! a few times its frame, freed when it is answered (after a Start to the kernel, too). Per container there stays its record (id, labels, paths).

mod attach;
mod client;
mod clients;
mod exec;
mod exits;
mod guard;
mod held;
mod journal;
mod kept;
mod line;
mod log;
pub mod protocol;
mod record;
mod removal;
mod rundir;
mod sandbox;
mod server;
pub mod session;
mod stdio;
mod witness;

pub use client::Client;
pub use rundir::RunDir;
pub use witness::Witness;

use crate::cgroup::{self, Layout};
use crate::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::{Failure, FailureKind, Reply, Request};
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Socket inside the keeper's folder.
pub const SOCKET: &str = "keeper.sock";
/// What its process is called.
const NAME: &str = "mote-keeper";
/// What the keeper has to say to people, inside its folder.
pub const LOG: &str = "keeper.log";

/// Starts `exe keeper --dir DIR` as a daemon and waits until it answers, or finds one that already does. Returns its pid. May be
/// called from a threaded program.
///
/// # Errors
/// What the child said on stderr, when it ends before it listens.
pub fn spawn(exe: &Path, dir: &Path) -> io::Result<i32> {
    match greet(dir) {
        Ok((pid, build)) if build == env!("CARGO_PKG_VERSION") => return Ok(pid),
        // Another build's: containers stay, the binary goes.
        Ok(_) => return replace(exe, dir),
        Err(failure) if failure.kind == FailureKind::Version => return replace(exe, dir),
        Err(_) => {}
    }
    daemon(exe, dir)
}

fn daemon(exe: &Path, dir: &Path) -> io::Result<i32> {
    let said = Command::new(exe).arg("keeper").arg("--dir").arg(dir).stdin(Stdio::null()).output()?;
    match hello(dir) {
        Ok(pid) => Ok(pid),
        Err(_) if !said.status.success() => {
            Err(io::Error::other(String::from_utf8_lossy(&said.stderr).trim().to_owned()))
        }
        Err(e) => Err(e),
    }
}

/// Pid of the keeper that answers in `dir`.
pub fn hello(dir: &Path) -> io::Result<i32> {
    greet(dir).map(|(pid, _)| pid).map_err(io::Error::other)
}

/// Pid and build.
fn greet(dir: &Path) -> Result<(i32, String), Failure> {
    let lost = |e: io::Error| Failure::new(FailureKind::Limit, format!("reach keeper: {e}"));
    match Client::connect(dir).map_err(lost)?.call(Request::Hello { events: false })? {
        Reply::Hello { pid, build, .. } => Ok((pid, build)),
        _ => Err(Failure::new(FailureKind::Invalid, "keeper: unexpected answer")),
    }
}

/// Environment variable by which a guard hands its descriptors to the newer binary it becomes.
const RESUME: &str = "MOTE_KEEPER_RESUME";
/// Its value when only an exit code is wanted.
const PROBE: &str = "probe";
/// Longest wait for another keeper to answer.
const REPLACE_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// Makes the keeper of `dir` become `exe`, whatever protocol either speaks: containers, logs and exit codes are kept. Returns the pid that
/// answers afterwards.
///
/// # Errors
/// No keeper there, or `exe` is not one: the old keeper then goes on.
pub fn replace(exe: &Path, dir: &Path) -> io::Result<i32> {
    let dir = RunDir::new(dir);
    let pid = || std::fs::read_to_string(dir.pid()).ok().and_then(|t| t.parse::<i32>().ok()).filter(|p| *p > 1);
    let Some(old) = pid() else { return succeed(exe, &dir) };
    std::fs::write(dir.upgrade(), exe.as_os_str().as_encoded_bytes())?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGHUP)?;
    let until = std::time::Instant::now() + REPLACE_WAIT_MAX;
    while pid().is_none_or(|now| now == old) {
        if std::time::Instant::now() > until {
            return Err(io::Error::other(format!("replace keeper: {old} goes on")));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    hello(dir.path())
}

/// A keeper of protocol 1 is a single process, which cannot become another: it is ended, and its containers are adopted by their records, whose
/// format is the same. Their ends are a stranger's then.
fn succeed(exe: &Path, dir: &RunDir) -> io::Result<i32> {
    let stream = UnixStream::connect(dir.socket())
        .map_err(|e| io::Error::other(format!("replace keeper: none is running ({e})")))?;
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)?;
    let pidfd = sys::pidfd_open(peer.pid())?;
    let name = std::fs::read_to_string(format!("/proc/{}/comm", peer.pid())).unwrap_or_default();
    if name.trim() != NAME {
        let text =
            format!("replace keeper: {} is {:?}: end it with the executable that started it", peer.pid(), name.trim());
        return Err(io::Error::other(text));
    }
    sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL)?;
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let wait = PollTimeout::try_from(REPLACE_WAIT_MAX).unwrap_or(PollTimeout::MAX);
    if poll(&mut fds, wait)? == 0 {
        return Err(io::Error::other(format!("replace keeper: {} does not end", peer.pid())));
    }
    daemon(exe, dir.path())
}

/// The hidden subcommand `keeper --dir DIR`: becomes a daemon and runs until [`protocol::Request::Shutdown`]. The process that was
/// started returns as soon as the daemon listens.
pub fn main(dir: &Path) -> ExitCode {
    let resume = std::env::var(RESUME).ok();
    if resume.as_deref() == Some(PROBE) {
        return ExitCode::SUCCESS;
    }
    match resume.map_or_else(|| start(dir), |fds| resume_at(dir, &fds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain!("keeper {}: {e}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn start(dir: &Path) -> io::Result<()> {
    sys::close_from(3);
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let dir = RunDir::new(std::fs::canonicalize(dir)?);
    let _lock = lock(&dir)?;
    let (mut ready, mut tell) = io::pipe()?;
    if !sys::fork()? {
        drop(tell);
        let mut said = String::new();
        ready.read_to_string(&mut said)?;
        return if said == "ok" { Ok(()) } else { Err(io::Error::other(said)) };
    }
    drop(ready);
    match become_daemon(&dir) {
        Ok(listener) => {
            let _ = tell.write_all(b"ok"); // the starter is gone: nobody to tell
            drop(tell);
            keep(&dir, guard::Pair::new(dir.clone(), listener))
        }
        Err(e) => {
            let _ = tell.write_all(e.to_string().as_bytes());
            Ok(())
        }
    }
}

/// In the guard's place after its exec: a daemon already, with the containers as its children.
fn resume_at(dir: &Path, fds: &str) -> io::Result<()> {
    let dir = RunDir::new(std::fs::canonicalize(dir)?);
    let pair = guard::resumed(dir.clone(), fds)?;
    let _lock = lock(&dir)?;
    keep(&dir, pair)
}

fn keep(dir: &RunDir, pair: guard::Pair) -> io::Result<()> {
    crate::print::standard_error_is_our_log();
    pair.run()?;
    let _ = std::fs::remove_file(dir.socket());
    Ok(())
}

/// Kept open, so locked, as long as we live; a second keeper is refused.
fn lock(dir: &RunDir) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.lock())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(io::Error::other("another keeper holds this folder")),
    }
}

fn become_daemon(dir: &RunDir) -> io::Result<UnixListener> {
    nix::unistd::setsid()?;
    std::env::set_current_dir("/")?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let _ = nix::sys::prctl::set_name(c"mote-keeper");
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    cgroup::enter_root(&Layout::discover());
    // Lowering it needs CAP_SYS_RESOURCE; without it we are an ordinary victim.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let log = File::options().create(true).append(true).open(dir.path().join(LOG))?;
    log.set_len(0)?;
    nix::unistd::dup2_stdin(null.as_fd())?;
    nix::unistd::dup2_stdout(null.as_fd())?;
    nix::unistd::dup2_stderr(log.as_fd())?;
    let socket = dir.socket();
    match std::fs::remove_file(&socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub(crate) use record::start_time;

/// RFC 3339 with nanoseconds.
pub(crate) fn timestamp_now() -> String {
    line::timestamp(record::now_ns()).as_str().to_owned()
}

/// Wait status -> what a shell would say.
pub(crate) fn exit_code(status: i32) -> i32 {
    protocol::Exit::of(status).code
}
