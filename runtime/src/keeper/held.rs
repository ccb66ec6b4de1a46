//! One container in the keeper's hands, from the clone to its removal.

use super::attach::Attachment;
use super::exec::Place;
use super::exits::Exits;
use super::journal::Journal;
use super::kept::Kept;
use super::line::CHUNK_BYTES;
use super::protocol::{Exit, Failure, FailureKind, Listed, Started, State};
use super::record::{self, Record, now_ns};
use super::rundir::RunDir;
use super::stdio::Stdio;
use crate::cgroup::{self, Layout};
use crate::container::extras::Extras;
use crate::container::{self, Container, NamespaceKind, valid_id};
use crate::stages::report::Heard;
use crate::stages::{self, Launch};
use crate::sys;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Reads of a foreign process's exit status, 2 ms apart, while its parent has not reaped it yet.
const STATUS_TRIES: u32 = 50;

pub(crate) struct Held {
    /// The record's, for who needs it often.
    pub(crate) id: Rc<str>,
    pub(crate) record: Record,
    pub(crate) phase: Phase,
    pub(crate) stdio: Option<Stdio>,
}

pub(crate) enum Phase {
    /// Stages run in the child; whoever asked waits.
    Starting {
        pidfd: OwnedFd,
        report: File,
        heard: Heard,
        asked: (u64, u32),
        child: bool,
    },
    /// `child`: ours to reap; otherwise its exit shows on the pidfd only.
    Running {
        pidfd: OwnedFd,
        child: bool,
    },
    Exited(Exit),
}

