//! CustomResourceDefinitions: whether one is right, which names it gets, and which kinds it serves.
//!
//! Custom resources go the way of the built-in ones: [`kinds`] makes rows of the same table. What is not carried is refused when a
//! definition is made: conversion by webhook, the few functions of CEL that [`crate::cel`] leaves out.

mod names;
mod rules;
mod structure;

use std::borrow::Cow;
use std::rc::Rc;

use crate::custom::{Column, Custom, Scale};
use crate::jsonpath::JsonPath;
use crate::kind::{Kind, Text, Verbs};
use crate::meta;
use crate::rules::Rules;
use crate::structural::Node;
use crate::tree::{Value, at, bool_at, i64_at, list_at, str_at};

pub use names::{Names, condition_is_true, status_of, terminating};
pub use rules::validate;

/// Definitions of one cluster that are served; more are stored, but their names are not accepted.
pub const DEFINITIONS_MAX: usize = 500;
/// Group and plural of the definitions themselves.
pub const RESOURCE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Held by a definition that is deleted until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The kinds that a definition serves, one per served version. `revision`: when it was last written. A version whose schema cannot be read is
/// left out; the reason is beside.
pub fn kinds(crd: &Value, revision: u64) -> (Vec<Kind>, Vec<String>) {
    let (mut kinds, mut wrong) = (Vec::new(), Vec::new());
    let served: Vec<&Value> =
        list_at(crd, &["spec", "versions"]).iter().filter(|v| bool_at(v, &["served"]) == Some(true)).collect();
    let alone = list_at(crd, &["spec", "versions"]).len() == 1;
    for version in served {
        match custom(crd, version, revision, alone) {
            Ok(custom) => kinds.push(kind(crd, version, Some(custom))),
            Err(e) => wrong.push(format!("version {}: {e}", str_at(version, &["name"]))),
        }
    }
    (kinds, wrong)
}

/// The kind of a definition's stored objects as they are, whether a version is served or not: to end them.
pub fn stored_kind(crd: &Value) -> Kind {
    let versions = list_at(crd, &["spec", "versions"]);
    let stored = versions.iter().find(|v| bool_at(v, &["storage"]) == Some(true));
    kind(crd, stored.unwrap_or(&Value::Null), None)
}

fn kind(crd: &Value, version: &Value, custom: Option<Custom>) -> Kind {
    let name = |field: &str| Text::Owned(str_at(crd, &["spec", "names", field]).to_string());
    let words = |field: &str| {
        let words = list_at(crd, &["spec", "names", field]).iter().filter_map(Value::as_str);
        words.map(|w| Text::Owned(w.to_string())).collect::<Vec<Text>>()
    };
    let subresources =
        ["scale", "status"].into_iter().filter(|s| at(version, &["subresources", s]).is_some()).map(Cow::Borrowed);
    Kind {
        group: str_at(crd, &["spec", "group"]).to_string().into(),
        version: str_at(version, &["name"]).to_string().into(),
        kind: name("kind"),
        plural: name("plural"),
        singular: name("singular"),
        short_names: words("shortNames"),
        categories: words("categories"),
        namespaced: str_at(crd, &["spec", "scope"]) == "Namespaced",
        verbs: Verbs::All,
        subresources: subresources.collect(),
        type_name: "".into(),
        custom: custom.map(Rc::new),
    }
}

fn custom(crd: &Value, version: &Value, since: u64, alone: bool) -> Result<Custom, crate::structural::SchemaError> {
    let null = Value::Null;
    let names = |path: &str| -> Option<Vec<String>> {
        Some(JsonPath::parse(path).ok()?.names()?.into_iter().map(str::to_owned).collect())
    };
    let scale = at(version, &["subresources", "scale"]).and_then(|scale| {
        Some(Scale {
            replicas: names(str_at(scale, &["specReplicasPath"]))?,
            status: names(str_at(scale, &["statusReplicasPath"]))?,
            selector: names(str_at(scale, &["labelSelectorPath"])).filter(|p| !p.is_empty()),
        })
    });
    let column = |c: &Value| {
        let text = |field: &str| str_at(c, &[field]).to_owned();
        Some(Column {
            name: text("name"),
            ty: text("type"),
            format: text("format"),
            description: text("description"),
            priority: i64_at(c, &["priority"]).unwrap_or(0),
            path: JsonPath::parse(str_at(c, &["jsonPath"])).ok()?,
        })
    };
    let selectable = list_at(version, &["selectableFields"]).iter().map(|f| str_at(f, &["jsonPath"]));
    let api = format!(
        "{}/{} {}",
        str_at(crd, &["spec", "group"]),
        str_at(version, &["name"]),
        str_at(crd, &["spec", "names", "kind"])
    );
    let deprecated =
        (bool_at(version, &["deprecated"]) == Some(true)).then(|| match str_at(version, &["deprecationWarning"]) {
            "" => format!("{api} is deprecated"),
            told => told.to_owned(),
        });
    let written = at(version, &["schema", "openAPIV3Schema"]).unwrap_or(&null);
    let schema = Node::of_schema(written)?;
    Ok(Custom {
        rules: Rules::read(written, &schema),
        schema,
        columns: list_at(version, &["additionalPrinterColumns"]).iter().filter_map(column).collect(),
        selectable: selectable.map(|p| p.trim_start_matches('.').to_owned()).collect(),
        scale,
        since,
        alone,
        mark: mark(crd, since),
        terminating: meta::is_deleting(crd),
        deprecated,
    })
}

/// Differs between definitions, and between two states of one.
fn mark(crd: &Value, since: u64) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    (meta::uid(crd), since).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
