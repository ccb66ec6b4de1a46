//! CronJobs: at each moment of a schedule a Job of the template, named after the moment so that none is made twice.
//!
//! A moment that was missed (the node was off) is made up for once, the newest only, unless it is older than the starting deadline.

use super::Context;
use super::cron::Schedule;
use super::events::About;
use super::frame::Key;
use super::frame::run::{Outcome, Work};
use super::seam::Deletion;
use super::view::batch::Job;
use super::view::time_at;
use super::world::{Change, Res};
use mote_api::meta;
use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::{Value, bool_at, i64_at, json, set, str_at};
use std::rc::Rc;
use tokio::task::JoinSet;

const NAME: &str = "cronjob-controller";
const RESOURCE: &str = "cronjobs.batch";
const JOBS: &str = "jobs.batch";
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    cx.start(tasks, NAME, route, |cx, key| Box::pin(async move { reconcile(&cx, &key).await }));
}

fn route(_: &Context, work: &Work, change: &Change) {
    match change {
        Change::CronJob(sides) => sides.any().into_iter().for_each(|c| work.add(c.meta.key.clone())),
        Change::Job(sides) => sides.each().for_each(|job| {
            if let Some(owner) = job.meta.controller.as_ref().filter(|owner| &*owner.kind == "CronJob") {
                work.add(Key { ns: job.meta.key.ns.clone(), name: owner.name.clone() });
            }
        }),
        _ => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Concurrency {
    Allow,
    Forbid,
    Replace,
}

struct Desired {
    schedule: Schedule,
    /// When it last ran, or was made.
    since: Time,
    deadline_seconds: Option<i64>,
    concurrency: Concurrency,
    suspended: bool,
    /// Ended Jobs to keep: successful, failed.
    keep: [i64; 2],
}

#[derive(Default)]
struct Plan {
    /// Make the Job of this moment.
    start: Option<Time>,
    /// A moment was due, but the Job before it still runs.
    held_back: bool,
    delete: Vec<Key>,
    next: Option<Time>,
}

/// Pure. `jobs` are those of this CronJob that are not leaving.
fn plan(d: &Desired, jobs: &[Rc<Job>], now: Time) -> Plan {
    let mut plan = Plan::default();
    for (failed, keep) in [(false, d.keep[0]), (true, d.keep[1])] {
        let mut ended: Vec<&Rc<Job>> = jobs.iter().filter(|j| j.end.is_some_and(|e| e.failed == failed)).collect();
        ended.sort_by_key(|job| (job.meta.created, job.meta.key.name.clone()));
        let surplus = ended.len().saturating_sub(usize::try_from(keep).unwrap_or(0));
        plan.delete.extend(ended.into_iter().take(surplus).map(|job| job.meta.key.clone()));
    }
    if d.suspended {
        return plan;
    }
    plan.next = d.schedule.next(now);
    let oldest = d.deadline_seconds.map(|limit| Time::from_unix(now.unix().saturating_sub(limit).saturating_sub(1)));
    let due = d.schedule.last(oldest.map_or(d.since, |oldest| oldest.max(d.since)), now);
    let running: Vec<&Rc<Job>> = jobs.iter().filter(|job| job.end.is_none()).collect();
    match d.concurrency {
        _ if due.is_none() => {}
        Concurrency::Forbid if !running.is_empty() => plan.held_back = true,
        Concurrency::Replace => {
            plan.delete.extend(running.into_iter().map(|job| job.meta.key.clone()));
            plan.start = due;
        }
        Concurrency::Allow | Concurrency::Forbid => plan.start = due,
    }
    plan
}

fn desired(object: &Value, schedule: Schedule) -> Desired {
    let spec = |name: &str| i64_at(object, &["spec", name]);
    let last = time_at(object, &["status", "lastScheduleTime"]);
    Desired {
        schedule,
        since: last.or(time_at(object, &["metadata", "creationTimestamp"])).unwrap_or_default(),
        deadline_seconds: spec("startingDeadlineSeconds"),
        concurrency: match str_at(object, &["spec", "concurrencyPolicy"]) {
            "Forbid" => Concurrency::Forbid,
            "Replace" => Concurrency::Replace,
            _ => Concurrency::Allow,
        },
        suspended: bool_at(object, &["spec", "suspend"]).unwrap_or(false),
        keep: [spec("successfulJobsHistoryLimit").unwrap_or(3), spec("failedJobsHistoryLimit").unwrap_or(1)],
    }
}

async fn reconcile(cx: &Context, key: &Key) -> Outcome {
    let object = match cx.api.get(RESOURCE, &key.ns, &key.name).await {
        Err(status) if status.is_not_found() => return Ok(None),
        other => other?,
    };
    if meta::is_deleting(&object) {
        return Ok(None);
    }
    let uid: Rc<str> = meta::uid(&object).into();
    let about = About { api_version: "batch/v1", kind: "CronJob", key: key.clone(), uid };
    let say = |warning, reason, text| cx.events.say(NAME, about.clone(), warning, reason, text);
    let schedule = match Schedule::parse(str_at(&object, &["spec", "schedule"])) {
        Ok(schedule) => schedule,
        Err(why) => {
            let text = str_at(&object, &["spec", "schedule"]);
            say(true, "UnparseableSchedule", format!("unparseable schedule: {text:?} : {why}"));
            return Ok(None);
        }
    };
    let zone = str_at(&object, &["spec", "timeZone"]);
    if !matches!(zone, "" | "UTC" | "Etc/UTC") {
        say(true, "UnknownTimeZone", format!("invalid timeZone: {zone:?}: only UTC is known here"));
        return Ok(None);
    }
    let now = cx.api.now();
    let jobs = own_jobs(cx, key, &about.uid);
    let plan = plan(&desired(&object, schedule), &jobs, now);
    for job in &plan.delete {
        delete(cx, &about, job, &jobs).await?;
    }
    if plan.held_back {
        let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
        say(false, "JobAlreadyActive", text.into());
    }
    if let Some(at) = plan.start {
        start(cx, &about, &object, at).await?;
    }
    write_status(cx, key, &object, plan.start, &own_jobs(cx, key, &about.uid)).await?;
    let wait = plan.next.map(|at| at.seconds_since(now).max(1));
    Ok(wait.and_then(|seconds| u64::try_from(seconds).ok()).map(|seconds| seconds.saturating_mul(1000)))
}

fn own_jobs(cx: &Context, key: &Key, uid: &str) -> Vec<Rc<Job>> {
    let world = cx.world.look();
    let own = world.jobs.in_namespace(&key.ns).filter(|job| job.meta.controlled_by(uid) && !world.jobs.leaving(job));
    own.cloned().collect()
}

async fn delete(cx: &Context, about: &About, job: &Key, jobs: &[Rc<Job>]) -> Result<(), Status> {
    let uid = jobs.iter().find(|j| j.meta.key == *job).map(|j| j.meta.uid.clone());
    let how = Deletion { uid, propagation: Some("Background"), ..Deletion::default() };
    match cx.api.delete(JOBS, &job.ns, &job.name, how).await {
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(status) => Err(status),
        Ok(()) => {
            cx.events.say(NAME, about.clone(), false, "SuccessfulDelete", format!("Deleted job {}", job.name));
            Ok(())
        }
    }
}

/// Makes the Job of a moment; one that is already there was made by us before a restart.
async fn start(cx: &Context, about: &About, object: &Value, at: Time) -> Result<(), Status> {
    let part = |name: &str| object.pointer(&format!("/spec/jobTemplate/{name}")).cloned().filter(|v| !v.is_null());
    let name = format!("{}-{}", about.key.name, at.unix().div_euclid(60));
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name, "namespace": &*about.key.ns,
            "ownerReferences": [{
                "apiVersion": about.api_version, "kind": about.kind, "name": &*about.key.name, "uid": &*about.uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": part("spec").unwrap_or_default(),
    });
    for name in ["labels", "annotations"] {
        if let Some(value) = part(&format!("metadata/{name}")) {
            set(&mut job, &["metadata", name], value);
        }
    }
    set(&mut job, &["metadata", "annotations", SCHEDULED], json!(at.to_string()));
    match cx.api.create(JOBS, &about.key.ns, job).await {
        Ok(made) => {
            cx.world.learn(Res::Jobs, &made);
            cx.events.say(NAME, about.clone(), false, "SuccessfulCreate", format!("Created job {name}"));
            Ok(())
        }
        Err(status) if status.is_already_exists() => Ok(()),
        Err(status) => {
            cx.events.say(NAME, about.clone(), true, "FailedCreate", format!("Error creating job: {status}"));
            Err(status)
        }
    }
}

async fn write_status(
    cx: &Context,
    key: &Key,
    object: &Value,
    started: Option<Time>,
    jobs: &[Rc<Job>],
) -> Result<(), Status> {
    let mut running: Vec<&Rc<Job>> = jobs.iter().filter(|job| job.end.is_none()).collect();
    running.sort_by_key(|job| (job.meta.created, job.meta.key.name.clone()));
    let active: Vec<Value> = running
        .iter()
        .map(|job| {
            json!({
                "apiVersion": "batch/v1", "kind": "Job", "name": &*job.meta.key.name, "namespace": &*key.ns,
                "uid": &*job.meta.uid,
            })
        })
        .collect();
    // none is written as an absent list, as clients expect
    let had = object.pointer("/status/active").is_some();
    let mut status = json!({});
    if had || !active.is_empty() {
        set(&mut status, &["active"], if active.is_empty() { Value::Null } else { json!(active) });
    }
    if let Some(at) = started {
        set(&mut status, &["lastScheduleTime"], json!(at.to_string()));
    }
    let before = time_at(object, &["status", "lastSuccessfulTime"]);
    let best = jobs.iter().filter_map(|job| job.end.filter(|e| !e.failed)?.at).chain(before).max();
    if let Some(best) = best {
        set(&mut status, &["lastSuccessfulTime"], json!(best.to_string()));
    }
    super::daemonset::write_counts(cx, RESOURCE, key, object, status).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2027-01-15T08:00:00Z
    const NOW: i64 = 1_800_000_000;

    fn job(at: usize, state: &str) -> Rc<Job> {
        let condition = match state {
            "ok" => "Complete",
            "bad" => "Failed",
            _ => "Suspended",
        };
        Rc::new(Job::parse(&json!({
            "metadata": {"name": format!("j{at}"), "uid": format!("j{at}")},
            "status": {"conditions": [{"type": condition, "status": "True"}]},
        })))
    }

    fn desired(schedule: &str, since: i64, concurrency: Concurrency) -> Desired {
        let schedule = Schedule::parse(schedule).unwrap();
        let since = Time::from_unix(NOW + since);
        Desired { schedule, since, deadline_seconds: None, concurrency, suspended: false, keep: [1, 1] }
    }

    #[test]
    fn starts_what_is_due() {
        use Concurrency::{Allow, Forbid, Replace};
        let rows = [
            (-30, Allow, "", None, Some(0), 0, false),
            (-600, Allow, "", None, Some(0), 0, false),
            (0, Allow, "", None, None, 0, false),
            (-60, Allow, "run", None, Some(0), 0, false),
            (-60, Forbid, "run", None, None, 0, true),
            (-60, Forbid, "ok", None, Some(0), 0, false),
            (-60, Replace, "run", None, Some(0), 1, false),
            (-60, Replace, "ok", None, Some(0), 0, false),
            (0, Replace, "run ok ok bad bad bad", None, None, 3, false),
            (-60, Allow, "", Some(0), Some(0), 0, false),
        ];
        for (since, concurrency, jobs, deadline, start, deleted, held_back) in rows {
            let jobs: Vec<_> = jobs.split_whitespace().enumerate().map(|(at, state)| job(at, state)).collect();
            let d = Desired { deadline_seconds: deadline, ..desired("* * * * *", since, concurrency) };
            let plan = plan(&d, &jobs, Time::from_unix(NOW));
            let start = start.map(|at: i64| Time::from_unix(NOW + at));
            assert_eq!(
                (plan.start, plan.delete.len(), plan.held_back),
                (start, deleted, held_back),
                "{since} {concurrency:?}"
            );
            assert_eq!(plan.next, Some(Time::from_unix(NOW + 60)));
        }
    }

    #[test]
    fn too_late_is_left_out() {
        let now = Time::from_unix(NOW + 1800);
        let late = |limit| Desired { deadline_seconds: limit, ..desired("@hourly", -60, Concurrency::Allow) };
        assert_eq!(plan(&late(None), &[], now).start, Some(Time::from_unix(NOW)));
        assert_eq!(plan(&late(Some(1800)), &[], now).start, Some(Time::from_unix(NOW)));
        assert_eq!(plan(&late(Some(1799)), &[], now).start, None);
        let asleep = Desired { suspended: true, ..late(None) };
        let plan = plan(&asleep, &[job(0, "ok"), job(1, "ok")], now);
        assert_eq!((plan.start, plan.next, plan.delete.len()), (None, None, 1));
    }
}
