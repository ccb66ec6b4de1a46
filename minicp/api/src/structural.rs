//! Structural schemas: what a CustomResourceDefinition says about its objects, read once into a compact tree.
//!
//! [`crate::schema::Shape`] is made of these nodes just as of the built-in table, so that apply, fields and patches have one path for all kinds.
//! What the table has no words for is done here: pruning, defaults and value rules. A [`Node`] was read from a schema that
//! [`crate::crd`] has found to be structural; descriptions are not kept (OpenAPI reads them from the stored definition).

mod defaults;
mod format;
pub mod pattern;
mod prune;
mod validate;

use crate::tree::{Value, as_i64, at, bool_at, list_at, map_at, str_at};
use pattern::Pattern;

pub use defaults::fill;
pub use prune::prune;
pub use validate::{type_name, validate, violations};

/// Fields, items and alternatives of one version's schema.
pub const NODES_MAX: usize = 20_000;

/// What a value must be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ty {
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

/// `x-kubernetes-list-type`
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// The schema of one value.
pub struct Node {
    pub ty: Ty,
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve: bool,
    /// A whole object inside: apiVersion, kind and metadata are as everywhere. So is the root.
    pub embedded: bool,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
    pub list: ListType,
    /// `x-kubernetes-list-map-keys`, separated by commas
    pub map_keys: Box<str>,
    /// Sorted by name.
    properties: Box<[(Box<str>, Node)]>,
    /// `items`
    pub items: Option<Box<Node>>,
    /// `additionalProperties`; `true` is a node that preserves everything
    pub additional: Option<Box<Node>>,
    default: Option<Box<Value>>,
    rules: Option<Box<Rules>>,
    /// Whether there are whole objects below.
    pub(crate) has_embedded: bool,
}

/// What a value must be beyond its type.
#[derive(Default)]
struct Rules {
    required: Box<[Box<str>]>,
    one_of_values: Box<[Value]>,
    minimum: Option<(f64, bool)>,
    maximum: Option<(f64, bool)>,
    multiple_of: Option<f64>,
    length: Bounds,
    items: Bounds,
    properties: Bounds,
    pattern: Option<Pattern>,
    format: Box<str>,
    all_of: Box<[Node]>,
    any_of: Box<[Node]>,
    one_of: Box<[Node]>,
    not: Option<Box<Node>>,
}

/// How many there may be; 0 and the largest number say nothing.
#[derive(Clone, Copy)]
struct Bounds {
    least: u32,
    most: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { least: 0, most: u32::MAX }
    }
}

impl Bounds {
    fn too_few(self, n: usize) -> bool {
        n < self.least as usize
    }
    fn too_many(self, n: usize) -> bool {
        self.most != u32::MAX && n > self.most as usize
    }
    fn speaks(self) -> bool {
        self.least > 0 || self.most != u32::MAX
    }
}

/// Why a schema cannot be used.
#[derive(thiserror::Error, Debug)]
pub enum SchemaError {
    #[error("more than {NODES_MAX} fields, items and alternatives")]
    TooLarge,
    #[error("pattern {0:?}: {1}")]
    Pattern(String, pattern::PatternError),
}

impl Node {
    /// Reads the `openAPIV3Schema` of a version.
    pub fn of_schema(schema: &Value) -> Result<Node, SchemaError> {
        Reader { left: NODES_MAX, at_root: true }.node(schema)
    }

    /// The schema of a named field that the author wrote down.
    pub fn property(&self, name: &str) -> Option<&Node> {
        self.named(name).map(|(_, node)| node)
    }
    /// The same with the name as the schema holds it.
    pub fn named(&self, name: &str) -> Option<(&str, &Node)> {
        let i = self.properties.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        self.properties.get(i).map(|(n, node)| (&**n, node))
    }
    pub fn properties(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.properties.iter().map(|(n, node)| (&**n, node))
    }
    /// The schema of a field: named, or one of the free ones.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.property(name).or(self.additional.as_deref())
    }
    /// Names of fields that must be there.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().flat_map(|r| r.required.iter().map(|n| &**n))
    }
    /// Whether `name` is one of the fields that every whole object has.
    pub fn is_meta(&self, name: &str) -> bool {
        self.embedded && matches!(name, "apiVersion" | "kind" | "metadata")
    }
    /// "" where there is none.
    pub(crate) fn format(&self) -> &str {
        self.rules.as_ref().map_or("", |r| &r.format)
    }
    pub fn default(&self) -> Option<&Value> {
        self.default.as_deref()
    }
}

struct Reader {
    left: usize,
    /// The next node is the root.
    at_root: bool,
}

