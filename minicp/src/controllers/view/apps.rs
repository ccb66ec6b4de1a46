//! Workloads: ReplicaSets in some breadth, since Deployments count by them; of the others only who owns and selects.

use super::labels::Selector;
use super::{Meta, fingerprint};
use mote_api::meta::annotation;
use mote_api::tree::{Value, i64_at};

/// Set by Deployments on their ReplicaSets, and by those on their pods.
pub const TEMPLATE_HASH: &str = "pod-template-hash";
/// Which revision of the Deployment a ReplicaSet is.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// How many replicas the Deployment wanted when it last sized this ReplicaSet.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same plus maxSurge.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

#[derive(Clone)]
pub struct ReplicaSet {
    pub meta: Meta,
    pub selector: Selector,
    pub replicas: i64,
    pub min_ready_seconds: i64,
    /// Of the pod template without the template hash label.
    pub template: u64,
    pub revision: i64,
    pub desired: Option<i64>,
    pub max: Option<i64>,
    pub status: Counts,
}

/// The counts of a ReplicaSet's status.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub replicas: i64,
    pub labelled: i64,
    pub ready: i64,
    pub available: i64,
    pub observed_generation: i64,
}

impl ReplicaSet {
    pub fn parse(object: &Value) -> Self {
        let count = |field: &str| i64_at(object, &["status", field]).unwrap_or(0);
        let number = |key: &str| annotation(object, key).parse::<i64>().ok();
        ReplicaSet {
            meta: Meta::parse(object),
            selector: Selector::parse(object.pointer("/spec/selector")),
            replicas: i64_at(object, &["spec", "replicas"]).unwrap_or(1),
            min_ready_seconds: i64_at(object, &["spec", "minReadySeconds"]).unwrap_or(0),
            template: template_fingerprint(object),
            revision: number(REVISION).unwrap_or(0),
            desired: number(DESIRED),
            max: number(MAX),
            status: Counts {
                replicas: count("replicas"),
                labelled: count("fullyLabeledReplicas"),
                ready: count("readyReplicas"),
                available: count("availableReplicas"),
                observed_generation: count("observedGeneration"),
            },
        }
    }
}

/// Of `spec.template` without the label that tells ReplicaSets of one Deployment apart.
pub fn template_fingerprint(object: &Value) -> u64 {
    let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    // the API writes a creationTimestamp null into some templates and not into others
    if let Some(metadata) = template.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !value.is_null());
    }
    fingerprint(&template)
}

/// A Deployment, DaemonSet or StatefulSet: its selector finds its pods, the rest is fetched when it is reconciled.
pub struct Workload {
    pub meta: Meta,
    pub selector: Selector,
}

impl Workload {
    pub fn parse(object: &Value) -> Self {
        Workload { meta: Meta::parse(object), selector: Selector::parse(object.pointer("/spec/selector")) }
    }
}
