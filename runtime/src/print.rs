//! What a command prints is its result: one that cannot be written has failed.

use std::fmt::Arguments;
use std::io::Write as _;

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
