//! Pods as their owners handle them: created from a template, adopted, released, deleted; and the removal of what no one will.

use super::Context;
use super::events::About;
use super::frame::Key;
use super::frame::run::{Outcome, Work};
use super::seam::Deletion;
use super::view::pod::Pod;
use super::world::{Change, Res};
use mote_api::status::Status;
use mote_api::tree::{Value, json, set};
use std::rc::Rc;
use tokio::task::JoinSet;

/// Who owns pods, for owner references and events.
#[derive(Clone)]
pub struct PodOwner {
    pub about: About,
    pub component: &'static str,
}

impl PodOwner {
    pub fn reference(&self) -> Value {
        json!({
            "apiVersion": self.about.api_version, "kind": self.about.kind, "name": &*self.about.key.name,
            "uid": &*self.about.uid, "controller": true, "blockOwnerDeletion": true,
        })
    }
}

/// A pod of the owner from a template, with a generated name.
pub fn pod_from(owner: &PodOwner, template: &Value) -> Value {
    let null = Value::Null;
    let part = |name: &str| template.get("metadata").and_then(|m| m.get(name)).unwrap_or(&null).clone();
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", owner.about.key.name), "namespace": &*owner.about.key.ns,
            "ownerReferences": [owner.reference()],
        },
        "spec": template.get("spec").unwrap_or(&null).clone(),
    });
    for name in ["labels", "annotations", "finalizers"] {
        let value = part(name);
        if !value.is_null() {
            set(&mut pod, &["metadata", name], value);
        }
    }
    pod
}

/// Creates `count` pods in batches of 1, 2, 4, …: a template that cannot work fails once, not `count` times.
pub async fn create_pods(cx: &Context, owner: &PodOwner, template: &Value, count: usize) -> Result<(), Status> {
    let mut left = count;
    let mut batch = 1;
    while left > 0 {
        let now = batch.min(left);
        let pods = std::iter::repeat_with(|| pod_from(owner, template)).take(now).collect();
        create_all(cx, owner, pods).await?;
        left -= now;
        batch *= 2;
    }
    Ok(())
}

