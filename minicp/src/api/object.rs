//! Objects as the store holds them, and back.
//!
//! Stored: compact JSON that begins with `{"metadata":{`, without apiVersion and kind (the key says them) and without resourceVersion (the
//! store's revision is it). So an object is served by writing a few words in front of the stored bytes: no parsing.

use bytes::Bytes;
use mote_api::kind::Kind;
use mote_api::tree::{Map, Value, json, set};

use super::convert;
use crate::store::{Entry, Revision};

/// What every stored object begins with.
const HEAD: &[u8] = b"{\"metadata\":{";

/// Lists and maps of metadata that are not there when they are empty (`omitempty` of upstream's ObjectMeta).
const LEFT_OUT: [&str; 5] = ["annotations", "finalizers", "labels", "managedFields", "ownerReferences"];

/// `/registry/<group or core>/<plural>/`
pub(crate) fn prefix_of(kind: &Kind) -> String {
    // Both groups show the same events.
    let group = match &*kind.group {
        "" => "core",
        "events.k8s.io" => "core",
        group => group,
    };
    format!("/registry/{group}/{}/", kind.plural)
}

/// Where the objects of a namespace are ("" or cluster scope: all).
pub(crate) fn prefix(kind: &Kind, ns: &str) -> String {
    let all = prefix_of(kind);
    if ns.is_empty() { all } else { format!("{all}{ns}/") }
}

pub(crate) fn key(kind: &Kind, ns: &str, name: &str) -> String {
    prefix(kind, if kind.namespaced { ns } else { "" }) + name
}

/// The bytes to store; takes resourceVersion, apiVersion and kind out of the object.
pub(crate) fn encode(mut object: Value) -> Bytes {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
        meta.remove("selfLink");
        // Upstream's types leave out what is empty.
        let is_empty = |v: &Value| v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(Map::is_empty);
        meta.retain(|name, value| !(LEFT_OUT.contains(&name.as_str()) && is_empty(value)));
    }
    let mut out = b"{\"metadata\":".to_vec();
    let null = Value::Null;
    write(&mut out, object.get("metadata").unwrap_or(&null));
    for (name, value) in object.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "metadata" | "apiVersion" | "kind") {
            out.push(b',');
            write(&mut out, &Value::String(name.clone()));
            out.push(b':');
            write(&mut out, value);
        }
    }
    out.push(b'}');
    Bytes::from(out.into_boxed_slice())
}

pub(crate) fn write(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("a tree always serialises, and memory takes it");
}

/// What the store would hold of an object that was written once.
pub(crate) fn entry(value: bytes::Bytes, revision: Revision) -> Entry {
    Entry { value, created: revision, modified: revision }
}

/// The object as a tree.
pub(crate) fn decode(kind: &Kind, entry: &Entry) -> Value {
    let mut object: Value = serde_json::from_slice(&entry.value).unwrap_or(Value::Null);
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), kind.api_version().into());
        map.insert("kind".into(), (*kind.kind).into());
        if let Some(meta) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("resourceVersion".into(), entry.modified.0.to_string().into());
        }
    }
    if let Some(custom) = kind.custom.as_ref().filter(|c| c.stale(entry.modified.0)) {
        custom.refresh(&mut object);
    }
    convert::from_stored(kind, &mut object);
    object
}

/// Appends the object as sent; `typed`: with apiVersion and kind (list items have none, as upstream's).
pub(crate) fn serve(out: &mut Vec<u8>, kind: &Kind, entry: &Entry, typed: bool) {
    let tail = match entry.value.strip_prefix(HEAD) {
        Some(tail) if !convert::differs(kind) && !is_stale(kind, entry) => tail,
        _ => return write(out, &decode(kind, entry)),
    };
    out.push(b'{');
    if typed {
        let text = format!("\"kind\":\"{}\",\"apiVersion\":\"{}\",", kind.kind, kind.api_version());
        out.extend(text.as_bytes());
    }
    out.extend(format!("\"metadata\":{{\"resourceVersion\":\"{}\"", entry.modified).as_bytes());
    if !tail.starts_with(b"}") {
        out.push(b',');
    }
    out.extend(tail);
}

/// Whether the object was stored under another schema than the one it is read by.
fn is_stale(kind: &Kind, entry: &Entry) -> bool {
    kind.custom.as_ref().is_some_and(|c| c.stale(entry.modified.0))
}

/// The `metadata` of a list.
pub(crate) fn list_meta(revision: u64, token: Option<String>, remaining: Option<u64>) -> Value {
    let mut meta = json!({"resourceVersion": revision.to_string()});
    if let Some(token) = token {
        set(&mut meta, &["continue"], token.into());
        if let Some(remaining) = remaining {
            set(&mut meta, &["remainingItemCount"], remaining.into());
        }
    }
    meta
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::kind::Registry;

    #[test]
    fn served_bytes_are_the_object() {
        let registry = Registry::builtin();
        for (resource, object) in [
            (
                "pods",
                json!({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","resourceVersion":"3"},"spec":{"x":[1]}}),
            ),
            (
                "deployments.apps",
                json!({"apiVersion":"apps/v1","kind":"Deployment","metadata":{"labels":{"a":"b"},"name":"a"}}),
            ),
            (
                "events.events.k8s.io",
                json!({"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"a"},"note":"n"}),
            ),
            (
                "horizontalpodautoscalers.autoscaling",
                json!({"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"a"},"spec":{"metrics":[]}}),
            ),
        ] {
            let kind = registry.find(resource).unwrap();
            let mut stored = object.clone();
            convert::to_stored(kind, &mut stored);
            let entry = Entry { value: encode(stored), created: Revision(1), modified: Revision(9) };
            assert!(entry.value.starts_with(HEAD));
            let mut want = object;
            want["metadata"]["resourceVersion"] = "9".into();
            let mut bytes = Vec::new();
            serve(&mut bytes, kind, &entry, true);
            assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), want);
            assert_eq!(decode(kind, &entry), want);
        }
    }

    #[test]
    fn what_is_empty_in_metadata_is_left_out() {
        let object = json!({"metadata": {"name": "a", "ownerReferences": [], "finalizers": [], "labels": {}, "annotations": {"a": ""}}, "data": {}});
        assert_eq!(&encode(object)[..], br#"{"metadata":{"annotations":{"a":""},"name":"a"},"data":{}}"#);
    }
}
