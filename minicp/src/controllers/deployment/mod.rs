//! Deployments: one ReplicaSet per pod template, and the way from the old one to the new.

pub mod desired;
pub mod plan;
pub mod status;

use super::Context;
use super::events::About;
use super::frame::Key;
use super::frame::run::{Outcome, Work};
use super::seam::Deletion;
use super::view::apps::{DESIRED, MAX, REVISION, ReplicaSet, TEMPLATE_HASH};
use super::world::{Change, Res};
use desired::{Deployment, Strategy};
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, json, set};
use plan::{Plan, Resize, plan};
use std::rc::Rc;
use tokio::task::JoinSet;

const NAME: &str = "deployment-controller";
const RESOURCE: &str = "deployments.apps";
const SETS: &str = "replicasets.apps";

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    cx.start(tasks, NAME, route, |cx, key| Box::pin(async move { reconcile(&cx, &key).await }));
}

fn route(cx: &Context, work: &Work, change: &Change) {
    match change {
        Change::Deployment(sides) => sides.any().into_iter().for_each(|d| work.add(d.meta.key.clone())),
        Change::ReplicaSet(sides) => {
            for set in sides.each() {
                match &set.meta.controller {
                    Some(owner) if &*owner.kind == "Deployment" => {
                        work.add(Key { ns: set.meta.key.ns.clone(), name: owner.name.clone() });
                    }
                    Some(_) => {}
                    None => {
                        let world = cx.world.look();
                        let all = world.deployments.in_namespace(&set.meta.key.ns);
                        all.filter(|d| d.selector.matches(&set.meta.labels)).for_each(|d| work.add(d.meta.key.clone()));
                    }
                }
            }
        }
        // Recreate waits for the last old pod to be gone
        Change::Pod(sides) if sides.new.as_ref().is_none_or(|pod| pod.ended()) => {
            let world = cx.world.look();
            let owner = sides.any().and_then(|pod| {
                let set = Key { ns: pod.meta.key.ns.clone(), name: pod.meta.controller.as_ref()?.name.clone() };
                world.replica_sets.get(&set)?.meta.controller.clone()
            });
            if let (Some(owner), Some(pod)) = (owner, sides.any()) {
                work.add(Key { ns: pod.meta.key.ns.clone(), name: owner.name });
            }
        }
        _ => {}
    }
}

async fn reconcile(cx: &Context, key: &Key) -> Outcome {
    let object = match cx.api.get(RESOURCE, &key.ns, &key.name).await {
        Ok(object) => object,
        Err(status) if status.is_not_found() => return Ok(None),
        Err(status) => return Err(status),
    };
    let d = Deployment::parse(&object);
    if d.meta.deleting.is_none() {
        adopt(cx, key, &object, &d).await?;
    }
    let now = cx.api.now();
    let plan = {
        let world = cx.world.look();
        let sets: Vec<Rc<ReplicaSet>> =
            world.replica_sets.in_namespace(&key.ns).filter(|s| s.meta.controlled_by(&d.meta.uid)).cloned().collect();
        let old: Vec<&Rc<str>> = sets.iter().filter(|s| s.template != d.template).map(|s| &s.meta.uid).collect();
        let old_pods_run = d.strategy == Strategy::Recreate
            && world
                .pods
                .in_namespace(&key.ns)
                .any(|pod| !pod.ended() && pod.meta.controller.as_ref().is_some_and(|owner| old.contains(&&owner.uid)));
        plan(&d, &sets, old_pods_run, now)
    };
    execute(cx, key, &object, &d, plan).await
}

