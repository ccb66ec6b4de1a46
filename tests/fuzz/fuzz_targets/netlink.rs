//! The kernel's netlink replies, taken apart.
#![no_main]
#![allow(dead_code)]
use libfuzzer_sys::fuzz_target;

#[path = "../../../agent/src/net/wire.rs"]
mod wire;
use wire::{Attrs, Replies};

fn nested(bytes: &[u8], depth: usize) {
    for (_, body) in Attrs(bytes).take(64) {
        let _ = (wire::ne32(body, 4), wire::be16(body), wire::text(body));
        if depth > 0 {
            nested(body, depth - 1);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    for message in Replies(bytes) {
        assert!(message.body.len() <= bytes.len());
        let _ = Attrs::after(message.body, 16).find_path(&[1, 2]);
        nested(message.body, 3);
    }
});
