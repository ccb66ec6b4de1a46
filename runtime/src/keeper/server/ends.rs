//! What the loop does when something has ended: the stages of a start, a child, a container, a removal.

use super::{Outcome, Server, hold};
use crate::keeper::attach::Attachment;
use crate::keeper::held::Held;
use crate::keeper::protocol::{Event, Failure, Reply, Started};
use crate::keeper::removal::Removal;
use crate::sys;
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::time::Instant;

impl Server {
    /// The stages of a start have ended.
    pub(super) fn started(&mut self, id: &str, (asked, verdict): ((u64, u32), Result<Started, Failure>)) {
        match verdict {
            Ok(started) => {
                if let Some(held) = self.held.get(id).filter(|h| h.has_terminal()) {
                    hold(&self.guard, held);
                }
                self.clients.reply(asked, Reply::Started(started));
            }
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
    pub(super) fn proceed(&mut self, mut removal: Removal) {
        let Some(outcome) = removal.step(&self.dir, &self.layout) else {
            self.removals.push(removal);
            return;
        };
        let Removal { held, answers, keep, .. } = removal;
        if let Err(failure) = &outcome {
            complain!("remove container {}: {}", held.record.id, failure.message);
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

    pub(super) fn reap(&mut self) {
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
        if let Some(at) = self.execs.iter().position(|e| e.pid == pid) {
            let run = self.execs.swap_remove(at);
            let asked = run.asked;
            let reply = run.end(status, self.buffer.as_mut_slice());
            self.clients.reply(asked, reply);
            return;
        }
        let id = self.held.iter().find(|(_, h)| h.record.pid == pid && h.pidfd().is_some()).map(|(id, _)| id.clone());
        if let Some(id) = id {
            self.ended(&id, status);
        } // else an orphan of a container, or a sandbox's helper
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

    /// A container is dead, whoever's child it was; `None` = nobody knows how it ended.
    pub(super) fn exited(&mut self, id: &str, status: Option<i32>) {
        let folder = self.dir.container(id);
        let Some(held) = self.held.get_mut(id) else { return };
        let exit = held.end(&folder, &self.layout, status, &mut self.buffer, &self.journal);
        let audience = held.stdio.take().map(|stdio| stdio.audience.0);
        self.parting.extend(audience.into_iter().flatten().filter(Attachment::waits));
        self.guard.release(id);
        for run in self.execs.iter_mut().filter(|e| e.container == id) {
            run.deadline = Some(Instant::now()); // they die with it, or now
        }
        self.clients.tell(&Event::Exited { id: id.to_owned(), exit });
    }
}
