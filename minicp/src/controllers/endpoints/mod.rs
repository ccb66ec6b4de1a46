//! EndpointSlices and Endpoints: which pods are behind a Service, and in what state.

pub mod plan;

use super::Context;
use super::frame::Key;
use super::frame::run::{Outcome, Work};
use super::seam::Deletion;
use super::view::pod::Pod;
use super::view::service::{Service, Slice, endpoints_content};
use super::world::{Caches, Change, Res};
use mote_api::status::Status;
use mote_api::tree::{json, set};
use plan::{Backend, diff, endpoints, slices};
use std::rc::Rc;
use tokio::task::JoinSet;

const NAME: &str = "endpointslice-controller";
const SLICES: &str = "endpointslices.discovery.k8s.io";

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    cx.start(tasks, NAME, route, |cx, key| Box::pin(async move { reconcile(&cx, &key).await }));
}

fn route(cx: &Context, work: &Work, change: &Change) {
    match change {
        Change::Service(sides) => sides.any().into_iter().for_each(|s| work.add(s.meta.key.clone())),
        Change::Pod(sides) => {
            if matches!((&sides.old, &sides.new), (Some(old), Some(new)) if same_to_services(old, new)) {
                return;
            }
            let world = cx.world.look();
            for pod in sides.each() {
                let services = world.services.in_namespace(&pod.meta.key.ns);
                services.filter(|s| s.selector.matches(&pod.meta.labels)).for_each(|s| work.add(s.meta.key.clone()));
            }
        }
        Change::Slice(sides) => {
            for slice in sides.each().filter(|s| s.managed) {
                work.add(Key { ns: slice.meta.key.ns.clone(), name: slice.service.clone() });
            }
        }
        Change::Endpoints(sides) => sides.any().into_iter().for_each(|e| work.add(e.meta.key.clone())),
        _ => {}
    }
}

/// Nothing that a Service tells about its pods has changed.
fn same_to_services(old: &Pod, new: &Pod) -> bool {
    old.meta.labels == new.meta.labels
        && old.ips == new.ips
        && old.ready == new.ready
        && old.node == new.node
        && old.ended() == new.ended()
        && old.meta.deleting.is_some() == new.meta.deleting.is_some()
        && old.meta.uid == new.meta.uid
}

fn backends(world: &Caches, service: &Service) -> Vec<Backend> {
    let pods = world.pods.in_namespace(&service.meta.key.ns).filter(|pod| service.selector.matches(&pod.meta.labels));
    pods.map(|pod| Backend {
        pod: pod.clone(),
        node: pod.node.as_ref().and_then(|n| world.nodes.get(&Key { ns: "".into(), name: n.clone() }).cloned()),
        leaving: world.pods.leaving(pod),
    })
    .collect()
}

async fn reconcile(cx: &Context, key: &Key) -> Outcome {
    let (service, existing, published) = {
        let world = cx.world.look();
        let mine = world.slices.in_namespace(&key.ns).filter(|s| s.managed && s.service == key.name);
        let existing: Vec<Rc<Slice>> = mine.filter(|s| s.meta.deleting.is_none()).cloned().collect();
        (world.services.get(key).cloned(), existing, world.endpoints.get(key).cloned())
    };
    let Some(service) = service.filter(|s| s.meta.deleting.is_none()) else {
        for slice in &existing {
            delete(cx, SLICES, slice).await?;
        }
        let ours = published.filter(|e| e.meta.labels.get("endpoints.kubernetes.io/managed-by").is_some());
        if let Some(published) = ours {
            delete(cx, "endpoints", &published).await?;
        }
        return Ok(None);
    };
    if !service.selector.is_some() || service.external_name {
        return Ok(None); // its endpoints are somebody else's
    }
    let (wanted, points) = {
        let world = cx.world.look();
        let backends = backends(&world, &service);
        (slices(&service, &backends, cx.settings.limits.slice_endpoints_max), endpoints(&service, &backends))
    };
    let todo = diff(wanted, &existing);
    for (old, mut slice) in todo.update {
        set(&mut slice, &["metadata", "name"], json!(&*old.meta.key.name));
        set(&mut slice, &["metadata", "resourceVersion"], json!(old.meta.revision.to_string()));
        mote_api::tree::remove(&mut slice, &["metadata", "generateName"]);
        let written = cx.api.update(SLICES, slice).await?;
        cx.world.learn(Res::Slices, &written);
    }
    for slice in todo.create {
        let made = cx.api.create(SLICES, &key.ns, slice).await?;
        cx.world.learn(Res::Slices, &made);
    }
    for slice in &todo.delete {
        delete(cx, SLICES, slice).await?;
    }
    publish(cx, key, published.as_deref(), points).await?;
    Ok(None)
}

async fn publish(
    cx: &Context,
    key: &Key,
    published: Option<&Slice>,
    mut points: mote_api::tree::Value,
) -> Result<(), Status> {
    let written = match published {
        None => cx.api.create("endpoints", &key.ns, points).await?,
        Some(old) if old.content == endpoints_content(&points) => return Ok(()),
        Some(old) => {
            set(&mut points, &["metadata", "resourceVersion"], json!(old.meta.revision.to_string()));
            cx.api.update("endpoints", points).await?
        }
    };
    cx.world.learn(Res::Endpoints, &written);
    Ok(())
}

async fn delete(cx: &Context, res: &str, slice: &Slice) -> Result<(), Status> {
    let how = Deletion { uid: Some(slice.meta.uid.clone()), ..Deletion::default() };
    match cx.api.delete(res, &slice.meta.key.ns, &slice.meta.key.name, how).await {
        Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
        _ => Ok(()),
    }
}
