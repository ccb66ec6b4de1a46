//! The `format`s that upstream holds strings to (kube-openapi `strfmt`); others say nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::time::Time;

/// Whether `text` is of `format`. Unknown formats hold always.
pub(super) fn holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => Time::parse(text).is_some(),
        "date" => is_date(text),
        "duration" => is_duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "email" => is_email(text),
        "hostname" => crate::meta::dns_subdomain(&text.to_ascii_lowercase()).is_ok(),
        "uri" => is_uri(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, text),
        "byte" => is_base64(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
        }
        "k8s-short-name" => crate::meta::dns_label(text).is_ok(),
        "k8s-long-name" => crate::meta::dns_subdomain(text).is_ok(),
        _ => true,
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && Time::parse(&format!("{text}T00:00:00Z")).is_some()
}

/// Go's durations (`1h30m`, `1.5s`), and upstream's words: `3 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: &[&str] = &["ns", "us", "µs", "ms", "s", "m", "h", "d", "w"];
    const WORDS: &[&str] = &["second", "minute", "hour", "day", "week", "milli", "micro", "nano"];
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if let Some((number, word)) = rest.split_once(' ') {
        let word = word.trim();
        return number.parse::<f64>().is_ok() && WORDS.iter().any(|w| word.strip_suffix('s').unwrap_or(word) == *w);
    }
    let (mut rest, mut parts) = (rest, 0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        if number.parse::<f64>().is_err() || !UNITS.contains(&unit) {
            return false;
        }
        (rest, parts) = (tail, parts + 1);
    }
    parts > 0
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u8>().is_ok_and(|b| b <= most)
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    !local.is_empty()
        && local.len() <= 64
        && !local.contains(char::is_whitespace)
        && crate::meta::dns_subdomain(&domain.to_ascii_lowercase()).is_ok()
}

/// A request URI: absolute, or a path from the root.
fn is_uri(text: &str) -> bool {
    let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let absolute = text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            && !rest.is_empty()
    });
    clean && (absolute || text.starts_with('/'))
}

fn is_uuid(format: &str, text: &str) -> bool {
    let hex: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let shape = matches!(text.len(), 32 | 36) && hex.len() == 32 && hex.iter().all(u8::is_ascii_hexdigit);
    let version = format.strip_prefix("uuid").and_then(|v| v.bytes().next());
    shape && version.is_none_or(|v| hex.get(12) == Some(&v))
}

fn is_base64(text: &str) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}
