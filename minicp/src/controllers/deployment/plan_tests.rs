#![allow(clippy::type_complexity)] // rows of tables

use super::super::desired::Condition;
use super::*;
use mote_api::tree::{Value, json};

const NOW: i64 = 1_800_000_000;

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"image": image}]}})
}

fn deployment(replicas: i64, spec: Value) -> Deployment {
    let mut object = json!({
        "metadata": {"name": "d", "namespace": "ns", "uid": "d", "generation": 1},
        "spec": {"replicas": replicas, "template": template("new"), "progressDeadlineSeconds": 600},
    });
    for (name, value) in spec.as_object().unwrap() {
        mote_api::tree::set(&mut object, &["spec", name], value.clone());
    }
    Deployment::parse(&object)
}

/// `image revision replicas available desired max`
fn set(text: &str) -> Rc<ReplicaSet> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let n = |at: usize| words[at].parse::<i64>().unwrap();
    let created = Time::from_unix(NOW - 1000 + n(1));
    Rc::new(ReplicaSet::parse(&json!({
        "metadata": {
            "name": format!("d-{}", words[0]), "namespace": "ns", "uid": words[0], "creationTimestamp": created.to_string(),
            "annotations": {
                "deployment.kubernetes.io/revision": words[1],
                "deployment.kubernetes.io/desired-replicas": words[4], "deployment.kubernetes.io/max-replicas": words[5],
            },
        },
        "spec": {"replicas": n(2), "template": template(words[0])},
        "status": {"replicas": n(2), "readyReplicas": n(3), "availableReplicas": n(3)},
    })))
}

fn sizes(plan: &Plan) -> Vec<(String, i64)> {
    plan.resize.iter().map(|r| (r.set.meta.uid.to_string(), r.replicas)).collect()
}

fn run(d: &Deployment, sets: &[&str]) -> Plan {
    let sets: Vec<Rc<ReplicaSet>> = sets.iter().map(|text| set(text)).collect();
    plan(d, &sets, false, Time::from_unix(NOW))
}

#[test]
fn rolling_steps() {
    // maxSurge 25 % of 10 = 3, maxUnavailable 25 % = 2
    let d = deployment(10, json!({}));
    let rows: [(&[&str], Option<i64>, &[(&str, i64)]); 8] = [
        (&[], Some(10), &[]),
        (&["old 1 10 10 10 13"], Some(3), &[]),
        (&["old 1 10 10 10 13", "new 2 3 0 10 13"], None, &[("old", 8)]),
        (&["old 1 8 8 10 13", "new 2 3 0 10 13"], None, &[("new", 5)]),
        (&["old 1 8 8 10 13", "new 2 5 0 10 13"], None, &[]),
        (&["old 1 8 8 10 13", "new 2 5 5 10 13"], None, &[("old", 3)]),
        (&["old 1 8 2 10 13", "new 2 5 3 10 13"], None, &[("old", 5)]), // the sick ones of the old go first
        (&["old 1 0 0 10 13", "new 2 10 10 10 13"], None, &[]),
    ];
    for (sets, create, resize) in rows {
        let plan = run(&d, sets);
        let want: Vec<(String, i64)> = resize.iter().map(|(uid, n)| (uid.to_string(), *n)).collect();
        assert_eq!((plan.create, sizes(&plan)), (create, want), "{sets:?}");
    }
}

#[test]
fn surge_and_unavailable() {
    let rows = [
        (json!({}), 4, (1, 1)),
        (json!({}), 1, (1, 0)),
        (json!({"maxSurge": 0, "maxUnavailable": 0}), 3, (0, 1)),
        (json!({"maxSurge": "0%", "maxUnavailable": "10%"}), 3, (0, 1)),
        (json!({"maxSurge": 2, "maxUnavailable": 9}), 3, (2, 3)),
        (json!({"maxSurge": "50%", "maxUnavailable": "50%"}), 3, (2, 1)),
    ];
    for (rolling, replicas, (surge, unavailable)) in rows {
        let d = deployment(replicas, json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}));
        assert_eq!(d.strategy, Strategy::Rolling { surge, unavailable }, "{rolling} of {replicas}");
    }
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let d = deployment(3, json!({"strategy": {"type": "Recreate"}}));
    assert_eq!(sizes(&run(&d, &["old 1 3 3 3 3"])), [("old".to_string(), 0)]);
    let sets = [set("old 1 0 0 3 3")];
    assert_eq!(plan(&d, &sets, true, Time::from_unix(NOW)).create, None);
    assert_eq!(plan(&d, &sets, false, Time::from_unix(NOW)).create, Some(3));
}

