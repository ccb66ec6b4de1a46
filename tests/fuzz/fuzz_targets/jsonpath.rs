//! JSONPath of printer columns: `path NUL object`.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_api::jsonpath::JsonPath;
use mote_api::tree::{json, parse_json};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |b| *b == 0);
    let Some(path) = parts.next().and_then(|p| std::str::from_utf8(p).ok()).and_then(|p| JsonPath::parse(p).ok()) else { return };
    let object = parts.next().and_then(|part| parse_json(part, 1 << 14).ok()).map(|parsed| parsed.value);
    let object = object.unwrap_or_else(|| json!({"a": [{"b": 1, "c": "x"}, {"b": 2}], "b": {"c": [[1], [2]]}, "c": "d"}));
    let found = path.find(&object);
    if let Some(names) = path.names() {
        let mut at = Some(&object);
        for name in names {
            at = at.and_then(|v| v.get(name));
        }
        assert_eq!(found.first().copied(), at, "a path of names is a walk");
    }
});
