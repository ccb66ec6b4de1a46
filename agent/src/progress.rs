//! Pulls, imports and pushes as people see them on stderr: one line that is redrawn on a terminal; elsewhere a line at the start, one
//! every ten seconds, one at the end.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mote_images::{Observer, Progress};

/// Between two drawings of the line.
const REDRAW: Duration = Duration::from_millis(200);
/// Between two lines where nothing can be redrawn.
const LINE: Duration = Duration::from_secs(10);
/// Takes what stands in the line away.
pub(crate) const CLEAR: &str = "\r\x1b[K";

/// Shows one operation.
pub(crate) struct Shown {
    /// In front of each line: the image; empty when there is only one.
    name: String,
    is_tty: bool,
    state: Mutex<State>,
}

struct State {
    total: u64,
    layers: usize,
    ended: usize,
    /// Bytes that have arrived, by layer.
    done: Vec<u64>,
    began: Instant,
    said: Instant,
}

impl Shown {
    pub(crate) fn new(name: &str) -> Shown {
        let now = Instant::now();
        let state = State { total: 0, layers: 0, ended: 0, done: Vec::new(), began: now, said: now };
        let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
        Shown { name, is_tty: std::io::stderr().is_terminal(), state: Mutex::new(state) }
    }
}

impl State {
    /// Takes a fact in; whether a line of its own is due wherever lines are not redrawn.
    fn hear(&mut self, progress: Progress) -> bool {
        match progress {
            Progress::Resolved { layers, bytes, .. } => {
                (self.layers, self.total) = (layers, bytes);
                self.done = vec![0; layers + 1]; // a push counts the configuration too
                true
            }
            Progress::Present { .. } | Progress::Extracted { .. } => {
                self.ended += 1;
                false
            }
            Progress::Bytes { index, done } => {
                if let Some(slot) = self.done.get_mut(index) {
                    *slot = done;
                }
                false
            }
            Progress::Layer { .. } => false,
            Progress::Resumed { .. } => true,
            Progress::Done { .. } => self.layers > 0,
        }
    }

    fn line(&self) -> String {
        let done: u64 = self.done.iter().sum();
        let rate = done as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let left = self.total.saturating_sub(done) as f64 / rate.max(1.0);
        let mut line =
            format!("{} of {} layers, {} of {}", self.ended, self.layers, bytes_text(done), bytes_text(self.total));
        if done > 0 {
            line.push_str(&format!(", {}/s", bytes_text(rate as u64)));
        }
        if (1..self.total).contains(&done) {
            line.push_str(&format!(", {:.0} s left", left.min(1e6)));
        }
        line
    }
}

impl Observer for Shown {
    fn event(&self, progress: Progress) {
        let Ok(mut state) = self.state.lock() else { return };
        let news = state.hear(progress);
        let is_last = matches!(progress, Progress::Done { .. });
        let every = if self.is_tty { REDRAW } else { LINE };
        if !news && (is_last || state.said.elapsed() < every) {
            return;
        }
        state.said = Instant::now();
        let (before, after) = match (self.is_tty, is_last) {
            (true, false) => (CLEAR, ""),
            (true, true) => (CLEAR, "\n"),
            (false, _) => ("", "\n"),
        };
        let again = if matches!(progress, Progress::Resumed { .. }) { "connection lost, goes on; " } else { "" };
        // A closed stderr is no reason to end a pull.
        let _ = write!(std::io::stderr().lock(), "{before}{}{again}{}{after}", self.name, state.line());
    }
}

/// For people: at most four digits and a unit.
pub(crate) fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_counts_layers_and_bytes() {
        let shown = Shown::new("web");
        assert_eq!(shown.name, "web: ");
        let mut state = shown.state.into_inner().unwrap();
        let digest = mote_images::Digest::of(b"x");
        assert!(state.hear(Progress::Resolved { manifest: digest, layers: 2, bytes: 50_000 }));
        assert_eq!(state.line(), "0 of 2 layers, 0 B of 50 kB");
        assert!(!state.hear(Progress::Bytes { index: 1, done: 20_000 }));
        assert!(!state.hear(Progress::Bytes { index: 9, done: 20_000 }), "a layer that is not there");
        assert!(state.line().starts_with("0 of 2 layers, 20 kB of 50 kB, "), "{}", state.line());
        assert!(state.line().ends_with(" s left"), "{}", state.line());
        assert!(state.hear(Progress::Done { id: digest }));
    }

    #[test]
    fn what_was_here_already_has_no_last_line() {
        let mut state = Shown::new("").state.into_inner().unwrap();
        assert!(!state.hear(Progress::Done { id: mote_images::Digest::of(b"x") }));
    }
}
