//! Where a pod goes: pure. Two tables, one row per rule: filters say why not, scores say how well.
//!
//! Rules, weights and messages are upstream's default profile. Preemption is not here yet.

use super::snapshot::{NodeInfo, Snapshot, scored};
use super::suits;
use super::terms::{Lack, Terms};
use crate::controllers::view::pod::Pod;
use crate::controllers::view::taints::Effect;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// Best score of one rule.
const SCORE_MAX: i64 = 100;
/// With fewer nodes than this every one is looked at.
const SAMPLE_NODES_MIN: usize = 100;
/// The taint a cordoned node stands for.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why a node will not do. Printed as upstream says it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    Name,
    Unschedulable,
    Taint { key: Box<str>, value: Box<str> },
    Labels,
    Ports,
    TooManyPods,
    Insufficient(Box<str>),
    Pods(Lack),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Name => f.write_str("node(s) didn't match the requested node name"),
            Reason::Unschedulable => f.write_str("node(s) were unschedulable"),
            Reason::Taint { key, value } => write!(f, "node(s) had untolerated taint {{{key}: {value}}}"),
            Reason::Labels => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Reason::Ports => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Reason::TooManyPods => f.write_str("Too many pods"),
            Reason::Insufficient(what) => write!(f, "Insufficient {what}"),
            Reason::Pods(Lack::Affinity) => f.write_str("node(s) didn't match pod affinity rules"),
            Reason::Pods(Lack::AntiAffinity) => f.write_str("node(s) didn't match pod anti-affinity rules"),
            Reason::Pods(Lack::OthersAntiAffinity) => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
            Reason::Pods(Lack::Spread) => f.write_str("node(s) didn't match pod topology spread constraints"),
            Reason::Pods(Lack::SpreadLabel) => {
                f.write_str("node(s) didn't match pod topology spread constraints (missing required label)")
            }
        }
    }
}

pub enum Decision {
    Place(Rc<str>),
    /// Upstream's message, counted by reason.
    Unschedulable(String),
}

struct Case<'a> {
    pod: &'a Pod,
    terms: Terms<'a>,
}

