//! Sets of fields: FieldsV1 (`{"f:spec": {"f:replicas": {}}}`), how they are read off an object, and what may be done with them.
//!
//! Steps are kept as FieldsV1 writes them: `f:name` a field or key, `k:{"name":"a"}` an item by its keys, `v:"x"` an item by its value.

use std::collections::BTreeMap;

use crate::schema::{ListRules, Shape};
use crate::tree::{JSON_DEPTH_MAX, Map, Value};

/// A set of fields, as a tree of steps.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct Fields(BTreeMap<String, Node>);

#[derive(Clone, Default, PartialEq, Debug)]
struct Node {
    /// The field itself belongs to the set, not only what is below it.
    member: bool,
    below: Fields,
}

/// Never owned: they say which object it is, or are the server's.
const NOBODYS: &[&str] =
    &["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"];

/// The step to an item of a keyed list or set.
pub(super) fn key_of(item: &Value, rules: ListRules<'_>) -> String {
    if rules.set {
        return format!("v:{item}");
    }
    let keys: Map<String, Value> = rules
        .map_keys
        .split(',')
        .filter_map(|key| match item.get(key) {
            Some(value) => Some((key.to_string(), value.clone())),
            // Upstream's schema gives this key a default.
            None if key == "protocol" => Some((key.to_string(), Value::from("TCP"))),
            None => None,
        })
        .collect();
    format!("k:{}", Value::Object(keys))
}

/// One step down from a value. Items are found by their keys, so the step alone says how.
fn step<'a>(value: &'a Value, by: &str) -> Option<&'a Value> {
    match (by.split_at_checked(2)?, value) {
        (("f:", name), Value::Object(map)) => map.get(name),
        (("k:" | "v:", _), Value::Array(list)) => list.iter().find(|item| is_item(item, by)),
        _ => None,
    }
}

fn is_item(item: &Value, by: &str) -> bool {
    match by.split_at_checked(2) {
        Some(("v:", text)) => serde_json::from_str::<Value>(text).is_ok_and(|v| v == *item),
        Some(("k:", text)) => match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(keys)) => {
                keys.iter().all(|(k, v)| item.get(k).map_or(k == "protocol" && v == "TCP", |have| have == v))
            }
            _ => false,
        },
        _ => false,
    }
}

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All fields of an object that somebody may own.
    pub(super) fn of_object(object: &Value, shape: Shape<'_>) -> Fields {
        let mut fields = Fields::default();
        fields.collect(object, shape, 0);
        fields.0.retain(|step, _| step != "f:apiVersion" && step != "f:kind");
        if let Some(meta) = fields.0.get_mut("f:metadata") {
            meta.below.0.retain(|step, _| !NOBODYS.iter().any(|n| step.strip_prefix("f:") == Some(n)));
            meta.member = false;
            if meta.below.is_empty() {
                fields.0.remove("f:metadata");
            }
        }
        fields
    }

    /// Adds what stands in `value`; returns whether it is one whole that the level above has to count as a member.
    fn collect(&mut self, value: &Value, shape: Shape<'_>, depth: usize) -> bool {
        if depth > JSON_DEPTH_MAX {
            return true;
        }
        match (value, shape) {
            (Value::Object(map), Shape::Struct(_, false) | Shape::Map(_, false) | Shape::Raw) => {
                for (key, item) in map {
                    let mut node = Node::default();
                    let whole = node.below.collect(item, shape.child(key).unwrap_or(Shape::Raw), depth + 1);
                    node.member = whole || matches!(shape, Shape::Map(..));
                    if node.member || !node.below.is_empty() {
                        self.0.insert(format!("f:{key}"), node);
                    }
                }
                map.is_empty()
            }
            (Value::Array(list), Shape::List(inner, rules)) if rules.set || !rules.map_keys.is_empty() => {
                for item in list {
                    let mut node = Node { member: true, below: Fields::default() };
                    if !rules.set {
                        node.below.collect(item, inner.shape(), depth + 1);
                    }
                    self.0.insert(key_of(item, rules), node);
                }
                false
            }
            _ => true,
        }
    }

    /// Reads FieldsV1; what is no such set reads as nothing.
    pub(super) fn from_v1(value: &Value) -> Fields {
        let mut fields = Fields::default();
        for (step, below) in value.as_object().into_iter().flatten() {
            if step == "." {
                continue;
            }
            let inner = below.as_object();
            let member = inner.is_none_or(|m| m.is_empty() || m.contains_key("."));
            fields.0.insert(step.clone(), Node { member, below: Fields::from_v1(below) });
        }
        fields
    }

    pub(super) fn to_v1(&self) -> Value {
        let one = |(step, node): (&String, &Node)| {
            let mut below = node.below.to_v1();
            if node.member && !node.below.is_empty() {
                crate::tree::set(&mut below, &["."], Value::Object(Map::new()));
            }
            (step.clone(), below)
        };
        Value::Object(self.0.iter().map(one).collect())
    }

    /// The members of both.
    pub(super) fn common(&self, other: &Fields) -> Fields {
        let one = |(step, node): (&String, &Node)| {
            let theirs = other.0.get(step)?;
            let both = Node { member: node.member && theirs.member, below: node.below.common(&theirs.below) };
            (both.member || !both.below.is_empty()).then(|| (step.clone(), both))
        };
        Fields(self.0.iter().filter_map(one).collect())
    }

    /// The members of `self` that are none of `other`.
    pub(super) fn minus(&self, other: &Fields) -> Fields {
        let one = |(step, node): (&String, &Node)| {
            let rest = match other.0.get(step) {
                None => node.clone(),
                Some(theirs) => Node { member: node.member && !theirs.member, below: node.below.minus(&theirs.below) },
            };
            (rest.member || !rest.below.is_empty()).then(|| (step.clone(), rest))
        };
        Fields(self.0.iter().filter_map(one).collect())
    }

    pub(super) fn join(&mut self, other: &Fields) {
        for (step, theirs) in &other.0 {
            let node = self.0.entry(step.clone()).or_default();
            node.member |= theirs.member;
            node.below.join(&theirs.below);
        }
    }

    /// Every member as a path: `.spec.containers[name="a"].image`
    pub(super) fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.write_paths("", &mut all);
        all
    }

    fn write_paths(&self, above: &str, all: &mut Vec<String>) {
        for (step, node) in &self.0 {
            let here = format!("{above}{}", step_text(step));
            node.below.write_paths(&here, all);
            if node.member {
                all.push(here);
            }
        }
    }
}

