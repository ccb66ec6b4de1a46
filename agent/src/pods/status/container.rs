//! One entry of `containerStatuses`.

use super::super::model::{Exit, Facts, Instance, Pod, Role, State, Wanted};
use super::super::plan::{Step, step};
use crate::clock::Moment;
use mote_api::tree::{Map, Value, at, json, list_at, str_at};

/// The entry, and whether the container is ready. `blocked`: containers before it hold it back.
pub(super) fn container(
    pod: &Pod,
    wanted: &Wanted,
    facts: &Facts,
    before: &Value,
    blocked: bool,
    now: Moment,
) -> (Value, bool) {
    let runs = facts.runs.get(&wanted.name).map(Vec::as_slice).unwrap_or_default();
    let told = told(before, wanted);
    let newest = runs.first();
    let mut ready = false;
    let mut started = false;
    let (state, last) = match newest {
        None => {
            (waiting(pod, wanted, facts, blocked, now), at(told, &["lastState"]).cloned().unwrap_or_else(|| json!({})))
        }
        Some(run) => {
            let earlier = runs.get(1).and_then(terminated);
            match &run.state {
                State::Running => {
                    let probed = facts.probed.get(&run.id).copied();
                    started = probed.is_none_or(|probed| probed.started);
                    ready = started && probed.is_none_or(|probed| probed.ready);
                    (
                        json!({"running": {"startedAt": run.started.rfc3339()}}),
                        earlier.unwrap_or_else(|| kept_last(told)),
                    )
                }
                State::Exited(exit) => {
                    ready = wanted.role == Role::Init && exit.code == 0;
                    let this = terminated(run).unwrap_or_default();
                    match step(pod, wanted, facts, now) {
                        Step::Wait { reason, message, .. }
                            if pod.deleting.is_none() && reason != "ContainerCreating" =>
                        {
                            (waiting_as(reason, &message), this)
                        }
                        _ => (this, earlier.unwrap_or_else(|| kept_last(told))),
                    }
                }
            }
        }
    };
    let mut entry = Map::new();
    entry.insert("name".into(), wanted.name.clone().into());
    entry.insert("image".into(), newest.map_or(wanted.image.as_str(), |run| run.image.as_str()).into());
    entry.insert("imageID".into(), newest.map_or("", |run| run.image_id.as_str()).into());
    if let Some(run) = newest {
        entry.insert("containerID".into(), format!("mote://{}", run.id).into());
    }
    let restarts =
        newest.map_or_else(|| facts.first_attempt.get(&wanted.name).copied().unwrap_or(0), |run| run.attempt);
    entry.insert("restartCount".into(), restarts.into());
    entry.insert("ready".into(), ready.into());
    entry.insert("started".into(), started.into());
    entry.insert("state".into(), state);
    entry.insert("lastState".into(), last);
    (Value::Object(entry), ready)
}

fn told<'a>(before: &'a Value, wanted: &Wanted) -> &'a Value {
    list_at(before, &[wanted.role.statuses()])
        .iter()
        .find(|entry| str_at(entry, &["name"]) == wanted.name)
        .unwrap_or(&Value::Null)
}

fn kept_last(told: &Value) -> Value {
    at(told, &["lastState"]).cloned().unwrap_or_else(|| json!({}))
}

fn waiting_as(reason: &str, message: &str) -> Value {
    if message.is_empty() {
        json!({"waiting": {"reason": reason}})
    } else {
        json!({"waiting": {"reason": reason, "message": message}})
    }
}

fn waiting(pod: &Pod, wanted: &Wanted, facts: &Facts, blocked: bool, now: Moment) -> Value {
    if blocked {
        return waiting_as("PodInitializing", "");
    }
    match step(pod, wanted, facts, now) {
        Step::Wait { reason, message, .. } => waiting_as(reason, &message),
        _ if wanted.role == Role::App && pod.containers.iter().any(|other| other.role.is_init()) => {
            waiting_as("PodInitializing", "")
        }
        _ => waiting_as("ContainerCreating", ""),
    }
}

fn terminated(run: &Instance) -> Option<Value> {
    let exit = run.exit()?;
    let mut entry = Map::new();
    entry.insert("exitCode".into(), exit.code.into());
    if exit.signal != 0 {
        entry.insert("signal".into(), exit.signal.into());
    }
    entry.insert("reason".into(), reason(exit).into());
    let message = exit.cannot_run.as_deref().unwrap_or(&exit.message);
    if !message.is_empty() {
        entry.insert("message".into(), message.into());
    }
    entry.insert("startedAt".into(), run.started.rfc3339().into());
    entry.insert("finishedAt".into(), exit.finished.rfc3339().into());
    entry.insert("containerID".into(), format!("mote://{}", run.id).into());
    Some(json!({"terminated": Value::Object(entry)}))
}

fn reason(exit: &Exit) -> &'static str {
    match exit {
        Exit { cannot_run: Some(_), .. } => "ContainerCannotRun",
        Exit { oom_killed: true, .. } => "OOMKilled",
        Exit { code: 0, .. } => "Completed",
        _ => "Error",
    }
}
