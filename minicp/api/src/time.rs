//! Points in time as the API writes them (RFC 3339, UTC), and ages as kubectl shows them. No clock: callers bring `now`.

use std::fmt;

/// A point in time: microseconds since 1970 UTC. Prints as Kubernetes' `Time` (whole seconds); see [`Time::micro`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(i64);

impl Time {
    pub fn from_unix(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }
    /// Whole seconds since 1970, rounded down.
    pub fn unix(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
    pub fn unix_micros(self) -> i64 {
        self.0
    }
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
    /// Whole seconds from `earlier` to `self`, negative if `earlier` is later.
    pub fn seconds_since(self, earlier: Time) -> i64 {
        self.0.saturating_sub(earlier.0).div_euclid(1_000_000)
    }
    /// Reads RFC 3339: `2026-11-21T01:02:03Z`, with any fraction and offset. Years 0 to 9999.
    pub fn parse(text: &str) -> Option<Time> {
        let b = text.as_bytes();
        let digits = |from: usize, n: usize| -> Option<i64> {
            b.get(from..from + n)?
                .iter()
                .try_fold(0i64, |sum, d| d.is_ascii_digit().then(|| sum * 10 + i64::from(d - b'0')))
        };
        let sep = |i: usize, any: &[u8]| b.get(i).is_some_and(|c| any.contains(c));
        if !(sep(4, b"-") && sep(7, b"-") && sep(10, b"Tt ") && sep(13, b":") && sep(16, b":")) {
            return None;
        }
        let (y, mo, d, h, mi, s) =
            (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?, digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
        if !(1..=12).contains(&mo) || d < 1 || d > days_in_month(y, mo) || h > 23 || mi > 59 || s > 60 {
            return None;
        }
        let mut i = 19;
        let mut micros = 0i64;
        if sep(i, b".") {
            i += 1;
            let start = i;
            let mut unit = 100_000i64;
            while let Some(c) = b.get(i).filter(|c| c.is_ascii_digit()) {
                micros += unit * i64::from(c - b'0');
                unit /= 10;
                i += 1;
            }
            if i == start {
                return None;
            }
        }
        let offset = match b.get(i)? {
            b'Z' | b'z' if b.len() == i + 1 => 0,
            sign @ (b'+' | b'-') if b.len() == i + 6 && sep(i + 3, b":") => {
                let (oh, om) = (digits(i + 1, 2)?, digits(i + 4, 2)?);
                if oh > 23 || om > 59 {
                    return None;
                }
                (oh * 3600 + om * 60) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let seconds = days_from_civil(y, mo, d) * 86_400 + h * 3600 + mi * 60 + s - offset;
        Some(Time(seconds * 1_000_000 + micros))
    }
    /// Kubernetes' `MicroTime`: `2026-11-21T01:02:03.000004Z`.
    pub fn micro(self) -> String {
        let mut text = self.to_string();
        text.truncate(text.len() - 1);
        text + &format!(".{:06}Z", self.0.rem_euclid(1_000_000))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.unix();
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (y, m, d) = civil_from_days(days);
        write!(f, "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
    }
}

fn days_in_month(y: i64, m: i64) -> i64 {
    match m {
        2 if y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar, counted in years that begin in March.
fn days_from_civil(y: i64, m: i64, d: i64) -> i64 {
    let y = if m <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let m = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(m <= 2), m, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// An age as kubectl prints it (apimachinery `duration.HumanDuration`): `47s`, `3m20s`, `5h`, `5d3h`, `2y40d`.
pub fn human(seconds: i64) -> String {
    let s = seconds;
    let two = |a: i64, au: &str, b: i64, bu: &str| if b == 0 { format!("{a}{au}") } else { format!("{a}{au}{b}{bu}") };
    match s {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{s}s"),
        120..600 => two(s / 60, "m", s % 60, "s"),
        600..10_800 => format!("{}m", s / 60),
        10_800..28_800 => two(s / 3600, "h", s / 60 % 60, "m"),
        28_800..172_800 => format!("{}h", s / 3600),
        172_800..691_200 => two(s / 86_400, "d", s / 3600 % 24, "h"),
        691_200..63_072_000 => format!("{}d", s / 86_400),
        63_072_000..252_288_000 => two(s / 31_536_000, "y", s / 86_400 % 365, "d"),
        _ => format!("{}y", s / 31_536_000),
    }
}

/// The age of a timestamp of the API at `now`: kubectl's `<unknown>` for none.
pub fn age(timestamp: &str, now: Time) -> String {
    Time::parse(timestamp).map_or_else(|| "<unknown>".into(), |t| human(now.seconds_since(t)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_writes_known_times() {
        for (text, unix) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-21T01:54:03Z", 1_795_226_043),
            ("1969-12-31T23:59:59Z", -1),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(Time::parse(text).unwrap().unix(), unix, "{text}");
            assert_eq!(Time::from_unix(unix).to_string(), text);
        }
        assert_eq!(Time::parse("2026-11-21T02:54:03.25+01:00").unwrap().micro(), "2026-11-21T01:54:03.250000Z");
        for bad in [
            "",
            "2026-11-21",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21T01:54:03",
            "2026-11-21T01:54:03.Z",
            "2026-11-21T24:00:00Z",
        ] {
            assert_eq!(Time::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn ages_as_kubectl() {
        for (s, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_799, "7h59m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (183_600, "2d3h"),
            (691_199, "7d23h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (66_528_000, "2y40d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(human(s), text, "{s}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(micros in -62_000_000_000_000_000i64..253_000_000_000_000_000) {
            let t = Time::from_unix_micros(micros);
            prop_assert_eq!(Time::parse(&t.micro()), Some(t));
            prop_assert_eq!(Time::parse(&t.to_string()), Some(Time::from_unix(t.unix())));
        }
    }
}
