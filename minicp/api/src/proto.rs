//! Objects in Kubernetes' protobuf, read into the tree that Go would write as JSON. kubectl's typed commands (`create namespace`, `auth can-i`,
//! ...) send their bodies so since 1.32; nothing is ever written in it, as every client takes JSON.
//!
//! Around an object: the magic `k8s\0`, then `runtime.Unknown` (typeMeta 1 with apiVersion 1 and kind 2, raw 2). Numbers of fields are in
//! the schema table. gogo writes every field that is no pointer, so a zero is no news unless Go keeps zeros there (`Field::keeps_zero`).
//! As upstream does, fields that are not known are passed over, whatever `fieldValidation` says: newer clients send their new fields always.

mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::field::Path;
use crate::schema::{self, Field, Inner, Numbered, Shape, Type};
use crate::time::Time;
use crate::tree::{JSON_BYTES_MAX, JSON_DEPTH_MAX, Map, Number, Value, as_map, parse_json_within};
use wire::{Fields, Wire};

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The first bytes of every body.
const MAGIC: &[u8] = b"k8s\0";
/// Fields, items and entries of one body.
const FIELDS_MAX: usize = 100_000;
/// Go's zero time, the year 1, in seconds since 1970.
const GO_ZERO_TIME: i64 = -62_135_596_800;

/// Why bytes are no object.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
pub enum ProtoError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Magic,
    #[error("Object 'Kind' is missing in the type of the protobuf message")]
    MissingKind,
    #[error("no kind {kind:?} is registered for version {api_version:?} in protobuf")]
    NoKind { api_version: String, kind: String },
    #[error("read protobuf envelope: {0}")]
    Envelope(Wrong),
    #[error("read protobuf of {ty}, at {path:?}: {why}")]
    Object { ty: String, path: String, why: Wrong },
}

/// What is wrong with the bytes of a message.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Debug)]
pub enum Wrong {
    #[error("unexpected end")]
    Truncated,
    #[error("integer overflow")]
    Varint,
    #[error("illegal wire type {0}")]
    WireType(u64),
    #[error("wrong wire type for the field")]
    Mismatch,
    #[error("more than {FIELDS_MAX} fields")]
    TooMany,
    #[error("nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    #[error("not valid JSON within")]
    Json,
    #[error("not a finite number")]
    NotFinite,
}

/// Reads a whole body, at most [`JSON_BYTES_MAX`] long: envelope and object.
pub fn decode(body: &[u8]) -> Result<Value, ProtoError> {
    let unknown = Fields(body.strip_prefix(MAGIC).ok_or(ProtoError::Magic)?);
    let envelope = || -> Result<_, Wrong> {
        let meta = Fields(unknown.bytes(1)?);
        Ok((meta.text(1)?, meta.text(2)?, unknown.bytes(2)?))
    };
    let (api_version, kind, raw) = envelope().map_err(ProtoError::Envelope)?;
    if kind.is_empty() {
        return Err(ProtoError::MissingKind);
    }
    let Some(ty) = type_of(&api_version, &kind) else { return Err(ProtoError::NoKind { api_version, kind }) };
    let mut object = message(ty, raw)?;
    let map = as_map(&mut object);
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    Ok(object)
}

/// Options of requests belong to every group and version.
fn type_of(api_version: &str, kind: &str) -> Option<Type<'static>> {
    let name = if kind == "DeleteOptions" { format!("meta/v1.{kind}") } else { format!("{api_version}.{kind}") };
    schema::find(&name).filter(|t| t.fields().any(|f| !f.number.is_empty()))
}

/// Reads one message of a type, without envelope.
pub fn message(ty: Type<'_>, bytes: &[u8]) -> Result<Value, ProtoError> {
    let mut reader = Reader { left: FIELDS_MAX, wrong_at: String::new() };
    let mut map = Map::new();
    match reader.message(ty, "", bytes, &mut map, Place { path: Path::Root, depth: 0 }) {
        Ok(()) => Ok(Value::Object(map)),
        Err(why) => Err(ProtoError::Object { ty: ty.name.into(), path: reader.wrong_at, why }),
    }
}

