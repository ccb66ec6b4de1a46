//! ReplicaSets: so many pods of a template, no fewer, no more.

pub mod plan;

use super::Context;
use super::events::About;
use super::frame::Key;
use super::frame::run::Outcome;
use super::frame::run::Work;
use super::pods::{PodOwner, create_pods, delete_pods, set_controller};
use super::view::apps::{Counts, ReplicaSet};
use super::world::{Change, Res};
use mote_api::status::Status;
use mote_api::tree::{Value, i64_at, json, list_at, str_at};
use plan::{Candidate, plan};
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::task::JoinSet;

const NAME: &str = "replicaset-controller";
const RESOURCE: &str = "replicasets.apps";

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    cx.start(tasks, NAME, route, |cx, key| Box::pin(async move { reconcile(&cx, &key).await }));
}

fn route(cx: &Context, work: &Work, change: &Change) {
    match change {
        Change::ReplicaSet(sides) => sides.any().into_iter().for_each(|set| work.add(set.meta.key.clone())),
        Change::Pod(sides) => {
            for pod in sides.each() {
                match &pod.meta.controller {
                    Some(owner) if &*owner.kind == "ReplicaSet" => {
                        work.add(Key { ns: pod.meta.key.ns.clone(), name: owner.name.clone() });
                    }
                    Some(_) => {}
                    None => {
                        let world = cx.world.look();
                        let sets = world.replica_sets.in_namespace(&pod.meta.key.ns);
                        sets.filter(|set| set.selector.matches(&pod.meta.labels))
                            .for_each(|set| work.add(set.meta.key.clone()));
                    }
                }
            }
        }
        _ => {}
    }
}

async fn reconcile(cx: &Context, key: &Key) -> Outcome {
    let now = cx.api.now();
    let (set, plan) = {
        let world = cx.world.look();
        let Some(set) = world.replica_sets.get(key).cloned() else { return Ok(None) };
        let pods = world.pods.in_namespace(&key.ns).filter(|pod| {
            pod.meta.controlled_by(&set.meta.uid)
                || (pod.meta.controller.is_none() && set.selector.matches(&pod.meta.labels))
        });
        let pods: Vec<Candidate> =
            pods.map(|pod| Candidate { pod: pod.clone(), leaving: world.pods.leaving(pod) }).collect();
        let plan = plan(&set, &pods, &crowds(&world, &set), cx.settings.limits.burst_max, now);
        (set, plan)
    };
    let about = About { api_version: "apps/v1", kind: "ReplicaSet", key: key.clone(), uid: set.meta.uid.clone() };
    let owner = PodOwner { about, component: NAME };
    for pod in &plan.adopt {
        set_controller(cx, pod, Some(&owner)).await?;
    }
    for pod in &plan.release {
        set_controller(cx, pod, None).await?;
    }
    let mut failure = delete_pods(cx, &owner, &plan.delete).await.err();
    if plan.create > 0 {
        let object = cx.api.get(RESOURCE, &key.ns, &key.name).await?;
        if mote_api::meta::uid(&object) == &*set.meta.uid
            && i64_at(&object, &["spec", "replicas"]) == Some(set.replicas)
        {
            let template = object.pointer("/spec/template").cloned().unwrap_or_default();
            failure = create_pods(cx, &owner, &template, plan.create).await.err().or(failure);
        }
    }
    write_status(cx, &set, plan.status, failure.as_ref()).await?;
    failure.map_or(Ok(plan.again_in_ms), Err)
}

/// Active pods per node of all ReplicaSets that share the controller of this one: a rollout takes pods from crowded nodes first.
fn crowds(world: &super::world::Caches, set: &ReplicaSet) -> BTreeMap<Rc<str>, usize> {
    let mut related = BTreeMap::new();
    let owner = set.meta.controller.as_ref().map(|owner| &owner.uid);
    let sets: Vec<&Rc<str>> = world
        .replica_sets
        .in_namespace(&set.meta.key.ns)
        .filter(|other| {
            other.meta.uid == set.meta.uid
                || (owner.is_some() && other.meta.controller.as_ref().map(|o| &o.uid) == owner)
        })
        .map(|other| &other.meta.uid)
        .collect();
    for pod in world.pods.in_namespace(&set.meta.key.ns) {
        let related_pod = pod.meta.controller.as_ref().is_some_and(|o| sets.contains(&&o.uid));
        if let (true, false, Some(node)) = (related_pod, pod.ended() || world.pods.leaving(pod), &pod.node) {
            *related.entry(node.clone()).or_insert(0) += 1;
        }
    }
    related
}

/// Writes the counts if they changed, and condition ReplicaFailure while pods cannot be made.
async fn write_status(cx: &Context, set: &ReplicaSet, counts: Counts, failure: Option<&Status>) -> Result<(), Status> {
    let live = cx.world.look().replica_sets.get(&set.meta.key).map(|set| set.status);
    if live == Some(counts) && failure.is_none() {
        return Ok(());
    }
    let object = match cx.api.get(RESOURCE, &set.meta.key.ns, &set.meta.key.name).await {
        Ok(object) if mote_api::meta::uid(&object) == &*set.meta.uid => object,
        Ok(_) => return Ok(()),
        Err(status) if status.is_not_found() => return Ok(()),
        Err(status) => return Err(status),
    };
    let others: Vec<&Value> = list_at(&object, &["status", "conditions"])
        .iter()
        .filter(|c| str_at(c, &["type"]) != "ReplicaFailure")
        .collect();
    let mut status = json!({
        "replicas": counts.replicas, "fullyLabeledReplicas": counts.labelled, "readyReplicas": counts.ready,
        "availableReplicas": counts.available, "observedGeneration": counts.observed_generation,
    });
    let mut conditions = json!(others);
    if let (Some(failure), Some(list)) = (failure, conditions.as_array_mut()) {
        list.push(json!({
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure.message,
            "lastTransitionTime": cx.api.now().to_string(),
        }));
    }
    if conditions.as_array().is_some_and(|list| !list.is_empty()) {
        mote_api::tree::set(&mut status, &["conditions"], conditions);
    } else {
        mote_api::tree::set(&mut status, &["conditions"], Value::Null);
    }
    let patch = json!({"metadata": {"resourceVersion": mote_api::meta::resource_version(&object)}, "status": status});
    let written = cx.api.merge_patch(RESOURCE, &set.meta.key.ns, &set.meta.key.name, Some("status"), patch).await?;
    cx.world.learn(Res::ReplicaSets, &written);
    Ok(())
}
