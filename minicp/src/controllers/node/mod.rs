//! Nodes: a network for each, a verdict when the heartbeat stops, taints by condition, eviction from lost nodes.
//!
//! Heartbeats are timed by our own monotonic clock from when we *saw* them change: a board's clock may be years off.

pub mod cidr;
pub mod plan;

use super::Context;
use super::events::About;
use super::frame::Key;
use super::frame::run::{Outcome, Work};
use super::pods::delete_pod;
use super::view::node::{Node, Truth};
use super::view::pod::Pod;
use super::world::{Change, LEASE_NAMESPACE, Res};
use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::{Value, json, list_at, str_at};
use plan::{Beat, plan};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::task::JoinSet;

const NAME: &str = "node-controller";

/// What we saw of a node's heartbeat, and when.
#[derive(Clone, Copy)]
struct Seen {
    renewed: Option<Time>,
    /// Milliseconds of the queue's clock.
    at_ms: u64,
}

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    let beats: Rc<RefCell<BTreeMap<Rc<str>, Seen>>> = Rc::default();
    let (routed, own) = (beats.clone(), cx.clone());
    let work = Work::new();
    let keys = work.clone();
    cx.world.route(move |change| route(&own, &keys, &routed, change));
    let (cx, keys) = (cx.clone(), work);
    let turn: Rc<tokio::sync::Mutex<()>> = Rc::default();
    tasks.spawn_local(async move {
        cx.world.wait_synced().await;
        let at_once = cx.settings.limits.at_once;
        let clock = keys.clone();
        super::frame::run::run(NAME, keys, at_once, move |key| {
            let (cx, beats, clock, turn) = (cx.clone(), beats.clone(), clock.clone(), turn.clone());
            Box::pin(async move { reconcile(&cx, &beats, &clock, &turn, &key).await })
        })
        .await;
    });
}

fn route(cx: &Context, work: &Work, beats: &RefCell<BTreeMap<Rc<str>, Seen>>, change: &Change) {
    match change {
        Change::Node(sides) => {
            if let (None, Some(gone)) = (&sides.new, &sides.old) {
                beats.borrow_mut().remove(gone.name());
            }
            if let (Some(old), Some(new)) = (&sides.old, &sides.new)
                && new.heartbeat != old.heartbeat
                && let Some(seen) = beats.borrow_mut().get_mut(new.name())
            {
                // who writes its status lives, whatever became of its lease
                seen.at_ms = work.now_ms();
            }
            sides.any().into_iter().for_each(|node| work.add(node.meta.key.clone()));
        }
        Change::Lease(sides) => {
            let Some(lease) = &sides.new else { return };
            let name = lease.meta.key.name.clone();
            let known = beats.borrow().get(&name).copied().filter(|seen| seen.renewed == lease.renewed);
            let seen = known.unwrap_or(Seen { renewed: lease.renewed, at_ms: work.now_ms() });
            let before = beats.borrow_mut().insert(name.clone(), seen);
            // a beat of a healthy node only moves the deadline: the pending look finds that out
            let world = cx.world.look();
            let node = world.nodes.get(&Key { ns: "".into(), name: name.clone() });
            if before.is_none() || node.is_none_or(|node| node.ready != Some(Truth::True)) {
                work.add(Key { ns: "".into(), name });
            }
        }
        Change::Pod(sides) => {
            // a pod that comes to a tainted node has to leave it in time
            let moved = match (&sides.old, &sides.new) {
                (None, Some(new)) => new.node.clone(),
                (Some(old), Some(new)) if old.node != new.node => new.node.clone(),
                _ => None,
            };
            if let Some(name) = moved {
                work.add(Key { ns: "".into(), name });
            }
        }
        _ => {}
    }
}

