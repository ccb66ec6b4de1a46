//! Rows of nodes, namespaces, events, access rules and other things of the cluster.

use super::{condition, count, empty, join, name, number, or_none, since_creation, text};
use crate::meta;
use crate::time::{Time, age, human};
use crate::tree::{Value, at, bool_at, i64_at, json, list_at, map_at, str_at};

pub(super) fn node(n: &Value, now: Time) -> Vec<Value> {
    let mut status = match condition(n, "Ready").map(|c| str_at(c, &["status"])) {
        Some("True") => "Ready".to_string(),
        Some(_) => "NotReady".to_string(),
        None => "Unknown".to_string(),
    };
    if bool_at(n, &["spec", "unschedulable"]) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in meta::labels(n) {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == "kubernetes.io/role" => roles.extend(value.as_str().filter(|v| !v.is_empty())),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    let address = |ty: &str| {
        let found = list_at(n, &["status", "addresses"]).iter().find(|a| str_at(a, &["type"]) == ty);
        or_none(found.map_or("", |a| str_at(a, &["address"])))
    };
    let info = |field: &str| {
        let told = str_at(n, &["status", "nodeInfo", field]);
        json!(if told.is_empty() { "<unknown>" } else { told })
    };
    vec![
        name(n),
        json!(status),
        or_none(&roles.join(",")),
        since_creation(n, now),
        text(n, &["status", "nodeInfo", "kubeletVersion"]),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

pub(super) fn namespace(n: &Value, now: Time) -> Vec<Value> {
    vec![name(n), text(n, &["status", "phase"]), since_creation(n, now)]
}

/// Events of both groups: `regarding`, `note` and the deprecated fields are the names of events.k8s.io.
pub(super) fn event(e: &Value, now: Time) -> Vec<Value> {
    let either = |a: &[&str], b: &[&str]| {
        if str_at(e, a).is_empty() { str_at(e, b).to_string() } else { str_at(e, a).to_string() }
    };
    let since = |time: &str| age(time, now);
    let micro = str_at(e, &["eventTime"]);
    let first = match either(&["firstTimestamp"], &["deprecatedFirstTimestamp"]) {
        t if t.is_empty() => since(micro),
        t => since(&t),
    };
    let mut last = match either(&["lastTimestamp"], &["deprecatedLastTimestamp"]) {
        t if t.is_empty() => first.clone(),
        t => since(&t),
    };
    let mut times = i64_at(e, &["count"]).or_else(|| i64_at(e, &["deprecatedCount"])).unwrap_or(0).max(1);
    if at(e, &["series"]).is_some() {
        last = since(str_at(e, &["series", "lastObservedTime"]));
        times = i64_at(e, &["series", "count"]).unwrap_or(0);
    }
    let about = if e.get("regarding").is_some() { "regarding" } else { "involvedObject" };
    let kind = str_at(e, &[about, "kind"]).to_lowercase();
    let target = match str_at(e, &[about, "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = match either(&["source", "component"], &["deprecatedSource", "component"]) {
        c if c.is_empty() => either(&["reportingComponent"], &["reportingController"]),
        c => c,
    };
    let host = either(&["source", "host"], &["deprecatedSource", "host"]);
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    let message = either(&["message"], &["note"]);
    vec![
        json!(last),
        text(e, &["type"]),
        text(e, &["reason"]),
        json!(target),
        text(e, &[about, "fieldPath"]),
        json!(source),
        json!(message.trim()),
        json!(first),
        json!(times),
        name(e),
    ]
}

pub(super) fn service_account(s: &Value, now: Time) -> Vec<Value> {
    vec![name(s), count(s, &["secrets"]), since_creation(s, now)]
}

pub(super) fn lease(l: &Value, now: Time) -> Vec<Value> {
    vec![name(l), text(l, &["spec", "holderIdentity"]), since_creation(l, now)]
}

pub(super) fn runtime_class(r: &Value, now: Time) -> Vec<Value> {
    vec![name(r), text(r, &["handler"]), since_creation(r, now)]
}

pub(super) fn priority_class(p: &Value, now: Time) -> Vec<Value> {
    vec![
        name(p),
        number(p, &["value"]),
        json!(bool_at(p, &["globalDefault"]).unwrap_or(false)),
        since_creation(p, now),
        text(p, &["preemptionPolicy"]),
    ]
}

pub(super) fn webhooks(w: &Value, now: Time) -> Vec<Value> {
    vec![name(w), count(w, &["webhooks"]), since_creation(w, now)]
}

pub(super) fn api_service(a: &Value, now: Time) -> Vec<Value> {
    let service = match at(a, &["spec", "service"]) {
        None => "Local".to_string(),
        Some(s) => format!("{}/{}", str_at(s, &["namespace"]), str_at(s, &["name"])),
    };
    let available = match condition(a, "Available") {
        None => "Unknown".to_string(),
        Some(c) if str_at(c, &["status"]) == "True" => "True".to_string(),
        Some(c) => format!("{} ({})", str_at(c, &["status"]), str_at(c, &["reason"])),
    };
    vec![name(a), json!(service), json!(available), since_creation(a, now)]
}

/// `pods: 1/10, requests.cpu: 0/2` and the limits apart.
pub(super) fn quota(q: &Value, now: Time) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in map_at(q, &["status", "hard"]).or_else(|| map_at(q, &["spec", "hard"])).unwrap_or(empty()) {
        let used = match str_at(q, &["status", "used", resource]) {
            "" => "0",
            used => used,
        };
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or(""));
        if resource.starts_with("limits") { limits.push(text) } else { requests.push(text) }
    }
    vec![name(q), json!(requests.join(", ")), json!(limits.join(", ")), since_creation(q, now)]
}

pub(super) fn role_binding(b: &Value, now: Time) -> Vec<Value> {
    let role = format!("{}/{}", str_at(b, &["roleRef", "kind"]), str_at(b, &["roleRef", "name"]));
    let of = |kind: &'static str| list_at(b, &["subjects"]).iter().filter(move |s| str_at(s, &["kind"]) == kind);
    let accounts: Vec<String> =
        of("ServiceAccount").map(|s| format!("{}/{}", str_at(s, &["namespace"]), str_at(s, &["name"]))).collect();
    vec![
        name(b),
        json!(role),
        since_creation(b, now),
        json!(join(of("User").map(|s| str_at(s, &["name"])))),
        json!(join(of("Group").map(|s| str_at(s, &["name"])))),
        json!(accounts.join(",")),
    ]
}

pub(super) fn signing_request(c: &Value, now: Time) -> Vec<Value> {
    let is = |ty: &str| condition(c, ty).is_some();
    let mut state = if is("Denied") {
        "Denied"
    } else if is("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_string();
    if is("Failed") {
        state.push_str(",Failed");
    }
    if !str_at(c, &["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    let duration = i64_at(c, &["spec", "expirationSeconds"]).map_or_else(|| "<none>".to_string(), human);
    vec![
        name(c),
        since_creation(c, now),
        or_none(str_at(c, &["spec", "signerName"])),
        text(c, &["spec", "username"]),
        json!(duration),
        json!(state),
    ]
}
