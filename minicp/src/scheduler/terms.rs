//! Wishes about other pods, worked out once per pod to be placed: affinity, anti-affinity and spreading by topology.

use super::snapshot::{NodeInfo, Snapshot};
use super::suits;
use crate::controllers::view::affinity::{PodTerm, Spread};
use crate::controllers::view::pod::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A place in a topology: key and value of a node label.
type Domain = (Box<str>, Box<str>);

fn domain(info: &NodeInfo, key: &str) -> Option<Domain> {
    info.node.labels().get(key).map(|value| (key.into(), value.into()))
}

/// One hard spread constraint and how many pods each domain has.
struct Count<'a> {
    spread: &'a Spread,
    per_value: BTreeMap<Box<str>, i64>,
    least: i64,
    /// The pod counts itself.
    own: i64,
}

/// What the wishes of this pod and of those already there come to.
#[derive(Default)]
pub struct Terms<'a> {
    /// Domains closed by pods that are there.
    closed_by_others: BTreeSet<Domain>,
    /// Domains closed by the pod's own anti-affinity.
    closed: BTreeSet<Domain>,
    /// Per required affinity term: where a pod is that it wants to be with.
    wanted: Vec<(&'a PodTerm, BTreeSet<Box<str>>)>,
    /// Nobody is there yet whom it wants to be with but itself: the first of a group may go anywhere.
    first_of_group: bool,
    preferred: BTreeMap<Domain, i64>,
    hard: Vec<Count<'a>>,
    soft: Vec<Count<'a>>,
}

/// What a node lacks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    Affinity,
    AntiAffinity,
    OthersAntiAffinity,
    Spread,
    SpreadLabel,
}

impl<'a> Terms<'a> {
    pub fn work_out(pod: &'a Pod, snapshot: &Snapshot) -> Self {
        let mut terms = Terms::default();
        terms.others(pod, snapshot);
        if let Some(affinity) = &pod.affinity {
            terms.wanted = affinity.with_required.iter().map(|term| (term, BTreeSet::new())).collect();
            let looks = !affinity.with_required.is_empty()
                || !affinity.without_required.is_empty()
                || !affinity.with_preferred.is_empty()
                || !affinity.without_preferred.is_empty();
            for info in snapshot.nodes().iter().filter(|_| looks) {
                for other in &info.pods {
                    terms.own(pod, info, other);
                }
            }
            terms.first_of_group = terms.wanted.iter().all(|(_, values)| values.is_empty())
                && affinity.with_required.iter().all(|term| term.matches(&pod.meta));
        }
        for spread in &pod.spread {
            let count = Count::new(spread, pod, snapshot);
            if spread.hard { terms.hard.push(count) } else { terms.soft.push(count) }
        }
        terms
    }

    fn others(&mut self, pod: &Pod, snapshot: &Snapshot) {
        for (info, other) in snapshot.opinionated() {
            let Some(affinity) = &other.affinity else { continue };
            for term in affinity.without_required.iter().filter(|term| term.matches(&pod.meta)) {
                self.closed_by_others.extend(domain(info, &term.topology_key));
            }
            let weighed = affinity.with_required.iter().map(|term| (term, 1));
            let weighed = weighed.chain(affinity.with_preferred.iter().map(|term| (term, term.weight)));
            let weighed = weighed.chain(affinity.without_preferred.iter().map(|term| (term, -term.weight)));
            for (term, weight) in weighed.filter(|(term, _)| term.matches(&pod.meta)) {
                self.prefer(info, term, weight);
            }
        }
    }

    fn own(&mut self, pod: &'a Pod, info: &NodeInfo, other: &Pod) {
        let Some(affinity) = &pod.affinity else { return };
        for (term, values) in &mut self.wanted {
            if term.matches(&other.meta) {
                values.extend(info.node.labels().get(&term.topology_key).map(Into::into));
            }
        }
        for term in affinity.without_required.iter().filter(|term| term.matches(&other.meta)) {
            self.closed.extend(domain(info, &term.topology_key));
        }
        let preferred = affinity.with_preferred.iter().map(|term| (term, term.weight));
        let preferred = preferred.chain(affinity.without_preferred.iter().map(|term| (term, -term.weight)));
        for (term, weight) in preferred.filter(|(term, _)| term.matches(&other.meta)) {
            self.prefer(info, term, weight);
        }
    }

