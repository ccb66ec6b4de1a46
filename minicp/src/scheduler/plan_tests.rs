use super::*;
use crate::controllers::view::node::Node;
use mote_api::tree::{Value, json, set as put};

/// `name cpu [key=value…]`
fn node(text: &str, spec: Value) -> Rc<Node> {
    let mut words = text.split_whitespace();
    let (name, cpu) = (words.next().unwrap(), words.next().unwrap());
    let mut object = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": spec,
        "status": {
            "allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "3", "x/gpu": "1"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    for (key, value) in words.map(|w| w.split_once('=').unwrap()) {
        put(&mut object, &["metadata", "labels", key], json!(value));
    }
    Rc::new(Node::parse(&object))
}

fn pod(name: &str, app: &str, cpu: &str, spec: Value) -> Rc<Pod> {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        put(&mut object, &["spec", key], value.clone());
    }
    Rc::new(Pod::parse(&object))
}

fn world(nodes: Vec<Rc<Node>>, pods: Vec<(Rc<Pod>, &str)>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.into_iter().for_each(|n| snapshot.set_node(n));
    pods.into_iter().for_each(|(pod, node)| snapshot.place(pod, node.into()));
    snapshot
}

fn decide(pod: &Pod, snapshot: &Snapshot) -> String {
    match plan(pod, snapshot, 0).0 {
        Decision::Place(node) => node.to_string(),
        Decision::Unschedulable(message) => message,
    }
}

fn plain(name: &str, cpu: &str) -> Rc<Pod> {
    pod(name, "x", cpu, json!({}))
}

#[test]
fn says_why_not_by_count() {
    assert_eq!(decide(&plain("p", "1"), &Snapshot::default()), "no nodes available to schedule pods");
    let taint = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    let nodes = vec![node("a 1", json!({})), node("b 8", taint.clone()), node("c 8", taint)];
    assert_eq!(
        decide(&plain("p", "2"), &world(nodes, vec![])),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {k: v}."
    );
}

#[test]
fn each_filter_refuses_and_lets_pass() {
    let taint = |effect: &str| json!({"taints": [{"key": "k", "value": "v", "effect": effect}]});
    let affinity = |op: &str| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": op, "values": ["ssd"]}]}]}}}})
    };
    let port = json!({"containers": [{"image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    let gpu = |n: &str| json!({"containers": [{"image": "i", "resources": {"requests": {"x/gpu": n}}}]});
    let tolerate = json!({"tolerations": [{"key": "k", "operator": "Equal", "value": "v"}]});
    let rows = [
        (json!({}), json!({}), true),
        (json!({"unschedulable": true}), json!({}), false),
        (json!({"unschedulable": true}), json!({"tolerations": [{"operator": "Exists"}]}), true),
        (taint("NoSchedule"), json!({}), false),
        (taint("NoExecute"), json!({}), false),
        (taint("PreferNoSchedule"), json!({}), true),
        (taint("NoSchedule"), tolerate, true),
        (json!({}), json!({"nodeSelector": {"disk": "ssd"}}), true),
        (json!({}), json!({"nodeSelector": {"disk": "hdd"}}), false),
        (json!({}), affinity("In"), true),
        (json!({}), affinity("NotIn"), false),
        (json!({}), port.clone(), false),
        (json!({}), gpu("1"), true),
        (json!({}), gpu("2"), false),
    ];
    for (node_spec, pod_spec, fits) in rows {
        let there = pod("there", "y", "0", port.clone());
        let snapshot = world(vec![node("a 8 disk=ssd", node_spec.clone())], vec![(there, "a")]);
        let got = decide(&pod("p", "x", "1", pod_spec.clone()), &snapshot);
        assert_eq!(got == "a", fits, "{node_spec} {pod_spec}: {got}");
    }
}

#[test]
fn resources_are_exact() {
    let full = world(vec![node("a 1", json!({}))], vec![(plain("b", "600m"), "a")]);
    assert_eq!(decide(&plain("p", "400m"), &full), "a");
    assert_eq!(decide(&plain("p", "401m"), &full), "0/1 nodes are available: 1 Insufficient cpu.");
    let pods = (0..3).map(|i| (plain(&format!("q{i}"), "0"), "a")).collect();
    let crowded = world(vec![node("a 1", json!({}))], pods);
    assert_eq!(decide(&plain("p", "0"), &crowded), "0/1 nodes are available: 1 Too many pods.");
}

#[test]
fn a_node_that_is_not_ready_gets_nobody() {
    let silent = Rc::new(Node::parse(&json!({
        "metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "1", "pods": "9"}},
    })));
    let snapshot = world(vec![silent], vec![]);
    assert!(decide(&plain("p", "0"), &snapshot).contains("node.kubernetes.io/not-ready"));
}

#[test]
fn the_emptier_and_the_preferred_win() {
    let two = || vec![node("a 4", json!({})), node("b 4 disk=ssd", json!({}))];
    assert_eq!(decide(&plain("p", "1"), &world(two(), vec![(plain("q", "2"), "a")])), "b");
    assert_eq!(decide(&plain("p", "1"), &world(two(), vec![(plain("q", "2"), "b")])), "a");
    let prefer = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}});
    assert_eq!(decide(&pod("p", "x", "1", prefer), &world(two(), vec![(plain("q", "1"), "b")])), "b");
    let soft = json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]});
    assert_eq!(decide(&plain("p", "1"), &world(vec![node("a 4", soft), node("b 4", json!({}))], vec![])), "b");
}

