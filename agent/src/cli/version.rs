//! `mote version`.

use std::process::ExitCode;

use super::flags::{self, Flag, stopped};
use mote_runtime::show;

const USAGE: &str = "mote version: say which mote this is, and for which machine\n\nusage: mote version\n";

/// Every subcommand takes it; here it changes nothing.
const FLAGS: &[&Flag<()>] = &[&Flag { name: "data-dir", value: "DIR", about: "", set: |_, _| Ok(()) }];

/// Prints version, operating system and architecture, both as Go and so images and kubectl call them.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    if let Err(stop) = flags::read(&mut parser, FLAGS, &mut ()) {
        return stopped(stop, USAGE);
    }
    show!("mote {} {}", env!("CARGO_PKG_VERSION"), mote_images::Platform::host());
    ExitCode::SUCCESS
}
