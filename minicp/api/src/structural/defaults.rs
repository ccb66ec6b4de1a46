//! Defaults of a structural schema.

use super::Node;
use crate::tree::Value;

/// Fills in what the writer left out. A null where none may stand and a default is known counts as left out.
pub fn fill(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, below) in node.properties().filter(|(name, _)| !node.is_meta(name)) {
                if let Some(default) = below.default()
                    && !map.contains_key(name)
                {
                    map.insert(name.into(), default.clone());
                }
            }
            for (key, value) in map.iter_mut().filter(|(key, _)| !node.is_meta(key)) {
                if let Some(below) = node.field(key) {
                    fill_one(below, value);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                list.iter_mut().for_each(|item| fill_one(items, item));
            }
        }
        _ => {}
    }
}

fn fill_one(node: &Node, value: &mut Value) {
    if value.is_null()
        && !node.nullable
        && let Some(default) = node.default()
    {
        *value = default.clone();
    }
    fill(node, value);
}
