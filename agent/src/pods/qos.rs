//! Quality of service: the class of a pod and what it means to the kernel (kubernetes.io/docs: "Pod Quality of Service Classes";
//! the arithmetic is the kubelet's).

use mote_api::quantity::Quantity;
use mote_api::tree::{Value, at, list_at};

/// CPU shares of a container that asks for nothing, and the least the kernel takes.
pub const SHARES_MIN: u64 = 2;
/// The most CPU shares the kernel takes.
pub const SHARES_MAX: u64 = 262_144;
/// The period of CPU quotas, µs.
pub const CPU_PERIOD_US: u64 = 100_000;
/// The smallest CPU quota the kernel takes, µs.
pub const CPU_QUOTA_MIN_US: u64 = 1000;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let both = [list_at(pod, &["spec", "containers"]), list_at(pod, &["spec", "initContainers"])];
    for container in both.into_iter().flatten() {
        for resource in ["cpu", "memory"] {
            let request = quantity(container, "requests", resource);
            let limit = quantity(container, "limits", resource);
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// A resource of a container, when it is set, above zero and readable.
fn quantity(container: &Value, side: &str, resource: &str) -> Option<Quantity> {
    Quantity::of(at(container, &["resources", side, resource])?).filter(|quantity| quantity.milli() > 0)
}

/// CPU in thousandths of a core.
pub fn cpu_milli(container: &Value, side: &str) -> Option<u64> {
    quantity(container, side, "cpu").and_then(|quantity| u64::try_from(quantity.milli()).ok())
}

/// Memory in bytes.
pub fn memory_bytes(container: &Value, side: &str) -> Option<u64> {
    quantity(container, side, "memory").and_then(|quantity| u64::try_from(quantity.value()).ok())
}

/// Shares of a CPU request (a limit without a request is one).
pub fn shares(milli: Option<u64>) -> u64 {
    milli.map_or(SHARES_MIN, |milli| (milli.saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX))
}

/// Quota of a CPU limit, µs per [`CPU_PERIOD_US`].
pub fn quota_us(milli: u64) -> u64 {
    (milli.saturating_mul(CPU_PERIOD_US) / 1000).max(CPU_QUOTA_MIN_US)
}

/// `oom_score_adj`: a Guaranteed container goes last, a BestEffort one first, between them those who asked for more later.
pub fn oom_score_adj(class: &str, request_bytes: Option<u64>, node_bytes: u64) -> i32 {
    match class {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let asked = request_bytes.unwrap_or(0).saturating_mul(1000) / node_bytes.max(1);
            i32::try_from(1000u64.saturating_sub(asked)).unwrap_or(1000).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use mote_api::tree::json;

    use super::*;

    #[test]
    fn classes() {
        for (resources, class_expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
                "Guaranteed",
            ),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
        ] {
            let pod = json!({"spec": {"containers": [{"resources": resources}]}});
            assert_eq!(class(&pod), class_expected);
        }
    }

    #[test]
    fn arithmetic() {
        assert_eq!(shares(None), 2);
        assert_eq!(shares(Some(1)), 2);
        assert_eq!(shares(Some(250)), 256);
        assert_eq!(shares(Some(u64::MAX)), SHARES_MAX);
        assert_eq!(quota_us(100), 10_000);
        assert_eq!(quota_us(1), 1000);
        assert_eq!(oom_score_adj("Guaranteed", None, 1), -997);
        assert_eq!(oom_score_adj("BestEffort", Some(5), 1), 1000);
        assert_eq!(oom_score_adj("Burstable", Some(500), 1000), 500);
        assert_eq!(oom_score_adj("Burstable", Some(1000), 1000), 3);
        assert_eq!(oom_score_adj("Burstable", None, 0), 999);
    }
}
