//! YAML as Kubernetes reads and writes it: as Go's `sigs.k8s.io/yaml`, whose scalars follow YAML 1.1 (`yes` is true, `0644` is 420).
//!
//! Doubled keys are refused; so are documents that grow by aliases. Timestamps stay text, keys that are no strings become some.

use std::collections::HashMap;
use std::fmt::Write as _;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::tree::{JSON_DEPTH_MAX, Map, Number, Value};

/// Bytes of one stream.
pub const YAML_BYTES_MAX: usize = 3 << 20;
/// Values of one stream, those repeated by aliases included.
const NODES_MAX: usize = 500_000;
/// Aliases in one stream.
const ALIASES_MAX: usize = 1_000;

/// Where and why.
#[derive(thiserror::Error, Debug, PartialEq, Eq)]
#[error("yaml: line {line}, column {column}: {message}")]
pub struct YamlError {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    pub message: String,
}

fn error<T>(span: Span, message: impl Into<String>) -> Result<T, YamlError> {
    Err(YamlError { line: span.start.line(), column: span.start.col() + 1, message: message.into() })
}

/// All documents of a stream; empty documents are left out.
pub fn parse(text: &str) -> Result<Vec<Value>, YamlError> {
    if text.len() > YAML_BYTES_MAX {
        return Err(YamlError {
            line: 1,
            column: 1,
            message: format!("{} bytes are more than {YAML_BYTES_MAX}", text.len()),
        });
    }
    let mut builder = Builder::default();
    for step in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = step.map_err(|e| YamlError {
            line: e.marker().line(),
            column: e.marker().col() + 1,
            message: e.info().to_string(),
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

/// Reads exactly one document.
pub fn parse_one(text: &str) -> Result<Value, YamlError> {
    let mut all = parse(text)?;
    match all.len() {
        1 => Ok(all.remove(0)),
        n => Err(YamlError { line: 1, column: 1, message: format!("expected one document, found {n}") }),
    }
}

/// A list or map that is being read, and its anchor (0: none).
enum Open {
    List(Vec<Value>, usize),
    Map { map: Map<String, Value>, key: Option<String>, merged: Vec<Map<String, Value>>, anchor: usize },
}

#[derive(Default)]
struct Builder {
    documents: Vec<Value>,
    open: Vec<Open>,
    /// What anchors name, with the count of values in it.
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
    aliases: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref()).or_else(|why| error(span, why))?;
                // An empty document is a plain empty scalar.
                if self.open.is_empty() && text.is_empty() && style == ScalarStyle::Plain {
                    return Ok(());
                }
                self.put(value, anchor, 1, span)
            }
            Event::SequenceStart(anchor, _) => self.enter(Open::List(Vec::new(), anchor), span),
            Event::MappingStart(anchor, _) => {
                self.enter(Open::Map { map: Map::new(), key: None, merged: Vec::new(), anchor }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(span),
            Event::Alias(anchor) => {
                let Some((value, nodes)) = self.anchors.get(&anchor).cloned() else {
                    return error(span, "alias of an anchor that is not complete");
                };
                self.aliases += 1;
                if self.aliases > ALIASES_MAX {
                    return error(span, format!("more than {ALIASES_MAX} aliases"));
                }
                if self.open.len() + depth(&value) > JSON_DEPTH_MAX {
                    return error(span, format!("nested deeper than {JSON_DEPTH_MAX} levels"));
                }
                self.put(value, 0, nodes, span)
            }
        }
    }

    fn enter(&mut self, open: Open, span: Span) -> Result<(), YamlError> {
        if self.open.len() >= JSON_DEPTH_MAX {
            return error(span, format!("nested deeper than {JSON_DEPTH_MAX} levels"));
        }
        self.open.push(open);
        Ok(())
    }

    fn leave(&mut self, span: Span) -> Result<(), YamlError> {
        match self.open.pop() {
            Some(Open::List(list, anchor)) => self.put(Value::Array(list), anchor, 1, span),
            Some(Open::Map { mut map, merged, anchor, .. }) => {
                for more in merged {
                    for (key, value) in more {
                        map.entry(key).or_insert(value);
                    }
                }
                self.put(Value::Object(map), anchor, 1, span)
            }
            None => error(span, "end of a list or map that did not begin"),
        }
    }

    /// A complete value goes where the stream stands: into a list, as key or value into a map, or out as a document.
    fn put(&mut self, value: Value, anchor: usize, nodes: usize, span: Span) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return error(span, format!("more than {NODES_MAX} values"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), count(&value)));
        }
        match self.open.last_mut() {
            None => self.documents.push(value),
            Some(Open::List(list, _)) => list.push(value),
            Some(Open::Map { map, key, merged, .. }) => match key.take() {
                None => *key = Some(key_text(&value).or_else(|why| error(span, why))?),
                Some(k) if k == "<<" && merges(&value, merged) => {}
                Some(k) => {
                    if map.contains_key(&k) {
                        return error(span, format!("key {k:?} already set in map"));
                    }
                    map.insert(k, value);
                }
            },
        }
        Ok(())
    }
}

