//! Services reach their endpoints: from pods, from the node, from outside; and the rules read well.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mote_agent::net::Network;
use mote_agent::proxy::{Proxy, ProxyConfig, Services};
use serde_json::{Value, json};

use crate::world::{Ns, config};

/// A machine with pod network and proxy.
struct Node {
    ns: Ns,
    net: Arc<Network>,
    proxy: Arc<Mutex<(Proxy, Services)>>,
}

impl Node {
    fn new(tag: &'static str, n: u8) -> Node {
        let ns = Ns::new();
        let net = ns.run(move || Arc::new(Network::open(config(tag, n)).unwrap()));
        let proxy = Proxy::new(ProxyConfig::new(&config(tag, n), &format!("node{n}")));
        Node { ns, net, proxy: Arc::new(Mutex::new((proxy, Services::default()))) }
    }

    fn pod(&self, id: &'static str) -> (Ns, Ipv4Addr) {
        let pod = Ns::new();
        let (net, path) = (self.net.clone(), pod.path());
        let ip = self.ns.run(move || net.attach(id, &path).unwrap());
        (pod, ip)
    }

    fn apply(&self, objects: &[Value]) {
        let (proxy, objects) = (self.proxy.clone(), objects.to_vec());
        self.ns.run(move || {
            let (slices, services): (Vec<_>, Vec<_>) = objects.iter().partition(|o| o.get("addressType").is_some());
            let (proxy, all) = &mut *proxy.lock().unwrap();
            all.replace(services, slices);
            proxy.apply(all).unwrap();
        });
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})
}

