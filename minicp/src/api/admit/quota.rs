//! ResourceQuota: what a namespace may use (upstream's resource quota admission, with its messages).
//!
//! A create that counts is one transaction with the new `status.used` of the quotas it counts for, so that no number of clients at once gets past a
//! quota. What is freed (deletes, pods that end) is counted anew a moment later by [`run`].

mod usage;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::quantity::Quantity;
use mote_api::status::Status;
use mote_api::tree::{Value, at, json, map_at, set};

use super::limits::{Amounts, amounts};
use crate::api::{Api, object};
use crate::store::{Class, Entry, Guard, Op, Txn};
use usage::{NAMED, charged, in_scope, to_value, unsaid, usage};

pub(crate) const PREFIX: &str = "/registry/core/resourcequotas/";
/// Time in which changes are put together before they are counted.
const SETTLE: Duration = Duration::from_millis(20);

/// What a create adds to its transaction.
#[derive(Default)]
pub(crate) struct Charge {
    guards: Vec<Guard>,
    ops: Vec<Op>,
}

impl Charge {
    /// Makes it part of a transaction.
    pub(crate) fn join(mut self, txn: &mut Txn) {
        if !self.ops.is_empty() {
            txn.class = Class::Durable;
        }
        txn.guards.append(&mut self.guards);
        txn.ops.append(&mut self.ops);
    }
}

/// What `object` costs its namespace's quotas; a refusal if it is too much. `old`: what it was, for a change.
pub(crate) async fn charge(
    api: &Api,
    kind: &Kind,
    ns: &str,
    old: Option<&Value>,
    object: &Value,
) -> Result<Charge, Status> {
    let mut out = Charge::default();
    if !kind.namespaced || !api.quotas.read(&*api.store).await?.has(ns) {
        return Ok(out);
    }
    let quotas = api.quotas.read(&*api.store).await?.of(ns);
    let registry = api.registry();
    let Some(quota_kind) = registry.find("resourcequotas") else { return Ok(out) };
    let refused = |why: &str| Status::forbidden(kind, meta::name(object), why);
    for quota in quotas.iter().filter(|q| in_scope(q, kind, object)) {
        let hard = amounts(map_at(quota, &["spec", "hard"]));
        let mut delta = usage(kind, object);
        if let Some(old) = old.filter(|old| in_scope(quota, kind, old)) {
            for (name, was) in usage(kind, old) {
                let now = delta.get(&name).copied().unwrap_or(Quantity::from_units(0));
                delta.insert(name, now - was);
            }
        }
        delta.retain(|name, more| hard.contains_key(name) && !more.is_zero());
        if kind.is("", "Pod") && old.is_none() {
            let unsaid = unsaid(&hard, object);
            if !unsaid.is_empty() {
                let one = |(key, names): (&String, &BTreeSet<String>)| {
                    format!("{key} for: {}", names.iter().cloned().collect::<Vec<_>>().join(","))
                };
                let all = unsaid.iter().map(one).collect::<Vec<_>>().join("; ");
                return Err(refused(&format!("failed quota: {}: must specify {all}", meta::name(quota))));
            }
        }
        // What a change gives back is counted later.
        if delta.is_empty() || (old.is_some() && delta.values().all(|d| d.is_negative())) {
            continue;
        }
        let entry = api.entry(quota_kind, ns, meta::name(quota)).await?;
        let mut quota = object::decode(quota_kind, &entry);
        let counted = at(&quota, &["status", "hard"]) == at(&quota, &["spec", "hard"]);
        let used = if counted { amounts(map_at(&quota, &["status", "used"])) } else { count(api, ns, &quota).await? };
        let next = charged(&quota, &used, &delta).map_err(|why| refused(&why))?;
        let hard = at(&quota, &["spec", "hard"]).cloned().unwrap_or_default();
        set(&mut quota, &["status"], json!({"hard": hard, "used": to_value(&next)}));
        let key: Rc<str> = object::key(quota_kind, ns, meta::name(&quota)).into();
        out.guards.push(Guard::Unchanged(key.clone(), entry.modified));
        out.ops.push(Op::Put(key, object::encode(quota)));
    }
    Ok(out)
}

/// The kind whose objects count under a quota's name.
fn counts(api: &Api, name: &str) -> Option<Rc<Kind>> {
    let resource = match name.strip_prefix("count/") {
        Some(resource) => resource,
        None => match name.split(['.', '/']).next().unwrap_or_default() {
            "services" => "services",
            _ if name.contains("storageclass.storage.k8s.io") => "persistentvolumeclaims",
            _ if name == "requests.storage" || name == "persistentvolumeclaims" => "persistentvolumeclaims",
            plain if NAMED.contains(&plain) => plain,
            _ => "pods",
        },
    };
    api.registry().find(resource).cloned()
}

