//! What a systemd, or whoever sits at its socket, may say (`runtime/src/cgroup/systemd/wire.rs`).
#![no_main]
use libfuzzer_sys::fuzz_target;
use mote_runtime::cgroup::systemd::wire::{MESSAGE_BYTES_MAX, message};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((found, used))) = message(rest) {
        assert!((16..=MESSAGE_BYTES_MAX).contains(&used) && used <= rest.len());
        for order in 0..3 {
            let mut body = found.body();
            for step in 0..8 {
                let more = match (step + order) % 3 {
                    0 => body.text().map(drop),
                    1 => body.u32().map(drop),
                    _ => body.variant_text().map(drop),
                };
                if more.is_err() {
                    break;
                }
            }
        }
        rest = rest.get(used..).unwrap_or_default();
    }
});
