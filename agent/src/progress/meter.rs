//! How fast something comes, and when it will all be there.

use std::time::{Duration, Instant};

use super::bytes_text;

/// Shorter stretches say more about buffers than about the link.
const STRETCH: Duration = Duration::from_millis(500);
/// Weight of the newest stretch.
const NEWEST: f64 = 0.3;

/// Bytes a second, smoothed over the last few seconds.
#[derive(Clone, Copy, Default)]
pub(super) struct Meter {
    last: Option<(Instant, u64)>,
    rate: f64,
}

impl Meter {
    /// Measures from here on.
    pub(super) fn begin(&mut self, done: u64, now: Instant) {
        *self = Meter { last: Some((now, done)), rate: 0.0 };
    }

    /// So many bytes have come in all.
    pub(super) fn feed(&mut self, done: u64, now: Instant) {
        let Some((then, before)) = self.last else { return self.begin(done, now) };
        let took = now.saturating_duration_since(then);
        if took < STRETCH {
            return;
        }
        let rate = done.saturating_sub(before) as f64 / took.as_secs_f64();
        self.rate = if self.rate > 0.0 { self.rate * (1.0 - NEWEST) + rate * NEWEST } else { rate };
        self.last = Some((now, done));
    }

    /// `, 3 MB/s, 12 s left`, as far as it is known.
    pub(super) fn text(&self, left: u64) -> String {
        if self.rate < 1.0 {
            return String::new();
        }
        let rate = format!(", {}/s", bytes_text(self.rate as u64));
        if left == 0 { rate } else { format!("{rate}, {} left", seconds_text(left as f64 / self.rate)) }
    }
}

/// `7 s`, `12 min`, `3 h`
fn seconds_text(seconds: f64) -> String {
    let seconds = seconds.ceil().clamp(0.0, 1e9) as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_link() {
        let start = Instant::now();
        let mut meter = Meter::default();
        assert_eq!(meter.text(10), "");
        meter.begin(0, start);
        for second in 1..=5u64 {
            meter.feed(second * 1_000_000, start + Duration::from_secs(second));
        }
        assert_eq!(meter.text(4_000_000), ", 1000 kB/s, 4 s left");
        meter.feed(5_000_001, start + Duration::from_millis(5001)); // too short a stretch to count
        assert_eq!(meter.text(0), ", 1000 kB/s");
        for second in 6..=30u64 {
            meter.feed(5_000_000 + (second - 5) * 10_000, start + Duration::from_secs(second));
        }
        assert_eq!(meter.text(1_000_000), ", 10 kB/s, 99 s left");
        meter.begin(7, start);
        assert_eq!(meter.text(1), "");
    }

    #[test]
    fn long_times_are_said_in_long_units() {
        assert_eq!(
            [0.2, 119.0, 120.0, 7200.0, f64::MAX].map(seconds_text),
            ["1 s", "119 s", "2 min", "2 h", "277777 h"]
        );
    }
}
