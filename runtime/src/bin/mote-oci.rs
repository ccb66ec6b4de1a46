//! `mote-oci`: a drop-in for runc; `mote oci` is the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    mote_runtime::oci_cli::main(std::env::args_os().skip(1).collect())
}
