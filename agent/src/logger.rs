//! Log lines on stderr: time, level, text. `MOTE_LOG=error|warn|info|debug|trace` chooses the level.

use std::io::{IsTerminal, Write};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::clock::Moment;
use crate::progress::CLEAR;

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Other people's crates speak only when something is wrong.
        metadata.level() <= Level::Warn
            || metadata.target().starts_with("mote")
            || metadata.target().starts_with("minicp")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // A progress line may stand there.
            let clear = if std::io::stderr().is_terminal() { CLEAR } else { "" };
            let line = format!("{clear}{} {:5} {}\n", Moment::now().rfc3339(), record.level(), record.args());
            // Nobody can be told that stderr is gone.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// From now on `log::info!` and the like reach stderr.
pub(crate) fn start(otherwise: LevelFilter) {
    let level = std::env::var("MOTE_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(otherwise);
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
