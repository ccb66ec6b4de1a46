//! Label selectors (the object form and the string form) and field selectors.

use crate::tree::Value;

/// Labels as they stand in an object's metadata.
pub type Labels = crate::tree::Map<String, Value>;

#[derive(Clone, PartialEq, Eq, Debug)]
enum Op {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Requirement {
    key: String,
    op: Op,
    values: Vec<String>,
}

/// All requirements must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// Upstream-like message.
#[derive(thiserror::Error, Debug, PartialEq, Eq, Clone)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl LabelSelector {
    /// `?labelSelector=`: `a=b,c!=d,e in (f,g),h notin (i),j,!k`
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        unimplemented!()
    }
    /// `{matchLabels, matchExpressions}`: null selects nothing, `{}` everything (as upstream's `LabelSelectorAsSelector`).
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        let _ = selector;
        unimplemented!()
    }
    /// A map of equalities (Service, ReplicationController, nodeSelector): empty selects everything.
    pub fn from_map(map: &Labels) -> Self {
        let _ = map;
        unimplemented!()
    }
    /// One nodeSelectorTerm's matchExpressions (adds Gt, Lt).
    pub fn from_expressions(expressions: &[Value]) -> Result<Self, SelectorError> {
        let _ = expressions;
        unimplemented!()
    }
    pub fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        let _ = labels;
        unimplemented!()
    }
    /// By `metadata.labels`.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(crate::meta::labels(object))
    }
}

/// `?fieldSelector=`: `metadata.name=x,spec.nodeName!=y`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldSelector {
    requirements: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Which fields a kind allows is upstream's list: see [`FieldSelector::unsupported`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        unimplemented!()
    }
    /// The first field that the kind cannot be selected by.
    pub fn unsupported(&self, kind: &crate::kind::Kind) -> Option<&str> {
        let _ = kind;
        unimplemented!()
    }
    /// The value `field` must have, if the selector says one (to turn `metadata.name=x` into a get, `spec.nodeName=x` into an index).
    pub fn exact(&self, field: &str) -> Option<&str> {
        let _ = field;
        unimplemented!()
    }
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
    pub fn matches(&self, object: &Value) -> bool {
        let _ = object;
        unimplemented!()
    }
}
impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = f;
        unimplemented!()
    }
}
