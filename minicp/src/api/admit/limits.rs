//! LimitRange: what containers get that say nothing, and what they may say (upstream's LimitRanger, with its messages).

use std::collections::BTreeMap;
use std::rc::Rc;

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::quantity::Quantity;
use mote_api::status::Status;
use mote_api::tree::{Map, Value, at, list_at, list_mut, map_at, set, str_at};

use crate::api::Api;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a resource list.
pub(crate) fn amounts(list: Option<&Map<String, Value>>) -> Amounts {
    list.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), Quantity::of(v)?))).collect()
}

fn items<'a>(ranges: &'a [Rc<Value>], ty: &'a str) -> impl Iterator<Item = &'a Value> {
    ranges.iter().flat_map(|r| list_at(r, &["spec", "limits"])).filter(move |i| str_at(i, &["type"]) == ty)
}

/// Gives containers what the ranges say they get. `pod` with its defaults applied.
fn fill(ranges: &[Rc<Value>], pod: &mut Value) {
    let mut given = [("requests", "defaultRequest"), ("limits", "default")].map(|(to, from)| {
        let mut all = Map::new();
        for item in items(ranges, "Container") {
            for (name, value) in map_at(item, &[from]).into_iter().flatten() {
                all.insert(name.clone(), value.clone());
            }
        }
        (to, all)
    });
    // A limit without a default request is the request too (upstream's defaulting of the range itself).
    for item in items(ranges, "Container") {
        let known = map_at(item, &["defaultRequest"]);
        for (name, value) in map_at(item, &["default"]).into_iter().flatten() {
            if known.is_none_or(|k| !k.contains_key(name)) {
                given[0].1.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    let mut notes = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in list_mut(pod, &["spec", list]) {
            let name = str_at(container, &["name"]).to_owned();
            for (to, all) in &given {
                let missing: Vec<_> =
                    all.iter().filter(|(k, _)| at(container, &["resources", to, k]).is_none()).collect();
                if !missing.is_empty() {
                    let names: Vec<_> = missing.iter().map(|(k, _)| k.as_str()).collect();
                    notes.push(format!("{} {} for {word} {name}", names.join(", "), to.trim_end_matches('s')));
                }
                for (key, value) in missing {
                    set(container, &["resources", to, key], value.clone());
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        set(pod, &["metadata", "annotations", ANNOTATION], text.into());
    }
}

/// Everything a pod asks for: containers together, or its largest init container if that is more; sidecars count with both.
pub(crate) fn pod_amounts(pod: &Value, of: &str) -> Amounts {
    let each = |list| list_at(pod, &["spec", list]).iter();
    let mut sum = Amounts::new();
    let add = |sum: &mut Amounts, more: &Amounts| {
        for (name, amount) in more {
            let was = sum.get(name).copied().unwrap_or(Quantity::from_units(0));
            sum.insert(name.clone(), was + *amount);
        }
    };
    let most = |sum: &mut Amounts, other: &Amounts| {
        for (name, amount) in other {
            if sum.get(name).is_none_or(|was| was < amount) {
                sum.insert(name.clone(), *amount);
            }
        }
    };
    for container in each("containers") {
        add(&mut sum, &amounts(map_at(container, &["resources", of])));
    }
    let (mut sidecars, mut start) = (Amounts::new(), Amounts::new());
    for container in each("initContainers") {
        let own = amounts(map_at(container, &["resources", of]));
        let mut now = sidecars.clone();
        add(&mut now, &own);
        if str_at(container, &["restartPolicy"]) == "Always" {
            sidecars = now.clone();
            add(&mut sum, &own);
        }
        most(&mut start, &now);
    }
    most(&mut sum, &start);
    let whole = amounts(map_at(pod, &["spec", "resources", of]));
    sum.extend(whole);
    add(&mut sum, &amounts(map_at(pod, &["spec", "overhead"])));
    sum
}

/// What is wrong with `requests` and `limits` by one item of a range.
fn judge(item: &Value, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    let ty = str_at(item, &["type"]);
    for (name, least) in amounts(map_at(item, &["min"])) {
        let head = format!("minimum {name} usage per {ty} is {least}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => errors.push(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < least => errors.push(format!("{head}, but request is {request}")),
            (_, Some(limit)) if *limit < least => errors.push(format!("{head}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, most) in amounts(map_at(item, &["max"])) {
        let head = format!("maximum {name} usage per {ty} is {most}");
        if ty == "PersistentVolumeClaim" {
            // Of a claim there is but the request.
            let over = requests.get(&name).filter(|r| **r > most);
            errors.extend(over.map(|request| format!("{head}, but request is {request}")));
            continue;
        }
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => errors.push(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => errors.push(format!("{head}, but limit is {limit}")),
            (Some(request), _) if *request > most => errors.push(format!("{head}, but request is {request}")),
            _ => {}
        }
    }
    for (name, ratio) in amounts(map_at(item, &["maxLimitRequestRatio"])) {
        let head = format!("{name} max limit to request ratio per {ty} is {ratio}");
        let of = |a: &Amounts| a.get(&name).copied().filter(|q| !q.is_zero());
        match (of(requests), of(limits)) {
            (None, _) => errors.push(format!("{head}, but no request is specified or request is 0")),
            (_, None) => errors.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let part = |q: Quantity| q.milli() as f64;
                let observed = part(limit) / part(request);
                if observed > part(ratio) / 1000.0 {
                    errors.push(format!("{head}, but provided ratio is {observed:.6}"));
                }
            }
        }
    }
}

fn errors(ranges: &[Rc<Value>], kind: &Kind, object: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    if kind.is("", "PersistentVolumeClaim") {
        let requests = amounts(map_at(object, &["spec", "resources", "requests"]));
        for item in items(ranges, "PersistentVolumeClaim") {
            judge(item, &requests, &Amounts::new(), &mut errors);
        }
        return errors;
    }
    for item in items(ranges, "Container") {
        for container in ["containers", "initContainers"].iter().flat_map(|l| list_at(object, &["spec", l])) {
            let of = |what| amounts(map_at(container, &["resources", what]));
            judge(item, &of("requests"), &of("limits"), &mut errors);
        }
    }
    for item in items(ranges, "Pod") {
        judge(item, &pod_amounts(object, "requests"), &pod_amounts(object, "limits"), &mut errors);
    }
    errors.sort();
    errors.dedup();
    errors
}

fn applies(kind: &Kind) -> bool {
    kind.is("", "Pod") || kind.is("", "PersistentVolumeClaim")
}

/// The ranges of a namespace, if it has any.
async fn ranges(api: &Api, ns: &str) -> Result<Option<Vec<Rc<Value>>>, Status> {
    let index = api.limits.read(&*api.store).await?;
    Ok(index.has(ns).then(|| index.of(ns)))
}

/// Fills in what a new pod leaves to its namespace's ranges.
pub(crate) async fn default(api: &Api, kind: &Kind, ns: &str, object: &mut Value) -> Result<(), Status> {
    if !kind.is("", "Pod") {
        return Ok(());
    }
    if let Some(ranges) = ranges(api, ns).await? {
        mote_api::defaults::apply(kind, object);
        fill(&ranges, object);
    }
    Ok(())
}

/// Whether the object keeps to its namespace's ranges.
pub(crate) async fn check(api: &Api, kind: &Kind, ns: &str, object: &Value) -> Result<(), Status> {
    if !applies(kind) {
        return Ok(());
    }
    let Some(ranges) = ranges(api, ns).await? else { return Ok(()) };
    let errors = errors(&ranges, kind, object);
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(Status::forbidden(kind, meta::name(object), one)),
        many => Err(Status::forbidden(kind, meta::name(object), &format!("[{}]", many.join(", ")))),
    }
}

/// What a LimitRange itself leaves out: a container's default is its maximum, its default request its default or minimum (upstream's defaulting).
pub(crate) fn complete(range: &mut Value) {
    for item in list_mut(range, &["spec", "limits"]) {
        if str_at(item, &["type"]) != "Container" {
            continue;
        }
        for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let given = map_at(item, &[from]).cloned().unwrap_or_default();
            for (name, value) in given {
                if at(item, &[to, &name]).is_none() {
                    set(item, &[to, &name], value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::kind::Registry;
    use mote_api::tree::json;

    fn range(item: Value) -> Vec<Rc<Value>> {
        vec![Rc::new(json!({"spec": {"limits": [item]}}))]
    }
    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn limits_are_kept() {
        let registry = Registry::builtin();
        let pods = registry.find("pods").unwrap();
        let item = |ty: &str, rule: &str, resource: &str, amount: &str| json!({"type": ty, rule: {resource: amount}});
        let (most, least) = (item("Container", "max", "cpu", "1"), item("Container", "min", "cpu", "100m"));
        let ratio = item("Container", "maxLimitRequestRatio", "cpu", "2");
        for (item, resources, want) in [
            (&most, json!({"limits": {"cpu": "2"}}), "maximum cpu usage per Container is 1, but limit is 2"),
            (&most, json!({}), "maximum cpu usage per Container is 1.  No limit is specified"),
            (&most, json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), ""),
            (
                &least,
                json!({"requests": {"cpu": "50m"}}),
                "minimum cpu usage per Container is 100m, but request is 50m",
            ),
            (&least, json!({}), "minimum cpu usage per Container is 100m.  No request is specified"),
            (
                &item("Pod", "max", "memory", "1Gi"),
                json!({"limits": {"memory": "2Gi"}}),
                "maximum memory usage per Pod is 1Gi, but limit is 2Gi",
            ),
            (
                &ratio,
                json!({"limits": {"cpu": "4"}, "requests": {"cpu": "1"}}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
            ),
            (&ratio, json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}), ""),
            (
                &ratio,
                json!({"limits": {"cpu": "2"}}),
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
        ] {
            assert_eq!(errors(&range(item.clone()), pods, &pod(resources)).join("|"), want);
        }
        let claims = registry.find("persistentvolumeclaims").unwrap();
        let claim = json!({"spec": {"resources": {"requests": {"storage": "5Gi"}}}});
        let item = json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}});
        assert_eq!(
            errors(&range(item), claims, &claim),
            ["maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Gi"]
        );
    }

    #[test]
    fn defaults_are_given_and_noted() {
        let mut range_object = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}, "default": {"cpu": "1"}}]}});
        complete(&mut range_object);
        let item = &range_object["spec"]["limits"][0];
        assert_eq!(
            (&item["default"], &item["defaultRequest"]),
            (&json!({"cpu": "1"}), &json!({"cpu": "1", "memory": "1Mi"}))
        );
        let mut filled = pod(json!({"requests": {"cpu": "10m"}}));
        fill(&[Rc::new(range_object)], &mut filled);
        assert_eq!(
            filled["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "10m", "memory": "1Mi"}, "limits": {"cpu": "1"}})
        );
        assert_eq!(
            filled["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: memory request for container c; cpu limit for container c"
        );
    }

    #[test]
    fn what_a_pod_asks_for() {
        let pod = json!({"spec": {
            "containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"requests": {"cpu": "2"}}}],
            "initContainers": [{"resources": {"requests": {"cpu": "1"}}, "restartPolicy": "Always"}, {"resources": {"requests": {"cpu": "4"}}}],
            "overhead": {"cpu": "500m"}}});
        // 1+2+sidecar 1 = 4; while starting 4+1 = 5; and the overhead.
        assert_eq!(pod_amounts(&pod, "requests")["cpu"], Quantity::from_milli(5500));
    }
}
