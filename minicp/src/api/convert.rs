//! Kinds that are served in two forms and stored in one: events (stored as core v1) and HorizontalPodAutoscalers (stored as autoscaling/v2).

use mote_api::kind::Kind;
use mote_api::tree::{Value, at, i64_at, json, list_at, remove, set, str_at};

/// Names of the same things in core v1 and events.k8s.io/v1.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];
/// Where an autoscaling/v1 object carries what only v2 has words for (the same annotations as upstream's, with v2's own JSON in them).
const KEPT: [(&str, &str, &str); 2] = [
    ("spec", "metrics", "autoscaling.alpha.kubernetes.io/metrics"),
    ("spec", "behavior", "autoscaling.alpha.kubernetes.io/behavior"),
];

/// Whether objects of the kind are stored in another form than they are served in.
pub(crate) fn differs(kind: &Kind) -> bool {
    kind.group == "events.k8s.io" || is_old_autoscaler(kind)
}

fn is_old_autoscaler(kind: &Kind) -> bool {
    kind.group == "autoscaling" && kind.version == "v1"
}

/// From the stored form to that of the kind.
pub(crate) fn from_stored(kind: &Kind, object: &mut Value) {
    if kind.group == "events.k8s.io" {
        rename(object, |(core, new)| (core, new));
    } else if is_old_autoscaler(kind) {
        autoscaler_v1(object);
    }
}

/// From the form of the kind to the stored one.
pub(crate) fn to_stored(kind: &Kind, object: &mut Value) {
    if kind.group == "events.k8s.io" {
        rename(object, |(core, new)| (new, core));
    } else if is_old_autoscaler(kind) {
        autoscaler_v2(object);
    }
}

fn rename(event: &mut Value, way: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Some(map) = event.as_object_mut() else { return };
    for (from, to) in EVENT_FIELDS.into_iter().map(way) {
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
}

fn is_cpu(metric: &Value) -> bool {
    str_at(metric, &["type"]) == "Resource" && str_at(metric, &["resource", "name"]) == "cpu"
}

fn autoscaler_v1(object: &mut Value) {
    let wanted = ["resource", "target", "averageUtilization"];
    let mut metrics = list_at(object, &["spec", "metrics"]).to_vec();
    if let Some(i) = metrics.iter().position(|m| is_cpu(m) && i64_at(m, &wanted).is_some()) {
        let percent = i64_at(&metrics.remove(i), &wanted);
        set(object, &["spec", "targetCPUUtilizationPercentage"], json!(percent));
    }
    remove(object, &["spec", "metrics"]);
    if !metrics.is_empty() {
        set(object, &["spec", "metrics"], json!(metrics));
    }
    for (part, field, annotation) in KEPT {
        if let Some(value) = remove(object, &[part, field]) {
            set(object, &["metadata", "annotations", annotation], value.to_string().into());
        }
    }
    let now = list_at(object, &["status", "currentMetrics"]).iter().find(|m| is_cpu(m));
    let now = now.and_then(|m| i64_at(m, &["resource", "current", "averageUtilization"]));
    if let Some(percent) = now {
        set(object, &["status", "currentCPUUtilizationPercentage"], json!(percent));
    }
    for field in ["currentMetrics", "conditions"] {
        remove(object, &["status", field]);
    }
}

fn autoscaler_v2(object: &mut Value) {
    for (part, field, annotation) in KEPT {
        let kept = remove(object, &["metadata", "annotations", annotation]);
        if let Some(value) = kept.as_ref().and_then(Value::as_str).and_then(|t| serde_json::from_str::<Value>(t).ok()) {
            set(object, &[part, field], value);
        }
    }
    if let Some(percent) = remove(object, &["spec", "targetCPUUtilizationPercentage"]) {
        let mut metrics = list_at(object, &["spec", "metrics"]).to_vec();
        metrics.insert(
            0,
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}),
        );
        set(object, &["spec", "metrics"], json!(metrics));
    }
    if let Some(percent) = remove(object, &["status", "currentCPUUtilizationPercentage"])
        && at(object, &["status", "currentMetrics"]).is_none()
    {
        let metric =
            json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}});
        set(object, &["status", "currentMetrics"], json!([metric]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::kind::Registry;

    #[test]
    fn autoscalers_go_both_ways() {
        let registry = Registry::builtin();
        let v1 = registry.by_resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
        let old = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}, "status": {"currentCPUUtilizationPercentage": 5}});
        let mut object = old.clone();
        to_stored(v1, &mut object);
        assert_eq!(
            object["spec"]["metrics"][0]["resource"]["target"],
            json!({"type": "Utilization", "averageUtilization": 80})
        );
        from_stored(v1, &mut object);
        assert_eq!(object, old);
        // What v1 cannot say comes back whole.
        let new = json!({"metadata": {"name": "a", "annotations": {}}, "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {}},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}, {"type": "Pods"}]}});
        let mut object = new.clone();
        from_stored(v1, &mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80}));
        to_stored(v1, &mut object);
        assert_eq!(object, new);
    }
}
