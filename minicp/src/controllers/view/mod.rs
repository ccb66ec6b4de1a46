//! Lean typed views of objects: what the loops read often, and nothing else. Memory is a budget.
//!
//! A view is parsed once per change and dropped with the next. What is read rarely (a pod template) is fetched whole by
//! the one plan that needs it. Parsing never fails: an absent or ill-typed field reads as the API's own zero.

pub mod affinity;
pub mod apps;
pub mod batch;
pub mod labels;
pub mod node;
pub mod pod;
pub mod resources;
pub mod service;
pub mod taints;

use super::frame::Key;
use super::frame::cache::View;
use labels::Labels;
use mote_api::meta;
use mote_api::time::Time;
use mote_api::tree::{Value, str_at};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// The owner that controls an object.
#[derive(Clone, PartialEq, Eq)]
pub struct Owner {
    pub kind: Rc<str>,
    pub name: Rc<str>,
    pub uid: Rc<str>,
}

/// What every view knows of `metadata`.
#[derive(Clone)]
pub struct Meta {
    pub key: Key,
    pub uid: Rc<str>,
    pub revision: u64,
    pub generation: i64,
    pub labels: Labels,
    pub controller: Option<Owner>,
    pub created: Time,
    /// When the object is to be gone, once its deletion was asked for.
    pub deleting: Option<Time>,
}

impl Meta {
    pub fn parse(object: &Value) -> Self {
        Meta {
            key: Key::new(meta::namespace(object), meta::name(object)),
            uid: meta::uid(object).into(),
            revision: meta::resource_version(object).parse().unwrap_or(0),
            generation: meta::generation(object),
            labels: Labels::parse(object.pointer("/metadata/labels")),
            controller: meta::controller_of(object).map(|o| Owner {
                kind: o.kind.into(),
                name: o.name.into(),
                uid: o.uid.into(),
            }),
            created: time_at(object, &["metadata", "creationTimestamp"]).unwrap_or_default(),
            deleting: time_at(object, &["metadata", "deletionTimestamp"]),
        }
    }

    /// Controlled by the object with this uid.
    pub fn controlled_by(&self, uid: &str) -> bool {
        self.controller.as_ref().is_some_and(|owner| &*owner.uid == uid)
    }
}

/// Implements [`View`] for views with a field `meta`.
macro_rules! view {
    ($($name:ty),*) => { $(impl View for $name {
        fn key(&self) -> &Key { &self.meta.key }
        fn uid(&self) -> &Rc<str> { &self.meta.uid }
        fn revision(&self) -> u64 { self.meta.revision }
        fn deleting(&self) -> bool { self.meta.deleting.is_some() }
    })* };
}
view!(
    pod::Pod,
    node::Node,
    node::Lease,
    apps::ReplicaSet,
    apps::Workload,
    batch::Job,
    batch::CronJob,
    service::Service,
    service::Slice,
    Plain
);

/// An object of which only the metadata matters.
pub struct Plain {
    pub meta: Meta,
}

/// A timestamp field; `None` when absent or unreadable.
pub fn time_at(object: &Value, path: &[&str]) -> Option<Time> {
    Time::parse(str_at(object, path))
}

/// Equal for equal JSON: keys are ordered, numbers as written. Compares pod templates without keeping them.
pub fn fingerprint(value: &Value) -> u64 {
    fn feed(value: &Value, hash: &mut DefaultHasher) {
        match value {
            Value::Null => 0u8.hash(hash),
            Value::Bool(b) => (1u8, b).hash(hash),
            Value::Number(n) => (2u8, n.as_i64(), n.as_f64().map(f64::to_bits)).hash(hash),
            Value::String(s) => (3u8, s).hash(hash),
            Value::Array(list) => {
                (4u8, list.len()).hash(hash);
                list.iter().for_each(|item| feed(item, hash));
            }
            Value::Object(map) => {
                (5u8, map.len()).hash(hash);
                for (key, item) in map {
                    key.hash(hash);
                    feed(item, hash);
                }
            }
        }
    }
    let mut hash = DefaultHasher::new();
    feed(value, &mut hash);
    hash.finish()
}
