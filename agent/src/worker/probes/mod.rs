//! Startup, readiness and liveness probes. One task per probed container, only while it runs; results go to the pod's worker when
//! they change something.

mod check;
pub(super) mod hook;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::{Value, at, i64_at};
use mote_runtime::container::Process;
use tokio::task::JoinHandle;

use crate::agent::Agent;
use crate::clock::Moment;
use crate::pods::model::{Pod, Probed};
use crate::pods::slot::{News, Slot};

/// Ends the probes when dropped.
pub(super) struct Probing {
    task: JoinHandle<()>,
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Job {
    agent: Rc<Agent>,
    slot: Rc<Slot>,
    pod: Rc<Pod>,
    container: String,
    id: String,
    process: RefCell<Option<Process>>,
    started: Moment,
    probed: RefCell<Probed>,
}

impl Probing {
    /// Starts the probes of a running container.
    #[allow(clippy::too_many_arguments)] // what a probe has to know; a struct would only be built to be taken apart
    pub(super) fn start(
        agent: Rc<Agent>,
        slot: Rc<Slot>,
        pod: Rc<Pod>,
        container: &str,
        id: &str,
        probed: Probed,
        process: Option<Process>,
        started: Moment,
    ) -> Probing {
        let job = Job {
            agent,
            slot,
            pod,
            container: container.to_owned(),
            id: id.to_owned(),
            process: RefCell::new(process),
            started,
            probed: RefCell::new(probed),
        };
        Probing { task: tokio::task::spawn_local(job.run()) }
    }
}

/// The times and thresholds of a probe, with upstream's defaults.
struct Timing {
    delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: u32,
    failures: u32,
}

impl Timing {
    fn of(probe: &Value) -> Timing {
        let number = |field: &str, otherwise: u64| {
            i64_at(probe, &[field]).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(otherwise)
        };
        let count = |field: &str, otherwise: u64| u32::try_from(number(field, otherwise)).unwrap_or(u32::MAX);
        Timing {
            delay: Duration::from_secs(number("initialDelaySeconds", 0)),
            period: Duration::from_secs(number("periodSeconds", 10)),
            timeout: Duration::from_secs(number("timeoutSeconds", 1)),
            successes: count("successThreshold", 1),
            failures: count("failureThreshold", 3),
        }
    }
}

/// Counts results in a row; says when a threshold is reached.
#[derive(Default)]
struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    fn count(&mut self, good: bool, timing: &Timing) -> Option<bool> {
        if good {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
            (self.good >= timing.successes).then_some(true)
        } else {
            (self.bad, self.good) = (self.bad.saturating_add(1), 0);
            (self.bad >= timing.failures).then_some(false)
        }
    }
}

impl Job {
    async fn run(self) {
        let spec = match self.pod.container(&self.container) {
            Some(wanted) => wanted.spec.clone(),
            None => return,
        };
        if let Some(probe) = at(&spec, &["startupProbe"]).filter(|_| !self.probed.borrow().started) {
            let passed = self.repeat("Startup", probe, |_| {}, true).await;
            if !passed {
                self.change(|probed| probed.dead = true);
                return;
            }
            self.change(|probed| probed.started = true);
        }
        let readiness = async {
            if let Some(probe) = at(&spec, &["readinessProbe"]) {
                self.repeat("Readiness", probe, |good| self.change(|probed| probed.ready = good), false).await;
            }
        };
        let liveness = async {
            if let Some(probe) = at(&spec, &["livenessProbe"]) {
                self.repeat(
                    "Liveness",
                    probe,
                    |good| {
                        if !good {
                            self.change(|probed| probed.dead = true);
                        }
                    },
                    false,
                )
                .await;
            }
        };
        tokio::join!(readiness, liveness);
    }

    fn change(&self, how: impl FnOnce(&mut Probed)) {
        let before = *self.probed.borrow();
        how(&mut self.probed.borrow_mut());
        let now = *self.probed.borrow();
        if now != before {
            self.slot.tell(News::Probed { id: self.id.clone(), probed: now });
        }
    }

    /// Probes for ever, or with `once` until the first verdict, which it returns.
    async fn repeat(&self, name: &str, probe: &Value, verdict: impl Fn(bool), once: bool) -> bool {
        let timing = Timing::of(probe);
        let due = self.started.plus(timing.delay);
        tokio::time::sleep(due.since(Moment::now()).min(timing.delay)).await;
        let mut streak = Streak::default();
        let mut quick = 0u32;
        loop {
            let result = check::check(self, probe, timing.timeout).await;
            if let Err(why) = &result {
                let message = format!("{name} probe failed: {why}");
                self.agent.events.note(
                    &self.pod.object,
                    &self.pod.field_of(&self.container),
                    true,
                    "Unhealthy",
                    &message,
                );
            }
            if let Some(good) = streak.count(result.is_ok(), &timing) {
                verdict(good);
                if once {
                    return good;
                }
            }
            // A container that just came up is asked more often until it says yes once, so that it serves as soon as it can.
            let ready = self.probed.borrow().ready;
            let pause = if name == "Readiness"
                && !ready
                && quick < QUICK_PROBES
                && timing.period >= Duration::from_secs(1)
                && timing.failures > quick
            {
                quick += 1;
                Duration::from_millis(250).min(timing.period)
            } else {
                timing.period
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Quick readiness probes after the start.
const QUICK_PROBES: u32 = 2;

#[cfg(test)]
mod tests {
    use mote_api::tree::json;

    use super::*;

    #[test]
    fn thresholds() {
        let timing = Timing::of(&json!({"successThreshold": 2, "failureThreshold": 3, "periodSeconds": 0}));
        assert_eq!(timing.period, Duration::from_secs(10));
        let mut streak = Streak::default();
        let results: Vec<_> =
            [true, true, false, true, false, false, false, true].map(|good| streak.count(good, &timing)).into();
        assert_eq!(results, [None, Some(true), None, None, None, None, Some(false), None]);
    }
}
