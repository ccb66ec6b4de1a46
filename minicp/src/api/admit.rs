//! What each kind wants done to its objects before they are stored: the order of the admission rules, each of which has a file.

mod account;
pub(crate) mod by_namespace;
mod fields;
mod guard;
pub(crate) mod limits;
pub(crate) mod node;
mod pod;
pub(crate) mod pod_security;
pub(crate) mod priority;
pub(crate) mod quota;

use std::rc::Rc;

use mote_api::defaults;
use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, bool_at, json, list_at, set};

use super::request::WriteOptions;
use super::words::{ListQuery, Place};
use super::{Api, object};
pub(crate) use fields::{bump_generation, carry_over, fill_new, identity, is_heartbeat};
pub(crate) use pod::GATED;

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
    let listed = api.list(pods, meta::name(namespace), &ListQuery::all()).await?;
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
        ("", "Pod") => pod::admit(api, kind, ns, obj).await?,
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
