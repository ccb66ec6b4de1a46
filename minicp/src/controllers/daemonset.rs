//! DaemonSets: one pod on every node that fits. Pods are pinned by node affinity and placed by the scheduler, as upstream.

use super::Context;
use super::deployment::desired::portion;
use super::deployment::template_hash;
use super::events::About;
use super::frame::Key;
use super::frame::run::{Outcome, Work};
use super::pods::{PodOwner, create_all, delete_pods, pod_from};
use super::view::apps::template_fingerprint;
use super::view::node::Node;
use super::view::pod::Pod;
use super::view::taints::{Effect, Taint};
use super::world::Change;
use super::{REVISION_HASH, frame, revisions};
use crate::scheduler::suits;
use mote_api::time::Time;
use mote_api::tree::{Value, i64_at, json, list_at, set, str_at};
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::task::JoinSet;

const NAME: &str = "daemonset-controller";
const RESOURCE: &str = "daemonsets.apps";
/// Borne by every pod of a DaemonSet: it is there also when the node is not well.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    cx.start(tasks, NAME, route, |cx, key| Box::pin(async move { reconcile(&cx, &key).await }));
}

fn route(cx: &Context, work: &Work, change: &Change) {
    match change {
        Change::DaemonSet(sides) => sides.any().into_iter().for_each(|d| work.add(d.meta.key.clone())),
        Change::Node(sides) => {
            let same = matches!((&sides.old, &sides.new), (Some(old), Some(new))
                if old.meta.labels == new.meta.labels && old.taints == new.taints);
            if !same {
                cx.world.look().daemon_sets.iter().for_each(|d| work.add(d.meta.key.clone()));
            }
        }
        Change::Pod(sides) => sides.each().for_each(|pod| add_owner(work, pod, "DaemonSet")),
        _ => {}
    }
}

/// Adds the pod's controller if it is of this kind.
pub(super) fn add_owner(work: &Work, pod: &Pod, kind: &str) {
    if let Some(owner) = pod.meta.controller.as_ref().filter(|owner| &*owner.kind == kind) {
        work.add(Key { ns: pod.meta.key.ns.clone(), name: owner.name.clone() });
    }
}

/// What one pod of the set is to us.
struct Mine {
    pod: Rc<Pod>,
    leaving: bool,
}

#[derive(Default)]
struct Plan {
    create_on: Vec<Rc<str>>,
    delete: Vec<Rc<Pod>>,
    desired: i64,
    current: i64,
    misplaced: i64,
    ready: i64,
    available: i64,
    updated: i64,
    again_in_ms: Option<u64>,
}

/// How pods of an old template are replaced.
struct Update {
    hash: String,
    on_delete: bool,
    unavailable_max: i64,
    min_ready_seconds: i64,
}

fn fits(sample: &Pod, node: &Node) -> bool {
    let borne = |taint: &&Taint| {
        taint.effect == Effect::PreferNoSchedule || sample.tolerations.iter().any(|t| t.tolerates(taint))
    };
    suits::by_labels(sample, node) && node.taints.iter().all(|taint| borne(&taint))
}

