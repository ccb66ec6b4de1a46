//! ResourceQuota: what a namespace may use (upstream's resource quota admission, with its messages).
//!
//! A create that counts is one transaction with the new `status.used` of the quotas it counts for, so that no number of clients at once gets past a
//! quota. What is freed (deletes, pods that end) is counted anew a moment later by [`run`].

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::quantity::Quantity;
use mote_api::status::Status;
use mote_api::tree::{Value, at, i64_at, json, list_at, map_at, set, str_at};

use super::limits::{Amounts, amounts, pod_amounts};
use crate::api::{Api, object};
use crate::store::{Class, Entry, Guard, Op, Txn};

pub(crate) const PREFIX: &str = "/registry/core/resourcequotas/";
/// Time in which changes are put together before they are counted.
const SETTLE: Duration = Duration::from_millis(20);

/// Kinds that have a quota name of their own beside `count/...`.
const NAMED: [&str; 5] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services"];

fn one() -> Quantity {
    Quantity::from_units(1)
}

fn ended(pod: &Value) -> bool {
    matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// What an object counts for, by the names quotas use. Pure.
fn usage(kind: &Kind, object: &Value) -> Amounts {
    let mut out = Amounts::new();
    let suffix = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
    out.insert(format!("count/{}{suffix}", kind.plural), one());
    if !kind.group.is_empty() {
        return out;
    }
    match &*kind.plural {
        "pods" if !ended(object) => pod_usage(object, &mut out),
        "persistentvolumeclaims" => {
            out.insert("persistentvolumeclaims".into(), one());
            let storage = at(object, &["spec", "resources", "requests", "storage"]).and_then(Quantity::of);
            let class = str_at(object, &["spec", "storageClassName"]);
            if !class.is_empty() {
                let head = format!("{class}.storageclass.storage.k8s.io");
                out.insert(format!("{head}/persistentvolumeclaims"), one());
                out.extend(storage.map(|s| (format!("{head}/requests.storage"), s)));
            }
            out.extend(storage.map(|s| ("requests.storage".into(), s)));
        }
        plural if NAMED.contains(&plural) => {
            out.insert(plural.into(), one());
            let ports = i64::try_from(list_at(object, &["spec", "ports"]).len()).unwrap_or(0);
            match str_at(object, &["spec", "type"]) {
                "NodePort" => drop(out.insert("services.nodeports".into(), Quantity::from_units(ports))),
                "LoadBalancer" => {
                    out.insert("services.loadbalancers".into(), one());
                    out.insert("services.nodeports".into(), Quantity::from_units(ports));
                }
                _ => {}
            }
        }
        _ => {}
    }
    out
}

fn pod_usage(pod: &Value, out: &mut Amounts) {
    out.insert("pods".into(), one());
    for (of, word) in [("requests", "requests."), ("limits", "limits.")] {
        for (name, amount) in pod_amounts(pod, of) {
            if of == "requests"
                && (matches!(&*name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-"))
            {
                out.insert(name.clone(), amount);
            }
            out.insert(format!("{word}{name}"), amount);
        }
    }
}

/// Whether an object is among those that a quota with scopes counts.
fn in_scope(quota: &Value, kind: &Kind, object: &Value) -> bool {
    let plain = list_at(quota, &["spec", "scopes"]).iter().filter_map(Value::as_str).map(|s| (s, "Exists", &[][..]));
    let selected = list_at(quota, &["spec", "scopeSelector", "matchExpressions"]).iter();
    let selected = selected.map(|e| (str_at(e, &["scopeName"]), str_at(e, &["operator"]), list_at(e, &["values"])));
    let mut all = plain.chain(selected).peekable();
    if all.peek().is_none() {
        return true;
    }
    // Scopes are of pods.
    if !kind.is("", "Pod") {
        return false;
    }
    let best_effort = || super::qos(object) == "BestEffort";
    let ends = || i64_at(object, &["spec", "activeDeadlineSeconds"]).is_some_and(|s| s >= 0);
    all.all(|(scope, operator, values)| match scope {
        "Terminating" => ends(),
        "NotTerminating" => !ends(),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = str_at(object, &["spec", "priorityClassName"]);
            match operator {
                "In" => values.iter().any(|v| v == class),
                "NotIn" => !values.iter().any(|v| v == class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => crosses(object),
        _ => false,
    })
}

fn crosses(pod: &Value) -> bool {
    let term =
        |t: &Value| !list_at(t, &["namespaces"]).is_empty() || t.get("namespaceSelector").is_some_and(|s| !s.is_null());
    ["podAffinity", "podAntiAffinity"].iter().any(|a| {
        let of = |list| list_at(pod, &["spec", "affinity", a, list]).iter();
        of("requiredDuringSchedulingIgnoredDuringExecution").any(term)
            || of("preferredDuringSchedulingIgnoredDuringExecution").any(|t| t.get("podAffinityTerm").is_some_and(term))
    })
}

/// Compute resources of the quota that a container leaves unsaid: upstream wants them said, or nothing could be counted.
fn unsaid(hard: &Amounts, pod: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut out = BTreeMap::<String, BTreeSet<String>>::new();
    let whole = |of: &str, name: &str| at(pod, &["spec", "resources", of, name]).is_some();
    for container in ["containers", "initContainers"].iter().flat_map(|l| list_at(pod, &["spec", l])) {
        for key in hard.keys() {
            let (of, name) = match key.split_once('.') {
                Some(("requests", name)) => ("requests", name),
                Some(("limits", name)) => ("limits", name),
                _ => ("requests", key.as_str()),
            };
            let counted = matches!(name, "cpu" | "memory" | "ephemeral-storage");
            if counted && at(container, &["resources", of, name]).is_none() && !whole(of, name) {
                out.entry(key.clone()).or_default().insert(str_at(container, &["name"]).to_owned());
            }
        }
    }
    out
}

fn words(list: &Amounts, names: &[&String]) -> String {
    let zero = Quantity::from_units(0);
    let word = |n: &&String| format!("{n}={}", list.get(*n).copied().unwrap_or(zero));
    names.iter().map(word).collect::<Vec<_>>().join(",")
}

/// `used` of one quota after `delta` more; Err: why not. Pure.
fn charged(quota: &Value, used: &Amounts, delta: &Amounts) -> Result<Amounts, String> {
    let hard = amounts(map_at(quota, &["spec", "hard"]));
    let mut next = used.clone();
    let mut over = Vec::new();
    for (name, most) in &hard {
        let Some(more) = delta.get(name) else { continue };
        let sum = used.get(name).copied().unwrap_or(Quantity::from_units(0)) + *more;
        if sum > *most && !more.is_zero() && !more.is_negative() {
            over.push(name);
        }
        next.insert(name.clone(), sum);
    }
    if over.is_empty() {
        return Ok(next);
    }
    Err(format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        meta::name(quota),
        words(delta, &over),
        words(used, &over),
        words(&hard, &over)
    ))
}

fn to_value(list: &Amounts) -> Value {
    Value::Object(list.iter().map(|(k, v)| (k.clone(), v.to_string().into())).collect())
}

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
        let range = api.store.range(&object::prefix(&kind, ns), "", None, 0).await.map_err(crate::api::compacted)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::kind::Registry;

    fn list(pairs: &[(&str, &str)]) -> Amounts {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.parse().unwrap())).collect()
    }

    #[test]
    fn what_counts() {
        let registry = Registry::builtin();
        let pod =
            json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}}]}});
        let of = |resource: &str, object: &Value| {
            words(
                &usage(registry.find(resource).unwrap(), object),
                &usage(registry.find(resource).unwrap(), object).keys().collect::<Vec<_>>(),
            )
        };
        assert_eq!(of("pods", &pod), "count/pods=1,cpu=1,limits.memory=1Gi,pods=1,requests.cpu=1");
        let mut over = pod;
        over["status"] = json!({"phase": "Succeeded"});
        assert_eq!(of("pods", &over), "count/pods=1");
        assert_eq!(of("deployments.apps", &json!({})), "count/deployments.apps=1");
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            of("services", &service),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
        );
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            of("persistentvolumeclaims", &claim),
            "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
    }

    #[test]
    fn charges_and_refusals() {
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2", "requests.cpu": "1"}}});
        let used = list(&[("pods", "1"), ("requests.cpu", "600m")]);
        let next = charged(&quota, &used, &list(&[("pods", "1"), ("requests.cpu", "400m"), ("other", "9")])).unwrap();
        assert_eq!(next, list(&[("pods", "2"), ("requests.cpu", "1")]));
        let why = charged(&quota, &used, &list(&[("pods", "2"), ("requests.cpu", "500m")])).unwrap_err();
        assert_eq!(
            why,
            "exceeded quota: q, requested: pods=2,requests.cpu=500m, used: pods=1,requests.cpu=600m, limited: pods=2,requests.cpu=1"
        );
        // Giving back is never too much.
        assert!(charged(&quota, &list(&[("pods", "5")]), &list(&[("pods", "-1")])).is_ok());
    }

    #[test]
    fn scopes() {
        let registry = Registry::builtin();
        let (pods, maps) = (registry.find("pods").unwrap(), registry.find("configmaps").unwrap());
        let best = json!({"spec": {"containers": [{}]}});
        let scoped = |scope: &str| json!({"spec": {"scopes": [scope]}});
        assert!(in_scope(&scoped("BestEffort"), pods, &best) && !in_scope(&scoped("NotBestEffort"), pods, &best));
        assert!(in_scope(&scoped("NotTerminating"), pods, &best) && !in_scope(&scoped("Terminating"), pods, &best));
        assert!(!in_scope(&scoped("BestEffort"), maps, &best) && in_scope(&json!({}), maps, &best));
        let class = |operator: &str| json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]}}});
        let high = json!({"spec": {"priorityClassName": "high"}});
        assert!(in_scope(&class("In"), pods, &high) && !in_scope(&class("NotIn"), pods, &high));
        assert!(!in_scope(&class("In"), pods, &best) && in_scope(&class("DoesNotExist"), pods, &best));
    }

    #[test]
    fn what_must_be_said() {
        let hard = list(&[("cpu", "1"), ("limits.memory", "1Gi"), ("pods", "3")]);
        let pod =
            json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}, {"name": "b"}]}});
        let said: Vec<String> = unsaid(&hard, &pod).iter().map(|(k, v)| format!("{k}:{v:?}")).collect();
        assert_eq!(said, [r#"cpu:{"b"}"#, r#"limits.memory:{"a", "b"}"#]);
    }
}
