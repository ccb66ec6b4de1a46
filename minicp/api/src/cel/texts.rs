//! Functions of texts. Places count characters, as CEL's do.

use super::times;
use super::value::Val;

type Out<T> = Result<T, String>;

fn place(index: i64, length: usize) -> Out<usize> {
    usize::try_from(index).ok().filter(|i| *i <= length).ok_or_else(|| format!("index out of range: {index}"))
}

/// Bytes before the character of this place.
fn byte_of(text: &str, place: usize) -> usize {
    text.char_indices().nth(place).map_or(text.len(), |(at, _)| at)
}

pub(super) fn char_at(text: &str, index: i64) -> Out<String> {
    let i = place(index, text.chars().count())?;
    Ok(text.chars().nth(i).map_or_else(String::new, String::from))
}

pub(super) fn substring(text: &str, from: i64, to: Option<i64>) -> Out<String> {
    let length = text.chars().count();
    let from = place(from, length)?;
    let to = to.map_or(Ok(length), |to| place(to, length))?;
    if from > to {
        return Err(format!("invalid substring range. start: {from}, end: {to}"));
    }
    Ok(text.get(byte_of(text, from)..byte_of(text, to)).unwrap_or("").into())
}

/// The place of the first `part` from `from` on; -1: none.
pub(super) fn index_of(text: &str, part: &str, from: Option<i64>) -> Out<i64> {
    let from = place(from.unwrap_or(0), text.chars().count())?;
    let start = byte_of(text, from);
    let found = text.get(start..).and_then(|rest| rest.find(part)).map(|at| start + at);
    Ok(found.map_or(-1, |at| count(text, at)))
}

/// The place of the last `part` that begins at `to` or before.
pub(super) fn last_index_of(text: &str, part: &str, to: Option<i64>) -> Out<i64> {
    let to = match to {
        Some(to) => byte_of(text, place(to, text.chars().count())?),
        None => text.len(),
    };
    let end = to.saturating_add(part.len()).min(text.len());
    let within = (0..=end).rev().find_map(|end| text.get(..end)).unwrap_or("");
    Ok(within.rfind(part).map_or(-1, |at| count(text, at)))
}

fn count(text: &str, bytes: usize) -> i64 {
    i64::try_from(text.get(..bytes).unwrap_or("").chars().count()).unwrap_or(i64::MAX)
}

/// Negative: all.
pub(super) fn replace(text: &str, old: &str, new: &str, times: i64) -> String {
    match usize::try_from(times) {
        Ok(times) => text.replacen(old, new, times),
        Err(_) => text.replace(old, new),
    }
}

pub(super) fn split(text: &str, at: &str, parts: i64) -> Vec<String> {
    if at.is_empty() {
        let most = usize::try_from(parts).unwrap_or(usize::MAX);
        let mut out: Vec<String> = text.chars().map(String::from).collect();
        if out.len() > most && most > 0 {
            let rest = out.split_off(most - 1).concat();
            out.push(rest);
        }
        return if most == 0 { Vec::new() } else { out };
    }
    match usize::try_from(parts) {
        Ok(parts) => text.splitn(parts, at).map(str::to_owned).collect(),
        Err(_) => text.split(at).map(str::to_owned).collect(),
    }
}

pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out + "\""
}

/// As `string()` and `%s` show a value; None: they do not.
pub(super) fn shown(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::Null => "null".into(),
        Val::Bool(is) => is.to_string(),
        Val::Int(n) => n.to_string(),
        Val::Uint(n) => n.to_string(),
        Val::Double(n) if n.is_nan() => "NaN".into(),
        Val::Double(n) if n.is_infinite() => if *n > 0.0 { "+Inf" } else { "-Inf" }.into(),
        Val::Double(n) => n.to_string(),
        Val::Text(text) => text.to_string(),
        Val::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Val::Time(time) => match time.unix_micros().rem_euclid(1_000_000) {
            0 => time.to_string(),
            _ => time.micro().trim_end_matches('Z').trim_end_matches('0').to_owned() + "Z",
        },
        Val::Duration(nanos) => times::shown(*nanos),
        Val::Ip(ip) => ip.to_string(),
        Val::Cidr(cidr) => cidr.to_string(),
        Val::Type(name) => (*name).into(),
        _ => return None,
    })
}

