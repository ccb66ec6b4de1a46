//! StatefulSets: pods with lasting names, made in order, replaced from the highest number down, each with its own claims.

use super::daemonset::{add_owner, write_counts};
use super::deployment::template_hash;
use super::events::About;
use super::frame::Key;
use super::frame::run::{Outcome, Work};
use super::pods::{PodOwner, create_all, delete_pods, pod_from};
use super::view::apps::template_fingerprint;
use super::view::pod::Pod;
use super::world::Change;
use super::{Context, REVISION_HASH, revisions};
use mote_api::time::Time;
use mote_api::tree::{Value, i64_at, json, list_at, remove, set, str_at};
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::task::JoinSet;

const NAME: &str = "statefulset-controller";
const RESOURCE: &str = "statefulsets.apps";

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    cx.start(tasks, NAME, route, |cx, key| Box::pin(async move { reconcile(&cx, &key).await }));
}

fn route(_: &Context, work: &Work, change: &Change) {
    match change {
        Change::StatefulSet(sides) => sides.any().into_iter().for_each(|s| work.add(s.meta.key.clone())),
        Change::Pod(sides) => sides.each().for_each(|pod| add_owner(work, pod, "StatefulSet")),
        _ => {}
    }
}

struct Desired {
    replicas: i64,
    first: i64,
    parallel: bool,
    on_delete: bool,
    /// Pods below this number keep the old template.
    partition: i64,
    min_ready_seconds: i64,
    hash: String,
}

#[derive(Default)]
struct Plan {
    create: Vec<i64>,
    delete: Vec<Rc<Pod>>,
    again_in_ms: Option<u64>,
}

/// Pure. `pods` by number; the flag says that the pod is leaving.
fn plan(d: &Desired, pods: &BTreeMap<i64, (Rc<Pod>, bool)>, now: Time) -> Plan {
    let mut plan = Plan::default();
    let last = d.first.saturating_add(d.replicas);
    let well = |pod: &Pod| pod.available(d.min_ready_seconds, now);
    plan.again_in_ms = pods.values().filter_map(|(pod, _)| pod.available_in_ms(d.min_ready_seconds, now)).min();
    for at in d.first..last {
        match pods.get(&at) {
            None => plan.create.push(at),
            Some((_, true)) if d.parallel => continue,
            Some((_, true)) => return plan, // it comes back when it is gone
            Some((pod, _)) if pod.ended() => plan.delete.push(pod.clone()),
            Some((pod, _)) if well(pod) || d.parallel => continue,
            Some((pod, _)) => {
                // a pod that never became well under the old template would block its own repair
                if !d.on_delete && at >= d.partition && pod.meta.labels.get(REVISION_HASH) != Some(&d.hash) {
                    plan.delete.push(pod.clone());
                }
                return plan;
            }
        }
        if !d.parallel {
            return plan;
        }
    }
    let surplus = pods.iter().rev().filter(|(at, _)| **at >= last || **at < d.first);
    for (_, (pod, leaving)) in surplus {
        if !leaving {
            plan.delete.push(pod.clone());
        }
        if !d.parallel {
            return plan;
        }
    }
    if d.on_delete || !plan.create.is_empty() || !plan.delete.is_empty() {
        return plan;
    }
    for (_, (pod, leaving)) in pods.range(d.partition.max(d.first)..last.max(d.partition.max(d.first))).rev() {
        if *leaving || !well(pod) && pod.meta.labels.get(REVISION_HASH) == Some(&d.hash) {
            return plan; // one at a time
        }
        if pod.meta.labels.get(REVISION_HASH) != Some(&d.hash) {
            plan.delete.push(pod.clone());
            return plan;
        }
    }
    plan
}