#[test]
fn undo_takes_the_old_set_up_again_with_a_new_revision() {
    let d = deployment(2, json!({}));
    let plan = run(&d, &["new 1 0 0 2 3", "other 2 2 2 2 3"]);
    assert_eq!((plan.create, plan.revision), (None, 3));
    assert_eq!(sizes(&plan), [("new".to_string(), 1)]);
}

#[test]
fn a_resize_in_a_rollout_is_shared_in_proportion() {
    let d = deployment(20, json!({}));
    // was 10 with at most 13; now 20 with at most 25
    let plan = run(&d, &["old 1 8 8 10 13", "new 2 5 5 10 13"]);
    assert_eq!(sizes(&plan), [("old".to_string(), 15), ("new".to_string(), 10)]);
    let down = run(&deployment(5, json!({})), &["old 1 8 8 10 13", "new 2 5 5 10 13"]);
    assert_eq!(sizes(&down).iter().map(|(_, n)| n).sum::<i64>(), 7);
    let single = run(&deployment(5, json!({})), &["new 1 3 3 3 4"]);
    assert_eq!(sizes(&single), [("new".to_string(), 5)]);
}

#[test]
fn paused_only_scales() {
    let d = deployment(3, json!({"paused": true}));
    let plan = run(&d, &["old 1 3 3 3 4"]);
    assert_eq!((plan.create, sizes(&plan)), (None, vec![]));
    assert_eq!(sizes(&run(&d, &["old 1 2 2 2 3"])), [("old".to_string(), 3)]);
}

#[test]
fn history_is_cleaned_when_the_rollout_is_done() {
    let d = deployment(1, json!({"revisionHistoryLimit": 1}));
    let mut sets = vec!["a 1 0 0 1 2", "b 2 0 0 1 2", "c 3 0 0 1 2", "new 4 1 1 1 2"];
    let deleted = |plan: &Plan| plan.delete.iter().map(|s| s.meta.uid.to_string()).collect::<Vec<_>>();
    assert_eq!(deleted(&run(&d, &sets)), ["a", "b"]);
    sets[3] = "new 4 1 0 1 2";
    assert_eq!(deleted(&run(&d, &sets)), Vec::<String>::new());
}

fn progressing(reason: &str, seconds_ago: i64) -> Condition {
    let at = Some(Time::from_unix(NOW - seconds_ago));
    Condition {
        kind: "Progressing".into(),
        status: "True",
        reason: reason.into(),
        message: String::new(),
        updated: at,
        changed: at,
    }
}

#[test]
fn conditions() {
    let reasons = |plan: &Plan| {
        let of =
            |kind: &str| plan.status.condition(kind).map_or(String::new(), |c| format!("{}={}", c.status, c.reason));
        (of("Available"), of("Progressing"))
    };
    let rows = [
        ("new 1 1 1 1 2", "ReplicaSetUpdated", 5, "True=MinimumReplicasAvailable", "True=NewReplicaSetAvailable"),
        ("new 1 1 0 1 2", "ReplicaSetUpdated", 5, "False=MinimumReplicasUnavailable", "True=ReplicaSetUpdated"),
        ("new 1 1 0 1 2", "ReplicaSetUpdated", 599, "False=MinimumReplicasUnavailable", "True=ReplicaSetUpdated"),
        (
            "new 1 1 0 1 2",
            "ReplicaSetUpdated",
            600,
            "False=MinimumReplicasUnavailable",
            "False=ProgressDeadlineExceeded",
        ),
        (
            "new 1 1 0 1 2",
            "NewReplicaSetAvailable",
            9999,
            "False=MinimumReplicasUnavailable",
            "True=NewReplicaSetAvailable",
        ),
    ];
    for (sets, before, ago, available, progress) in rows {
        let mut d = deployment(1, json!({}));
        d.status.updated = 1;
        d.status.replicas = 1;
        d.status.conditions = vec![progressing(before, ago)];
        let plan = run(&d, &[sets]);
        assert_eq!(reasons(&plan), (available.into(), progress.into()), "{sets} {before} {ago}");
    }
    let mut d = deployment(1, json!({}));
    (d.status.updated, d.status.replicas) = (1, 1);
    d.status.conditions = vec![progressing("ReplicaSetUpdated", 590)];
    assert_eq!(run(&d, &["new 1 1 0 1 2"]).again_in_ms, Some(11_000));
}
