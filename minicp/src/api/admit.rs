//! What each kind wants done to its objects before they are stored: identity, server-written fields, and the few admission rules.

mod account;
pub(crate) mod by_namespace;
pub(crate) mod limits;
pub(crate) mod node;
pub(crate) mod pod_security;
pub(crate) mod priority;
pub(crate) mod quota;

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mote_api::defaults;
use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::quantity::Quantity;
use mote_api::status::Status;
use mote_api::tree::{Value, at, bool_at, json, list_at, list_mut, map_at, remove, set, set_default, slot, str_at};

use super::request::WriteOptions;
use super::write::{Place, without_server_fields};
use super::{Api, object};
use crate::auth::rbac::guard;

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

/// Nothing new is made in a namespace that is not there or is on its way out. The namespace, if the kind has one.
pub(crate) async fn namespace_is_live(api: &Api, kind: &Kind, ns: &str) -> Result<Option<Value>, Status> {
    if !kind.namespaced {
        return Ok(None);
    }
    let registry = api.registry();
    let Some(namespaces) = registry.find("namespaces") else { return Ok(None) };
    let entry = api.entry(namespaces, "", ns).await?;
    let object = object::decode(namespaces, &entry);
    if meta::is_deleting(&object) && !kind.is("", "Event") {
        let why = format!("unable to create new content in namespace {ns} because it is being terminated");
        let mut status = Status::forbidden(kind, "", &why);
        let cause = json!([{"reason": "NamespaceTerminating", "message": format!("namespace {ns} is being terminated"), "field": "metadata.namespace"}]);
        set(&mut status.details, &["causes"], cause);
        return Err(status);
    }
    Ok(Some(object))
}

/// Why a pod with scheduling gates is not scheduled, in upstream's words.
pub(crate) const GATED: &str = "Scheduling is blocked due to non-empty scheduling gates";

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

/// Rules that depend on who writes: nothing is changed here, only refused.
pub(crate) async fn check_new(
    api: &Api,
    kind: &Kind,
    namespace: Option<&Value>,
    obj: &Value,
    options: &WriteOptions,
) -> Result<Vec<String>, Status> {
    let mut warnings = Vec::new();
    node::check(kind, "", None, obj, &options.user)?;
    guard::check(api, kind, None, obj, &options.user).await?;
    if let Some(namespace) = namespace.filter(|n| pod_security::asked(n)) {
        pod_security::check(kind, namespace, obj, &mut warnings)?;
    }
    if kind.is("", "Namespace") {
        pod_security::check_labels(kind, obj)?;
    }
    priority::check_class(api, kind, obj).await?;
    limits::check(api, kind, meta::namespace(obj), obj).await?;
    Ok(warnings)
}

/// The same for a change through `place`.
pub(crate) async fn check_change(
    api: &Api,
    place: Place<'_>,
    old: &Value,
    new: &Value,
    options: &WriteOptions,
) -> Result<Vec<String>, Status> {
    let (kind, mut warnings) = (place.kind, Vec::new());
    node::check(kind, place.sub, Some(old), new, &options.user)?;
    guard::check(api, kind, Some(old), new, &options.user).await?;
    if kind.is("", "Namespace") && old.get("metadata") != new.get("metadata") {
        pod_security::check_labels(kind, new)?;
        if pod_security::is_stricter(old, new) {
            warnings = existing_pods(api, new).await?;
        }
    }
    // Pods change little; what else makes pods is looked at as when it was made.
    let looks = place.sub.is_empty() && pod_security::concerns(kind) || place.sub == "ephemeralcontainers";
    if looks && old.get("spec") != new.get("spec") {
        let registry = api.registry();
        let namespaces = registry.find("namespaces").ok_or_else(Status::no_such_resource)?;
        let namespace = object::decode(namespaces, &api.entry(namespaces, "", place.ns).await?);
        pod_security::check(kind, &namespace, new, &mut warnings)?;
    }
    if matches!(place.sub, "" | "resize") && old.get("spec") != new.get("spec") {
        limits::check(api, kind, place.ns, new).await?;
    }
    Ok(warnings)
}

/// What the pods of a namespace that gets stricter do wrong.
async fn existing_pods(api: &Api, namespace: &Value) -> Result<Vec<String>, Status> {
    let registry = api.registry();
    let pods = registry.find("pods").ok_or_else(Status::no_such_resource)?;
    let listed = api.list(pods, meta::name(namespace), &super::read::ListQuery::all()).await?;
    let pods: Vec<Value> = listed.entries.iter().map(|(_, e)| object::decode(pods, e)).collect();
    Ok(pod_security::existing(namespace, &pods))
}

