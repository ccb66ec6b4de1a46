//! What each request of a client makes the keeper do.

use super::{CONTAINERS_MAX, EXECS_MAX, Outcome, Server, hold};
use crate::cgroup;
use crate::container::Container;
use crate::keeper::exec;
use crate::keeper::held::{Held, Phase};
use crate::keeper::protocol::{Attached, Exec, Failure, FailureKind, Reply, Session, VERSION, Wanted, WantedAttach};
use crate::keeper::removal::Removal;
use crate::keeper::sandbox;
use crate::sys;
use std::os::fd::AsFd;

impl Server {
    /// `None` = answered later.
    pub(super) fn answer(&mut self, asked: (u64, u32), request: Wanted<'_>) -> Option<Reply> {
        let result = match request {
            Wanted::Hello { events } => {
                if events {
                    self.clients.subscribe(asked.0);
                }
                let build = env!("CARGO_PKG_VERSION").to_owned();
                Ok(Reply::Hello { version: VERSION, pid: std::process::id() as i32, build })
            }
            Wanted::Sandbox(wanted) => sandbox::create(&self.dir, &wanted).map(|()| Reply::Done),
            Wanted::RemoveSandbox { id } => self.remove_sandbox(id),
            Wanted::Start(container) => match self.start(asked, *container) {
                Ok(()) => return None,
                Err(failure) => Err(failure),
            },
            Wanted::Signal { id, signal, all } => self.signal(id, signal, all),
            Wanted::Remove { id } => match self.remove(asked, id) {
                Ok(()) => return None,
                Err(failure) => Err(failure),
            },
            Wanted::List => {
                let going = self.removals.iter().filter(|r| r.keep).map(|r| &r.held);
                let containers = self.held.values().chain(going).map(Held::listed).collect();
                Ok(Reply::List { containers, sandboxes: sandbox::list(&self.dir) })
            }
            Wanted::Exec(exec) => match self.exec(asked, &exec) {
                Ok(()) => return None,
                Err(failure) => Err(failure),
            },
            Wanted::Update { id, resources } => self.find(id).and_then(|held| {
                let told = |e: cgroup::CgroupError| Failure::new(FailureKind::Stage, e.to_string());
                cgroup::update(&self.layout, &held.record.cgroup, &resources).map(|_| Reply::Done).map_err(told)
            }),
            Wanted::ReopenLog { id } => self.reopen_log(id),
            Wanted::Shutdown => self.shutdown(),
            Wanted::Session(session) => match self.session(asked, &session) {
                Ok(()) => return None,
                Err(failure) => Err(failure),
            },
            Wanted::Attach(wanted) => self.attach(asked.0, &wanted).map(Reply::Attached),
        };
        Some(result.unwrap_or_else(Reply::Failed))
    }

    fn find(&self, id: &str) -> Result<&Held, Failure> {
        self.held.get(id).ok_or_else(|| Failure::new(FailureKind::NotFound, format!("container {id}: not found")))
    }

    fn start(&mut self, asked: (u64, u32), mut container: Container) -> Result<(), Failure> {
        // Not the keeper's own, which the OOM killer spares.
        container.process.oom_score_adj.get_or_insert(0);
        if self.held.len() >= CONTAINERS_MAX {
            return Err(Failure::new(
                FailureKind::Limit,
                format!("this keeper holds {CONTAINERS_MAX} containers already"),
            ));
        }
        let held = Held::start(&self.dir, &self.layout, &container, asked)?;
        hold(&self.guard, &held);
        self.held.insert(container.id, held);
        Ok(())
    }

    fn signal(&self, id: &str, signal: i32, all: bool) -> Result<Reply, Failure> {
        let held = self.find(id)?;
        let Some(pidfd) = held.pidfd() else { return Ok(Reply::Done) };
        let told = |text: String| Failure::new(FailureKind::Invalid, format!("signal {signal} to {id}: {text}"));
        if all && !held.record.cgroup.is_empty() {
            cgroup::signal_all(&self.layout, &held.record.cgroup, signal).map_err(|e| told(e.to_string()))?;
        }
        match sys::pidfd_send_signal(pidfd.as_fd(), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(Reply::Done),
            Err(e) => Err(told(crate::stages::report::cause(e))),
        }
    }

