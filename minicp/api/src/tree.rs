//! The object tree: `serde_json::Value` with accessors by path, and a JSON reader with limits that notices duplicate keys.
//!
//! Accessors never fail: an absent field and a field of another type read as empty, because `schema::check` has already refused
//! objects with wrong types. `set` makes the maps on its way.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
pub use serde_json::{Map, Number, Value, json};

use crate::field::Path;

/// Nesting of maps and lists in any object, whatever its format.
pub const JSON_DEPTH_MAX: usize = 64;
/// Bytes of one request body (upstream's `MaxRequestBodyBytes`).
pub const JSON_BYTES_MAX: usize = 3 << 20;
/// Duplicate keys told to the client; the rest is counted by nobody.
const DUPLICATES_MAX: usize = 32;

/// The value at `path`, through maps only.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |v, key| v.as_object()?.get(*key))
}

/// Like [`at`], to change it in place.
pub fn at_mut<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |v, key| v.as_object_mut()?.get_mut(*key))
}

/// The string at `path`; "" when absent.
pub fn str_at<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or("")
}

/// The whole number at `path`.
pub fn i64_at(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(as_i64)
}

/// A whole number, also when it was written as `3.0` or `3e0` (as Go's decoder of the untyped path allows).
pub fn as_i64(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i64))
}

/// The truth value at `path`.
pub fn bool_at(value: &Value, path: &[&str]) -> Option<bool> {
    at(value, path).and_then(Value::as_bool)
}

/// The list at `path`; empty when absent.
pub fn list_at<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The list at `path`, to change its items in place; empty when absent.
pub fn list_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    at_mut(value, path).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// The map at `path`.
pub fn map_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    at(value, path).and_then(Value::as_object)
}

/// Makes `value` a map if it is none, and returns it.
pub fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made a map just above")
}

/// The place at `path`, with the maps on the way made; `Null` where nothing was. What is no map on the way is replaced.
pub fn slot<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(value, |v, key| as_map(v).entry(*key).or_insert(Value::Null))
}

/// Puts `new` at `path`.
pub fn set(value: &mut Value, path: &[&str], new: Value) {
    *slot(value, path) = new;
}

/// Puts `new` at `path` if nothing (or null) is there, as a default does.
pub fn set_default(value: &mut Value, path: &[&str], new: Value) {
    let place = slot(value, path);
    if place.is_null() {
        *place = new;
    }
}

/// Takes away what is at `path`.
pub fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    at_mut(value, parents)?.as_object_mut()?.remove(*last)
}

/// What a request body held.
pub struct Parsed {
    pub value: Value,
    /// Paths of keys that came twice in one map (`spec.containers[0].image`); the last one won.
    pub duplicates: Vec<String>,
}

/// Why bytes are no JSON object tree.
#[derive(thiserror::Error, Debug)]
pub enum JsonError {
    #[error("request body of {0} bytes is larger than {1}")]
    TooLarge(usize, usize),
    #[error("json parse error: {0}")]
    Syntax(#[from] serde_json::Error),
}

/// Reads one JSON document of at most `bytes_max` bytes and [`JSON_DEPTH_MAX`] levels.
pub fn parse_json(bytes: &[u8], bytes_max: usize) -> Result<Parsed, JsonError> {
    parse_json_within(bytes, bytes_max, 0)
}

/// The same for a document that stands `depth` levels deep in another tree.
pub(crate) fn parse_json_within(bytes: &[u8], bytes_max: usize, depth: usize) -> Result<Parsed, JsonError> {
    if bytes.len() > bytes_max {
        return Err(JsonError::TooLarge(bytes.len(), bytes_max));
    }
    let duplicates = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Node { depth, above: Path::Root, duplicates: &duplicates }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(Parsed { value, duplicates: duplicates.into_inner() })
}

struct Node<'a> {
    depth: usize,
    above: Path<'a>,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'a> Node<'a> {
    fn below<'b>(&'b self, above: Path<'b>) -> Node<'b>
    where
        'a: 'b,
    {
        Node { depth: self.depth + 1, above, duplicates: self.duplicates }
    }

    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth >= JSON_DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {JSON_DEPTH_MAX} levels")));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.below(self.above.i(list.len())))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let here = self.above.f(&key);
            let value = entries.next_value_seed(self.below(here))?;
            if map.contains_key(&key) {
                let mut known = self.duplicates.borrow_mut();
                if known.len() < DUPLICATES_MAX {
                    known.push(here.to_string());
                }
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accessors_read_absent_as_empty() {
        let v = json!({"a": {"b": "x", "n": 3, "f": 3.0, "t": true, "l": [1]}});
        assert_eq!(str_at(&v, &["a", "b"]), "x");
        assert_eq!(str_at(&v, &["a", "n"]), "");
        assert_eq!(i64_at(&v, &["a", "n"]), Some(3));
        assert_eq!(i64_at(&v, &["a", "f"]), Some(3));
        assert_eq!(bool_at(&v, &["a", "t"]), Some(true));
        assert_eq!(list_at(&v, &["a", "l"]).len(), 1);
        assert!(list_at(&v, &["a", "b", "c"]).is_empty());
        assert!(map_at(&v, &["a", "l"]).is_none());
    }

    #[test]
    fn set_makes_maps_and_remove_takes_one() {
        let mut v = json!({});
        set(&mut v, &["a", "b", "c"], json!(1));
        set_default(&mut v, &["a", "b", "c"], json!(2));
        set_default(&mut v, &["a", "b", "d"], json!(2));
        assert_eq!(v, json!({"a": {"b": {"c": 1, "d": 2}}}));
        assert_eq!(remove(&mut v, &["a", "b", "c"]), Some(json!(1)));
        assert_eq!(remove(&mut v, &["a", "x", "c"]), None);
        assert_eq!(v, json!({"a": {"b": {"d": 2}}}));
    }

    #[test]
    fn duplicates_are_named_and_the_last_wins() {
        let p = parse_json(br#"{"spec":{"c":[{"image":"a","image":"b"}],"x":1},"k":1,"k":2}"#, 1000).unwrap();
        assert_eq!(p.duplicates, ["spec.c[0].image", "k"]);
        assert_eq!(str_at(&list_at(&p.value, &["spec", "c"])[0], &["image"]), "b");
    }

    #[test]
    fn limits_hold() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(parse_json(deep(JSON_DEPTH_MAX).as_bytes(), 1000).is_ok());
        assert!(parse_json(deep(JSON_DEPTH_MAX + 1).as_bytes(), 1000).is_err());
        assert!(matches!(parse_json(b"[1,2]", 4), Err(JsonError::TooLarge(5, 4))));
        assert!(parse_json(b"{} x", 100).is_err());
        assert!(parse_json(b"{\"a\":1e999}", 100).is_err());
        assert_eq!(parse_json(b"[1,-2,1.5,null,true,\"s\"]", 100).unwrap().value, json!([1, -2, 1.5, null, true, "s"]));
    }
}
