//! The keeper's loop: one poll over listener, clients, SIGCHLD, reports, logs and adopted processes. Idle it sleeps for ever.

mod requests;

use super::clients::Clients;
use super::exec;
use super::guard::{Fifos, Guard, UNCLAIMED};
use super::held::{Held, Phase};
use super::journal::Journal;
use super::log::CHUNK_BYTES;
use super::protocol::{Call, Event, Exit, Failure, FailureKind, Reply};
use super::removal::Removal;
use super::rundir::RunDir;
use crate::cgroup::Layout;
use crate::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

pub(crate) const CONTAINERS_MAX: usize = 2048;
pub(crate) const EXECS_MAX: usize = 256;

/// What a ready descriptor stands for.
enum Source {
    Listener,
    Children,
    Client(u64),
    Report(String),
    Log(String),
    Adopted(String),
    ExecOutput(i32),
    ExecReport(i32),
}

pub(crate) struct Server {
    dir: RunDir,
    layout: Layout,
    listener: UnixListener,
    children: SignalFd,
    clients: Clients,
    held: BTreeMap<String, Held>,
    execs: Vec<exec::Running>,
    removals: Vec<Removal>,
    buffer: Box<[u8; CHUNK_BYTES]>,
    journal: Journal,
    guard: Guard,
    outcome: Option<Outcome>,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Shutdown,
    /// A newer binary is to go on.
    Upgrade,
    /// The guard is dead.
    Orphaned,
}

