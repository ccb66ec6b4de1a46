//! What a new pod gets before it is stored: account, tolerations, priority, defaults of its namespace, quality of service.

use mote_api::kind::Kind;
use mote_api::quantity::Quantity;
use mote_api::status::Status;
use mote_api::tree::{Value, at, json, list_at, set, set_default, slot, str_at};

use super::{account, limits, priority};
use crate::api::Api;

/// Why a pod with scheduling gates is not scheduled, in upstream's words.
pub(crate) const GATED: &str = "Scheduling is blocked due to non-empty scheduling gates";

pub(super) async fn admit(api: &Api, kind: &Kind, ns: &str, pod: &mut Value) -> Result<(), Status> {
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
pub(super) fn qos(pod: &Value) -> &'static str {
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
