//! The scheduler: gives every pod without a node the best one, by what pods ask for and nodes have left.
//!
//! One task: queue -> [`plan::plan`] (pure, over the [`snapshot::Snapshot`] that routes keep up to date) -> assume -> bind, many
//! binds in flight at once. A failed bind takes the assumption back. Planning and parking happen without an await in between,
//! so no change of the world can be missed.

pub mod plan;
pub mod queue;
pub mod snapshot;
pub mod suits;
pub mod terms;

use crate::api::admit::GATED;
use crate::controllers::Context;
use crate::controllers::events::About;
use crate::controllers::frame::Key;
use crate::controllers::view::node::Node;
use crate::controllers::view::pod::Pod;
use crate::controllers::world::{Change, Res, Sides};
use mote_api::status::Status;
use mote_api::tree::{Value, json, list_at, str_at};
use plan::{Decision, plan};
use queue::{Next, Queue};
use snapshot::Snapshot;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The scheduler's name in pods and events.
const NAME: &str = "default-scheduler";
/// Binds and status writes under way at once.
const IN_FLIGHT_MAX: usize = 128;
/// Pods planned before others of this thread get their turn.
const TURN: usize = 16;
const NO_DEADLINE: Duration = Duration::from_secs(86_400 * 365);

struct Core {
    queue: RefCell<Queue>,
    snapshot: RefCell<Snapshot>,
    news: Notify,
    start: Instant,
}

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    let core = Rc::new(Core {
        queue: RefCell::default(),
        snapshot: RefCell::default(),
        news: Notify::new(),
        start: Instant::now(),
    });
    let routed = core.clone();
    let teller = cx.clone();
    cx.world.route(move |change| {
        routed.route(change);
        if let Some(pod) = newly_gated(change) {
            teller.events.say(NAME, about(pod), true, "FailedScheduling", GATED.into());
        }
    });
    let cx = cx.clone();
    tasks.spawn_local(async move {
        cx.world.wait_synced().await;
        run(&cx, &core).await;
    });
}

impl Core {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn route(&self, change: &Change) {
        match change {
            Change::Pod(sides) => self.route_pod(sides),
            Change::Node(sides) => self.route_node(sides),
            _ => return,
        }
        self.news.notify_one();
    }

    fn route_pod(&self, sides: &Sides<Pod>) {
        let now = self.now_ms();
        let mut queue = self.queue.borrow_mut();
        let mut snapshot = self.snapshot.borrow_mut();
        if let Some(old) = &sides.old
            && sides.new.as_ref().is_none_or(|new| new.meta.uid != old.meta.uid)
        {
            queue.remove(&old.meta.key);
            snapshot.remove_pod(&old.meta.uid);
            queue.wake(now);
        }
        let Some(pod) = &sides.new else { return };
        match &pod.node {
            _ if pod.ended() => {
                queue.remove(&pod.meta.key);
                snapshot.remove_pod(&pod.meta.uid);
                queue.wake(now);
            }
            Some(node) => {
                let moved =
                    sides.old.as_ref().is_none_or(|old| old.node.is_none() || old.meta.labels != pod.meta.labels);
                queue.remove(&pod.meta.key);
                snapshot.place(pod.clone(), node.clone());
                if moved {
                    queue.wake(now); // somebody may want to be with it
                }
            }
            None if waits(pod) => {
                let known = sides.old.as_ref().is_some_and(|old| waits(old) && same_to_us(old, pod));
                if !known {
                    queue.add(&pod.meta.key, pod.priority, now);
                }
            }
            None => queue.remove(&pod.meta.key),
        }
    }

    fn route_node(&self, sides: &Sides<Node>) {
        let mut snapshot = self.snapshot.borrow_mut();
        match (&sides.old, &sides.new) {
            (_, Some(node)) => snapshot.set_node(node.clone()),
            (Some(old), None) => snapshot.remove_node(old.name()),
            (None, None) => {}
        }
        let same = matches!((&sides.old, &sides.new), (Some(old), Some(new)) if same_node(old, new));
        if !same {
            self.queue.borrow_mut().wake(self.now_ms());
        }
    }
}

/// A pod that came with gates: it is not ours to place before they are gone, and `kubectl describe` should say so.
fn newly_gated(change: &Change) -> Option<&Pod> {
    let Change::Pod(sides) = change else { return None };
    let new = sides.new.as_deref().filter(|pod| pod.gated && pod.node.is_none() && pod.meta.deleting.is_none())?;
    let seen = sides.old.as_ref().is_some_and(|old| old.meta.uid == new.meta.uid);
    (!seen).then_some(new)
}

/// It is ours to place.
fn waits(pod: &Pod) -> bool {
    pod.node.is_none()
        && pod.meta.deleting.is_none()
        && !pod.gated
        && !pod.ended()
        && (&*pod.scheduler == NAME || pod.scheduler.is_empty())
}

/// Only its status changed (by ourselves, mostly): no reason to try again.
fn same_to_us(old: &Pod, new: &Pod) -> bool {
    old.meta.uid == new.meta.uid && old.meta.generation == new.meta.generation && old.meta.labels == new.meta.labels
}

