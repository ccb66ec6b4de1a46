//! Defaults of what makes pods.

use super::{fill, pod};
use crate::tree::{Value, at, i64_at, json, list_mut, map_at, set, set_default, slot, str_at};

/// Labels and selector of the kinds that predate apps/v1 follow the template's labels.
fn labels_from_template(object: &mut Value, selector: &[&str]) {
    let Some(labels) = map_at(object, &["spec", "template", "metadata", "labels"]).filter(|l| !l.is_empty()).cloned()
    else {
        return;
    };
    set_default(object, selector, Value::Object(labels.clone()));
    if map_at(object, &["metadata", "labels"]).is_none_or(|l| l.is_empty()) {
        set(object, &["metadata", "labels"], Value::Object(labels));
    }
}

pub(super) fn replication_controller(object: &mut Value) {
    labels_from_template(object, &["spec", "selector"]);
    set_default(object, &["spec", "replicas"], json!(1));
    pod::template(slot(object, &["spec", "template"]));
}

pub(super) fn replica_set(object: &mut Value) {
    set_default(object, &["spec", "replicas"], json!(1));
    pod::template(slot(object, &["spec", "template"]));
}

pub(super) fn deployment(object: &mut Value) {
    fill(
        object,
        &[
            (&["spec", "replicas"], json!(1)),
            (&["spec", "strategy", "type"], json!("RollingUpdate")),
            (&["spec", "revisionHistoryLimit"], json!(10)),
            (&["spec", "progressDeadlineSeconds"], json!(600)),
        ],
    );
    if str_at(object, &["spec", "strategy", "type"]) == "RollingUpdate" {
        for field in ["maxUnavailable", "maxSurge"] {
            set_default(object, &["spec", "strategy", "rollingUpdate", field], json!("25%"));
        }
    }
    pod::template(slot(object, &["spec", "template"]));
}

pub(super) fn daemon_set(object: &mut Value) {
    fill(
        object,
        &[
            (&["spec", "updateStrategy", "type"], json!("RollingUpdate")),
            (&["spec", "revisionHistoryLimit"], json!(10)),
        ],
    );
    if str_at(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        set_default(object, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], json!(1));
        set_default(object, &["spec", "updateStrategy", "rollingUpdate", "maxSurge"], json!(0));
    }
    pod::template(slot(object, &["spec", "template"]));
}

pub(super) fn stateful_set(object: &mut Value) {
    fill(
        object,
        &[
            (&["spec", "podManagementPolicy"], json!("OrderedReady")),
            (&["spec", "updateStrategy", "type"], json!("RollingUpdate")),
            (&["spec", "replicas"], json!(1)),
            (&["spec", "revisionHistoryLimit"], json!(10)),
            (&["spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted"], json!("Retain")),
            (&["spec", "persistentVolumeClaimRetentionPolicy", "whenScaled"], json!("Retain")),
        ],
    );
    if str_at(object, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        set_default(object, &["spec", "updateStrategy", "rollingUpdate", "partition"], json!(0));
    }
    for claim in list_mut(object, &["spec", "volumeClaimTemplates"]) {
        fill(claim, &[(&["apiVersion"], json!("v1")), (&["kind"], json!("PersistentVolumeClaim"))]);
        pod::claim(claim);
    }
    pod::template(slot(object, &["spec", "template"]));
}

pub(super) fn job(object: &mut Value) {
    job_spec(slot(object, &["spec"]));
    let labels = map_at(object, &["spec", "template", "metadata", "labels"]).filter(|l| !l.is_empty()).cloned();
    if let Some(labels) = labels.filter(|_| map_at(object, &["metadata", "labels"]).is_none_or(|l| l.is_empty())) {
        set(object, &["metadata", "labels"], Value::Object(labels));
    }
}

fn job_spec(spec: &mut Value) {
    if at(spec, &["completions"]).is_none() && at(spec, &["parallelism"]).is_none() {
        set(spec, &["completions"], json!(1));
    }
    let per_index = i64_at(spec, &["backoffLimitPerIndex"]).is_some();
    fill(
        spec,
        &[
            (&["parallelism"], json!(1)),
            (&["backoffLimit"], json!(if per_index { i32::MAX } else { 6 })),
            (&["completionMode"], json!("NonIndexed")),
            (&["suspend"], json!(false)),
            (&["manualSelector"], json!(false)),
        ],
    );
    let policy = if at(spec, &["podFailurePolicy"]).is_some() { "Failed" } else { "TerminatingOrFailed" };
    set_default(spec, &["podReplacementPolicy"], json!(policy));
    pod::template(slot(spec, &["template"]));
}

pub(super) fn cron_job(object: &mut Value) {
    fill(
        object,
        &[
            (&["spec", "concurrencyPolicy"], json!("Allow")),
            (&["spec", "suspend"], json!(false)),
            (&["spec", "successfulJobsHistoryLimit"], json!(3)),
            (&["spec", "failedJobsHistoryLimit"], json!(1)),
        ],
    );
    // Upstream leaves the job template's own counts to the Job that is made of it, but fills its pods.
    pod::template(slot(object, &["spec", "jobTemplate", "spec", "template"]));
}
