//! Bodies of requests: any bytes are a tree or an error, and a tree without doubled keys is what serde_json reads.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_api::tree::{Value, parse_json};

fuzz_target!(|bytes: &[u8]| {
    let Ok(parsed) = parse_json(bytes, 1 << 20) else { return };
    if parsed.duplicates.is_empty() {
        assert_eq!(serde_json::from_slice::<Value>(bytes).ok(), Some(parsed.value));
    }
});
