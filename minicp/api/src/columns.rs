//! `meta.k8s.io/v1 Table`: what kubectl prints, upstream's columns (`pkg/printers/internalversion`).
//!
//! One row of data per kind names its columns; one function makes the cells of an object. Kinds without a row show name and age.

mod cluster;
mod custom;
mod network;
mod pod;
mod storage;
mod workload;

use crate::kind::Kind;
use crate::meta;
use crate::selector::Labels;
use crate::time::{Time, age};
use crate::tree::{Map, Value, i64_at, json, list_at, str_at};

pub use pod::reason as pod_reason;

/// What each row carries besides its cells (`?includeObject=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Include {
    /// PartialObjectMetadata (the default)
    #[default]
    Metadata,
    Object,
    None,
}

type Cells = fn(&Value, Time) -> Vec<Value>;

/// Group, kind, columns, cells. In a column's name `_` is a space, `+` marks the columns of `-o wide`, `#` whole numbers.
const ROWS: &[(&str, &str, &str, Cells)] = &[
    ("", "ConfigMap", "Name #Data Age", storage::config_map),
    ("", "Endpoints", "Name Endpoints Age", network::endpoints),
    ("", "Event", "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +#Count +Name", cluster::event),
    ("", "LimitRange", "Name Created_At", created),
    ("", "Namespace", "Name Status Age", cluster::namespace),
    (
        "",
        "Node",
        "Name Status Roles Age Version +Internal-IP +External-IP +OS-Image +Kernel-Version +Container-Runtime",
        cluster::node,
    ),
    (
        "",
        "PersistentVolume",
        "Name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass VolumeAttributesClass Reason Age +VolumeMode",
        storage::volume,
    ),
    (
        "",
        "PersistentVolumeClaim",
        "Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age +VolumeMode",
        storage::claim,
    ),
    ("", "Pod", "Name Ready Status Restarts Age +IP +Node +Nominated_Node +Readiness_Gates", pod::cells),
    ("", "PodTemplate", "Name Containers Images Pod_Labels", workload::template),
    (
        "",
        "ReplicationController",
        "Name #Desired #Current #Ready Age +Containers +Images +Selector",
        workload::replicas,
    ),
    ("", "ResourceQuota", "Name Request Limit Age", cluster::quota),
    ("", "Secret", "Name Type #Data Age", storage::secret),
    ("", "Service", "Name Type Cluster-IP External-IP Port(s) Age +Selector", network::service),
    ("", "ServiceAccount", "Name #Secrets Age", cluster::service_account),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", "Name #Webhooks Age", cluster::webhooks),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "Name #Webhooks Age", cluster::webhooks),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "Name Created_At", created),
    ("apiregistration.k8s.io", "APIService", "Name Service Available Age", cluster::api_service),
    ("apps", "ControllerRevision", "Name Controller #Revision Age", workload::revision),
    (
        "apps",
        "DaemonSet",
        "Name #Desired #Current #Ready #Up-to-date #Available Node_Selector Age +Containers +Images +Selector",
        workload::daemon_set,
    ),
    ("apps", "Deployment", "Name Ready #Up-to-date #Available Age +Containers +Images +Selector", workload::deployment),
    ("apps", "ReplicaSet", "Name #Desired #Current #Ready Age +Containers +Images +Selector", workload::replicas),
    ("apps", "StatefulSet", "Name Ready Age +Containers +Images", workload::stateful_set),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        "Name Reference Targets MinPods #MaxPods #Replicas Age",
        workload::autoscaler,
    ),
    (
        "batch",
        "CronJob",
        "Name Schedule Timezone Suspend #Active Last_Schedule Age +Containers +Images +Selector",
        workload::cron_job,
    ),
    ("batch", "Job", "Name Status Completions Duration Age +Containers +Images +Selector", workload::job),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        "Name Age SignerName Requestor RequestedDuration Condition",
        cluster::signing_request,
    ),
    ("coordination.k8s.io", "Lease", "Name Holder Age", cluster::lease),
    ("discovery.k8s.io", "EndpointSlice", "Name AddressType Ports Endpoints Age", network::endpoint_slice),
    (
        "events.k8s.io",
        "Event",
        "Last_Seen Type Reason Object +Subobject +Source Message +First_Seen +#Count +Name",
        cluster::event,
    ),
    ("networking.k8s.io", "Ingress", "Name Class Hosts Address Ports Age", network::ingress),
    ("networking.k8s.io", "IngressClass", "Name Controller Parameters Age", network::ingress_class),
    ("networking.k8s.io", "NetworkPolicy", "Name Pod-Selector Age", network::policy),
    ("node.k8s.io", "RuntimeClass", "Name Handler Age", cluster::runtime_class),
    ("policy", "PodDisruptionBudget", "Name Min_Available Max_Unavailable #Allowed_Disruptions Age", workload::budget),
    ("rbac.authorization.k8s.io", "ClusterRole", "Name Created_At", created),
    (
        "rbac.authorization.k8s.io",
        "ClusterRoleBinding",
        "Name Role Age +Users +Groups +ServiceAccounts",
        cluster::role_binding,
    ),
    ("rbac.authorization.k8s.io", "Role", "Name Created_At", created),
    (
        "rbac.authorization.k8s.io",
        "RoleBinding",
        "Name Role Age +Users +Groups +ServiceAccounts",
        cluster::role_binding,
    ),
    ("scheduling.k8s.io", "PriorityClass", "Name #Value Global-Default Age PreemptionPolicy", cluster::priority_class),
    ("storage.k8s.io", "CSINode", "Name #Drivers Age", storage::csi_node),
    (
        "storage.k8s.io",
        "StorageClass",
        "Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age",
        storage::class,
    ),
    ("storage.k8s.io", "VolumeAttachment", "Name Attacher PV Node Attached Age", storage::attachment),
];

