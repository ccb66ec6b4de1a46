//! What every store engine promises: the same tests on the embedded log and on a real etcd. Then what only happens with etcd.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod etcd;
mod faults;
mod servers;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use minicp::store::etcd::EtcdStore;
use minicp::store::log::LogStore;
use minicp::store::{
    Change, Class, CommitError, Ended, Guard, Op, ReadError, Revision, Store, Txn, WATCH_BACKLOG_MAX, Watcher,
};

use etcd::Etcd;

pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().unwrap();
    let bounded = async { tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test ends in time") };
    tokio::task::LocalSet::new().block_on(&runtime, bounded)
}

/// Where an engine keeps its state.
enum Place {
    Folder(tempfile::TempDir),
    Etcd(Etcd),
}

impl Place {
    async fn open(&self) -> Rc<dyn Store> {
        match self {
            Place::Folder(dir) => Rc::new(LogStore::open(dir.path()).await.unwrap_or_else(|e| panic!("{e}"))),
            Place::Etcd(etcd) => Rc::new(EtcdStore::open(&etcd.config()).await.unwrap_or_else(|e| panic!("{e}"))),
        }
    }
}

type Test = fn(&Place) -> Pin<Box<dyn Future<Output = ()> + '_>>;

/// On both engines.
fn both(test: Test) {
    for place in [Place::Folder(tempfile::tempdir().unwrap()), Place::Etcd(Etcd::start())] {
        run(test(&place));
    }
}

pub(crate) fn txn(guards: Vec<Guard>, ops: Vec<Op>) -> Txn {
    Txn { guards, ops, class: Class::Durable }
}

pub(crate) fn put_op(key: &str, value: &str) -> Op {
    Op::Put(key.into(), Bytes::copy_from_slice(format!("{{\"v\":\"{value}\"}}").as_bytes()))
}

pub(crate) async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.commit(txn(vec![], vec![put_op(key, value)])).await.unwrap()
}

async fn delete(store: &dyn Store, key: &str) -> Revision {
    store.commit(txn(vec![], vec![Op::Delete(key.into())])).await.unwrap()
}

/// Keys and values under a prefix.
pub(crate) async fn all(store: &dyn Store, prefix: &str, at: Option<Revision>) -> BTreeMap<String, String> {
    let range = store.range(prefix, "", at, 0).await.unwrap();
    assert_eq!(range.more, 0);
    let text =
        |value: &Bytes| String::from_utf8_lossy(value).trim_matches(['{', '}']).replace("\"v\":", "").replace('"', "");
    range.entries.iter().map(|(k, e)| (k.to_string(), text(&e.value))).collect()
}

fn map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.map(|(k, v)| (k.into(), v.into())).into()
}

pub(crate) async fn next(watcher: &mut Watcher) -> Rc<Change> {
    tokio::time::timeout(Duration::from_secs(20), watcher.next()).await.expect("a change comes").unwrap()
}

const A: &str = "/registry/core/configmaps/default/a";
const B: &str = "/registry/core/configmaps/default/b";
const PODS: &str = "/registry/core/pods/";

#[test]
fn guards_are_kept() {
    both(|place| {
        Box::pin(async {
            let store = place.open().await;
            let absent = |v| txn(vec![Guard::Absent(A.into())], vec![put_op(A, v)]);
            let first = store.commit(absent("1")).await.unwrap();
            assert_eq!(store.commit(absent("2")).await, Err(CommitError::Conflict));
            let entry = store.get(A, None).await.unwrap().unwrap();
            assert_eq!((entry.created, entry.modified), (first, first));
            let second =
                store.commit(txn(vec![Guard::Unchanged(A.into(), first)], vec![put_op(A, "2")])).await.unwrap();
            assert!(second > first);
            let stale = txn(vec![Guard::Unchanged(A.into(), first)], vec![put_op(A, "3")]);
            assert_eq!(store.commit(stale).await, Err(CommitError::Conflict));
            // All or nothing.
            let half =
                txn(vec![Guard::Unchanged(A.into(), second), Guard::Unchanged(B.into(), first)], vec![put_op(A, "4")]);
            assert_eq!(store.commit(half).await, Err(CommitError::Conflict));
            let two = txn(
                vec![Guard::Unchanged(A.into(), second), Guard::Absent(B.into())],
                vec![Op::Delete(A.into()), put_op(B, "5")],
            );
            let third = store.commit(two).await.unwrap();
            assert_eq!(all(&*store, "/registry/", None).await, map([(B, "5")]));
            assert_eq!(store.get(B, None).await.unwrap().unwrap().created, third);
            // Born again is another life.
            let again = put(&*store, A, "6").await;
            assert_eq!(store.get(A, None).await.unwrap().unwrap().created, again);
            store.close().await;
        })
    });
}

