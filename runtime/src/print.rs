//! What a command prints is its result: one that cannot be written has failed. What is said beside it may be lost.

use std::fmt::Arguments;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// A keeper's log: it lies in memory, and what fails once a minute fills that in a year.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// Standard error is a keeper's log, and not somebody else's file.
static IS_LOG: AtomicBool = AtomicBool::new(false);

pub(crate) fn standard_error_is_our_log() {
    IS_LOG.store(true, Ordering::Relaxed);
}

/// `eprintln!` that cannot panic: a full disk or a closed pipe behind stderr must not end who looks after others' containers.
pub(crate) fn complain(words: Arguments<'_>) {
    let mut out = io::stderr().lock();
    if IS_LOG.load(Ordering::Relaxed)
        && let Ok(log) = out.as_fd().try_clone_to_owned().map(File::from)
    {
        let _ = shorten(&log, LOG_BYTES_MAX); // a line too many is better than none
    }
    let _ = out.write_fmt(words);
}

/// Begins anew when it has grown beyond `most`; it must be open for appending.
fn shorten(log: &File, most: u64) -> io::Result<()> {
    if log.metadata()?.len() > most { log.set_len(0) } else { Ok(()) }
}

/// Writes to standard output. Where that cannot be (a full disk), says so and ends the program with status 1.
pub fn print(words: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if let Err(e) = out.write_fmt(words).and_then(|()| out.flush()) {
        complain!("write standard output: {e}");
        std::process::exit(1);
    }
}

/// `println!` by [`print`].
#[macro_export]
macro_rules! show {
    ($($words:tt)*) => { $crate::print(format_args!("{}\n", format_args!($($words)*))) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_begins_anew_when_it_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = File::options().create(true).append(true).open(&path).unwrap();
        for (line, left) in [("one\n", "one\n"), ("two\n", "one\ntwo\n"), ("three\n", "three\n")] {
            shorten(&log, 7).unwrap();
            log.write_all(line.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), left);
        }
    }
}