fn same_node(old: &Node, new: &Node) -> bool {
    old.meta.labels == new.meta.labels
        && old.allocatable == new.allocatable
        && old.taints == new.taints
        && old.unschedulable == new.unschedulable
        && old.ready == new.ready
}

async fn run(cx: &Context, core: &Rc<Core>) {
    let mut writes: JoinSet<()> = JoinSet::new();
    let mut from = 0usize;
    loop {
        let mut deadline = NO_DEADLINE;
        let mut planned = 0;
        while writes.len() < IN_FLIGHT_MAX && planned < TURN {
            let now = core.now_ms();
            let next = core.queue.borrow_mut().next(now);
            match next {
                Next::Pod(key) => from = from.wrapping_add(one(cx, core, &key, from, &mut writes)),
                Next::Wait(until) => {
                    deadline = Duration::from_millis(until.saturating_sub(now));
                    break;
                }
                Next::Idle => break,
            }
            planned += 1;
        }
        if planned == TURN {
            tokio::task::yield_now().await;
            while writes.try_join_next().is_some() {}
            if writes.len() < IN_FLIGHT_MAX {
                continue;
            }
        }
        tokio::select! {
            biased;
            Some(_) = writes.join_next(), if !writes.is_empty() => {}
            () = core.news.notified() => {}
            () = tokio::time::sleep(deadline) => {}
        }
    }
}

/// Decides for one pod and starts the write that follows; gives how many nodes were looked at.
fn one(cx: &Context, core: &Rc<Core>, key: &Key, from: usize, writes: &mut JoinSet<()>) -> usize {
    let pod = {
        let world = cx.world.look();
        world.pods.get(key).filter(|pod| waits(pod) && !world.pods.leaving(pod)).cloned()
    };
    let Some(pod) = pod else {
        core.queue.borrow_mut().remove(key);
        return 0;
    };
    let (decision, looked) = plan(&pod, &core.snapshot.borrow(), from);
    let (cx, core) = (cx.clone(), core.clone());
    match decision {
        Decision::Place(node) => {
            core.snapshot.borrow_mut().place(pod.clone(), node.clone());
            writes.spawn_local(async move { bind(&cx, &core, &pod, &node).await });
        }
        Decision::Unschedulable(message) => {
            core.queue.borrow_mut().park(key, core.now_ms());
            writes.spawn_local(async move {
                let result = refuse(&cx, &pod, &message).await;
                if let Err(status) = result {
                    log::debug!("{NAME}: say why {} has no node: {status}", pod.meta.key);
                }
            });
        }
    }
    looked
}

fn about(pod: &Pod) -> About {
    About { api_version: "v1", kind: "Pod", key: pod.meta.key.clone(), uid: pod.meta.uid.clone() }
}

async fn bind(cx: &Context, core: &Core, pod: &Rc<Pod>, node: &Rc<str>) {
    let Key { ns, name } = &pod.meta.key;
    match cx.api.bind(ns, name, &pod.meta.uid, node).await {
        Ok(()) => {
            let message = format!("Successfully assigned {ns}/{name} to {node}");
            cx.events.say(NAME, about(pod), false, "Scheduled", message);
        }
        Err(status) => {
            // the watch may have told meanwhile that the pod is bound after all, or gone: then the snapshot is right already
            let live = cx.world.look().pods.get(&pod.meta.key).cloned();
            match live {
                Some(live) if live.meta.uid == pod.meta.uid && live.node.is_none() => {
                    core.snapshot.borrow_mut().remove_pod(&pod.meta.uid);
                    core.queue.borrow_mut().rest(&pod.meta.key, core.now_ms());
                }
                Some(live) if live.meta.uid == pod.meta.uid => {}
                _ => core.snapshot.borrow_mut().remove_pod(&pod.meta.uid),
            }
            core.news.notify_one();
            if !status.is_not_found() && !status.is_conflict() {
                log::warn!("{NAME}: bind {} to {node}: {status}", pod.meta.key);
            }
        }
    }
}

/// Says on the pod, and in an event, why it has no node.
async fn refuse(cx: &Context, pod: &Pod, message: &str) -> Result<(), Status> {
    cx.events.say(NAME, about(pod), true, "FailedScheduling", message.into());
    if pod.unscheduled_message.as_deref() == Some(message) {
        return Ok(());
    }
    let Key { ns, name } = &pod.meta.key;
    let object = cx.api.get("pods", ns, name).await?;
    if mote_api::meta::uid(&object) != &*pod.meta.uid || !str_at(&object, &["spec", "nodeName"]).is_empty() {
        return Ok(());
    }
    let others = list_at(&object, &["status", "conditions"]).iter().filter(|c| str_at(c, &["type"]) != "PodScheduled");
    let mut conditions: Vec<Value> = others.cloned().collect();
    conditions.push(json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": cx.api.now().to_string(),
    }));
    let patch = json!({
        "metadata": {"resourceVersion": mote_api::meta::resource_version(&object)},
        "status": {"conditions": conditions},
    });
    let written = cx.api.merge_patch("pods", ns, name, Some("status"), patch).await?;
    cx.world.learn(Res::Pods, &written);
    Ok(())
}
