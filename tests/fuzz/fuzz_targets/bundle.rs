//! An OCI bundle's config.json.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = serde_json::from_slice(bytes) else { return };
    let _ = mote_runtime::bundle::convert(&config, std::path::Path::new("/bundle"), "fuzz");
});
