//! Rules of the smaller kinds: ConfigMap, Secret, Node, Lease, Event, bindings, claims.

use super::Check;
use crate::field::{Error, Path};
use crate::meta;
use crate::tree::{Value, bool_at, i64_at, json, list_at, map_at, remove, str_at};

/// Bytes of the data of one ConfigMap or Secret.
const DATA_BYTES_MAX: usize = 1 << 20;
const KEY_MAX: usize = 253;
const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn config_key(text: &str) -> Result<(), String> {
    if text.len() > KEY_MAX {
        return Err(format!("must be no more than {KEY_MAX} characters"));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(KEY.into());
    }
    match text {
        "." => Err("must not be '.'".into()),
        _ if text.starts_with("..") => Err("must not start with '..'".into()),
        _ => Ok(()),
    }
}

/// Checks keys and returns the bytes of all values as stored (`encoded`: in base64).
fn entries(check: &mut Check, object: &Value, field: &str, encoded: bool) -> usize {
    let at = Path::Root.f(field);
    let mut bytes = 0;
    for (key, value) in map_at(object, &[field]).into_iter().flatten() {
        check.name(at.k(key), key, config_key);
        let text = value.as_str().unwrap_or("");
        bytes += if encoded { text.trim_end_matches('=').len() * 3 / 4 } else { text.len() };
    }
    bytes
}

pub(super) fn config_map(check: &mut Check, object: &Value) {
    let bytes = entries(check, object, "data", false) + entries(check, object, "binaryData", true);
    for key in map_at(object, &["binaryData"]).into_iter().flatten().map(|(k, _)| k) {
        if map_at(object, &["data"]).is_some_and(|d| d.contains_key(key)) {
            check.invalid(Path::Root.f("data").k(key), Some(&json!(key)), "duplicate of key present in binaryData");
        }
    }
    if bytes > DATA_BYTES_MAX {
        check.add(Error::too_long(Path::Root, DATA_BYTES_MAX));
    }
}

pub(super) fn secret(check: &mut Check, object: &Value) {
    if entries(check, object, "data", true) > DATA_BYTES_MAX {
        check.add(Error::too_long(Path::Root.f("data"), DATA_BYTES_MAX));
    }
    let needs: &[&str] = match str_at(object, &["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/service-account-token" => {
            if meta::annotation(object, "kubernetes.io/service-account.name").is_empty() {
                check.required(Path::Root.f("metadata").f("annotations").k("kubernetes.io/service-account.name"), "");
            }
            &[]
        }
        _ => &[],
    };
    for key in needs {
        if map_at(object, &["data"]).is_none_or(|d| !d.contains_key(*key)) {
            check.required(Path::Root.f("data").k(key), "");
        }
    }
}

pub(super) fn update(check: &mut Check, new: &Value, old: &Value) {
    if new.get("type") != old.get("type") {
        check.invalid(Path::Root.f("type"), new.get("type"), "field is immutable");
    }
    if bool_at(old, &["immutable"]) == Some(true) {
        if bool_at(new, &["immutable"]) != Some(true) {
            check.forbidden(Path::Root.f("immutable"), "field is immutable when `immutable` is set");
        }
        for field in ["data", "binaryData"] {
            if new.get(field) != old.get(field) {
                check.forbidden(Path::Root.f(field), "field is immutable when `immutable` is set");
            }
        }
    }
}

pub(super) fn node(check: &mut Check, object: &Value) {
    let spec = Path::Root.f("spec");
    let all = spec.f("taints");
    for (i, taint) in list_at(object, &["spec", "taints"]).iter().enumerate() {
        let one = all.i(i);
        check.required_name(one.f("key"), str_at(taint, &["key"]), meta::label_key);
        check.name(one.f("value"), str_at(taint, &["value"]), meta::label_value);
        check.one_of(one.f("effect"), str_at(taint, &["effect"]), &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
    }
    for field in ["capacity", "allocatable"] {
        for (resource, amount) in map_at(object, &["status", field]).into_iter().flatten() {
            if crate::quantity::Quantity::of(amount).is_some_and(crate::quantity::Quantity::is_negative) {
                check.invalid(
                    Path::Root.f("status").f(field).k(resource),
                    Some(amount),
                    "must be greater than or equal to 0",
                );
            }
        }
    }
}

pub(super) fn lease(check: &mut Check, object: &Value) {
    let at = Path::Root.f("spec");
    if i64_at(object, &["spec", "leaseDurationSeconds"]).is_some_and(|n| n <= 0) {
        check.invalid(
            at.f("leaseDurationSeconds"),
            object.get("spec").and_then(|s| s.get("leaseDurationSeconds")),
            "must be greater than 0",
        );
    }
    if let Some(spec) = object.get("spec") {
        check.not_negative(at, spec, &["leaseTransitions"]);
    }
}

pub(super) fn event(check: &mut Check, object: &Value) {
    let about = str_at(object, &["involvedObject", "namespace"]);
    let own = meta::namespace(object);
    // Events about objects of cluster scope live in namespace default.
    let right = if about.is_empty() { matches!(own, "" | "default" | "kube-system") } else { about == own };
    if object.get("involvedObject").is_some() && !right {
        check.invalid(
            Path::Root.f("involvedObject").f("namespace"),
            Some(&json!(about)),
            "does not match event.namespace",
        );
    }
}

pub(super) fn role_binding(check: &mut Check, object: &Value) {
    let role = Path::Root.f("roleRef");
    check.one_of(role.f("kind"), str_at(object, &["roleRef", "kind"]), &["ClusterRole", "Role"]);
    check.required_name(role.f("name"), str_at(object, &["roleRef", "name"]), meta::path_segment);
    for (i, subject) in list_at(object, &["subjects"]).iter().enumerate() {
        let all = Path::Root.f("subjects");
        let one = all.i(i);
        if str_at(subject, &["name"]).is_empty() {
            check.required(one.f("name"), "");
        }
        check.one_of(one.f("kind"), str_at(subject, &["kind"]), &["Group", "ServiceAccount", "User"]);
        if str_at(subject, &["kind"]) == "ServiceAccount" && str_at(subject, &["namespace"]).is_empty() {
            check.required(one.f("namespace"), "");
        }
    }
}

pub(super) fn claim_update(check: &mut Check, new: &Value, old: &Value) {
    let (mut a, mut b) = (new.get("spec").cloned().unwrap_or_default(), old.get("spec").cloned().unwrap_or_default());
    for side in [&mut a, &mut b] {
        remove(side, &["resources"]);
        remove(side, &["volumeAttributesClassName"]);
    }
    // A claim is bound once, and may get the default class once.
    for field in ["volumeName", "storageClassName"] {
        if str_at(&b, &[field]).is_empty() {
            remove(&mut a, &[field]);
            remove(&mut b, &[field]);
        }
    }
    if a != b {
        check.forbidden(
            Path::Root.f("spec"),
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
}
