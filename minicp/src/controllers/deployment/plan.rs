//! What a Deployment does next: pure. The arithmetic is upstream's (`pkg/controller/deployment`: rolling.go, sync.go, util).

use super::desired::{Deployment, Strategy};
use super::status;
use crate::controllers::view::apps::ReplicaSet;
use mote_api::time::Time;
use std::rc::Rc;

/// One write to a ReplicaSet.
pub struct Resize {
    pub set: Rc<ReplicaSet>,
    pub replicas: i64,
}

#[derive(Default)]
pub struct Plan {
    /// Make the ReplicaSet of the present template, of this size.
    pub create: Option<i64>,
    /// The ReplicaSet of the present template.
    pub new: Option<Rc<ReplicaSet>>,
    /// The revision that it and the Deployment carry.
    pub revision: i64,
    pub resize: Vec<Resize>,
    pub delete: Vec<Rc<ReplicaSet>>,
    pub status: super::desired::Status,
    pub again_in_ms: Option<u64>,
}

/// `sets`: the Deployment's own. `old_pods_run`: a pod of an old template still runs (asked by Recreate only).
pub fn plan(d: &Deployment, sets: &[Rc<ReplicaSet>], old_pods_run: bool, now: Time) -> Plan {
    let mut sets = sets.to_vec();
    sets.sort_by(|a, b| (a.meta.created, &a.meta.key.name).cmp(&(b.meta.created, &b.meta.key.name)));
    let new = sets.iter().find(|set| set.template == d.template).cloned();
    let old: Vec<Rc<ReplicaSet>> =
        sets.iter().filter(|s| new.as_ref().is_none_or(|n| n.meta.uid != s.meta.uid)).cloned().collect();
    let newest_old = old.iter().map(|set| set.revision).max().unwrap_or(0);
    let mut plan = Plan { new: new.clone(), ..Plan::default() };
    plan.revision = new.as_ref().map_or(0, |n| n.revision).max(newest_old.saturating_add(1));
    if new.is_none() && (d.paused || d.meta.deleting.is_some()) {
        plan.revision = d.revision;
    }
    if d.meta.deleting.is_none() {
        let rolls = matches!(d.strategy, Strategy::Rolling { .. });
        let scaling = rolls && sets.iter().any(|s| s.replicas > 0 && s.desired.is_some_and(|n| n != d.replicas));
        if d.paused || scaling {
            plan.resize = scale(d, new.as_ref(), &old);
        } else {
            match d.strategy {
                Strategy::Recreate => recreate(d, new.as_ref(), &old, old_pods_run, &mut plan),
                Strategy::Rolling { surge, unavailable } => {
                    rolling(d, new.as_ref(), &old, surge, unavailable, &mut plan)
                }
            }
        }
    }
    let (status, again_in_ms) = status::plan(d, new.as_ref(), &sets, plan.create.is_some(), now);
    if d.meta.deleting.is_none() && (d.paused || status::complete(d, &status)) {
        plan.delete = forgotten(d, &old);
    }
    plan.status = status;
    plan.again_in_ms = again_in_ms;
    plan
}

fn total(sets: &[Rc<ReplicaSet>]) -> i64 {
    sets.iter().map(|set| set.replicas).sum()
}

fn recreate(d: &Deployment, new: Option<&Rc<ReplicaSet>>, old: &[Rc<ReplicaSet>], old_pods_run: bool, plan: &mut Plan) {
    plan.resize = old.iter().filter(|s| s.replicas > 0).map(|s| Resize { set: s.clone(), replicas: 0 }).collect();
    if !plan.resize.is_empty() || old_pods_run {
        return;
    }
    match new {
        None => plan.create = Some(d.replicas),
        Some(set) if set.replicas != d.replicas => plan.resize.push(Resize { set: set.clone(), replicas: d.replicas }),
        Some(_) => {}
    }
}

fn rolling(
    d: &Deployment,
    new: Option<&Rc<ReplicaSet>>,
    old: &[Rc<ReplicaSet>],
    surge: i64,
    unavailable: i64,
    plan: &mut Plan,
) {
    let has = new.map_or(0, |set| set.replicas);
    let all = total(old).saturating_add(has);
    let room = d.replicas.saturating_add(surge).saturating_sub(all).max(0);
    let want = if has > d.replicas { d.replicas } else { has + room.min(d.replicas - has) };
    let Some(new) = new else {
        plan.create = Some(want);
        return;
    };
    if want != has {
        plan.resize.push(Resize { set: new.clone(), replicas: want });
        return;
    }
    let min_available = d.replicas.saturating_sub(unavailable);
    let mut spare = all.saturating_sub(min_available).saturating_sub(new.replicas.saturating_sub(new.status.available));
    if spare <= 0 || total(old) == 0 {
        return;
    }
    // pods that are not available serve nobody: they go first and cost no availability
    let mut sizes: Vec<(Rc<ReplicaSet>, i64)> = old.iter().map(|set| (set.clone(), set.replicas)).collect();
    for (set, size) in &mut sizes {
        let sick = size.saturating_sub(set.status.available).max(0).min(spare);
        *size -= sick;
        spare -= sick;
    }
    let available: i64 = old.iter().map(|set| set.status.available).sum::<i64>().saturating_add(new.status.available);
    let mut spare = available.saturating_sub(min_available);
    for (_, size) in &mut sizes {
        let down = (*size).min(spare).max(0);
        *size -= down;
        spare -= down;
    }
    plan.resize = sizes
        .into_iter()
        .filter(|(set, n)| set.replicas != *n)
        .map(|(set, replicas)| Resize { set, replicas })
        .collect();
}

