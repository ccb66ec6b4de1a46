//! Validation rules, as a definition brings them: `rule NUL object`. Any text is refused or runs to an end within its steps.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_api::rules::{Rules, validate};
use mote_api::structural::Node;
use mote_api::tree::{Value, json, parse_json};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |b| *b == 0);
    let Some(rule) = parts.next().and_then(|p| std::str::from_utf8(p).ok()) else { return };
    let fields = json!({"n": {"type": "integer"}, "f": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"},
        "l": {"type": "array", "items": {"type": "integer"}}, "m": {"type": "object", "additionalProperties": {"type": "string"}},
        "e": {"x-kubernetes-int-or-string": true}, "t": {"type": "string", "format": "date-time"}, "d": {"type": "string", "format": "duration"},
        "o": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}}}}});
    let rules = json!([{"rule": rule, "messageExpression": rule, "optionalOldSelf": rule.len() % 2 == 0}]);
    let schema = json!({"type": "object", "properties": fields, "x-kubernetes-validations": rules});
    let Ok(node) = Node::of_schema(&schema) else { return };
    let rules = Rules::read(&schema, &node);
    let other = parts.next().and_then(|part| parse_json(part, 1 << 14).ok()).map(|parsed| parsed.value);
    let object = json!({"n": 5, "f": 1.5, "s": "héllo", "b": true, "l": [1, 2, 3], "m": {"a": "b"}, "e": "x", "t": "2026-11-21T00:00:00Z", "d": "1h",
        "o": [{"k": "a"}, {"k": "b"}]});
    validate(&node, rules.as_ref(), &object, other.as_ref());
    validate(&node, rules.as_ref(), other.as_ref().unwrap_or(&Value::Null), Some(&object));
});
