//! A process inside a running container on behalf of a client: probes, hooks.

use super::held::decode_status;
use super::protocol::{EXEC_OUTPUT_BYTES_MAX, Exec, ExecResult, Failure, Reply};
use crate::cgroup::Layout;
use crate::stages::report::Heard;
use crate::stages::{self, Enter};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const TIMEOUT_MS: u32 = 10_000;

pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) container: String,
    pub(crate) asked: (u64, u32),
    pub(crate) output: File,
    pub(crate) report: Option<File>,
    pub(crate) deadline: Instant,
    pidfd: OwnedFd,
    heard: Heard,
    kept: Vec<u8>,
    kept_max: usize,
    truncated: bool,
    timed_out: bool,
}

impl Running {
    pub(crate) fn start(
        layout: &Layout,
        exec: &Exec,
        target: &OwnedFd,
        cgroup: &str,
        asked: (u64, u32),
    ) -> Result<Self, Failure> {
        let made = nix::unistd::pipe2(OFlag::O_CLOEXEC)
            .and_then(|(read, write)| fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(|_| (read, write)));
        let (output, write) =
            made.map_err(|e: Errno| Failure::new(super::protocol::FailureKind::Limit, format!("make pipe: {e}")))?;
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| Failure::new(super::protocol::FailureKind::Stage, format!("open /dev/null: {e}")))?;
        let stdio = Some([null.as_fd(), write.as_fd(), write.as_fd()]);
        let extras = &stages::NO_EXTRAS;
        let enter = Enter { process: &exec.process, cgroup, layout, target, stdio, extras, console: None };
        let launched = stages::enter(&enter)?;
        let timeout = if exec.timeout_ms == 0 { TIMEOUT_MS } else { exec.timeout_ms };
        Ok(Self {
            pid: launched.pid,
            container: exec.id.clone(),
            asked,
            output: output.into(),
            report: Some(launched.report.into()),
            deadline: Instant::now() + Duration::from_millis(u64::from(timeout)),
            pidfd: launched.pidfd,
            heard: Heard::default(),
            kept: Vec::new(),
            kept_max: exec.output_bytes_max.min(EXEC_OUTPUT_BYTES_MAX) as usize,
            truncated: false,
            timed_out: false,
        })
    }

    /// Reads what is there; beyond the limit it is dropped, so that the process never blocks on us.
    pub(crate) fn pump(&mut self, buffer: &mut [u8]) {
        for _ in 0..64 {
            match self.output.read(buffer) {
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
        self.deadline = Instant::now() + Duration::from_secs(3600);
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
        let (code, ..) = decode_status(status);
        Reply::Exec(ExecResult { code, output: self.kept, truncated: self.truncated, timed_out: self.timed_out })
    }
}
