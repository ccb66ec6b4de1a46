//! Pods reach each other, the node, other nodes and the world; and leave nothing behind.

use std::net::Ipv4Addr;
use std::sync::Arc;

use mote_agent::net::{Error, Network, Tag, node_address, teardown};

use crate::world::{Ns, config};

fn open(machine: &Ns, tag: &'static str, n: u8) -> Arc<Network> {
    machine.run(move || Arc::new(Network::open(config(tag, n)).unwrap()))
}

fn attach(machine: &Ns, net: &Arc<Network>, id: &'static str, pod: &Ns) -> Result<Ipv4Addr, Error> {
    let (net, path) = (net.clone(), pod.path());
    machine.run(move || net.attach(id, &path))
}

#[test]
fn pods_reach_each_other_the_node_and_the_world() {
    let (machine, world, a, b) = (Ns::new(), Ns::new(), Ns::new(), Ns::new());
    machine.wire("up0", "192.0.2.1/24", &world, "w0", "192.0.2.99/24");
    machine.sh("ip route add default via 192.0.2.99 && ip link set up0 mtu 1400");
    assert_eq!(machine.run(|| node_address().unwrap()), Some(Ipv4Addr::new(192, 0, 2, 1)));
    let net = open(&machine, "a001", 0);
    let ip_a = attach(&machine, &net, "pod-a", &a).unwrap();
    let ip_b = attach(&machine, &net, "pod-b", &b).unwrap();
    assert_eq!(ip_a, Ipv4Addr::new(10, 42, 0, 2));
    assert_eq!(ip_b, Ipv4Addr::new(10, 42, 0, 3));

    let _in_a = a.serve("0.0.0.0:80", "a");
    let _on_node = machine.serve("0.0.0.0:81", "node");
    let _outside = world.serve("0.0.0.0:82", "world");
    assert_eq!(machine.ask(ip_a, 80).unwrap(), "a 10.42.0.1");
    assert_eq!(b.ask(ip_a, 80).unwrap(), format!("a {ip_b}"), "no translation between pods");
    assert_eq!(b.ask(net.gateway(), 81).unwrap(), format!("node {ip_b}"));
    assert_eq!(b.ask([192, 0, 2, 1], 81).unwrap(), format!("node {ip_b}"));
    assert_eq!(b.ask([192, 0, 2, 99], 82).unwrap(), "world 192.0.2.1", "masqueraded");
    assert!(a.sh("ip link show eth0").contains("mtu 1400"));
    assert!(!a.sh("ip -6 addr show dev eth0").contains("inet6"), "no IPv6 chatter");
    assert_eq!(node_address_of(&machine), Some(Ipv4Addr::new(192, 0, 2, 1)));
}

fn node_address_of(machine: &Ns) -> Option<Ipv4Addr> {
    machine.run(|| node_address().unwrap())
}

#[test]
fn everything_is_idempotent_and_survives_a_restart() {
    let (machine, a, b) = (Ns::new(), Ns::new(), Ns::new());
    let net = open(&machine, "a002", 7);
    let ip = attach(&machine, &net, "a", &a).unwrap();
    let index = machine.sh("ip -o link");
    assert_eq!(attach(&machine, &net, "a", &a).unwrap(), ip);
    assert_eq!(machine.sh("ip -o link"), index, "the second attach makes nothing");

    drop(net);
    let net = open(&machine, "a002", 7);
    assert_eq!(net_attached(&machine, &net), [("a".to_owned(), ip)]);
    let other = attach(&machine, &net, "b", &b).unwrap();
    assert_ne!(other, ip, "a restarted agent knows which addresses are taken");
    assert_eq!(attach(&machine, &net, "a", &a).unwrap(), ip);

    a.sh("ip link set eth0 down && ip addr flush dev eth0");
    assert_eq!(attach(&machine, &net, "a", &a).unwrap(), ip, "repaired");
    let _server = a.serve("0.0.0.0:80", "a");
    assert_eq!(machine.ask(ip, 80).unwrap(), "a 10.42.7.1");

    drop(b);
    machine.run({
        let net = net.clone();
        move || {
            net.detach("b").unwrap();
            net.detach("b").unwrap();
            net.detach("never was").unwrap();
        }
    });
    let c = Ns::new();
    assert_eq!(attach(&machine, &net, "a", &c).unwrap(), ip, "a new sandbox of the same pod moves the address");
    assert!(!a.sh("ip -o link").contains("eth0"));
    assert_eq!(net_attached(&machine, &net), [("a".to_owned(), ip)]);
}

