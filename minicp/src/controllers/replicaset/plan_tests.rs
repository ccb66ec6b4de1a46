use super::*;
use mote_api::tree::{Value, json};

const NOW: i64 = 1_800_000_000;

fn set(replicas: i64) -> ReplicaSet {
    ReplicaSet::parse(&json!({
        "metadata": {"name": "s", "namespace": "ns", "uid": "set", "generation": 3},
        "spec": {"replicas": replicas, "minReadySeconds": 0, "selector": {"matchLabels": {"app": "x"}}},
    }))
}

/// `what`: words of `n:NODE pending ready:SECONDS-AGO restarts:N cost:N foreign orphan misfit leaving ended mirror old`.
fn pod(name: &str, what: &str) -> Candidate {
    let now = Time::from_unix(NOW);
    let mut object = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "labels": {"app": "x"}, "creationTimestamp": now.to_string(),
            "ownerReferences": [{"kind": "ReplicaSet", "name": "s", "uid": "set", "controller": true}],
        },
        "spec": {}, "status": {"phase": "Running"},
    });
    let mut leaving = false;
    for word in what.split_whitespace() {
        let (word, value) = word.split_once(':').unwrap_or((word, ""));
        let mut put = |path: &[&str], value: Value| mote_api::tree::set(&mut object, path, value);
        let ago = || json!(now.plus_seconds(-value.parse::<i64>().unwrap_or(0)).to_string());
        match word {
            "n" => put(&["spec", "nodeName"], json!(value)),
            "pending" => put(&["status", "phase"], json!("Pending")),
            "ended" => put(&["status", "phase"], json!("Failed")),
            "ready" => put(
                &["status", "conditions"],
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": ago()}]),
            ),
            "restarts" => put(&["status", "containerStatuses"], json!([{"restartCount": value.parse::<i64>().ok()}])),
            "cost" => put(&["metadata", "annotations", "controller.kubernetes.io/pod-deletion-cost"], json!(value)),
            "created" => put(&["metadata", "creationTimestamp"], ago()),
            "orphan" => put(&["metadata", "ownerReferences"], json!([])),
            "foreign" => put(&["metadata", "ownerReferences"], json!([{"uid": "other", "controller": true}])),
            "misfit" => put(&["metadata", "labels"], json!({"app": "y"})),
            "mirror" => put(&["metadata", "annotations", "kubernetes.io/config.mirror"], json!("x")),
            "leaving" => leaving = true,
            _ => panic!("unknown word {word}"),
        }
    }
    Candidate { pod: Rc::new(Pod::parse(&object)), leaving }
}

fn names(pods: &[Rc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| &*pod.meta.key.name).collect()
}

fn run(replicas: i64, pods: &[Candidate]) -> Plan {
    plan(&set(replicas), pods, &BTreeMap::new(), 500, Time::from_unix(NOW))
}

#[test]
fn counts_only_its_own_living_pods() {
    let rows: [(&[&str], usize, usize); 6] = [
        (&[], 3, 0),
        (&["n:a", "n:a"], 1, 0),
        (&["n:a", "n:a leaving"], 2, 0),
        (&["n:a", "n:a ended"], 2, 0),
        (&["n:a", "n:a foreign", "n:a misfit"], 2, 0),
        (&["n:a", "n:a", "n:a", "n:a orphan"], 0, 1),
    ];
    for (pods, create, delete) in rows {
        let pods: Vec<Candidate> = pods.iter().enumerate().map(|(i, what)| pod(&format!("p{i}"), what)).collect();
        let plan = run(3, &pods);
        assert_eq!((plan.create, plan.delete.len()), (create, delete), "{} pods", pods.len());
    }
}

#[test]
fn adopts_and_releases() {
    let pods = [
        pod("orphan", "n:a orphan"),
        pod("static", "n:a orphan mirror"),
        pod("misfit", "n:a misfit"),
        pod("gone", "n:a orphan leaving"),
        pod("theirs", "n:a foreign"),
    ];
    let plan = run(1, &pods);
    assert_eq!((names(&plan.adopt), names(&plan.release)), (vec!["orphan"], vec!["misfit"]));
    assert_eq!((plan.create, plan.delete.len()), (0, 0));
}

#[test]
fn who_goes_first() {
    // each row: the second pod goes before the first
    let rows = [
        ("n:a", "pending"),
        ("n:a ready:100", "n:a pending"),
        ("n:a ready:100", "n:a"),
        ("n:a ready:100 cost:5", "n:a ready:100 cost:-5"),
        ("n:a ready:1000", "n:a ready:10"),
        ("n:a ready:100 restarts:1", "n:a ready:100 restarts:5"),
        ("n:a ready:100 created:500", "n:a ready:100 created:100"),
    ];
    for (stays, goes) in rows {
        let plan = run(1, &[pod("a-stays", stays), pod("z-goes", goes)]);
        assert_eq!(names(&plan.delete), ["z-goes"], "{stays} against {goes}");
        let plan = run(1, &[pod("a-goes", goes), pod("z-stays", stays)]);
        assert_eq!(names(&plan.delete), ["a-goes"], "{stays} against {goes}");
    }
}

#[test]
fn a_crowded_node_gives_first() {
    let crowd = BTreeMap::from([(Rc::from("full"), 5), (Rc::from("free"), 1)]);
    let pods = [pod("a", "n:free ready:100"), pod("b", "n:full ready:100")];
    let plan = plan(&set(1), &pods, &crowd, 500, Time::from_unix(NOW));
    assert_eq!(names(&plan.delete), ["b"]);
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let mut set = set(2);
    set.min_ready_seconds = 30;
    let pods = [pod("a", "n:a ready:40"), pod("b", "n:a ready:10")];
    let plan = plan(&set, &pods, &BTreeMap::new(), 500, Time::from_unix(NOW));
    let want = Counts { replicas: 2, labelled: 2, ready: 2, available: 1, observed_generation: 3 };
    assert_eq!((plan.status, plan.again_in_ms), (want, Some(20_000)));
}

#[test]
fn a_burst_is_bounded() {
    assert_eq!(run(100_000, &[]).create, 500);
}