fn step_text(step: &str) -> String {
    match step.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("k:", keys)) => match serde_json::from_str::<Value>(keys) {
            Ok(Value::Object(map)) => {
                format!("[{}]", map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","))
            }
            _ => format!("[{keys}]"),
        },
        _ => step.to_string(),
    }
}

/// The fields of `fields` (those of `after`) that are new or have another value than in `before`.
pub(super) fn changed(fields: &Fields, before: Option<&Value>, after: &Value) -> Fields {
    let one = |(by, node): (&String, &Node)| {
        let (had, has) = (before.and_then(|b| step(b, by)), step(after, by)?);
        let result = if node.below.is_empty() {
            Node { member: had != Some(has), below: Fields::default() }
        } else {
            Node { member: node.member && had.is_none(), below: changed(&node.below, had, has) }
        };
        (result.member || !result.below.is_empty()).then(|| (by.clone(), result))
    };
    Fields(fields.0.iter().filter_map(one).collect())
}

/// Takes the members of `last` out of `value` that are in none of `keep`, nor above something that is.
pub(super) fn prune(value: &mut Value, shape: Shape<'_>, last: &Fields, keep: &[&Fields]) {
    for (by, node) in &last.0 {
        let kept: Vec<&Node> = keep.iter().filter_map(|k| k.0.get(by)).collect();
        if node.member && kept.is_empty() {
            take(value, by);
            continue;
        }
        let below: Vec<&Fields> = kept.iter().map(|k| &k.below).collect();
        let child = match by.strip_prefix("f:") {
            Some(name) => value.as_object_mut().and_then(|m| m.get_mut(name)).zip(shape.child(name)),
            None => value.as_array_mut().and_then(|l| l.iter_mut().find(|i| is_item(i, by))).zip(shape.item()),
        };
        if let Some((child, shape)) = child {
            prune(child, shape, &node.below, &below);
        }
    }
}

fn take(value: &mut Value, by: &str) {
    match (by.strip_prefix("f:"), value) {
        (Some(name), Value::Object(map)) => {
            map.remove(name);
        }
        (None, Value::Array(list)) => list.retain(|item| !is_item(item, by)),
        _ => {}
    }
}
