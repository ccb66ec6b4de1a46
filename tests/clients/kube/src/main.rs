//! `clients-kube KUBECONFIG`: kube's discovery, typed and dynamic objects, apply, watcher, reflector, controller and wait against an API server.
//! Ends with an error on the first thing that is not as upstream does it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, ServiceAccount};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams, PropagationPolicy, ResourceExt,
    ValidationDirective, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use serde_json::{Value, json};

type Fault = Box<dyn std::error::Error + Send + Sync>;
const WAIT: Duration = Duration::from_secs(30);

fn check(holds: bool, what: impl Into<String>) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

async fn within<T>(what: &str, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let done = tokio::time::timeout(WAIT, work).await.map_err(|_| format!("{what}: no end in {WAIT:?}"))?;
    println!("  {what}: {}", if done.is_ok() { "right" } else { "WRONG" });
    done.map_err(|e| format!("{what}: {e}").into())
}

fn map(name: &str, value: &str) -> ConfigMap {
    let data = BTreeMap::from([("a".to_owned(), value.to_owned())]);
    ConfigMap { metadata: kube::api::ObjectMeta { name: Some(name.into()), ..Default::default() }, data: Some(data), ..Default::default() }
}

/// Every kind that discovery lists can be listed and watched as it says.
async fn discovery(client: Client) -> Result<(), Fault> {
    let version = client.apiserver_version().await?;
    check(version.major == "1", "version")?;
    let mut watches = Vec::new();
    for aggregated in [false, true] {
        let discovery = Discovery::new(client.clone());
        let discovery = if aggregated { discovery.run_aggregated().await? } else { discovery.run().await? };
        let mut kinds = 0;
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                if !capabilities.supports_operation(verbs::LIST) {
                    continue;
                }
                let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
                let list = all.list(&ListParams::default().limit(2)).await.map_err(|e| format!("list {}: {e}", resource.plural))?;
                check(list.metadata.resource_version.is_some(), format!("{}: a list without version", resource.plural))?;
                if capabilities.supports_operation(verbs::WATCH) && !aggregated {
                    let (from, plural) = (list.metadata.resource_version.unwrap_or_default(), resource.plural.clone());
                    watches.push(async move {
                        let mut events = all.watch(&WatchParams::default().timeout(1), &from).await?.boxed();
                        match events.try_next().await? {
                            Some(event @ WatchEvent::Error(_)) => Err(format!("watch {plural}: {event:?}").into()),
                            _ => Ok::<(), Fault>(()),
                        }
                    });
                }
                check(capabilities.scope == Scope::Cluster || !capabilities.subresources.iter().any(|(r, _)| r.kind.is_empty()), "subresources")?;
                kinds += 1;
            }
        }
        check(kinds >= 35, format!("{kinds} kinds"))?;
    }
    futures::future::try_join_all(watches).await.map(|_| ())
}

async fn objects(client: Client, ns: &str) -> Result<(), Fault> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), ns);
    let made = maps.create(&PostParams::default(), &map("one", "1")).await?;
    check(made.uid().is_some(), "uid")?;
    let again = maps.create(&PostParams::default(), &map("one", "1")).await;
    check(matches!(&again, Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists"), format!("{again:?}"))?;
    let mut entry = maps.entry("one").await?.or_insert(|| map("one", "never"));
    entry.get_mut().data.get_or_insert_default().insert("b".into(), "2".into());
    entry.commit(&PostParams::default()).await?;
    let stale = maps.replace("one", &PostParams::default(), &made).await;
    check(matches!(&stale, Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "Conflict"), format!("{stale:?}"))?;
    let merged = maps.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": null, "c": "3"}}))).await?;
    check(merged.data.as_ref().is_some_and(|d| d.len() == 2 && d["c"] == "3"), format!("{merged:?}"))?;
    check(maps.get_opt("none").await?.is_none(), "get_opt")?;
    let meta = maps.get_metadata("one").await?;
    check(meta.uid() == made.uid(), "metadata")?;
    check(maps.list_metadata(&ListParams::default()).await?.items.iter().any(|m| m.name_any() == "one"), "list of metadata")?;
    let dry = PostParams { dry_run: true, ..Default::default() };
    maps.create(&dry, &map("dry", "1")).await?;
    check(maps.get_opt("dry").await?.is_none(), "dry run")?;
    let gone = maps.delete("one", &DeleteParams::default()).await?;
    check(gone.is_right(), "a ConfigMap's delete says Success")?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), ns);
    let request = serde_json::from_value(json!({"spec": {"audiences": ["a"], "expirationSeconds": 600}}))?;
    let token = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    check(token.status.and_then(|s| s.token).is_some_and(|t| t.split('.').count() == 3), "a token")?;
    // Dynamic, and what the server thinks of nonsense.
    let secrets: Api<DynamicObject> = Api::namespaced_with(client, ns, &ApiResource::erase::<Secret>(&()));
    let mut bad: DynamicObject = serde_json::from_value(json!({"metadata": {"name": "s"}, "dta": {"a": "b"}}))?;
    bad.types = Some(kube::api::TypeMeta::resource::<Secret>());
    let apply = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("kube") };
    let refused = secrets.patch("s", &apply, &Patch::Apply(&bad)).await;
    check(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 400 && status.message.contains("dta")), format!("{refused:?}"))
}

