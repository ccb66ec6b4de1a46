//! Fields of a JSON tree by name; what is absent or of another type reads as nothing.

use serde_json::Value;

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn optional(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// As [`optional`], and the empty text is nothing too.
pub(crate) fn filled(value: &Value, key: &str) -> Option<String> {
    optional(value, key).filter(|t| !t.is_empty())
}

pub(crate) fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

pub(crate) fn number(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(Value::as_i64)
}

/// Numbers of any sign and size as text, for files of the kernel.
pub(crate) fn digits(value: &Value, key: &str) -> Option<String> {
    value.get(key).filter(|v| v.is_i64() || v.is_u64()).map(Value::to_string)
}

pub(crate) fn small(value: &Value, key: &str) -> Option<u32> {
    number(value, key).and_then(|n| u32::try_from(n).ok())
}

pub(crate) fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

pub(crate) fn strings(value: &Value, key: &str) -> Vec<String> {
    list(value, key).filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(crate) fn fields<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    value.get(key).and_then(Value::as_object).into_iter().flatten()
}

pub(crate) fn pairs(value: &Value, key: &str) -> Vec<(String, String)> {
    fields(value, key).filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}
