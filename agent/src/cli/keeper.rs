//! `mote keeper --dir DIR` (hidden): the parent of all containers of a node. Started by the agent.

use std::path::PathBuf;
use std::process::ExitCode;

use super::flags::{self, Flag, put, stopped};

const DIR: Flag<PathBuf> =
    Flag { name: "dir", value: "DIR", about: "the run folder", set: |dir, v| put(dir, v.path()) };

/// Runs the keeper.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let mut dir = PathBuf::new();
    match flags::read(&mut parser, &[&DIR], &mut dir) {
        Ok(()) if dir.as_os_str().is_empty() => super::usage("keeper: --dir DIR is missing"),
        Ok(()) => mote_runtime::keeper::main(&dir),
        Err(stop) => stopped(stop, "usage: mote keeper --dir DIR\n"),
    }
}
