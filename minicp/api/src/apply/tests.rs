use super::*;
use crate::kind::Registry;
use crate::tree::{Map, list_at, str_at};

fn kind(resource: &str) -> std::rc::Rc<Kind> {
    Registry::builtin().find(resource).unwrap().clone()
}
fn by(manager: &str) -> Writer<'_> {
    Writer { manager, subresource: "", now: Time::from_unix(0) }
}
fn owned(object: &Value, manager: &str) -> Value {
    list_at(object, &["metadata", "managedFields"])
        .iter()
        .find(|m| str_at(m, &["manager"]) == manager)
        .map_or(Value::Null, |m| m["fieldsV1"].clone())
}
fn without_managers(mut object: Value) -> Value {
    remove(&mut object, &["metadata", "managedFields"]);
    object
}
fn map(data: &[(&str, &str)]) -> Value {
    let data: Map<String, Value> = data.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

#[test]
fn own_conflict_force_and_share() {
    let k = kind("configmaps");
    let first = apply(&k, None, &map(&[("a", "1"), ("b", "1")]), &by("one"), false).unwrap();
    assert_eq!(owned(&first, "one"), json!({"f:data": {"f:a": {}, "f:b": {}}}));
    assert_eq!(without_managers(first.clone()), map(&[("a", "1"), ("b", "1")]));
    // The same value is shared.
    let shared = apply(&k, Some(&first), &map(&[("a", "1"), ("c", "1")]), &by("two"), false).unwrap();
    assert_eq!(owned(&shared, "two"), json!({"f:data": {"f:a": {}, "f:c": {}}}));
    assert_eq!(owned(&shared, "one"), owned(&first, "one"));
    // Another value is a conflict.
    let e = apply(&k, Some(&shared), &map(&[("a", "2"), ("c", "1")]), &by("two"), false).unwrap_err();
    assert_eq!((e.code, e.message.as_str()), (409, "Apply failed with 1 conflict: conflict with \"one\": .data.a"));
    assert_eq!(
        e.details["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"}])
    );
    let e = apply(&k, Some(&first), &map(&[("a", "2"), ("b", "2")]), &by("two"), false).unwrap_err();
    assert_eq!(e.message, "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b");
    // Force takes it.
    let forced = apply(&k, Some(&shared), &map(&[("a", "2"), ("c", "1")]), &by("two"), true).unwrap();
    assert_eq!(owned(&forced, "one"), json!({"f:data": {"f:b": {}}}));
    assert_eq!(forced["data"], json!({"a": "2", "b": "1", "c": "1"}));
    // What is no longer said goes, unless another owns it.
    let less = apply(&k, Some(&shared), &map(&[]), &by("two"), false).unwrap();
    assert_eq!(less["data"], json!({"a": "1", "b": "1"}));
    let less = apply(&k, Some(&less), &map(&[("b", "1")]), &by("one"), false).unwrap();
    assert_eq!(less["data"], json!({"b": "1"}));
}

#[test]
fn nothing_new_changes_nothing() {
    let k = kind("configmaps");
    let first = apply(&k, None, &map(&[("a", "1")]), &by("one"), false).unwrap();
    let later = Writer { now: Time::from_unix(99), ..by("one") };
    assert_eq!(apply(&k, Some(&first), &map(&[("a", "1")]), &later, false).unwrap(), first);
    let changed = apply(&k, Some(&first), &map(&[("a", "2")]), &later, false).unwrap();
    assert_eq!(changed["metadata"]["managedFields"][0]["time"], "1970-01-01T00:01:39Z");
}

fn deployment(spec: Value, template: Value) -> Value {
    let mut d = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
    d["spec"]["template"] = json!({"spec": template});
    d
}

#[test]
fn lists_by_key() {
    let k = kind("deployments.apps");
    let one = deployment(
        json!({"replicas": 1}),
        json!({"containers": [{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}]}),
    );
    let live = apply(&k, None, &one, &by("one"), false).unwrap();
    assert_eq!(
        owned(&live, "one"),
        json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
    );
    // Another adds a container and an environment variable to the first.
    let two = deployment(
        json!({}),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "env": [{"name": "E", "value": "x"}]}]}),
    );
    let live = apply(&k, Some(&live), &two, &by("two"), false).unwrap();
    let containers = list_at(&live, &["spec", "template", "spec", "containers"]);
    assert_eq!(containers[0], json!({"name": "b", "image": "2"}));
    assert_eq!(
        containers[1],
        json!({"name": "a", "image": "1", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "x"}]})
    );
    // It takes its part away: the container it alone owns, and the variable; the shared container stays.
    let live =
        apply(&k, Some(&live), &deployment(json!({}), json!({"containers": [{"name": "a"}]})), &by("two"), false)
            .unwrap();
    assert_eq!(
        live["spec"]["template"]["spec"]["containers"],
        json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}], "env": []}])
    );
    let e = apply(
        &k,
        Some(&live),
        &deployment(json!({}), json!({"containers": [{"name": "a", "image": "9"}]})),
        &by("two"),
        false,
    )
    .unwrap_err();
    assert!(
        e.message.ends_with("conflict with \"one\": .spec.template.spec.containers[name=\"a\"].image"),
        "{}",
        e.message
    );
    assert_eq!(e.details["group"], "apps");
}

