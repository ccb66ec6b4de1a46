use super::*;
use crate::kind::Registry;
use crate::tree::json;
use proptest::prelude::*;

#[test]
fn rfc_7386_examples() {
    for (target, patch, result) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ] {
        let mut t = target;
        merge_patch(&mut t, &patch).unwrap();
        assert_eq!(t, result);
    }
    assert_eq!(merge_patch(&mut json!({}), &json!([])).unwrap_err().code(), 400);
}

#[test]
fn rfc_6902_operations() {
    let start = json!({"a": {"b": [1, 2, 3]}, "x/y": {"~": 1}});
    for (patch, result) in [
        (json!([{"op": "add", "path": "/a/c", "value": 1}]), json!({"a": {"b": [1, 2, 3], "c": 1}, "x/y": {"~": 1}})),
        (json!([{"op": "add", "path": "/a/b/1", "value": 9}]), json!({"a": {"b": [1, 9, 2, 3]}, "x/y": {"~": 1}})),
        (json!([{"op": "add", "path": "/a/b/-", "value": 9}]), json!({"a": {"b": [1, 2, 3, 9]}, "x/y": {"~": 1}})),
        (json!([{"op": "add", "path": "/a/b/3", "value": 9}]), json!({"a": {"b": [1, 2, 3, 9]}, "x/y": {"~": 1}})),
        (json!([{"op": "remove", "path": "/a/b/0"}]), json!({"a": {"b": [2, 3]}, "x/y": {"~": 1}})),
        (json!([{"op": "replace", "path": "/x~1y/~0", "value": 2}]), json!({"a": {"b": [1, 2, 3]}, "x/y": {"~": 2}})),
        (json!([{"op": "move", "from": "/a/b", "path": "/z"}]), json!({"a": {}, "z": [1, 2, 3], "x/y": {"~": 1}})),
        (
            json!([{"op": "copy", "from": "/a/b/0", "path": "/z"}]),
            json!({"a": {"b": [1, 2, 3]}, "z": 1, "x/y": {"~": 1}}),
        ),
        (
            json!([{"op": "test", "path": "/a/b/0", "value": 1}, {"op": "remove", "path": "/a"}]),
            json!({"x/y": {"~": 1}}),
        ),
        (json!([{"op": "replace", "path": "", "value": {}}]), json!({})),
    ] {
        let mut t = start.clone();
        json_patch(&mut t, &patch).unwrap();
        assert_eq!(t, result, "{patch}");
    }
    for (patch, code) in [
        (json!([{"op": "remove", "path": "/nope"}]), 422),
        (json!([{"op": "replace", "path": "/nope", "value": 1}]), 422),
        (json!([{"op": "add", "path": "/nope/x", "value": 1}]), 422),
        (json!([{"op": "add", "path": "/a/b/4", "value": 1}]), 422),
        (json!([{"op": "remove", "path": "/a/b/-"}]), 422),
        (json!([{"op": "remove", "path": "/a/b/00"}]), 422),
        (json!([{"op": "remove", "path": "/x~1y"}, {"op": "test", "path": "/a/b/0", "value": 2}]), 422),
        (json!([{"op": "add", "path": "/a"}]), 400),
        (json!([{"op": "add", "path": "a", "value": 1}]), 400),
        (json!([{"op": "what", "path": "/a"}]), 400),
        (json!([{"op": "move", "from": "/a", "path": "/a/b"}]), 400),
        (json!({}), 400),
    ] {
        let mut t = start.clone();
        assert_eq!(json_patch(&mut t, &patch).unwrap_err().code(), code, "{patch}");
        assert_eq!(t, start, "unchanged after {patch}");
    }
}

fn smp(target: Value, patch: Value) -> Result<Value, PatchError> {
    let registry = Registry::builtin();
    let kind = registry.find("pods").unwrap();
    let mut t = json!({"spec": target});
    strategic_merge_patch(kind, &mut t, &json!({"spec": patch}))?;
    Ok(t["spec"].take())
}