fn pod_affinity(which: &str, app: &str, key: &str) -> Value {
    json!({"affinity": {which: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}]}}})
}

#[test]
fn with_and_without_others() {
    let nodes = || vec![node("a 4 zone=1", json!({})), node("b 4 zone=1", json!({})), node("c 4 zone=2", json!({}))];
    let there = |app: &str, spec: Value| vec![(pod("there", app, "2", spec), "a")];
    let with = pod_affinity("podAffinity", "db", "kubernetes.io/hostname");
    assert_eq!(decide(&pod("p", "x", "1", with.clone()), &world(nodes(), there("db", json!({})))), "a");
    assert!(
        decide(&pod("p", "x", "1", with), &world(nodes(), vec![]))
            .contains("3 node(s) didn't match pod affinity rules")
    );
    // the first of a group that wants to be together may go anywhere
    let own = pod_affinity("podAffinity", "x", "zone");
    assert_eq!(decide(&pod("p", "x", "1", own), &world(nodes(), vec![])), "a");
    let without = pod_affinity("podAntiAffinity", "db", "zone");
    assert_eq!(decide(&pod("p", "x", "1", without), &world(nodes(), there("db", json!({})))), "c");
    let shy = pod_affinity("podAntiAffinity", "x", "zone");
    assert_eq!(decide(&plain("p", "1"), &world(nodes(), there("db", shy))), "c");
}

#[test]
fn spread_keeps_the_skew() {
    let nodes = || vec![node("a 9 zone=1", json!({})), node("b 9 zone=2", json!({})), node("c 9", json!({}))];
    let spread = |when: &str| {
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "x"}}}]})
    };
    let one = || vec![(plain("q", "0"), "a")];
    assert_eq!(decide(&pod("p", "x", "0", spread("DoNotSchedule")), &world(nodes(), one())), "b");
    let only_a = json!({"topologySpreadConstraints": spread("DoNotSchedule")["topologySpreadConstraints"], "nodeSelector": {"zone": "1"}});
    // the other zone cannot be chosen, so that it does not count
    assert_eq!(decide(&pod("p", "x", "0", only_a), &world(nodes(), one())), "a");
    let full_b = || vec![node("a 9 zone=1", json!({})), node("b 1 zone=2", json!({}))];
    let refused = decide(&pod("p", "x", "2", spread("DoNotSchedule")), &world(full_b(), one()));
    assert_eq!(
        refused,
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints."
    );
    assert_eq!(decide(&pod("p", "x", "2", spread("ScheduleAnyway")), &world(full_b(), one())), "a");
}

#[test]
fn sample_is_upstreams() {
    assert_eq!([10, 100, 200, 1000, 5000, 50_000].map(sample), [10, 100, 100, 420, 500, 2500]);
}
