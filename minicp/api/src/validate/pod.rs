//! Rules of pods and of pod templates.

mod container;
mod volume;

use super::Check;
use crate::field::{Error, Path};
use crate::meta;
use crate::tree::{Value, bool_at, i64_at, json, list_at, list_mut, remove, str_at};

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A PodSpec, of a pod or a template.
pub(super) fn spec(check: &mut Check, spec: &Value, at: Path<'_>) {
    volume::volumes(check, spec, at.f("volumes"));
    container::containers(check, spec, at);
    check.one_of(at.f("restartPolicy"), str_at(spec, &["restartPolicy"]), &["Always", "Never", "OnFailure"]);
    dns(check, spec, at);
    if i64_at(spec, &["terminationGracePeriodSeconds"]).is_none() {
        check.required(at.f("terminationGracePeriodSeconds"), "");
    }
    check.not_negative(at, spec, &["terminationGracePeriodSeconds"]);
    if let Some(n) = i64_at(spec, &["activeDeadlineSeconds"])
        && !(1..=i64::from(i32::MAX)).contains(&n)
    {
        check.invalid(at.f("activeDeadlineSeconds"), Some(&json!(n)), "must be between 1 and 2147483647, inclusive");
    }
    check.labels(at.f("nodeSelector"), spec, &["nodeSelector"]);
    for (field, rule) in [
        ("nodeName", meta::dns_subdomain as fn(&str) -> Result<(), String>),
        ("serviceAccountName", meta::dns_subdomain),
        ("hostname", meta::dns_label),
        ("subdomain", meta::dns_label),
        ("priorityClassName", meta::dns_subdomain),
        ("runtimeClassName", meta::dns_subdomain),
    ] {
        check.optional_name(at.f(field), str_at(spec, &[field]), rule);
    }
    for (i, toleration) in list_at(spec, &["tolerations"]).iter().enumerate() {
        self::toleration(check, toleration, at.f("tolerations").i(i));
    }
    for (i, alias) in list_at(spec, &["hostAliases"]).iter().enumerate() {
        let (all, ip) = (at.f("hostAliases"), str_at(alias, &["ip"]));
        if ip.parse::<std::net::IpAddr>().is_err() {
            check.invalid(
                all.i(i).f("ip"),
                Some(&json!(ip)),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
    affinity(check, spec, at);
    spread(check, spec, at.f("topologySpreadConstraints"));
}

fn dns(check: &mut Check, spec: &Value, at: Path<'_>) {
    let policy = str_at(spec, &["dnsPolicy"]);
    check.one_of(at.f("dnsPolicy"), policy, &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    let servers = list_at(spec, &["dnsConfig", "nameservers"]);
    let here = at.f("dnsConfig");
    if policy == "None" && servers.is_empty() {
        check.required(here.f("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    for (i, server) in servers.iter().enumerate() {
        if server.as_str().is_none_or(|s| s.parse::<std::net::IpAddr>().is_err()) {
            check.invalid(
                here.f("nameservers").i(i),
                Some(server),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
}

fn toleration(check: &mut Check, t: &Value, at: Path<'_>) {
    let (key, operator, effect) = (str_at(t, &["key"]), str_at(t, &["operator"]), str_at(t, &["effect"]));
    check.optional_name(at.f("key"), key, meta::label_key);
    if key.is_empty() && operator != "Exists" {
        check.invalid(
            at.f("operator"),
            Some(&json!(operator)),
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    match operator {
        "" | "Equal" => check.name(at.f("operator"), str_at(t, &["value"]), meta::label_value),
        "Exists" if !str_at(t, &["value"]).is_empty() => {
            check.invalid(at.f("operator"), t.get("value"), "value must be empty when `operator` is 'Exists'")
        }
        "Exists" | "Gt" | "Lt" => {}
        other => check.add(Error::not_supported(at.f("operator"), &json!(other), &["Equal", "Exists"])),
    }
    if !effect.is_empty() && !["NoExecute", "NoSchedule", "PreferNoSchedule"].contains(&effect) {
        check.add(Error::not_supported(
            at.f("effect"),
            &json!(effect),
            &["NoExecute", "NoSchedule", "PreferNoSchedule"],
        ));
    }
    if i64_at(t, &["tolerationSeconds"]).is_some() && effect != "NoExecute" {
        check.invalid(
            at.f("effect"),
            Some(&json!(effect)),
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        );
    }
}

fn affinity(check: &mut Check, spec: &Value, at: Path<'_>) {
    const NODE: &[&str] = &["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let here = at.f("affinity");
    let (node, required) = (here.f("nodeAffinity"), "requiredDuringSchedulingIgnoredDuringExecution");
    let node = node.f(required);
    if let Some(selector) = crate::tree::at(spec, NODE) {
        let terms = list_at(selector, &["nodeSelectorTerms"]);
        if terms.is_empty() {
            check.required(node.f("nodeSelectorTerms"), "must have at least one node selector term");
        }
        for (i, term) in terms.iter().enumerate() {
            let all = node.f("nodeSelectorTerms");
            if let Err(why) = crate::selector::LabelSelector::from_expressions(list_at(term, &["matchExpressions"])) {
                check.invalid(all.i(i).f("matchExpressions"), term.get("matchExpressions"), &why.to_string());
            }
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (i, term) in list_at(spec, &["affinity", kind, required]).iter().enumerate() {
            let (kinds, terms) = (here.f(kind), required);
            let all = kinds.f(terms);
            pod_term(check, term, all.i(i));
        }
    }
}

fn pod_term(check: &mut Check, term: &Value, at: Path<'_>) {
    check.selector(term.get("labelSelector"), at.f("labelSelector"));
    let key = str_at(term, &["topologyKey"]);
    if key.is_empty() {
        check.required(at.f("topologyKey"), "can not be empty");
    } else {
        check.name(at.f("topologyKey"), key, meta::label_key);
    }
}

fn spread(check: &mut Check, spec: &Value, at: Path<'_>) {
    for (i, c) in list_at(spec, &["topologySpreadConstraints"]).iter().enumerate() {
        let here = at.i(i);
        if i64_at(c, &["maxSkew"]).unwrap_or(0) <= 0 {
            check.invalid(here.f("maxSkew"), c.get("maxSkew"), "must be greater than zero");
        }
        if str_at(c, &["topologyKey"]).is_empty() {
            check.required(here.f("topologyKey"), "can not be empty");
        }
        check.one_of(
            here.f("whenUnsatisfiable"),
            str_at(c, &["whenUnsatisfiable"]),
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        check.selector(c.get("labelSelector"), here.f("labelSelector"));
    }
}

/// What holds for new pods only.
pub(super) fn created(check: &mut Check, pod: &Value) {
    if !list_at(pod, &["spec", "ephemeralContainers"]).is_empty() {
        check.forbidden(Path::Root.f("spec").f("ephemeralContainers"), "cannot be set on create");
    }
}

/// A pod's spec is fixed but for a few fields: both sides are compared with those made equal.
pub(super) fn update(check: &mut Check, new: &Value, old: &Value) {
    let at = Path::Root.f("spec");
    let (Some(mut next), Some(mut last)) = (new.get("spec").cloned(), old.get("spec").cloned()) else { return };
    let deadline = |spec: &Value| i64_at(spec, &["activeDeadlineSeconds"]);
    match (deadline(&last), deadline(&next)) {
        (Some(a), Some(b)) if b > a => check.invalid(
            at.f("activeDeadlineSeconds"),
            Some(&json!(b)),
            "must be less than or equal to previous value",
        ),
        (Some(a), None) => check.invalid(
            at.f("activeDeadlineSeconds"),
            Some(&json!(a)),
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
    let tolerated = |spec: &Value| list_at(spec, &["tolerations"]).to_vec();
    if tolerated(&last).iter().any(|t| !tolerated(&next).contains(t)) {
        check.forbidden(at.f("tolerations"), "existing toleration can not be modified except its tolerationSeconds");
    }
    let gates = |spec: &Value| list_at(spec, &["schedulingGates"]).to_vec();
    if gates(&next).iter().any(|g| !gates(&last).contains(g)) {
        check.forbidden(at.f("schedulingGates"), "only deletion is allowed, but found new scheduling gates");
    }
    let gated = !gates(&last).is_empty();
    for side in [&mut next, &mut last] {
        for list in ["containers", "initContainers"] {
            for c in list_mut(side, &[list]) {
                remove(c, &["image"]);
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            remove(side, &[field]);
        }
        if gated {
            // A pod that waits at a gate may still be narrowed down.
            remove(side, &["nodeSelector"]);
            remove(side, &["affinity", "nodeAffinity"]);
        }
    }
    if i64_at(&last, &["terminationGracePeriodSeconds"]).is_some_and(|n| n < 0)
        && i64_at(&next, &["terminationGracePeriodSeconds"]) == Some(1)
    {
        remove(&mut last, &["terminationGracePeriodSeconds"]);
        remove(&mut next, &["terminationGracePeriodSeconds"]);
    }
    if next != last {
        check.forbidden(at, FIXED);
    }
}

/// Whether the pod shares the node's network.
fn host_network(spec: &Value) -> bool {
    bool_at(spec, &["hostNetwork"]).unwrap_or(false)
}
