//! Rules of Services.

use std::collections::HashSet;
use std::net::IpAddr;

use super::{Check, port_name};
use crate::field::{Error, Path};
use crate::meta;
use crate::tree::{Value, i64_at, json, list_at, str_at};

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(super) fn service(check: &mut Check, object: &Value) {
    let Some(spec) = object.get("spec") else {
        check.required(Path::Root.f("spec"), "");
        return;
    };
    let at = Path::Root.f("spec");
    let kind = str_at(spec, &["type"]);
    let headless = str_at(spec, &["clusterIP"]) == "None";
    check.one_of(at.f("type"), kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    if list_at(spec, &["ports"]).is_empty() && !headless && kind != "ExternalName" {
        check.required(at.f("ports"), "");
    }
    match kind {
        "ExternalName" => {
            check.required_name(
                at.f("externalName"),
                str_at(spec, &["externalName"]).trim_end_matches('.'),
                meta::dns_subdomain,
            );
            if !str_at(spec, &["clusterIP"]).is_empty() {
                check.forbidden(at.f("clusterIPs"), "may not be set for ExternalName services");
            }
        }
        "LoadBalancer" | "NodePort" if headless => {
            check.invalid(
                at.f("clusterIPs").i(0),
                Some(&json!("None")),
                &format!("may not be set to 'None' for {kind} services"),
            );
        }
        _ => {}
    }
    ports(check, spec, at.f("ports"));
    check.labels(at.f("selector"), spec, &["selector"]);
    check.one_of(at.f("sessionAffinity"), str_at(spec, &["sessionAffinity"]), &["ClientIP", "None"]);
    if let Some(seconds) = i64_at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"])
        && !(1..=86_400).contains(&seconds)
    {
        check.invalid(
            at.f("sessionAffinityConfig").f("clientIP").f("timeoutSeconds"),
            Some(&json!(seconds)),
            "must be greater than 0 and less than 86400",
        );
    }
    addresses(check, spec, at);
    for (field, allowed) in
        [("externalTrafficPolicy", &["Cluster", "Local"]), ("internalTrafficPolicy", &["Cluster", "Local"])]
    {
        let policy = str_at(spec, &[field]);
        if !policy.is_empty() {
            check.one_of(at.f(field), policy, allowed);
        }
    }
}

fn ports(check: &mut Check, spec: &Value, at: Path<'_>) {
    let all = list_at(spec, &["ports"]);
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, port) in all.iter().enumerate() {
        let one = at.i(i);
        let (name, protocol) = (str_at(port, &["name"]), str_at(port, &["protocol"]));
        if name.is_empty() {
            if all.len() > 1 {
                check.required(one.f("name"), "");
            }
        } else {
            check.name(one.f("name"), name, meta::dns_label);
            if !names.insert(name) {
                check.add(Error::duplicate(one.f("name"), &json!(name)));
            }
        }
        check.port(one.f("port"), port.get("port"));
        check.one_of(one.f("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        match port.get("targetPort") {
            Some(Value::String(target)) => check.name(one.f("targetPort"), target, port_name),
            Some(target) => check.port(one.f("targetPort"), Some(target)),
            None => {}
        }
        if !numbers.insert((i64_at(port, &["port"]), protocol)) {
            check.add(Error::duplicate(one, &json!({"port": port.get("port"), "protocol": protocol})));
        }
        let node_port = i64_at(port, &["nodePort"]).unwrap_or(0);
        if node_port != 0 {
            if str_at(spec, &["type"]) == "ClusterIP" || str_at(spec, &["type"]) == "ExternalName" {
                check.forbidden(one.f("nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
            check.port(one.f("nodePort"), port.get("nodePort"));
            if !node_ports.insert((node_port, protocol)) {
                check.add(Error::duplicate(one.f("nodePort"), &json!(node_port)));
            }
        }
    }
}

fn addresses(check: &mut Check, spec: &Value, at: Path<'_>) {
    let own = str_at(spec, &["clusterIP"]);
    if !own.is_empty() && own != "None" && own.parse::<IpAddr>().is_err() {
        check.invalid(at.f("clusterIPs").i(0), Some(&json!(own)), IP);
    }
    let first = list_at(spec, &["clusterIPs"]).first().and_then(Value::as_str);
    if first.is_some_and(|f| f != own) {
        check.invalid(at.f("clusterIPs"), spec.get("clusterIPs"), "first value must match `clusterIP`");
    }
    for (i, ip) in list_at(spec, &["externalIPs"]).iter().enumerate() {
        if ip.as_str().is_none_or(|t| t.parse::<IpAddr>().is_err()) {
            check.invalid(at.f("externalIPs").i(i), Some(ip), IP);
        }
    }
}

/// A cluster IP stays for the life of the Service, unless its type takes it away.
pub(super) fn update(check: &mut Check, new: &Value, old: &Value) {
    let has_ip = |o: &Value| str_at(o, &["spec", "type"]) != "ExternalName";
    let ip = |o: &Value| str_at(o, &["spec", "clusterIP"]).to_string();
    if has_ip(new) && has_ip(old) && !ip(old).is_empty() && ip(new) != ip(old) {
        check.invalid(Path::Root.f("spec").f("clusterIPs").i(0), Some(&json!([ip(new)])), "may not change once set");
    }
}
