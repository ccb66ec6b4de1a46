//! `pods/eviction`: a delete that a PodDisruptionBudget may forbid.
//!
//! What is healthy is counted when it is asked, not kept in the budget's status: two who ask at once wait for each other, and a pod that
//! was evicted is no longer healthy for the next.

use std::rc::Rc;

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, at, json, str_at};

use super::budgets::{Count, is_healthy};
use super::request::WriteOptions;
use super::words::DeleteOptions;
use super::{Api, object};

/// What a budget says about one of its pods. Pure.
#[derive(Debug, PartialEq)]
enum Verdict {
    Allowed,
    /// How many must be healthy, and how many are.
    Forbidden(i64, i64),
}

/// Pods that serve nobody go whatever a budget says.
fn is_free(pod: &Value) -> bool {
    meta::is_deleting(pod) || matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending" | "")
}

fn judge(budget: &Value, pod: &Value, Count { wanted, healthy, .. }: Count) -> Verdict {
    let allowed = match is_healthy(pod) {
        true => healthy > wanted,
        // It does not count: it may go if enough others do, or if the budget's author does not mind.
        false => {
            str_at(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow"
                || (healthy >= wanted && wanted > 0)
        }
    };
    if allowed { Verdict::Allowed } else { Verdict::Forbidden(wanted, healthy) }
}

impl Api {
    /// Deletes a pod if its budget allows; 429 if it does not.
    pub(crate) async fn evict(
        &self,
        kind: &Rc<Kind>,
        ns: &str,
        pod: &str,
        body: &Value,
        options: &WriteOptions,
    ) -> Result<(), Status> {
        let delete = DeleteOptions::from_value(at(body, &["deleteOptions"]).unwrap_or(&Value::Null))?;
        let _turn = self.evicting.lock().await;
        let object = object::decode(kind, &self.entry(kind, ns, pod).await?);
        if !is_free(&object) {
            self.check_budgets(ns, &object).await?;
        }
        self.delete(kind, ns, pod, &delete, options).await.map(drop)
    }

    async fn check_budgets(&self, ns: &str, pod: &Value) -> Result<(), Status> {
        let all = self.budgets_of(ns).await?;
        let mut mine = all.iter().filter(|(_, selector)| selector.matches(pod));
        let Some((budget, selector)) = mine.next() else { return Ok(()) };
        if mine.next().is_some() {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::new(500, "InternalError", why));
        }
        match judge(budget, pod, self.count(ns, budget, selector).await?) {
            Verdict::Allowed => Ok(()),
            Verdict::Forbidden(wanted, healthy) => Err(forbidden(meta::name(budget), wanted, healthy)),
        }
    }
}

fn forbidden(budget: &str, wanted: i64, healthy: i64) -> Status {
    let why = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::new(429, "TooManyRequests", why);
    let told = format!("The disruption budget {budget} needs {wanted} healthy pods and has {healthy} currently");
    status.details = json!({"causes": [{"reason": "DisruptionBudget", "message": told}]});
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(text: &str) -> Vec<Value> {
        let one = |state: char| {
            let ready = if matches!(state, 'w' | 'l') { "True" } else { "False" };
            let mut pod = json!({"metadata": {}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
            if state == 'l' {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            pod
        };
        text.chars().map(one).collect()
    }

    /// `w`: well, `s`: sick, `l`: leaving. The first is to go.
    #[test]
    fn budgets_are_kept() {
        let least = |n: Value| json!({"spec": {"minAvailable": n}});
        let most = |n: Value| json!({"spec": {"maxUnavailable": n}});
        let always = json!({"spec": {"minAvailable": 2, "unhealthyPodEvictionPolicy": "AlwaysAllow"}});
        for (budget, state, expected, want) in [
            (least(json!(1)), "ww", 2, Verdict::Allowed),
            (least(json!(2)), "ww", 2, Verdict::Forbidden(2, 2)),
            (least(json!(1)), "wl", 2, Verdict::Forbidden(1, 1)),
            (least(json!("50%")), "www", 3, Verdict::Allowed),
            (least(json!("67%")), "www", 3, Verdict::Forbidden(3, 3)),
            (most(json!(1)), "www", 3, Verdict::Allowed),
            (most(json!(1)), "wws", 3, Verdict::Forbidden(2, 2)),
            (most(json!(1)), "ww", 3, Verdict::Forbidden(2, 2)),
            (most(json!("34%")), "www", 3, Verdict::Allowed),
            (most(json!(0)), "w", 1, Verdict::Forbidden(1, 1)),
            (most(json!(9)), "w", 1, Verdict::Allowed),
            (least(json!(1)), "sw", 2, Verdict::Allowed),
            (least(json!(2)), "sw", 2, Verdict::Forbidden(2, 1)),
            (always, "sw", 2, Verdict::Allowed),
            (json!({"spec": {}}), "w", 1, Verdict::Allowed),
        ] {
            let all = pods(state);
            assert_eq!(judge(&budget, &all[0], Count::of(&budget, &all, expected)), want, "{budget} {state}");
        }
    }
}
