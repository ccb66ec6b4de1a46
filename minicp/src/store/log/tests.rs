use std::collections::BTreeMap;

use super::fake::{FakeDisk, Random};
use super::*;
use crate::store::Ended;

/// Small, so that snapshots happen within a test.
const LOG_BYTES: u64 = 600;

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

fn open(disk: &FakeDisk) -> LogStore {
    LogStore::with_disk(Box::new(disk.clone()), LOG_BYTES).unwrap_or_else(|e| panic!("{e}"))
}

fn put(key: &str, value: &str) -> Txn {
    Txn {
        guards: vec![],
        ops: vec![Op::Put(key.into(), Bytes::copy_from_slice(value.as_bytes()))],
        class: Class::Durable,
    }
}

fn volatile(key: &str, value: &str) -> Txn {
    Txn { class: Class::Volatile, ..put(key, value) }
}

fn delete(key: &str) -> Txn {
    Txn { guards: vec![], ops: vec![Op::Delete(key.into())], class: Class::Durable }
}

use bytes::Bytes;

async fn all(store: &LogStore) -> BTreeMap<String, String> {
    let range = store.range("/", "", None, 0).await.unwrap();
    range.entries.iter().map(|(k, e)| (k.to_string(), String::from_utf8_lossy(&e.value).into())).collect()
}

#[test]
fn guards_hold_against_what_is_on_its_way() {
    run(async {
        let store = open(&FakeDisk::default());
        let absent = |v| Txn { guards: vec![Guard::Absent("/a".into())], ..put("/a", v) };
        let (first, second) = (store.commit(absent("1")), store.commit(absent("2")));
        assert_eq!(second.await, Err(CommitError::Conflict));
        // What it lost against is visible by now.
        assert_eq!(store.get("/a", None).await.unwrap().unwrap().value, "1");
        let revision = first.await.unwrap();
        let update = |r, v| Txn { guards: vec![Guard::Unchanged("/a".into(), r)], ..put("/a", v) };
        let (a, b) = (store.commit(update(revision, "3")), store.commit(update(revision, "4")));
        assert!(a.await.is_ok());
        assert_eq!(b.await, Err(CommitError::Conflict));
        let chained = store.commit(put("/a", "5"));
        assert_eq!(store.commit(volatile("/v", "x")).await.map(|r| r.0), Ok(4));
        assert_eq!(chained.await.map(|r| r.0), Ok(3));
    });
}

#[test]
fn nobody_sees_what_is_not_synced() {
    run(async {
        let store = open(&FakeDisk::default());
        let mut watch = store.watch("/", Revision(0)).unwrap();
        let commit = store.commit(put("/a", "1"));
        assert_eq!(store.get("/a", None).await, Ok(None));
        assert!(watch.try_next().is_none());
        assert_eq!(commit.await, Ok(Revision(1)));
        assert_eq!(watch.next().await.unwrap().revision, Revision(1));
    });
}

#[test]
fn volatile_writes_cost_no_disk_and_revisions_never_go_back() {
    run(async {
        let disk = FakeDisk::default();
        let store = open(&disk);
        for n in 0..50 {
            store.commit(volatile("/lease", &n.to_string())).await.unwrap();
        }
        let last = store.revision();
        disk.crash_after(0);
        assert_eq!(store.commit(volatile("/lease", "x")).await, Ok(Revision(last.0 + 1)), "the reservation is there");
        let again = open(&disk.reboot(&mut Random(1)));
        assert!(again.revision() > last, "{} after {last}", again.revision());
        assert!(all(&again).await.is_empty());
        assert!(again.watch("/", last).is_err(), "what happened to the leases is not known any more");
    });
}

