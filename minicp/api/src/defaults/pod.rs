//! Defaults of pods, pod templates and what they hold.

use super::fill;
use crate::tree::{Value, as_map, at, bool_at, i64_at, json, list_mut, map_at, set_default, slot, str_at};

pub(super) fn pod(object: &mut Value) {
    spec(slot(object, &["spec"]));
    // Requests follow limits in pods only, not in templates.
    for list in ["containers", "initContainers"] {
        for container in list_mut(object, &["spec", list]) {
            requests_from_limits(container);
        }
    }
    if bool_at(object, &["spec", "enableServiceLinks"]).is_none() {
        crate::tree::set(object, &["spec", "enableServiceLinks"], json!(true));
    }
}

/// `template` is a PodTemplateSpec.
pub(super) fn template(template: &mut Value) {
    spec(slot(template, &["spec"]));
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = map_at(container, &["resources", "limits"]).cloned() else { return };
    let requests = as_map(slot(container, &["resources", "requests"]));
    for (resource, amount) in limits {
        requests.entry(resource).or_insert(amount);
    }
    if requests.is_empty() {
        crate::tree::remove(container, &["resources", "requests"]);
    }
}

fn spec(spec: &mut Value) {
    fill(
        spec,
        &[
            (&["dnsPolicy"], json!("ClusterFirst")),
            (&["restartPolicy"], json!("Always")),
            (&["securityContext"], json!({})),
            (&["terminationGracePeriodSeconds"], json!(30)),
            (&["schedulerName"], json!("default-scheduler")),
        ],
    );
    service_account(spec);
    let host_network = bool_at(spec, &["hostNetwork"]).unwrap_or(false);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for c in list_mut(spec, &[list]) {
            container(c, host_network);
        }
    }
    for volume in list_mut(spec, &["volumes"]) {
        self::volume(volume);
    }
    for constraint in list_mut(spec, &["topologySpreadConstraints"]) {
        if at(constraint, &["whenUnsatisfiable"]).is_none() {
            crate::tree::set(constraint, &["whenUnsatisfiable"], json!("DoNotSchedule"));
        }
    }
}

/// The deprecated name and the name are one field.
fn service_account(spec: &mut Value) {
    let name = str_at(spec, &["serviceAccountName"]).to_string();
    let old = str_at(spec, &["serviceAccount"]).to_string();
    if name.is_empty() && !old.is_empty() {
        crate::tree::set(spec, &["serviceAccountName"], json!(old));
    } else if !name.is_empty() && name != old {
        crate::tree::set(spec, &["serviceAccount"], json!(name));
    }
}

fn container(c: &mut Value, host_network: bool) {
    let policy = pull_policy(str_at(c, &["image"]));
    fill(
        c,
        &[
            (&["imagePullPolicy"], json!(policy)),
            (&["resources"], json!({})),
            (&["terminationMessagePath"], json!("/dev/termination-log")),
            (&["terminationMessagePolicy"], json!("File")),
        ],
    );
    for port in list_mut(c, &["ports"]) {
        set_default(port, &["protocol"], json!("TCP"));
        if host_network && i64_at(port, &["hostPort"]).unwrap_or(0) == 0 {
            let number = i64_at(port, &["containerPort"]).unwrap_or(0);
            crate::tree::set(port, &["hostPort"], json!(number));
        }
    }
    for env in list_mut(c, &["env"]) {
        if at(env, &["valueFrom", "fieldRef"]).is_some() {
            set_default(env, &["valueFrom", "fieldRef", "apiVersion"], json!("v1"));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(p) = c.get_mut(name) {
            probe(p);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = crate::tree::at_mut(c, &["lifecycle", hook, "httpGet"]) {
            http_get(get);
        }
    }
}

/// `Always` for the tag latest and for none, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(p: &mut Value) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if i64_at(p, &[field]).unwrap_or(0) == 0 {
            crate::tree::set(p, &[field], json!(value));
        }
    }
    if let Some(get) = p.get_mut("httpGet") {
        http_get(get);
    }
    if p.get("grpc").is_some() {
        set_default(p, &["grpc", "service"], json!(""));
    }
}

fn http_get(get: &mut Value) {
    for (field, value) in [("path", "/"), ("scheme", "HTTP")] {
        if str_at(get, &[field]).is_empty() {
            crate::tree::set(get, &[field], json!(value));
        }
    }
}

fn volume(v: &mut Value) {
    const SOURCES: usize = 1; // the name
    if as_map(v).len() <= SOURCES {
        crate::tree::set(v, &["emptyDir"], json!({}));
    }
    for (source, mode) in [("secret", 420), ("configMap", 420), ("downwardAPI", 420), ("projected", 420)] {
        if v.get(source).is_some() {
            set_default(v, &[source, "defaultMode"], json!(mode));
        }
    }
    if v.get("hostPath").is_some() {
        set_default(v, &["hostPath", "type"], json!(""));
    }
    for item in list_mut(v, &["downwardAPI", "items"]) {
        field_ref(item);
    }
    for source in list_mut(v, &["projected", "sources"]) {
        for item in list_mut(source, &["downwardAPI", "items"]) {
            field_ref(item);
        }
        if source.get("serviceAccountToken").is_some() {
            set_default(source, &["serviceAccountToken", "expirationSeconds"], json!(3600));
        }
    }
    if let Some(ephemeral) = crate::tree::at_mut(v, &["ephemeral", "volumeClaimTemplate"]) {
        set_default(ephemeral, &["spec", "volumeMode"], json!("Filesystem"));
    }
}

fn field_ref(item: &mut Value) {
    if item.get("fieldRef").is_some() {
        set_default(item, &["fieldRef", "apiVersion"], json!("v1"));
    }
}

/// A PersistentVolumeClaim, by itself or in a StatefulSet.
pub(super) fn claim(object: &mut Value) {
    set_default(object, &["spec", "volumeMode"], json!("Filesystem"));
    set_default(object, &["status", "phase"], json!("Pending"));
}
