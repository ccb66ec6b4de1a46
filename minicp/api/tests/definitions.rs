//! Definitions of strangers and the objects made by them: nothing panics, and what is brought into form once stays as it is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use mote_api::jsonpath::JsonPath;
use mote_api::kind::Registry;
use mote_api::openapi::{self, Edition};
use mote_api::schema::{self, Unknown};
use mote_api::structural::pattern::Pattern;
use mote_api::structural::{Node, fill, prune, validate};
use mote_api::time::Time;
use mote_api::tree::{Value, json};
use mote_api::{apply, columns, crd, defaults};
use proptest::prelude::*;

const NAMES: &[&str] = &["a", "b", "c", "metadata", "kind", "spec"];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-10.0..10.0f64).prop_map(Value::from),
        "[a-z0-9]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(prop::sample::select(NAMES), inner, 0..5).prop_map(|m| json!(m)),
        ]
    })
}

/// Mostly structural schemas, with all that may stand in one.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = (prop::sample::select(vec!["string", "integer", "number", "boolean"]), any::<u8>(), value()).prop_map(
        |(ty, bits, default)| {
            let mut s = json!({"type": ty});
            for (bit, (key, v)) in [
                ("nullable", json!(true)),
                ("default", default),
                ("enum", json!(["a", 1, true])),
                ("minimum", json!(3)),
                ("maxLength", json!(2)),
                ("pattern", json!("^[a-c]+$")),
                ("format", json!("date-time")),
                ("not", json!({"enum": ["b"]})),
            ]
            .into_iter()
            .enumerate()
            {
                if bits >> bit & 1 == 1 {
                    s[key] = v;
                }
            }
            s
        },
    );
    let other = prop_oneof![
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        value(),
    ];
    prop_oneof![4 => leaf, 1 => other].prop_recursive(4, 32, 4, |inner| {
        let fields = prop::collection::btree_map(prop::sample::select(NAMES), inner.clone(), 0..4);
        prop_oneof![
            3 => (fields, any::<u8>()).prop_map(|(fields, bits)| {
                let mut s = json!({"type": "object", "properties": fields});
                for (bit, key) in ["x-kubernetes-preserve-unknown-fields", "nullable", "x-kubernetes-embedded-resource"].into_iter().enumerate() {
                    if bits >> bit & 3 == 3 {
                        s[key] = json!(true);
                    }
                }
                if bits & 0x80 != 0 {
                    s["required"] = json!(["a"]);
                }
                s
            }),
            1 => inner.clone().prop_map(|i| json!({"type": "object", "additionalProperties": i})),
            1 => inner.clone().prop_map(|i| json!({"type": "array", "items": i, "maxItems": 3})),
            1 => inner.prop_map(|i| json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                "items": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}, "b": {"type": "string", "default": "x"}, "c": i}}})),
        ]
    })
}

fn definition(schema: &Value) -> Value {
    json!({"metadata": {"name": "things.g.example.com"}, "spec": {"group": "g.example.com", "scope": "Cluster",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".a"}]}]}})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_in_form_stays_as_it_is(schema in schema(), object in value()) {
        let Ok(node) = Node::of_schema(&schema) else { return Ok(()) };
        let mut object = object;
        prune(&node, &mut object);
        let mut again = object.clone();
        prop_assert_eq!(prune(&node, &mut again), Vec::<String>::new());
        prop_assert_eq!(&again, &object);
        fill(&node, &mut object);
        let full = object.clone();
        fill(&node, &mut object);
        prop_assert_eq!(&object, &full);
        validate(&node, &object, None);
        // What an object was before is not held against it.
        prop_assert!(validate(&node, &object, Some(&object)).is_empty());
    }

    #[test]
    fn a_right_definition_serves_and_its_kind_takes_anything(schema in schema(), object in value(), other in value()) {
        let crd = definition(&json!({"type": "object", "properties": {"spec": schema, "a": {"type": "string"}}}));
        let right = crd::validate(&crd, None).is_empty();
        let (kinds, wrong) = crd::kinds(&crd, 1);
        prop_assert!(!right || (wrong.is_empty() && kinds.len() == 1), "{wrong:?}");
        let mut names = crd::Names::new(&Registry::builtin());
        names.add(&crd);
        crd::status_of(&crd, &names, Time::from_unix(0));
        names.remove(&crd);
        for kind in &kinds {
            let mut object = json!({"metadata": {"name": "x"}, "spec": object, "a": other});
            let writer = apply::Writer { manager: "m", subresource: "", now: Time::from_unix(0) };
            let _ = apply::apply(kind, Some(&json!({"spec": other})), &object, &writer, true);
            let _ = schema::check(kind, &mut object, &[], Unknown::Warn);
            defaults::apply(kind, &mut object);
            columns::table(kind, [&object], Value::Null, Time::from_unix(0), columns::Include::None);
            for edition in [Edition::V2, Edition::V3] {
                let mut document = openapi::v2::Document::new();
                document.define("x", &openapi::of_definition(&crd, kind, edition));
            }
        }
    }

    #[test]
    fn any_tree_may_pose_as_a_definition(tree in value(), inner in value()) {
        for crd in [tree.clone(), json!({"spec": tree}), definition(&inner)] {
            crd::validate(&crd, Some(&json!({"spec": inner})));
            crd::kinds(&crd, 1);
            }
    }

    #[test]
    fn patterns_and_paths_are_text_of_strangers(text in "[\\[\\](){}^$*+?|.\\\\a-c0-9:<>,pPQEx-]{0,24}|\\PC{0,12}", on in "[a-c0-9]{0,8}") {
        if let Ok(pattern) = Pattern::new(&text) {
            pattern.matches(&on);
        }
        if let Ok(path) = JsonPath::parse(&text) {
            path.find(&json!({"a": [{"b": on}], "c": 1}));
        }
    }

    /// A literal is found exactly where a plain search finds it.
    #[test]
    fn literals_match_themselves(word in "[a-c ]{0,3}", on in "[a-c ]{0,8}") {
        prop_assert_eq!(Pattern::new(&word).unwrap().matches(&on), on.contains(&word));
        prop_assert_eq!(Pattern::new(&format!("^{word}$")).unwrap().matches(&on), on == word);
        prop_assert_eq!(Pattern::new(&format!("^({word})*$")).unwrap().matches(&on), word.is_empty() && on.is_empty() || !word.is_empty() && on.replace(&word, "").is_empty() && on.len() % word.len() == 0 && on == word.repeat(on.len() / word.len()));
    }
}
