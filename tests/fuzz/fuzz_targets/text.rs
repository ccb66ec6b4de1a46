//! Short texts in objects and queries: quantities, selectors, times; what can be written again means the same.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_api::quantity::Quantity;
use mote_api::selector::{FieldSelector, LabelSelector};
use mote_api::time::{self, Time};

fuzz_target!(|text: &str| {
    if let Ok(quantity) = text.parse::<Quantity>() {
        let (written, _) = (quantity.to_string(), (quantity.value(), quantity.milli()));
        let again = written.parse::<Quantity>().unwrap_or_else(|_| panic!("{text:?} became {written:?}"));
        assert_eq!((again, again.to_string()), (quantity, written), "{text:?}");
    }
    if let Ok(selector) = LabelSelector::parse(text) {
        let _ = selector.matches(&serde_json::json!({"metadata": {"labels": {"a": "b", "c": "2"}}}));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let _ = selector.matches(&serde_json::json!({"metadata": {"name": "b"}, "spec": {"nodeName": ""}}));
    }
    if let Some(moment) = Time::parse(text) {
        assert_eq!(Time::parse(&moment.micro()), Some(moment), "{text:?}");
        let _ = time::age(text, Time::from_unix(1_700_000_000));
    }
});