impl Held {
    /// Clones the container; what becomes of it is heard later.
    pub(crate) fn start(
        dir: &RunDir,
        layout: &Layout,
        container: &Container,
        asked: (u64, u32),
    ) -> Result<Held, Failure> {
        if !valid_id(&container.id) {
            return Err(Failure::new(FailureKind::Invalid, format!("container id {:?}: invalid", container.id)));
        }
        if container.stdio == container::Stdio::Inherit {
            return Err(Failure::new(FailureKind::Invalid, "the keeper has no stdio to inherit"));
        }
        let folder = dir.container(&container.id);
        match std::fs::create_dir(&folder) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Failure::new(FailureKind::Exists, format!("container {}: exists", container.id)));
            }
            Err(e) => return Err(stage_failure("run folder", format!("make folder {}: {e}", folder.display()))),
        }
        let started = Self::start_in(&folder, dir, layout, container, asked);
        if started.is_err() {
            let _ = std::fs::remove_dir_all(&folder); // the failure itself is what to tell
        }
        started
    }

    fn start_in(
        folder: &Path,
        dir: &RunDir,
        layout: &Layout,
        container: &Container,
        asked: (u64, u32),
    ) -> Result<Held, Failure> {
        let told = |e: io::Error| stage_failure("run folder", format!("prepare {}: {e}", folder.display()));
        let mut record = Record {
            id: container.id.clone(),
            labels: container.labels.clone(),
            pid: 0,
            start_time: 0,
            started_at: now_ns(),
            cgroup: container.cgroup.path.clone(),
            log: container.stdio.log().cloned(),
            sandboxes: sandboxes_of(dir, container),
            own_pids: container.namespaces.iter().any(|n| n.kind == NamespaceKind::Pid && n.path.is_none()),
        };
        record::write_state(folder, &record).map_err(told)?;
        let mut stdio = Stdio::make(folder, &container.stdio).map_err(told)?;
        let console = stdio.as_mut().and_then(Stdio::console_for_child);
        let mut extras = Extras::default();
        extras.process.terminal = console.is_some();
        let plain = Launch::plain(container, folder, layout);
        let launched =
            stages::launch(&Launch { extras: &extras, console: console.as_ref().map(AsFd::as_fd), ..plain })?;
        record.pid = launched.pid;
        record.start_time = record::start_time(launched.pid).unwrap_or_default();
        let written = record::write_state(folder, &record);
        // A disk's folder takes its time, and the container has begun meanwhile.
        let mut open_log = || stdio.as_mut().map_or(Ok(()), Stdio::reopen_log);
        if let Err(e) = written.and_then(|()| open_log()) {
            let _ = sys::pidfd_send_signal(launched.pidfd.as_fd(), libc::SIGKILL);
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(launched.pid), None);
            let _ = cgroup::remove(layout, &record.cgroup);
            return Err(told(e));
        }
        let report = File::from(launched.report);
        let heard = Heard { warnings: launched.warnings, ..Heard::default() };
        Ok(Held {
            id: record.id.as_str().into(),
            record,
            phase: Phase::Starting { pidfd: launched.pidfd, report, heard, asked, child: true },
            stdio,
        })
    }

    /// What the last keeper left in `folder`; `None` = nothing that counts, and it is cleaned away. True = it is dead and its end is yet to be
    /// written down.
    pub(crate) fn recover(folder: &Path, layout: &Layout, kept: &mut Kept) -> Option<(Held, bool)> {
        let Some(record) = record::read_state(folder) else {
            let _ = std::fs::remove_dir_all(folder);
            return None;
        };
        if record.pid == 0 {
            // Died between intent and clone, or right after it: whoever asked got no answer.
            if !record.cgroup.is_empty() {
                let _ = cgroup::remove(layout, &record.cgroup);
            }
            let _ = std::fs::remove_dir_all(folder);
            return None;
        }
        if let Some(exit) = record::read_exit(folder) {
            return Some((
                Held { id: record.id.as_str().into(), record, phase: Phase::Exited(exit), stdio: None },
                false,
            ));
        }
        let stdio = record.log.as_ref().and_then(|log| Stdio::recover(folder, log, &record.id, kept).ok());
        let alive =
            sys::pidfd_open(record.pid).ok().filter(|_| record::start_time(record.pid) == Some(record.start_time));
        Some(match alive {
            Some(pidfd) => (
                Held { id: record.id.as_str().into(), record, phase: Phase::Running { pidfd, child: false }, stdio },
                false,
            ),
            None => {
                (Held { id: record.id.as_str().into(), record, phase: Phase::Exited(Exit::default()), stdio }, true)
            }
        })
    }

    /// Reads the report; `Some` once the stages have ended.
    pub(crate) fn listen(&mut self) -> Option<((u64, u32), Result<Started, Failure>)> {
        let Phase::Starting { report, heard, .. } = &mut self.phase else { return None };
        let mut buffer = [0u8; 4096];
        loop {
            match report.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    heard.push(buffer.get(..count).unwrap_or_default());
                    return None; // poll says when there is more, or the end
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.finish_start()
    }

    /// The child is dead or has become the program: to the end of the report, then the verdict.
    pub(crate) fn finish_start(&mut self) -> Option<((u64, u32), Result<Started, Failure>)> {
        let placeholder = Phase::Exited(Exit::default());
        let Phase::Starting { pidfd, mut report, mut heard, asked, child } =
            std::mem::replace(&mut self.phase, placeholder)
        else {
            return None;
        };
        let mut rest = Vec::new();
        let _ = report.read_to_end(&mut rest); // at its end already, or the child is dead
        heard.push(&rest);
        self.phase = Phase::Running { pidfd, child };
        let mut finished = heard.finish();
        if let (Ok(warnings), Some(stdio)) = (&mut finished, &mut self.stdio)
            && let Err(e) = stdio.take_terminal()
        {
            warnings.push(format!("terminal: {e}")); // it has one, and nobody to talk to it
        }
        let started = finished.map(|warnings| Started {
            pid: self.record.pid,
            start_time: self.record.start_time,
            started_at: self.record.started_at,
            warnings,
        });
        Some((asked, started))
    }

    /// Where an exec goes.
    pub(crate) fn exec_place<'a>(&'a self, layout: &'a Layout) -> Result<Place<'a>, Failure> {
        match &self.phase {
            Phase::Running { pidfd, .. } => Ok(Place { layout, target: pidfd, cgroup: &self.record.cgroup }),
            _ => {
                let text = format!("container {}: is not running", self.record.id);
                Err(Failure::new(FailureKind::Busy, text))
            }
        }
    }

    pub(crate) fn attached(&self) -> impl Iterator<Item = &Attachment> {
        self.stdio.iter().flat_map(|stdio| &stdio.audience.0)
    }

    pub(crate) fn has_terminal(&self) -> bool {
        self.stdio.as_ref().is_some_and(|stdio| stdio.terminal.master().is_some())
    }

    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        match &self.phase {
            Phase::Starting { pidfd, .. } | Phase::Running { pidfd, .. } => Some(pidfd),
            Phase::Exited(_) => None,
        }
    }

    /// The exit, in memory and on file; output is drained first, so that an event never overtakes a line. Who is attached is yet to be let go.
    pub(crate) fn end(
        &mut self,
        folder: &Path,
        layout: &Layout,
        status: Option<i32>,
        buffer: &mut [u8; CHUNK_BYTES],
        journal: &Journal,
    ) -> Exit {
        if !self.record.own_pids && !self.record.cgroup.is_empty() {
            let _ = cgroup::signal_all(layout, &self.record.cgroup, libc::SIGKILL); // what it left behind
        }
        if self.stdio.as_mut().is_some_and(|stdio| !stdio.drain(buffer, journal)) {
            complain!("log of {}: it has ended, and somebody goes on writing", self.record.id);
        }
        let told = status.map_or_else(lost, Exit::of);
        let oom_killed =
            !self.record.cgroup.is_empty() && cgroup::oom_kills(layout, &self.record.cgroup) > 0 && told.code != 0;
        let exit = Exit { oom_killed, finished_at: now_ns(), ..told };
        if let Err(e) = record::write_exit(folder, &exit) {
            complain!("write exit record of {}: {e}", self.record.id);
        }
        self.phase = Phase::Exited(exit.clone());
        exit
    }

    /// Wait status of a process that somebody else reaps: our guard, who writes it down first, or init.
    pub(crate) fn foreign_status(&self, folder: &Path, exits: &mut Exits) -> Option<i32> {
        let mut told = |pidfd: &OwnedFd| {
            record::read_status(folder)
                .or_else(|| exits.status(self.record.pid))
                .or_else(|| record::zombie_status(self.record.pid, self.record.start_time))
                .or_else(|| sys::pidfd_exit_status(pidfd.as_fd()))
        };
        let pidfd = self.pidfd()?;
        for _ in 0..STATUS_TRIES {
            if let Some(status) = told(pidfd) {
                return Some(status);
            }
            if sys::pidfd_send_signal(pidfd.as_fd(), 0).is_err() {
                break; // reaped; a guard has written by now
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        told(pidfd)
    }

    pub(crate) fn listed(&self) -> Listed {
        Listed {
            id: self.record.id.clone(),
            labels: self.record.labels.clone(),
            pid: self.record.pid,
            start_time: self.record.start_time,
            started_at: self.record.started_at,
            state: match &self.phase {
                Phase::Starting { .. } => State::Starting,
                Phase::Running { .. } => State::Running,
                Phase::Exited(exit) => State::Exited(exit.clone()),
            },
        }
    }
}

fn stage_failure(stage: &str, message: String) -> Failure {
    Failure { stage: stage.into(), ..Failure::new(FailureKind::Stage, message) }
}

fn sandboxes_of(dir: &RunDir, container: &Container) -> Vec<String> {
    let all = dir.sandboxes();
    let paths = container.namespaces.iter().filter_map(|n| n.path.as_ref());
    let names = paths.filter_map(|p| p.strip_prefix(&all).ok()?.components().next()?.as_os_str().to_str());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

fn lost() -> Exit {
    let note = "exit status lost: the container ended while no keeper was running".to_owned();
    Exit { code: 255, note, ..Exit::default() }
}
