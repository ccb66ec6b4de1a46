//! etcd that is away, dies, forgets; members that fail; and what it costs.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use minicp::EtcdConfig;
use minicp::store::etcd::EtcdStore;
use minicp::store::{Class, Ended, Op, ReadError, Revision, Store, Txn};

use crate::etcd::Etcd;
use crate::{A, PODS, all, map, next, put, put_op, run, txn};

async fn open(config: &EtcdConfig) -> EtcdStore {
    EtcdStore::open(config).await.unwrap_or_else(|e| panic!("{e}"))
}

/// Bounded waiting.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}");
}

#[test]
fn two_see_each_other_at_once() {
    run(async {
        let etcd = Etcd::start();
        let (one, two) = (open(&etcd.config()).await, open(&etcd.config()).await);
        let mut watch = two.watch(PODS, two.revision()).unwrap();
        for n in 0..50 {
            let (here, there) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
            let key = format!("{PODS}default/{n}");
            let revision = put(here, &key, "1").await;
            let seen = there.get(&key, None).await.unwrap().expect("a read is never stale");
            assert_eq!(seen.modified, revision);
            assert!(there.revision() >= revision);
            assert_eq!(next(&mut watch).await.revision, revision);
        }
        // Of what one was told, the other can be asked.
        let newest = put(&one, A, "1").await;
        two.reach(newest).await;
        assert!(two.revision() >= newest);
        one.close().await;
        two.close().await;
    });
}

#[test]
fn other_tenants_do_not_hold_reads_up() {
    run(async {
        let etcd = Etcd::start();
        let mut config = etcd.config();
        config.prefix = "/cluster-1".into();
        let store = open(&config).await;
        put(&store, A, "1").await;
        assert_eq!(etcd.raw(&A.replace("/registry", "/cluster-1"))["value"], "eyJ2IjoiMSJ9", "JSON, under the prefix");
        for n in 0..20 {
            etcd.put("/elsewhere", &n.to_string());
            assert_eq!(all(&store, "/registry/", None).await, map([(A, "1")]));
        }
        store.close().await;
    });
}

#[test]
fn values_of_a_kube_apiserver_are_not_touched() {
    run(async {
        let etcd = Etcd::start();
        etcd.put("/registry/pods/default/x", "k8s\0\n\x0c");
        let error = EtcdStore::open(&etcd.config()).await.err().unwrap().to_string();
        assert!(error.contains("--etcd-prefix"), "{error}");
    });
}