/// Notes the maps of a merge key (`<<: *a`, `<<: [*a, *b]`); earlier ones win.
fn merges(value: &Value, merged: &mut Vec<Map<String, Value>>) -> bool {
    match value {
        Value::Object(map) => merged.push(map.clone()),
        Value::Array(maps) if maps.iter().all(Value::is_object) => {
            merged.extend(maps.iter().filter_map(Value::as_object).cloned())
        }
        _ => return false,
    }
    true
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn key_text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(s) => Ok(s.clone()),
        Value::Null => Ok("null".into()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Array(_) | Value::Object(_) => Err("a list or map cannot be a key".into()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let core = tag.filter(|t| t.is_yaml_core_schema()).map(|t| t.suffix.as_str());
    match core {
        Some("str") => Ok(text.into()),
        Some("null") => Ok(Value::Null),
        Some("binary") => Err("!!binary is not supported".into()),
        Some(want @ ("int" | "float" | "bool")) => {
            let value = plain(text)?;
            let fits = if want == "bool" { value.is_boolean() } else { value.is_number() };
            if fits { Ok(value) } else { Err(format!("cannot decode {text:?} as !!{want}")) }
        }
        _ if tag.is_some() || style != ScalarStyle::Plain => Ok(text.into()),
        _ => plain(text),
    }
}

/// What an unquoted scalar means in YAML 1.1 as go-yaml v2 reads it.
fn plain(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => {
            return Err(format!("{text} has no JSON form"));
        }
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
            number(text).map_or_else(|| text.into(), Value::Number)
        }
        _ => text.into(),
    })
}

fn number(text: &str) -> Option<Number> {
    let digits = text.replace('_', "");
    let (negative, rest) = match digits.as_bytes().first()? {
        b'-' => (true, digits.get(1..)?),
        b'+' => (false, digits.get(1..)?),
        _ => (false, digits.as_str()),
    };
    let lower = rest.to_ascii_lowercase();
    let (radix, magnitude) = match (lower.get(..2), lower.get(..1)) {
        (Some("0x"), _) => (16, lower.get(2..)?),
        (Some("0b"), _) => (2, lower.get(2..)?),
        (Some("0o"), _) => (8, lower.get(2..)?),
        (Some(_), Some("0")) => (8, lower.get(1..)?),
        _ => (10, lower.as_str()),
    };
    if !magnitude.starts_with(['+', '-'])
        && let Ok(n) = u64::from_str_radix(magnitude, radix)
    {
        return if negative { i64::try_from(-i128::from(n)).ok().map(Number::from) } else { Some(n.into()) };
    }
    let decimal = rest.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-'))
        && rest.bytes().any(|c| c.is_ascii_digit());
    let starts = rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if decimal && starts { digits.parse::<f64>().ok().and_then(Number::from_f64) } else { None }
}

/// Block style with sorted keys, as kubectl prints.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0),
        Value::Array(list) if !list.is_empty() => write_list(&mut out, list, 0),
        other => {
            write_scalar(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, by: usize) {
    out.extend(std::iter::repeat_n(' ', by));
}

fn write_map(out: &mut String, map: &Map<String, Value>, by: usize) {
    for (i, (key, value)) in map.iter().enumerate() {
        if i > 0 {
            indent(out, by);
        }
        write_text(out, key);
        out.push(':');
        match value {
            Value::Object(m) if !m.is_empty() => {
                out.push('\n');
                indent(out, by + 2);
                write_map(out, m, by + 2);
            }
            Value::Array(l) if !l.is_empty() => {
                out.push('\n');
                indent(out, by);
                write_list(out, l, by);
            }
            other => {
                out.push(' ');
                write_scalar(out, other, by + 2);
                out.push('\n');
            }
        }
    }
}

fn write_list(out: &mut String, list: &[Value], by: usize) {
    for (i, value) in list.iter().enumerate() {
        if i > 0 {
            indent(out, by);
        }
        out.push_str("- ");
        match value {
            Value::Object(m) if !m.is_empty() => write_map(out, m, by + 2),
            Value::Array(l) if !l.is_empty() => write_list(out, l, by + 2),
            other => {
                write_scalar(out, other, by + 2);
                out.push('\n');
            }
        }
    }
}

fn write_scalar(out: &mut String, value: &Value, by: usize) {
    match value {
        Value::String(s) if is_block(s) => {
            out.push_str(if s.ends_with("\n\n") || s == "\n" {
                "|+"
            } else if s.ends_with('\n') {
                "|"
            } else {
                "|-"
            });
            for line in s.strip_suffix('\n').unwrap_or(s).split('\n') {
                out.push('\n');
                if !line.is_empty() {
                    indent(out, by);
                    out.push_str(line);
                }
            }
        }
        Value::String(s) => write_text(out, s),
        other => {
            let _ = write!(out, "{other}"); // writing into a String cannot fail
        }
    }
}

/// Texts of several lines that read well as a literal block.
fn is_block(text: &str) -> bool {
    let inner = text.trim_end_matches('\n');
    inner.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || printable(c))
        && text.split('\n').all(|l| !l.ends_with([' ', '\t']))
}

fn printable(c: char) -> bool {
    !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'))
}

fn write_text(out: &mut String, text: &str) {
    let bare = !text.is_empty()
        && text.chars().all(|c| printable(c) && c != '\t')
        && !text.starts_with([
            ' ', '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', '=',
            '<', '~', '.',
        ])
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && plain(text).is_ok_and(|v| v.is_string())
        && !crate::time::Time::parse(text).is_some_and(|_| true)
        && !(text.len() == 10 && text.as_bytes().get(4) == Some(&b'-'));
    if bare {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        let code = u32::from(c);
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if printable(c) => out.push(c),
            _ => {
                let _ = if code > 0xffff { write!(out, "\\U{code:08x}") } else { write!(out, "\\u{code:04x}") };
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests;
