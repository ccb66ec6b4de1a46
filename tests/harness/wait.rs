//! Bounded waiting.

use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(50);

/// Asks until there is an answer; panics, naming `what`, when `limit_s` seconds have gone by.
pub fn until<T>(what: &str, limit_s: u64, ask: impl FnMut() -> Option<T>) -> T {
    eventually(limit_s, ask).unwrap_or_else(|| panic!("gave up after {limit_s} s waiting for: {what}"))
}

/// Asks until there is an answer or `limit_s` seconds have gone by.
pub fn eventually<T>(limit_s: u64, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + Duration::from_secs(limit_s);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(PERIOD);
    }
}
