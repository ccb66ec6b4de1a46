//! `mote-oci`: a drop-in for runc; `mote oci` is the same.
#![no_main]

mote_runtime::entry!(mote_runtime::oci_cli::code);
