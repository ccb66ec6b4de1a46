//! A seeded simulation of scheduler and controllers under a virtual clock, with a fake API and fake kubelets: some time of
//! random changes and faults, then calm, then everything must be as it was asked for. At every step nothing may be over-committed.

mod fake;

use super::spawn;
use crate::controllers::seam::{Api, Deletion};
use crate::controllers::{Limits, Settings};
use fake::Fake;
use mote_api::meta;
use mote_api::tree::{Value, i64_at, json, list_at, set, str_at};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::LocalSet;

const NODE_CPUS: i64 = 4;
const NODE_PODS: i64 = 30;

fn settings() -> Settings {
    Settings {
        limits: Limits { eviction_seconds: 20, ..Limits::default() },
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        node_prefix: 24,
        ca_pem: "CA".into(),
    }
}

/// An API without objects and faults.
pub(crate) fn empty() -> Rc<dyn Api> {
    Fake::new(1)
}

async fn make(api: &Fake, res: &str, ns: &str, object: Value) {
    api.create(res, ns, object).await.unwrap();
}

fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": "250m"}}}]},
            },
        },
    })
}

async fn add_node(api: &Fake, name: &str) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {}, "status": {
            "allocatable": {"cpu": NODE_CPUS.to_string(), "memory": "8Gi", "pods": NODE_PODS.to_string()},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    make(api, "nodes", "", node).await;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"renewTime": api.now().micro()},
    });
    make(api, "leases.coordination.k8s.io", "kube-node-lease", lease).await;
}

/// Runs pods, ends deleted ones, beats the heart; `alive` says whether it does anything.
async fn kubelet(api: Rc<Fake>, name: String, alive: Rc<std::cell::Cell<bool>>) {
    let mut beats = 0u64;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if !alive.get() {
            continue;
        }
        beats += 1;
        if beats % 30 == 1 {
            let renew = json!({"spec": {"renewTime": api.now().micro()}});
            api.change("leases.coordination.k8s.io", "kube-node-lease", &name, &renew);
        }
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let unready = api.store.borrow().all("nodes").iter().any(|n| {
            meta::name(n) == name && str_at(n, &["metadata", "name"]) == name && {
                list_at(n, &["status", "conditions"]).iter().any(|c| str_at(c, &["status"]) != "True")
            }
        });
        if unready {
            api.change("nodes", "", &name, &ready);
        }
        let mine: Vec<Rc<Value>> = api.store.borrow().all("pods");
        for pod in mine.iter().filter(|pod| str_at(pod, &["spec", "nodeName"]) == name) {
            let (ns, pod_name) = (meta::namespace(pod).to_string(), meta::name(pod).to_string());
            if meta::is_deleting(pod) {
                let now = Deletion { grace_seconds: Some(0), uid: Some(meta::uid(pod).into()), propagation: None };
                let _ = api.delete("pods", &ns, &pod_name, now).await;
            } else if !runs_and_is_ready(pod) {
                let status = json!({"status": {
                    "phase": "Running", "podIP": format!("10.42.0.{}", meta::uid(pod).len()),
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": api.now().to_string()}],
                }});
                api.change("pods", &ns, &pod_name, &status);
            }
        }
    }
}

fn runs_and_is_ready(pod: &Value) -> bool {
    let ready = |c: &Value| str_at(c, &["type"]) == "Ready" && str_at(c, &["status"]) == "True";
    str_at(pod, &["status", "phase"]) == "Running" && list_at(pod, &["status", "conditions"]).iter().any(ready)
}

/// What must hold at every moment.
fn check_always(api: &Fake) {
    assert_eq!(api.store.borrow().violations, Vec::<String>::new());
    let mut used: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for pod in api.store.borrow().all("pods") {
        let node = str_at(&pod, &["spec", "nodeName"]);
        if !node.is_empty() {
            let (cpu, pods) = used.entry(node.into()).or_default();
            *cpu += 250;
            *pods += 1;
        }
    }
    for (node, (cpu, pods)) in used {
        assert!(cpu <= NODE_CPUS * 1000, "{node} is over-committed: {cpu}m");
        assert!(pods <= NODE_PODS, "{node} has {pods} pods");
    }
}

