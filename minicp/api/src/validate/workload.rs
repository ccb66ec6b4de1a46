//! Rules of what makes pods.

use super::{Check, metadata, pod};
use crate::field::{Error, Path};
use crate::kind::Kind;
use crate::meta;
use crate::selector::LabelSelector;
use crate::tree::{Value, i64_at, json, map_at, remove, str_at};

pub(super) fn workload(check: &mut Check, kind: &Kind, object: &Value) {
    let at = Path::Root.f("spec");
    let null = Value::Null;
    let spec = object.get("spec").unwrap_or(&null);
    match &*kind.kind {
        "ControllerRevision" => {
            check.not_negative(Path::Root, object, &["revision"]);
            return;
        }
        "Job" => {
            check.not_negative(
                at,
                spec,
                &["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"],
            );
            template(check, spec, at, &["Never", "OnFailure"]);
            return;
        }
        "CronJob" => {
            if str_at(spec, &["schedule"]).is_empty() {
                check.required(at.f("schedule"), "");
            }
            check.one_of(
                at.f("concurrencyPolicy"),
                str_at(spec, &["concurrencyPolicy"]),
                &["Allow", "Forbid", "Replace"],
            );
            check.not_negative(
                at,
                spec,
                &["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"],
            );
            let job = crate::tree::at(spec, &["jobTemplate", "spec"]).unwrap_or(&null);
            template(check, job, at.f("jobTemplate").f("spec"), &["Never", "OnFailure"]);
            return;
        }
        _ => {}
    }
    check.not_negative(at, spec, &["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"]);
    selector(check, kind, spec, at);
    template(check, spec, at, &["Always"]);
    match &*kind.kind {
        "Deployment" => strategy(check, spec, at.f("strategy"), "strategy", "Recreate"),
        "DaemonSet" => strategy(check, spec, at.f("updateStrategy"), "updateStrategy", "OnDelete"),
        "StatefulSet" => {
            let here = at.f("updateStrategy");
            check.one_of(here.f("type"), str_at(spec, &["updateStrategy", "type"]), &["OnDelete", "RollingUpdate"]);
            check.one_of(
                at.f("podManagementPolicy"),
                str_at(spec, &["podManagementPolicy"]),
                &["OrderedReady", "Parallel"],
            );
        }
        _ => {}
    }
    if kind.is("apps", "Deployment")
        && let (Some(deadline), ready) =
            (i64_at(spec, &["progressDeadlineSeconds"]), i64_at(spec, &["minReadySeconds"]).unwrap_or(0))
        && deadline <= ready
    {
        check.invalid(at.f("progressDeadlineSeconds"), Some(&json!(deadline)), "must be greater than minReadySeconds");
    }
}

/// The selector is there, selects something, and selects the template.
fn selector(check: &mut Check, kind: &Kind, spec: &Value, at: Path<'_>) {
    let template = crate::tree::at(spec, &["template"]);
    let here = at.f("selector");
    let by_map = &*kind.kind == "ReplicationController";
    let found = if by_map {
        map_at(spec, &["selector"]).filter(|m| !m.is_empty()).map(LabelSelector::from_map)
    } else {
        check.selector(spec.get("selector"), here);
        spec.get("selector").and_then(|s| LabelSelector::from_object(s).ok())
    };
    let Some(found) = found else {
        if spec.get("selector").is_none() || by_map {
            check.required(here, "");
        }
        return;
    };
    if found.is_everything() {
        let what = match &*kind.kind {
            "DaemonSet" => "daemonset",
            "Deployment" => "deployment",
            "ReplicaSet" => "replicaset",
            _ => "statefulset",
        };
        check.invalid(here, spec.get("selector"), &format!("empty selector is invalid for {what}"));
    } else if template.is_some_and(|t| !found.matches_labels(meta::labels(t))) {
        let labels = template.map(|t| Value::Object(meta::labels(t).clone()));
        check.invalid(
            at.f("template").f("metadata").f("labels"),
            labels.as_ref(),
            "`selector` does not match template `labels`",
        );
    }
}

