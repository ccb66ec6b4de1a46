//! Manifests: any text is documents or an error, and what was read survives being written and read again.
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_api::yaml;

fuzz_target!(|text: &str| {
    let Ok(documents) = yaml::parse(text) else { return };
    for document in documents {
        let written = yaml::to_yaml(&document);
        match yaml::parse_one(&written) {
            Ok(again) => assert_eq!(again, document, "{written}"),
            Err(why) => panic!("{why}: {written:?}"),
        }
    }
});
