//! A process inside a running container on behalf of a client: probes and hooks, whose output the keeper holds, and sessions, which talk
//! to the client on descriptors of its own.

use super::protocol::{EXEC_OUTPUT_BYTES_MAX, Exec, ExecResult, Exit, Failure, FailureKind, Reply, Session};
use crate::cgroup::Layout;
use crate::container::Process;
use crate::container::extras::Extras;
use crate::stages::report::Heard;
use crate::stages::{self, Enter};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

const TIMEOUT_MS: u32 = 10_000;

pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) container: String,
    pub(crate) asked: (u64, u32),
    /// What is kept of its output comes here; a session's goes elsewhere.
    pub(crate) output: Option<File>,
    pub(crate) report: Option<File>,
    pub(crate) deadline: Option<Instant>,
    pidfd: OwnedFd,
    heard: Heard,
    kept: Vec<u8>,
    kept_max: usize,
    truncated: bool,
    timed_out: bool,
}

/// The container an exec goes into.
pub(crate) struct Place<'a> {
    pub(crate) layout: &'a Layout,
    /// Its first process.
    pub(crate) target: &'a OwnedFd,
    pub(crate) cgroup: &'a str,
}

impl Running {
    /// With its output kept, and an end.
    pub(crate) fn start(place: &Place<'_>, exec: &Exec, asked: (u64, u32)) -> Result<Self, Failure> {
        let made = nix::unistd::pipe2(OFlag::O_CLOEXEC)
            .and_then(|(read, write)| fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(|_| (read, write)));
        let (output, write) = made.map_err(|e: Errno| Failure::new(FailureKind::Limit, format!("make pipe: {e}")))?;
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| Failure::new(FailureKind::Stage, format!("open /dev/null: {e}")))?;
        let stdio = Some([null.as_fd(), write.as_fd(), write.as_fd()]);
        let mut run = Self::enter(place, &exec.process, &exec.id, asked, stdio, &stages::NO_EXTRAS, None)?;
        let timeout = if exec.timeout_ms == 0 { TIMEOUT_MS } else { exec.timeout_ms };
        run.output = Some(output.into());
        run.deadline = Some(Instant::now() + Duration::from_millis(u64::from(timeout)));
        run.kept_max = exec.output_bytes_max.min(EXEC_OUTPUT_BYTES_MAX) as usize;
        Ok(run)
    }

    /// On the client's own descriptors, as long as it takes.
    pub(crate) fn attend(
        place: &Place<'_>,
        session: &Session,
        descriptors: &[OwnedFd],
        asked: (u64, u32),
    ) -> Result<Self, Failure> {
        let mut extras = Extras::default();
        extras.process.terminal = session.terminal;
        let (stdio, console) = match (session.terminal, descriptors) {
            (true, [console]) => (None, Some(console.as_fd())),
            (false, [stdin, stdout, stderr]) => (Some([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]), None),
            (_, others) => {
                let text = format!("exec in {}: came with {} descriptors", session.id, others.len());
                return Err(Failure::new(FailureKind::Invalid, text));
            }
        };
        Self::enter(place, &session.process, &session.id, asked, stdio, &extras, console)
    }

    fn enter(
        place: &Place<'_>,
        process: &Process,
        container: &str,
        asked: (u64, u32),
        stdio: Option<[BorrowedFd<'_>; 3]>,
        extras: &Extras,
        console: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Failure> {
        let Place { layout, target, cgroup } = *place;
        let launched = stages::enter(&Enter { process, cgroup, layout, target, stdio, extras, console })?;
        Ok(Self {
            pid: launched.pid,
            container: container.to_owned(),
            asked,
            output: None,
            report: Some(launched.report.into()),
            deadline: None,
            pidfd: launched.pidfd,
            heard: Heard::default(),
            kept: Vec::new(),
            kept_max: 0,
            truncated: false,
            timed_out: false,
        })
    }

    /// Reads what is there; beyond the limit it is dropped, so that the process never blocks on us.
    pub(crate) fn pump(&mut self, buffer: &mut [u8]) {
        let Some(output) = &mut self.output else { return };
        for _ in 0..64 {
            match output.read(buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let room = self.kept_max.saturating_sub(self.kept.len()).min(count);
                    self.kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
                    self.truncated |= room < count;
                }
            }
        }
    }

    pub(crate) fn listen(&mut self) {
        let Some(report) = &mut self.report else { return };
        let mut buffer = [0u8; 2048];
        match report.read(&mut buffer) {
            Ok(count) if count > 0 => self.heard.push(buffer.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => self.report = None,
        }
    }

    /// Past the deadline: everything in its session's process group dies; the reaping answers the client.
    pub(crate) fn expire(&mut self) {
        self.timed_out = true;
        self.deadline = None;
        let _ = kill(Pid::from_raw(-self.pid), Signal::SIGKILL); // ESRCH: it has not got to setsid yet
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }

    pub(crate) fn end(mut self, status: i32, buffer: &mut [u8]) -> Reply {
        while self.report.is_some() {
            self.listen();
        }
        self.pump(buffer);
        if let (Some(failure), false) = (self.heard.failure, self.timed_out) {
            return Reply::Failed(failure);
        }
        let Exit { code, .. } = Exit::of(status);
        Reply::Exec(ExecResult { code, output: self.kept, truncated: self.truncated, timed_out: self.timed_out })
    }
}