fn template(check: &mut Check, spec: &Value, at: Path<'_>, restart: &[&str]) {
    let here = at.f("template");
    let Some(template) = spec.get("template") else {
        check.required(here, "");
        return;
    };
    metadata::template(check, template, here);
    let pods = here.f("spec");
    pod::spec(check, template.get("spec").unwrap_or(&Value::Null), pods);
    let policy = str_at(template, &["spec", "restartPolicy"]);
    if ["Always", "Never", "OnFailure"].contains(&policy) && !restart.contains(&policy) {
        check.add(Error::not_supported(pods.f("restartPolicy"), &json!(policy), restart));
    }
}

/// How many, absolutely or of a hundred; `None` for what is neither.
fn share(value: Option<&Value>) -> Option<i64> {
    match value {
        None => Some(0),
        Some(Value::Number(n)) => n.as_i64(),
        Some(Value::String(text)) => {
            text.strip_suffix('%')?.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit() || b == b'%'))
        }
        Some(_) => None,
    }
}

fn strategy(check: &mut Check, spec: &Value, at: Path<'_>, field: &str, other: &str) {
    let ty = str_at(spec, &[field, "type"]);
    let mut allowed = [other, "RollingUpdate"];
    allowed.sort_unstable();
    check.one_of(at.f("type"), ty, &allowed);
    let rolling = crate::tree::at(spec, &[field, "rollingUpdate"]);
    let here = at.f("rollingUpdate");
    match (ty, rolling) {
        ("RollingUpdate", Some(r)) => {
            for name in ["maxUnavailable", "maxSurge"] {
                match (share(r.get(name)), r.get(name)) {
                    (None, value) => check.invalid(here.f(name), value, "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"),
                    (Some(n), value) if n < 0 => check.invalid(here.f(name), value, "must be greater than or equal to 0"),
                    (Some(n), Some(Value::String(text))) if n > 100 && name == "maxUnavailable" => check.invalid(here.f(name), Some(&json!(text)), "must not be greater than 100%"),
                    _ => {}
                }
            }
            if share(r.get("maxUnavailable")) == Some(0) && share(r.get("maxSurge")) == Some(0) {
                check.invalid(
                    here.f("maxUnavailable"),
                    Some(r.get("maxUnavailable").unwrap_or(&json!(0))),
                    "may not be 0 when `maxSurge` is 0",
                );
            }
        }
        (_, Some(_)) if ty == other && field == "strategy" => {
            check.forbidden(here, &format!("may not be specified when strategy `type` is '{other}'"))
        }
        _ => {}
    }
}

pub(super) fn update(check: &mut Check, kind: &Kind, new: &Value, old: &Value) {
    let at = Path::Root.f("spec");
    let field = |o: &Value, name: &str| o.get("spec").and_then(|s| s.get(name)).cloned();
    let mut fixed = |names: &[&str]| {
        for name in names {
            if field(new, name) != field(old, name) {
                check.invalid(at.f(name), field(new, name).as_ref(), "field is immutable");
            }
        }
    };
    match &*kind.kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" => fixed(&["selector"]),
        "Job" => fixed(&["selector", "template", "completionMode"]),
        "ControllerRevision" if new.get("data") != old.get("data") => {
            check.invalid(Path::Root.f("data"), new.get("data"), "field is immutable")
        }
        "StatefulSet" => {
            let (mut a, mut b) =
                (new.get("spec").cloned().unwrap_or_default(), old.get("spec").cloned().unwrap_or_default());
            for side in [&mut a, &mut b] {
                for free in [
                    "replicas",
                    "ordinals",
                    "template",
                    "updateStrategy",
                    "revisionHistoryLimit",
                    "persistentVolumeClaimRetentionPolicy",
                    "minReadySeconds",
                ] {
                    remove(side, &[free]);
                }
            }
            if a != b {
                check.forbidden(at, "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
            }
        }
        _ => {}
    }
}
