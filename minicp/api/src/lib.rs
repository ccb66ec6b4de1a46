//! Kubernetes API objects without IO: what an object is, and what may be done to one.
//!
//! Objects are untyped JSON trees (`tree::Value`): nothing a client sent is lost because a struct lacks a field, and no kind
//! costs code. What a kind looks like is data: `kind` (names, scope, subresources) and `schema` (a committed table of
//! types) drive checking, pruning, strategic merge and server-side apply alike.
//!
//! What a CustomResourceDefinition adds at run time comes through the same rows and shapes: `crd` judges it, `structural` is its schema, `rules` (in
//! `cel`) what its author demands beyond it, `custom` the rest.
//!
//! Reading order: `tree`, `meta`, `kind`, `status`, then the way of a write: `tree::parse_json`, `yaml` or `proto` -> `schema::check` ->
//! `defaults` -> `patch`/`apply` -> `validate`; and of a read: `selector`, `columns`.
//!
//! Nothing here reads a clock, a file or a socket: time comes in as `time::Time`.
#![forbid(unsafe_code)]

pub mod apply;
pub mod cel;
pub mod columns;
pub mod crd;
pub mod custom;
pub mod defaults;
pub mod field;
pub mod jsonpath;
pub mod kind;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod proto;
pub mod quantity;
pub mod rules;
pub mod schema;
pub mod selector;
pub mod status;
pub mod structural;
pub mod time;
pub mod tree;
pub mod uri;
pub mod validate;
pub mod yaml;