#[test]
fn group_commit_is_one_write() {
    run(async {
        let disk = FakeDisk::default();
        let store = open(&disk);
        store.commit(put("/warm", "")).await.unwrap();
        // A write and a sync for the first, a write and a sync for all that came meanwhile; then the power goes.
        disk.crash_after(4);
        let commits: Vec<_> = (0..4).map(|n| store.commit(put(&format!("/{n}"), "v"))).collect();
        for commit in commits {
            commit.await.unwrap();
        }
        assert!(!disk.crashed());
    });
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    run(async {
        let disk = FakeDisk::default();
        let store = open(&disk);
        store.commit(put("/a", "1")).await.unwrap();
        disk.room(Some(10));
        let (one, two) = (store.commit(put("/a", "2")), store.commit(put("/b", "2")));
        assert_eq!(one.await, Err(CommitError::Full));
        assert_eq!(two.await, Err(CommitError::Full));
        assert_eq!(all(&store).await, BTreeMap::from([("/a".into(), "1".into())]));
        disk.room(None);
        assert_eq!(store.commit(put("/c", "3")).await, Ok(Revision(2)));
        let again = open(&disk.reboot(&mut Random(1)));
        assert_eq!(all(&again).await.keys().cloned().collect::<Vec<_>>(), ["/a", "/c"]);
    });
}

#[test]
fn a_disk_that_fails_to_sync_is_not_trusted_again() {
    run(async {
        let disk = FakeDisk::default();
        let store = open(&disk);
        store.commit(put("/a", "1")).await.unwrap();
        disk.fail_sync();
        for _ in 0..2 {
            assert!(matches!(store.commit(put("/a", "2")).await, Err(CommitError::Failed(_))));
        }
        assert_eq!(store.get("/a", None).await.unwrap().unwrap().value, "1");
    });
}

#[test]
fn torn_tail_is_cut_damaged_middle_is_refused() {
    let disk = run(async {
        let disk = FakeDisk::default();
        let store = open(&disk);
        for n in 0..3 {
            store.commit(put(&format!("/{n}"), "value")).await.unwrap();
        }
        disk
    });
    let log = recover::log_name(0);
    let refused = disk.reboot(&mut Random(1));
    refused.edit(&log, |b| b[frame::HEADER_LEN + 12] ^= 1);
    let error = run(async { LogStore::with_disk(Box::new(refused), LOG_BYTES).err().unwrap() });
    assert!(matches!(error, OpenError::Damaged { at: frame::HEADER_LEN, .. }), "{error}");
    for cut in 1..20 {
        let torn = disk.reboot(&mut Random(1));
        torn.edit(&log, |b| b.truncate(b.len() - cut));
        run(async {
            assert_eq!(all(&open(&torn)).await.len(), 2);
            // The cut is done: what is written next is found again.
            let store = open(&torn);
            store.commit(put("/new", "v")).await.unwrap();
            assert_eq!(all(&open(&torn)).await.len(), 3);
        });
    }
    let other = disk.reboot(&mut Random(1));
    other.edit(&log, |b| b[0] = b'X');
    assert!(matches!(run(async { LogStore::with_disk(Box::new(other), 1).err() }), Some(OpenError::Header(_))));
}

#[test]
fn a_slow_watcher_is_cut_off_and_closing_ends_watches() {
    run(async {
        let store = open(&FakeDisk::default());
        let mut slow = store.watch("/v", Revision(0)).unwrap();
        let mut other = store.watch("/w", Revision(0)).unwrap();
        store.commit(put("/w", "1")).await.unwrap();
        for n in 0..=crate::store::WATCH_BACKLOG_MAX {
            store.commit(volatile("/v", &n.to_string())).await.unwrap();
        }
        assert_eq!(slow.next().await.err(), Some(Ended::Lagged));
        assert_eq!(&*other.next().await.unwrap().key, "/w");
        assert!(other.try_next().is_none());
        store.close().await;
        assert_eq!(other.next().await.err(), Some(Ended::Closed));
        assert!(matches!(store.commit(put("/x", "")).await, Err(CommitError::Failed(_))));
    });
}