#[test]
fn an_etcd_that_is_not_there_is_named_or_waited_for() {
    run(async {
        let mut late = Etcd::members(1, false).remove(0);
        let mut config = late.config();
        config.patience = Duration::from_millis(300);
        let error = EtcdStore::open(&config).await.err().unwrap().to_string();
        assert!(error.contains(&late.url()) && error.contains("refused"), "{error}");
        config.patience = Duration::from_secs(60);
        let opening = tokio::task::spawn_local(async move { EtcdStore::open(&config).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        late.run();
        let store = opening.await.unwrap().unwrap_or_else(|e| panic!("{e}"));
        put(&store, A, "1").await;
        // And away again: reads say so, and do not answer what may be old.
        late.kill();
        let read = store.get(A, None).await;
        assert!(matches!(&read, Err(ReadError::Unavailable(_))), "{read:?}");
        let write = store.commit(txn(vec![], vec![put_op(A, "2")])).await.unwrap_err().to_string();
        assert!(write.contains("nothing was written"), "{write}");
        late.run();
        late.wait();
        assert_eq!(all(&store, "/registry/", None).await, map([(A, "1")]));
        store.close().await;
    });
}

#[test]
fn killed_under_load_it_loses_nothing_that_was_acknowledged() {
    run(async {
        let mut etcd = Etcd::start();
        let store = Rc::new(open(&etcd.config()).await);
        let mut watch = store.watch(PODS, store.revision()).unwrap();
        let acknowledged = Rc::new(RefCell::new(Vec::new()));
        let stop = Rc::new(std::cell::Cell::new(false));
        let writer = |k: usize| {
            let (store, acknowledged, stop) = (store.clone(), acknowledged.clone(), stop.clone());
            tokio::task::spawn_local(async move {
                for n in 0.. {
                    if stop.get() {
                        return;
                    }
                    let key = format!("{PODS}default/{k}-{n}");
                    if let Ok(revision) = store.commit(txn(vec![], vec![put_op(&key, "1")])).await {
                        acknowledged.borrow_mut().push((revision, key));
                    }
                }
            })
        };
        let writers: Vec<_> = (0..8).map(writer).collect();
        for round in 0..2 {
            let before = acknowledged.borrow().len();
            until("writes go on", async || acknowledged.borrow().len() > before + 100).await;
            etcd.kill();
            tokio::time::sleep(Duration::from_millis(200 * round)).await;
            etcd.run();
        }
        let before = acknowledged.borrow().len();
        until("writes go on", async || acknowledged.borrow().len() > before + 100).await;
        stop.set(true);
        for writer in writers {
            writer.await.unwrap();
        }
        let there = all(&*store, PODS, None).await;
        let mut last = Revision(0);
        let mut told = std::collections::HashSet::new();
        while let Some(change) = watch.try_next() {
            let change = change.unwrap();
            assert!(change.revision > last, "in order, nothing twice");
            last = change.revision;
            told.insert(change.key.to_string());
        }
        for (revision, key) in acknowledged.borrow().iter() {
            assert!(there.contains_key(key), "{key} of {revision} is gone");
            assert!(told.contains(key), "{key} was not told");
        }
        store.close().await;
    });
}

#[test]
fn what_was_compacted_meanwhile_is_410() {
    run(async {
        let mut etcd = Etcd::start();
        let store = open(&etcd.config()).await;
        let from = put(&store, A, "1").await;
        put(&store, &format!("{PODS}default/old"), "1").await;
        let mut watch = store.watch("/registry/", from).unwrap();
        next(&mut watch).await;
        // While nothing of ours runs (this test holds the thread): etcd dies, others write, and it is compacted.
        etcd.kill();
        etcd.run();
        etcd.wait();
        etcd.put("/registry/core/pods/default/new", "{\"v\":\"2\"}");
        let deleted =
            etcd.ask("/v3/kv/deleterange", serde_json::json!({"key": "L3JlZ2lzdHJ5L2NvcmUvcG9kcy9kZWZhdWx0L29sZA=="}));
        let revision: u64 = deleted.unwrap()["header"]["revision"].as_str().unwrap().parse().unwrap();
        etcd.compact(revision);
        let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("it ends");
        assert_eq!(ended.err(), Some(Ended::Lagged), "not a word of what can only be guessed");
        assert_eq!(all(&store, PODS, None).await, map([(&format!("{PODS}default/new"), "2")]));
        assert!(store.watch("/registry/", from).is_err());
        let old = store.range("/registry/", "", Some(from), 0).await.map(|r| r.entries.len());
        assert!(matches!(old, Err(ReadError::Compacted(_))), "{old:?}");
        let mut again = store.watch("/registry/", store.revision()).unwrap();
        put(&store, A, "2").await;
        assert_eq!(&*next(&mut again).await.key, A);
        store.close().await;
    });
}

#[test]
fn one_server_compacts_for_all() {
    run(async {
        let etcd = Etcd::start();
        let mut config = etcd.config();
        config.compact_every = Some(Duration::from_millis(300));
        let (one, two) = (open(&config).await, open(&config).await);
        let first = put(&one, A, "1").await;
        let past = async |store: &EtcdStore| {
            // Beyond the index of one that started later: etcd itself is asked.
            put(&one, A, "x").await;
            store.get(A, Some(first)).await.is_err()
        };
        put(&one, A, "2").await;
        let late = open(&config).await;
        until("the first revision is compacted", async || past(&late).await).await;
        let version: u64 = etcd.raw("/registry/mote.dev/compaction")["version"].as_str().unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
        let later: u64 = etcd.raw("/registry/mote.dev/compaction")["version"].as_str().unwrap().parse().unwrap();
        assert!((1..=5).contains(&(later - version)), "three take turns: {version}, {later}");
        assert_eq!(all(&two, "/registry/", None).await.len(), 1, "the key is no object");
        for store in [one, two, late] {
            store.close().await;
        }
    });
}

#[test]
fn the_next_member_is_asked_when_one_fails() {
    run(async {
        let mut members = Etcd::members(3, false);
        for member in &mut members {
            member.run();
        }
        for member in &members {
            member.wait();
        }
        let mut config = members[0].config();
        config.servers = members.iter().map(Etcd::url).collect();
        let store = open(&config).await;
        let mut watch = store.watch(PODS, store.revision()).unwrap();
        put(&store, &format!("{PODS}default/0"), "1").await;
        next(&mut watch).await;
        for n in 1..3 {
            // The one that is asked first, then the next one; two of three must live, so the first comes back before.
            let dead = n - 1;
            members[dead].kill();
            let key = format!("{PODS}default/{n}");
            until("writes go on elsewhere", async || store.commit(txn(vec![], vec![put_op(&key, "1")])).await.is_ok())
                .await;
            assert!(store.get(&key, None).await.unwrap().is_some());
            loop {
                if *next(&mut watch).await.key == *key {
                    break;
                }
            }
            members[dead].run();
            members[dead].wait();
        }
        assert_eq!(all(&store, PODS, None).await.len(), 3);
        store.close().await;
    });
}

#[test]
fn certificates_on_both_sides() {
    run(async {
        let etcd = Etcd::start_tls();
        let store = open(&etcd.config()).await;
        let mut watch = store.watch("/registry/", store.revision()).unwrap();
        put(&store, A, "1").await;
        next(&mut watch).await;
        store.close().await;
        let mut nobody = etcd.config();
        (nobody.cert_file, nobody.key_file) = (None, None);
        nobody.patience = Duration::from_millis(500);
        assert!(EtcdStore::open(&nobody).await.is_err(), "without a certificate");
        let other = tempfile::tempdir().unwrap();
        let mut misled = etcd.config();
        misled.ca_file = Some(crate::etcd::Tls::make(other.path()).ca);
        misled.patience = Duration::from_millis(500);
        let error = EtcdStore::open(&misled).await.err().unwrap().to_string();
        assert!(error.contains("TLS"), "{error}");
    });
}

#[test]
fn events_go_by_themselves() {
    run(async {
        let etcd = Etcd::start();
        let store = open(&etcd.config()).await;
        let event = "/registry/core/events/default/e";
        let lease = "/registry/coordination.k8s.io/leases/kube-node-lease/n";
        for key in [event, lease, A] {
            let class = Class::Volatile;
            store.commit(Txn { class, ..txn(vec![], vec![put_op(key, "1")]) }).await.unwrap();
        }
        let id = etcd.raw(event)["lease"].as_str().unwrap().to_owned();
        let left = etcd.ask("/v3/lease/timetolive", serde_json::json!({"ID": id})).unwrap();
        let seconds: i64 = left["TTL"].as_str().unwrap().parse().unwrap();
        assert!((minicp::EVENT_TTL_SECONDS - 60..=minicp::EVENT_TTL_SECONDS + 60).contains(&seconds), "{seconds}");
        assert!(
            etcd.raw(lease)["lease"].is_null() && etcd.raw(A)["lease"].is_null(),
            "heartbeats are overwritten, not dropped"
        );
        // The lease ends (somebody revokes it): the event goes, watchers are told, and the next event gets a new one.
        let mut watch = store.watch("/registry/", store.revision()).unwrap();
        etcd.ask("/v3/kv/lease/revoke", serde_json::json!({"ID": id}))
            .or_else(|_| etcd.ask("/v3/lease/revoke", serde_json::json!({"ID": id})))
            .unwrap();
        let gone = next(&mut watch).await;
        assert!(&*gone.key == event && gone.value.is_none());
        put(&store, event, "2").await;
        assert_ne!(etcd.raw(event)["lease"], id.as_str());
        store.close().await;
    });
}

#[test]
fn a_long_list_comes_whole() {
    run(async {
        let etcd = Etcd::start();
        let store = open(&etcd.config()).await;
        // Of the last batch; the store's own revision may be further: a key that makes the watch speak counts too.
        let mut at = Revision(0);
        for batch in 0..12 {
            let ops: Vec<Op> =
                (0..100).map(|n| put_op(&format!("{PODS}default/{batch:02}-{n:02}"), &"x".repeat(2000))).collect();
            at = store.commit(txn(vec![], ops)).await.unwrap();
        }
        let again = open(&etcd.config()).await;
        assert_eq!(all(&again, PODS, None).await.len(), 1200);
        assert!(again.revision() >= at);
        // A past that only etcd has, in pages.
        put(&again, A, "1").await;
        let late = open(&etcd.config()).await;
        let page = late.range(PODS, &format!("{PODS}default/05-99"), Some(Revision(at.0 - 1)), 550).await.unwrap();
        assert_eq!((page.entries.len(), page.more), (500, 0));
        assert_eq!(&*page.entries[0].0, format!("{PODS}default/06-00"));
        for store in [store, again, late] {
            store.close().await;
        }
    });
}
