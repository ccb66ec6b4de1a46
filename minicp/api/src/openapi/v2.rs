//! `/openapi/v2` as kubectl reads it: protobuf `openapi.v2.Document` (the message definitions of google/gnostic `openapiv2/OpenAPIv2.proto`).

use crate::kind::Kind;
use crate::tree::{Map, Value, json, str_at};

/// What clients are told to expect.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A document that is written definition by definition.
pub struct Document {
    definitions: Message,
    paths: Message,
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

impl Document {
    pub fn new() -> Document {
        Document { definitions: Message::default(), paths: Message::default() }
    }
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.definitions.0.len() + self.paths.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn define(&mut self, name: &str, schema: &Value) {
        self.definitions.message(1, &named(name, &schema_message(schema)));
    }
    /// The PATCH of a kind: its parameters tell clients that the server validates, and that it can run dry.
    pub fn patch_of(&mut self, kind: &Kind, path: &str) {
        let mut operation = Message::default();
        for (name, ty) in PARAMETERS {
            operation.message(8, &query_parameter(name, ty));
        }
        operation.message(13, &extension("x-kubernetes-action", &json!("patch")));
        operation.message(13, &extension("x-kubernetes-group-version-kind", &super::gvk(kind)));
        let mut item = Message::default();
        item.message(8, &operation);
        self.paths.message(2, &named(path, &item));
    }
    pub fn finish(self) -> Vec<u8> {
        let mut info = Message::default();
        info.text(1, "Kubernetes");
        info.text(2, "v1.36.0");
        let mut all = Message::default();
        all.text(1, "2.0");
        all.message(2, &info);
        all.message(8, &self.paths);
        all.message(9, &self.definitions);
        all.0
    }
}

/// Query parameters of writes.
pub const PARAMETERS: [(&str, &str); 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];

/// A message as it is written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push((n as u8 & 0x7f) | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }
    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }
    fn text(&mut self, field: u64, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }
    fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }
}

/// NamedSchema, NamedPathItem, NamedAny
fn named(name: &str, value: &Message) -> Message {
    let mut out = Message::default();
    out.text(1, name);
    out.message(2, value);
    out
}

/// Any, as YAML: JSON is that too.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(2, &value.to_string());
    out
}

fn extension(name: &str, value: &Value) -> Message {
    named(name, &any(value))
}

/// ParametersItem { parameter: Parameter { non_body: NonBody { query } } }
fn query_parameter(name: &str, ty: &str) -> Message {
    let mut query = Message::default();
    query.text(2, "query");
    query.text(4, name);
    query.text(6, ty);
    [3, 2, 1].into_iter().fold(query, |inner, field| {
        let mut out = Message::default();
        out.message(field, &inner);
        out
    })
}

fn schema_message(schema: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, str_at(schema, &["$ref"]));
    out.text(2, str_at(schema, &["format"]));
    out.text(3, str_at(schema, &["title"]));
    out.text(4, str_at(schema, &["description"]));
    out.text(13, str_at(schema, &["pattern"]));
    for name in crate::tree::list_at(schema, &["required"]).iter().filter_map(Value::as_str) {
        out.text(19, name);
    }
    for value in crate::tree::list_at(schema, &["enum"]) {
        out.message(20, &any(value));
    }
    if let Some(free) = schema.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, &schema_message(free));
        out.message(21, &item);
    }
    let ty = str_at(schema, &["type"]);
    if !ty.is_empty() {
        let mut item = Message::default();
        item.text(1, ty);
        out.message(22, &item);
    }
    if let Some(items) = schema.get("items") {
        let mut item = Message::default();
        item.message(1, &schema_message(items));
        out.message(23, &item);
    }
    if let Some(Value::Object(properties)) = schema.get("properties") {
        out.message(25, &properties_message(properties));
    }
    for (name, value) in schema.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        out.message(31, &extension(name, value));
    }
    out
}

fn properties_message(properties: &Map<String, Value>) -> Message {
    let mut out = Message::default();
    for (name, schema) in properties {
        out.message(1, &named(name, &schema_message(schema)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_tells_its_parameters() {
        let registry = crate::kind::Registry::builtin();
        let mut document = Document::new();
        document.patch_of(registry.find("pods").unwrap(), "/x");
        let found = document.finish();
        // ParametersItem (8) { parameter (1) { non_body (2) { query (3) { in (2) name (4) type (6) } } } }
        let dry = b"\x42\x1d\x0a\x1b\x12\x19\x1a\x17\x12\x05query\x22\x06dryRun\x32\x06string";
        assert!(found.windows(dry.len()).any(|w| w == dry));
    }

    #[test]
    fn bytes_are_those_of_the_message() {
        let mut document = Document::new();
        document.define("A", &json!({"type": "object", "properties": {"b": {"$ref": "#/definitions/B"}}}));
        // Worked out by hand from the proto file: definitions (9) { additional_properties (1) { name "A" value { type properties } } }
        let schema = b"\xb2\x01\x08\x0a\x06object\xca\x01\x18\x0a\x16\x0a\x01b\x12\x11\x0a\x0f#/definitions/B";
        let want = [
            b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.0\x42\x00\x4a\x2d\x0a\x2b\x0a\x01A\x12\x26".as_slice(),
            schema,
        ]
        .concat();
        assert_eq!(document.finish(), want);
    }
}