/// `"%d of %s".format([1, "a"])`
pub(super) fn format(text: &str, args: &[Val<'_>]) -> Out<String> {
    let (mut out, mut args, mut rest) = (String::new(), args.iter(), text);
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (digits, tail) = match after.strip_prefix('.') {
            Some(tail) => tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len())),
            None => ("6", after),
        };
        let digits: usize = digits.parse().ok().filter(|d| *d <= 100).ok_or("could not parse formatting clause")?;
        let mut clause = tail.chars();
        let verb = clause.next().ok_or("unexpected end of string")?;
        rest = clause.as_str();
        let arg = args.next().ok_or_else(|| format!("index {} out of range", out.len()))?;
        out.push_str(&clause_of(verb, digits, arg)?);
    }
    if args.next().is_some() {
        return Err("too many arguments supplied to string format".into());
    }
    Ok(out + rest)
}

fn clause_of(verb: char, digits: usize, arg: &Val<'_>) -> Out<String> {
    let wrong = || format!("error during formatting: %{verb} of {}", arg.type_name());
    let float = |n: f64| if verb == 'e' { format!("{n:.digits$e}") } else { format!("{n:.digits$}") };
    Ok(match (verb, arg) {
        ('s', _) => shown(arg).ok_or_else(wrong)?,
        ('d', Val::Int(_) | Val::Uint(_)) => shown(arg).ok_or_else(wrong)?,
        ('f' | 'e', Val::Double(n)) => float(*n),
        ('f' | 'e', Val::Int(n)) => float(*n as f64),
        ('b', Val::Int(n)) if *n < 0 => format!("-{:b}", n.unsigned_abs()),
        ('b', Val::Int(n)) => format!("{n:b}"),
        ('b', Val::Bool(is)) => u8::from(*is).to_string(),
        ('x', Val::Int(n)) if *n < 0 => format!("-{:x}", n.unsigned_abs()),
        ('x', Val::Int(n)) => format!("{n:x}"),
        ('X', Val::Int(n)) => format!("{n:X}"),
        ('o', Val::Int(n)) => format!("{n:o}"),
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters() {
        assert_eq!(index_of("tacocaté", "é", None), Ok(7));
        assert_eq!(index_of("tacocat", "ac", Some(2)), Ok(-1));
        assert_eq!(last_index_of("hello mellow", "ello", None), Ok(7));
        assert_eq!(last_index_of("hello mellow", "ello", Some(6)), Ok(1));
        assert_eq!(last_index_of("éé", "é", Some(0)), Ok(0));
        assert!(index_of("a", "a", Some(2)).is_err() && index_of("a", "a", Some(-1)).is_err());
        assert_eq!(substring("tächo", 1, Some(3)).as_deref(), Ok("äc"));
        assert!(substring("abc", 2, Some(1)).is_err());
        assert_eq!((char_at("aé", 1).as_deref(), char_at("aé", 2).as_deref()), (Ok("é"), Ok("")));
        assert_eq!(split("a b c", " ", 2), ["a", "b c"]);
        assert_eq!(split("abc", "", -1), ["a", "b", "c"]);
        assert_eq!(split("abc", "", 2), ["a", "bc"]);
        assert!(split("abc", "b", 0).is_empty());
    }

    #[test]
    fn formats() {
        let args = [Val::text("a"), Val::Int(-5), Val::Double(1.5), Val::Bool(true)];
        assert_eq!(format("%s=%d %.2f%% %b", &args).as_deref(), Ok("a=-5 1.50% 1"));
        assert!(format("%s", &[]).is_err() && format("", &args).is_err() && format("%d", &[Val::text("a")]).is_err());
        assert!(format("%.999f", &[Val::Double(1.0)]).is_err() && format("%", &[]).is_err());
    }
}
