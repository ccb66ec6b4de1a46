//! What a cluster at rest and a cluster at work cost the disk.

use std::collections::VecDeque;

use bytes::Bytes;
use mote_api::tree::{Value, json};

use super::fake::{FakeDisk, Random};
use super::*;
use crate::api::Api;
use crate::api::client::Client;
use crate::clock::ManualClock;
use crate::config::Config;

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

fn node(time: &str) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "False", "lastHeartbeatTime": time, "lastTransitionTime": "2026-11-21T00:00:00Z", "reason": "R", "message": "m"});
    let conditions = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].map(condition);
    json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2", "memory": "1Gi", "pods": "110"},
        "conditions": conditions}})
}

/// Through the API, as a kubelet does it: the heartbeat of an hour, said again and again, is not worth a byte.
#[test]
fn an_idle_hour_writes_nothing() {
    run(async {
        let disk = FakeDisk::default();
        let store = LogStore::with_disk(Box::new(disk.clone()), LOG_BYTES_MAX).unwrap_or_else(|e| panic!("{e}"));
        let config = Config::new("/nowhere".into(), "127.0.0.1:0".parse().unwrap());
        let clock = Rc::new(ManualClock::at(1_800_000_000));
        let api = Api::new(Rc::new(store.clone()), clock.clone(), Rc::new(config), "ca".into());
        let client = Client::new(api, "kubelet");
        let now = || client.now().to_string();
        for ns in ["default", "kube-node-lease"] {
            client.create("namespaces", "", json!({"metadata": {"name": ns}})).await.unwrap();
        }
        client.create("nodes", "", node(&now())).await.unwrap();
        client.update_status("nodes", node(&now())).await.unwrap();
        let lease = json!({"metadata": {"name": "n", "namespace": "kube-node-lease"}, "spec": {"holderIdentity": "n", "leaseDurationSeconds": 40}});
        client.create("leases.coordination.k8s.io", "kube-node-lease", lease).await.unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        client.create("pods", "default", pod).await.unwrap();
        let running = json!({"status": {"phase": "Running", "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "i", "imageID": "x", "state": {"running": {"startedAt": now()}}}]}});
        client.merge_patch("pods", "default", "p", Some("status"), running.clone()).await.unwrap();
        // The first volatile write of a store's life reserves the revisions of the next ones.
        let (before, _) = disk.written_and_held();
        for round in 0..360 {
            clock.advance(10);
            let renew = json!({"spec": {"renewTime": client.now().micro()}});
            client.merge_patch("leases.coordination.k8s.io", "kube-node-lease", "n", None, renew).await.unwrap();
            client.merge_patch("pods", "default", "p", Some("status"), running.clone()).await.unwrap();
            if round % 30 == 0 {
                client.update_status("nodes", node(&now())).await.unwrap();
                let event = json!({"metadata": {"generateName": "p.", "namespace": "default"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R", "message": "m", "type": "Normal"});
                client.create("events", "default", event).await.unwrap();
            }
        }
        assert_eq!(disk.written_and_held().0 - before, 0, "bytes in an idle hour");
        client
            .merge_patch("pods", "default", "p", Some("status"), json!({"status": {"phase": "Failed"}}))
            .await
            .unwrap();
        let status = disk.written_and_held().0 - before;
        assert!((1..3000).contains(&status), "a real change is written, once: {status} bytes");
        store.close().await;
    });
}

const NODES: usize = 100;
const PODS: usize = 1000;

fn put_op(key: String, bytes: usize) -> Op {
    Op::Put(key.into(), Bytes::from(vec![b'x'; bytes]))
}

fn put(key: String, bytes: usize, class: Class) -> Txn {
    Txn { guards: vec![], ops: vec![put_op(key, bytes)], class }
}

/// 24 hours of 100 nodes with 1,000 pods: leases every 10 s, heartbeats every 5 minutes, events, and a pod's status each time one restarts.
#[test]
fn a_day_of_a_hundred_nodes_is_bounded() {
    run(async {
        let disk = FakeDisk::default();
        let store = LogStore::with_disk(Box::new(disk.clone()), LOG_BYTES_MAX).unwrap_or_else(|e| panic!("{e}"));
        let pod = |n: usize| format!("/registry/core/pods/default/{n:04}");
        for n in 0..NODES {
            store.commit(put(format!("/registry/core/nodes/{n:03}"), 4000, Class::Durable)).await.unwrap();
        }
        for n in 0..PODS {
            store.commit(put(pod(n), 3000, Class::Durable)).await.unwrap();
        }
        let (made, _) = disk.written_and_held();
        let (mut random, mut durable, mut largest) = (Random(1), 0_u64, 0_u64);
        let mut events: VecDeque<String> = VecDeque::new();
        for tick in 0..8640_usize {
            for ten in 0..NODES / 10 {
                // Ten at a time, to spare the test's own time.
                let nodes = || (0..10).map(|n| ten * 10 + n);
                let lease = |n| format!("/registry/coordination.k8s.io/leases/kube-node-lease/{n:03}");
                let beat = |n| format!("/registry/core/nodes/{n:03}");
                let mut ops: Vec<Op> = nodes().map(|n| put_op(lease(n), 300)).collect();
                ops.extend(nodes().filter(|n| (tick + n) % 30 == 0).map(|n| put_op(beat(n), 4000)));
                store.commit(Txn { guards: vec![], ops, class: Class::Volatile }).await.unwrap();
            }
            if random.below(2) == 0 {
                // One container ends, waits and runs again: three statuses and two events.
                let key = pod(random.below(PODS));
                for _ in 0..3 {
                    store.commit(put(key.clone(), 3000, Class::Durable)).await.unwrap();
                    durable += 3000;
                }
                for part in 0..2 {
                    let event = format!("/registry/core/events/default/{tick}-{part}");
                    store.commit(put(event.clone(), 700, Class::Volatile)).await.unwrap();
                    events.push_back(event);
                }
                while events.len() > 700 {
                    let gone = events.pop_front().unwrap();
                    let ops = vec![Op::Delete(gone.as_str().into())];
                    store.commit(Txn { guards: vec![], ops, class: Class::Volatile }).await.unwrap();
                }
            }
            largest = largest.max(disk.written_and_held().1);
        }
        let (written, held) = disk.written_and_held();
        let day = written - made;
        // Values, keys and frames once, and the snapshots that replace a full log: twice in all. Leases and heartbeats: nothing.
        assert!(day > durable && day < 2 * durable + (8 << 20), "{day} bytes for {durable} of status");
        let state = (NODES * 4100 + PODS * 3100) as u64;
        assert!(largest < 4 * state + 2 * LOG_BYTES_MAX && held < largest + 1, "{largest} bytes at most, of {state}");
        assert!(store.0.index.borrow().keys().len() <= 2 * NODES + PODS + 702);
        store.close().await;
        let again = LogStore::with_disk(Box::new(disk.clone()), LOG_BYTES_MAX).unwrap_or_else(|e| panic!("{e}"));
        let found = again.range("/registry/", "", None, 0).await.unwrap();
        assert_eq!(found.entries.len(), NODES + PODS, "no lease, no event");
        println!(
            "a day of {NODES} nodes and {PODS} pods: {durable} bytes of status, {day} written, {largest} held at most, {held} now"
        );
        again.close().await;
    });
}
