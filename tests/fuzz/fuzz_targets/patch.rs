//! Patches of all kinds on any object: three JSON texts, separated by a zero byte. A merge patch made by `diff` leads where it should.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_api::apply::{self, Writer};
use mote_api::kind::{Kind, Registry};
use mote_api::patch;
use mote_api::time::Time;
use mote_api::tree::{Value, parse_json};
use std::rc::Rc;

thread_local!(static KINDS: Registry = Registry::builtin());

fn pick(first: u8) -> Option<Rc<Kind>> {
    KINDS.with(|kinds| kinds.all().get(usize::from(first) % kinds.all().len()).cloned())
}

fn read(bytes: &[u8]) -> Option<Value> {
    Some(parse_json(bytes, 1 << 16).ok()?.value)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let mut parts = rest.splitn(2, |b| *b == 0);
    let (Some(target), Some(change)) = (parts.next().and_then(read), parts.next().and_then(read)) else { return };
    let Some(kind) = pick(*first) else { return };
    let _ = patch::json_patch(&mut target.clone(), &change);
    let _ = patch::merge_patch(&mut target.clone(), &change);
    let _ = patch::strategic_merge_patch(&kind, &mut target.clone(), &change);
    if !target.is_object() || !change.is_object() {
        return;
    }
    let writer = Writer { manager: "fuzz", subresource: "", now: Time::from_unix(0) };
    if let Ok(applied) = apply::apply(&kind, Some(&target), &change, &writer, first & 0x80 != 0) {
        let _ = apply::apply(&kind, Some(&applied), &change, &writer, false);
    }
    let mut tracked = change;
    apply::track(&kind, Some(&target), &mut tracked, &writer);
});
