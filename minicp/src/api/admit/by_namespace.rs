//! The objects of one kind by namespace, as a mirror of the store: for LimitRanges and ResourceQuotas, which are few and asked for at every create.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use mote_api::tree::Value;

use crate::mirror::Form;

#[derive(Default)]
pub(crate) struct ByNamespace(HashMap<Box<str>, BTreeMap<Box<str>, Rc<Value>>>);

impl ByNamespace {
    /// In the order of their names.
    pub(crate) fn of(&self, ns: &str) -> Vec<Rc<Value>> {
        self.0.get(ns).map_or_else(Vec::new, |m| m.values().cloned().collect())
    }
    pub(crate) fn has_any(&self) -> bool {
        !self.0.is_empty()
    }
    pub(crate) fn has(&self, ns: &str) -> bool {
        self.0.contains_key(ns)
    }
    pub(crate) fn namespaces(&self) -> Vec<String> {
        self.0.keys().map(|k| k.to_string()).collect()
    }
}

impl Form for ByNamespace {
    fn put(&mut self, key: &str, value: &[u8]) {
        let (ns, name) = key.split_once('/').unwrap_or(("", key));
        let object = serde_json::from_slice(value).unwrap_or_default();
        self.0.entry(ns.into()).or_default().insert(name.into(), Rc::new(object));
    }
    fn remove(&mut self, key: &str) {
        let (ns, name) = key.split_once('/').unwrap_or(("", key));
        if let Some(of_ns) = self.0.get_mut(ns) {
            of_ns.remove(name);
            if of_ns.is_empty() {
                self.0.remove(ns);
            }
        }
    }
}
