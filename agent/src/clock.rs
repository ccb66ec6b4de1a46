//! The time of day, read in one place. Planners get it as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mote_api::time::Time;

/// Nanoseconds since 1970 (UTC); good until the year 2262. Arithmetic saturates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Debug)]
pub struct Moment(pub i64);

impl Moment {
    /// Now, by the system's clock (which may be wrong, and may jump).
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// From whole seconds.
    pub fn from_seconds(seconds: i64) -> Moment {
        Moment(seconds.saturating_mul(1_000_000_000))
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This moment plus a span.
    pub fn plus(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// `2026-11-20T10:00:00Z`, as Kubernetes writes a time.
    pub fn rfc3339(self) -> String {
        Time::from_unix(self.seconds()).to_string()
    }

    /// `2026-11-20T10:00:00.000001Z`, as Kubernetes writes a micro time (leases, events).
    pub fn rfc3339_micro(self) -> String {
        Time::from_unix_micros(self.0.div_euclid(1000)).micro()
    }
}

/// Reads an RFC 3339 time; `None` for anything else.
pub fn parse(text: &str) -> Option<Moment> {
    Time::parse(text).map(|time| Moment(time.unix_micros().saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_date_writes() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_763_632_800, "2025-11-20T10:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment::from_seconds(seconds).rfc3339(), text);
            assert_eq!(parse(text), Some(Moment::from_seconds(seconds)));
        }
        assert_eq!(Moment(1_500).rfc3339_micro(), "1970-01-01T00:00:00.000001Z");
    }

    #[test]
    fn reads_fractions_and_offsets() {
        assert_eq!(parse("1970-01-01T01:00:00.5+01:00"), Some(Moment(500_000_000)));
        for bad in ["", "yesterday", "1970-13-01T00:00:00Z", "1970-01-01", "1970-01-01T00:00:00"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn saturates() {
        assert_eq!(Moment(i64::MAX).plus(Duration::from_secs(u64::MAX)), Moment(i64::MAX));
        assert_eq!(Moment(0).since(Moment(5)), Duration::ZERO);
    }
}
