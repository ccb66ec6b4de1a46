//! PodDisruptionBudgets: how many pods may go (upstream's disruption controller), kept in their status for people to see. Evictions count anew
//! ([`super::evict`]).
//!
//! observe (a budget, its pods, what their owners want) -> [`Count`] (pure) -> status. While there are no budgets it waits for the first.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::selector::LabelSelector;
use mote_api::status::Status;
use mote_api::tree::{Value, at, i64_at, json, list_at, str_at};

use super::request::WriteOptions;
use super::words::{ListQuery, Place};
use super::{Api, object};
use crate::store::Watcher;

/// Where budgets are stored.
pub(super) const PREFIX: &str = "/registry/policy/poddisruptionbudgets/";
const PODS: &str = "/registry/core/pods/";
const RESOURCE: &str = "poddisruptionbudgets.policy";
/// Changes come in crowds: one count for all of them.
const SETTLE: Duration = Duration::from_millis(200);

/// What a budget's pods are.
#[derive(Debug, PartialEq, Clone, Copy)]
pub(super) struct Count {
    /// How many there should be.
    pub expected: i64,
    /// How many of them must be healthy.
    pub wanted: i64,
    pub healthy: i64,
}

impl Count {
    pub(super) fn of(budget: &Value, pods: &[Value], expected: i64) -> Count {
        let healthy = pods.iter().filter(|p| is_healthy(p)).count();
        Count { expected, wanted: wanted(budget, expected), healthy: i64::try_from(healthy).unwrap_or(i64::MAX) }
    }
    fn allowed(self) -> i64 {
        if self.expected == 0 { 0 } else { self.healthy.saturating_sub(self.wanted).max(0) }
    }
}

pub(super) fn is_healthy(pod: &Value) -> bool {
    let ready = |c: &Value| str_at(c, &["type"]) == "Ready" && str_at(c, &["status"]) == "True";
    !meta::is_deleting(pod) && list_at(pod, &["status", "conditions"]).iter().any(ready)
}

/// How many pods of `expected` must be healthy. Percentages are rounded up, as upstream's are.
fn wanted(budget: &Value, expected: i64) -> i64 {
    let number = |value: &Value| match value {
        Value::String(text) => {
            let percent = text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
            percent.saturating_mul(expected).saturating_add(99) / 100
        }
        value => value.as_i64().unwrap_or(0),
    };
    match (at(budget, &["spec", "maxUnavailable"]), at(budget, &["spec", "minAvailable"])) {
        (Some(most), _) if !most.is_null() => expected.saturating_sub(number(most)).max(0),
        (_, Some(least)) => number(least),
        _ => 0,
    }
}

