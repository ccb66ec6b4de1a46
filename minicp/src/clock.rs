//! Where time comes from. Nobody else in minicp asks the system what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use mote_api::time::Time;

/// A board without a clock wakes up in 1970; certificates and ages made then would be nonsense. No build of mote is older than this (2026-11-01).
const FLOOR_UNIX: i64 = 1_793_491_200;

/// Wall time. Monotonic waits go through tokio's timers.
pub trait Clock {
    fn now(&self) -> Time;
}

/// The system's clock, never before [`FLOOR_UNIX`].
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
        let micros = i64::try_from(micros).unwrap_or(i64::MAX);
        Time::from_unix_micros(micros.max(FLOOR_UNIX * 1_000_000))
    }
}

/// A clock that stands still until told, for tests and simulations.
#[derive(Default)]
pub struct ManualClock(std::cell::Cell<i64>);

impl ManualClock {
    pub fn at(unix: i64) -> Self {
        Self(std::cell::Cell::new(unix.saturating_mul(1_000_000)))
    }
    pub fn advance(&self, seconds: i64) {
        self.0.set(self.0.get().saturating_add(seconds.saturating_mul(1_000_000)));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time::from_unix_micros(self.0.get())
    }
}
