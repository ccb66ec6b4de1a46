//! What a ReplicaSet does next: pure. The ranking of victims is upstream's (`controller_utils.go`, ActivePodsWithRanks).

use crate::controllers::view::apps::TEMPLATE_HASH;
use crate::controllers::view::apps::{Counts, ReplicaSet};
use crate::controllers::view::pod::{Phase, Pod};
use mote_api::time::Time;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A pod of the namespace that the ReplicaSet may have to do with.
pub struct Candidate {
    pub pod: Rc<Pod>,
    /// Its deletion is under way, or asked for by us.
    pub leaving: bool,
}

#[derive(Default)]
pub struct Plan {
    /// Pods without a controller that match: take them over.
    pub adopt: Vec<Rc<Pod>>,
    /// Ours that match no more: let them go.
    pub release: Vec<Rc<Pod>>,
    pub create: usize,
    pub delete: Vec<Rc<Pod>>,
    /// Written if it differs from what the object says.
    pub status: Counts,
    pub again_in_ms: Option<u64>,
}

/// `pods`: everything in the namespace that is ours or matches. `related`: running pods per node of all ReplicaSets of the same owner.
pub fn plan(
    set: &ReplicaSet,
    pods: &[Candidate],
    related: &BTreeMap<Rc<str>, usize>,
    burst_max: usize,
    now: Time,
) -> Plan {
    let mut plan = Plan::default();
    let mut mine = Vec::new();
    for Candidate { pod, leaving } in pods {
        let ours = pod.meta.controlled_by(&set.meta.uid);
        let fits = set.selector.matches(&pod.meta.labels);
        let active = !leaving && !pod.ended();
        match (ours, fits) {
            (true, false) if !leaving => plan.release.push(pod.clone()),
            (true, true) if active => mine.push(pod.clone()),
            (false, true) if active && pod.meta.controller.is_none() && !pod.mirror && set.meta.deleting.is_none() => {
                plan.adopt.push(pod.clone());
                mine.push(pod.clone());
            }
            _ => {}
        }
    }
    let wanted = usize::try_from(set.replicas).unwrap_or(0);
    if set.meta.deleting.is_none() {
        plan.create = wanted.saturating_sub(mine.len()).min(burst_max);
        let surplus = mine.len().saturating_sub(wanted).min(burst_max);
        if surplus > 0 {
            let mut ranked = mine.clone();
            ranked.sort_by(|a, b| rank(a, related, now).cmp(&rank(b, related, now)));
            plan.delete = ranked.into_iter().take(surplus).collect();
        }
    }
    plan.status = counts(set, &mine, now);
    plan.again_in_ms = mine.iter().filter_map(|pod| pod.available_in_ms(set.min_ready_seconds, now)).min();
    plan
}

fn counts(set: &ReplicaSet, mine: &[Rc<Pod>], now: Time) -> Counts {
    let count = |f: &dyn Fn(&Pod) -> bool| i64::try_from(mine.iter().filter(|pod| f(pod)).count()).unwrap_or(i64::MAX);
    let hash = set.meta.labels.get(TEMPLATE_HASH);
    Counts {
        replicas: count(&|_| true),
        labelled: count(&|pod| hash.is_none() || pod.meta.labels.get(TEMPLATE_HASH) == hash),
        ready: count(&|pod| pod.ready),
        available: count(&|pod| pod.available(set.min_ready_seconds, now)),
        observed_generation: set.meta.generation,
    }
}

type Rank<'a> =
    (bool, u8, bool, i64, std::cmp::Reverse<usize>, i64, std::cmp::Reverse<i64>, std::cmp::Reverse<i64>, &'a str);

/// Smallest first to go: unscheduled, pending, unready, cheap, crowded together, ready for less long, restarted more often, younger.
fn rank<'a>(pod: &'a Pod, related: &BTreeMap<Rc<str>, usize>, now: Time) -> Rank<'a> {
    let phase = match pod.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    };
    let crowd = pod.node.as_ref().and_then(|node| related.get(node)).copied().unwrap_or(0);
    // ages are compared by powers of two: a few seconds are no reason, so that victims spread over nodes and ages
    let coarse = |time: Time| i64::from(64 - now.seconds_since(time).max(0).leading_zeros());
    let ready_for = if pod.ready { pod.ready_since.map_or(0, coarse) } else { 0 };
    (
        pod.node.is_some(),
        phase,
        pod.ready,
        pod.deletion_cost,
        std::cmp::Reverse(crowd),
        ready_for,
        std::cmp::Reverse(pod.restarts),
        std::cmp::Reverse(pod.meta.created.unix_micros()),
        &pod.meta.key.name,
    )
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
