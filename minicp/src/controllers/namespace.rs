//! Namespaces: what each has from its birth (ServiceAccount `default`, the root CA), and how one ends.
//!
//! A namespace that is being deleted loses all its contents, resource by resource; when nothing is left its finalizer goes, and
//! with that the namespace. What still waits (a pod in its grace, a foreign finalizer) is told in its conditions.

use super::Context;
use super::frame::Key;
use super::frame::run::{Outcome, Work};
use super::seam::Deletion;
use super::view::fingerprint;
use super::world::{Change, ROOT_CA, Res};
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, json, list_at, str_at};
use tokio::task::JoinSet;

const NAME: &str = "namespace-controller";
/// Contents whose end nobody announces are looked at again after so long.
const LOOK_AGAIN_MS: u64 = 1000;
const FINALIZER: &str = "kubernetes";

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    cx.start(tasks, NAME, route, |cx, key| Box::pin(async move { reconcile(&cx, &key).await }));
}

fn route(cx: &Context, work: &Work, change: &Change) {
    match change {
        Change::Namespace(sides) => {
            if let Some(namespace) = &sides.new {
                work.add(namespace.meta.key.clone());
            }
        }
        Change::ServiceAccount(sides) | Change::ConfigMap(sides) => {
            sides.any().into_iter().for_each(|o| work.add(Key { ns: "".into(), name: o.meta.key.ns.clone() }));
        }
        // the last pod of a namespace that ends
        Change::Pod(sides) if sides.new.is_none() => {
            let Some(pod) = sides.any() else { return };
            let key = Key { ns: "".into(), name: pod.meta.key.ns.clone() };
            if cx.world.look().namespaces.get(&key).is_some_and(|ns| ns.meta.deleting.is_some()) {
                work.add(key);
            }
        }
        _ => {}
    }
}

async fn reconcile(cx: &Context, key: &Key) -> Outcome {
    let Some(namespace) = cx.world.look().namespaces.get(key).cloned() else { return Ok(None) };
    if namespace.meta.deleting.is_some() {
        return end(cx, key, &namespace.meta.uid).await;
    }
    let ns = &key.name;
    let (has_account, has_ca) = {
        let world = cx.world.look();
        let at = |name: &str| Key { ns: ns.clone(), name: name.into() };
        let ca = world.config_maps.get(&at(ROOT_CA)).map(|map| map.meta.revision);
        (world.service_accounts.get(&at("default")).is_some(), ca)
    };
    if !has_account {
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": &**ns}});
        ensure(cx, Res::ServiceAccounts, "serviceaccounts", ns, account).await?;
    }
    let data = json!({"ca.crt": &*cx.settings.ca_pem});
    if has_ca.is_none() {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {
                "name": ROOT_CA, "namespace": &**ns,
                "annotations": {"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."},
            },
        });
        ensure(cx, Res::ConfigMaps, "configmaps", ns, map).await?;
    } else {
        let live = cx.api.get("configmaps", ns, ROOT_CA).await?;
        if live.get("data").map(fingerprint) != Some(fingerprint(&data)) {
            // a null for each foreign key makes the patch a replacement
            let mut patch = json!({"data": {}});
            for name in mote_api::tree::map_at(&live, &["data"]).into_iter().flat_map(|data| data.keys()) {
                mote_api::tree::set(&mut patch, &["data", name], Value::Null);
            }
            mote_api::tree::set(&mut patch, &["data", "ca.crt"], json!(&*cx.settings.ca_pem));
            let written = cx.api.merge_patch("configmaps", ns, ROOT_CA, None, patch).await?;
            cx.world.learn(Res::ConfigMaps, &written);
        }
    }
    Ok(None)
}

/// Creates what is missing; there already, or the namespace ending meanwhile, is fine.
async fn ensure(cx: &Context, res: Res, name: &str, ns: &str, object: Value) -> Result<(), Status> {
    match cx.api.create(name, ns, object).await {
        Ok(made) => {
            cx.world.learn(res, &made);
            Ok(())
        }
        Err(status) if status.is_already_exists() || status.is_not_found() || status.code == 403 => Ok(()),
        Err(status) => Err(status),
    }
}

async fn end(cx: &Context, key: &Key, uid: &str) -> Outcome {
    let ns = &*key.name;
    let mut left = Vec::new();
    for (res, namespaced) in cx.api.resources() {
        if !namespaced || res == "events" || res == "events.events.k8s.io" {
            continue;
        }
        let count = empty_resource(cx, &res, ns).await?;
        if count > 0 {
            left.push((res, count));
        }
    }
    if left.is_empty() {
        empty_resource(cx, "events", ns).await?;
        return finalize(cx, ns, uid).await;
    }
    left.sort();
    let list: Vec<String> = left.iter().map(|(res, n)| format!("{res}. has {n} resource instances")).collect();
    let message = format!("Some resources are remaining: {}", list.join(", "));
    tell_remaining(cx, ns, &message).await?;
    Ok(Some(LOOK_AGAIN_MS))
}

/// Asks for the deletion of everything of one resource; gives how much is still there afterwards.
async fn empty_resource(cx: &Context, res: &str, ns: &str) -> Result<usize, Status> {
    let (objects, _) = cx.api.list(res, Some(ns)).await?;
    let mut deleted = false;
    for object in &objects {
        if meta::is_deleting(object) {
            continue;
        }
        deleted = true;
        let how =
            Deletion { propagation: Some("Background"), uid: Some(meta::uid(object).into()), ..Deletion::default() };
        match cx.api.delete(res, ns, meta::name(object), how).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => return Err(status),
            _ => {}
        }
    }
    if deleted { Ok(cx.api.list(res, Some(ns)).await?.0.len()) } else { Ok(objects.len()) }
}

async fn tell_remaining(cx: &Context, ns: &str, message: &str) -> Result<(), Status> {
    const KIND: &str = "NamespaceContentRemaining";
    let object = match cx.api.get("namespaces", "", ns).await {
        Err(status) if status.is_not_found() => return Ok(()),
        other => other?,
    };
    let conditions = list_at(&object, &["status", "conditions"]);
    if conditions.iter().any(|c| str_at(c, &["type"]) == KIND && str_at(c, &["message"]) == message) {
        return Ok(());
    }
    let mut all: Vec<Value> = conditions.iter().filter(|c| str_at(c, &["type"]) != KIND).cloned().collect();
    all.push(json!({
        "type": KIND, "status": "True", "reason": "SomeResourcesRemain", "message": message,
        "lastTransitionTime": cx.api.now().to_string(),
    }));
    cx.api.merge_patch("namespaces", "", ns, Some("status"), json!({"status": {"conditions": all}})).await?;
    Ok(())
}

/// Takes our finalizer away; with the last one the API removes the namespace.
async fn finalize(cx: &Context, ns: &str, uid: &str) -> Outcome {
    let object = match cx.api.get("namespaces", "", ns).await {
        Err(status) if status.is_not_found() => return Ok(None),
        other => other?,
    };
    if meta::uid(&object) != uid {
        return Ok(None);
    }
    let others: Vec<&Value> =
        list_at(&object, &["spec", "finalizers"]).iter().filter(|f| f.as_str() != Some(FINALIZER)).collect();
    let patch = json!({
        "metadata": {"resourceVersion": meta::resource_version(&object)}, "spec": {"finalizers": others},
    });
    match cx.api.merge_patch("namespaces", "", ns, Some("finalize"), patch).await {
        Err(status) if status.is_not_found() => Ok(None),
        other => other.map(|_| None),
    }
}
