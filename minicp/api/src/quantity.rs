//! `resource.Quantity`: decimal numbers with SI suffixes, exact to a thousand-millionth, in Go's canonical form.
//!
//! The form (decimal, binary, exponent) is kept, so that what was written `1Gi` prints `1Gi` and what was written `1024` prints `1024`.

use std::fmt;
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// Longest text read: numbers beyond it say nothing a machine can have.
const TEXT_MAX: usize = 128;
/// Upstream caps at 2^63-1 units; so do we.
const UNITS_MAX: i128 = i64::MAX as i128;

/// Which family of suffixes a quantity was written with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// `100m`, `5k`, `1`
    #[default]
    Decimal,
    /// `64Mi`
    Binary,
    /// `1e3`
    Exponent,
}

/// An amount of something. Compares by amount alone; `Display` is the canonical form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Upstream's message for a text that is no quantity.
#[derive(thiserror::Error, PartialEq, Eq, Debug, Clone, Copy)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseQuantityError;

impl Quantity {
    pub fn from_units(units: i64) -> Self {
        Self { nano: i128::from(units) * NANO, format: Format::Decimal }
    }
    pub fn from_milli(milli: i64) -> Self {
        Self { nano: i128::from(milli) * (NANO / 1000), format: Format::Decimal }
    }
    /// Bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { format: Format::Binary, ..Self::from_units(bytes) }
    }
    /// Whole units, rounded up (as upstream's `Value`), within i64.
    pub fn value(self) -> i64 {
        clamp(div_up(self.nano, NANO))
    }
    /// Thousandths, rounded up (as upstream's `MilliValue`), within i64.
    pub fn milli(self) -> i64 {
        clamp(div_up(self.nano, NANO / 1000))
    }
    /// Units as the nearest double.
    pub fn approximate(self) -> f64 {
        self.nano as f64 / NANO as f64
    }
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }
    /// Reads what a field of type quantity may hold: a string, or a bare number.
    pub fn of(value: &crate::tree::Value) -> Option<Quantity> {
        match value {
            crate::tree::Value::String(s) => s.parse().ok(),
            crate::tree::Value::Number(n) => n.to_string().parse().ok(),
            _ => None,
        }
    }
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}
/// Rounds away from zero, as upstream does.
fn div_up(n: i128, by: i128) -> i128 {
    let q = n / by;
    if n % by == 0 { q } else { q + n.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}
/// A zero takes the form of the other, as upstream's `Add` does.
fn joined(a: Quantity, b: Quantity, nano: i128) -> Quantity {
    Quantity { nano, format: if a.is_zero() { b.format } else { a.format } }
}
impl std::ops::Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        joined(self, other, self.nano.saturating_add(other.nano))
    }
}
impl std::ops::Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        joined(self, other, self.nano.saturating_sub(other.nano))
    }
}
impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
impl std::ops::SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, q| sum + q)
    }
}

/// Power of ten of a decimal suffix.
fn decimal_exponent(suffix: &str) -> Option<i32> {
    Some(match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => return None,
    })
}
/// Power of two of a binary suffix.
fn binary_exponent(suffix: &str) -> Option<u32> {
    Some(match suffix {
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        "Pi" => 50,
        "Ei" => 60,
        _ => return None,
    })
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let bad = ParseQuantityError;
        if text.len() > TEXT_MAX {
            return Err(bad);
        }
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or("")),
            Some(b'+') => (false, text.get(1..).unwrap_or("")),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(bad);
        }
        let (power_ten, power_two, format) = if let Some(ten) = decimal_exponent(suffix) {
            (ten, 0, Format::Decimal)
        } else if let Some(two) = binary_exponent(suffix) {
            (0, two, Format::Binary)
        } else {
            let digits = suffix.strip_prefix(['e', 'E']).ok_or(bad)?;
            (digits.parse::<i16>().map_err(|_| bad)?.into(), 0, Format::Exponent)
        };
        let nano = scaled(whole, fraction, power_ten, power_two);
        Ok(Self { nano: if negative { -nano } else { nano }, format })
    }
}

