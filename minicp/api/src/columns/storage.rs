//! Rows of volumes and of data.

use super::{count, name, or_none, since_creation, text};
use crate::time::Time;
use crate::tree::{Value, bool_at, json, list_at, str_at};

pub(super) fn config_map(c: &Value, now: Time) -> Vec<Value> {
    vec![name(c), count(c, &["data", "binaryData"]), since_creation(c, now)]
}

pub(super) fn secret(s: &Value, now: Time) -> Vec<Value> {
    vec![name(s), text(s, &["type"]), count(s, &["data"]), since_creation(s, now)]
}

/// `RWO,ROX`
fn access_modes(modes: &[Value]) -> String {
    let short = |m: &Value| match m.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    modes.iter().map(short).filter(|m| !m.is_empty()).collect::<Vec<_>>().join(",")
}
fn unset(text: &str) -> Value {
    json!(if text.is_empty() { "<unset>" } else { text })
}
fn phase(object: &Value) -> &str {
    if crate::meta::is_deleting(object) { "Terminating" } else { str_at(object, &["status", "phase"]) }
}

pub(super) fn volume(v: &Value, now: Time) -> Vec<Value> {
    let claim = match (str_at(v, &["spec", "claimRef", "namespace"]), str_at(v, &["spec", "claimRef", "name"])) {
        (_, "") => String::new(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    vec![
        name(v),
        text(v, &["spec", "capacity", "storage"]),
        json!(access_modes(list_at(v, &["spec", "accessModes"]))),
        text(v, &["spec", "persistentVolumeReclaimPolicy"]),
        json!(phase(v)),
        json!(claim),
        text(v, &["spec", "storageClassName"]),
        unset(str_at(v, &["spec", "volumeAttributesClassName"])),
        text(v, &["status", "reason"]),
        since_creation(v, now),
        unset(str_at(v, &["spec", "volumeMode"])),
    ]
}

pub(super) fn claim(c: &Value, now: Time) -> Vec<Value> {
    let bound = !str_at(c, &["spec", "volumeName"]).is_empty();
    let (capacity, modes) = if bound {
        (str_at(c, &["status", "capacity", "storage"]), access_modes(list_at(c, &["status", "accessModes"])))
    } else {
        ("", String::new())
    };
    vec![
        name(c),
        json!(phase(c)),
        text(c, &["spec", "volumeName"]),
        json!(capacity),
        json!(modes),
        text(c, &["spec", "storageClassName"]),
        unset(str_at(c, &["spec", "volumeAttributesClassName"])),
        since_creation(c, now),
        unset(str_at(c, &["spec", "volumeMode"])),
    ]
}

pub(super) fn class(c: &Value, now: Time) -> Vec<Value> {
    let default = crate::meta::annotation(c, "storageclass.kubernetes.io/is-default-class") == "true";
    let shown = format!("{}{}", crate::meta::name(c), if default { " (default)" } else { "" });
    vec![
        json!(shown),
        text(c, &["provisioner"]),
        text(c, &["reclaimPolicy"]),
        text(c, &["volumeBindingMode"]),
        json!(bool_at(c, &["allowVolumeExpansion"]).unwrap_or(false)),
        since_creation(c, now),
    ]
}

pub(super) fn csi_node(n: &Value, now: Time) -> Vec<Value> {
    vec![name(n), json!(list_at(n, &["spec", "drivers"]).len()), since_creation(n, now)]
}

pub(super) fn attachment(a: &Value, now: Time) -> Vec<Value> {
    vec![
        name(a),
        text(a, &["spec", "attacher"]),
        or_none(str_at(a, &["spec", "source", "persistentVolumeName"])),
        text(a, &["spec", "nodeName"]),
        json!(bool_at(a, &["status", "attached"]).unwrap_or(false)),
        since_creation(a, now),
    ]
}
