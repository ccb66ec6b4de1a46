//! The time of day, read in one place. Planners get it as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970 (UTC); good until the year 2262. Arithmetic saturates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
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
        format_utc(self.seconds(), None)
    }

    /// `2026-11-20T10:00:00.000001Z`, as Kubernetes writes a micro time (leases, events).
    pub fn rfc3339_micro(self) -> String {
        format_utc(self.seconds(), Some(self.0.rem_euclid(1_000_000_000) / 1000))
    }
}

/// Days to civil date after Howard Hinnant's public-domain description of the proleptic Gregorian calendar.
fn format_utc(seconds: i64, micros: Option<i64>) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    match micros {
        None => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
        Some(micros) => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"),
    }
}

/// Reads an RFC 3339 time in UTC or with a numeric offset; `None` for anything else.
pub fn parse(text: &str) -> Option<Moment> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let mut nanos = 0i64;
    if let Some(digits) = rest.get(..zone_at)?.strip_prefix('.') {
        let padded: String = digits.chars().chain(std::iter::repeat('0')).take(9).collect();
        nanos = padded.parse().ok()?;
    }
    let zone = rest.get(zone_at..)?;
    let offset = match zone.as_bytes().first()? {
        b'Z' | b'z' => 0,
        sign => {
            let (hours, minutes) = (zone.get(1..3)?.parse::<i64>().ok()?, zone.get(4..6)?.parse::<i64>().ok()?);
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
    };
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Moment(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
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