type Filter = fn(&Case<'_>, &NodeInfo, &mut Vec<Reason>);

/// In upstream's order; the first that objects ends the look at a node.
const FILTERS: [Filter; 6] = [unschedulable, taints, labels, ports, resources, others];

enum Scale {
    /// Already 0 to 100.
    AsIs,
    /// The highest becomes 100.
    Up,
    /// The highest becomes 0.
    Down,
    /// Lowest to highest becomes 0 to 100.
    Range,
}

type Score = fn(&Case<'_>, &NodeInfo) -> i64;

/// Weight, how it is scaled, how it is found.
const SCORES: [(i64, Scale, Score); 8] = [
    (3, Scale::Down, avoided_taints),
    (2, Scale::Up, preferred_labels),
    (1, Scale::AsIs, least_allocated),
    (1, Scale::AsIs, balanced),
    (2, Scale::Down, crowding),
    (2, Scale::Range, preferred_pods),
    (1, Scale::AsIs, image_locality),
    (2, Scale::Down, siblings),
];

/// Finds the node for a pod. `start` says where in the nodes to begin, so that a sample is not always the same one; also given
/// back is how many nodes were looked at.
pub fn plan(pod: &Pod, snapshot: &Snapshot, start: usize) -> (Decision, usize) {
    let nodes = snapshot.nodes();
    if nodes.is_empty() {
        return (Decision::Unschedulable("no nodes available to schedule pods".into()), 0);
    }
    let case = Case { pod, terms: Terms::work_out(pod, snapshot) };
    let enough = sample(nodes.len());
    let mut fit: Vec<&NodeInfo> = Vec::new();
    let mut refused: BTreeMap<Reason, usize> = BTreeMap::new();
    let mut looked = 0;
    let mut why = Vec::new();
    let from = start % nodes.len();
    for info in nodes.iter().skip(from).chain(nodes.iter().take(from)) {
        looked += 1;
        for filter in FILTERS {
            filter(&case, info, &mut why);
            if !why.is_empty() {
                break;
            }
        }
        if why.is_empty() {
            fit.push(info);
            if fit.len() >= enough {
                break;
            }
        }
        for reason in why.drain(..) {
            *refused.entry(reason).or_insert(0) += 1;
        }
    }
    match best(&case, &fit) {
        Some(info) => (Decision::Place(info.node.name().clone()), looked),
        None => (Decision::Unschedulable(message(nodes.len(), &refused)), looked),
    }
}

/// How many fitting nodes are enough to choose from (upstream's adaptive percentage).
fn sample(nodes: usize) -> usize {
    if nodes <= SAMPLE_NODES_MIN {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(SAMPLE_NODES_MIN)
}

fn message(nodes: usize, refused: &BTreeMap<Reason, usize>) -> String {
    let mut reasons: Vec<String> = refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

fn best<'a>(case: &Case<'_>, fit: &[&'a NodeInfo]) -> Option<&'a NodeInfo> {
    if fit.len() < 2 {
        return fit.first().copied();
    }
    let mut total = vec![0i64; fit.len()];
    for (weight, scale, score) in &SCORES {
        let mut raw: Vec<i64> = fit.iter().map(|info| score(case, info)).collect();
        scale_to_max(scale, &mut raw);
        for (sum, score) in total.iter_mut().zip(raw) {
            *sum = sum.saturating_add(score.saturating_mul(*weight));
        }
    }
    let most = total.iter().copied().max()?;
    fit.iter().zip(total).find(|(_, score)| *score == most).map(|(info, _)| *info)
}

fn scale_to_max(scale: &Scale, raw: &mut [i64]) {
    let high = raw.iter().copied().max().unwrap_or(0);
    let low = raw.iter().copied().min().unwrap_or(0);
    for score in raw {
        *score = match scale {
            Scale::AsIs => *score,
            Scale::Up if high <= 0 => 0,
            Scale::Up => score.saturating_mul(SCORE_MAX) / high,
            Scale::Down if high <= 0 => SCORE_MAX,
            Scale::Down => SCORE_MAX - score.saturating_mul(SCORE_MAX) / high,
            Scale::Range if high == low => 0,
            Scale::Range => score.saturating_sub(low).saturating_mul(SCORE_MAX) / high.saturating_sub(low),
        };
    }
}

fn unschedulable(case: &Case<'_>, info: &NodeInfo, why: &mut Vec<Reason>) {
    if info.node.unschedulable && !suits::bears(case.pod, UNSCHEDULABLE, Effect::NoSchedule) {
        why.push(Reason::Unschedulable);
    }
}

fn taints(case: &Case<'_>, info: &NodeInfo, why: &mut Vec<Reason>) {
    let refusing = suits::first_untolerated(case.pod, &info.node);
    why.extend(refusing.map(|(key, value)| Reason::Taint { key: key.into(), value: value.into() }));
}

fn labels(case: &Case<'_>, info: &NodeInfo, why: &mut Vec<Reason>) {
    if !suits::by_labels(case.pod, &info.node) {
        why.push(Reason::Labels);
    }
}

fn ports(case: &Case<'_>, info: &NodeInfo, why: &mut Vec<Reason>) {
    let wanted = &case.pod.host_ports;
    if wanted.is_empty() {
        return;
    }
    let taken = info.pods.iter().flat_map(|pod| pod.host_ports.iter());
    if taken.into_iter().any(|port| wanted.iter().any(|want| want.clashes(port))) {
        why.push(Reason::Ports);
    }
}

fn resources(case: &Case<'_>, info: &NodeInfo, why: &mut Vec<Reason>) {
    let (has, used, wants) = (&info.node.allocatable, &info.used, &case.pod.requests);
    if used.pods.saturating_add(1) > has.pods {
        why.push(Reason::TooManyPods);
    }
    let mut check = |name: &str, wants: i64, used: i64, has: i64| {
        if wants > 0 && wants > has.saturating_sub(used) {
            why.push(Reason::Insufficient(name.into()));
        }
    };
    check("cpu", wants.cpu_milli, used.cpu_milli, has.cpu_milli);
    check("memory", wants.memory_bytes, used.memory_bytes, has.memory_bytes);
    check("ephemeral-storage", wants.ephemeral_bytes, used.ephemeral_bytes, has.ephemeral_bytes);
    for (name, amount) in &wants.extended {
        check(name, *amount, used.extended(name), has.extended(name));
    }
}

fn others(case: &Case<'_>, info: &NodeInfo, why: &mut Vec<Reason>) {
    why.extend(case.terms.check(info).map(Reason::Pods));
}

fn avoided_taints(case: &Case<'_>, info: &NodeInfo) -> i64 {
    let soft = info.node.taints.iter().filter(|t| t.effect == Effect::PreferNoSchedule);
    let refused = soft.filter(|taint| !case.pod.tolerations.iter().any(|t| t.tolerates(taint)));
    i64::try_from(refused.count()).unwrap_or(i64::MAX)
}

fn preferred_labels(case: &Case<'_>, info: &NodeInfo) -> i64 {
    let preferred = case.pod.affinity.iter().flat_map(|a| a.node_preferred.iter());
    preferred.filter(|(_, term)| term.matches(info.node.name(), info.node.labels())).map(|(weight, _)| *weight).sum()
}

/// Share of cpu and memory in use if the pod came here, in 1/10000 each.
fn shares(case: &Case<'_>, info: &NodeInfo) -> [i64; 2] {
    let (cpu, memory) = scored(case.pod);
    let share = |used: i64, has: i64| {
        if has <= 0 { 10_000 } else { (i128::from(used) * 10_000 / i128::from(has)).clamp(0, 10_000) as i64 }
    };
    [
        share(info.scored_cpu_milli.saturating_add(cpu), info.node.allocatable.cpu_milli),
        share(info.scored_memory_bytes.saturating_add(memory), info.node.allocatable.memory_bytes),
    ]
}

fn least_allocated(case: &Case<'_>, info: &NodeInfo) -> i64 {
    let [cpu, memory] = shares(case, info);
    (20_000 - cpu - memory) * SCORE_MAX / 20_000
}

/// The nearer the shares of cpu and memory are to each other, the better.
fn balanced(case: &Case<'_>, info: &NodeInfo) -> i64 {
    let [cpu, memory] = shares(case, info);
    SCORE_MAX - (cpu - memory).abs() * SCORE_MAX / 20_000
}

fn crowding(case: &Case<'_>, info: &NodeInfo) -> i64 {
    case.terms.crowding(info)
}

fn preferred_pods(case: &Case<'_>, info: &NodeInfo) -> i64 {
    case.terms.preference(info)
}

/// Has the node the images already? From 23 MB on it counts, from 1 GB per container fully, as upstream.
fn image_locality(case: &Case<'_>, info: &NodeInfo) -> i64 {
    const LOW: i64 = 23 << 20;
    let images = i64::try_from(case.pod.images.len()).unwrap_or(1).max(1);
    let high = (1000i64 << 20).saturating_mul(images);
    let size = |image: &str| info.node.images.iter().find(|(name, _)| &**name == image).map_or(0, |(_, size)| *size);
    let there: i64 = case.pod.images.iter().map(|image| size(image)).sum();
    (there.clamp(LOW, high) - LOW) * SCORE_MAX / (high - LOW)
}

/// Pods of the same controller on the node: replicas spread without being told to.
fn siblings(case: &Case<'_>, info: &NodeInfo) -> i64 {
    let Some(owner) = case.pod.meta.controller.as_ref().filter(|_| !case.terms.has_soft()) else { return 0 };
    let of_owner = info.pods.iter().filter(|pod| pod.meta.controlled_by(&owner.uid) && pod.meta.deleting.is_none());
    i64::try_from(of_owner.count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
