//! Mirror pods: what the API server shows of static pods. Made, kept and removed by the node; deleting one does not end the pod.

use std::rc::Rc;

use mote_api::meta;
use mote_api::tree::{Value, as_map, json, set, str_at};

use crate::agent::Agent;
use crate::client::{Content, path};
use crate::pods::model::{Pod, Source};

/// The annotation that marks a mirror pod; its value is the hash of the manifest.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// The hash of the manifest.
pub const HASH: &str = "kubernetes.io/config.hash";
/// `file`
pub const SOURCE: &str = "kubernetes.io/config.source";
/// When the node first saw it.
pub const SEEN: &str = "kubernetes.io/config.seen";

/// Whether a pod of the API is a mirror.
pub fn is_mirror(pod: &Value) -> bool {
    meta::annotations(pod).contains_key(MIRROR)
}

fn key(pod: &Value) -> (String, String) {
    (meta::namespace(pod).to_owned(), meta::name(pod).to_owned())
}

/// The mirrors there are now.
pub fn all(agent: &Rc<Agent>, mirrors: &[Value]) {
    agent.mirrors.borrow_mut().clear();
    for mirror in mirrors {
        put(agent, mirror);
    }
    for pod in agent.of_source(Source::Static) {
        tokio::task::spawn_local(again(agent.clone(), pod));
    }
}

/// A mirror is there, or being deleted.
pub fn put(agent: &Rc<Agent>, mirror: &Value) {
    let (namespace, name) = key(mirror);
    let hash = meta::annotation(mirror, MIRROR).to_owned();
    let wanted =
        agent.find(&namespace, &name).is_some_and(|pod| pod.source == Source::Static && pod.uid.as_str() == hash);
    if meta::is_deleting(mirror) || (!wanted && agent.statics_known.get()) {
        tokio::task::spawn_local(remove(agent.clone(), namespace, name, meta::uid(mirror).to_owned()));
        return;
    }
    agent.mirrors.borrow_mut().insert((namespace, name), hash);
}

/// A mirror is gone: made again while its pod is wanted.
pub fn gone(agent: &Rc<Agent>, mirror: &Value) {
    let (namespace, name) = key(mirror);
    agent.mirrors.borrow_mut().remove(&(namespace.clone(), name.clone()));
    if let Some(pod) =
        agent.find(&namespace, &name).filter(|pod| pod.source == Source::Static && pod.deleting.is_none())
    {
        tokio::task::spawn_local(again(agent.clone(), pod));
    }
}

/// Makes the mirror and says all of its status.
async fn again(agent: Rc<Agent>, pod: Rc<Pod>) {
    ensure(&agent, &pod).await;
    let status = agent.said.borrow().get(&pod.uid).cloned();
    if let (Some(status), Some(client)) = (status, &agent.client) {
        let target = format!("{}/status", path::core(&pod.namespace, "pods", &pod.name));
        if let Err(error) = client.patch(&target, Content::MergePatch, &json!({"status": *status})).await {
            log::debug!("patch status of mirror pod {}: {error}", pod.key());
        }
    }
}

async fn remove(agent: Rc<Agent>, namespace: String, name: String, uid: String) {
    let Some(client) = &agent.client else { return };
    let options =
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
    if let Err(error) = client.delete(&path::core(&namespace, "pods", &name), &options).await
        && !error.is_not_found()
    {
        log::debug!("delete mirror pod {namespace}/{name}: {error}");
    }
}

/// Removes the mirror of a static pod that has ended.
pub async fn remove_of(agent: &Rc<Agent>, pod: &Pod) {
    let Some(client) = &agent.client else { return };
    let target = path::core(&pod.namespace, "pods", &pod.name);
    if let Ok(mirror) = client.get(&target).await
        && meta::annotation(&mirror, MIRROR) == pod.uid.as_str()
    {
        remove(agent.clone(), pod.namespace.clone(), pod.name.clone(), meta::uid(&mirror).to_owned()).await;
    }
}

/// Makes the mirror of a static pod if it is not there.
pub async fn ensure(agent: &Rc<Agent>, pod: &Pod) {
    let Some(client) = &agent.client else { return };
    let known = agent.mirrors.borrow().get(&(pod.namespace.clone(), pod.name.clone())).cloned();
    if pod.deleting.is_some() || known.as_deref() == Some(pod.uid.as_str()) {
        return;
    }
    let collection = format!("/api/v1/namespaces/{}/pods", pod.namespace);
    let mirror = mirror_of(pod, &agent.config.node_name);
    let mut created = client.create(&collection, &mirror).await;
    if created.as_ref().is_err_and(|error| error.is_conflict()) {
        // Another pod of this name: an outdated mirror goes, anything else stays.
        let target = path::core(&pod.namespace, "pods", &pod.name);
        match client.get(&target).await {
            Ok(other) if meta::annotation(&other, MIRROR) == pod.uid.as_str() => created = Ok(other),
            Ok(other) if is_mirror(&other) => {
                remove(agent.clone(), pod.namespace.clone(), pod.name.clone(), meta::uid(&other).to_owned()).await;
                created = client.create(&collection, &mirror).await;
            }
            _ => {}
        }
    }
    match created {
        Ok(_) => {
            agent.mirrors.borrow_mut().insert((pod.namespace.clone(), pod.name.clone()), pod.uid.as_str().to_owned());
        }
        Err(error) => log::warn!("create mirror pod {}: {error}", pod.key()),
    }
}

fn mirror_of(pod: &Pod, node_name: &str) -> Value {
    let mut mirror = (*pod.object).clone();
    if let Some(metadata) = mirror.get_mut("metadata").map(as_map) {
        metadata.remove("uid");
        metadata.remove("creationTimestamp");
        metadata.remove("resourceVersion");
    }
    if let Some(map) = mirror.as_object_mut() {
        map.remove("status");
    }
    set(
        &mut mirror,
        &["metadata", "annotations", MIRROR],
        str_at(&pod.object, &["metadata", "annotations", HASH]).into(),
    );
    set(&mut mirror, &["spec", "nodeName"], node_name.into());
    mirror
}