#[test]
fn nobody_overwrites_what_he_has_not_seen() {
    both(|place| {
        Box::pin(async {
            let store = place.open().await;
            put(&*store, A, "0").await;
            let count = |store: Rc<dyn Store>| async move {
                for _ in 0..10 {
                    loop {
                        let entry = store.get(A, None).await.unwrap().unwrap();
                        let text = String::from_utf8_lossy(&entry.value).into_owned();
                        let n: u32 = text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
                        let op = put_op(A, &(n + 1).to_string());
                        match store.commit(txn(vec![Guard::Unchanged(A.into(), entry.modified)], vec![op])).await {
                            Ok(_) => break,
                            Err(CommitError::Conflict) => {}
                            Err(e) => panic!("{e}"),
                        }
                    }
                }
            };
            let tasks: Vec<_> = (0..8).map(|_| tokio::task::spawn_local(count(store.clone()))).collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(all(&*store, A, None).await, map([(A, "80")]));
            store.close().await;
        })
    });
}

#[test]
fn pages_are_of_one_revision() {
    both(|place| {
        Box::pin(async {
            let store = place.open().await;
            for n in 0..7 {
                put(&*store, &format!("{PODS}default/{n}"), "old").await;
            }
            put(&*store, "/registry/core/podtemplates/default/x", "no pod").await;
            let first = store.range(PODS, "", None, 3).await.unwrap();
            assert_eq!((first.entries.len(), first.more), (3, 4));
            let at = first.revision;
            delete(&*store, &format!("{PODS}default/0")).await;
            delete(&*store, &format!("{PODS}default/5")).await;
            put(&*store, &format!("{PODS}default/6"), "new").await;
            put(&*store, &format!("{PODS}default/3a"), "new").await;
            let mut keys: Vec<String> = first.entries.iter().map(|(k, _)| k.to_string()).collect();
            while keys.len() < 7 {
                let page = store.range(PODS, keys.last().unwrap(), Some(at), 3).await.unwrap();
                assert_eq!(page.revision, at);
                assert_eq!(page.more as usize, 7 - keys.len() - page.entries.len());
                assert!(page.entries.iter().all(|(_, e)| e.modified <= at));
                keys.extend(page.entries.iter().map(|(k, _)| k.to_string()));
            }
            assert_eq!(keys, (0..7).map(|n| format!("{PODS}default/{n}")).collect::<Vec<_>>());
            assert_eq!(
                store.get(&keys[5], Some(at)).await.unwrap().unwrap().modified,
                first.entries[0].1.modified.max(Revision(at.0 - 2))
            );
            assert_eq!(store.get(&keys[5], None).await.unwrap(), None);
            assert_eq!(all(&*store, PODS, None).await.len(), 6);
            store.close().await;
        })
    });
}