fn net_attached(machine: &Ns, net: &Arc<Network>) -> Vec<(String, Ipv4Addr)> {
    let net = net.clone();
    machine.run(move || net.attached().unwrap())
}

#[test]
fn a_failed_attach_leaves_nothing() {
    let (machine, pod) = (Ns::new(), Ns::new());
    let net = open(&machine, "a003", 0);
    pod.sh("ip link add eth0 type bridge");
    let error = attach(&machine, &net, "p", &pod).unwrap_err().to_string();
    assert!(error.starts_with("create veth pair mva003"), "{error}");
    assert_eq!(net_attached(&machine, &net), []);
    assert!(!machine.sh("ip -o link").contains("mva003"));
    pod.sh("ip link del eth0");
    assert_eq!(attach(&machine, &net, "p", &pod).unwrap(), Ipv4Addr::new(10, 42, 0, 3));
    let missing = net.attach("q", "/nonexistent/netns".as_ref()).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/netns: No such file"), "{missing}");
    assert!(attach(&machine, &net, "", &pod).is_err());
}

#[test]
fn teardown_leaves_nothing_and_neighbours_alone() {
    let (machine, a, b) = (Ns::new(), Ns::new(), Ns::new());
    let before = machine.sh("ip -o link; ip addr; ip route; nft list ruleset");
    let net = open(&machine, "a004", 0);
    let mut aside = config("a0ff", 0);
    aside.cluster_cidr = "10.52.0.0/16".parse().unwrap();
    aside.node_cidr = "10.52.0.0/24".parse().unwrap();
    aside.service_cidr = "10.53.0.0/16".parse().unwrap();
    aside.dns = None;
    let neighbour = machine.run(move || Arc::new(Network::open(aside).unwrap()));
    attach(&machine, &net, "a", &a).unwrap();
    let ip_b = attach(&machine, &neighbour, "b", &b).unwrap();
    let _server = b.serve("0.0.0.0:80", "b");
    assert!(a.ask(ip_b, 80).is_ok(), "two instances side by side");

    let tag = Tag::parse("a004").unwrap();
    machine.run(move || teardown(tag).unwrap());
    let left = machine.sh("ip -o link; ip addr; ip route; nft list ruleset");
    assert!(!left.contains("a004") && !left.contains("10.42."), "{left}");
    assert_eq!(machine.ask(ip_b, 80).unwrap(), "b 10.52.0.1", "the other instance goes on");
    machine.run(move || teardown(tag).unwrap());
    machine.run(move || neighbour.teardown().unwrap());
    assert_eq!(machine.sh("ip -o link; ip addr; ip route; nft list ruleset"), before);
    assert!(!a.sh("ip -o link").contains("eth0"));
}