/// The Deployment was resized, or is paused: sizes change in proportion, no step of a rollout is taken.
fn scale(d: &Deployment, new: Option<&Rc<ReplicaSet>>, old: &[Rc<ReplicaSet>]) -> Vec<Resize> {
    let active: Vec<&Rc<ReplicaSet>> = new.into_iter().chain(old).filter(|set| set.replicas > 0).collect();
    let newest = || new.or_else(|| old.iter().max_by_key(|set| (set.meta.created, set.revision)));
    let only = if active.len() > 1 { None } else { active.first().copied().or_else(newest) };
    if let Some(set) = only {
        // also when the size is right, the annotations on it may still tell the old one
        let stale = set.desired != Some(d.replicas);
        return if set.replicas != d.replicas || stale {
            vec![Resize { set: set.clone(), replicas: d.replicas }]
        } else {
            Vec::new()
        };
    }
    if let Some(new) = new.filter(|set| saturated(d, set)) {
        let old = old.iter().filter(|set| set.replicas > 0 && set.meta.uid != new.meta.uid);
        return old.map(|set| Resize { set: set.clone(), replicas: 0 }).collect();
    }
    let Strategy::Rolling { surge, .. } = d.strategy else { return Vec::new() };
    proportional(d, active, surge)
}

fn proportional(d: &Deployment, mut active: Vec<&Rc<ReplicaSet>>, surge: i64) -> Vec<Resize> {
    let allowed = if d.replicas > 0 { d.replicas.saturating_add(surge) } else { 0 };
    let change = allowed.saturating_sub(active.iter().map(|set| set.replicas).sum());
    // growing starts with the newest of the largest, shrinking with the oldest
    active.sort_by(|a, b| {
        let age = if change > 0 { b.meta.created.cmp(&a.meta.created) } else { a.meta.created.cmp(&b.meta.created) };
        b.replicas.cmp(&a.replicas).then(age)
    });
    let mut given: i64 = 0;
    let mut sizes: Vec<(&Rc<ReplicaSet>, i64)> = Vec::new();
    for set in active {
        let left = change.saturating_sub(given);
        let share = fraction(set, allowed);
        let share = if left == 0 {
            0
        } else if change > 0 {
            share.min(left)
        } else {
            share.max(left)
        };
        sizes.push((set, set.replicas.saturating_add(share)));
        given = given.saturating_add(share);
    }
    if let Some((_, size)) = sizes.first_mut() {
        *size = size.saturating_add(change.saturating_sub(given)).max(0);
    }
    sizes.into_iter().map(|(set, replicas)| Resize { set: set.clone(), replicas }).collect()
}

/// By how much the ReplicaSet changes when the whole changes from what its annotation says to `allowed`.
fn fraction(set: &ReplicaSet, allowed: i64) -> i64 {
    if allowed == 0 {
        return set.replicas.saturating_neg();
    }
    let before = set.max.filter(|n| *n > 0).unwrap_or(set.status.replicas).max(1);
    let product = set.replicas.saturating_mul(allowed);
    let rounded = product.saturating_mul(2).saturating_add(before) / before.saturating_mul(2);
    rounded.saturating_sub(set.replicas)
}

fn saturated(d: &Deployment, new: &ReplicaSet) -> bool {
    new.replicas == d.replicas && new.desired == Some(d.replicas) && new.status.available == d.replicas
}

/// Old ReplicaSets beyond the history limit that have nothing left.
fn forgotten(d: &Deployment, old: &[Rc<ReplicaSet>]) -> Vec<Rc<ReplicaSet>> {
    let live: Vec<&Rc<ReplicaSet>> = old.iter().filter(|set| set.meta.deleting.is_none()).collect();
    let surplus = live.len().saturating_sub(d.history_max);
    let mut by_revision = live;
    by_revision.sort_by_key(|set| set.revision);
    let empty = |set: &ReplicaSet| {
        set.replicas == 0 && set.status.replicas == 0 && set.status.observed_generation >= set.meta.generation
    };
    by_revision.into_iter().take(surplus).filter(|set| empty(set)).cloned().collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