#[test]
fn strategic_cases() {
    let two = || json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}]});
    for (why, target, patch, result) in [
        (
            "merge by key",
            two(),
            json!({"containers": [{"name": "b", "image": "3"}]}),
            json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "3"}]}),
        ),
        (
            "new items go last",
            two(),
            json!({"containers": [{"name": "c", "image": "3", "tty": null}]}),
            json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
        ),
        (
            "delete an item",
            two(),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b", "image": "2"}]}),
        ),
        (
            "replace an item",
            two(),
            json!({"containers": [{"name": "a", "image": "9", "$patch": "replace"}]}),
            json!({"containers": [{"name": "a", "image": "9"}, {"name": "b", "image": "2"}]}),
        ),
        (
            "replace the list",
            two(),
            json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
            json!({"containers": [{"name": "z"}]}),
        ),
        (
            "lists without a key are replaced",
            two(),
            json!({"containers": [{"name": "a", "args": ["y", "z"]}]}),
            json!({"containers": [{"name": "a", "image": "1", "args": ["y", "z"]}, {"name": "b", "image": "2"}]}),
        ),
        (
            "null removes",
            two(),
            json!({"containers": [{"name": "a", "args": null}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
        ),
        (
            "order",
            two(),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "7"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "7", "args": ["x"]}]}),
        ),
        (
            "order of old, new and unnamed",
            two(),
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}]}),
        ),
        (
            "order alone",
            two(),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1", "args": ["x"]}]}),
        ),
        (
            "map replace",
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"$patch": "replace", "b": "2"}}),
            json!({"nodeSelector": {"b": "2"}}),
        ),
        (
            "map merge",
            json!({"nodeSelector": {"a": "1"}}),
            json!({"nodeSelector": {"b": "2"}}),
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
        ),
        (
            "struct delete",
            json!({"affinity": {"nodeAffinity": {}}, "priority": 1}),
            json!({"affinity": {"$patch": "delete"}}),
            json!({"priority": 1}),
        ),
        (
            "retain keys",
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        ),
        (
            "directives do not stay",
            json!({}),
            json!({"containers": [{"name": "a", "$retainKeys": ["name"], "env": [{"name": "e", "$patch": "delete"}]}]}),
            json!({"containers": [{"name": "a", "env": []}]}),
        ),
        (
            "two key names",
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}], "volumeMounts": [{"mountPath": "/a", "name": "v"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 81}], "volumeMounts": [{"mountPath": "/a", "name": "w"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81}], "volumeMounts": [{"mountPath": "/a", "name": "w"}]}]}),
        ),
        (
            "tolerations are replaced",
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        ),
    ] {
        assert_eq!(smp(target, patch).unwrap(), result, "{why}");
    }
    for bad in [
        json!({"containers": [{"image": "x"}]}),
        json!({"containers": ["x"]}),
        json!({"nodeSelector": {"$patch": "what"}}),
        json!({"volumes": [{"name": "v"}], "$setElementOrder/volumes": [{"name": "w"}]}),
        json!({"affinity": {"$retainKeys": []}, "$retainKeys": ["volumes"]}),
    ] {
        assert_eq!(smp(two(), bad.clone()).unwrap_err().code(), 400, "{bad}");
    }
}

#[test]
fn primitive_lists() {
    let registry = Registry::builtin();
    let kind = registry.find("pods").unwrap();
    let mut t = json!({"metadata": {"finalizers": ["a", "b"]}});
    strategic_merge_patch(
        kind,
        &mut t,
        &json!({"metadata": {"finalizers": ["c", "a"], "$deleteFromPrimitiveList/finalizers": ["b"]}}),
    )
    .unwrap();
    assert_eq!(t["metadata"]["finalizers"], json!(["a", "c"]));
    strategic_merge_patch(kind, &mut t, &json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"]}})).unwrap();
    assert_eq!(t["metadata"]["finalizers"], json!(["c", "a"]));
}

#[test]
fn deployment_strategy_retains_keys() {
    let registry = Registry::builtin();
    let kind = registry.find("deployments.apps").unwrap();
    let mut t = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    strategic_merge_patch(kind, &mut t, &json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}))
        .unwrap();
    assert_eq!(t["spec"]["strategy"], json!({"type": "Recreate"}));
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from)
    ];
    let node = leaf.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[a-d]", inner), 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    });
    prop::collection::vec(("[a-d]", node), 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
}

proptest! {
    #[test]
    fn a_diff_leads_there(from in tree(), to in tree()) {
        let mut t = from.clone();
        merge_patch(&mut t, &diff(&from, &to)).unwrap();
        prop_assert_eq!(&t, &to);
        prop_assert_eq!(diff(&to, &to), json!({}));
    }
    #[test]
    fn merging_twice_is_merging_once(from in tree(), patch in tree()) {
        let mut once = from;
        merge_patch(&mut once, &patch).unwrap();
        let mut twice = once.clone();
        merge_patch(&mut twice, &patch).unwrap();
        prop_assert_eq!(once, twice);
    }
    #[test]
    fn a_strategic_merge_with_itself_changes_nothing(names in prop::collection::btree_set("[a-e]", 0..5)) {
        let spec = json!({"containers": names.iter().map(|n| json!({"name": n, "env": [{"name": "x", "value": n}]})).collect::<Vec<_>>()});
        prop_assert_eq!(smp(spec.clone(), spec.clone()).unwrap(), spec);
    }
}