/// What the kind itself needs when it is made.
pub(crate) async fn admit_new(
    api: &Api,
    kind: &Rc<Kind>,
    ns: &str,
    obj: &mut Value,
    options: &WriteOptions,
) -> Result<(), Status> {
    match (&*kind.group, &*kind.kind) {
        ("", "Namespace") => {
            let name = meta::name(obj).to_owned();
            set(obj, &["metadata", "labels", "kubernetes.io/metadata.name"], name.into());
            set(obj, &["spec", "finalizers"], json!(["kubernetes"]));
            set(obj, &["status"], json!({"phase": "Active"}));
        }
        ("", "Pod") => admit_pod(api, kind, ns, obj).await?,
        ("", "LimitRange") => limits::complete(obj),
        ("", "Service") => set(obj, &["status"], json!({"loadBalancer": {}})),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            set(obj, &["spec", "username"], options.user.name.clone().into());
            set(obj, &["spec", "groups"], json!(options.user.groups));
        }
        ("batch", "Job") => {
            // labels that the Job takes from its template are those its author wrote
            defaults::apply(kind, obj);
            select_by_uid(obj);
        }
        _ => {}
    }
    Ok(())
}

/// A Job's pods are found by the Job's uid, unless its author wants to choose the selector (upstream's job strategy).
fn select_by_uid(job: &mut Value) {
    if bool_at(job, &["spec", "manualSelector"]) == Some(true) {
        return;
    }
    let (name, uid) = (meta::name(job).to_owned(), meta::uid(job).to_owned());
    let marks = [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ];
    for (label, value) in marks {
        set(job, &["spec", "template", "metadata", "labels", label], json!(value));
    }
    if list_at(job, &["spec", "selector", "matchExpressions"]).is_empty() {
        set(job, &["spec", "selector", "matchLabels", "batch.kubernetes.io/controller-uid"], json!(uid));
    }
}

async fn admit_pod(api: &Api, kind: &Kind, ns: &str, pod: &mut Value) -> Result<(), Status> {
    account::admit(api, kind, ns, pod).await?;
    let patience = [
        ("node.kubernetes.io/not-ready", api.config.not_ready_seconds),
        ("node.kubernetes.io/unreachable", api.config.unreachable_seconds),
    ];
    for (condition, seconds) in patience {
        let tolerated = list_at(pod, &["spec", "tolerations"]).iter().any(|t| {
            let (key, effect) = (str_at(t, &["key"]), str_at(t, &["effect"]));
            (key == condition || (key.is_empty() && str_at(t, &["operator"]) == "Exists"))
                && (effect.is_empty() || effect == "NoExecute")
        });
        if !tolerated {
            let toleration =
                json!({"key": condition, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
            set_default(pod, &["spec", "tolerations"], json!([]));
            if let Some(list) = slot(pod, &["spec", "tolerations"]).as_array_mut() {
                list.push(toleration);
            }
        }
    }
    priority::admit(api, kind, pod).await?;
    limits::default(api, kind, ns, pod).await?;
    let qos = qos(pod);
    set(pod, &["status"], json!({"phase": "Pending", "qosClass": qos}));
    if !list_at(pod, &["spec", "schedulingGates"]).is_empty() {
        let now = api.now().to_string();
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": GATED,
            "lastProbeTime": null, "lastTransitionTime": now});
        set(pod, &["status", "conditions"], json!([condition]));
    }
    Ok(())
}

/// Upstream's quality-of-service class, from cpu and memory of all containers.
pub(crate) fn qos(pod: &Value) -> &'static str {
    let lists = ["containers", "initContainers"];
    let containers = lists.iter().flat_map(|l| list_at(pod, &["spec", l]));
    let (mut any, mut all) = (false, true);
    for container in containers {
        for resource in ["cpu", "memory"] {
            let amount = |of| {
                let text = at(container, &["resources", of, resource])?;
                text.as_str().map_or_else(|| text.to_string(), str::to_owned).parse::<Quantity>().ok()
            };
            let (limit, request) = (amount("limits"), amount("requests"));
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
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
    let wanted = |o: &Value| {
        o.as_object().map(|m| {
            m.iter()
                .filter(|(k, _)| *k != "metadata" && *k != "status")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_of_service() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(qos(&pod(json!({}))), "BestEffort");
        assert_eq!(qos(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        assert_eq!(qos(&pod(full)), "Guaranteed");
        assert_eq!(
            qos(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}))),
            "Burstable"
        );
        assert_eq!(qos(&pod(json!({"limits": {"cpu": 1, "memory": "1Gi"}}))), "Guaranteed");
    }
}
