//! What etcd's JSON gateway answers: lines of a watch, ranges, transactions, leases, refusals. Whatever comes, no key gets in that is not an object's.
#![no_main]
use libfuzzer_sys::fuzz_target;
use minicp::store::etcd::objects_in;

fuzz_target!(|bytes: &[u8]| {
    for key in objects_in(bytes) {
        assert!(key.starts_with("/registry") && !key.starts_with("/registry/mote.dev/"), "{key}");
    }
});
