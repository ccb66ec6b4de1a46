//! Objects of strangers: whatever is in them, no step from the wire to the store panics, and what passed the check stays right.

use mote_api::kind::Registry;
use mote_api::schema::Unknown;
use mote_api::time::Time;
use mote_api::tree::{Value, json};
use mote_api::{apply, columns, defaults, patch, schema, selector, tree, validate, yaml};
use proptest::prelude::*;

/// Fields that real objects have, so that random trees reach deep.
const WORDS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "template",
    "containers",
    "initContainers",
    "image",
    "ports",
    "containerPort",
    "port",
    "protocol",
    "targetPort",
    "env",
    "valueFrom",
    "fieldRef",
    "volumes",
    "volumeMounts",
    "emptyDir",
    "hostPath",
    "path",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "selector",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
    "replicas",
    "strategy",
    "rollingUpdate",
    "maxSurge",
    "type",
    "conditions",
    "state",
    "terminated",
    "waiting",
    "reason",
    "containerStatuses",
    "data",
    "subsets",
    "addresses",
    "ip",
    "rules",
    "host",
    "schedule",
    "jobTemplate",
    "taints",
    "livenessProbe",
    "httpGet",
    "roleRef",
    "subjects",
    "kind",
    "versions",
    "clusterIP",
    "clusterIPs",
    "creationTimestamp",
    "deletionTimestamp",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
];

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-10.0..1e20f64).prop_map(Value::from),
        "[a-z0-9.:/=%-]{0,8}".prop_map(Value::from),
        "\\PC{0,4}".prop_map(Value::from),
        prop::sample::select(vec![
            "delete",
            "replace",
            "100m",
            "-1Gi",
            "1e9999",
            "2026-01-01T00:00:00Z",
            "Always",
            "None",
            "25%",
            "aGk="
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 96, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((prop::sample::select(WORDS), inner), 0..6)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_string(), v)).collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    (tree(), tree(), tree()).prop_map(
        |(metadata, spec, status)| json!({"metadata": metadata, "spec": spec, "status": status, "data": status}),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_panics(raw in object(), other in object(), pick in any::<prop::sample::Index>()) {
        let registry = Registry::builtin();
        let kind = pick.get(registry.all());
        let now = Time::from_unix(1_800_000_000);
        let writer = apply::Writer { manager: "m", subresource: "", now };
        columns::table(kind, [&raw, &other], Value::Null, now, columns::Include::Object);
        let mut unchecked = raw.clone();
        defaults::apply(kind, &mut unchecked);
        validate::create(kind, &unchecked);
        validate::update(kind, &unchecked, &other, "");
        let _ = apply::apply(kind, Some(&raw), &other, &writer, true);
        apply::track(kind, Some(&raw), &mut unchecked, &writer);
        for how in 0..3 {
            let mut target = raw.clone();
            let _ = match how {
                0 => patch::merge_patch(&mut target, &other),
                1 => patch::strategic_merge_patch(kind, &mut target, &other),
                _ => patch::json_patch(&mut target, &other),
            };
        }
        let _ = selector::LabelSelector::from_object(&raw["spec"]).map(|s| s.matches(&other));
        yaml::to_yaml(&raw);
    }

    #[test]
    fn what_passed_the_check_passes_it_again_unchanged(raw in object(), pick in any::<prop::sample::Index>()) {
        let registry = Registry::builtin();
        let kind = pick.get(registry.all());
        let mut object = raw;
        if schema::check(kind, &mut object, &[], Unknown::Drop).is_ok() {
            let once = object.clone();
            prop_assert_eq!(schema::check(kind, &mut object, &[], Unknown::Error).map_err(|e| TestCaseError::fail(e.message))?, Vec::<String>::new());
            prop_assert_eq!(&object, &once);
            defaults::apply(kind, &mut object);
            let full = object.clone();
            defaults::apply(kind, &mut object);
            prop_assert_eq!(&object, &full);
        }
    }

    #[test]
    fn text_never_panics(text in "\\PC{0,40}|[a-z=!,() <>]{0,30}|[\\[\\]{}:,\"0-9a-z]{0,40}") {
        let _ = selector::LabelSelector::parse(&text);
        let _ = selector::FieldSelector::parse(&text);
        let _ = tree::parse_json(text.as_bytes(), 1 << 20);
        let _ = yaml::parse(&text);
        let _ = Time::parse(&text);
        let _ = mote_api::meta::label_key(&text);
    }
}

/// What two appliers say, in turns; `None`: takes everything back.
fn turns() -> impl Strategy<Value = Vec<(bool, std::collections::BTreeMap<String, String>)>> {
    prop::collection::vec((any::<bool>(), prop::collection::btree_map("[a-d]", "[xy]", 0..4)), 1..8)
}

proptest! {
    /// Whoever applied last (by force) sees its fields as said; a field that nobody says is gone; saying it again changes nothing.
    #[test]
    fn appliers_get_what_they_say(turns in turns()) {
        let registry = Registry::builtin();
        let kind = registry.find("configmaps").unwrap();
        let mut live: Option<Value> = None;
        let mut said: [std::collections::BTreeMap<String, String>; 2] = Default::default();
        for (second, data) in turns {
            let writer = apply::Writer { manager: if second { "two" } else { "one" }, subresource: "", now: Time::from_unix(0) };
            let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
            let next = apply::apply(kind, live.as_ref(), &wanted, &writer, true).unwrap();
            prop_assert_eq!(&apply::apply(kind, Some(&next), &wanted, &writer, false).unwrap(), &next);
            // What was forced out of the other's hands is no longer said by it.
            let other = &mut said[usize::from(!second)];
            other.retain(|k, v| data.get(k).is_none_or(|mine| mine == v));
            let mut all = other.clone();
            all.extend(data.clone());
            prop_assert_eq!(&next["data"], &json!(all));
            said[usize::from(second)] = data;
            live = Some(next);
        }
    }
}