/// Creates the pods side by side (one disk sync serves all), learns them, and says so. The first failure is returned.
pub async fn create_all(cx: &Context, owner: &PodOwner, pods: Vec<Value>) -> Result<(), Status> {
    let mut running = JoinSet::new();
    for pod in pods {
        let (api, ns) = (cx.api.clone(), owner.about.key.ns.clone());
        running.spawn_local(async move { api.create("pods", &ns, pod).await });
    }
    let mut failure = None;
    while let Some(result) = running.join_next().await {
        match result {
            Ok(Ok(pod)) => {
                cx.world.learn(Res::Pods, &pod);
                let message = format!("Created pod: {}", mote_api::meta::name(&pod));
                cx.events.say(owner.component, owner.about.clone(), false, "SuccessfulCreate", message);
            }
            Ok(Err(status)) => {
                // the namespace goes away: nothing to tell a person
                if !status.message.contains("because it is being terminated") {
                    let message = format!("Error creating: {status}");
                    cx.events.say(owner.component, owner.about.clone(), true, "FailedCreate", message);
                }
                failure = Some(status);
            }
            Err(_) => {}
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Deletes pods side by side; one already gone counts as deleted.
pub async fn delete_pods(cx: &Context, owner: &PodOwner, pods: &[Rc<Pod>]) -> Result<(), Status> {
    let mut running = JoinSet::new();
    for pod in pods {
        let (cx, pod) = (cx.clone(), pod.clone());
        running.spawn_local(async move {
            let result = delete_pod(&cx, &pod, None).await;
            (pod, result)
        });
    }
    let mut failure = None;
    while let Some(result) = running.join_next().await {
        match result {
            Ok((pod, Ok(()))) => {
                let message = format!("Deleted pod: {}", pod.meta.key.name);
                cx.events.say(owner.component, owner.about.clone(), false, "SuccessfulDelete", message);
            }
            Ok((_, Err(status))) => failure = Some(status),
            Err(_) => {}
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Deletes exactly this pod. Gone already, or another of the same name: done.
pub async fn delete_pod(cx: &Context, pod: &Pod, grace_seconds: Option<i64>) -> Result<(), Status> {
    let Key { ns, name } = &pod.meta.key;
    let how = Deletion { grace_seconds, uid: Some(pod.meta.uid.clone()), propagation: Some("Background") };
    match cx.api.delete("pods", ns, name, how).await {
        Ok(()) => {
            cx.world.doom_pod(&pod.meta.key, &pod.meta.uid);
            Ok(())
        }
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(status) => Err(status),
    }
}

/// Adopts (`Some`) or releases (`None`) a pod, if it is still the same one.
pub async fn set_controller(cx: &Context, pod: &Pod, owner: Option<&PodOwner>) -> Result<(), Status> {
    let references = owner.map_or(Value::Null, |owner| json!([owner.reference()]));
    let patch = json!({
        "metadata": {"uid": &*pod.meta.uid, "resourceVersion": pod.meta.revision.to_string(), "ownerReferences": references},
    });
    match cx.api.merge_patch("pods", &pod.meta.key.ns, &pod.meta.key.name, None, patch).await {
        Ok(pod) => {
            cx.world.learn(Res::Pods, &pod);
            Ok(())
        }
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status),
    }
}

/// Pods nobody will end or remove: of nodes that no longer exist, stuck before any node, ended beyond the limit.
pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    let work = cx.start(tasks, "pod-garbage-collector", route, |cx, _| Box::pin(async move { collect(&cx).await }));
    work.add(Key::cluster("all"));
}

fn route(_: &Context, work: &Work, change: &Change) {
    let due = match change {
        Change::Node(sides) => sides.new.is_none(),
        Change::Pod(sides) => {
            sides.new.as_ref().is_some_and(|pod| pod.ended() || (pod.node.is_none() && pod.meta.deleting.is_some()))
        }
        _ => false,
    };
    if due {
        work.add(Key::cluster("all"));
    }
}

async fn collect(cx: &Context) -> Outcome {
    let victims = {
        let world = cx.world.look();
        let pods: Vec<&Rc<Pod>> = world.pods.iter().collect();
        let gone = |node: &Rc<str>| world.nodes.get(&Key { ns: "".into(), name: node.clone() }).is_none();
        victims(&pods, gone, cx.settings.limits.ended_pods_max)
    };
    for pod in &victims {
        delete_pod(cx, pod, Some(0)).await?;
    }
    Ok(None)
}

/// Pure: which pods to remove at once.
fn victims(pods: &[&Rc<Pod>], node_gone: impl Fn(&Rc<str>) -> bool, ended_max: usize) -> Vec<Rc<Pod>> {
    let lost = |pod: &Pod| match &pod.node {
        Some(node) => node_gone(node),
        None => pod.meta.deleting.is_some(),
    };
    let mut out: Vec<Rc<Pod>> = pods.iter().filter(|pod| lost(pod)).map(|pod| (*pod).clone()).collect();
    let mut ended: Vec<&&Rc<Pod>> =
        pods.iter().filter(|pod| pod.ended() && pod.meta.deleting.is_none() && !lost(pod)).collect();
    let surplus = ended.len().saturating_sub(ended_max);
    ended.sort_by_key(|pod| (pod.meta.created, pod.meta.key.clone()));
    out.extend(ended.into_iter().take(surplus).map(|pod| (*pod).clone()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, deleting: bool) -> Rc<Pod> {
        let mut object = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len())},
            "spec": {"nodeName": node}, "status": {"phase": phase},
        });
        if deleting {
            set(&mut object, &["metadata", "deletionTimestamp"], json!("2026-01-01T00:00:00Z"));
        }
        Rc::new(Pod::parse(&object))
    }

    #[test]
    fn what_nobody_will_remove() {
        let pods = [
            pod("gone-node", "old", "Running", false),
            pod("fine", "n", "Running", false),
            pod("leaving", "n", "Running", true),
            pod("unbound", "", "Pending", false),
            pod("never-bound", "", "Pending", true),
            pod("e", "n", "Succeeded", false),
            pod("ee", "n", "Failed", false),
        ];
        let pods: Vec<&Rc<Pod>> = pods.iter().collect();
        let names = |max| {
            victims(&pods, |n| &**n == "old", max).iter().map(|p| p.meta.key.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["gone-node", "never-bound", "e"]);
        assert_eq!(names(2), ["gone-node", "never-bound"]);
    }
}
