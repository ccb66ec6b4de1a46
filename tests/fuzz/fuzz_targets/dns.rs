//! DNS messages of clients and of other servers.
#![no_main]
#![allow(dead_code)]
use libfuzzer_sys::fuzz_target;

#[path = "../../../agent/src/dns/wire.rs"]
mod wire;
use wire::{Answer, Query, Rcode};

fuzz_target!(|bytes: &[u8]| {
    let _ = (wire::addresses(bytes), wire::is_reply(bytes, 1), wire::is_truncated(bytes));
    let Ok(query) = Query::parse(bytes) else { return };
    let reply = query.reply(&Answer::failed(Rcode::NotImp), query.udp_max());
    assert!(wire::is_reply(&reply, query.id), "{reply:?}");
    let _ = query.answered_by(bytes, query.id);
});