async fn apply(client: Client, ns: &str) -> Result<(), Fault> {
    let deployments: Api<Deployment> = Api::namespaced(client, ns);
    let wanted = |replicas: i32| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "none"}]}}}})
    };
    let one = PatchParams::apply("one");
    deployments.patch("d", &one, &Patch::Apply(wanted(0))).await?;
    let same = deployments.patch("d", &one, &Patch::Apply(wanted(0))).await?;
    let conflict = deployments.patch("d", &PatchParams::apply("two"), &Patch::Apply(wanted(3))).await;
    check(matches!(&conflict, Err(kube::Error::Api(s)) if s.code == 409 && s.message.contains("\"one\"")), format!("{conflict:?}"))?;
    let forced = deployments.patch("d", &PatchParams::apply("two").force(), &Patch::Apply(wanted(3))).await?;
    check(forced.spec.as_ref().and_then(|s| s.replicas) == Some(3), "force")?;
    let managers: Vec<_> = forced.managed_fields().iter().filter_map(|m| m.manager.clone()).collect();
    check(managers.iter().any(|m| m == "one") && managers.iter().any(|m| m == "two"), format!("{managers:?}"))?;
    check(same.resource_version().is_some(), "version")?;
    let scaled = deployments.patch_scale("d", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 1}}))).await?;
    check(scaled.spec.and_then(|s| s.replicas) == Some(1), "scale")?;
    let status = deployments.patch_status("d", &PatchParams::apply("three").force(), &Patch::Apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {"collisionCount": 4}}))).await?;
    check(status.status.is_some(), "status")?;
    deployments.restart("d").await?;
    let foreground = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..Default::default() };
    deployments.delete("d", &foreground).await?;
    await_condition(deployments, "d", conditions::is_deleted(&forced.uid().unwrap_or_default())).await?;
    Ok(())
}

