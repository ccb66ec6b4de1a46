//! The conditions of a pod: ours, with the times of their transitions, and those of others as they are.

use mote_api::tree::{Map, Value, list_at, str_at};

use super::super::model::{Facts, Pod, Sandbox};
use super::super::plan::initialized;
use super::init_passed;
use crate::clock::{self, Moment};

pub(super) fn conditions(
    pod: &Pod,
    facts: &Facts,
    before: &Value,
    phase: &str,
    ended: bool,
    unready: &[String],
    now: Moment,
) -> Value {
    let completed = phase == "Succeeded";
    let why_unready = |yes: bool| -> (bool, &'static str, String) {
        match (yes, ended) {
            (true, _) => (true, "", String::new()),
            (false, true) => (false, if completed { "PodCompleted" } else { "PodFailed" }, String::new()),
            (false, false) => {
                (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
            }
        }
    };
    let sandbox = matches!(facts.sandbox, Sandbox::Ready { .. });
    let all_init = completed || initialized(pod, facts);
    let not_done: Vec<&str> = pod
        .containers
        .iter()
        .filter(|wanted| wanted.role.is_init() && !init_passed(wanted, facts))
        .map(|wanted| wanted.name.as_str())
        .collect();
    let initialised = match (all_init, completed) {
        (true, true) => (true, "PodCompleted", String::new()),
        (true, false) => (true, "", String::new()),
        (false, _) => {
            (false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", not_done.join(" ")))
        }
    };
    let containers_ready = !ended && unready.is_empty();
    let closed: Vec<&str> = list_at(&pod.object, &["spec", "readinessGates"])
        .iter()
        .map(|gate| str_at(gate, &["conditionType"]))
        .filter(|gate| {
            !list_at(&pod.object, &["status", "conditions"])
                .iter()
                .any(|c| str_at(c, &["type"]) == *gate && str_at(c, &["status"]) == "True")
        })
        .collect();
    let ready = match (containers_ready, closed.first()) {
        (true, Some(gate)) => (
            false,
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate {gate:?} does not exist."),
        ),
        (yes, _) => why_unready(yes),
    };
    let mine = [
        ("PodReadyToStartContainers", (sandbox, "", String::new())),
        ("Initialized", initialised),
        ("Ready", ready),
        ("ContainersReady", why_unready(containers_ready)),
        ("PodScheduled", (true, "", String::new())),
    ];
    let old = list_at(before, &["conditions"]);
    let mut out = Vec::new();
    for (kind, (yes, reason, message)) in mine {
        let word = if yes { "True" } else { "False" };
        let same = old.iter().find(|c| str_at(c, &["type"]) == kind && str_at(c, &["status"]) == word);
        let since = same.map(|c| str_at(c, &["lastTransitionTime"])).filter(|since| clock::parse(since).is_some());
        let mut entry = Map::new();
        entry.insert("type".into(), kind.into());
        entry.insert("status".into(), word.into());
        entry.insert("lastProbeTime".into(), Value::Null);
        entry.insert("lastTransitionTime".into(), since.map_or_else(|| now.rfc3339(), str::to_owned).into());
        if !reason.is_empty() {
            entry.insert("reason".into(), reason.into());
        }
        if !message.is_empty() {
            entry.insert("message".into(), message.into());
        }
        out.push(Value::Object(entry));
    }
    let foreign = list_at(&pod.object, &["status", "conditions"]).iter().filter(|c| !mine_type(str_at(c, &["type"])));
    out.extend(foreign.cloned());
    Value::Array(out)
}

fn mine_type(kind: &str) -> bool {
    matches!(kind, "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled")
}
