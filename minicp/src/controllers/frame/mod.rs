//! What every loop stands on: a queue with one slot per key, a cache that reads its own writes, reflectors that fill it.
//!
//! Level-triggered throughout: a wake-up is a [`Key`], facts are read again from the cache, a failed key comes back with capped
//! back-off, and a plan that depends on time says when to look again. Nothing polls.

pub mod cache;
pub mod queue;
pub mod reflect;
pub mod run;

use std::rc::Rc;

/// Namespace and name of an object; the namespace of a cluster-scoped one is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub ns: Rc<str>,
    pub name: Rc<str>,
}

impl Key {
    pub fn new(ns: &str, name: &str) -> Self {
        Key { ns: ns.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        Key::new("", name)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.ns.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.ns, self.name) }
    }
}
#[cfg(test)]
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
