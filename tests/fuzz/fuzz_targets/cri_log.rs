//! Lines of container log files.
#![no_main]
#![allow(dead_code, unused_imports)]
use libfuzzer_sys::fuzz_target;

#[path = "../../../agent/src/clock.rs"]
mod clock;
#[path = "../../../agent/src/inotify.rs"]
mod inotify;
#[path = "../../../agent/src/server/logs.rs"]
mod logs;

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|b| *b == b'\n') {
        if let Some(found) = logs::parse(line) {
            assert!(found.text.len() < line.len() && line.ends_with(found.text));
        }
    }
});
