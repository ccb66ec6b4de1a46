//! Jobs: pods until enough have succeeded, or too many have failed, or the time is up.
//!
//! Pods are counted by owner and stay until the Job goes, so that no count is kept anywhere else.

use super::Context;
use super::daemonset::add_owner;
use super::events::About;
use super::frame::Key;
use super::frame::run::{Outcome, Work};
use super::pods::{PodOwner, create_all, delete_pods, pod_from};
use super::seam::Deletion;
use super::view::pod::{Phase, Pod};
use super::view::time_at;
use super::world::Change;
use mote_api::time::Time;
use mote_api::tree::{Value, bool_at, i64_at, json, list_at, set, str_at};
use std::collections::BTreeSet;
use std::rc::Rc;
use tokio::task::JoinSet;

const NAME: &str = "job-controller";
const RESOURCE: &str = "jobs.batch";
/// First and longest wait after a failed pod, in seconds.
const BACKOFF_SECONDS: (i64, i64) = (10, 360);
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    cx.start(tasks, NAME, route, |cx, key| Box::pin(async move { reconcile(&cx, &key).await }));
}

fn route(_: &Context, work: &Work, change: &Change) {
    match change {
        Change::Job(sides) => sides.any().into_iter().for_each(|j| work.add(j.meta.key.clone())),
        Change::Pod(sides) => sides.each().for_each(|pod| add_owner(work, pod, "Job")),
        _ => {}
    }
}

struct Desired {
    parallelism: i64,
    completions: Option<i64>,
    indexed: bool,
    backoff_limit: i64,
    suspended: bool,
    /// When it began, and how long it may take.
    started: Option<Time>,
    deadline_seconds: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Complete,
    /// Reason and message.
    Failed(&'static str, &'static str),
}

#[derive(Default)]
struct Plan {
    /// One entry per pod to make: its index, if the Job is indexed.
    create: Vec<Option<i64>>,
    delete: Vec<Rc<Pod>>,
    active: i64,
    ready: i64,
    succeeded: i64,
    failed: i64,
    end: Option<End>,
    again_in_ms: Option<u64>,
}

fn ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