/// Pure. `sample` is a pod of the template, not pinned to any node.
fn plan(sample: &Pod, update: &Update, nodes: &[Rc<Node>], mine: &[Mine], now: Time) -> Plan {
    let mut plan = Plan::default();
    let mut by_node: BTreeMap<&str, Vec<&Mine>> = BTreeMap::new();
    for one in mine {
        by_node.entry(one.pod.meant_for().unwrap_or_default()).or_default().push(one);
    }
    let mut unavailable = 0;
    let mut outdated: Vec<(bool, Rc<Pod>)> = Vec::new();
    for node in nodes {
        let pods = by_node.remove(&**node.name()).unwrap_or_default();
        let (ended, rest): (Vec<&Mine>, Vec<&Mine>) =
            pods.into_iter().filter(|one| !one.leaving).partition(|one| one.pod.ended());
        plan.delete.extend(ended.iter().map(|one| one.pod.clone()));
        let mut staying: Vec<&Mine> = rest;
        staying.sort_by_key(|one| (!one.pod.ready, one.pod.meta.created, one.pod.meta.key.clone()));
        if !fits(sample, node) {
            plan.misplaced += i64::from(!staying.is_empty());
            plan.delete.extend(staying.iter().map(|one| one.pod.clone()));
            continue;
        }
        plan.desired += 1;
        let Some((first, surplus)) = staying.split_first() else {
            unavailable += 1;
            // its predecessor must be gone first
            if !mine.iter().any(|one| one.leaving && !one.pod.ended() && one.pod.meant_for() == Some(node.name())) {
                plan.create_on.push(node.name().clone());
            }
            continue;
        };
        plan.delete.extend(surplus.iter().map(|one| one.pod.clone()));
        let pod = &first.pod;
        let available = pod.available(update.min_ready_seconds, now);
        plan.current += 1;
        plan.ready += i64::from(pod.ready);
        plan.available += i64::from(available);
        unavailable += i64::from(!available);
        let wait = pod.available_in_ms(update.min_ready_seconds, now);
        plan.again_in_ms = plan.again_in_ms.into_iter().chain(wait).min();
        if pod.meta.labels.get(REVISION_HASH) == Some(&update.hash) {
            plan.updated += 1;
        } else {
            outdated.push((available, pod.clone()));
        }
    }
    // pods meant for nodes that are gone
    plan.delete.extend(by_node.into_values().flatten().filter(|one| !one.leaving).map(|one| one.pod.clone()));
    if !update.on_delete {
        outdated.sort_by_key(|(available, _)| *available);
        for (available, pod) in outdated {
            if available && unavailable >= update.unavailable_max {
                break;
            }
            unavailable += i64::from(available);
            plan.delete.push(pod);
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
    let about = About { api_version: "apps/v1", kind: "DaemonSet", key: key.clone(), uid: uid.clone() };
    let owner = PodOwner { about, component: NAME };
    let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
    let nodes: Vec<Rc<Node>> = cx.world.look().nodes.iter().cloned().collect();
    let total = i64::try_from(nodes.len()).unwrap_or(i64::MAX);
    let rolling = object.pointer("/spec/updateStrategy/rollingUpdate/maxUnavailable").cloned().unwrap_or(json!(1));
    let update = Update {
        hash: template_hash(template_fingerprint(&object), 0),
        on_delete: str_at(&object, &["spec", "updateStrategy", "type"]) == "OnDelete",
        unavailable_max: portion(Some(&rolling), total, true).max(1),
        min_ready_seconds: i64_at(&object, &["spec", "minReadySeconds"]).unwrap_or(0),
    };
    set(&mut template, &["metadata", "labels", REVISION_HASH], json!(update.hash));
    let mut tolerations = list_at(&template, &["spec", "tolerations"]).to_vec();
    for (key, effect) in BORNE {
        tolerations.push(json!({"key": key, "operator": "Exists", "effect": effect}));
    }
    set(&mut template, &["spec", "tolerations"], json!(tolerations));
    let (plan, used) = {
        let world = cx.world.look();
        let all = world.pods.in_namespace(&key.ns).filter(|pod| pod.meta.controlled_by(&uid));
        let mine: Vec<Mine> = all.map(|pod| Mine { pod: pod.clone(), leaving: world.pods.leaving(pod) }).collect();
        let used: Vec<String> =
            mine.iter().filter_map(|one| one.pod.meta.labels.get(REVISION_HASH).map(str::to_owned)).collect();
        (plan(&Pod::parse(&pod_from(&owner, &template)), &update, &nodes, &mine, cx.api.now()), used)
    };
    if !mote_api::meta::is_deleting(&object) {
        revisions::keep(cx, &owner, &object, &update.hash, &used).await?;
        delete_pods(cx, &owner, &plan.delete).await?;
        let pinned = |node: &Rc<str>| {
            let mut pod = pod_from(&owner, &template);
            pin(&mut pod, node);
            pod
        };
        create_all(cx, &owner, plan.create_on.iter().map(pinned).collect()).await?;
    }
    let status = json!({
        "currentNumberScheduled": plan.current, "numberMisscheduled": plan.misplaced,
        "desiredNumberScheduled": plan.desired, "numberReady": plan.ready,
        "observedGeneration": mote_api::meta::generation(&object), "updatedNumberScheduled": plan.updated,
        "numberAvailable": plan.available, "numberUnavailable": plan.desired.saturating_sub(plan.available),
    });
    write_counts(cx, RESOURCE, key, &object, status).await?;
    Ok(plan.again_in_ms)
}

/// Writes those fields of a status that differ.
pub(super) async fn write_counts(
    cx: &Context,
    res: &str,
    key: &frame::Key,
    object: &Value,
    status: Value,
) -> Result<(), mote_api::status::Status> {
    let told = |name: &str| object.get("status").and_then(|s| s.get(name)).cloned().unwrap_or_default();
    let same = |name: &str, value: &Value| {
        let old = told(name);
        old == *value || (old.is_null() && value.as_i64() == Some(0))
    };
    if status.as_object().into_iter().flatten().all(|(name, value)| same(name, value)) {
        return Ok(());
    }
    let patch = json!({"metadata": {"uid": mote_api::meta::uid(object)}, "status": status});
    match cx.api.merge_patch(res, &key.ns, &key.name, Some("status"), patch).await {
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        other => other.map(drop),
    }
}

/// Every alternative of the pod's node affinity names this node, and no other.
fn pin(pod: &mut Value, node: &str) {
    const PATH: [&str; 5] =
        ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let mut terms = list_at(pod, &PATH).to_vec();
    if terms.is_empty() {
        terms.push(json!({}));
    }
    terms.iter_mut().for_each(|term| set(term, &["matchFields"], field.clone()));
    set(pod, &PATH, json!(terms));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, spec: Value) -> Rc<Node> {
        Rc::new(Node::parse(&json!({"metadata": {"name": name, "labels": {"n": name}}, "spec": spec})))
    }

    fn mine(name: &str, node: &str, hash: &str, ready: bool) -> Mine {
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "labels": {REVISION_HASH: hash}}, "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        pin(&mut pod, node);
        Mine { pod: Rc::new(Pod::parse(&pod)), leaving: false }
    }

    fn run(sample: Value, nodes: &[Rc<Node>], pods: &[Mine]) -> (Vec<String>, Vec<String>) {
        let update = Update { hash: "new".into(), on_delete: false, unavailable_max: 1, min_ready_seconds: 0 };
        let plan = plan(&Pod::parse(&sample), &update, nodes, pods, Time::from_unix(0));
        let deleted = plan.delete.iter().map(|p| p.meta.key.name.to_string()).collect();
        (plan.create_on.iter().map(ToString::to_string).collect(), deleted)
    }

    #[test]
    fn one_on_each_node_that_fits() {
        let taint = json!({"taints": [{"key": "k", "effect": "NoSchedule"}]});
        let nodes = [node("a", json!({})), node("b", json!({})), node("c", taint)];
        assert_eq!(run(json!({}), &nodes, &[]).0, ["a", "b"]);
        assert_eq!(run(json!({"spec": {"nodeSelector": {"n": "b"}}}), &nodes, &[]).0, ["b"]);
        assert_eq!(run(json!({"spec": {"tolerations": [{"operator": "Exists"}]}}), &nodes, &[]).0, ["a", "b", "c"]);
        let pods = [
            mine("1", "a", "new", true),
            mine("2", "a", "new", true),
            mine("3", "c", "new", true),
            mine("4", "gone", "new", true),
        ];
        assert_eq!(run(json!({}), &nodes, &pods), (vec!["b".to_string()], vec!["2".into(), "3".into(), "4".into()]));
    }

    #[test]
    fn old_pods_go_one_by_one_and_the_sick_ones_first() {
        let nodes = [node("a", json!({})), node("b", json!({}))];
        let both = [mine("1", "a", "old", true), mine("2", "b", "old", true)];
        assert_eq!(run(json!({}), &nodes, &both).1, ["1"]);
        let sick = [mine("1", "a", "old", true), mine("2", "b", "old", false)];
        assert_eq!(run(json!({}), &nodes, &sick).1, ["2"]);
        let waits = [mine("1", "a", "new", false), mine("2", "b", "old", true)];
        assert_eq!(run(json!({}), &nodes, &waits).1, Vec::<String>::new());
        let mut leaving = mine("1", "a", "old", true);
        leaving.leaving = true;
        assert_eq!(run(json!({}), &nodes, &[leaving, mine("2", "b", "new", true)]).0, Vec::<String>::new());
    }
}
