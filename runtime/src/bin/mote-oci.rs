//! `mote-oci`: a drop-in for runc; `mote oci` is the same.
#![no_main]
#![allow(unsafe_code)] // the entry alone

use std::ffi::{c_char, c_int};

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    // SAFETY: the C library's start calls this, once, and gives what it says.
    unsafe { mote_runtime::enter(count, words, mote_runtime::oci_cli::code) }
}
