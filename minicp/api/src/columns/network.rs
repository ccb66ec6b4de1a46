//! Rows of Services and what stands around them.

use super::{either, first_three, join, labels_text, name, or_none, selector_text, since_creation, text};
use crate::time::Time;
use crate::tree::{Value, at, i64_at, json, list_at, map_at, str_at};

pub(super) fn service(s: &Value, now: Time) -> Vec<Value> {
    let kind = str_at(s, &["spec", "type"]);
    let ip = match list_at(s, &["spec", "clusterIPs"]).first().and_then(Value::as_str) {
        Some(ip) => ip,
        None => str_at(s, &["spec", "clusterIP"]),
    };
    let external: Vec<&str> = list_at(s, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    let outside = match kind {
        "ExternalName" => str_at(s, &["spec", "externalName"]).to_string(),
        "LoadBalancer" => {
            let given = list_at(s, &["status", "loadBalancer", "ingress"]).iter();
            let address = |i: &Value| {
                if str_at(i, &["ip"]).is_empty() {
                    str_at(i, &["hostname"]).to_string()
                } else {
                    str_at(i, &["ip"]).to_string()
                }
            };
            let mut all: Vec<String> = given.map(address).collect();
            all.extend(external.iter().map(|e| e.to_string()));
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        _ => external.join(","),
    };
    let port = |p: &Value| {
        let (number, node) = (i64_at(p, &["port"]).unwrap_or(0), i64_at(p, &["nodePort"]).unwrap_or(0));
        let protocol = str_at(p, &["protocol"]);
        if node > 0 { format!("{number}:{node}/{protocol}") } else { format!("{number}/{protocol}") }
    };
    let ports = list_at(s, &["spec", "ports"]).iter().map(port).collect::<Vec<_>>().join(",");
    vec![
        name(s),
        json!(kind),
        or_none(ip),
        or_none(&outside),
        or_none(&ports),
        since_creation(s, now),
        json!(map_at(s, &["spec", "selector"]).map_or_else(|| "<none>".into(), labels_text)),
    ]
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(super) fn endpoints(e: &Value, now: Time) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list_at(e, &["subsets"]) {
        let ips = || list_at(subset, &["addresses"]).iter().map(|a| str_at(a, &["ip"]));
        match list_at(subset, &["ports"]) {
            [] => all.extend(ips().map(str::to_string)),
            ports => {
                for port in ports {
                    all.extend(ips().map(|ip| host_port(ip, i64_at(port, &["port"]).unwrap_or(0))));
                }
            }
        }
    }
    vec![name(e), or_none(&first_three(all)), since_creation(e, now)]
}

pub(super) fn endpoint_slice(e: &Value, now: Time) -> Vec<Value> {
    let unset = |text: String| if text.is_empty() { "<unset>".to_string() } else { text };
    let port = |p: &Value| match (i64_at(p, &["port"]), str_at(p, &["name"])) {
        (Some(number), _) => number.to_string(),
        (None, "") => "*".into(),
        (None, name) => name.to_string(),
    };
    let ports = list_at(e, &["ports"]).iter().map(port).collect();
    let addresses = list_at(e, &["endpoints"])
        .iter()
        .flat_map(|p| list_at(p, &["addresses"]))
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect();
    vec![
        name(e),
        text(e, &["addressType"]),
        json!(unset(first_three(ports))),
        json!(unset(first_three(addresses))),
        since_creation(e, now),
    ]
}

pub(super) fn ingress(i: &Value, now: Time) -> Vec<Value> {
    let rules = list_at(i, &["spec", "rules"]);
    let hosts = join(rules.iter().map(|r| str_at(r, &["host"])).filter(|h| !h.is_empty()));
    let given = list_at(i, &["status", "loadBalancer", "ingress"]).iter();
    let addresses =
        join(given.map(|g| if str_at(g, &["ip"]).is_empty() { str_at(g, &["hostname"]) } else { str_at(g, &["ip"]) }));
    let ports = if list_at(i, &["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        name(i),
        or_none(str_at(i, &["spec", "ingressClassName"])),
        json!(if hosts.is_empty() { "*" } else { &hosts }),
        json!(addresses),
        json!(ports),
        since_creation(i, now),
    ]
}

pub(super) fn ingress_class(c: &Value, now: Time) -> Vec<Value> {
    let parameters = at(c, &["spec", "parameters"]).map_or_else(
        || "<none>".to_string(),
        |p| {
            let group = str_at(p, &["apiGroup"]);
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", str_at(p, &["kind"]), str_at(p, &["name"]))
        },
    );
    vec![name(c), text(c, &["spec", "controller"]), json!(parameters), since_creation(c, now)]
}

pub(super) fn policy(p: &Value, now: Time) -> Vec<Value> {
    let selector = at(p, &["spec", "podSelector"]).map_or_else(|| "<none>".into(), selector_text);
    vec![name(p), either(Some(&json!(selector)), ""), since_creation(p, now)]
}