/// The power goes at every single disk operation of a busy run; every acknowledged write must be there afterwards, and nothing but
/// a prefix of what was asked for.
#[test]
fn acknowledged_writes_survive_a_power_cut_at_any_step() {
    let mut steps = 0;
    loop {
        let disk = FakeDisk::default();
        disk.crash_after(steps);
        // The states after each commit, and how many of them were acknowledged.
        let (states, acknowledged) = run(busy(disk.clone()));
        for seed in 0..12 {
            let rebooted = disk.reboot(&mut Random(u64::from(steps) * 100 + seed));
            run(async {
                let store = open(&rebooted);
                let found = all(&store).await;
                let possible = states.iter().skip(acknowledged).any(|s| *s == found);
                assert!(possible, "step {steps} seed {seed}: {acknowledged} acknowledged, found {found:?}");
                store.commit(put("/after", "1")).await.unwrap();
                store.close().await;
                assert!(all(&open(&rebooted)).await.contains_key("/after"));
            });
        }
        if !disk.crashed() {
            assert!(disk.names().iter().any(|n| n.starts_with("snap-")), "the run was too small to roll over");
            break;
        }
        steps += 1;
    }
    assert!(steps > 40, "only {steps} steps were tried");
}

/// Of the write that was under way, every number of bytes arrives; and the power goes again at every step of the recovery.
#[test]
fn acknowledged_writes_survive_a_power_cut_at_any_byte() {
    let recovered = |disk: &FakeDisk| {
        let found = recover::recover(&mut disk.clone()).map_err(|e| e.to_string())?;
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        Ok::<_, String>(found.keys.iter().map(|(k, e)| (k.to_string(), text(&e.value))).collect::<BTreeMap<_, _>>())
    };
    let (mut points, mut steps) = (0, 0);
    loop {
        let disk = FakeDisk::default();
        disk.crash_after(steps);
        let (states, acknowledged) = run(busy(disk.clone()));
        let check = |disk: &FakeDisk, what: &str| {
            let found = recovered(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(
                states.iter().skip(acknowledged).any(|s| *s == found),
                "{what}: {acknowledged} acknowledged, {found:?}"
            );
        };
        for new_names in [true, false] {
            for bytes in 0.. {
                let Some(after) = disk.reboot_with(bytes, new_names) else { break };
                points += 1;
                for again in 0.. {
                    let second = after.reboot_with(0, true).unwrap();
                    second.crash_after(again);
                    let whole = recovered(&second).is_ok() && !second.crashed();
                    for (part, name) in [(0, true), (4, true), (0, false)] {
                        let Some(third) = second.reboot_with(part, name) else { continue };
                        check(&third, &format!("step {steps}, byte {bytes}, then step {again}"));
                    }
                    if whole {
                        break;
                    }
                    points += 1;
                }
            }
        }
        if !disk.crashed() {
            break;
        }
        steps += 1;
    }
    println!("{points} points of {steps} steps");
    assert!(points > 5000, "only {points} points were tried");
}

async fn busy(disk: FakeDisk) -> (Vec<BTreeMap<String, String>>, usize) {
    let mut states = vec![BTreeMap::new()];
    let mut acknowledged = 0;
    let Ok(store) = LogStore::with_disk(Box::new(disk), LOG_BYTES) else { return (states, 0) };
    let mut random = Random(7);
    for round in 0..14 {
        let mut commits = Vec::new();
        for n in 0..1 + random.below(3) {
            let key = format!("/{}", random.below(5));
            let mut next: BTreeMap<_, _> = states.last().cloned().unwrap_or_default();
            let txn = if random.below(4) == 0 {
                next.remove(&key);
                delete(&key)
            } else {
                let value = format!("{round}.{n} and some more so that the log fills");
                next.insert(key.clone(), value.clone());
                put(&key, &value)
            };
            states.push(next);
            commits.push(store.commit(txn));
        }
        for commit in commits {
            match commit.await {
                Ok(_) => acknowledged += 1,
                Err(_) => return (states, acknowledged),
            }
        }
    }
    (states, acknowledged)
}