#[test]
fn a_watch_tells_everything_once_and_in_order() {
    both(|place| {
        Box::pin(async {
            let store = place.open().await;
            let start = put(&*store, A, "1").await;
            let mut live = store.watch(PODS, store.revision()).unwrap();
            let key = format!("{PODS}default/p");
            let made = put(&*store, &key, "1").await;
            put(&*store, B, "other").await;
            let changed = put(&*store, &key, "2").await;
            let gone = delete(&*store, &key).await;
            let before = store.revision();
            delete(&*store, &key).await;
            assert_eq!(store.get(&key, None).await.unwrap(), None);
            assert!(store.revision() <= Revision(before.0 + 1));
            let mut late = store.watch(PODS, start).unwrap();
            let mut later = store.watch(PODS, made).unwrap();
            for watch in [&mut live, &mut late] {
                let change = next(watch).await;
                assert_eq!((change.revision, change.previous.is_none()), (made, true));
                assert_eq!(&*change.key, key);
                assert_eq!(change.value.as_ref().unwrap().created, made);
            }
            for watch in [&mut live, &mut late, &mut later] {
                let change = next(watch).await;
                assert_eq!((change.revision, change.value.as_ref().unwrap().created), (changed, made));
                assert_eq!(change.previous.as_ref().unwrap().modified, made);
                let change = next(watch).await;
                assert_eq!((change.revision, change.value.is_none()), (gone, true));
                assert_eq!(change.previous.as_ref().unwrap().modified, changed);
                assert!(watch.try_next().is_none(), "a deletion of nothing is nothing");
            }
            store.close().await;
            assert_eq!(live.next().await.err(), Some(Ended::Closed));
            assert!(matches!(store.commit(txn(vec![], vec![put_op(A, "x")])).await, Err(CommitError::Failed(_))));
        })
    });
}

#[test]
fn a_commit_that_nobody_waits_for_is_done() {
    both(|place| {
        Box::pin(async {
            let store = place.open().await;
            let mut watch = store.watch("/registry/", store.revision()).unwrap();
            drop(store.commit(Txn { class: Class::Volatile, ..txn(vec![], vec![put_op(A, "1")]) }));
            assert_eq!(&*next(&mut watch).await.key, A);
            drop(store.commit(txn(vec![], vec![Op::Delete(A.into())])));
            assert!(next(&mut watch).await.value.is_none());
            store.close().await;
        })
    });
}

#[test]
fn who_does_not_read_is_cut_off() {
    both(|place| {
        Box::pin(async {
            let store = place.open().await;
            let mut slow = store.watch("/registry/core/events/", store.revision()).unwrap();
            let mut other = store.watch(PODS, store.revision()).unwrap();
            let mut writes = Vec::new();
            for n in 0..=WATCH_BACKLOG_MAX {
                let op = put_op("/registry/core/events/default/e", &n.to_string());
                writes.push(store.commit(Txn { class: Class::Volatile, ..txn(vec![], vec![op]) }));
                if writes.len() == 64 {
                    for write in writes.drain(..) {
                        write.await.unwrap();
                    }
                }
            }
            for write in writes {
                write.await.unwrap();
            }
            assert_eq!(slow.next().await.err(), Some(Ended::Lagged));
            put(&*store, &format!("{PODS}default/p"), "1").await;
            next(&mut other).await;
            store.close().await;
        })
    });
}

#[test]
fn a_restart_finds_it_all_and_knows_what_it_does_not_know() {
    both(|place| {
        Box::pin(async {
            let store = place.open().await;
            let first = put(&*store, A, "1").await;
            put(&*store, A, "2").await;
            put(&*store, B, "1").await;
            let last = delete(&*store, B).await;
            let entry = store.get(A, None).await.unwrap();
            store.close().await;
            drop(store);
            let again = place.open().await;
            assert_eq!(again.get(A, None).await.unwrap(), entry);
            assert_eq!(all(&*again, "/registry/", None).await, map([(A, "2")]));
            assert!(again.revision() >= last);
            assert!(again.watch("/registry/", first).is_err(), "what came between is not known here");
            let mut watch = again.watch("/registry/", again.revision()).unwrap();
            assert!(put(&*again, B, "2").await > last);
            assert_eq!(&*next(&mut watch).await.key, B);
            match again.get(A, Some(first)).await {
                // etcd knows it still.
                Ok(Some(old)) => assert_eq!(old.modified, first),
                Ok(None) => panic!("it was there"),
                Err(e) => assert!(matches!(e, ReadError::Compacted(_)), "{e}"),
            }
            again.close().await;
        })
    });
}