    fn prefer(&mut self, info: &NodeInfo, term: &PodTerm, weight: i64) {
        if let Some(domain) = domain(info, &term.topology_key) {
            let sum = self.preferred.entry(domain).or_insert(0);
            *sum = sum.saturating_add(weight);
        }
    }

    /// What this node lacks for the pod, if anything.
    pub fn check(&self, info: &NodeInfo) -> Option<Lack> {
        let labels = info.node.labels();
        let within = |domains: &BTreeSet<Domain>| domains.iter().any(|(key, value)| labels.get(key) == Some(&**value));
        for count in &self.hard {
            let Some(value) = labels.get(&count.spread.topology_key) else { return Some(Lack::SpreadLabel) };
            let has = count.per_value.get(value).copied().unwrap_or(0);
            if has.saturating_add(count.own).saturating_sub(count.least) > count.spread.max_skew {
                return Some(Lack::Spread);
            }
        }
        let together = self.wanted.iter().all(|(term, values)| {
            labels.get(&term.topology_key).is_some_and(|value| self.first_of_group || values.contains(value))
        });
        if !together {
            return Some(Lack::Affinity);
        }
        if within(&self.closed) {
            return Some(Lack::AntiAffinity);
        }
        within(&self.closed_by_others).then_some(Lack::OthersAntiAffinity)
    }

    /// Sum of the weights of preferred terms that this node serves.
    pub fn preference(&self, info: &NodeInfo) -> i64 {
        let labels = info.node.labels();
        let served = self.preferred.iter().filter(|((key, value), _)| labels.get(key) == Some(&**value));
        served.map(|(_, weight)| *weight).sum()
    }

    /// How crowded this node's domains are by soft constraints, in thousandths; less is better.
    pub fn crowding(&self, info: &NodeInfo) -> i64 {
        let one = |count: &Count<'_>| {
            let value = info.node.labels().get(&count.spread.topology_key)?;
            let has = count.per_value.get(value).copied().unwrap_or(0);
            // a constraint over few domains weighs less, as upstream: log2 of the number of domains, in thousandths
            let domains = u64::try_from(count.per_value.len()).unwrap_or(0).saturating_add(2);
            Some(
                has.saturating_mul(1000 * i64::from(domains.ilog2()))
                    .saturating_add((count.spread.max_skew - 1) * 1000),
            )
        };
        self.soft.iter().filter_map(one).sum()
    }

    pub fn has_soft(&self) -> bool {
        !self.soft.is_empty()
    }
}

impl<'a> Count<'a> {
    fn new(spread: &'a Spread, pod: &Pod, snapshot: &Snapshot) -> Self {
        let mut per_value: BTreeMap<Box<str>, i64> = BTreeMap::new();
        for info in snapshot.nodes() {
            let counts = (!spread.honor_affinity || suits::by_labels(pod, &info.node))
                && (!spread.honor_taints || suits::first_untolerated(pod, &info.node).is_none());
            let Some(value) = info.node.labels().get(&spread.topology_key).filter(|_| counts) else { continue };
            let fits = |other: &&Rc<Pod>| {
                other.meta.key.ns == pod.meta.key.ns
                    && other.meta.deleting.is_none()
                    && spread.selector.matches(&other.meta.labels)
            };
            let found = i64::try_from(info.pods.iter().filter(fits).count()).unwrap_or(i64::MAX);
            *per_value.entry(value.into()).or_insert(0) += found;
        }
        let domains = i64::try_from(per_value.len()).unwrap_or(i64::MAX);
        let least = if domains < spread.min_domains { 0 } else { per_value.values().copied().min().unwrap_or(0) };
        let own = i64::from(spread.selector.matches(&pod.meta.labels));
        Count { spread, per_value, least, own }
    }
}