fn slice(owner: &str, port: u16, protocol: &str, endpoints: &[(Ipv4Addr, &str)]) -> Value {
    let endpoints: Vec<_> = endpoints.iter().map(|(a, n)| json!({"addresses": [a], "nodeName": n})).collect();
    json!({"metadata": {"namespace": "ns", "name": owner, "labels": {"kubernetes.io/service-name": owner}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": port, "protocol": protocol}]})
}

/// How often each endpoint answers `n` clients, and which client addresses it sees.
fn tally(from: &Ns, ip: impl Into<std::net::IpAddr>, port: u16, n: usize) -> BTreeMap<String, usize> {
    let ip = ip.into();
    let mut seen = BTreeMap::new();
    for _ in 0..n {
        *seen.entry(from.ask(ip, port).unwrap()).or_default() += 1;
    }
    seen
}

const VIP: [u8; 4] = [10, 43, 0, 80];

#[test]
fn endpoints_answer_in_turn_to_pods_and_node() {
    let node = Node::new("c001", 0);
    let ((a, ip_a), (b, ip_b), (client, ip_c)) = (node.pod("a"), node.pod("b"), node.pod("c"));
    let (_a, _b) = (a.serve("0.0.0.0:8080", "a"), b.serve("0.0.0.0:8080", "b"));
    let web = service("web", json!({"clusterIP": "10.43.0.80", "ports": [{"port": 80}]}));
    node.apply(&[web.clone(), slice("web", 8080, "TCP", &[(ip_a, "node0"), (ip_b, "node0")])]);

    let want = |client: &str| BTreeMap::from([(format!("a {client}"), 3), (format!("b {client}"), 3)]);
    assert_eq!(tally(&client, VIP, 80, 6), want(&ip_c.to_string()), "untranslated client, strictly in turn");
    assert_eq!(tally(&node.ns, VIP, 80, 6), want("10.42.0.1"), "the node without any default route");
    let own = tally(&a, VIP, 80, 4);
    assert_eq!(own, BTreeMap::from([("a 10.42.0.1".into(), 2), (format!("b {ip_a}"), 2)]), "reaches itself too");

    // Another port, and another Service without endpoints, are refused at once, to pods and to the node.
    node.apply(&[
        web.clone(),
        slice("web", 8080, "TCP", &[(ip_b, "node0")]),
        service("none", json!({"clusterIP": "10.43.0.81", "ports": [{"port": 80}]})),
    ]);
    let start = Instant::now();
    for from in [&client, &node.ns] {
        for (ip, port) in [(VIP, 81), ([10, 43, 0, 81], 80), ([10, 43, 9, 9], 80)] {
            assert_eq!(from.ask(ip, port).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{ip:?}:{port}");
        }
    }
    assert!(start.elapsed().as_secs() < 2);
    assert_eq!(tally(&client, VIP, 80, 2), BTreeMap::from([(format!("b {ip_c}"), 2)]));

    node.apply(&[]);
    assert!(client.ask(VIP, 80).is_err());
    assert!(!node.ns.sh("nft list ruleset").contains("web"));
}

#[test]
fn node_ports_and_external_addresses_lead_in_from_outside() {
    let (one, two, world) = (Node::new("c011", 1), Node::new("c012", 2), Ns::new());
    one.ns.wire("up0", "192.0.2.1/24", &two.ns, "up0", "192.0.2.2/24");
    world.wire("w0", "198.51.100.9/24", &one.ns, "in0", "198.51.100.1/24");
    world.sh("ip route add default via 198.51.100.1");
    one.net_routes(&[("10.42.2.0/24", [192, 0, 2, 2])]);
    two.net_routes(&[("10.42.1.0/24", [192, 0, 2, 1])]);
    let ((near, ip_near), (far, ip_far)) = (one.pod("near"), two.pod("far"));
    let (_n, _f) = (near.serve("0.0.0.0:8080", "near"), far.serve("0.0.0.0:8080", "far"));
    let web = |policy: &str| {
        service(
            "web",
            json!({"clusterIP": "10.43.0.80", "externalTrafficPolicy": policy, "externalIPs": ["203.0.113.5"],
                "ports": [{"port": 80, "nodePort": 30080}]}),
        )
    };
    let ends = slice("web", 8080, "TCP", &[(ip_near, "node1"), (ip_far, "node2")]);
    one.apply(&[web("Cluster"), ends.clone()]);
    // The far node has no way back to the world: only a hidden client gets its answer.
    let both = BTreeMap::from([("near 10.42.1.1".to_owned(), 2), ("far 192.0.2.1".to_owned(), 2)]);
    assert_eq!(tally(&world, [198, 51, 100, 1], 30080, 4), both);
    assert_eq!(tally(&world, [203, 0, 113, 5], 80, 4), both);
    let from_pod = tally(&near, VIP, 80, 4);
    assert_eq!(from_pod, BTreeMap::from([("near 10.42.1.1".into(), 2), (format!("far {ip_near}"), 2)]));
    let from_node = tally(&one.ns, [192, 0, 2, 1], 30080, 2);
    assert_eq!(from_node.len(), 2, "the node reaches its own node port: {from_node:?}");

    one.apply(&[web("Local"), ends]);
    let local = BTreeMap::from([("near 198.51.100.9".to_owned(), 3)]);
    assert_eq!(tally(&world, [198, 51, 100, 1], 30080, 3), local, "only here, and the client is seen");
}

impl Node {
    fn net_routes(&self, routes: &[(&str, [u8; 4])]) {
        let net = self.net.clone();
        let routes: Vec<_> = routes.iter().map(|(r, n)| (r.parse().unwrap(), Ipv4Addr::from(*n))).collect();
        self.ns.run(move || net.set_routes(&routes).unwrap());
    }
}

#[test]
fn clients_keep_their_endpoint_when_asked() {
    let node = Node::new("c021", 0);
    let ((a, ip_a), (b, ip_b), (c, ip_c), (d, ip_d)) = (node.pod("a"), node.pod("b"), node.pod("c"), node.pod("d"));
    let _servers = [a.serve("0.0.0.0:80", "a"), b.serve("0.0.0.0:80", "b")];
    let web = service(
        "web",
        json!({"clusterIP": "10.43.0.80", "sessionAffinity": "ClientIP", "ports": [{"port": 80}],
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 30}}}),
    );
    let both = [(ip_a, "node0"), (ip_b, "node0")];
    node.apply(&[web.clone(), slice("web", 80, "TCP", &both)]);
    assert_eq!(tally(&c, VIP, 80, 4), BTreeMap::from([(format!("a {ip_c}"), 4)]));
    assert_eq!(tally(&d, VIP, 80, 4), BTreeMap::from([(format!("b {ip_d}"), 4)]));
    // A new endpoint moves nobody; a lost one moves its clients.
    let more = [(ip_a, "node0"), (ip_b, "node0"), (Ipv4Addr::new(10, 42, 0, 200), "node0")];
    node.apply(&[web.clone(), slice("web", 80, "TCP", &more)]);
    assert_eq!(tally(&d, VIP, 80, 4), BTreeMap::from([(format!("b {ip_d}"), 4)]));
    node.apply(&[web.clone(), slice("web", 80, "TCP", &both[..1])]);
    assert_eq!(tally(&d, VIP, 80, 2), BTreeMap::from([(format!("a {ip_d}"), 2)]));
    node.apply(&[slice("web", 80, "TCP", &both)]);
    assert!(!node.ns.sh("nft list ruleset").contains("timeout"), "its memory goes with the Service");
}

#[test]
fn udp_clients_leave_a_gone_endpoint() {
    let node = Node::new("c031", 0);
    let ((a, ip_a), (b, ip_b), (client, _)) = (node.pod("a"), node.pod("b"), node.pod("c"));
    let (at_a, at_b, from) = (a.udp("0.0.0.0:5353"), b.udp("0.0.0.0:5353"), client.udp("0.0.0.0:0"));
    let dns = service("dns", json!({"clusterIP": "10.43.0.80", "ports": [{"port": 53, "protocol": "UDP"}]}));
    let apply = |ip| node.apply(&[dns.clone(), slice("dns", 5353, "UDP", &[(ip, "node0")])]);
    let mut buffer = [0; 9];
    apply(ip_a);
    from.send_to(b"one", "10.43.0.80:53").unwrap();
    assert_eq!(at_a.recv_from(&mut buffer).unwrap().0, 3);
    apply(ip_b);
    from.send_to(b"four", "10.43.0.80:53").unwrap();
    assert_eq!(at_b.recv_from(&mut buffer).expect("the same client socket reaches the new endpoint").0, 4);
}

#[test]
fn a_flushed_ruleset_and_a_foreign_change_are_repaired() {
    let node = Node::new("c041", 0);
    let ((a, ip_a), (client, _)) = (node.pod("a"), node.pod("c"));
    let _server = a.serve("0.0.0.0:80", "a");
    let objects = |port: u16| {
        [
            service("web", json!({"clusterIP": "10.43.0.80", "ports": [{"port": port}]})),
            slice("web", 80, "TCP", &[(ip_a, "node0")]),
        ]
    };
    node.apply(&objects(80));
    assert!(client.ask(VIP, 80).is_ok());
    node.ns.sh("nft flush ruleset");
    assert!(client.ask(VIP, 80).is_err());
    node.apply(&objects(80));
    assert!(client.ask(VIP, 80).is_ok(), "the table was missed");
    node.ns.sh("nft flush map ip mote-c041-proxy services");
    node.apply(&objects(81));
    assert!(client.ask(VIP, 81).is_ok(), "what cannot be changed is made anew");
    // A restarted agent takes the table over in one transaction.
    let proxy = Proxy::new(ProxyConfig::new(&config("c041", 0), "node0"));
    let fresh = Node { proxy: Arc::new(Mutex::new((proxy, Services::default()))), ..node };
    fresh.apply(&objects(82));
    assert!(client.ask(VIP, 82).is_ok() && client.ask(VIP, 81).is_err());
    let proxy = fresh.proxy.clone();
    fresh.ns.run(move || {
        proxy.lock().unwrap().0.teardown().unwrap();
        proxy.lock().unwrap().0.teardown().unwrap();
    });
    assert!(!fresh.ns.sh("nft list ruleset").contains("proxy"));
}

/// Limits are ten times what a quiet machine needs, unoptimised.
#[test]
fn thousands_of_services_change_in_milliseconds() {
    const SERVICES: u16 = 5_000;
    let node = Node::new("c061", 0);
    let ((a, ip_a), (client, _)) = (node.pod("a"), node.pod("c"));
    let _server = a.serve("0.0.0.0:80", "a");
    let (first, change, idle) = node.ns.run({
        let proxy = node.proxy.clone();
        move || {
            let (proxy, all) = &mut *proxy.lock().unwrap();
            for n in 0..SERVICES {
                let name = format!("s{n}");
                let ip = Ipv4Addr::from(0x0a2b_0000 + 256 + u32::from(n));
                all.set_service(&service(&name, json!({"clusterIP": ip, "ports": [{"port": 80}]})));
                all.set_slice(&slice(&name, 80, "TCP", &[(ip_a, "node0"), ([10, 42, 1, 7].into(), "far")]));
            }
            let mut took = [(); 3].map(|()| std::time::Duration::ZERO);
            for (n, took) in took.iter_mut().enumerate() {
                if n == 1 {
                    all.set_slice(&slice("s7", 80, "TCP", &[(ip_a, "node0")]));
                }
                let start = Instant::now();
                proxy.apply(all).unwrap();
                *took = start.elapsed();
            }
            (took[0], took[1], took[2])
        }
    });
    println!("{SERVICES} services: first {first:?}, one change {change:?}, no change {idle:?}");
    assert_eq!(client.ask([10, 43, 1, 7], 80).map(|t| t.starts_with("a ")).ok(), Some(true));
    assert!(first.as_secs() < 20 && change.as_millis() < 1500 && idle.as_millis() < 100);
}

/// What the real nft reads back is what we meant: bytes, byte orders and types.
#[test]
fn nft_reads_the_rules_as_meant() {
    let node = Node::new("c051", 0);
    let ends = |owner| slice(owner, 8080, "TCP", &[([10, 42, 0, 7].into(), "node0"), ([10, 42, 1, 9].into(), "far")]);
    node.apply(&[
        service("plain", json!({"clusterIP": "10.43.0.80", "ports": [{"port": 80, "nodePort": 30080}]})),
        service("sticky", json!({"clusterIP": "10.43.0.81", "sessionAffinity": "ClientIP", "ports": [{"port": 443}]})),
        ends("plain"),
        ends("sticky"),
    ]);
    let got = node.ns.sh("nft list ruleset");
    let want = include_str!("ruleset.nft");
    assert!(unordered(&got) == unordered(want), "nft reads\n{got}\nwanted\n{want}");
}

/// The lines of a ruleset, whatever the order of the elements of its maps.
fn unordered(text: &str) -> Vec<Vec<&str>> {
    let punctuation = [' ', '\t', ',', '{', '}', '='];
    let line = |line| -> Vec<&str> {
        let mut words: Vec<_> = str::split(line, punctuation).filter(|w| !w.is_empty() && *w != "elements").collect();
        words.sort_unstable();
        words
    };
    let mut lines: Vec<_> = text.lines().map(line).filter(|l| !l.is_empty()).collect();
    lines.sort();
    lines
}