async fn execute(cx: &Context, key: &Key, object: &Value, d: &Deployment, plan: Plan) -> Outcome {
    let mut status = plan.status;
    let mut collided = false;
    if let Some(replicas) = plan.create {
        match create(cx, key, object, d, replicas, plan.revision).await? {
            Some(name) => {
                let message = format!("Created new replica set {name:?}");
                status::put(&mut status, "Progressing", "True", "NewReplicaSetCreated", message, cx.api.now());
            }
            None => collided = true,
        }
    }
    if let Some(new) = plan.new.as_ref().filter(|set| set.revision != plan.revision) {
        let patch = json!({"metadata": {"annotations": {REVISION: plan.revision.to_string()}}});
        patch_set(cx, new, patch).await?;
    }
    if plan.revision != d.revision && plan.revision > 0 {
        let patch = json!({"metadata": {"uid": &*d.meta.uid, "annotations": {REVISION: plan.revision.to_string()}}});
        let written = cx.api.merge_patch(RESOURCE, &key.ns, &key.name, None, patch).await?;
        cx.world.learn(Res::Deployments, &written);
    }
    for resize in &plan.resize {
        scale(cx, d, resize).await?;
    }
    for old in &plan.delete {
        let how = Deletion { uid: Some(old.meta.uid.clone()), propagation: Some("Background"), ..Deletion::default() };
        match cx.api.delete(SETS, &key.ns, &old.meta.key.name, how).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => return Err(status),
            _ => {}
        }
    }
    if collided || status != d.status {
        write_status(cx, key, d, &status, collided).await?;
    }
    Ok(if collided { Some(1) } else { plan.again_in_ms })
}

fn about(d: &Deployment) -> About {
    About { api_version: "apps/v1", kind: "Deployment", key: d.meta.key.clone(), uid: d.meta.uid.clone() }
}

/// Takes over ReplicaSets without a controller that match, lets go of ours that match no more.
async fn adopt(cx: &Context, key: &Key, object: &Value, d: &Deployment) -> Result<(), Status> {
    let selector = super::view::labels::Selector::parse(object.pointer("/spec/selector"));
    let (orphans, strangers) = {
        let world = cx.world.look();
        let sets = world.replica_sets.in_namespace(&key.ns).filter(|set| set.meta.deleting.is_none());
        let (fit, misfit): (Vec<_>, Vec<_>) = sets.cloned().partition(|set| selector.matches(&set.meta.labels));
        (
            fit.into_iter().filter(|set| set.meta.controller.is_none()).collect::<Vec<_>>(),
            misfit.into_iter().filter(|set| set.meta.controlled_by(&d.meta.uid)).collect::<Vec<_>>(),
        )
    };
    for set in orphans {
        patch_set(cx, &set, json!({"metadata": {"ownerReferences": [meta_reference(d)]}})).await?;
    }
    for set in strangers {
        patch_set(cx, &set, json!({"metadata": {"ownerReferences": null}})).await?;
    }
    Ok(())
}

fn meta_reference(d: &Deployment) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "name": &*d.meta.key.name, "uid": &*d.meta.uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Patches exactly this version of a ReplicaSet and learns the result.
async fn patch_set(cx: &Context, of: &ReplicaSet, mut patch: Value) -> Result<(), Status> {
    set(&mut patch, &["metadata", "resourceVersion"], json!(of.meta.revision.to_string()));
    let written = cx.api.merge_patch(SETS, &of.meta.key.ns, &of.meta.key.name, None, patch).await?;
    cx.world.learn(Res::ReplicaSets, &written);
    Ok(())
}

fn max_replicas(d: &Deployment) -> i64 {
    match d.strategy {
        Strategy::Rolling { surge, .. } => d.replicas.saturating_add(surge),
        Strategy::Recreate => d.replicas,
    }
}

