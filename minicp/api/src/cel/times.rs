//! Durations as Go writes them, and the parts of points in time.

use super::functions::Part;
use crate::time::Time;

const UNITS: &[(&str, i64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds of `1h30m`, `-1.5s`, `0`.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
        total += i128::from(digits(whole)?) * i128::from(*unit);
        let fraction = fraction.get(..fraction.len().min(12))?;
        total += i128::from(digits(fraction)?) * i128::from(*unit) / 10i128.pow(u32::try_from(fraction.len()).ok()?);
        rest = tail;
    }
    i64::try_from(total * sign).ok()
}

/// As CEL's `string(duration)` writes it: seconds.
pub(super) fn shown(nanos: i64) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, (nanos % 1_000_000_000).unsigned_abs());
    let sign = if nanos < 0 && whole == 0 { "-" } else { "" };
    if rest == 0 {
        return format!("{whole}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{whole}.{}s", fraction.trim_end_matches('0'))
}

/// Of a duration all of it in the unit, as CEL has it.
pub(super) fn of_duration(part: Part, nanos: i64) -> i64 {
    match part {
        Part::Hours => nanos / 3_600_000_000_000,
        Part::Minutes => nanos / 60_000_000_000,
        Part::Seconds => nanos / 1_000_000_000,
        _ => nanos / 1_000_000,
    }
}

/// In UTC. Months and days of the month count from 0 where CEL's do.
pub(super) fn of_time(part: Part, time: Time) -> i64 {
    let text = time.to_string();
    let number = |from: usize, to: usize| text.get(from..to).and_then(|t| t.parse::<i64>().ok()).unwrap_or(0);
    let day = time.unix().div_euclid(86_400);
    match part {
        Part::FullYear => number(0, 4),
        Part::Month => number(5, 7) - 1,
        Part::Date => number(8, 10),
        Part::DayOfMonth => number(8, 10) - 1,
        // 1970 began on a Thursday.
        Part::DayOfWeek => (day + 4).rem_euclid(7),
        Part::DayOfYear => {
            let first = text.get(..4).and_then(|year| Time::parse(&format!("{year}-01-01T00:00:00Z")));
            first.map_or(0, |first| day - first.unix().div_euclid(86_400))
        }
        Part::Hours => number(11, 13),
        Part::Minutes => number(14, 16),
        Part::Seconds => number(17, 19),
        Part::Milliseconds => time.unix_micros().rem_euclid(1_000_000) / 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, nanos, shown_as) in [
            ("1h30m", Some(5_400_000_000_000), "5400s"),
            ("1.5s", Some(1_500_000_000), "1.5s"),
            ("-0.5s", Some(-500_000_000), "-0.5s"),
            ("-1.5s", Some(-1_500_000_000), "-1.5s"),
            ("0", Some(0), "0s"),
            ("3ms2us1ns", Some(3_002_001), "0.003002001s"),
            ("", None, ""),
            ("1", None, ""),
            ("1x", None, ""),
            (".s", None, ""),
            ("99999999999999h", None, ""),
        ] {
            assert_eq!(duration(text), nanos, "{text}");
            if let Some(nanos) = nanos {
                assert_eq!(shown(nanos), shown_as);
            }
        }
    }
}