/// What a quota's namespace uses now, by the names the quota limits.
async fn count(api: &Api, ns: &str, quota: &Value) -> Result<Amounts, Status> {
    let hard = amounts(map_at(quota, &["spec", "hard"]));
    let mut used: Amounts = hard.keys().map(|k| (k.clone(), Quantity::from_units(0))).collect();
    let mut kinds: Vec<Rc<Kind>> = Vec::new();
    for kind in hard.keys().filter_map(|name| counts(api, name)) {
        if !kinds.iter().any(|k| k.resource() == kind.resource()) {
            kinds.push(kind);
        }
    }
    for kind in kinds {
        let range = api.store.range(&object::prefix(&kind, ns), "", None, 0).await?;
        for (_, entry) in &range.entries {
            let object = object::decode(&kind, entry);
            if !in_scope(quota, &kind, &object) {
                continue;
            }
            for (name, amount) in usage(&kind, &object) {
                if let Some(sum) = used.get_mut(&name) {
                    *sum += amount;
                }
            }
        }
    }
    Ok(used)
}

/// Counts a namespace anew and writes what differs.
async fn recount(api: &Api, ns: &str) -> Result<(), Status> {
    let registry = api.registry();
    let Some(kind) = registry.find("resourcequotas") else { return Ok(()) };
    let names: Vec<String> =
        api.quotas.read(&*api.store).await?.of(ns).iter().map(|q| meta::name(q).to_owned()).collect();
    for name in names {
        // Read before counting: a create in between then breaks the guard, and its own change wakes us again.
        let Ok(entry) = api.entry(kind, ns, &name).await else { continue };
        let mut quota = object::decode(kind, &entry);
        let used = count(api, ns, &quota).await?;
        let hard = at(&quota, &["spec", "hard"]).cloned().unwrap_or_default();
        let known = amounts(map_at(&quota, &["status", "used"]));
        if at(&quota, &["status", "hard"]) == Some(&hard) && known == used {
            continue;
        }
        set(&mut quota, &["status"], json!({"hard": hard, "used": to_value(&used)}));
        let Entry { modified, .. } = entry;
        let key: Rc<str> = object::key(kind, ns, &name).into();
        let ops = vec![Op::Put(key.clone(), object::encode(quota))];
        let txn = Txn { guards: vec![Guard::Unchanged(key, modified)], ops, class: Class::Durable };
        // Full or failed: the next change tries again.
        let _ = api.store.commit(txn).await;
    }
    Ok(())
}

/// Keeps `status` of all quotas. While there are none it waits for the first; then it wakes up for every change in their namespaces.
pub(crate) async fn run(api: Rc<Api>) {
    loop {
        let Ok(any) = api.quotas.read(&*api.store).await.map(|q| q.has_any()) else { return };
        let from = api.store.revision();
        let Ok(mut watch) = api.store.watch(if any { "/registry/" } else { PREFIX }, from) else { return };
        let all = match api.quotas.read(&*api.store).await {
            Ok(quotas) => quotas.namespaces(),
            Err(_) => return,
        };
        for ns in all {
            let _ = recount(&api, &ns).await;
        }
        let ended = watch_on(&api, &mut watch, any).await;
        if ended {
            // The server stops, or too much happened at once; do not spin.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// True: the watch ended. False: the first quota came, or the last one went.
async fn watch_on(api: &Api, watch: &mut crate::store::Watcher, any: bool) -> bool {
    loop {
        let Ok(change) = watch.next().await else { return true };
        let mut touched = BTreeSet::from([change.key.clone()]);
        let Ok(quotas) = api.quotas.read(&*api.store).await.map(|q| q.has_any()) else { return true };
        if quotas != any {
            return false;
        }
        let mut relevant = is_relevant(api, &touched).await;
        if relevant.is_empty() {
            continue;
        }
        tokio::time::sleep(SETTLE).await;
        touched.clear();
        while let Some(next) = watch.try_next() {
            let Ok(change) = next else { return true };
            touched.insert(change.key.clone());
        }
        relevant.extend(is_relevant(api, &touched).await);
        for ns in relevant {
            let _ = recount(api, &ns).await;
        }
    }
}

/// Namespaces with quotas in which one of the keys is.
async fn is_relevant(api: &Api, keys: &BTreeSet<Rc<str>>) -> BTreeSet<String> {
    let Ok(quotas) = api.quotas.read(&*api.store).await else { return BTreeSet::new() };
    let ns = |key: &Rc<str>| key.split('/').nth(4).map(str::to_owned);
    keys.iter().filter_map(ns).filter(|ns| quotas.has(ns)).collect()
}