impl Server {
    pub(crate) fn new(dir: RunDir, layout: Layout, listener: UnixListener, guard: Guard) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGUSR2, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        let children = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let journal = Journal::open(dir.path())?; // before any log is opened
        let (mut held, mut dead) = (BTreeMap::new(), Vec::new());
        std::fs::create_dir_all(dir.containers())?;
        std::fs::create_dir_all(dir.sandboxes())?;
        for entry in std::fs::read_dir(dir.containers())?.flatten() {
            if let Some((found, ended)) = Held::recover(&entry.path(), &layout) {
                let id = found.record.id.clone();
                hold(&guard, &found);
                if ended {
                    dead.push((id.clone(), super::record::read_status(&entry.path())));
                }
                held.insert(id, found);
            }
        }
        guard.release(UNCLAIMED);
        let buffer = Box::new([0; CHUNK_BYTES]);
        let mut server = Self {
            dir,
            layout,
            listener,
            children,
            clients: Clients::default(),
            held,
            execs: Vec::new(),
            removals: Vec::new(),
            buffer,
            journal,
            guard,
            outcome: None,
        };
        dead.into_iter().for_each(|(id, status)| server.exited(&id, status));
        Ok(server)
    }

    /// We are the copy of a worker whose guard died and who is the guard now: its children are no longer ours.
    pub(crate) fn adopted(&mut self, guard: Guard) {
        self.guard = guard;
        self.outcome = None;
        for held in self.held.values_mut() {
            if let Phase::Running { child, .. } | Phase::Starting { child, .. } = &mut held.phase {
                *child = false;
            }
        }
        for mut run in std::mem::take(&mut self.execs) {
            run.expire();
            let text = format!("exec in {}: the keeper was disturbed", run.container);
            self.clients.reply(run.asked, Reply::Failed(Failure::new(FailureKind::Busy, text)));
        }
    }

    /// What a guard keeps of a worker.
    pub(crate) fn fifos(self) -> Fifos {
        let logs = self.held.into_iter().filter_map(|(id, held)| Some((id, held.logs?)));
        logs.map(|(id, logs)| (id, vec![logs.out.into(), logs.err.into()])).collect()
    }

    /// Until [`Request::Shutdown`], or a signal says that something else is to go on.
    pub(crate) fn run(&mut self) -> io::Result<Outcome> {
        loop {
            match self.outcome {
                // Who waits for a start or an exec gets its answer first.
                Some(Outcome::Upgrade) if self.busy() => {}
                Some(outcome) => return Ok(outcome),
                None => {}
            }
            for source in self.wait()? {
                self.handle(source);
            }
            self.expire();
            self.clients.sweep();
        }
    }

    fn busy(&self) -> bool {
        let starting = self.held.values().any(|h| matches!(h.phase, Phase::Starting { .. }));
        starting || !self.execs.is_empty() || self.clients.iter().any(|c| c.wants_write())
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        let mut sources = Vec::new();
        let mut add = |fd, flags, source| {
            sources.push(source);
            push(&mut fds, fd, flags);
        };
        let read = PollFlags::POLLIN;
        add(self.children.as_fd(), read, Source::Children);
        add(self.listener.as_fd(), read, Source::Listener);
        for client in self.clients.iter() {
            let flags = if client.wants_write() { read | PollFlags::POLLOUT } else { read };
            add(client.stream.as_fd(), flags, Source::Client(client.id));
        }
        for (id, held) in &self.held {
            match &held.phase {
                Phase::Starting { report, .. } => add(report.as_fd(), read, Source::Report(id.clone())),
                Phase::Running { pidfd, child: false } => add(pidfd.as_fd(), read, Source::Adopted(id.clone())),
                Phase::Running { .. } | Phase::Exited(_) => {}
            }
            if let Some(logs) = &held.logs {
                add(logs.out.as_fd(), read, Source::Log(id.clone()));
                add(logs.err.as_fd(), read, Source::Log(id.clone()));
            }
        }
        for run in &self.execs {
            if let Some(output) = &run.output {
                add(output.as_fd(), read, Source::ExecOutput(run.pid));
            }
            if let Some(report) = &run.report {
                add(report.as_fd(), read, Source::ExecReport(run.pid));
            }
        }
        let deadlines = self.execs.iter().filter_map(|e| e.deadline).chain(self.removals.iter().map(|r| r.next));
        let timeout = match deadlines.min() {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left.min(Duration::from_secs(60))).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect::<Vec<_>>();
        Ok(sources.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|(source, _)| source).collect())
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Listener => self.clients.accept(&self.listener),
            Source::Children => self.reap(),
            Source::Client(id) => {
                self.clients.flush(id);
                for Call { seq, request } in self.clients.read(id, self.buffer.as_mut_slice()) {
                    if let Some(reply) = self.answer((id, seq), request) {
                        self.clients.reply((id, seq), reply);
                    }
                }
            }
            Source::Report(id) => {
                if let Some(verdict) = self.held.get_mut(&id).and_then(Held::listen) {
                    self.started(&id, verdict);
                }
            }
            Source::Log(id) => {
                if let Some(logs) = self.held.get_mut(&id).and_then(|h| h.logs.as_mut()) {
                    logs.pump(&mut self.buffer, &self.journal);
                }
            }
            Source::Adopted(id) => {
                let status = self.held.get(&id).and_then(|h| h.foreign_status(&self.dir.container(&id)));
                self.exited(&id, status);
            }
            Source::ExecOutput(pid) => {
                if let Some(run) = self.execs.iter_mut().find(|e| e.pid == pid) {
                    run.pump(self.buffer.as_mut_slice());
                }
            }
            Source::ExecReport(pid) => {
                if let Some(run) = self.execs.iter_mut().find(|e| e.pid == pid) {
                    run.listen();
                }
            }
        }
    }

    fn started(&mut self, id: &str, (asked, verdict): ((u64, u32), Result<super::protocol::Started, Failure>)) {
        match verdict {
            Ok(started) => self.clients.reply(asked, Reply::Started(started)),
            Err(failure) => match self.held.remove(id) {
                Some(held) => self.undo(held, (asked, Reply::Failed(failure))),
                None => self.clients.reply(asked, Reply::Failed(failure)),
            },
        }
        sys::trim_heap();
    }

    /// A start that failed in the child: nothing of it stays.
    fn undo(&mut self, held: Held, answer: ((u64, u32), Reply)) {
        if let Some(pidfd) = held.pidfd() {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL); // it is ending by itself
            let _ = nix::sys::wait::waitpid(Pid::from_raw(held.record.pid), None);
        }
        self.guard.release(&held.record.id);
        self.proceed(Removal::new(held, answer, false));
    }

    /// One step of a removal; it is answered now or goes on later.
    fn proceed(&mut self, mut removal: Removal) {
        let Some(outcome) = removal.step(&self.dir, &self.layout) else {
            self.removals.push(removal);
            return;
        };
        let Removal { held, answers, keep, .. } = removal;
        if let Err(failure) = &outcome {
            eprintln!("remove container {}: {}", held.record.id, failure.message);
            if keep {
                self.held.insert(held.record.id.clone(), held);
            }
        }
        for (asked, reply) in answers {
            let reply = match &outcome {
                Err(failure) if keep => Reply::Failed(failure.clone()),
                _ => reply,
            };
            self.clients.reply(asked, reply);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(signal)) = self.children.read_signal() {
            match signal.ssi_signo as i32 {
                libc::SIGUSR2 => self.outcome = Some(Outcome::Orphaned),
                libc::SIGHUP if self.outcome.is_none() => self.outcome = Some(Outcome::Upgrade),
                _ => {}
            }
        }
        while let Some(sys::Ended { pid, status }) = sys::peek_ended() {
            self.child_ended(pid, status);
            sys::reap(pid); // now that it is written down
        }
    }

    fn child_ended(&mut self, pid: i32, status: i32) {
        {
            if let Some(at) = self.execs.iter().position(|e| e.pid == pid) {
                let run = self.execs.swap_remove(at);
                let asked = run.asked;
                let reply = run.end(status, self.buffer.as_mut_slice());
                self.clients.reply(asked, reply);
                return;
            }
            let id =
                self.held.iter().find(|(_, h)| h.record.pid == pid && h.pidfd().is_some()).map(|(id, _)| id.clone());
            if let Some(id) = id {
                self.ended(&id, status);
            } // else an orphan of a container, or a sandbox's helper
        }
    }

    /// A child of ours is dead: if its stages had not ended, they have now.
    fn ended(&mut self, id: &str, status: i32) {
        if let Some((asked, verdict)) = self.held.get_mut(id).and_then(Held::finish_start) {
            let failed = verdict.is_err();
            self.started(id, (asked, verdict));
            if failed {
                return;
            }
        }
        self.exited(id, Some(status));
    }

    fn exited(&mut self, id: &str, status: Option<i32>) {
        let folder = self.dir.container(id);
        let Some(held) = self.held.get_mut(id) else { return };
        let exit: Exit = held.end(&folder, &self.layout, status, &mut self.buffer, &self.journal);
        self.guard.release(id);
        for run in self.execs.iter_mut().filter(|e| e.container == id) {
            run.deadline = Some(Instant::now()); // they die with it, or now
        }
        self.clients.tell(&Event::Exited { id: id.to_owned(), exit });
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for run in self.execs.iter_mut().filter(|e| e.deadline.is_some_and(|at| at <= now)) {
            run.expire();
        }
        let (due, later) = std::mem::take(&mut self.removals).into_iter().partition(|r| r.next <= now);
        self.removals = later;
        for removal in due {
            self.proceed(removal);
        }
    }
}

/// The guard keeps a log's FIFOs open, so that what is in them outlives us.
fn hold(guard: &Guard, held: &Held) {
    if let Some(logs) = &held.logs {
        guard.hold(&held.record.id, &[logs.out.as_raw_fd(), logs.err.as_raw_fd()]);
    }
}

fn push<'a>(fds: &mut Vec<PollFd<'a>>, fd: BorrowedFd<'a>, flags: PollFlags) {
    fds.push(PollFd::new(fd, flags));
}
