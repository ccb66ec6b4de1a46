use super::*;
use crate::net::Tag;
use serde_json::{Value, json};

fn config() -> ProxyConfig {
    ProxyConfig {
        tag: Tag::parse("cafe").unwrap(),
        node_name: "here".into(),
        node_cidr: "10.42.0.0/24".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 42, 0, 1),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})
}

/// Endpoints written as "ADDRESS NODE STATE", STATE one of ready, down, leaving (serving while terminating), dying.
fn slice(owner: &str, endpoints: &[&str], ports: Value) -> Value {
    let one = |text: &&str| {
        let words: Vec<_> = text.split(' ').collect();
        let (ready, serving, terminating) = match words[2] {
            "ready" => (true, true, false),
            "down" => (false, false, false),
            "leaving" => (false, true, true),
            _ => (false, false, true),
        };
        json!({"addresses": [words[0]], "nodeName": words[1],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
    };
    json!({"metadata": {"namespace": "ns", "name": format!("{owner}-1"), "labels": {"kubernetes.io/service-name": owner}},
        "addressType": "IPv4", "endpoints": endpoints.iter().map(one).collect::<Vec<_>>(), "ports": ports})
}

/// The table as lines: "front -> hide affinity endpoints".
fn lines(objects: &[Value]) -> Vec<String> {
    let (slices, services): (Vec<_>, Vec<_>) = objects.iter().partition(|o| o.get("addressType").is_some());
    let mut all = Services::default();
    all.replace(services, slices);
    let table = table(&all, &config());
    let chain = |name: &ChainName| {
        let c = &table.chains[name];
        let ends: Vec<_> = c.endpoints.iter().map(|(a, p)| format!("{a}:{p}")).collect();
        let affinity = c.affinity_s.map(|s| format!(" {s}s")).unwrap_or_default();
        format!("{:?}{affinity} {}", c.hide, ends.join(" "))
    };
    let fronts =
        table.fronts.iter().map(|(f, c)| format!("{}:{}/{} {}", f.address, f.port, f.protocol.name(), chain(c)));
    let node = table.node_ports.iter().map(|((p, n), c)| format!("node:{n}/{} {}", p.name(), chain(c)));
    let pins = table.hairpins.iter().map(|a| format!("pin {a}"));
    fronts.chain(node).chain(pins).collect()
}

#[test]
fn ready_endpoints_by_port_name() {
    let web = service(
        "web",
        json!({"clusterIP": "10.43.0.5", "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
    );
    let ends = slice(
        "web",
        &["10.42.0.9 here ready", "10.42.1.7 there ready", "10.42.0.8 here down"],
        json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "other", "port": 1}]),
    );
    assert_eq!(
        lines(&[web, ends]),
        [
            "10.43.0.5:80/tcp Outsiders 10.42.0.9:8080 10.42.1.7:8080",
            "10.43.0.5:53/udp Outsiders 10.42.0.9:5353 10.42.1.7:5353",
            "pin 10.42.0.8",
            "pin 10.42.0.9",
        ]
    );
}

#[test]
fn falls_back_to_those_that_still_serve() {
    let web = || service("web", json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80}]}));
    let with = |endpoints: &[&str]| lines(&[web(), slice("web", endpoints, json!([{"port": 80}]))]);
    let leaving = "10.42.1.1 there leaving";
    assert_eq!(with(&[leaving, "10.42.1.2 there dying"]), ["10.43.0.5:80/tcp Outsiders 10.42.1.1:80"]);
    assert_eq!(with(&[leaving, "10.42.1.3 there ready"]), ["10.43.0.5:80/tcp Outsiders 10.42.1.3:80"]);
    assert_eq!(with(&["10.42.1.2 there dying", "10.42.1.4 there down"]), [""; 0], "none at all: no front, so refused");
}

#[test]
fn traffic_policies_and_outer_fronts() {
    let ends = |owner| slice(owner, &["10.42.0.9 here ready", "10.42.1.7 there ready"], json!([{"port": 80}]));
    let outer = |policy: &str| {
        service(
            "web",
            json!({"clusterIP": "10.43.0.5", "externalTrafficPolicy": policy, "externalIPs": ["192.0.2.7"],
                "ports": [{"port": 80, "nodePort": 30080}]}),
        )
    };
    assert_eq!(
        lines(&[outer("Cluster"), ends("web")]),
        [
            "10.43.0.5:80/tcp Outsiders 10.42.0.9:80 10.42.1.7:80",
            "192.0.2.7:80/tcp Everyone 10.42.0.9:80 10.42.1.7:80",
            "node:30080/tcp Everyone 10.42.0.9:80 10.42.1.7:80",
            "pin 10.42.0.9",
        ]
    );
    assert_eq!(lines(&[outer("Local"), ends("web")])[2], "node:30080/tcp NoOne 10.42.0.9:80");
    let inner =
        service("in", json!({"clusterIP": "10.43.0.6", "internalTrafficPolicy": "Local", "ports": [{"port": 80}]}));
    assert_eq!(lines(&[inner, ends("in")])[0], "10.43.0.6:80/tcp Outsiders 10.42.0.9:80");
}

#[test]
fn affinity_headless_and_claims() {
    let ends = |owner| slice(owner, &["10.42.1.7 there ready"], json!([{"port": 80}]));
    let sticky = service(
        "a",
        json!({"clusterIP": "10.43.0.5", "sessionAffinity": "ClientIP", "externalIPs": ["192.0.2.7"],
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}, "ports": [{"port": 80}]}),
    );
    let headless = service("h", json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    let thief = service("b", json!({"clusterIP": "10.43.0.9", "externalIPs": ["192.0.2.7"], "ports": [{"port": 80}]}));
    assert_eq!(
        lines(&[thief, sticky, headless, ends("a"), ends("b"), ends("h")]),
        [
            "10.43.0.5:80/tcp Outsiders 60s 10.42.1.7:80",
            "10.43.0.9:80/tcp Outsiders 10.42.1.7:80",
            "192.0.2.7:80/tcp Everyone 60s 10.42.1.7:80",
        ]
    );
}

#[test]
fn chain_names_fit_and_differ() {
    let port = |n| ServicePort { name: String::new(), protocol: Protocol::Tcp, port: n, node_port: None };
    let long = ("n".repeat(63), "s".repeat(63));
    let (a, b) = (chain_name("in", &long, &port(1)), chain_name("in", &long, &port(2)));
    assert!(a.len() <= CHAIN_NAME_MAX && a != b, "{a}");
    let cut = chain_name("in", &("é".repeat(70), String::new()), &port(1));
    assert!((CHAIN_NAME_MAX - 1..=CHAIN_NAME_MAX).contains(&cut.len()), "never inside a character: {cut}");
}
