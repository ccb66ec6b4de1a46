//! The keeper's loop: one poll over listener, clients, SIGCHLD, reports, logs and adopted processes. Idle it sleeps for ever.

mod ends;
mod polled;
mod requests;

use super::attach::Attachment;
use super::clients::Clients;
use super::exec;
use super::exits::Exits;
use super::held::{Held, Phase};
use super::journal::Journal;
use super::kept::{Guard, Kept, UNCLAIMED};
use super::line::CHUNK_BYTES;
use super::protocol::{Asked, Failure, FailureKind, Reply, decode, first_frame};
use super::removal::Removal;
use super::rundir::RunDir;
use super::stdio::client_key;
use crate::cgroup::Layout;
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use polled::{Polled, Source};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

pub(crate) const CONTAINERS_MAX: usize = 2048;
pub(crate) const EXECS_MAX: usize = 256;

pub(crate) struct Server {
    polled: Polled,
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
    /// Of containers that have ended: they get the rest.
    parting: Vec<Attachment>,
    exits: Exits,
    last_attachment: u64,
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
    pub(crate) fn new(
        dir: RunDir,
        layout: Layout,
        listener: UnixListener,
        guard: Guard,
        mut kept: Kept,
    ) -> io::Result<Self> {
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
        let exits = Exits::listen();
        for entry in std::fs::read_dir(dir.containers())?.flatten() {
            if let Some((found, ended)) = Held::recover(&entry.path(), &layout, &mut kept) {
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
        let last_attachment = held.values().flat_map(Held::attached).map(|a| a.number).max().unwrap_or(0);
        let mut server = Self {
            polled: Polled::default(),
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
            parting: Vec::new(),
            exits,
            last_attachment,
            outcome: None,
        };
        server.exits.narrow(&server.strangers());
        dead.into_iter().for_each(|(id, status)| server.exited(&id, status));
        Ok(server)
    }

    /// We are the copy of a worker whose guard died and who is the guard now: its children are no longer ours.
    pub(crate) fn adopted(&mut self, guard: Guard) {
        self.guard = guard;
        self.outcome = None;
        let exits = Exits::listen();
        for held in self.held.values_mut() {
            if let Phase::Running { child, .. } | Phase::Starting { child, .. } = &mut held.phase {
                *child = false;
            }
        }
        self.exits = exits;
        self.exits.narrow(&self.strangers());
        for mut run in std::mem::take(&mut self.execs) {
            run.expire();
            let text = format!("exec in {}: the keeper was disturbed", run.container);
            self.clients.reply(run.asked, Reply::Failed(Failure::new(FailureKind::Busy, text)));
        }
    }

    /// Containers that are not our children.
    fn strangers(&self) -> Vec<i32> {
        let foreign =
            |h: &&Held| matches!(h.phase, Phase::Running { child: false, .. } | Phase::Starting { child: false, .. });
        self.held.values().filter(foreign).map(|h| h.record.pid).collect()
    }

    /// What a guard keeps of a worker.
    pub(crate) fn into_kept(self) -> Kept {
        let mut kept = Kept::default();
        for (id, held) in self.held {
            if let Some(stdio) = held.stdio {
                stdio.into_kept(&id, &mut kept);
            }
        }
        kept
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
            self.turn()?;
        }
    }

    /// Waits, and does what there is to do.
    fn turn(&mut self) -> io::Result<()> {
        let mut polled = std::mem::take(&mut self.polled);
        self.watch(&mut polled);
        polled.wait(self.patience())?;
        for (source, state) in polled.ready() {
            self.handle(source, state);
        }
        self.polled = polled;
        self.expire();
        self.clients.sweep();
        Ok(())
    }

    fn busy(&self) -> bool {
        let starting = self.held.values().any(|h| matches!(h.phase, Phase::Starting { .. }));
        starting || !self.execs.is_empty() || self.clients.iter().any(|c| c.wants_write())
    }

    /// All that may have something to say.
    fn watch(&self, polled: &mut Polled) {
        let mut add = |fd: BorrowedFd<'_>, flags, source| polled.add(fd, flags, source);
        let read = PollFlags::POLLIN;
        add(self.children.as_fd(), read, Source::Children);
        add(self.listener.as_fd(), read, Source::Listener);
        for client in self.clients.iter() {
            let flags = if client.wants_write() { read | PollFlags::POLLOUT } else { read };
            add(client.stream.as_fd(), flags, Source::Client(client.id));
        }
        for held in self.held.values() {
            let id = &held.id;
            match &held.phase {
                Phase::Starting { report, .. } => add(report.as_fd(), read, Source::Report(id.clone())),
                Phase::Running { pidfd, child: false } => add(pidfd.as_fd(), read, Source::Adopted(id.clone())),
                Phase::Running { .. } | Phase::Exited(_) => {}
            }
            let Some(stdio) = &held.stdio else { continue };
            if !stdio.audience.waits() {
                let said = [Some(&stdio.out), Some(&stdio.err), stdio.terminal.master()];
                said.into_iter().flatten().for_each(|fd| add(fd.as_fd(), read, Source::Output(id.clone())));
            }
            for client in &stdio.audience.0 {
                let watched = client.watched().into_iter();
                watched.for_each(|(fd, flags)| add(fd, flags, Source::Attached(id.clone(), client.number)));
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
        for client in &self.parting {
            client.watched().into_iter().for_each(|(fd, flags)| add(fd, flags, Source::Parting(client.number)));
        }
    }

    /// Up to the next deadline.
    fn patience(&self) -> PollTimeout {
        let attached = self.held.values().flat_map(Held::attached).chain(&self.parting);
        let deadlines = attached.filter_map(Attachment::deadline);
        let deadlines =
            deadlines.chain(self.execs.iter().filter_map(|e| e.deadline)).chain(self.removals.iter().map(|r| r.next));
        match deadlines.min() {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left.min(Duration::from_secs(60))).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn handle(&mut self, source: Source, state: PollFlags) {
        match source {
            // Most have asked already: another turn would be a detour.
            Source::Listener => self.clients.accept(&self.listener).for_each(|id| self.listen_to(id)),
            Source::Children => self.reap(),
            Source::Client(id) => {
                self.clients.flush(id);
                self.listen_to(id);
            }
            Source::Report(id) => {
                if let Some(verdict) = self.held.get_mut(&*id).and_then(Held::listen) {
                    self.started(&id, verdict);
                }
            }
            Source::Output(id) => {
                if let Some(stdio) = self.held.get_mut(&*id).and_then(|h| h.stdio.as_mut()) {
                    stdio.pump(&mut self.buffer, &self.journal);
                }
            }
            Source::Attached(id, number) => {
                let audience = self.held.get_mut(&*id).and_then(|h| h.stdio.as_mut()).map(|s| &mut s.audience.0);
                serve(audience.into_iter().flatten(), number, state);
            }
            Source::Parting(number) => serve(self.parting.iter_mut(), number, state),
            Source::Adopted(id) => {
                let folder = self.dir.container(&id);
                let status = self.held.get(&*id).and_then(|h| h.foreign_status(&folder, &mut self.exits));
                self.exited(&id, status);
                self.exits.narrow(&self.strangers());
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

    /// Everything client `id` has asked by now.
    fn listen_to(&mut self, id: u64) {
        let inbox = self.clients.read(id, self.buffer.as_mut_slice());
        let mut handled = 0;
        let ended = loop {
            let rest = inbox.get(handled..).unwrap_or_default();
            match first_frame(rest).and_then(|frame| frame.map(|(p, n)| Ok((decode(p)?, n))).transpose()) {
                Ok(Some((Asked { seq, request }, count))) => {
                    handled += count;
                    if let Some(reply) = self.answer((id, seq), request) {
                        self.clients.reply((id, seq), reply);
                    }
                }
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        self.clients.handled(id, inbox, handled);
        if let Err(e) = ended {
            self.clients.refuse(id, &e);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for run in self.execs.iter_mut().filter(|e| e.deadline.is_some_and(|at| at <= now)) {
            run.expire();
        }
        for (id, held) in &mut self.held {
            for number in held.stdio.iter_mut().flat_map(|s| s.drop_over(now)) {
                self.guard.release(&client_key(id, number));
            }
        }
        self.parting.retain(|client| client.waits() && !client.is_over(now));
        let (due, later) = std::mem::take(&mut self.removals).into_iter().partition(|r| r.next <= now);
        self.removals = later;
        for removal in due {
            self.proceed(removal);
        }
    }
}

/// The guard keeps FIFOs open, so that what is in them outlives us, and what cannot be opened anew.
fn hold(guard: &Guard, held: &Held) {
    for (key, fds) in held.stdio.iter().flat_map(|stdio| stdio.kept(&held.record.id)) {
        guard.hold(&key, &fds);
    }
}

/// A client's pipe is ready, or has lost its reader.
fn serve<'a>(mut clients: impl Iterator<Item = &'a mut Attachment>, number: u64, state: PollFlags) {
    let Some(client) = clients.find(|c| c.number == number) else { return };
    if state.contains(PollFlags::POLLERR) { client.hang_up() } else { client.flush() }
}

#[cfg(test)]
mod tests;
