//! Fields that only the server writes: identity, generation, and what an update through some path may not change.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, as_map, at, json, list_mut, map_at, remove, set, slot, str_at};

use super::limits;
use crate::api::Api;
use crate::api::words::Place;

/// Fields of metadata that only the server writes, and that an update cannot change.
const SERVER_META: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName"];

/// The object is of this kind, namespace and name ("": any name); fills in what it leaves out.
pub(crate) fn identity(kind: &Kind, ns: &str, name: &str, obj: &mut Value) -> Result<(), Status> {
    if !obj.is_object() {
        return Err(Status::bad_request("the body is not an object"));
    }
    let version = kind.api_version();
    let (is, is_kind) = (str_at(obj, &["apiVersion"]), str_at(obj, &["kind"]));
    if !is.is_empty() && is != version {
        let text = format!("the API version in the data ({is}) does not match the expected API version ({version})");
        return Err(Status::bad_request(text));
    }
    if !is_kind.is_empty() && is_kind != kind.kind {
        let text = format!("{is_kind} in version {version:?} cannot be handled as a {}", kind.kind);
        return Err(Status::bad_request(text));
    }
    set(obj, &["apiVersion"], version.into());
    set(obj, &["kind"], (*kind.kind).into());
    if !at(obj, &["metadata"]).is_none_or(Value::is_object) {
        return Err(Status::bad_request("metadata is not an object"));
    }
    slot(obj, &["metadata", "name"]);
    let is_ns = meta::namespace(obj);
    if kind.namespaced {
        if !is_ns.is_empty() && is_ns != ns {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        set(obj, &["metadata", "namespace"], ns.into());
    } else {
        remove(obj, &["metadata", "namespace"]);
    }
    let is_name = meta::name(obj);
    if !name.is_empty() {
        if !is_name.is_empty() && is_name != name {
            let text = format!("the name of the object ({is_name}) does not match the name on the URL ({name})");
            return Err(Status::bad_request(text));
        }
        set(obj, &["metadata", "name"], name.into());
    } else if is_name.is_empty() {
        remove(obj, &["metadata", "name"]);
    }
    Ok(())
}

/// Kinds whose objects count their generations: those whose strategy does so in upstream's `pkg/registry`. (A Service or a Namespace does
/// not, status or no status.)
const COUNTED: [&str; 22] = [
    "CronJob.batch",
    "CSIDriver.storage.k8s.io",
    "CustomResourceDefinition.apiextensions.k8s.io",
    "DaemonSet.apps",
    "Deployment.apps",
    "EndpointSlice.discovery.k8s.io",
    "FlowSchema.flowcontrol.apiserver.k8s.io",
    "Ingress.networking.k8s.io",
    "IngressClass.networking.k8s.io",
    "Job.batch",
    "MutatingWebhookConfiguration.admissionregistration.k8s.io",
    "NetworkPolicy.networking.k8s.io",
    "Pod",
    "PodDisruptionBudget.policy",
    "PodTemplate",
    "PriorityClass.scheduling.k8s.io",
    "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io",
    "ReplicaSet.apps",
    "ReplicationController",
    "StatefulSet.apps",
    "ValidatingAdmissionPolicy.admissionregistration.k8s.io",
    "ValidatingWebhookConfiguration.admissionregistration.k8s.io",
];

/// Whether objects of the kind count their generations. Custom resources all do.
fn has_generation(kind: &Kind) -> bool {
    kind.type_name.is_empty() || COUNTED.contains(&kind.group_kind().as_str())
}

/// What the server writes into every new object.
pub(crate) fn fill_new(api: &Api, kind: &Kind, obj: &mut Value) {
    for field in SERVER_META.iter().filter(|f| **f != "generateName") {
        remove(obj, &["metadata", field]);
    }
    set(obj, &["metadata", "uid"], api.uuid().into());
    set(obj, &["metadata", "creationTimestamp"], api.now().to_string().into());
    if has_generation(kind) {
        set(obj, &["metadata", "generation"], json!(1));
    }
    // A kubelet registers with its status; everybody else's status comes later.
    if kind.status() && !kind.is("", "Node") {
        remove(obj, &["status"]);
    }
    normalize(kind, obj);
}

/// Fields that exist only on the way in.
pub(crate) fn normalize(kind: &Kind, obj: &mut Value) {
    if !kind.is("", "Secret") {
        return;
    }
    if let Some(Value::Object(texts)) = remove(obj, &["stringData"]) {
        for (key, text) in texts {
            let text = text.as_str().unwrap_or_default();
            set(obj, &["data", &key], STANDARD.encode(text).into());
        }
    }
}

/// Gives `new` what an update through this place may not change.
pub(crate) fn carry_over(place: Place<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    let part: &[&str] = match place.sub {
        "" | "binding" => &[],
        "status" => &["status"],
        "approval" => &["status", "conditions"],
        "finalize" => &["spec", "finalizers"],
        "ephemeralcontainers" => &["spec", "ephemeralContainers"],
        "resize" => &["spec", "containers"],
        _ => return Err(Status::no_such_resource()),
    };
    if !part.is_empty() {
        let value = remove(new, part);
        let guard = remove(new, &["metadata", "resourceVersion"]);
        let annotations = at(new, &["metadata", "annotations"]).filter(|_| place.sub == "status").cloned();
        *new = old.clone();
        match value {
            Some(value) => set(new, part, value),
            None => drop(remove(new, part)),
        }
        // As upstream's status strategies: annotations may be written along.
        if let Some(annotations) = annotations {
            set(new, &["metadata", "annotations"], annotations);
        }
        if let Some(guard) = guard {
            set(new, &["metadata", "resourceVersion"], guard);
        }
    } else if place.sub.is_empty() && place.kind.status() {
        match old.get("status") {
            Some(status) => set(new, &["status"], status.clone()),
            None => drop(remove(new, &["status"])),
        }
    }
    for field in SERVER_META {
        match at(old, &["metadata", field]) {
            Some(value) => set(new, &["metadata", field], value.clone()),
            None => drop(remove(new, &["metadata", field])),
        }
    }
    normalize(place.kind, new);
    if place.kind.is("", "LimitRange") {
        limits::complete(new);
    }
    if place.kind.is("", "Namespace") {
        set(new, &["metadata", "labels", "kubernetes.io/metadata.name"], place.name.into());
        if place.sub.is_empty() {
            let kept = at(old, &["spec", "finalizers"]).cloned().unwrap_or_else(|| json!([]));
            set(new, &["spec", "finalizers"], kept);
        }
    }
    Ok(())
}

/// The generation counts changes of what is wanted: not of metadata or status.
pub(crate) fn bump_generation(place: Place<'_>, old: &Value, new: &mut Value) {
    if !has_generation(place.kind) || place.sub == "status" {
        return;
    }
    // Of a custom resource without the status subresource the status is wanted like all else.
    let splits = place.kind.custom.is_none() || place.kind.status();
    let wanted = |o: &Value| {
        o.as_object().map(|m| {
            m.iter()
                .filter(|(k, _)| *k != "metadata" && (*k != "status" || !splits))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Vec<_>>()
        })
    };
    if wanted(old) != wanted(new) {
        set(new, &["metadata", "generation"], json!(meta::generation(old) + 1));
    }
}

/// A node's status that says nothing new but when it was said.
pub(crate) fn is_heartbeat(place: Place<'_>, old: &Value, new: &Value) -> bool {
    if !place.kind.is("", "Node") || place.sub != "status" {
        return false;
    }
    let timeless = |object: &Value| {
        let mut object = without_server_fields(object);
        for condition in list_mut(&mut object, &["status", "conditions"]) {
            remove(condition, &["lastHeartbeatTime"]);
        }
        object
    };
    timeless(old) == timeless(new) && map_at(new, &["status"]).is_some()
}

/// The object without what only the server writes: for comparing.
fn without_server_fields(object: &Value) -> Value {
    let mut copy = object.clone();
    for field in ["resourceVersion", "managedFields", "generation"] {
        remove(&mut copy, &["metadata", field]);
    }
    as_map(&mut copy);
    if copy.is_null() { json!({}) } else { copy }
}