/// Where a value stands in the tree.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: Path<'a>,
    depth: usize,
}

impl<'a> Place<'a> {
    fn below(&self, path: Path<'a>) -> Place<'a> {
        Place { path, depth: self.depth + 1 }
    }
}

struct Reader {
    /// Fields that may still come.
    left: usize,
    /// The innermost place at which something was wrong.
    wrong_at: String,
}

impl Reader {
    fn count(&mut self) -> Result<(), Wrong> {
        self.left = self.left.checked_sub(1).ok_or(Wrong::TooMany)?;
        Ok(())
    }

    /// Adds the message's fields to `out`; `inside` is the path of numbers of the inlined messages around them (`2.`).
    fn message(
        &mut self,
        ty: Type<'_>,
        inside: &str,
        bytes: &[u8],
        out: &mut Map<String, Value>,
        at: Place<'_>,
    ) -> Result<(), Wrong> {
        if at.depth >= JSON_DEPTH_MAX {
            return Err(Wrong::TooDeep);
        }
        let mut fields = Fields(bytes);
        while let Some((number, wire)) = fields.next()? {
            self.count()?;
            match ty.numbered(&format!("{inside}{number}")) {
                Numbered::Unknown => {}
                Numbered::Inline => {
                    let Wire::Bytes(bytes) = wire else { return Err(Wrong::Mismatch) };
                    self.message(ty, &format!("{inside}{number}."), bytes, out, at)?;
                }
                Numbered::Field(field) => {
                    let here = at.below(at.path.f(field.name));
                    if let Err(why) = self.field(&field, wire, out, here) {
                        if self.wrong_at.is_empty() {
                            self.wrong_at = here.path.to_string();
                        }
                        return Err(why);
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts one field into `out`: the last value wins, messages are merged, lists and maps grow.
    fn field(
        &mut self,
        field: &Field<'_>,
        wire: Wire<'_>,
        out: &mut Map<String, Value>,
        at: Place<'_>,
    ) -> Result<(), Wrong> {
        if at.depth >= JSON_DEPTH_MAX {
            return Err(Wrong::TooDeep);
        }
        let value = match field.shape {
            Shape::List(item, _) => {
                let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Some(list) = list.as_array_mut() else { return Err(Wrong::Mismatch) };
                return self.items(item, wire, list, at);
            }
            Shape::Map(item, _) => {
                let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                return self.entry(item, wire, as_map(map), at);
            }
            Shape::Struct(ty, _) => {
                let Wire::Bytes(bytes) = wire else { return Err(Wrong::Mismatch) };
                let mut inner = match out.remove(field.name) {
                    Some(Value::Object(map)) => map,
                    _ => Map::new(),
                };
                self.message(ty, "", bytes, &mut inner, at)?;
                Value::Object(inner)
            }
            shape => self.value(shape, wire, at)?,
        };
        if value.is_null() || !field.keeps_zero && is_zero(&value) {
            out.remove(field.name);
        } else {
            out.insert(field.name.into(), value);
        }
        Ok(())
    }

    /// One item, or many numbers packed into one field.
    fn items(&mut self, item: Inner<'_>, wire: Wire<'_>, list: &mut Vec<Value>, at: Place<'_>) -> Result<(), Wrong> {
        let shape = item.shape();
        if let (Shape::Int32 | Shape::Int64 | Shape::Bool, Wire::Bytes(packed)) = (shape, wire) {
            let mut numbers = Fields(packed);
            while !numbers.0.is_empty() {
                self.count()?;
                let number = Wire::Varint(numbers.varint()?);
                list.push(self.value(shape, number, at)?);
            }
            return Ok(());
        }
        let value = self.value(shape, wire, at.below(at.path.i(list.len())))?;
        list.push(value);
        Ok(())
    }

    /// One entry of a map: key 1, value 2.
    fn entry(
        &mut self,
        item: Inner<'_>,
        wire: Wire<'_>,
        map: &mut Map<String, Value>,
        at: Place<'_>,
    ) -> Result<(), Wrong> {
        let Wire::Bytes(bytes) = wire else { return Err(Wrong::Mismatch) };
        let key = Fields(bytes).text(1)?;
        let shape = item.shape();
        let wire = Fields(bytes).last(2)?.unwrap_or(match shape {
            Shape::Int32 | Shape::Int64 | Shape::Bool => Wire::Varint(0),
            Shape::Float => Wire::Fixed64(0),
            _ => Wire::Bytes(&[]),
        });
        let value = self.value(shape, wire, at.below(at.path.k(&key)))?;
        map.insert(key, value);
        Ok(())
    }

    fn value(&mut self, shape: Shape<'_>, wire: Wire<'_>, at: Place<'_>) -> Result<Value, Wrong> {
        Ok(match (shape, wire) {
            // Go cuts off what is beyond 32 bits.
            (Shape::Int32, Wire::Varint(n)) => (n as i32).into(),
            (Shape::Int64, Wire::Varint(n)) => (n as i64).into(),
            (Shape::Bool, Wire::Varint(n)) => (n != 0).into(),
            (Shape::Float, Wire::Fixed64(n)) => {
                Number::from_f64(f64::from_bits(n)).map(Value::Number).ok_or(Wrong::NotFinite)?
            }
            (Shape::String, Wire::Bytes(b)) => String::from_utf8_lossy(b).into(),
            (Shape::Bytes, Wire::Bytes(b)) => STANDARD.encode(b).into(),
            (Shape::Quantity, Wire::Bytes(b)) => match Fields(b).text(1)? {
                text if text.is_empty() => "0".into(),
                text => text.into(),
            },
            (Shape::Time | Shape::MicroTime, Wire::Bytes(b)) => time(b, matches!(shape, Shape::MicroTime))?,
            (Shape::IntOrString, Wire::Bytes(b)) => int_or_string(Fields(b))?,
            (Shape::Raw, Wire::Bytes(b)) => match Fields(b).bytes(1)? {
                [] => Value::Null,
                raw => parse_json_within(raw, JSON_BYTES_MAX, at.depth).map_err(|_| Wrong::Json)?.value,
            },
            (Shape::Struct(ty, _), Wire::Bytes(b)) => {
                let mut map = Map::new();
                self.message(ty, "", b, &mut map, at)?;
                Value::Object(map)
            }
            // Lists within maps are messages (`ExtraValue`): items 1.
            (Shape::List(item, _), Wire::Bytes(b)) => {
                let (mut list, mut fields) = (Vec::new(), Fields(b));
                while let Some((number, wire)) = fields.next()? {
                    self.count()?;
                    if number == 1 {
                        self.items(item, wire, &mut list, at)?;
                    }
                }
                Value::Array(list)
            }
            _ => return Err(Wrong::Mismatch),
        })
    }
}

/// What `omitempty` leaves out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// Seconds 1, nanoseconds 2; Null for Go's zero time. `Time` has whole seconds.
fn time(bytes: &[u8], micro: bool) -> Result<Value, Wrong> {
    let (seconds, nanos) = (Fields(bytes).number(1)? as i64, Fields(bytes).number(2)? as i32);
    if bytes.is_empty() || seconds == GO_ZERO_TIME {
        return Ok(Value::Null);
    }
    let whole = Time::from_unix(seconds);
    if !micro {
        return Ok(whole.to_string().into());
    }
    let micros = whole.unix_micros().saturating_add(i64::from(nanos / 1000));
    Ok(Time::from_unix_micros(micros).micro().into())
}

/// Type 1 (0: a number), number 2, text 3.
fn int_or_string(fields: Fields<'_>) -> Result<Value, Wrong> {
    if fields.number(1)? == 0 { Ok((fields.number(2)? as i32).into()) } else { Ok(fields.text(3)?.into()) }
}

#[cfg(test)]
mod tests;
