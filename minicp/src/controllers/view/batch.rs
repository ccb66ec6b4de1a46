//! Jobs and CronJobs.

use super::labels::Selector;
use super::{Meta, time_at};
use mote_api::time::Time;
use mote_api::tree::{Value, list_at, str_at};

pub struct Job {
    pub meta: Meta,
    pub selector: Selector,
    /// Condition Complete or Failed is true.
    pub end: Option<JobEnd>,
}

#[derive(Clone, Copy)]
pub struct JobEnd {
    pub failed: bool,
    pub at: Option<Time>,
}

impl Job {
    pub fn parse(object: &Value) -> Self {
        let end = list_at(object, &["status", "conditions"]).iter().find_map(|c| {
            let kind = str_at(c, &["type"]);
            let ended = matches!(kind, "Complete" | "Failed") && str_at(c, &["status"]) == "True";
            ended.then(|| JobEnd { failed: kind == "Failed", at: time_at(c, &["lastTransitionTime"]) })
        });
        Job { meta: Meta::parse(object), selector: Selector::parse(object.pointer("/spec/selector")), end }
    }
}

pub struct CronJob {
    pub meta: Meta,
}

impl CronJob {
    pub fn parse(object: &Value) -> Self {
        CronJob { meta: Meta::parse(object) }
    }
}