    /// Answers by itself, once nothing is left.
    fn remove(&mut self, asked: (u64, u32), id: &str) -> Result<(), Failure> {
        if let Some(removal) = self.removals.iter_mut().find(|r| r.held.record.id == id) {
            removal.answers.push((asked, Reply::Done));
            return Ok(());
        }
        if self.held.get(id).is_some_and(|h| !matches!(h.phase, Phase::Exited(_))) {
            return Err(Failure::new(FailureKind::Busy, format!("container {id}: is running")));
        }
        match self.held.remove(id) {
            Some(held) => self.proceed(Removal::new(held, (asked, Reply::Done), true)),
            None => self.clients.reply(asked, Reply::Done),
        }
        Ok(())
    }

    fn remove_sandbox(&self, id: &str) -> Result<Reply, Failure> {
        let user = self.held.values().find(|h| h.pidfd().is_some() && h.record.sandboxes.iter().any(|s| s == id));
        if let Some(held) = user {
            return Err(Failure::new(
                FailureKind::Busy,
                format!("sandbox {id}: container {} runs in it", held.record.id),
            ));
        }
        sandbox::remove(&self.dir, id);
        Ok(Reply::Done)
    }

    fn exec(&mut self, asked: (u64, u32), exec: &Exec) -> Result<(), Failure> {
        let held = self.room_for_exec(&exec.id)?;
        let run = exec::Running::start(&held.exec_place(&self.layout)?, exec, asked)?;
        self.execs.push(run);
        Ok(())
    }

    fn session(&mut self, asked: (u64, u32), session: &Session) -> Result<(), Failure> {
        let descriptors = self.clients.descriptors(asked.0);
        let held = self.room_for_exec(&session.id)?;
        let run = exec::Running::attend(&held.exec_place(&self.layout)?, session, &descriptors, asked)?;
        self.execs.push(run);
        Ok(())
    }

    fn room_for_exec(&self, id: &str) -> Result<&Held, Failure> {
        if self.execs.len() >= EXECS_MAX {
            return Err(Failure::new(FailureKind::Limit, format!("{EXECS_MAX} execs run already")));
        }
        self.find(id)
    }

    fn attach(&mut self, client: u64, wanted: &WantedAttach<'_>) -> Result<Attached, Failure> {
        let descriptors = self.clients.descriptors(client);
        let refused = |text: &str| Failure::new(FailureKind::Busy, format!("container {}: {text}", wanted.id));
        self.find(wanted.id)?;
        let Some(held) = self.held.get_mut(wanted.id) else { return Err(refused("not found")) };
        if !matches!(held.phase, Phase::Running { .. }) {
            return Err(refused("is not running"));
        }
        let Some(stdio) = &mut held.stdio else { return Err(refused("nobody hears its output")) };
        self.last_attachment += 1;
        let attached = stdio.attach(wanted, self.last_attachment, descriptors)?;
        hold(&self.guard, held);
        Ok(attached)
    }

    fn reopen_log(&mut self, id: &str) -> Result<Reply, Failure> {
        self.find(id)?;
        let stdio = self.held.get_mut(id).and_then(|h| h.stdio.as_mut());
        stdio
            .map_or(Ok(()), |s| s.reopen_log())
            .map(|()| Reply::Done)
            .map_err(|e| Failure::new(FailureKind::Stage, format!("reopen log of {id}: {e}")))
    }

    fn shutdown(&mut self) -> Result<Reply, Failure> {
        let running = self.held.values().filter(|h| h.pidfd().is_some()).count();
        if running > 0 {
            return Err(Failure::new(FailureKind::Busy, format!("{running} containers are running")));
        }
        if !self.removals.is_empty() {
            let text = format!("{} containers are being removed", self.removals.len());
            return Err(Failure::new(FailureKind::Busy, text));
        }
        self.outcome = Some(Outcome::Shutdown);
        Ok(Reply::Done)
    }
}