/// A Table of `items`. `list_meta` is the metadata of the list (resourceVersion, continue), or null.
pub fn table<'a>(
    kind: &Kind,
    items: impl IntoIterator<Item = &'a Value>,
    list_meta: Value,
    now: Time,
    include: Include,
) -> Value {
    if let Some(custom) = &kind.custom {
        return custom::table(custom, items, list_meta, now, include);
    }
    let known = ROWS.iter().find(|(group, name, ..)| kind.is(group, name));
    let (columns, cells) = known.map_or(("Name Age", generic as Cells), |(_, _, columns, cells)| (*columns, *cells));
    let rows = items.into_iter().map(|object| row(object, cells(object, now), include)).collect();
    whole(columns.split(' ').map(definition).collect(), rows, list_meta)
}

fn whole(columns: Vec<Value>, rows: Vec<Value>, list_meta: Value) -> Value {
    let metadata = if list_meta.is_object() { list_meta } else { json!({}) };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}

fn definition(column: &str) -> Value {
    let (wide, rest) = column.strip_prefix('+').map_or((0, column), |rest| (1, rest));
    let (ty, name) = rest.strip_prefix('#').map_or(("string", rest), |name| ("integer", name));
    let format = if name == "Name" && wide == 0 { "name" } else { "" };
    json!({"name": name.replace('_', " "), "type": ty, "format": format, "description": "", "priority": wide})
}

fn row(object: &Value, cells: Vec<Value>, include: Include) -> Value {
    let shown = match include {
        Include::None => return json!({"cells": cells}),
        Include::Object => object.clone(),
        Include::Metadata => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata").cloned().unwrap_or_default()})
        }
    };
    json!({"cells": cells, "object": shown})
}

fn generic(object: &Value, now: Time) -> Vec<Value> {
    vec![name(object), since_creation(object, now)]
}
fn created(object: &Value, _: Time) -> Vec<Value> {
    vec![name(object), json!(meta::creation_timestamp(object))]
}

// What the cells of several kinds are made of.

fn name(object: &Value) -> Value {
    json!(meta::name(object))
}
fn since_creation(object: &Value, now: Time) -> Value {
    json!(age(meta::creation_timestamp(object), now))
}
fn text(object: &Value, path: &[&str]) -> Value {
    json!(str_at(object, path))
}
fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}
fn number(object: &Value, path: &[&str]) -> Value {
    json!(i64_at(object, path).unwrap_or(0))
}
fn count(object: &Value, fields: &[&str]) -> Value {
    let one = |field: &&str| match object.get(*field) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    };
    json!(fields.iter().map(one).sum::<usize>())
}
/// A number or text of an int-or-string field.
fn either(value: Option<&Value>, absent: &str) -> Value {
    match value {
        Some(Value::String(s)) => json!(s),
        Some(Value::Number(n)) => json!(n.to_string()),
        _ => json!(absent),
    }
}
/// `a=b,c=d`, or `<none>`.
fn labels_text(labels: &Labels) -> String {
    if labels.is_empty() {
        return "<none>".into();
    }
    labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect::<Vec<_>>().join(",")
}
/// A label selector in its string form, `<none>` when empty.
fn selector_text(selector: &Value) -> String {
    let text = crate::selector::LabelSelector::from_object(selector)
        .map(|s| s.to_string())
        .unwrap_or_else(|_| "<error>".into());
    if text.is_empty() { "<none>".into() } else { text }
}
/// Names and images of the containers of a pod template's spec.
fn containers(spec: Option<&Value>) -> (Value, Value) {
    let all = spec.map_or(&[][..], |s| list_at(s, &["containers"]));
    let join = |field: &str| json!(all.iter().map(|c| str_at(c, &[field])).collect::<Vec<_>>().join(","));
    (join("name"), join("image"))
}
fn join<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.collect::<Vec<_>>().join(",")
}
/// The first three, and how many more there are.
fn first_three(mut all: Vec<String>) -> String {
    const SHOWN: usize = 3;
    let more = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    let text = all.join(",");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}
fn condition<'a>(object: &'a Value, ty: &str) -> Option<&'a Value> {
    list_at(object, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == ty)
}
fn condition_is_true(object: &Value, ty: &str) -> bool {
    condition(object, ty).is_some_and(|c| str_at(c, &["status"]) == "True")
}
fn empty() -> &'static Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    &EMPTY
}

#[cfg(test)]
mod tests;