async fn reconcile(cx: &Context, key: &Key) -> Outcome {
    let object = match cx.api.get(RESOURCE, &key.ns, &key.name).await {
        Err(status) if status.is_not_found() => return Ok(None),
        other => other?,
    };
    let uid: Rc<str> = mote_api::meta::uid(&object).into();
    let d = Desired {
        replicas: i64_at(&object, &["spec", "replicas"]).unwrap_or(1).max(0),
        first: i64_at(&object, &["spec", "ordinals", "start"]).unwrap_or(0).max(0),
        parallel: str_at(&object, &["spec", "podManagementPolicy"]) == "Parallel",
        on_delete: str_at(&object, &["spec", "updateStrategy", "type"]) == "OnDelete",
        partition: i64_at(&object, &["spec", "updateStrategy", "rollingUpdate", "partition"]).unwrap_or(0).max(0),
        min_ready_seconds: i64_at(&object, &["spec", "minReadySeconds"]).unwrap_or(0),
        hash: template_hash(template_fingerprint(&object), 0),
    };
    let prefix = format!("{}-", key.name);
    let pods: BTreeMap<i64, (Rc<Pod>, bool)> = {
        let world = cx.world.look();
        let mine = world.pods.in_namespace(&key.ns).filter(|pod| pod.meta.controlled_by(&uid));
        let number = |pod: &Rc<Pod>| pod.meta.key.name.strip_prefix(&prefix).and_then(|n| n.parse().ok());
        mine.filter_map(|pod| Some((number(pod)?, (pod.clone(), world.pods.leaving(pod))))).collect()
    };
    let now = cx.api.now();
    let plan = plan(&d, &pods, now);
    let about = About { api_version: "apps/v1", kind: "StatefulSet", key: key.clone(), uid };
    let owner = PodOwner { about, component: NAME };
    if !mote_api::meta::is_deleting(&object) {
        let used: Vec<String> =
            pods.values().filter_map(|(p, _)| p.meta.labels.get(REVISION_HASH).map(str::to_owned)).collect();
        revisions::keep(cx, &owner, &object, &d.hash, &used).await?;
        delete_pods(cx, &owner, &plan.delete).await?;
        for at in &plan.create {
            claims(cx, key, &object, *at).await?;
            create_all(cx, &owner, vec![pod(&owner, &object, &d.hash, *at)]).await?;
        }
    }
    let count = |f: &dyn Fn(&Pod) -> bool| pods.values().filter(|(pod, leaving)| !leaving && f(pod)).count();
    let updated = count(&|pod| pod.meta.labels.get(REVISION_HASH) == Some(&d.hash));
    let all = count(&|_| true);
    let revision = format!("{}-{}", key.name, d.hash);
    let done = updated == all;
    let current = if done { revision.clone() } else { str_at(&object, &["status", "currentRevision"]).to_string() };
    let status = json!({
        "observedGeneration": mote_api::meta::generation(&object), "replicas": all,
        "readyReplicas": count(&|pod| pod.ready), "availableReplicas": count(&|pod| pod.available(d.min_ready_seconds, now)),
        "updatedReplicas": updated, "currentReplicas": if done { all } else { all - updated },
        "updateRevision": revision, "currentRevision": current,
    });
    write_counts(cx, RESOURCE, key, &object, status).await?;
    Ok(plan.again_in_ms)
}

fn pod(owner: &PodOwner, object: &Value, hash: &str, at: i64) -> Value {
    let name = format!("{}-{at}", owner.about.key.name);
    let mut pod = pod_from(owner, object.pointer("/spec/template").unwrap_or(&Value::Null));
    remove(&mut pod, &["metadata", "generateName"]);
    set(&mut pod, &["metadata", "name"], json!(name));
    let marks = [
        ("statefulset.kubernetes.io/pod-name", name.as_str()),
        ("apps.kubernetes.io/pod-index", &at.to_string()),
        (REVISION_HASH, hash),
    ];
    for (label, value) in marks {
        set(&mut pod, &["metadata", "labels", label], json!(value));
    }
    set(&mut pod, &["spec", "hostname"], json!(name));
    set(&mut pod, &["spec", "subdomain"], json!(str_at(object, &["spec", "serviceName"])));
    let own: Vec<&str> = list_at(object, &["spec", "volumeClaimTemplates"]).iter().map(mote_api::meta::name).collect();
    let mut volumes: Vec<Value> =
        list_at(&pod, &["spec", "volumes"]).iter().filter(|v| !own.contains(&str_at(v, &["name"]))).cloned().collect();
    for claim in &own {
        volumes.push(json!({"name": claim, "persistentVolumeClaim": {"claimName": format!("{claim}-{name}")}}));
    }
    if !volumes.is_empty() {
        set(&mut pod, &["spec", "volumes"], json!(volumes));
    }
    pod
}

