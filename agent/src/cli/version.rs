//! `mote version`.

use std::process::ExitCode;

/// Prints version, operating system and architecture.
pub(super) fn run(_: lexopt::Parser) -> ExitCode {
    println!("mote {} {}/{}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    ExitCode::SUCCESS
}