/// A reflector's store follows creates, changes and deletes; with a list first, and with a streamed list.
async fn reflects(client: Client, ns: &str) -> Result<(), Fault> {
    for streaming in [false, true] {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), ns);
        let name = format!("reflected-{streaming}");
        maps.create(&PostParams::default(), &map(&format!("{name}-before"), "1")).await?;
        let config = watcher::Config::default().fields("metadata.name!=kube-root-ca.crt");
        let config = if streaming { config.streaming_lists() } else { config.page_size(2) };
        let (reader, writer) = reflector::store();
        let stream = watcher(maps.clone(), config).default_backoff().reflect(writer).applied_objects();
        let task = tokio::task::spawn_local(async move { stream.for_each(|_| async {}).await });
        reader.wait_until_ready().await?;
        let key = |name: &str| ObjectRef::<ConfigMap>::new(name).within(ns);
        check(reader.get(&key(&format!("{name}-before"))).is_some(), "what was there")?;
        maps.create(&PostParams::default(), &map(&name, "1")).await?;
        until(|| reader.get(&key(&name)).is_some()).await;
        maps.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "2"}}))).await?;
        until(|| reader.get(&key(&name)).is_some_and(|m| m.data.as_ref().is_some_and(|d| d["a"] == "2"))).await;
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().fields(&format!("metadata.name={name}"))).await?;
        until(|| reader.get(&key(&name)).is_none()).await;
        task.abort();
    }
    Ok(())
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A controller that owns a ConfigMap per Secret: made, made again when it is deleted, collected with its owner.
async fn controls(client: Client, ns: &str) -> Result<(), Fault> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), ns);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), ns);
    let runs = Arc::new(AtomicUsize::new(0));
    let reconcile = |secret: Arc<Secret>, context: Arc<(Client, Arc<AtomicUsize>)>| async move {
        context.1.fetch_add(1, Ordering::Relaxed);
        let owned: Api<ConfigMap> = Api::namespaced(context.0.clone(), &secret.namespace().unwrap_or_default());
        let owner = kube::api::Resource::controller_owner_ref(&*secret, &());
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": secret.name_any(), "ownerReferences": [owner]}, "data": {"a": "b"}});
        owned.patch(&secret.name_any(), &PatchParams::apply("controller").force(), &Patch::Apply(wanted)).await?;
        Ok::<_, kube::Error>(Action::await_change())
    };
    let labelled = watcher::Config::default().labels("controlled=yes");
    let stream = Controller::new(secrets.clone(), labelled)
        .owns(maps.clone(), watcher::Config::default())
        .run(reconcile, |_, error, _| { eprintln!("reconcile: {error}"); Action::requeue(Duration::from_millis(100)) }, Arc::new((client, runs.clone())));
    let task = tokio::task::spawn_local(stream.for_each(|_| async {}));
    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "owner", "labels": {"controlled": "yes"}}}))?;
    secrets.create(&PostParams::default(), &secret).await?;
    let mut uids = Vec::new();
    for _ in 0..2 {
        let found = await_condition(maps.clone(), "owner", |m: Option<&ConfigMap>| m.is_some_and(|m| m.metadata.deletion_timestamp.is_none())).await?;
        let uid = found.and_then(|m| m.uid()).ok_or("no map")?;
        check(!uids.contains(&uid), "made again")?;
        maps.delete("owner", &DeleteParams::default()).await?;
        await_condition(maps.clone(), "owner", conditions::is_deleted(&uid)).await?;
        uids.push(uid);
    }
    await_condition(maps.clone(), "owner", |m: Option<&ConfigMap>| m.is_some()).await?;
    task.abort();
    secrets.delete("owner", &DeleteParams::default()).await?;
    await_condition(maps, "owner", |m: Option<&ConfigMap>| m.is_none()).await?;
    check(runs.load(Ordering::Relaxed) >= 3, "runs")
}

async fn pods(client: Client, ns: &str) -> Result<(), Fault> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), ns);
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "none"}], "nodeSelector": {"fits": "nowhere"}}}))?;
    pods.create(&PostParams::default(), &pod).await?;
    let logs = pods.logs("p", &LogParams::default()).await;
    check(matches!(&logs, Err(kube::Error::Api(s)) if s.code == 400 && s.message.contains("does not have a host")), format!("{logs:?}"))?;
    pods.evict("p", &EvictParams::default()).await?;
    await_condition(pods, "p", |p: Option<&Pod>| p.is_none()).await?;
    // A node, cordoned and not.
    let nodes: Api<Node> = Api::all(client);
    let name = format!("{ns}-node");
    let node: Node = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    nodes.create(&PostParams::default(), &node).await?;
    nodes.cordon(&name).await?;
    check(nodes.get(&name).await?.spec.and_then(|s| s.unschedulable) == Some(true), "cordon")?;
    nodes.uncordon(&name).await?;
    nodes.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

async fn run() -> Result<(), Fault> {
    let path = std::env::args().nth(1).ok_or("usage: clients-kube KUBECONFIG")?;
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    let ns = format!("kube-{}", std::process::id());
    let spaces: Api<Namespace> = Api::all(client.clone());
    let space: Value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}});
    spaces.patch(&ns, &PatchParams::apply("suite"), &Patch::Apply(space)).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &ns);
    await_condition(accounts, "default", |a: Option<&ServiceAccount>| a.is_some()).await?;
    let done = async {
        within("discovery, lists and watches of every kind", discovery(client.clone())).await?;
        within("objects", objects(client.clone(), &ns)).await?;
        within("apply", apply(client.clone(), &ns)).await?;
        within("watcher and reflector", reflects(client.clone(), &ns)).await?;
        within("controller", controls(client.clone(), &ns)).await?;
        within("pods and nodes", pods(client.clone(), &ns)).await
    }
    .await;
    spaces.delete(&ns, &DeleteParams::default()).await?;
    done
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fault> {
    tokio::task::LocalSet::new().run_until(run()).await?;
    println!("kube: all right");
    Ok(())
}