/// Each pod's own claims; they outlive it.
async fn claims(cx: &Context, key: &Key, object: &Value, at: i64) -> Result<(), mote_api::status::Status> {
    for template in list_at(object, &["spec", "volumeClaimTemplates"]) {
        let mut claim = template.clone();
        set(&mut claim, &["apiVersion"], json!("v1"));
        set(&mut claim, &["kind"], json!("PersistentVolumeClaim"));
        let name = format!("{}-{}-{at}", mote_api::meta::name(template), key.name);
        set(&mut claim, &["metadata", "name"], json!(name));
        set(&mut claim, &["metadata", "namespace"], json!(&*key.ns));
        for (label, value) in mote_api::tree::map_at(object, &["spec", "selector", "matchLabels"]).into_iter().flatten()
        {
            set(&mut claim, &["metadata", "labels", label], value.clone());
        }
        remove(&mut claim, &["status"]);
        match cx.api.create("persistentvolumeclaims", &key.ns, claim).await {
            Err(status) if !status.is_already_exists() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `N:STATE` with state `well`, `sick`, `leaving`, `ended`; a `-` after it means the old template.
    fn pods(text: &str) -> BTreeMap<i64, (Rc<Pod>, bool)> {
        let one = |word: &str| {
            let (at, state) = word.split_once(':').unwrap();
            let (state, hash) = state.strip_suffix('-').map_or((state, "new"), |state| (state, "old"));
            let pod = Pod::parse(&json!({
                "metadata": {"name": format!("s-{at}"), "uid": at, "labels": {REVISION_HASH: hash}},
                "status": {
                    "phase": if state == "ended" { "Failed" } else { "Running" },
                    "conditions": [{"type": "Ready", "status": if state == "well" { "True" } else { "False" }}],
                },
            }));
            (at.parse().unwrap(), (Rc::new(pod), state == "leaving"))
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn in_order_one_at_a_time() {
        let rows: [(&str, i64, &[i64], &[&str]); 11] = [
            ("", 3, &[0], &[]),
            ("0:sick", 3, &[], &[]),
            ("0:well", 3, &[1], &[]),
            ("0:well 1:leaving", 3, &[], &[]),
            ("0:well 2:well", 3, &[1], &[]),
            ("0:well 1:ended", 2, &[], &["1"]),
            ("0:well 1:well 2:well", 1, &[], &["2"]),
            ("0:well 1:well 2:leaving", 1, &[], &[]),
            ("0:well- 1:well-", 2, &[], &["1"]),
            ("0:well- 1:sick", 2, &[], &[]),
            ("0:sick- 1:well-", 2, &[], &["0"]),
        ];
        for (text, replicas, create, delete) in rows {
            let d = Desired {
                replicas,
                first: 0,
                parallel: false,
                on_delete: false,
                partition: 0,
                min_ready_seconds: 0,
                hash: "new".into(),
            };
            let plan = plan(&d, &pods(text), Time::from_unix(0));
            let deleted: Vec<&str> = plan.delete.iter().map(|pod| &*pod.meta.uid).collect();
            assert_eq!((plan.create.as_slice(), deleted.as_slice()), (create, delete), "{text:?} of {replicas}");
        }
    }

    #[test]
    fn parallel_and_partition() {
        let mut d = Desired {
            replicas: 3,
            first: 0,
            parallel: true,
            on_delete: false,
            partition: 0,
            min_ready_seconds: 0,
            hash: "new".into(),
        };
        assert_eq!(plan(&d, &pods("1:sick"), Time::from_unix(0)).create, [0, 2]);
        (d.parallel, d.partition) = (false, 2);
        assert_eq!(plan(&d, &pods("0:well- 1:well- 2:well-"), Time::from_unix(0)).delete.len(), 1);
        assert_eq!(plan(&d, &pods("0:well- 1:well- 2:well"), Time::from_unix(0)).delete.len(), 0);
    }
}
