//! The keeper: one small single-threaded process per node, parent of all its containers.
//!
//! It clones, reaps, writes CRI log files and answers on one Unix socket. Agent and keeper may each die or be replaced at any
//! moment: what the keeper knows is in `<dir>` (a tmpfs under /run), and containers hold their log FIFOs open for themselves.

pub mod protocol;
mod rundir;

pub use rundir::RunDir;

use std::path::Path;
use std::process::ExitCode;

/// Socket inside the keeper's folder.
pub const SOCKET: &str = "keeper.sock";

/// Starts `exe keeper --dir DIR` as a daemon and waits until it answers (or finds one that already does). Returns its pid.
///
/// # Errors
/// What the child said on stderr, when it ends before it listens.
pub fn spawn(_exe: &Path, _dir: &Path) -> std::io::Result<i32> {
    Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
}

/// The hidden subcommand `keeper --dir DIR`: runs until [`protocol::Request::Shutdown`].
pub fn main(_dir: &Path) -> ExitCode {
    ExitCode::FAILURE
}
