//! The check of an object against its schema: types, unknown fields, canonical forms.

use super::{Shape, Type, find, of};
use crate::kind::Kind;
use crate::quantity::Quantity;
use crate::status::Status;
use crate::structural;
use crate::time::Time;
use crate::tree::{JSON_DEPTH_MAX, Map, Value};

/// Field errors told to the client.
const ERRORS_MAX: usize = 100;

/// What to do with fields the kind does not have (`?fieldValidation=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// Strict: refuse
    Error,
    /// Warn: drop, and tell
    Warn,
    /// Ignore: drop
    Drop,
}

/// Checks types against the kind's schema, brings times and quantities into canonical form, and drops unknown fields and nulls. `duplicates` are the
/// doubled keys of `tree::parse_json`. Returns warnings (`unknown field "spec.x"`); refuses with 400 and upstream's wording.
pub fn check(kind: &Kind, object: &mut Value, duplicates: &[String], unknown: Unknown) -> Result<Vec<String>, Status> {
    let mut check = Checker { path: String::new(), owner: kind.kind.to_string(), depth: 0, unknown: Vec::new() };
    let refuse = |why: String| {
        Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {why}",
            kind.kind, kind.version, kind.kind
        ))
    };
    if !object.is_object() {
        return Err(refuse(format!(
            "json: cannot unmarshal {} into Go value of type {}",
            json_type(object),
            kind.kind
        )));
    }
    match (&kind.custom, of(kind)) {
        // Types of custom fields are told by `validate`, with all that is wrong at once.
        (Some(custom), _) => {
            let metadata = check.metadata_only(object);
            check.unknown.extend(structural::prune(&custom.schema, object));
            metadata.and_then(|()| check.embedded(&custom.schema, object))
        }
        (None, Shape::Raw) => check.metadata_only(object),
        (None, shape) => check.value(object, shape),
    }
    .map_err(refuse)?;
    let mut told: Vec<String> = duplicates.iter().map(|d| format!("duplicate field {d:?}")).collect();
    told.extend(check.unknown.iter().map(|u| format!("unknown field {u:?}")));
    told.truncate(ERRORS_MAX);
    match unknown {
        Unknown::Error if !told.is_empty() => Err(refuse(format!("strict decoding error: {}", told.join(", ")))),
        Unknown::Error | Unknown::Warn => Ok(told),
        Unknown::Drop => Ok(Vec::new()),
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

struct Checker {
    /// Where the check stands: `spec.containers[0].image`
    path: String,
    /// The struct around it, for messages.
    owner: String,
    depth: usize,
    unknown: Vec<String>,
}

impl Checker {
    fn metadata_only(&mut self, object: &mut Value) -> Result<(), String> {
        let (Some(meta), Some(ty)) = (object.get_mut("metadata"), find("meta/v1.ObjectMeta")) else { return Ok(()) };
        self.within(|p| p.push_str("metadata"), |c| c.value(meta, Shape::Struct(ty, false)))
    }

    /// The metadata of whole objects within a custom one: their type is known where their schema says nothing.
    fn embedded(&mut self, node: &structural::Node, value: &mut Value) -> Result<(), String> {
        if !node.has_embedded {
            return Ok(());
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut().filter(|(key, _)| !node.is_meta(key)) {
                    let Some(below) = node.field(key) else { continue };
                    let dot = if self.path.is_empty() { "" } else { "." };
                    self.within(|p| p.extend([dot, key]), |c| c.embedded_here(below, value))?;
                }
                Ok(())
            }
            Value::Array(list) => {
                let Some(items) = &node.items else { return Ok(()) };
                list.iter_mut().enumerate().try_for_each(|(i, item)| {
                    self.within(|p| p.push_str(&format!("[{i}]")), |c| c.embedded_here(items, item))
                })
            }
            _ => Ok(()),
        }
    }

    fn embedded_here(&mut self, node: &structural::Node, value: &mut Value) -> Result<(), String> {
        if let (true, Some(meta), Some(ty)) = (node.embedded, value.get_mut("metadata"), find("meta/v1.ObjectMeta")) {
            self.within(|p| p.push_str(".metadata"), |c| c.value(meta, Shape::Struct(ty, false)))?;
        }
        self.embedded(node, value)
    }

    fn mismatch<T>(&self, found: &Value, want: Shape<'_>) -> Result<T, String> {
        let number = if let Value::Number(n) = found { format!(" {n}") } else { String::new() };
        let plain: String = self.path.split('[').map(|p| p.split_once(']').map_or(p, |(_, rest)| rest)).collect();
        let what = json_type(found);
        Err(format!(
            "json: cannot unmarshal {what}{number} into Go struct field {}.{plain} of type {}",
            self.owner,
            want.go_name()
        ))
    }

    /// Runs `body` with the path lengthened by what `add` writes.
    fn within<T>(&mut self, add: impl FnOnce(&mut String), body: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        add(&mut self.path);
        let result = body(self);
        self.path.truncate(length);
        result
    }

    fn value(&mut self, value: &mut Value, shape: Shape<'_>) -> Result<(), String> {
        if self.depth >= JSON_DEPTH_MAX {
            return Err(format!("nested deeper than {JSON_DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let result = self.value_within(value, shape);
        self.depth -= 1;
        result
    }

    fn value_within(&mut self, value: &mut Value, shape: Shape<'_>) -> Result<(), String> {
        match (shape, &mut *value) {
            (Shape::Struct(ty, _), Value::Object(map)) => {
                let short = ty.name.rsplit_once('.').map_or(ty.name, |(_, n)| n).to_string();
                let outer = std::mem::replace(&mut self.owner, short);
                let result = self.fields(map, ty);
                self.owner = outer;
                result
            }
            (Shape::Map(inner, _), Value::Object(map)) => {
                let shape = inner.shape();
                map.iter_mut().try_for_each(|(key, item)| {
                    self.within(|p| p.push_str(&format!("[{key}]")), |c| c.element(item, shape))
                })
            }
            (Shape::List(inner, _), Value::Array(list)) => {
                let shape = inner.shape();
                list.iter_mut().enumerate().try_for_each(|(i, item)| {
                    self.within(|p| p.push_str(&format!("[{i}]")), |c| c.element(item, shape))
                })
            }
            _ => self.leaf(value, shape),
        }
    }

    /// Null in a list or map is Go's zero value.
    fn element(&mut self, item: &mut Value, shape: Shape<'_>) -> Result<(), String> {
        match (&*item, shape) {
            (Value::Null, Shape::String) => *item = Value::String(String::new()),
            (Value::Null, Shape::Struct(..)) => *item = Value::Object(Map::new()),
            _ => {}
        }
        self.value(item, shape)
    }

    fn fields(&mut self, map: &mut Map<String, Value>, ty: Type<'_>) -> Result<(), String> {
        let mut drop = Vec::new();
        for (key, value) in map.iter_mut() {
            let add = |p: &mut String| {
                if !p.is_empty() {
                    p.push('.');
                }
                p.push_str(key);
            };
            match ty.field(key) {
                None => {
                    if self.unknown.len() < ERRORS_MAX {
                        self.within(add, |c| c.unknown.push(c.path.clone()));
                    }
                    drop.push(key.clone());
                }
                Some(_) if value.is_null() => drop.push(key.clone()),
                Some(field) => self.within(add, |c| c.value(value, field.shape))?,
            }
        }
        for key in drop {
            map.remove(&key);
        }
        Ok(())
    }

    fn leaf(&mut self, value: &mut Value, shape: Shape<'_>) -> Result<(), String> {
        let canonical = match (shape, &*value) {
            (Shape::Raw, _)
            | (Shape::String, Value::String(_))
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Float, Value::Number(_)) => return Ok(()),
            (Shape::Int64, Value::Number(n)) if n.is_i64() => return Ok(()),
            (Shape::Int32 | Shape::IntOrString, Value::Number(n))
                if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                return Ok(());
            }
            (Shape::IntOrString, Value::String(_)) => return Ok(()),
            (Shape::Quantity, Value::String(_) | Value::Number(_)) => match Quantity::of(value) {
                Some(q) => q.to_string(),
                None => return Err(crate::quantity::ParseQuantityError.to_string()),
            },
            (Shape::Time | Shape::MicroTime, Value::String(text)) => match Time::parse(text) {
                Some(t) if matches!(shape, Shape::Time) => t.to_string(),
                Some(t) => t.micro(),
                None => {
                    return Err(format!(
                        "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?}"
                    ));
                }
            },
            (Shape::Bytes, Value::String(text)) => match base64_canonical(text) {
                Ok(clean) => clean,
                Err(at) => return Err(format!("illegal base64 data at input byte {at}")),
            },
            _ => return self.mismatch(value, shape),
        };
        *value = Value::String(canonical);
        Ok(())
    }
}

/// Standard base64 with padding, without the line ends that Go's decoder skips; or the place of the first bad byte.
fn base64_canonical(text: &str) -> Result<String, usize> {
    let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let data = clean.trim_end_matches('=');
    if let Some(at) = data.bytes().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))) {
        return Err(at);
    }
    let padding = clean.len() - data.len();
    let right = clean.len().is_multiple_of(4) && padding <= 2;
    if right { Ok(clean) } else { Err(data.len().min(clean.len() / 4 * 4)) }
}
