//! What objects count for, and whether a quota has room for it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::quantity::Quantity;
use mote_api::tree::{Value, at, i64_at, list_at, map_at, str_at};

use crate::api::admit::limits::{Amounts, amounts, pod_amounts};
use crate::api::admit::pod::qos;

/// Kinds that have a quota name of their own beside `count/...`.
pub(super) const NAMED: [&str; 5] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services"];

fn one() -> Quantity {
    Quantity::from_units(1)
}

fn ended(pod: &Value) -> bool {
    matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// What an object counts for, by the names quotas use. Pure.
pub(super) fn usage(kind: &Kind, object: &Value) -> Amounts {
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
pub(super) fn in_scope(quota: &Value, kind: &Kind, object: &Value) -> bool {
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
    let best_effort = || qos(object) == "BestEffort";
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
pub(super) fn unsaid(hard: &Amounts, pod: &Value) -> BTreeMap<String, BTreeSet<String>> {
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
pub(super) fn charged(quota: &Value, used: &Amounts, delta: &Amounts) -> Result<Amounts, String> {
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

pub(super) fn to_value(list: &Amounts) -> Value {
    Value::Object(list.iter().map(|(k, v)| (k.clone(), v.to_string().into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::kind::Registry;
    use mote_api::tree::json;

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