/// `whole.fraction * 10^ten * 2^two` in thousand-millionths, rounded up, capped.
fn scaled(whole: &str, fraction: &str, ten: i32, two: u32) -> i128 {
    /// Digits beyond these are above the cap, or below anything but "not zero".
    const PAD_MAX: usize = 40;
    const TAIL_MAX: usize = 18;
    let cap = UNITS_MAX * NANO;
    let digits = format!("{whole}{fraction}");
    let pad = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0).min(PAD_MAX));
    let length = |text: &str| i32::try_from(text.len()).unwrap_or(i32::MAX);
    // Where whole nanos end and fractions of one begin.
    let split = length(whole) + ten + 9;
    let padded = format!("{}{digits}{}", pad(-split), pad(split - length(&digits)));
    let (head, tail) = padded.split_at(usize::try_from(split).unwrap_or(0).min(padded.len()));
    let number =
        |text: &str| text.bytes().fold(0i128, |sum, d| sum.saturating_mul(10).saturating_add(i128::from(d - b'0')));
    let multiple = 1i128 << two;
    let (tail, rest) = tail.split_at(tail.len().min(TAIL_MAX));
    let tail_over = 10i128.pow(u32::try_from(tail.len()).unwrap_or(0));
    let below = number(tail) * multiple;
    let inexact = below % tail_over != 0 || rest.bytes().any(|d| d != b'0');
    let sum = number(head).saturating_mul(multiple).saturating_add(below / tail_over + i128::from(inexact));
    sum.min(cap)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        // Binary form only for whole numbers of at least 1024, as upstream.
        if self.format == Format::Binary && self.nano % NANO == 0 && self.nano.abs() / NANO >= 1024 {
            const NAMES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let (mut n, mut step) = (self.nano / NANO, 0);
            while n % 1024 == 0 && step < NAMES.len() - 1 {
                n /= 1024;
                step += 1;
            }
            return write!(f, "{n}{}", NAMES.get(step).copied().unwrap_or(""));
        }
        let (mut n, mut exponent) = (self.nano, -9);
        while n % 1000 == 0 && exponent < 18 {
            n /= 1000;
            exponent += 3;
        }
        match self.format {
            Format::Exponent if exponent != 0 => write!(f, "{n}e{exponent}"),
            Format::Exponent => write!(f, "{n}"),
            Format::Decimal | Format::Binary => {
                const NAMES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                let step = usize::try_from(exponent / 3 + 3).unwrap_or(0);
                write!(f, "{n}{}", NAMES.get(step).copied().unwrap_or(""))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn canonical_form() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("0.1", "100m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("100Ki", "100Ki"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e-1", "1200e-3"),
            ("100e0", "100"),
            ("-1", "-1"),
            ("-1Gi", "-1Gi"),
            ("+1", "1"),
            ("5M", "5M"),
            ("1E", "1E"),
            ("0.1n", "1n"),
            ("1n", "1n"),
            ("1e-20", "1e-9"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.000000001", "1n"),
            ("1.0000000001", "1000000001n"),
            ("1Ei", "1Ei"),
            ("0.5Ei", "512Pi"),
            ("100000E", "9223372036854775807"),
            ("1234567", "1234567"),
            ("0.001Ki", "1024m"),
            ("00012", "12"),
        ] {
            assert_eq!(q(text).to_string(), canonical, "{text}");
        }
        for bad in ["", "x", "1 Gi", "1.2.3", ".", "-", "1e", "1ee3", "1KiB", "1K", "1mi", "--1", "1e99999", "é"] {
            assert_eq!(bad.parse::<Quantity>(), Err(ParseQuantityError), "{bad}");
        }
    }

    #[test]
    fn amounts() {
        assert_eq!((q("100m").value(), q("100m").milli()), (1, 100));
        assert_eq!((q("-100m").value(), q("1n").milli()), (-1, 1));
        assert_eq!(q("1Gi").value(), 1 << 30);
        assert_eq!(q("9E").milli(), i64::MAX);
        assert_eq!(q("1024Mi"), q("1Gi"));
        assert!(q("1G") < q("1Gi"));
        assert_eq!((q("0") + q("1Gi") + q("512Mi")).to_string(), "1536Mi");
        assert_eq!((q("1") - q("250m")).to_string(), "750m");
        assert_eq!(["100m", "200m"].map(q).into_iter().sum::<Quantity>(), Quantity::from_milli(300));
        assert_eq!(Quantity::from_bytes(65536).to_string(), "64Ki");
        assert_eq!(Quantity::of(&crate::tree::json!(2)), Some(Quantity::from_units(2)));
        assert_eq!(Quantity::of(&crate::tree::json!(1.5)), Some(Quantity::from_milli(1500)));
    }

    proptest! {
        #[test]
        fn printing_and_reading_agree(units in -9_000_000_000_000i64..9_000_000_000_000, suffix in "(n|u|m||k|M|Ki|Mi|e-3|e3)") {
            let once = q(&format!("{units}{suffix}"));
            let twice = q(&once.to_string());
            prop_assert_eq!(once, twice);
            prop_assert_eq!(once.to_string(), twice.to_string());
        }
        #[test]
        fn no_text_panics(text in "[-+0-9.eEinumkKMGTP]{0,40}|.{0,20}") {
            let _ = text.parse::<Quantity>().map(|q| (q.to_string(), q.value(), q.milli()));
        }
    }
}
