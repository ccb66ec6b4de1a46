//! `pattern` of schemas and the patterns of rules: `pattern NUL text`.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_api::structural::pattern::Pattern;

const STEPS: usize = 200_000;

fuzz_target!(|bytes: &[u8]| {
    let Ok(whole) = std::str::from_utf8(bytes) else { return };
    let (pattern, text) = whole.split_once('\0').unwrap_or((whole, whole));
    let Ok(pattern) = Pattern::new(pattern) else { return };
    let (Some(is), Some(found)) = (pattern.matches_within(text, &mut { STEPS }), pattern.find_within(text, &mut { STEPS })) else { return };
    assert_eq!(is, found.is_some(), "both ways of asking have one answer");
    if let Some((from, to)) = found {
        assert!(text.get(from..to).is_some(), "a match is a part of the text");
    }
});
