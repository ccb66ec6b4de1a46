//! Whether a node lives, which taints say so, which pods have to go: pure.

use crate::controllers::Limits;
use crate::controllers::view::node::{Node, PRESSURES, Truth};
use crate::controllers::view::pod::Pod;
use crate::controllers::view::taints::{Effect, Taint};
use mote_api::time::Time;
use mote_api::tree::{Value, json, set};
use std::rc::Rc;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What we know of the heartbeat.
#[derive(Clone, Copy)]
pub struct Beat {
    /// Since we last saw it, or since we began to look.
    pub silent_ms: u64,
}

#[derive(Default)]
pub struct Plan {
    /// Write that the node's state is unknown.
    pub unknown: bool,
    /// The taints it should have, if they differ from those it has.
    pub taints: Option<Value>,
    /// Pods to be marked not ready.
    pub unready: Vec<Rc<Pod>>,
    pub evict: Vec<Rc<Pod>>,
    pub again_in_ms: Option<u64>,
}

/// `pods`: those bound to the node that are neither ended nor being deleted.
pub fn plan(node: &Node, beat: Beat, pods: &[Rc<Pod>], limits: &Limits, now: Time) -> Plan {
    let mut plan = Plan::default();
    let silent = beat.silent_ms >= limits.node_grace_ms;
    plan.unknown = silent && node.ready != Some(Truth::Unknown);
    let ready = if silent { Some(Truth::Unknown) } else { node.ready };
    let taints = wanted_taints(node, ready, now);
    if taints.len() != node.taints.len() || taints.iter().any(|t| !node.has_taint(&t.key, t.effect)) {
        plan.taints = Some(taints.iter().map(taint_value).collect());
    }
    if matches!(ready, Some(Truth::False | Truth::Unknown)) {
        plan.unready = pods.iter().filter(|pod| pod.ready).cloned().collect();
    }
    let mut soonest = if silent { None } else { Some(limits.node_grace_ms.saturating_sub(beat.silent_ms)) };
    for pod in pods {
        match evict_in_ms(pod, &taints, limits.eviction_seconds, now) {
            Some(0) => plan.evict.push(pod.clone()),
            Some(ms) => soonest = Some(soonest.map_or(ms, |s| s.min(ms))),
            None => {}
        }
    }
    plan.again_in_ms = soonest;
    plan
}

/// The node's own taints, and ours as its state asks for.
fn wanted_taints(node: &Node, ready: Option<Truth>, now: Time) -> Vec<Taint> {
    let ours = |key: &str| {
        key == NOT_READY
            || key == UNREACHABLE
            || key == UNSCHEDULABLE
            || PRESSURES.iter().any(|(_, taint)| *taint == key)
    };
    let mut wanted: Vec<Taint> = node.taints.iter().filter(|t| !ours(&t.key)).cloned().collect();
    let mut want = |key: &str, effect: Effect| {
        let kept = node.taints.iter().find(|t| &*t.key == key && t.effect == effect).cloned();
        let added = (effect == Effect::NoExecute).then_some(now);
        wanted.push(kept.unwrap_or(Taint { key: key.into(), value: "".into(), effect, added }));
    };
    match ready {
        Some(Truth::True) | None => {}
        Some(Truth::False) => {
            want(NOT_READY, Effect::NoSchedule);
            want(NOT_READY, Effect::NoExecute);
        }
        Some(Truth::Unknown) => {
            want(UNREACHABLE, Effect::NoSchedule);
            want(UNREACHABLE, Effect::NoExecute);
        }
    }
    if node.unschedulable {
        want(UNSCHEDULABLE, Effect::NoSchedule);
    }
    for (condition, taint) in PRESSURES {
        if node.pressures.contains(&condition) {
            want(taint, Effect::NoSchedule);
        }
    }
    wanted
}

fn taint_value(taint: &Taint) -> Value {
    let mut value = json!({"key": &*taint.key, "effect": taint.effect.name()});
    if !taint.value.is_empty() {
        set(&mut value, &["value"], json!(&*taint.value));
    }
    if let Some(added) = taint.added {
        set(&mut value, &["timeAdded"], json!(added.to_string()));
    }
    value
}

/// When the pod has to leave because of NoExecute taints: `None` never, 0 now. The shortest toleration counts.
fn evict_in_ms(pod: &Pod, taints: &[Taint], default_seconds: i64, now: Time) -> Option<u64> {
    let mut soonest: Option<u64> = None;
    for taint in taints.iter().filter(|t| t.effect == Effect::NoExecute) {
        let bearing: Vec<Option<i64>> =
            pod.tolerations.iter().filter(|t| t.tolerates(taint)).map(|t| t.seconds).collect();
        let lost = &*taint.key == NOT_READY || &*taint.key == UNREACHABLE;
        let seconds = match bearing.iter().flatten().min() {
            Some(seconds) => (*seconds).max(0),
            None if !bearing.is_empty() => continue,
            None if lost => default_seconds,
            None => 0,
        };
        let gone = taint.added.map_or(0, |added| now.seconds_since(added));
        let left = u64::try_from(seconds.saturating_sub(gone)).unwrap_or(0).saturating_mul(1000);
        soonest = Some(soonest.map_or(left, |s| s.min(left)));
    }
    soonest
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