impl Reader {
    fn node(&mut self, schema: &Value) -> Result<Node, SchemaError> {
        self.left = self.left.checked_sub(1).ok_or(SchemaError::TooLarge)?;
        let flag = |name: &str| bool_at(schema, &[name]) == Some(true);
        let embedded = std::mem::take(&mut self.at_root) || flag("x-kubernetes-embedded-resource");
        let mut properties = Vec::new();
        for (name, below) in map_at(schema, &["properties"]).into_iter().flatten() {
            properties.push((name.as_str().into(), self.node(below)?));
        }
        // A map of serde_json is sorted unless a feature of it says otherwise.
        properties.sort_by(|a: &(Box<str>, Node), b| a.0.cmp(&b.0));
        let additional = match at(schema, &["additionalProperties"]) {
            Some(Value::Bool(true)) => Some(Box::new(self.node(&open())?)),
            Some(below @ Value::Object(_)) => Some(Box::new(self.node(below)?)),
            _ => None,
        };
        let items = match at(schema, &["items"]) {
            Some(below @ Value::Object(_)) => Some(Box::new(self.node(below)?)),
            _ => None,
        };
        let keys: Vec<&str> =
            list_at(schema, &["x-kubernetes-list-map-keys"]).iter().filter_map(Value::as_str).collect();
        let mut below = properties.iter().map(|(_, node)| node).chain(items.as_deref()).chain(additional.as_deref());
        let has_embedded = below.any(|node| node.embedded || node.has_embedded);
        Ok(Node {
            ty: ty_of(schema),
            nullable: flag("nullable"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded,
            atomic: str_at(schema, &["x-kubernetes-map-type"]) == "atomic",
            list: match str_at(schema, &["x-kubernetes-list-type"]) {
                "set" => ListType::Set,
                "map" => ListType::Map,
                _ => ListType::Atomic,
            },
            map_keys: keys.join(",").into(),
            properties: properties.into(),
            items,
            additional,
            default: at(schema, &["default"]).filter(|d| !d.is_null()).cloned().map(Box::new),
            rules: self.rules(schema)?,
            has_embedded,
        })
    }

    fn nodes(&mut self, list: &[Value]) -> Result<Box<[Node]>, SchemaError> {
        list.iter().map(|schema| self.node(schema)).collect()
    }

    fn rules(&mut self, schema: &Value) -> Result<Option<Box<Rules>>, SchemaError> {
        const ANY: &[&str] = &[
            "required",
            "enum",
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "pattern",
            "format",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !ANY.iter().any(|name| schema.get(*name).is_some()) {
            return Ok(None);
        }
        let count = |name: &str| at(schema, &[name]).and_then(as_i64).and_then(|n| u32::try_from(n).ok());
        let bounds = |least, most| Bounds { least: count(least).unwrap_or(0), most: count(most).unwrap_or(u32::MAX) };
        let number = |name: &str| at(schema, &[name]).and_then(Value::as_f64);
        let flag = |name: &str| bool_at(schema, &[name]) == Some(true);
        let pattern = match str_at(schema, &["pattern"]) {
            "" => None,
            text => Some(Pattern::new(text).map_err(|e| SchemaError::Pattern(text.into(), e))?),
        };
        let names = list_at(schema, &["required"]).iter().filter_map(Value::as_str);
        // The type says as much, and nothing is told twice.
        let either = ty_of(schema) == Ty::IntOrString;
        Ok(Some(Box::new(Rules {
            required: names.map(Into::into).collect(),
            one_of_values: list_at(schema, &["enum"]).into(),
            minimum: number("minimum").map(|n| (n, flag("exclusiveMinimum"))),
            maximum: number("maximum").map(|n| (n, flag("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            length: bounds("minLength", "maxLength"),
            items: bounds("minItems", "maxItems"),
            properties: bounds("minProperties", "maxProperties"),
            pattern,
            format: str_at(schema, &["format"]).into(),
            all_of: if either { Box::default() } else { self.nodes(list_at(schema, &["allOf"]))? },
            any_of: if either { Box::default() } else { self.nodes(list_at(schema, &["anyOf"]))? },
            one_of: self.nodes(list_at(schema, &["oneOf"]))?,
            not: schema.get("not").filter(|n| n.is_object()).map(|n| self.node(n).map(Box::new)).transpose()?,
        })))
    }
}

fn open() -> Value {
    crate::tree::json!({"x-kubernetes-preserve-unknown-fields": true})
}

fn ty_of(schema: &Value) -> Ty {
    match str_at(schema, &["type"]) {
        _ if bool_at(schema, &["x-kubernetes-int-or-string"]) == Some(true) => Ty::IntOrString,
        "object" => Ty::Object,
        "array" => Ty::Array,
        "string" => Ty::String,
        "integer" => Ty::Integer,
        "number" => Ty::Number,
        "boolean" => Ty::Boolean,
        _ => Ty::Any,
    }
}

#[cfg(test)]
mod tests;