async fn scale(cx: &Context, d: &Deployment, Resize { set: of, replicas }: &Resize) -> Result<(), Status> {
    let patch = json!({
        "metadata": {"annotations": {DESIRED: d.replicas.to_string(), MAX: max_replicas(d).to_string()}},
        "spec": {"replicas": replicas},
    });
    patch_set(cx, of, patch).await?;
    if of.replicas != *replicas {
        let way = if of.replicas < *replicas { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {} from {} to {replicas}", of.meta.key.name, of.replicas);
        cx.events.say(NAME, about(d), false, "ScalingReplicaSet", message);
    }
    Ok(())
}

/// Makes the ReplicaSet of the present template. `None`: its name is taken by a foreign one, count a collision.
async fn create(
    cx: &Context,
    key: &Key,
    object: &Value,
    d: &Deployment,
    replicas: i64,
    revision: i64,
) -> Result<Option<String>, Status> {
    let hash = template_hash(d.template, d.collisions);
    let name = format!("{}-{hash}", key.name);
    let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
    set(&mut template, &["metadata", "labels", TEMPLATE_HASH], json!(hash));
    let mut selector = object.pointer("/spec/selector").cloned().unwrap_or_default();
    set(&mut selector, &["matchLabels", TEMPLATE_HASH], json!(hash));
    let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
    let mut annotations = meta::annotations(object).clone();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    for (name, value) in [(REVISION, revision), (DESIRED, d.replicas), (MAX, max_replicas(d))] {
        annotations.insert(name.into(), json!(value.to_string()));
    }
    let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
    if d.min_ready_seconds > 0 {
        set(&mut spec, &["minReadySeconds"], json!(d.min_ready_seconds));
    }
    let replica_set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": &*key.ns, "labels": labels, "annotations": annotations,
            "ownerReferences": [meta_reference(d)],
        },
        "spec": spec,
    });
    match cx.api.create(SETS, &key.ns, replica_set).await {
        Ok(made) => {
            cx.world.learn(Res::ReplicaSets, &made);
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            cx.events.say(NAME, about(d), false, "ScalingReplicaSet", message);
            Ok(Some(name))
        }
        Err(status) if status.is_already_exists() => {
            let there = cx.api.get(SETS, &key.ns, &name).await?;
            let view = ReplicaSet::parse(&there);
            if view.meta.controlled_by(&d.meta.uid) && view.template == d.template {
                cx.world.learn(Res::ReplicaSets, &there);
                return Ok(Some(name));
            }
            Ok(None)
        }
        Err(status) => {
            cx.events.say(
                NAME,
                about(d),
                true,
                "ReplicaSetCreateError",
                format!("Failed to create new replica set {name:?}: {status}"),
            );
            Err(status)
        }
    }
}

/// A short name for a template, in upstream's alphabet (no vowels, nothing that looks alike).
pub fn template_hash(template: u64, collisions: i64) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = template.wrapping_add(collisions.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut text = String::with_capacity(10);
    for _ in 0..10 {
        let at = usize::try_from(rest % 27).unwrap_or(0);
        text.push(char::from(ALPHABET.get(at).copied().unwrap_or(b'x')));
        rest /= 27;
    }
    text
}

async fn write_status(
    cx: &Context,
    key: &Key,
    d: &Deployment,
    status: &desired::Status,
    collided: bool,
) -> Result<(), Status> {
    let time = |t: Option<mote_api::time::Time>| t.map_or(Value::Null, |t| json!(t.to_string()));
    let conditions: Vec<Value> = status
        .conditions
        .iter()
        .map(|c| {
            json!({
                "type": c.kind, "status": c.status, "reason": c.reason, "message": c.message,
                "lastUpdateTime": time(c.updated), "lastTransitionTime": time(c.changed),
            })
        })
        .collect();
    let count = |n: i64| if n == 0 { Value::Null } else { json!(n) };
    let patch = json!({"metadata": {"uid": &*d.meta.uid}, "status": {
        "observedGeneration": status.observed_generation, "replicas": count(status.replicas),
        "updatedReplicas": count(status.updated), "readyReplicas": count(status.ready),
        "availableReplicas": count(status.available), "unavailableReplicas": count(status.unavailable),
        "collisionCount": count(d.collisions + i64::from(collided)), "conditions": conditions,
    }});
    let written = cx.api.merge_patch(RESOURCE, &key.ns, &key.name, Some("status"), patch).await?;
    cx.world.learn(Res::Deployments, &written);
    Ok(())
}
