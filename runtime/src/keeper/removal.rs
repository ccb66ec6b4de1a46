//! Containers on their way out. What is left in a container's group is killed and waited for in steps, so that a process stuck in the
//! kernel holds up its own removal and nobody else's start.

use super::held::Held;
use super::protocol::{Failure, FailureKind, Reply};
use super::rundir::RunDir;
use crate::cgroup::{self, Layout, REMOVE_WAIT_MAX};
use std::io;
use std::time::{Duration, Instant};

const PAUSE_FIRST: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(50);

pub(crate) struct Removal {
    pub(crate) held: Held,
    /// Who waits, and what to say once it is done.
    pub(crate) answers: Vec<((u64, u32), Reply)>,
    /// Goes back among the held ones when it fails, so that it can be asked for again; a failed start is forgotten either way.
    pub(crate) keep: bool,
    pub(crate) next: Instant,
    until: Instant,
    pause: Duration,
}

impl Removal {
    pub(crate) fn new(held: Held, answer: ((u64, u32), Reply), keep: bool) -> Self {
        let now = Instant::now();
        Self { held, answers: vec![answer], keep, next: now, until: now + REMOVE_WAIT_MAX, pause: PAUSE_FIRST }
    }

    /// One step, which never waits: `None` = look again at `next`.
    pub(crate) fn step(&mut self, dir: &RunDir, layout: &Layout) -> Option<Result<(), Failure>> {
        let path = &self.held.record.cgroup;
        if !path.is_empty()
            && let Err(error) = cgroup::try_remove(layout, path)
        {
            let now = Instant::now();
            if now >= self.until {
                return Some(Err(Failure::new(FailureKind::Busy, error.to_string())));
            }
            let _ = cgroup::kill_all(layout, path); // the next look shows what came of it
            self.next = now + self.pause;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            return None;
        }
        let folder = dir.container(&self.held.record.id);
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Some(Err(Failure::new(FailureKind::Stage, format!("remove {}: {e}", folder.display()))))
            }
            _ => Some(Ok(())),
        }
    }
}
