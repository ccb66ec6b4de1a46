use super::*;
use mote_api::tree::{list_at, str_at};

fn service(spec: Value) -> Service {
    Service::parse(
        &json!({"metadata": {"name": "web", "namespace": "ns", "uid": "s", "labels": {"a": "b"}}, "spec": spec}),
    )
}

fn backend(name: &str, ip: &str, ready: bool, leaving: bool) -> Backend {
    let pod = Pod::parse(&json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {
            "nodeName": "n1", "hostname": name, "subdomain": "web",
            "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    }));
    let node = Node::parse(&json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}}));
    Backend { pod: Rc::new(pod), node: Some(Rc::new(node)), leaving }
}

fn states(slice: &Value) -> Vec<(bool, bool, bool)> {
    let flag = |e: &Value, name: &str| e["conditions"][name].as_bool().unwrap();
    list_at(slice, &["endpoints"])
        .iter()
        .map(|e| (flag(e, "ready"), flag(e, "serving"), flag(e, "terminating")))
        .collect()
}

#[test]
fn conditions_and_places() {
    let s = service(json!({"ports": [{"port": 80, "targetPort": "http"}]}));
    let backends = [
        backend("a", "10.0.0.1", true, false),
        backend("b", "10.0.0.2", false, false),
        backend("c", "10.0.0.3", true, true),
        backend("none", "", true, false),
    ];
    let all = slices(&s, &backends, 100);
    assert_eq!(all.len(), 1);
    assert_eq!(states(&all[0]), [(true, true, false), (false, false, false), (false, true, true)]);
    assert_eq!(all[0]["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    let first = &all[0]["endpoints"][0];
    assert_eq!(
        (str_at(first, &["nodeName"]), str_at(first, &["zone"]), str_at(first, &["hostname"])),
        ("n1", "z", "a")
    );
    let old = endpoints(&s, &backends);
    assert_eq!(list_at(&old["subsets"][0], &["addresses"]).len(), 1);
    assert_eq!(list_at(&old["subsets"][0], &["notReadyAddresses"]).len(), 1);
    let early = service(json!({"ports": [{"port": 80}], "publishNotReadyAddresses": true}));
    assert_eq!(states(&slices(&early, &backends, 100)[0])[1], (true, false, false));
}

#[test]
fn ports_families_and_size() {
    let unknown = service(json!({"ports": [{"name": "x", "port": 1, "targetPort": "nope"}, {"name": "y", "port": 2}]}));
    let all = slices(&unknown, &[backend("a", "10.0.0.1", true, false)], 100);
    assert_eq!(all[0]["ports"], json!([{"name": "y", "port": 2, "protocol": "TCP"}]));
    let many: Vec<Backend> = (0..5).map(|i| backend(&format!("p{i}"), &format!("10.0.0.{i}"), true, false)).collect();
    let sizes: Vec<usize> = slices(&unknown, &many, 2).iter().map(|s| list_at(s, &["endpoints"]).len()).collect();
    assert_eq!(sizes, [2, 2, 1]);
    let six = service(json!({"ports": [{"port": 1}], "ipFamilies": ["IPv6"]}));
    let all = slices(&six, &[backend("a", "10.0.0.1", true, false), backend("b", "fd00::1", true, false)], 100);
    assert_eq!((all.len(), str_at(&all[0], &["addressType"])), (1, "IPv6"));
    assert_eq!(all[0]["endpoints"][0]["addresses"], json!(["fd00::1"]));
    assert_eq!(list_at(&slices(&unknown, &[], 100)[0], &["endpoints"]).len(), 0);
}

#[test]
fn only_what_differs_is_written() {
    let s = service(json!({"ports": [{"port": 80}]}));
    let stored = |mut slice: Value, name: &str| {
        set(&mut slice, &["metadata", "name"], json!(name));
        set(&mut slice, &["metadata", "uid"], json!(name));
        Rc::new(Slice::parse(&slice))
    };
    let a = [backend("a", "10.0.0.1", true, false)];
    let b = [backend("b", "10.0.0.2", true, false)];
    let have = stored(slices(&s, &a, 100).remove(0), "one");
    let same = diff(slices(&s, &a, 100), std::slice::from_ref(&have));
    assert_eq!((same.create.len(), same.update.len(), same.delete.len()), (0, 0, 0));
    let other = diff(slices(&s, &b, 100), std::slice::from_ref(&have));
    assert_eq!((other.create.len(), other.update.len(), other.delete.len()), (0, 1, 0));
    let spare = stored(slices(&s, &b, 100).remove(0), "two");
    let fewer = diff(slices(&s, &a, 100), &[have, spare]);
    assert_eq!((fewer.create.len(), fewer.update.len(), fewer.delete.len()), (0, 0, 1));
    assert_eq!(diff(slices(&s, &a, 100), &[]).create.len(), 1);
}
