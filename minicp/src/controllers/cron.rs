//! Cron schedules: five fields (crontab(5), with the reading of them that Kubernetes has) to moments. All times are UTC.

use mote_api::time::Time;

const DAY_SECONDS: i64 = 86_400;
/// How far ahead a schedule is looked for: past the next 29 February, over a century without one.
const DAYS_MAX: i64 = 366 * 9;

/// One field as a set of numbers below 64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Set(u64);

impl Set {
    fn has(self, n: i64) -> bool {
        (0..64).contains(&n) && self.0 & (1 << n) != 0
    }
}

/// A schedule that was understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
    /// Both day fields are restricted: either is enough.
    either_day: bool,
}

struct Field {
    min: u32,
    max: u32,
    /// Names of `min`, `min + 1`, ...
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[] },
    Field { min: 0, max: 23, names: &[] },
    Field { min: 1, max: 31, names: &[] },
    Field {
        min: 1,
        max: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Field { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

impl Schedule {
    /// Five fields, or a name such as `@daily`. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if text.starts_with('@') {
            return Err(format!("unrecognized descriptor: {text}"));
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = words.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", words.len(), words.join(" ")));
        };
        let [m, h, d, mo, w] = &FIELDS;
        let ((days, any_day), (weekdays, any_weekday)) = (field(days, d)?, field(weekdays, w)?);
        Ok(Schedule {
            minutes: field(minutes, m)?.0,
            hours: field(hours, h)?.0,
            days,
            months: field(months, mo)?.0,
            weekdays,
            either_day: !any_day && !any_weekday,
        })
    }

    /// The first moment after `after`, if there ever is one.
    pub fn next(&self, after: Time) -> Option<Time> {
        let first = after.unix().div_euclid(DAY_SECONDS);
        let on = |day: i64| self.on(day).find(|at| *at > after.unix());
        (first..first.saturating_add(DAYS_MAX)).filter(|day| self.runs_on(*day)).find_map(on).map(Time::from_unix)
    }

    /// The last moment after `after` and up to `until`.
    pub fn last(&self, after: Time, until: Time) -> Option<Time> {
        let days = after.unix().div_euclid(DAY_SECONDS)..=until.unix().div_euclid(DAY_SECONDS);
        let within = |day: i64| self.on(day).filter(|at| (after.unix() + 1..=until.unix()).contains(at)).last();
        days.rev()
            .take(usize::try_from(DAYS_MAX).unwrap_or(0))
            .filter(|d| self.runs_on(*d))
            .find_map(within)
            .map(Time::from_unix)
    }

    /// `day` counts from 1970-01-01.
    fn runs_on(&self, day: i64) -> bool {
        let date = Time::from_unix(day.saturating_mul(DAY_SECONDS)).to_string();
        let part = |at: std::ops::Range<usize>| date.get(at).and_then(|t| t.parse().ok()).unwrap_or(-1);
        let (month, of_month, of_week) = (part(5..7), part(8..10), (day + 4).rem_euclid(7));
        let (a, b) = (self.days.has(of_month), self.weekdays.has(of_week));
        self.months.has(month) && if self.either_day { a || b } else { a && b }
    }

    /// Moments of a day, the first first.
    fn on(&self, day: i64) -> impl Iterator<Item = i64> {
        let (hours, minutes, start) = (self.hours, self.minutes, day.saturating_mul(DAY_SECONDS));
        let hours = (0..24).filter(move |h| hours.has(*h));
        hours.flat_map(move |h| (0..60).filter(move |m| minutes.has(*m)).map(move |m| start + h * 3600 + m * 60))
    }
}

/// A list of ranges with steps; the flag says that it begins with a star, so that it restricts nothing.
fn field(text: &str, field: &Field) -> Result<(Set, bool), String> {
    let (mut set, mut any) = (0u64, false);
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, Some(step.parse::<u32>().map_err(|e| format!("failed to parse int from {step}: {e}"))?))
            }
            None => (part, None),
        };
        if step == Some(0) {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        let (first, last) = match range {
            "*" | "?" => {
                any |= step.is_none_or(|n| n == 1);
                (field.min, field.max)
            }
            _ => match range.split_once('-') {
                Some((first, last)) => (number(first, field)?, number(last, field)?),
                None => {
                    let first = number(range, field)?;
                    (first, if step.is_some() { field.max } else { first })
                }
            },
        };
        if first < field.min {
            return Err(format!("beginning of range ({first}) below minimum ({}): {part}", field.min));
        }
        if last > field.max {
            return Err(format!("end of range ({last}) above maximum ({}): {part}", field.max));
        }
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        set = (first..=last).step_by(step).fold(set, |set, n| set | 1 << n);
    }
    Ok((Set(set), any))
}

fn number(text: &str, field: &Field) -> Result<u32, String> {
    let named = field.names.iter().zip(field.min..).find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map_or_else(|| text.parse().map_err(|e| format!("failed to parse int from {text}: {e}")), |(_, n)| Ok(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time::parse(text).unwrap()
    }

    #[test]
    fn next_moments() {
        let rows = [
            ("* * * * *", "2026-11-21T03:39:30Z", "2026-11-21T03:40:00Z"),
            ("*/15 * * * *", "2026-11-21T03:45:00Z", "2026-11-21T04:00:00Z"),
            ("5/20 * * * *", "2026-11-21T03:26:00Z", "2026-11-21T03:45:00Z"),
            ("0 9-17/4 * * mon-fri", "2026-11-20T17:30:00Z", "2026-11-23T09:00:00Z"),
            ("0 0 29 2 *", "2026-11-21T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 13 * 5", "2026-11-21T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("0 0 13 * *", "2026-11-21T00:00:00Z", "2026-12-13T00:00:00Z"),
            ("0 0 */2 * 0", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
            ("1,3 2 * JAN ?", "2026-11-21T00:00:00Z", "2027-01-01T02:01:00Z"),
            ("@weekly", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"),
        ];
        for (schedule, after, want) in rows {
            assert_eq!(Schedule::parse(schedule).unwrap().next(at(after)), Some(at(want)), "{schedule}");
        }
        assert_eq!(Schedule::parse("0 0 31 2 *").unwrap().next(at("2026-11-21T00:00:00Z")), None);
    }

    #[test]
    fn the_last_moment_of_a_span() {
        let hourly = Schedule::parse("@hourly").unwrap();
        let rows = [
            ("2026-11-21T01:00:00Z", "2026-11-21T03:59:59Z", Some("2026-11-21T03:00:00Z")),
            ("2026-11-21T03:00:00Z", "2026-11-21T03:59:59Z", None),
            ("2026-11-21T02:59:59Z", "2026-11-21T03:00:00Z", Some("2026-11-21T03:00:00Z")),
            ("2026-11-20T22:10:00Z", "2026-11-21T00:00:00Z", Some("2026-11-21T00:00:00Z")),
            ("2026-11-21T04:00:00Z", "2026-11-21T03:00:00Z", None),
        ];
        for (after, until, want) in rows {
            assert_eq!(hourly.last(at(after), at(until)), want.map(at), "{after} {until}");
        }
    }

    #[test]
    fn what_is_no_schedule() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* * 0 * *",
            "* * * * 7",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "@never",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text:?}");
        }
    }
}
