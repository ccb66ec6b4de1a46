//! `mote version`.

use std::process::ExitCode;

/// Prints version, operating system and architecture, both as Go and so images and kubectl call them.
pub(super) fn run(_: lexopt::Parser) -> ExitCode {
    println!("mote {} {}", env!("CARGO_PKG_VERSION"), mote_images::Platform::host());
    ExitCode::SUCCESS
}
