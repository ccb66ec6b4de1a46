//! Bodies in Kubernetes' protobuf, read into trees. kubectl 1.32 and later sends what its typed commands make (`create namespace`, `auth can-i`, ...) in
//! it; answers are always JSON, which every client takes. Types come from the schema table, field numbers from `protobuf.txt`.
//!
//! Wire format: protobuf encoding guide; envelope: the magic `k8s\0`, then `runtime.Unknown` (typeMeta 1, raw 2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mote_api::schema::{self, Shape, Type};
use mote_api::time::Time;
use mote_api::tree::{JSON_DEPTH_MAX, Map, Value, json};

const NUMBERS: &str = include_str!("protobuf.txt");
const MAGIC: &[u8] = b"k8s\0";
/// Fields of one body.
const FIELDS_MAX: usize = 200_000;

/// Numbers and booleans that mean something when they are 0 or false: pointers in Go. All others are always sent, and JSON leaves them out.
const ZERO_IS_SAID: [&str; 35] = [
    "activeDeadlineSeconds",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "backoffLimit",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "maxSurge",
    "maxUnavailable",
    "minAvailable",
    "mode",
    "optional",
    "orphanDependents",
    "parallelism",
    "partition",
    "privileged",
    "readOnlyRootFilesystem",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
];

/// One field of a message.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }
    /// Some(None) at the end, None if malformed.
    fn next(&mut self) -> Option<Option<(u64, Wire<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().ok()?))),
            _ => return None,
        };
        Some(Some((tag >> 3, wire)))
    }
    /// The last field of a number, as bytes.
    fn find(mut self, number: u64) -> Option<&'a [u8]> {
        let mut found = None;
        while let Some(Some((n, wire))) = self.next() {
            if let (true, Wire::Bytes(bytes)) = (n == number, wire) {
                found = Some(bytes);
            }
        }
        found
    }
}

/// A body; None if it is malformed or of a type that is not known.
pub(super) fn decode(body: &[u8]) -> Option<Value> {
    let unknown = body.strip_prefix(MAGIC)?;
    let meta = Fields(unknown).find(1)?;
    let text = |number| String::from_utf8_lossy(Fields(meta).find(number).unwrap_or_default()).into_owned();
    let (api_version, kind) = (text(1), text(2));
    let ty = schema::find(&format!("{api_version}.{kind}")).or_else(|| schema::find(&format!("meta/v1.{kind}")))?;
    let mut object = Map::new();
    let mut left = FIELDS_MAX;
    message(ty, ty.name, Fields(unknown).find(2).unwrap_or_default(), &mut object, 0, &mut left)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Some(Value::Object(object))
}

fn row(name: &str) -> Option<&'static str> {
    NUMBERS.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))
}

/// Decodes the fields that `row_name` numbers, of type `ty`, into `out`.
fn message(
    ty: Type<'static>,
    row_name: &str,
    bytes: &[u8],
    out: &mut Map<String, Value>,
    depth: usize,
    left: &mut usize,
) -> Option<()> {
    if depth > JSON_DEPTH_MAX {
        return None;
    }
    let row = row(row_name)?;
    let mut fields = Fields(bytes);
    while let Some((number, wire)) = fields.next()? {
        *left = left.checked_sub(1)?;
        let name =
            row.split(' ').find_map(|f| f.split_once('=').filter(|(_, n)| n.parse() == Ok(number)).map(|(n, _)| n));
        let Some(name) = name else { continue };
        if let Some(inline) = name.strip_prefix('*') {
            let Wire::Bytes(bytes) = wire else { return None };
            let home = row_name.rsplit_once('.')?.0;
            message(ty, &format!("{home}.{inline}"), bytes, out, depth + 1, left)?;
            continue;
        }
        let Some(field) = ty.field(name) else { continue };
        match field.shape {
            Shape::List(item, _) => {
                let value = scalar(item.shape(), wire, depth, left)?;
                let list = out.entry(name).or_insert_with(|| json!([]));
                list.as_array_mut()?.push(value);
            }
            Shape::Map(item, _) => {
                let Wire::Bytes(entry) = wire else { return None };
                let key = String::from_utf8(Fields(entry).find(1).unwrap_or_default().into()).ok()?;
                let value = scalar(item.shape(), Wire::Bytes(Fields(entry).find(2).unwrap_or_default()), depth, left)?;
                out.entry(name).or_insert_with(|| json!({})).as_object_mut()?.insert(key, value);
            }
            shape => {
                let value = scalar(shape, wire, depth, left)?;
                // Fields that are no pointers in Go are always sent, and JSON leaves them out when they are empty.
                let unset = (value == 0 || value == false) && !ZERO_IS_SAID.contains(&name);
                if !(value == "" || value.is_null() || unset) {
                    out.insert(name.into(), value);
                }
            }
        }
    }
    Some(())
}