async fn reconcile(
    cx: &Context,
    beats: &RefCell<BTreeMap<Rc<str>, Seen>>,
    clock: &Work,
    turn: &tokio::sync::Mutex<()>,
    key: &Key,
) -> Outcome {
    let Some(node) = cx.world.look().nodes.get(key).cloned() else { return Ok(None) };
    if node.pod_cidrs.is_empty() {
        cidr::assign(cx, turn, &node).await?;
    }
    let lease = cx.world.look().leases.get(&Key { ns: LEASE_NAMESPACE.into(), name: key.name.clone() }).cloned();
    let now_ms = clock.now_ms();
    let seen = {
        let mut beats = beats.borrow_mut();
        *beats.entry(key.name.clone()).or_insert(Seen { renewed: lease.and_then(|l| l.renewed), at_ms: now_ms })
    };
    let pods: Vec<Rc<Pod>> = {
        let world = cx.world.look();
        let bound = world.pods.iter().filter(|pod| pod.node.as_deref() == Some(&key.name) && !pod.mirror);
        bound.filter(|pod| !world.pods.leaving(pod) && !pod.ended()).cloned().collect()
    };
    let beat = Beat { silent_ms: now_ms.saturating_sub(seen.at_ms) };
    let plan = plan(&node, beat, &pods, &cx.settings.limits, cx.api.now());
    let lost = plan.unknown;
    if lost {
        write_unknown(cx, &node).await?;
    }
    if let Some(taints) = plan.taints {
        let version = cx.world.look().nodes.get(key).map_or(node.meta.revision, |n| n.meta.revision);
        let patch = json!({"metadata": {"resourceVersion": version.to_string()}, "spec": {"taints": taints}});
        let written = cx.api.merge_patch("nodes", "", &key.name, None, patch).await?;
        cx.world.learn(Res::Nodes, &written);
    }
    for pod in &plan.unready {
        mark_unready(cx, pod).await?;
    }
    for pod in &plan.evict {
        delete_pod(cx, pod, None).await?;
        let about = About { api_version: "v1", kind: "Pod", key: pod.meta.key.clone(), uid: pod.meta.uid.clone() };
        let message = format!("Marking for deletion Pod {}", pod.meta.key);
        cx.events.say("taint-eviction-controller", about, false, "TaintManagerEviction", message);
    }
    Ok(plan.again_in_ms)
}

/// The node is silent: all its conditions are Unknown until it speaks again.
async fn write_unknown(cx: &Context, node: &Node) -> Result<(), Status> {
    let object = cx.api.get("nodes", "", node.name()).await?;
    let now = cx.api.now().to_string();
    let mut conditions: Vec<Value> = list_at(&object, &["status", "conditions"]).to_vec();
    if !conditions.iter().any(|c| str_at(c, &["type"]) == "Ready") {
        conditions.push(json!({"type": "Ready", "status": ""}));
    }
    for condition in &mut conditions {
        if str_at(condition, &["type"]) == "NetworkUnavailable" || str_at(condition, &["status"]) == "Unknown" {
            continue;
        }
        let fields = mote_api::tree::as_map(condition);
        fields.insert("status".into(), json!("Unknown"));
        fields.insert("reason".into(), json!("NodeStatusUnknown"));
        fields.insert("message".into(), json!("Kubelet stopped posting node status."));
        fields.insert("lastTransitionTime".into(), json!(now));
    }
    let patch = json!({
        // of the state that was judged: a node that spoke since then is not lost
        "metadata": {"resourceVersion": node.meta.revision.to_string()},
        "status": {"conditions": conditions},
    });
    let written = cx.api.merge_patch("nodes", "", node.name(), Some("status"), patch).await?;
    cx.world.learn(Res::Nodes, &written);
    let about = About { api_version: "v1", kind: "Node", key: node.meta.key.clone(), uid: node.meta.uid.clone() };
    let message = format!("Node {} status is now: NodeNotReady", node.name());
    cx.events.say(NAME, about, false, "NodeNotReady", message);
    Ok(())
}

/// A pod of a lost node serves nobody: Services stop sending to it.
async fn mark_unready(cx: &Context, pod: &Pod) -> Result<(), Status> {
    let object = match cx.api.get("pods", &pod.meta.key.ns, &pod.meta.key.name).await {
        Ok(object) if mote_api::meta::uid(&object) == &*pod.meta.uid => object,
        Ok(_) => return Ok(()),
        Err(status) if status.is_not_found() => return Ok(()),
        Err(status) => return Err(status),
    };
    let mut conditions: Vec<Value> = list_at(&object, &["status", "conditions"]).to_vec();
    for condition in conditions.iter_mut().filter(|c| str_at(c, &["type"]) == "Ready") {
        let fields = mote_api::tree::as_map(condition);
        fields.insert("status".into(), json!("False"));
        fields.insert("lastTransitionTime".into(), json!(cx.api.now().to_string()));
    }
    let patch = json!({
        "metadata": {"resourceVersion": mote_api::meta::resource_version(&object)},
        "status": {"conditions": conditions},
    });
    let written = cx.api.merge_patch("pods", &pod.meta.key.ns, &pod.meta.key.name, Some("status"), patch).await?;
    cx.world.learn(Res::Pods, &written);
    let about = About { api_version: "v1", kind: "Pod", key: pod.meta.key.clone(), uid: pod.meta.uid.clone() };
    cx.events.say(NAME, about, true, "NodeNotReady", "Node is not ready".into());
    Ok(())
}
