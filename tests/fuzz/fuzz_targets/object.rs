//! Any object as any kind: schema, defaults, validation, table rows, kinds of definitions. First byte: the kind.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_api::columns::{self, Include};
use mote_api::kind::Registry;
use mote_api::schema::{self, Unknown};
use mote_api::time::Time;
use mote_api::tree::{Value, parse_json};
use mote_api::{defaults, validate};

thread_local!(static KINDS: Registry = Registry::builtin());

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Ok(parsed) = parse_json(rest, 1 << 16) else { return };
    let kind = KINDS.with(|kinds| kinds.all().get(usize::from(*first) % kinds.all().len()).cloned());
    let (Some(kind), mut object) = (kind, parsed.value) else { return };
    let _ = mote_api::crd::kinds(&object, 1);
    let _ = mote_api::crd::validate(&object, None);
    let _ = columns::table(&kind, [&object], Value::Null, Time::from_unix(0), Include::Object);
    if schema::check(&kind, &mut object, &parsed.duplicates, Unknown::Warn).is_err() {
        return;
    }
    let before = object.clone();
    defaults::apply(&kind, &mut object);
    let once = object.clone();
    defaults::apply(&kind, &mut object);
    assert_eq!(once, object, "defaults of defaults");
    let _ = validate::create(&kind, &object);
    let _ = validate::update(&kind, &object, &before, "");
    let _ = columns::table(&kind, [&object], Value::Null, Time::from_unix(0), Include::Metadata);
});
