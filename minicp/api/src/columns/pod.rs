//! The row of a pod: upstream's `printPod`, whose STATUS tells more than the phase does.

use super::{condition, condition_is_true, name, or_none, since_creation};
use crate::meta;
use crate::time::{Time, human};
use crate::tree::{Value, at, bool_at, i64_at, json, list_at, str_at};

pub(super) fn cells(pod: &Value, now: Time) -> Vec<Value> {
    let told = Summary::of(pod);
    let restarts = match told.last_restart {
        Some(at) if told.restarts != 0 => format!("{} ({} ago)", told.restarts, human(now.seconds_since(at))),
        _ => told.restarts.to_string(),
    };
    vec![
        name(pod),
        json!(format!("{}/{}", told.ready, told.total)),
        json!(told.reason),
        json!(restarts),
        since_creation(pod, now),
        or_none(
            list_at(pod, &["status", "podIPs"])
                .first()
                .map_or(str_at(pod, &["status", "podIP"]), |i| str_at(i, &["ip"])),
        ),
        or_none(str_at(pod, &["spec", "nodeName"])),
        or_none(str_at(pod, &["status", "nominatedNodeName"])),
        json!(readiness_gates(pod)),
    ]
}

/// What STATUS shows: `Running`, `Init:0/1`, `CrashLoopBackOff`, `Terminating`, ...
pub fn reason(pod: &Value) -> String {
    Summary::of(pod).reason
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list_at(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|g| condition_is_true(pod, str_at(g, &["conditionType"]))).count();
    format!("{open}/{}", gates.len())
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<Time>,
}

fn last_end(status: &Value) -> Option<Time> {
    Time::parse(str_at(status, &["lastState", "terminated", "finishedAt"]))
}

/// `OOMKilled`, `Signal:9`, `ExitCode:1`
fn ended(terminated: &Value) -> String {
    let signal = i64_at(terminated, &["signal"]).unwrap_or(0);
    match str_at(terminated, &["reason"]) {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", i64_at(terminated, &["exitCode"]).unwrap_or(0)),
        reason => reason.to_string(),
    }
}

impl Summary {
    fn of(pod: &Value) -> Summary {
        let phase = str_at(pod, &["status", "phase"]);
        let status_reason = str_at(pod, &["status", "reason"]);
        let gated = condition(pod, "PodScheduled").is_some_and(|c| str_at(c, &["reason"]) == "SchedulingGated");
        let begins = if gated {
            "SchedulingGated"
        } else if !status_reason.is_empty() {
            status_reason
        } else {
            phase
        };
        let mut told = Summary {
            ready: 0,
            total: list_at(pod, &["spec", "containers"]).len(),
            reason: begins.to_string(),
            restarts: 0,
            last_restart: None,
        };
        let initializing = told.init_containers(pod);
        if !initializing || condition_is_true(pod, "Initialized") {
            told.containers(pod);
        }
        if meta::is_deleting(pod) {
            if status_reason == "NodeLost" {
                told.reason = "Unknown".into();
            } else if phase != "Succeeded" && phase != "Failed" {
                told.reason = "Terminating".into();
            }
        }
        told
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += i64_at(status, &["restartCount"]).unwrap_or(0);
        self.last_restart = self.last_restart.max(last_end(status));
    }

    /// Whether an init container still keeps the others waiting. Sidecars (init containers that restart) count like containers.
    fn init_containers(&mut self, pod: &Value) -> bool {
        let specs = list_at(pod, &["spec", "initContainers"]);
        let is_sidecar = |c: &&Value| str_at(c, &["restartPolicy"]) == "Always";
        self.total += specs.iter().filter(is_sidecar).count();
        let mut sidecars = Summary { ready: 0, total: 0, reason: String::new(), restarts: 0, last_restart: None };
        let mut initializing = false;
        for (i, status) in list_at(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
            let sidecar = specs.iter().filter(is_sidecar).any(|c| str_at(c, &["name"]) == str_at(status, &["name"]));
            self.count_restarts(status);
            if sidecar {
                sidecars.count_restarts(status);
            }
            let terminated = at(status, &["state", "terminated"]);
            if terminated.is_some_and(|t| i64_at(t, &["exitCode"]).unwrap_or(0) == 0) {
                continue;
            }
            if sidecar && bool_at(status, &["started"]) == Some(true) {
                self.ready += usize::from(bool_at(status, &["ready"]) == Some(true));
                continue;
            }
            self.reason = match (terminated, str_at(status, &["state", "waiting", "reason"])) {
                (Some(t), _) => format!("Init:{}", ended(t)),
                (None, "" | "PodInitializing") => format!("Init:{i}/{}", specs.len()),
                (None, why) => format!("Init:{why}"),
            };
            initializing = true;
            break;
        }
        if !initializing || condition_is_true(pod, "Initialized") {
            (self.restarts, self.last_restart) = (sidecars.restarts, sidecars.last_restart);
        }
        initializing
    }

    fn containers(&mut self, pod: &Value) {
        let mut running = false;
        for status in list_at(pod, &["status", "containerStatuses"]).iter().rev() {
            self.count_restarts(status);
            let waiting = str_at(status, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                self.reason = waiting.to_string();
            } else if let Some(terminated) = at(status, &["state", "terminated"]) {
                self.reason = ended(terminated);
            } else if bool_at(status, &["ready"]) == Some(true) && at(status, &["state", "running"]).is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if condition_is_true(pod, "Ready") { "Running" } else { "NotReady" }.into();
        }
    }
}