#[test]
fn pods_of_two_nodes_reach_each_other_untranslated() {
    let (one, two, a, b) = (Ns::new(), Ns::new(), Ns::new(), Ns::new());
    one.wire("up0", "192.0.2.1/24", &two, "up0", "192.0.2.2/24");
    let (net1, net2) = (open(&one, "b001", 1), open(&two, "b002", 2));
    let ip_a = attach(&one, &net1, "a", &a).unwrap();
    let ip_b = attach(&two, &net2, "b", &b).unwrap();
    let routes = |machine: &Ns, net: &Arc<Network>, routes: &[(&str, [u8; 4])]| {
        let net = net.clone();
        let routes: Vec<_> = routes.iter().map(|(r, n)| (r.parse().unwrap(), Ipv4Addr::from(*n))).collect();
        machine.run(move || net.set_routes(&routes))
    };
    // A node's own range, and ranges outside the cluster, are no business of these routes.
    let all = [("10.42.1.0/24", [192, 0, 2, 1]), ("10.42.2.0/24", [192, 0, 2, 2]), ("10.99.0.0/24", [192, 0, 2, 2])];
    routes(&one, &net1, &all).unwrap();
    routes(&two, &net2, &all).unwrap();
    routes(&two, &net2, &all).unwrap();
    let _server = b.serve("0.0.0.0:80", "b");
    assert_eq!(a.ask(ip_b, 80).unwrap(), format!("b {ip_a}"));
    assert_eq!(one.ask(ip_b, 80).unwrap(), "b 10.42.1.1", "the node speaks from its gateway address");
    assert!(one.sh("ip route").contains("10.42.2.0/24 via 192.0.2.2"));
    routes(&one, &net1, &[("10.42.3.0/24", [192, 0, 2, 2])]).unwrap();
    let now = one.sh("ip route");
    assert!(now.contains("10.42.3.0/24 via") && !now.contains("10.42.2.0/24 via"), "{now}");
    assert!(routes(&one, &net1, &[("10.42.4.0/24", [203, 0, 113, 1])]).is_err(), "an unreachable node is said so");
    one.run(move || net1.teardown().unwrap());
    assert!(!one.sh("ip route").contains("10.42."));
}

#[test]
fn a_firewall_that_drops_lets_pods_pass() {
    let (machine, world, a, b) = (Ns::new(), Ns::new(), Ns::new(), Ns::new());
    machine.wire("up0", "192.0.2.1/24", &world, "w0", "192.0.2.99/24");
    machine.sh("ip route add default via 192.0.2.99");
    world.sh("ip route add 203.0.113.0/24 via 192.0.2.1");
    machine.sh("nft add table ip filter; nft add table inet wall; nft add table ip open;
         nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }';
         nft add chain inet wall forward '{ type filter hook forward priority 10; policy drop; }';
         nft add chain ip open forward '{ type filter hook forward priority 20; policy accept; }';
         nft add rule ip filter FORWARD ip saddr 10.42.0.0/16 tcp dport 99 drop comment mote-a006-not");
    let before = machine.sh("nft list ruleset");
    let net = open(&machine, "a006", 0);
    let (ip_a, _) = (attach(&machine, &net, "a", &a).unwrap(), attach(&machine, &net, "b", &b).unwrap());
    let (_in_a, _outside) = (a.serve("0.0.0.0:80", "a"), world.serve("0.0.0.0:82", "world"));
    assert_eq!(b.ask([192, 0, 2, 99], 82).unwrap(), "world 192.0.2.1");
    assert!(b.ask(ip_a, 80).is_ok());
    let rules = machine.sh("nft list ruleset");
    assert_eq!(rules.matches("accept comment \"mote-a006 10.42.0.0/16\"").count(), 4, "{rules}");
    let again = open(&machine, "a006", 0);
    assert_eq!(machine.sh("nft list ruleset"), rules, "opened twice, told once");
    machine.run(move || again.teardown().unwrap());
    assert_eq!(machine.sh("nft list ruleset"), before, "the firewall is as it was");
}

#[test]
fn nonsense_is_refused_before_anything_is_made() {
    type Change = fn(&mut mote_agent::net::NetConfig);
    let machine = Ns::new();
    let cases: [(Change, &str); 5] = [
        (|c| c.node_cidr = "10.42.0.0/30".parse().unwrap(), "too small"),
        (|c| c.node_cidr = "10.52.0.0/24".parse().unwrap(), "not in the cluster's"),
        (|c| c.service_cidr = "10.42.128.0/17".parse().unwrap(), "overlap"),
        (|c| c.dns = Some(Ipv4Addr::new(9, 9, 9, 9)), "DNS address"),
        (|c| c.mtu = Some(100), "MTU"),
    ];
    for (change, want) in cases {
        let mut config = config("a005", 0);
        change(&mut config);
        let error = machine.run(move || Network::open(config).err().unwrap().to_string());
        assert!(error.contains(want), "{error}");
    }
    assert!(!machine.sh("ip -o link").contains("a005"));
}
