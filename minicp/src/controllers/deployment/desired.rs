//! A Deployment as its plan reads it: parsed from the whole object when it is reconciled.

use crate::controllers::view::apps::{REVISION, template_fingerprint};
use crate::controllers::view::{Meta, time_at};
use mote_api::time::Time;
use mote_api::tree::{Value, bool_at, i64_at, list_at, str_at};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    Recreate,
    /// Absolute numbers of pods: surge rounded up, unavailable rounded down, not both zero.
    Rolling {
        surge: i64,
        unavailable: i64,
    },
}

#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Condition {
    pub kind: String,
    pub status: &'static str,
    pub reason: String,
    pub message: String,
    pub updated: Option<Time>,
    pub changed: Option<Time>,
}

#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Status {
    pub observed_generation: i64,
    pub replicas: i64,
    pub updated: i64,
    pub ready: i64,
    pub available: i64,
    pub unavailable: i64,
    pub conditions: Vec<Condition>,
}

impl Status {
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }
}

pub struct Deployment {
    pub meta: Meta,
    pub replicas: i64,
    pub strategy: Strategy,
    pub paused: bool,
    pub min_ready_seconds: i64,
    pub history_max: usize,
    pub deadline_seconds: Option<i64>,
    pub template: u64,
    pub collisions: i64,
    pub revision: i64,
    pub status: Status,
}

impl Deployment {
    pub fn parse(object: &Value) -> Self {
        let replicas = i64_at(object, &["spec", "replicas"]).unwrap_or(1).max(0);
        let null = Value::Null;
        let rolling = object.pointer("/spec/strategy/rollingUpdate").unwrap_or(&null);
        let mut unavailable = portion(rolling.get("maxUnavailable"), replicas, false);
        let surge = portion(rolling.get("maxSurge"), replicas, true);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        let count = |field: &str| i64_at(object, &["status", field]).unwrap_or(0);
        Deployment {
            meta: Meta::parse(object),
            replicas,
            strategy: if str_at(object, &["spec", "strategy", "type"]) == "Recreate" {
                Strategy::Recreate
            } else {
                Strategy::Rolling { surge, unavailable: unavailable.min(replicas) }
            },
            paused: bool_at(object, &["spec", "paused"]).unwrap_or(false),
            min_ready_seconds: i64_at(object, &["spec", "minReadySeconds"]).unwrap_or(0),
            history_max: i64_at(object, &["spec", "revisionHistoryLimit"])
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(10),
            deadline_seconds: i64_at(object, &["spec", "progressDeadlineSeconds"]).filter(|s| *s < i64::from(i32::MAX)),
            template: template_fingerprint(object),
            collisions: count("collisionCount"),
            revision: mote_api::meta::annotation(object, REVISION).parse().unwrap_or(0),
            status: Status {
                observed_generation: count("observedGeneration"),
                replicas: count("replicas"),
                updated: count("updatedReplicas"),
                ready: count("readyReplicas"),
                available: count("availableReplicas"),
                unavailable: count("unavailableReplicas"),
                conditions: list_at(object, &["status", "conditions"]).iter().map(condition).collect(),
            },
        }
    }
}

fn condition(c: &Value) -> Condition {
    Condition {
        kind: str_at(c, &["type"]).into(),
        status: match str_at(c, &["status"]) {
            "True" => "True",
            "False" => "False",
            _ => "Unknown",
        },
        reason: str_at(c, &["reason"]).into(),
        message: str_at(c, &["message"]).into(),
        updated: time_at(c, &["lastUpdateTime"]),
        changed: time_at(c, &["lastTransitionTime"]),
    }
}

/// A number or a percentage of `total`; 25 % where nothing is said.
pub fn portion(value: Option<&Value>, total: i64, round_up: bool) -> i64 {
    let percent = match value {
        Some(Value::Number(n)) => return n.as_i64().unwrap_or(0).max(0),
        Some(Value::String(text)) => match text.strip_suffix('%') {
            Some(percent) => percent.parse().unwrap_or(0),
            None => return text.parse().unwrap_or(0),
        },
        _ => 25,
    };
    let hundredths = total.saturating_mul(percent).max(0);
    if round_up { hundredths.saturating_add(99) / 100 } else { hundredths / 100 }
}
