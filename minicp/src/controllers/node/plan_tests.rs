use super::*;

const NOW: i64 = 1_800_000_000;

fn node(ready: &str, spec: Value) -> Node {
    Node::parse(&json!({
        "metadata": {"name": "n"}, "spec": spec, "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
}

fn pod(tolerations: Value) -> Rc<Pod> {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    Rc::new(Pod::parse(&json!({
        "metadata": {"name": "p", "uid": "p"}, "spec": {"nodeName": "n", "tolerations": tolerations},
        "status": {"phase": "Running", "conditions": ready},
    })))
}

fn run(node: &Node, silent_ms: u64, pods: &[Rc<Pod>]) -> Plan {
    let limits = Limits { node_grace_ms: 40_000, eviction_seconds: 300, ..Limits::default() };
    plan(node, Beat { silent_ms }, pods, &limits, Time::from_unix(NOW))
}

fn taints(plan: &Plan) -> String {
    let list = plan.taints.iter().flat_map(|t| t.as_array().unwrap());
    let text = |t: &Value| format!("{}:{}", t["key"].as_str().unwrap(), t["effect"].as_str().unwrap());
    list.map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_silent_node_is_unknown_after_its_grace() {
    let alive = run(&node("True", json!({})), 39_999, &[]);
    assert!(!alive.unknown && alive.taints.is_none());
    assert_eq!(alive.again_in_ms, Some(1));
    let lost = run(&node("True", json!({})), 40_000, &[pod(json!([]))]);
    assert!(lost.unknown && lost.unready.len() == 1 && lost.evict.is_empty());
    assert_eq!(taints(&lost), "node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute");
    assert!(!run(&node("Unknown", json!({})), 40_000, &[]).unknown);
}

#[test]
fn taints_follow_the_state_and_leave_others_alone() {
    let own = json!({"key": "own", "effect": "NoSchedule"});
    let old = json!({"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"});
    let back = run(&node("True", json!({"taints": [own, old]})), 0, &[]);
    assert_eq!(taints(&back), "own:NoSchedule");
    let cordoned = run(&node("True", json!({"unschedulable": true})), 0, &[]);
    assert_eq!(taints(&cordoned), "node.kubernetes.io/unschedulable:NoSchedule");
    let unready = run(&node("False", json!({})), 0, &[]);
    assert_eq!(taints(&unready), "node.kubernetes.io/not-ready:NoSchedule node.kubernetes.io/not-ready:NoExecute");
    let settled = json!({"taints": [{"key": UNSCHEDULABLE, "effect": "NoSchedule"}], "unschedulable": true});
    assert!(run(&node("True", settled), 0, &[]).taints.is_none());
}

#[test]
fn who_leaves_when() {
    let at = |ago: i64| Time::from_unix(NOW - ago).to_string();
    let lost = |ago: i64| {
        json!({"taints": [
            {"key": UNREACHABLE, "effect": "NoSchedule"},
            {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": at(ago)},
        ]})
    };
    let bears = |seconds: Value| json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    let rows = [
        (json!([]), 299, Some(1000)),
        (json!([]), 300, Some(0)),
        (bears(json!(10)), 9, Some(1000)),
        (bears(json!(10)), 10, Some(0)),
        (bears(Value::Null), 99_999, None),
        (json!([{"operator": "Exists"}]), 99_999, None),
        (json!([{"key": "other", "operator": "Exists"}]), 300, Some(0)),
    ];
    for (tolerations, ago, want) in rows {
        let plan = run(&node("Unknown", lost(ago)), 50_000, &[pod(tolerations.clone())]);
        let got = if plan.evict.is_empty() { plan.again_in_ms } else { Some(0) };
        assert_eq!(got, want, "{tolerations} {ago}");
    }
    // a NoExecute taint of somebody else drives out at once
    let foreign = json!({"taints": [{"key": "k", "effect": "NoExecute"}]});
    assert_eq!(run(&node("True", foreign), 0, &[pod(json!([]))]).evict.len(), 1);
}