/// Pure. The flag says that the pod is leaving.
fn plan(d: &Desired, pods: &[(Rc<Pod>, bool)], now: Time) -> Plan {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let active: Vec<&Rc<Pod>> = pods.iter().filter(|(p, leaving)| !leaving && !p.ended()).map(|(p, _)| p).collect();
    let failures: Vec<&Rc<Pod>> = pods.iter().map(|(p, _)| p).filter(|p| p.phase == Phase::Failed).collect();
    let winners = pods.iter().map(|(p, _)| p).filter(|p| p.phase == Phase::Succeeded);
    let done: BTreeSet<i64> = winners.clone().filter_map(|p| p.completion_index.map(i64::from)).collect();
    let succeeded = if d.indexed { count(done.len()) } else { count(winners.count()) };
    let mut plan = Plan {
        active: count(active.len()),
        ready: count(active.iter().filter(|p| p.ready).count()),
        succeeded,
        failed: count(failures.len()),
        ..Plan::default()
    };
    let late = d.deadline_seconds.zip(d.started).map(|(limit, since)| limit.saturating_sub(now.seconds_since(since)));
    plan.end = match d.completions {
        Some(wanted) if succeeded >= wanted => Some(End::Complete),
        None if succeeded > 0 && active.is_empty() => Some(End::Complete),
        _ if plan.failed > d.backoff_limit => {
            Some(End::Failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
        }
        _ if late.is_some_and(|left| left <= 0) => {
            Some(End::Failed("DeadlineExceeded", "Job was active longer than specified deadline"))
        }
        _ => None,
    };
    if plan.end.is_some() || d.suspended {
        plan.delete = active.into_iter().cloned().collect();
        plan.active = 0;
        plan.ready = 0;
        return plan;
    }
    let left = d.completions.map_or(d.parallelism, |n| n.saturating_sub(succeeded));
    let wanted = if d.completions.is_none() && succeeded > 0 { plan.active } else { d.parallelism.min(left) };
    plan.again_in_ms = late.map(ms);
    if plan.active > wanted {
        let surplus = usize::try_from(plan.active - wanted).unwrap_or(0);
        let mut ranked = active.clone();
        ranked.sort_by_key(|p| (p.ready, p.node.is_some(), std::cmp::Reverse(p.meta.created)));
        plan.delete = ranked.into_iter().take(surplus).cloned().collect();
        return plan;
    }
    // a leaving pod still holds its place: two never do the same work at once
    let ending = count(pods.iter().filter(|(p, leaving)| *leaving && !p.ended()).count());
    let missing = wanted.saturating_sub(plan.active).saturating_sub(ending).max(0);
    let exponent = u32::try_from(plan.failed.saturating_sub(1).clamp(0, 16)).unwrap_or(16);
    let pause = BACKOFF_SECONDS.0.checked_shl(exponent).unwrap_or(BACKOFF_SECONDS.1).min(BACKOFF_SECONDS.1);
    let last = failures.iter().filter_map(|p| p.finished).max();
    let rest = last.map_or(0, |at| pause.saturating_sub(now.seconds_since(at)));
    if missing > 0 && rest > 0 {
        plan.again_in_ms = plan.again_in_ms.into_iter().chain([ms(rest)]).min();
        return plan;
    }
    let taken: BTreeSet<i64> = pods
        .iter()
        .filter(|(p, _)| p.phase != Phase::Failed)
        .filter_map(|(p, _)| p.completion_index.map(i64::from))
        .collect();
    let amount = usize::try_from(missing).unwrap_or(0);
    plan.create = if d.indexed {
        (0..d.completions.unwrap_or(0)).filter(|at| !taken.contains(at)).take(amount).map(Some).collect()
    } else {
        vec![None; amount]
    };
    plan
}

async fn reconcile(cx: &Context, key: &Key) -> Outcome {
    let object = match cx.api.get(RESOURCE, &key.ns, &key.name).await {
        Err(status) if status.is_not_found() => return Ok(None),
        other => other?,
    };
    if mote_api::meta::is_deleting(&object) {
        return Ok(None);
    }
    let now = cx.api.now();
    let is = |name: &str| {
        list_at(&object, &["status", "conditions"])
            .iter()
            .find(|c| str_at(c, &["type"]) == name && str_at(c, &["status"]) == "True")
            .and_then(|c| time_at(c, &["lastTransitionTime"]))
    };
    if let Some(ended) = is("Complete").or_else(|| is("Failed")) {
        return forget(cx, key, &object, ended, now).await;
    }
    let uid: Rc<str> = mote_api::meta::uid(&object).into();
    let spec = |name: &str| i64_at(&object, &["spec", name]);
    let suspended = bool_at(&object, &["spec", "suspend"]).unwrap_or(false);
    let started = time_at(&object, &["status", "startTime"]).or((!suspended).then_some(now));
    let d = Desired {
        parallelism: spec("parallelism").unwrap_or(1),
        completions: spec("completions").or(spec("parallelism").is_none().then_some(1)),
        indexed: str_at(&object, &["spec", "completionMode"]) == "Indexed",
        backoff_limit: spec("backoffLimit").unwrap_or(6),
        suspended,
        started: started.filter(|_| !suspended),
        deadline_seconds: spec("activeDeadlineSeconds"),
    };
    let plan = {
        let world = cx.world.look();
        let mine = world.pods.in_namespace(&key.ns).filter(|pod| pod.meta.controlled_by(&uid));
        let pods: Vec<(Rc<Pod>, bool)> = mine.map(|pod| (pod.clone(), world.pods.leaving(pod))).collect();
        plan(&d, &pods, now)
    };
    let about = About { api_version: "batch/v1", kind: "Job", key: key.clone(), uid };
    let owner = PodOwner { about, component: NAME };
    delete_pods(cx, &owner, &plan.delete).await?;
    let made = i64::try_from(plan.create.len()).unwrap_or(0);
    create_all(cx, &owner, plan.create.iter().map(|at| pod(&owner, &object, *at)).collect()).await?;
    write_status(cx, key, &object, &plan, made, started, now).await?;
    if let Some(end) = plan.end {
        let (warning, reason, message) = match end {
            End::Complete => (false, "Completed", "Job completed"),
            End::Failed(reason, message) => (true, reason, message),
        };
        cx.events.say(NAME, owner.about, warning, reason, message.into());
    }
    Ok(plan.again_in_ms)
}

/// A Job that has ended goes after its time to live, if it has one.
async fn forget(cx: &Context, key: &Key, object: &Value, ended: Time, now: Time) -> Outcome {
    let Some(ttl) = i64_at(object, &["spec", "ttlSecondsAfterFinished"]) else { return Ok(None) };
    let left = ttl.saturating_sub(now.seconds_since(ended));
    if left > 0 {
        return Ok(Some(ms(left)));
    }
    let how = Deletion {
        uid: Some(mote_api::meta::uid(object).into()),
        propagation: Some("Background"),
        ..Deletion::default()
    };
    match cx.api.delete(RESOURCE, &key.ns, &key.name, how).await {
        Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
        _ => Ok(None),
    }
}

fn pod(owner: &PodOwner, object: &Value, index: Option<i64>) -> Value {
    let mut pod = pod_from(owner, object.pointer("/spec/template").unwrap_or(&Value::Null));
    let (name, uid) = (&*owner.about.key.name, &*owner.about.uid);
    let marks = [
        ("batch.kubernetes.io/job-name", name),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("controller-uid", uid),
    ];
    for (label, value) in marks {
        set(&mut pod, &["metadata", "labels", label], json!(value));
    }
    let Some(index) = index else { return pod };
    set(&mut pod, &["metadata", "generateName"], json!(format!("{name}-{index}-")));
    set(&mut pod, &["metadata", "annotations", INDEX], json!(index.to_string()));
    set(&mut pod, &["metadata", "labels", INDEX], json!(index.to_string()));
    set(&mut pod, &["spec", "hostname"], json!(format!("{name}-{index}")));
    for container in mote_api::tree::list_mut(&mut pod, &["spec", "containers"]) {
        let mut env = list_at(container, &["env"]).to_vec();
        env.push(json!({"name": "JOB_COMPLETION_INDEX", "value": index.to_string()}));
        set(container, &["env"], json!(env));
    }
    pod
}

async fn write_status(
    cx: &Context,
    key: &Key,
    object: &Value,
    plan: &Plan,
    made: i64,
    started: Option<Time>,
    now: Time,
) -> Result<(), mote_api::status::Status> {
    let mut status = json!({
        "active": plan.active + made, "ready": plan.ready, "succeeded": plan.succeeded, "failed": plan.failed,
    });
    if let Some(started) = started {
        set(&mut status, &["startTime"], json!(started.to_string()));
    }
    if let Some(end) = plan.end {
        let at = now.to_string();
        let (kind, reason, message) = match end {
            End::Complete => ("Complete", "CompletionsReached", "Reached expected number of succeeded pods"),
            End::Failed(reason, message) => ("Failed", reason, message),
        };
        let mut conditions = list_at(object, &["status", "conditions"]).to_vec();
        let before = if kind == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
        for kind in [before, kind] {
            conditions.push(json!({
                "type": kind, "status": "True", "reason": reason, "message": message,
                "lastProbeTime": at, "lastTransitionTime": at,
            }));
        }
        set(&mut status, &["conditions"], json!(conditions));
        if end == End::Complete {
            set(&mut status, &["completionTime"], json!(at));
        }
    }
    super::daemonset::write_counts(cx, RESOURCE, key, object, status).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    /// `active`, `ok`, `bad`, `gone` (leaving), with `:INDEX`.
    fn pods(text: &str) -> Vec<(Rc<Pod>, bool)> {
        let one = |(at, word): (usize, &str)| {
            let (state, index) = word.split_once(':').unwrap_or((word, ""));
            let phase = match state {
                "ok" => "Succeeded",
                "bad" => "Failed",
                _ => "Running",
            };
            let pod = Pod::parse(&json!({
                "metadata": {"name": format!("p{at}"), "uid": format!("p{at}"), "annotations": {INDEX: index}},
                "status": {"phase": phase},
            }));
            (Rc::new(pod), state == "gone")
        };
        text.split_whitespace().enumerate().map(one).collect()
    }

    fn desired(parallelism: i64, completions: Option<i64>) -> Desired {
        Desired {
            parallelism,
            completions,
            indexed: false,
            backoff_limit: 1,
            suspended: false,
            started: None,
            deadline_seconds: None,
        }
    }

    #[test]
    fn until_enough_have_succeeded() {
        let failed = End::Failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        let rows = [
            (2, Some(3), "", 2, 0, None),
            (2, Some(3), "active", 1, 0, None),
            (2, Some(3), "active gone", 0, 0, None),
            (2, Some(3), "ok ok", 1, 0, None),
            (2, Some(3), "ok ok active active", 0, 1, None),
            (2, Some(3), "ok ok ok", 0, 0, Some(End::Complete)),
            (2, None, "ok active", 0, 0, None),
            (2, None, "ok", 0, 0, Some(End::Complete)),
            (1, Some(1), "bad", 1, 0, None),
            (1, Some(1), "bad bad active", 0, 1, Some(failed)),
        ];
        for (parallelism, completions, text, create, delete, end) in rows {
            let plan = plan(&desired(parallelism, completions), &pods(text), Time::from_unix(NOW));
            assert_eq!((plan.create.len(), plan.delete.len(), plan.end), (create, delete, end), "{text:?}");
        }
    }

    #[test]
    fn indexes_suspension_and_deadline() {
        let mut d = desired(3, Some(4));
        d.indexed = true;
        let now = Time::from_unix(NOW);
        assert_eq!(plan(&d, &pods("ok:0 active:2 bad:1"), now).create, [Some(1), Some(3)]);
        d.suspended = true;
        let stopped = plan(&d, &pods("active:0"), now);
        assert_eq!((stopped.create.len(), stopped.delete.len(), stopped.end), (0, 1, None));
        d.suspended = false;
        (d.started, d.deadline_seconds) = (Some(Time::from_unix(NOW - 10)), Some(15));
        assert_eq!(plan(&d, &pods("active:0"), now).again_in_ms, Some(5000));
        d.deadline_seconds = Some(10);
        assert!(matches!(plan(&d, &pods("active:0"), now).end, Some(End::Failed("DeadlineExceeded", _))));
    }
}
