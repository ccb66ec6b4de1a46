//! A Deployment's status and conditions: pure, with upstream's reasons and messages.

use super::desired::{Condition, Deployment, Status, Strategy};
use crate::controllers::view::apps::ReplicaSet;
use mote_api::time::Time;
use std::rc::Rc;

/// Gives the status and after how many milliseconds the progress deadline has to be looked at.
pub fn plan(
    d: &Deployment,
    new: Option<&Rc<ReplicaSet>>,
    sets: &[Rc<ReplicaSet>],
    creating: bool,
    now: Time,
) -> (Status, Option<u64>) {
    let sum = |f: fn(&ReplicaSet) -> i64| sets.iter().map(|set| f(set)).sum::<i64>();
    let available = sum(|set| set.status.available);
    let mut status = Status {
        observed_generation: d.meta.generation,
        replicas: sum(|set| set.status.replicas),
        updated: new.map_or(0, |set| set.status.replicas),
        ready: sum(|set| set.status.ready),
        available,
        unavailable: sum(|set| set.replicas).saturating_sub(available).max(0),
        conditions: d.status.conditions.clone(),
    };
    let unavailable = match d.strategy {
        Strategy::Rolling { unavailable, .. } => unavailable,
        Strategy::Recreate => 0,
    };
    let enough = available >= d.replicas.saturating_sub(unavailable);
    let (truth, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    put(&mut status, "Available", truth, reason, message.into(), now);
    let again = progress(d, new, &mut status, creating, now);
    (status, again)
}

/// Everything is of the new template, and available.
pub fn complete(d: &Deployment, status: &Status) -> bool {
    status.updated == d.replicas
        && status.replicas == d.replicas
        && status.available == d.replicas
        && status.observed_generation >= d.meta.generation
}

fn progress(
    d: &Deployment,
    new: Option<&Rc<ReplicaSet>>,
    status: &mut Status,
    creating: bool,
    now: Time,
) -> Option<u64> {
    let deadline = d.deadline_seconds?;
    let before = d.status.condition("Progressing").cloned();
    let reason = before.as_ref().map_or("", |c| c.reason.as_str());
    if d.paused {
        if reason != "DeploymentPaused" && reason != "ProgressDeadlineExceeded" {
            put(status, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".into(), now);
        }
        return None;
    }
    if reason == "DeploymentPaused" {
        put(status, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".into(), now);
        return Some(1);
    }
    let name = new.map_or_else(|| d.meta.key.name.to_string(), |set| set.meta.key.name.to_string());
    let who = if new.is_some() { format!("ReplicaSet {name:?}") } else { format!("Deployment {name:?}") };
    if creating {
        return None; // the creation itself says NewReplicaSetCreated
    }
    if reason == "NewReplicaSetAvailable" && status.replicas == status.updated {
        return None;
    }
    if complete(d, status) {
        let message = format!("{who} has successfully progressed.");
        put(status, "Progressing", "True", "NewReplicaSetAvailable", message, now);
        return None;
    }
    let old = &d.status;
    let moved = status.updated > old.updated
        || status.replicas - status.updated < old.replicas - old.updated
        || status.ready > old.ready
        || status.available > old.available;
    if moved || before.is_none() {
        put(status, "Progressing", "True", "ReplicaSetUpdated", format!("{who} is progressing."), now);
        if let Some(c) = status.conditions.iter_mut().find(|c| c.kind == "Progressing") {
            c.updated = Some(now);
        }
        return Some(wait_ms(deadline));
    }
    if reason == "ProgressDeadlineExceeded" {
        return None;
    }
    let since = before.and_then(|c| c.updated).unwrap_or(now);
    let left = deadline.saturating_sub(now.seconds_since(since));
    if left > 0 {
        return Some(wait_ms(left));
    }
    put(status, "Progressing", "False", "ProgressDeadlineExceeded", format!("{who} has timed out progressing."), now);
    None
}

fn wait_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_add(1).saturating_mul(1000)
}

/// Sets a condition; its transition time moves only with its status, its update time with status or reason.
pub fn put(status: &mut Status, kind: &str, truth: &'static str, reason: &str, message: String, now: Time) {
    match status.conditions.iter_mut().find(|c| c.kind == kind) {
        Some(c) => {
            if c.status == truth && c.reason == reason {
                return;
            }
            if c.status != truth {
                c.changed = Some(now);
            }
            c.updated = Some(now);
            c.status = truth;
            c.reason = reason.into();
            c.message = message;
        }
        None => status.conditions.push(Condition {
            kind: kind.into(),
            status: truth,
            reason: reason.into(),
            message,
            updated: Some(now),
            changed: Some(now),
        }),
    }
}
