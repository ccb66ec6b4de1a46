//! What to do about a pod: pure, synchronous, makes every choice. Run again after every change it is stable: when the facts are as
//! the plan wants them, the next plan has no actions.
//!
//! The order is upstream's `computePodActions`: volumes, sandbox, init containers one after the other (sidecars go on beside),
//! then the app containers; at the end the app containers stop first, the sidecars after them in reverse order.

pub mod step;

use std::time::Duration;

use mote_api::tree::i64_at;

use super::model::{Facts, Instance, Pod, RUNS_KEPT, Role, Sandbox, Volumes, Wanted};
use crate::clock::Moment;
pub use step::{Step, short, step};
use step::{crashes_after, restarts, retry_at};

/// One thing to do.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's volumes.
    MakeVolumes,
    /// Make the shared namespaces and attach them to the pod network.
    MakeSandbox,
    /// Find or pull the image of this container, beside everything else.
    Pull {
        /// Container name.
        container: String,
    },
    /// Start a container.
    Start {
        /// Container name.
        container: String,
        /// Which run of it this is.
        attempt: u32,
        /// Short runs in a row before it.
        crashes: u32,
    },
    /// Ask a container to end: preStop hook, then its stop signal.
    Stop {
        /// Container name.
        container: String,
        /// Container id.
        id: String,
        /// Time it has.
        grace: Duration,
        /// For the event.
        why: String,
    },
    /// Its time is over: SIGKILL.
    Kill {
        /// Container id.
        id: String,
    },
    /// Forget an ended run and what it left.
    Remove {
        /// Container id.
        id: String,
        /// Whether its log goes as well.
        attempt: u32,
        /// Container name.
        container: String,
    },
    /// Give back address and namespaces.
    RemoveSandbox,
    /// Nothing of the pod may stay behind: volumes, logs, folders, group.
    RemoveAll,
}

/// The choices of one moment.
#[derive(Default)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Look again then, whatever happens.
    pub look_again: Option<Moment>,
    /// Nothing of the pod is left on this node: say so and forget it.
    pub gone: bool,
}

impl Plan {
    fn at(&mut self, moment: Moment) {
        self.look_again = Some(self.look_again.map_or(moment, |before| before.min(moment)));
    }
}

/// Why a pod has to end that nobody deleted.
pub fn condemned(pod: &Pod, started: Option<Moment>, now: Moment) -> Option<(&'static str, &'static str)> {
    let (seconds, started) = (i64_at(&pod.object, &["spec", "activeDeadlineSeconds"])?, started?);
    let deadline = started.plus(Duration::from_secs(u64::try_from(seconds).ok()?));
    (now >= deadline).then_some(("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"))
}

/// Whether the pod has done all it ever will: `Some(true)` when every app container ended with 0.
pub fn outcome(pod: &Pod, facts: &Facts) -> Option<bool> {
    for init in pod.containers.iter().filter(|wanted| wanted.role == Role::Init) {
        if let Some(exit) = facts.newest(&init.name).and_then(Instance::exit)
            && exit.code != 0
            && !restarts(pod, init, exit)
        {
            return Some(false);
        }
    }
    let mut all_well = true;
    for app in pod.apps() {
        let run = facts.newest(&app.name)?;
        let exit = run.exit()?;
        if run.hash != app.hash || restarts(pod, app, exit) {
            return None;
        }
        all_well &= exit.code == 0;
    }
    Some(all_well)
}

/// Whether this container no longer holds back those after it.
fn passed(wanted: &Wanted, facts: &Facts, apps_began: bool) -> bool {
    match (wanted.role, facts.newest(&wanted.name)) {
        (Role::App | Role::Ephemeral, _) => true,
        (Role::Sidecar, Some(run)) => {
            run.running() && facts.probed.get(&run.id).is_none_or(|probed| probed.started) || apps_began
        }
        (Role::Init, Some(run)) => run.exit().is_some_and(|exit| exit.code == 0) || apps_began && !run.running(),
        (_, None) => apps_began,
    }
}

/// Whether all init containers are through.
pub fn initialized(pod: &Pod, facts: &Facts) -> bool {
    let began = pod.apps().any(|app| facts.newest(&app.name).is_some());
    pod.containers.iter().filter(|wanted| wanted.role.is_init()).all(|wanted| passed(wanted, facts, began))
}

/// The plan of this moment. `started` is the pod's start time, `ended` whether the API already calls the pod Succeeded or Failed.
pub fn plan(pod: &Pod, facts: &Facts, started: Option<Moment>, ended: bool, now: Moment) -> Plan {
    let mut plan = Plan::default();
    for runs in &facts.runs {
        for old in runs.1.iter().skip(RUNS_KEPT).filter(|run| !run.running()) {
            plan.actions.push(Action::Remove { id: old.id.clone(), attempt: old.attempt, container: runs.0.clone() });
        }
    }
    if let Some(grace) = pod.deleting {
        end(pod, facts, grace, "Stopping container", now, &mut plan);
        if facts.running().next().is_none() && plan.actions.is_empty() {
            if facts.sandbox != Sandbox::None {
                plan.actions.push(Action::RemoveSandbox);
            }
            plan.actions.push(Action::RemoveAll);
            plan.gone = true;
        }
    } else if ended || condemned(pod, started, now).is_some() || outcome(pod, facts).is_some() {
        end(pod, facts, pod.grace, "Stopping container", now, &mut plan);
        if facts.running().next().is_none() && facts.sandbox != Sandbox::None {
            plan.actions.push(Action::RemoveSandbox);
        }
    } else {
        if let (Some(seconds), Some(started)) = (i64_at(&pod.object, &["spec", "activeDeadlineSeconds"]), started) {
            plan.at(started.plus(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))));
        }
        keep_up(pod, facts, now, &mut plan);
    }
    plan
}