fn scalar(shape: Shape<'static>, wire: Wire<'_>, depth: usize, left: &mut usize) -> Option<Value> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.into()).ok();
    Some(match (shape, wire) {
        (Shape::Int32 | Shape::Int64, Wire::Number(n)) => json!(n as i64),
        (Shape::Bool, Wire::Number(n)) => json!(n != 0),
        (Shape::Float, Wire::Number(n)) => json!(f64::from_bits(n)),
        (Shape::String, Wire::Bytes(b)) => text(b)?.into(),
        (Shape::Bytes, Wire::Bytes(b)) => STANDARD.encode(b).into(),
        (Shape::Quantity, Wire::Bytes(b)) => text(Fields(b).find(1).unwrap_or_default())?.into(),
        (Shape::Time | Shape::MicroTime, Wire::Bytes(b)) => {
            let (mut seconds, mut nanos, mut fields) = (None, 0, Fields(b));
            while let Some((number, Wire::Number(n))) = fields.next()? {
                match number {
                    1 => seconds = Some(n as i64),
                    _ => nanos = n as i64,
                }
            }
            match (seconds, shape) {
                (None, _) => Value::Null,
                (Some(s), Shape::Time) => Time::from_unix(s).to_string().into(),
                (Some(s), _) => {
                    Time::from_unix_micros(s.checked_mul(1_000_000)?.checked_add(nanos / 1000)?).micro().into()
                }
            }
        }
        (Shape::IntOrString, Wire::Bytes(b)) => {
            let (mut ty, mut int, mut fields) = (0, 0, Fields(b));
            while let Some((number, wire)) = fields.next()? {
                match (number, wire) {
                    (1, Wire::Number(n)) => ty = n,
                    (2, Wire::Number(n)) => int = n as i64,
                    _ => {}
                }
            }
            if ty == 0 { json!(int) } else { text(Fields(b).find(3).unwrap_or_default())?.into() }
        }
        // FieldsV1 and RawExtension: JSON inside.
        (Shape::Raw, Wire::Bytes(b)) => {
            serde_json::from_slice(Fields(b).find(1).unwrap_or_default()).unwrap_or(Value::Null)
        }
        (Shape::Struct(ty, _), Wire::Bytes(b)) => {
            let mut object = Map::new();
            message(ty, ty.name, b, &mut object, depth + 1, left)?;
            Value::Object(object)
        }
        // A map of lists has a message in between: `items = 1`.
        (Shape::List(item, _), Wire::Bytes(b)) => {
            let (mut list, mut fields) = (Vec::new(), Fields(b));
            while let Some((_, wire)) = fields.next()? {
                list.push(scalar(item.shape(), wire, depth + 1, left)?);
            }
            Value::Array(list)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn reads_what_kubectl_sends() {
        let meta = [field(1, b"t"), field(8, &[]), field(11, &[field(1, b"a"), field(2, b"b")].concat())].concat();
        let raw = [field(1, &meta), field(2, &[]), field(3, &field(1, b""))].concat();
        let want = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "t", "labels": {"a": "b"}}, "spec": {}, "status": {}});
        assert_eq!(decode(&body("v1", "Namespace", &raw)), Some(want));
        let secret =
            [field(1, &field(1, b"s")), field(2, &[field(1, b"k"), field(2, b"v")].concat()), field(3, b"Opaque")]
                .concat();
        let want = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "dg=="}, "type": "Opaque"});
        assert_eq!(decode(&body("v1", "Secret", &secret)), Some(want));
        let options = decode(&body("v1", "DeleteOptions", &[8, 5, 18, 3, 10, 1, b'u']));
        assert_eq!(
            options,
            Some(
                json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 5, "preconditions": {"uid": "u"}})
            )
        );
        assert_eq!(decode(b"{}"), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_no_harm(raw in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode(&body("v1", "Pod", &raw));
        }
    }
}
