//! One line of a CRI log file: `2026-11-21T02:28:53.123456789Z stdout F line`.

use std::fmt::Write as _;
use std::io;

/// Longest piece of a line, as containerd and CRI-O write it.
pub(crate) const CHUNK_BYTES: usize = 16 << 10;
/// A timestamp, and a sign before its year.
const STAMP_BYTES: usize = 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Whole lines as `F`, the unfinished rest as `P`, in pieces: written where the memory for them is, which is bounded and not the heap.
pub(crate) fn format(
    bytes: &[u8],
    stream: Stream,
    now_ns: i64,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let name = match stream {
        Stream::Stdout => " stdout ",
        Stream::Stderr => " stderr ",
    };
    let stamp = timestamp(now_ns);
    let mut text: heapless::Vec<u8, CHUNK_BYTES> = heapless::Vec::new();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let (kind, line) = line.strip_suffix(b"\n").map_or((b"P ", line), |whole| (b"F ", whole));
        for part in [stamp.as_bytes(), name.as_bytes(), kind, line, b"\n"] {
            if text.extend_from_slice(part).is_ok() {
                continue;
            }
            write(&text)?;
            text.clear();
            if text.extend_from_slice(part).is_err() {
                write(part)?; // as long as a chunk by itself
            }
        }
    }
    write(&text)
}

/// RFC 3339, UTC, always nine digits of a second.
pub(crate) fn timestamp(now_ns: i64) -> heapless::String<STAMP_BYTES> {
    let (seconds, nanos) = (now_ns.div_euclid(1_000_000_000), now_ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's civil_from_days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut stamp = heapless::String::new();
    // Always fits: nanoseconds in 64 bits end in the year 2262.
    let _ = write!(stamp, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z");
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8], stream: Stream) -> Vec<u8> {
        let mut text = Vec::new();
        format(bytes, stream, 0, |piece| io::Write::write_all(&mut text, piece)).unwrap();
        text
    }

    #[test]
    fn lines_and_pieces() {
        let text = |bytes: &[u8], stream| String::from_utf8(whole(bytes, stream)).unwrap();
        let (long, text) = (text(&[b'x'; 2 * CHUNK_BYTES], Stream::Stdout), text(b"a\n\nb", Stream::Stderr));
        let stamp = "1970-01-01T00:00:00.000000000Z stderr";
        assert_eq!(text, format!("{stamp} F a\n{stamp} F \n{stamp} P b\n"));
        assert!(whole(b"", Stream::Stdout).is_empty());
        assert_eq!(long.len(), "1970-01-01T00:00:00.000000000Z stdout P \n".len() + 2 * CHUNK_BYTES);
        let many = String::from_utf8(whole("line\n".repeat(3000).as_bytes(), Stream::Stderr)).unwrap();
        assert_eq!(many, format!("{stamp} F line\n").repeat(3000), "more than one piece");
    }

    #[test]
    fn times() {
        assert_eq!(timestamp(1_709_210_096_000_000_007).as_str(), "2024-02-29T12:34:56.000000007Z");
        assert_eq!(timestamp(1_795_228_133_123_456_789).as_str(), "2026-11-21T02:28:53.123456789Z");
        assert_eq!(timestamp(-1).as_str(), "1969-12-31T23:59:59.999999999Z");
    }
}
