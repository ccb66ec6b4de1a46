//! `mote keeper --dir DIR` (hidden): the parent of all containers of a node. Started by the agent.

use std::process::ExitCode;

use super::options::{Stop, path, stopped};

/// Runs the keeper.
pub(super) fn run(mut parser: lexopt::Parser) -> ExitCode {
    let mut dir = None;
    let parsed = (|| -> Result<(), Stop> {
        while let Some(arg) = parser.next()? {
            match arg {
                lexopt::Arg::Long("dir") => dir = Some(path(&mut parser)?),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(())
    })();
    match (parsed, dir) {
        (Ok(()), Some(dir)) => mote_runtime::keeper::main(&dir),
        (Ok(()), None) => super::usage("keeper: --dir DIR is missing"),
        (Err(stop), _) => stopped(stop, "usage: mote keeper --dir DIR\n"),
    }
}