/// Replicas of each Deployment that are not leaving, by template image; with owners that exist.
fn check_calm(api: &Fake) -> Result<(), String> {
    let store = api.store.borrow();
    let sets: BTreeMap<String, Rc<Value>> =
        store.all("replicasets.apps").into_iter().map(|s| (meta::uid(&s).to_string(), s)).collect();
    let pods = store.all("pods");
    for d in store.all("deployments.apps") {
        let name = meta::name(&d);
        let want = i64_at(&d, &["spec", "replicas"]).unwrap_or(1);
        let image = d.pointer("/spec/template/spec/containers/0/image").cloned();
        let mine = pods.iter().filter(|pod| meta::label(pod, "app") == name);
        let right =
            mine.clone().filter(|p| p.pointer("/spec/containers/0/image").cloned() == image && !meta::is_deleting(p));
        let (right, all) = (i64::try_from(right.count()).unwrap(), i64::try_from(mine.clone().count()).unwrap());
        if right != want || all != want {
            return Err(format!("{name}: {right} right pods of {all}, {want} wanted"));
        }
        for pod in mine {
            let owner = meta::controller_of(pod).map(|o| o.uid.to_string()).unwrap_or_default();
            if !sets.contains_key(&owner) {
                return Err(format!("{} has no owner", meta::name(pod)));
            }
            if str_at(pod, &["status", "phase"]) != "Running" {
                return Err(format!("{} does not run", meta::name(pod)));
            }
        }
        let told = i64_at(&d, &["status", "availableReplicas"]).unwrap_or(0);
        if told != want {
            return Err(format!("{name}: status says {told} of {want}"));
        }
    }
    let names: Vec<String> = store.all("deployments.apps").iter().map(|d| meta::name(d).to_string()).collect();
    match pods.iter().find(|pod| !names.iter().any(|name| name == meta::label(pod, "app"))) {
        Some(left) => Err(format!("{} of a deleted deployment is still there", meta::name(left))),
        None => Ok(()),
    }
}

async fn step(api: &Rc<Fake>, alive: &[Rc<std::cell::Cell<bool>>]) {
    let roll = |n: u64| api.random.borrow_mut().below(n);
    let name = format!("d{}", roll(3));
    match roll(12) {
        0..=3 => {
            let scale = json!({"spec": {"replicas": roll(9)}});
            let generation = generation(api, &name);
            api.change("deployments.apps", "default", &name, &with_generation(scale, generation));
        }
        4 | 5 => {
            let mut template = deployment(&name, 1, &format!("image:{}", roll(4)));
            let template = template.pointer_mut("/spec/template").map(Value::take).unwrap_or_default();
            let generation = generation(api, &name);
            api.change(
                "deployments.apps",
                "default",
                &name,
                &with_generation(json!({"spec": {"template": template}}), generation),
            );
        }
        6 | 7 => {
            let pods = api.store.borrow().all("pods");
            let at = usize::try_from(roll(pods.len() as u64)).unwrap();
            if let Some(pod) = pods.get(at) {
                let grace = if roll(2) == 0 { Some(0) } else { None };
                let how = Deletion { grace_seconds: grace, ..Deletion::default() };
                let _ = api.delete("pods", "default", meta::name(pod), how).await;
            }
        }
        8 => api.break_watches(),
        9 => {
            let which = &alive[usize::try_from(roll(alive.len() as u64)).unwrap()];
            which.set(!which.get());
        }
        10 => {
            let how = Deletion { propagation: Some("Background"), ..Deletion::default() };
            let _ = api.delete("deployments.apps", "default", &name, how).await;
        }
        _ => {
            let replicas = i64::try_from(roll(6)).unwrap();
            let _ = api.create("deployments.apps", "default", deployment(&name, replicas, "image:0")).await;
        }
    }
}

fn generation(api: &Fake, name: &str) -> i64 {
    let all = api.store.borrow().all("deployments.apps");
    all.iter().find(|d| meta::name(d) == name).map_or(0, |d| meta::generation(d))
}

fn with_generation(mut patch: Value, generation: i64) -> Value {
    set(&mut patch, &["metadata", "generation"], json!(generation + 1));
    patch
}

async fn simulate(seed: u64) {
    let api = Fake::new(seed);
    make(&api, "namespaces", "", json!({"metadata": {"name": "default"}})).await;
    let mut alive = Vec::new();
    let mut kubelets = tokio::task::JoinSet::new();
    for i in 0..4 {
        let name = format!("node{i}");
        add_node(&api, &name).await;
        let flag = Rc::new(std::cell::Cell::new(true));
        alive.push(flag.clone());
        kubelets.spawn_local(kubelet(api.clone(), name, flag));
    }
    let mut running = Some(spawn(api.clone(), settings()));
    api.faults.set(100);
    for round in 0..60 {
        step(&api, &alive).await;
        let wait = api.random.borrow_mut().below(4000);
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(wait / 20 + 1)).await;
            check_always(&api);
        }
        if round % 20 == 19 {
            drop(running.take()); // the control plane restarts
            running = Some(spawn(api.clone(), settings()));
        }
    }
    api.faults.set(0);
    alive.iter().for_each(|flag| flag.set(true));
    let mut result = Ok(());
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        check_always(&api);
        result = check_calm(&api);
        if result.is_ok() {
            break;
        }
    }
    if let Err(why) = result {
        panic!("seed {seed}: {why}");
    }
    // and it stays so: nothing is made and deleted in turn
    let before = api.store.borrow().all("pods").iter().map(|p| meta::uid(p).to_string()).collect::<Vec<_>>();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let after = api.store.borrow().all("pods").iter().map(|p| meta::uid(p).to_string()).collect::<Vec<_>>();
    assert_eq!(before, after, "seed {seed}: pods change in the calm");
}

#[test]
fn faults_then_calm_then_converged() {
    let seeds = std::env::var("MOTE_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8u64);
    for seed in 1..=seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, simulate(seed));
    }
}