/// Volumes, sandbox, then each container whose turn has come.
fn keep_up(pod: &Pod, facts: &Facts, now: Moment, plan: &mut Plan) {
    let ready = match &facts.volumes {
        Volumes::Ready => true,
        Volumes::Stale => {
            plan.actions.push(Action::MakeVolumes);
            true
        }
        Volumes::Failed(failure) if now < retry_at(failure) => {
            plan.at(retry_at(failure));
            false
        }
        Volumes::None | Volumes::Failed(_) => {
            plan.actions.push(Action::MakeVolumes);
            false
        }
    };
    let ready = match &facts.sandbox {
        Sandbox::Ready { .. } => ready,
        Sandbox::Failed(failure) if now < retry_at(failure) => {
            plan.at(retry_at(failure));
            false
        }
        Sandbox::None | Sandbox::Failed(_) => {
            if ready {
                plan.actions.push(Action::MakeSandbox);
            }
            false
        }
    };
    let began = pod.apps().any(|app| facts.newest(&app.name).is_some());
    for wanted in &pod.containers {
        if wanted.role == Role::Ephemeral && !began {
            continue; // it joins a pod that runs
        }
        let turn_over = wanted.role == Role::Init && passed(wanted, facts, began);
        if !turn_over {
            keep_one_up(pod, wanted, facts, ready, now, plan);
        }
        if !passed(wanted, facts, began) {
            // The ones behind it have to wait; what runs of them (after a change of heart) goes on.
            break;
        }
    }
}

fn keep_one_up(pod: &Pod, wanted: &Wanted, facts: &Facts, ready: bool, now: Moment, plan: &mut Plan) {
    match step(pod, wanted, facts, now) {
        Step::Run => {
            let Some(run) = facts.newest(&wanted.name) else { return };
            let dead = facts.probed.get(&run.id).is_some_and(|probed| probed.dead);
            if let Some(stopping) = facts.stopping.get(&run.id) {
                insist(run, stopping.deadline, stopping.killed, now, plan);
            } else if dead {
                let why = format!("Container {} failed liveness probe, will be restarted", wanted.name);
                stop(wanted, run, pod.grace, why, plan);
            } else if run.hash != wanted.hash {
                let why = format!("Container {} definition changed, will be restarted", wanted.name);
                stop(wanted, run, pod.grace, why, plan);
            }
        }
        Step::Finished => {}
        // Images may come while volumes and sandbox are made.
        Step::Pull => plan.actions.push(Action::Pull { container: wanted.name.clone() }),
        Step::Start => {
            if ready {
                let (attempt, crashes) = match facts.newest(&wanted.name) {
                    None => (facts.first_attempt.get(&wanted.name).copied().unwrap_or(0), 0),
                    Some(run) => (run.attempt.saturating_add(1), run.exit().map_or(0, |exit| crashes_after(run, exit))),
                };
                plan.actions.push(Action::Start { container: wanted.name.clone(), attempt, crashes });
            }
        }
        Step::Wait { until, .. } => {
            if let Some(until) = until {
                plan.at(until);
            }
        }
    }
}

fn stop(wanted: &Wanted, run: &Instance, grace: Duration, why: String, plan: &mut Plan) {
    plan.actions.push(Action::Stop { container: wanted.name.clone(), id: run.id.clone(), grace, why });
}

fn insist(run: &Instance, deadline: Moment, killed: bool, now: Moment, plan: &mut Plan) {
    if killed {
        return;
    }
    if now >= deadline {
        plan.actions.push(Action::Kill { id: run.id.clone() });
    } else {
        plan.at(deadline);
    }
}

/// Everything stops: app and init containers together, then the sidecars, last one first.
fn end(pod: &Pod, facts: &Facts, grace: Duration, why: &str, now: Moment, plan: &mut Plan) {
    let role = |name: &str| pod.container(name).map_or(Role::App, |wanted| wanted.role);
    let mut now_ending: Vec<(&str, &Instance)> =
        facts.running().filter(|(name, _)| role(name) != Role::Sidecar).collect();
    if now_ending.is_empty() {
        let sidecars = pod.containers.iter().rev().filter(|wanted| wanted.role == Role::Sidecar);
        let last = sidecars
            .filter_map(|wanted| Some((wanted.name.as_str(), facts.newest(&wanted.name)?)))
            .find(|(_, run)| run.running());
        now_ending.extend(last);
    }
    for (name, run) in now_ending {
        match facts.stopping.get(&run.id) {
            Some(stopping) if stopping.killed || stopping.deadline <= now.plus(grace) => {
                insist(run, stopping.deadline, stopping.killed, now, plan);
            }
            // New, or the deadline was moved nearer since (`kubectl delete --now`).
            _ => plan.actions.push(Action::Stop {
                container: name.to_owned(),
                id: run.id.clone(),
                grace,
                why: format!("{why} {name}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