#[test]
fn whole_values_and_sets() {
    let k = kind("deployments.apps");
    let selector = |v: &str| deployment(json!({"selector": {"matchLabels": {"a": v}}}), json!({}));
    let live = apply(&k, None, &selector("1"), &by("one"), false).unwrap();
    assert_eq!(owned(&live, "one")["f:spec"]["f:selector"], json!({}));
    assert!(apply(&k, Some(&live), &selector("2"), &by("two"), false).is_err());
    let finalizers =
        |all: &[&str]| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "finalizers": all}});
    let k = kind("configmaps");
    let live = apply(&k, None, &finalizers(&["a/x", "b/x"]), &by("one"), false).unwrap();
    let live = apply(&k, Some(&live), &finalizers(&["c/x"]), &by("two"), false).unwrap();
    assert_eq!(owned(&live, "two"), json!({"f:metadata": {"f:finalizers": {"v:\"c/x\"": {}}}}));
    let live = apply(&k, Some(&live), &finalizers(&["a/x"]), &by("one"), false).unwrap();
    assert_eq!(live["metadata"]["finalizers"], json!(["a/x", "c/x"]));
}

#[test]
fn other_writes_take_what_they_change() {
    let k = kind("deployments.apps");
    let mut live =
        apply(&k, None, &deployment(json!({"replicas": 1, "paused": true}), json!({})), &by("one"), false).unwrap();
    let mut scaled = live.clone();
    set(&mut scaled, &["spec", "replicas"], json!(3));
    track(&k, Some(&live), &mut scaled, &by("kubectl"));
    assert_eq!(owned(&scaled, "one")["f:spec"], json!({"f:paused": {}, "f:template": {"f:spec": {}}}));
    assert_eq!(owned(&scaled, "kubectl"), json!({"f:spec": {"f:replicas": {}}}));
    let e = apply(&k, Some(&scaled), &deployment(json!({"replicas": 1, "paused": true}), json!({})), &by("one"), false)
        .unwrap_err();
    assert_eq!(
        e.message,
        "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1 at 1970-01-01T00:00:00Z: .spec.replicas"
    );
    // Giving up a field that another took leaves it.
    live = apply(&k, Some(&scaled), &deployment(json!({"paused": true}), json!({})), &by("one"), false).unwrap();
    assert_eq!(live["spec"]["replicas"], 3);
    // Nothing changed: nothing noted.
    let mut same = live.clone();
    track(&k, Some(&live), &mut same, &by("other"));
    assert_eq!(same, live);
    // A status write has its own entry.
    let mut status = live.clone();
    set(&mut status, &["status", "replicas"], json!(3));
    track(&k, Some(&live), &mut status, &Writer { subresource: "status", ..by("one") });
    let entry = list_at(&status, &["metadata", "managedFields"]).iter().find(|m| m["subresource"] == "status").unwrap();
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    // A removed field leaves its owners.
    let mut gone = status.clone();
    remove(&mut gone, &["spec", "paused"]);
    track(&k, Some(&status), &mut gone, &by("kubectl"));
    assert_eq!(owned(&gone, "one")["f:spec"], json!({"f:template": {"f:spec": {}}}));
    // An empty list forgets all.
    let mut reset = gone.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track(&k, Some(&gone), &mut reset, &by("kubectl"));
    assert_eq!(reset["metadata"].get("managedFields"), None);
    // The first apply of such an object meets those before.
    let e = apply(&k, Some(&reset), &deployment(json!({"replicas": 9}), json!({})), &by("one"), false).unwrap_err();
    assert!(e.message.contains("\"before-first-apply\""), "{}", e.message);
}

#[test]
fn updaters_are_bounded() {
    let k = kind("configmaps");
    let mut live = map(&[]);
    for i in 0..30 {
        let mut next = live.clone();
        set(&mut next, &["data", &format!("k{i}")], json!("x"));
        track(
            &k,
            Some(&live),
            &mut next,
            &Writer { manager: &format!("m{i}"), subresource: "", now: Time::from_unix(i) },
        );
        live = next;
    }
    let entries = list_at(&live, &["metadata", "managedFields"]);
    assert_eq!(entries.len(), 10);
    assert_eq!(owned(&live, "ancient-changes")["f:data"].as_object().unwrap().len(), 21);
}

#[test]
fn endpoints_have_their_parts() {
    let k = kind("deployments.apps");
    let mut wanted = deployment(json!({"replicas": 1}), json!({}));
    wanted["status"] = json!({"replicas": 5});
    assert_eq!(apply(&k, None, &wanted, &by("one"), false).unwrap().get("status"), None);
    let live = deployment(json!({"replicas": 1}), json!({}));
    let status = apply(&k, Some(&live), &wanted, &Writer { subresource: "status", ..by("one") }, true).unwrap();
    assert_eq!(
        (&status["status"], owned(&status, "one")),
        (&json!({"replicas": 5}), json!({"f:status": {"f:replicas": {}}}))
    );
    wanted["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(apply(&k, None, &wanted, &by("one"), false).unwrap_err().code, 400);
    // Without a schema maps are merged and lists are whole.
    let mut raw = Kind::clone(&k);
    raw.type_name = "".into();
    let o = |v: Value| json!({"metadata": {"name": "x"}, "spec": v});
    let live = apply(&raw, None, &o(json!({"l": [{"name": "a"}], "m": {"a": 1}})), &by("one"), false).unwrap();
    let live = apply(&raw, Some(&live), &o(json!({"m": {"b": 1}})), &by("two"), false).unwrap();
    assert_eq!(live["spec"], json!({"l": [{"name": "a"}], "m": {"a": 1, "b": 1}}));
    assert!(apply(&raw, Some(&live), &o(json!({"l": []})), &by("two"), false).is_err());
}
