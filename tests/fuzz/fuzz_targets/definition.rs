//! CustomResourceDefinitions and what their schemas make of objects: `schema NUL object`, both JSON.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_api::crd;
use mote_api::rules::{Rules, validate};
use mote_api::structural::{Node, fill, prune};
use mote_api::tree::{Value, json, parse_json};

const BYTES_MAX: usize = 1 << 14;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |b| *b == 0);
    let mut next = || parts.next().and_then(|part| parse_json(part, BYTES_MAX).ok()).map(|parsed| parsed.value);
    let Some(schema) = next() else { return };
    let object = next().unwrap_or(Value::Null);
    let definition = json!({"metadata": {"name": "things.g.example.com"}, "spec": {"group": "g.example.com", "scope": "Cluster",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    let right = crd::validate(&definition, None).is_empty();
    let (kinds, wrong) = crd::kinds(&definition, 1);
    assert!(!right || (kinds.len() == 1 && wrong.is_empty()), "what is accepted is served: {wrong:?}");
    crd::validate(&schema, Some(&definition));
    let Ok(node) = Node::of_schema(&schema) else { return };
    let rules = Rules::read(&schema, &node);
    let mut new = object.clone();
    prune(&node, &mut new);
    fill(&node, &mut new);
    let mut again = new.clone();
    assert!(prune(&node, &mut again).is_empty(), "what is pruned has nothing unknown");
    validate(&node, rules.as_ref(), &new, None);
    validate(&node, rules.as_ref(), &new, Some(&object));
});
