//! What a kind that was defined at run time has beyond its names.

use crate::jsonpath::JsonPath;
use crate::rules::Rules;
use crate::structural::Node;
use crate::tree::Value;

/// One served version of a CustomResourceDefinition.
pub struct Custom {
    pub schema: Node,
    /// What its author demands beyond it.
    pub rules: Option<Rules>,
    pub columns: Vec<Column>,
    /// Fields that selectors may name: `spec.color`
    pub selectable: Vec<String>,
    pub scale: Option<Scale>,
    /// The store's revision of the definition: an object written later was written by this schema.
    pub since: u64,
    /// Of this state of this definition, for caches.
    pub mark: u64,
    /// Whether no other version is served: then what was stored since is as this version shows it.
    pub alone: bool,
    /// The definition is being deleted: nothing new is made.
    pub terminating: bool,
    /// Told to everybody who uses the version.
    pub deprecated: Option<String>,
}

/// `additionalPrinterColumns`
pub struct Column {
    pub name: String,
    pub ty: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub path: JsonPath,
}

/// `subresources.scale`: where the numbers are.
pub struct Scale {
    pub replicas: Vec<String>,
    pub status: Vec<String>,
    /// A text, not a LabelSelector object.
    pub selector: Option<Vec<String>>,
}

impl Custom {
    /// Whether stored bytes may be older than the schema, or another version's: they are then pruned and filled in when read.
    pub fn stale(&self, modified: u64) -> bool {
        !self.alone || modified <= self.since
    }
    /// Brings an object that was stored under another schema into the form of this one.
    pub fn refresh(&self, object: &mut Value) {
        crate::structural::prune(&self.schema, object);
        crate::structural::fill(&self.schema, object);
    }
}
