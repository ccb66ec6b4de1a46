//! Pruning: what the schema does not name goes, and is told.

use super::{ListType, Node};
use crate::tree::{Map, Value};

/// Paths told to the client.
const UNKNOWN_MAX: usize = 100;

/// Takes away the fields that `node` does not know and returns their paths (`spec.x[0].y`). Keys of lists that are maps get their defaults here, since
/// apply finds items by them. Metadata of the object itself is not looked at: it has a type of its own.
pub fn prune(node: &Node, value: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), unknown: Vec::new() };
    pruner.value(node, value);
    pruner.unknown
}

struct Pruner {
    path: String,
    unknown: Vec<String>,
}

impl Pruner {
    fn within(&mut self, step: &str, body: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        body(self);
        self.path.truncate(length);
    }

    fn value(&mut self, node: &Node, value: &mut Value) {
        match value {
            Value::Object(map) => self.map(node, map),
            Value::Array(list) => {
                let Some(items) = &node.items else { return };
                for (i, item) in list.iter_mut().enumerate() {
                    if node.list == ListType::Map {
                        fill_keys(items, &node.map_keys, item);
                    }
                    self.within(&format!("[{i}]"), |p| p.value(items, item));
                }
            }
            _ => {}
        }
    }

    fn map(&mut self, node: &Node, map: &mut Map<String, Value>) {
        let mut gone = Vec::new();
        for (key, value) in map.iter_mut() {
            // Metadata of the root and of embedded objects is checked by its own type.
            if node.is_meta(key) {
                continue;
            }
            match node.field(key) {
                Some(below) => self.within(key, |p| p.value(below, value)),
                None if node.preserve => {}
                None => gone.push(key.clone()),
            }
        }
        for key in gone {
            map.remove(&key);
            if self.unknown.len() < UNKNOWN_MAX {
                self.within(&key, |p| p.unknown.push(p.path.clone()));
            }
        }
    }
}

fn fill_keys(items: &Node, keys: &str, item: &mut Value) {
    let Some(map) = item.as_object_mut() else { return };
    for key in keys.split(',').filter(|k| !k.is_empty()) {
        if let Some(default) = items.property(key).and_then(Node::default)
            && !map.contains_key(key)
        {
            map.insert(key.into(), default.clone());
        }
    }
}