/// The status that says it.
fn status_of(budget: &Value, count: Count, now: &str) -> Value {
    let allowed = count.allowed();
    let (is, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let old = list_at(budget, &["status", "conditions"]).iter().find(|c| str_at(c, &["status"]) == is);
    let since = old.map_or(now, |c| str_at(c, &["lastTransitionTime"]));
    let generation = meta::generation(budget);
    json!({
        "currentHealthy": count.healthy, "desiredHealthy": count.wanted, "disruptionsAllowed": allowed,
        "expectedPods": count.expected, "observedGeneration": generation,
        "conditions": [{"type": "DisruptionAllowed", "status": is, "reason": reason, "message": "",
            "observedGeneration": generation, "lastTransitionTime": since}],
    })
}

/// Pods of one owner, or of none.
struct Owned {
    owner: Option<(Rc<Kind>, String)>,
    pods: i64,
}

impl Api {
    /// The budgets of a namespace and what they select.
    pub(super) async fn budgets_of(&self, ns: &str) -> Result<Vec<(Rc<Value>, LabelSelector)>, Status> {
        let all = self.budgets.read(&*self.store).await?.of(ns);
        let selector = |budget: &Value| LabelSelector::from_object(at(budget, &["spec", "selector"])?).ok();
        Ok(all.into_iter().filter_map(|budget| selector(&budget).map(|selector| (budget, selector))).collect())
    }

    pub(super) async fn count(&self, ns: &str, budget: &Value, selector: &LabelSelector) -> Result<Count, Status> {
        let registry = self.registry();
        let pods = registry.find("pods").ok_or_else(Status::no_such_resource)?;
        let listed = self.list(pods, ns, &ListQuery::all()).await?;
        let all = listed.entries.iter().map(|(_, entry)| object::decode(pods, entry));
        let mine: Vec<Value> = all.filter(|pod| selector.matches(pod)).collect();
        let expected = self.expected(ns, &mine).await;
        Ok(Count::of(budget, &mine, expected))
    }

    /// How many pods their owners want there to be.
    async fn expected(&self, ns: &str, pods: &[Value]) -> i64 {
        let registry = self.registry();
        let mut by_owner: BTreeMap<String, Owned> = BTreeMap::new();
        for pod in pods.iter().filter(|p| !meta::is_deleting(p)) {
            let owner = meta::controller_of(pod);
            let key = owner.as_ref().map_or("", |o| o.uid).to_owned();
            let find = || {
                let owner = owner?;
                let (group, version) = mote_api::kind::split_api_version(owner.api_version);
                Some((registry.by_kind(group, version, owner.kind)?.clone(), owner.name.to_owned()))
            };
            by_owner.entry(key).or_insert_with(|| Owned { owner: find(), pods: 0 }).pods += 1;
        }
        let mut expected = 0i64;
        for owned in by_owner.into_values() {
            let replicas = match owned.owner {
                Some((kind, name)) => match self.entry(&kind, ns, &name).await {
                    Ok(entry) => i64_at(&object::decode(&kind, &entry), &["spec", "replicas"]),
                    Err(_) => None,
                },
                None => None,
            };
            expected = expected.saturating_add(replicas.unwrap_or(owned.pods));
        }
        expected
    }

    /// Counts the budgets of a namespace anew and writes what differs.
    async fn tell_budgets(&self, ns: &str, options: &WriteOptions) -> Result<(), Status> {
        let registry = self.registry();
        let Some(kind) = registry.find(RESOURCE) else { return Ok(()) };
        for (budget, selector) in self.budgets_of(ns).await? {
            let count = self.count(ns, &budget, &selector).await?;
            let status = status_of(&budget, count, &self.now().to_string());
            if budget.get("status") == Some(&status) {
                continue;
            }
            let place = Place { kind, ns, name: meta::name(&budget), sub: "status" };
            let change = |mut old: Value| {
                mote_api::tree::set(&mut old, &["status"], status.clone());
                Ok((old, Vec::new()))
            };
            // Gone or changed meanwhile: its own change wakes us again.
            let _ = self.change(place, options, change).await;
        }
        Ok(())
    }
}

/// Keeps the status of all budgets; ends with the store.
pub(crate) async fn run(api: Rc<Api>) {
    let options = WriteOptions::internal("kube-controller-manager");
    loop {
        let Ok(any) = api.budgets.read(&*api.store).await.map(|b| b.has_any()) else { return };
        let Ok(mut watch) = api.store.watch(if any { "/registry/" } else { PREFIX }, api.store.revision()) else {
            return;
        };
        let Ok(all) = api.budgets.read(&*api.store).await.map(|b| b.namespaces()) else { return };
        for ns in all {
            let _ = api.tell_budgets(&ns, &options).await;
        }
        if watch_on(&api, &mut watch, any, &options).await {
            // The server stops, or too much happened at once; do not spin.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// True: the watch ended. False: the first budget came, or the last one went.
async fn watch_on(api: &Api, watch: &mut Watcher, any: bool, options: &WriteOptions) -> bool {
    loop {
        let Ok(change) = watch.next().await else { return true };
        let Ok(budgets) = api.budgets.read(&*api.store).await.map(|b| b.has_any()) else { return true };
        if budgets != any {
            return false;
        }
        let mut keys = BTreeSet::from([change.key.clone()]);
        if relevant(api, &keys).await.is_empty() {
            continue;
        }
        tokio::time::sleep(SETTLE).await;
        while let Some(next) = watch.try_next() {
            let Ok(change) = next else { return true };
            keys.insert(change.key.clone());
        }
        for ns in relevant(api, &keys).await {
            let _ = api.tell_budgets(&ns, options).await;
        }
    }
}

/// Namespaces with budgets in which one of the keys is a pod or a budget.
async fn relevant(api: &Api, keys: &BTreeSet<Rc<str>>) -> BTreeSet<String> {
    let Ok(budgets) = api.budgets.read(&*api.store).await else { return BTreeSet::new() };
    let ns = |key: &Rc<str>| key.strip_prefix(PODS).or(key.strip_prefix(PREFIX))?.split('/').next().map(str::to_owned);
    keys.iter().filter_map(ns).filter(|ns| budgets.has(ns)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_was_counted_and_since_when() {
        let count = |healthy| Count { expected: 3, wanted: 2, healthy };
        let mut budget = json!({"metadata": {"generation": 4}});
        budget["status"] = status_of(&budget, count(3), "t1");
        assert_eq!(
            (&budget["status"]["disruptionsAllowed"], &budget["status"]["observedGeneration"]),
            (&json!(1), &json!(4))
        );
        assert_eq!(status_of(&budget, count(3), "t2"), budget["status"], "nothing new");
        let less = status_of(&budget, count(1), "t3");
        let condition = &less["conditions"][0];
        assert_eq!(
            (&less["disruptionsAllowed"], &condition["status"], &condition["lastTransitionTime"]),
            (&json!(0), &json!("False"), &json!("t3"))
        );
        assert_eq!(Count { expected: 0, wanted: 0, healthy: 0 }.allowed(), 0);
    }
}
