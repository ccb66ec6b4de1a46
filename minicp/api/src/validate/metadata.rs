//! Rules of ObjectMeta.

use super::Check;
use crate::field::{Error, Path};
use crate::kind::Kind;
use crate::meta;
use crate::tree::{Value, bool_at, json, list_at, map_at, str_at};

/// Bytes of all annotations of one object.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// How objects of a kind may be called.
fn name_rule(kind: &Kind) -> fn(&str) -> Result<(), String> {
    match (&*kind.group, &*kind.kind) {
        ("", "Namespace") => meta::dns_label,
        ("", "Service") => meta::dns1035_label,
        ("rbac.authorization.k8s.io", _) => meta::path_segment,
        _ => meta::dns_subdomain,
    }
}

pub(super) fn object(check: &mut Check, kind: &Kind, object: &Value) {
    let at = Path::Root.f("metadata");
    let rule = name_rule(kind);
    let prefix = str_at(object, &["metadata", "generateName"]);
    if !prefix.is_empty() {
        // What will be added makes a hyphen or dot at the end right.
        check.name(at.f("generateName"), &format!("{}x", prefix.strip_suffix('-').unwrap_or(prefix)), rule);
    }
    match meta::name(object) {
        "" if prefix.is_empty() => check.required(at.f("name"), "name or generateName is required"),
        "" => {}
        name => check.name(at.f("name"), name, rule),
    }
    match (kind.namespaced, meta::namespace(object)) {
        (true, "") => check.required(at.f("namespace"), ""),
        (true, namespace) => check.name(at.f("namespace"), namespace, meta::dns_label),
        (false, "") => {}
        (false, _) => check.forbidden(at.f("namespace"), "not allowed on this type"),
    }
    check.labels(at.f("labels"), object, &["metadata", "labels"]);
    annotations(check, object, at.f("annotations"));
    for finalizer in meta::finalizers(object) {
        check.name(at.f("finalizers"), finalizer, meta::label_key);
    }
    owners(check, object, at.f("ownerReferences"));
}

/// Labels and annotations of a pod template.
pub(super) fn template(check: &mut Check, template: &Value, at: Path<'_>) {
    let meta = at.f("metadata");
    check.labels(meta.f("labels"), template, &["metadata", "labels"]);
    annotations(check, template, meta.f("annotations"));
}

fn annotations(check: &mut Check, object: &Value, at: Path<'_>) {
    let mut bytes = 0;
    for (key, value) in meta::annotations(object) {
        check.name(at, &key.to_lowercase(), meta::label_key);
        bytes += key.len() + value.as_str().unwrap_or("").len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        check.add(Error::too_long(at, ANNOTATIONS_BYTES_MAX));
    }
}

fn owners(check: &mut Check, object: &Value, at: Path<'_>) {
    let all = list_at(object, &["metadata", "ownerReferences"]);
    for (i, owner) in all.iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if str_at(owner, &[field]).is_empty() {
                check.invalid(at.i(i).f(field), Some(&json!("")), "must not be empty");
            }
        }
    }
    if all.iter().filter(|o| bool_at(o, &["controller"]) == Some(true)).count() > 1 {
        let names = all
            .iter()
            .filter(|o| bool_at(o, &["controller"]) == Some(true))
            .map(|o| str_at(o, &["name"]))
            .collect::<Vec<_>>()
            .join(", ");
        let why =
            format!("Only one reference can have Controller set to true. Found \"true\" in references for {names}");
        check.add(Error::invalid(at, &Value::Array(all.to_vec()), &why));
    }
}

pub(super) fn update(check: &mut Check, new: &Value, old: &Value) {
    let at = Path::Root.f("metadata");
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let get = |o| map_at(o, &["metadata"]).and_then(|m| m.get(field));
        if get(new) != get(old) {
            check.invalid(at.f(field), get(new), "field is immutable");
        }
    }
    if meta::is_deleting(old) {
        let added: Vec<&str> = meta::finalizers(new).filter(|f| meta::finalizers(old).all(|o| o != *f)).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            check.forbidden(at.f("finalizers"), &why);
        }
    }
}
