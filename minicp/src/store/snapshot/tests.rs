use bytes::Bytes;

use super::*;
use crate::store::log::LogStore;
use crate::store::{Class, Op, Store, Txn};

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

async fn put(store: &dyn Store, key: &str, value: &str, class: Class) -> Revision {
    let ops = vec![Op::Put(key.into(), Bytes::copy_from_slice(value.as_bytes()))];
    store.commit(Txn { guards: vec![], ops, class }).await.unwrap()
}

const POD: &str = "/registry/core/pods/default/a";
const EVENT: &str = "/registry/core/events/default/e";

#[test]
fn a_running_store_is_saved_and_restored() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (from, to, file) = (dir.path().join("store"), dir.path().join("new"), dir.path().join("backup"));
        assert!(matches!(Snapshot::of_folder(&from), Err(SnapshotError::NotThere(_))));
        let store = LogStore::open(&from).await.unwrap();
        assert!(matches!(Snapshot::of_folder(&dir.path().join("store")).map(|s| s.summary().entries), Ok(0)));
        put(&store, EVENT, "{}", Class::Volatile).await;
        for n in 0..40 {
            put(&store, POD, &format!("{{\"n\":{n}}}"), Class::Durable).await;
        }
        let pod = store.get(POD, None).await.unwrap().unwrap();
        // The store is open, and its lock taken, all the while.
        let saved = Snapshot::of_folder(&from).unwrap();
        assert_eq!(saved.changed, store.revision());
        saved.write(&file).unwrap();
        put(&store, POD, "{\"n\":100}", Class::Durable).await;
        let lost = store.revision();
        store.close().await;

        let read = Snapshot::read(&file).unwrap();
        let summary = read.summary();
        assert_eq!((summary.entries, summary.encrypted, summary.bytes), (1, 0, 8));
        assert_eq!(summary.resources.get("core/pods"), Some(&1));
        assert!(read.restore(&to).unwrap() > lost);
        let again = LogStore::open(&to).await.unwrap();
        assert_eq!(again.get(POD, None).await.unwrap(), Some(pod.clone()), "with the revisions it had");
        assert!(again.watch("/", lost).is_err(), "what came after the backup is not known: no lies about it");
        assert!(again.watch("/", pod.modified).is_err());
        let next = put(&again, POD, "{}", Class::Durable).await;
        assert!(next > lost);
        again.close().await;
        assert!(matches!(read.restore(&to), Err(SnapshotError::NotEmpty(_))));
        assert!(matches!(read.restore(&from), Err(SnapshotError::NotEmpty(_))));
    });
}

#[test]
fn a_store_that_runs_is_not_restored_into() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path()).await.unwrap();
        let saved = Snapshot::of_folder(dir.path()).unwrap();
        assert!(matches!(saved.restore(dir.path()), Err(SnapshotError::Io(..))), "its lock is taken");
        store.close().await;
    });
}

#[test]
fn every_changed_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let kept = |n: u64| Kept {
        key: format!("/registry/core/configmaps/default/{n}").into(),
        created: Revision(n),
        modified: Revision(n),
        value: "{\"data\":{}}".into(),
    };
    let snapshot = Snapshot { revision: Revision(9), changed: Revision(9), entries: (1..4).map(kept).collect() };
    snapshot.write(&file).unwrap();
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(Snapshot::read(&file).unwrap().entries.len(), 3);
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 0x10;
        std::fs::write(&file, &bent).unwrap();
        // The generation means nothing in a backup, but the header's checksum covers it.
        assert!(Snapshot::read(&file).is_err(), "byte {at}");
        std::fs::write(&file, &whole[..at]).unwrap();
        assert!(Snapshot::read(&file).is_err(), "cut at {at}");
    }
    std::fs::write(&file, [whole.as_slice(), b"x"].concat()).unwrap();
    assert!(Snapshot::read(&file).is_err(), "something behind it");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["backup"], "nothing else is left");
}

#[test]
fn values_that_are_no_objects_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    for (value, good) in [("{}", true), ("k8s:enc:aesgcm:v1:a:xyz", true), ("k8s\0\n\x0c", false), ("", false)] {
        let key: Box<str> = "/registry/core/secrets/default/s".into();
        let kept = Kept { key, created: Revision(1), modified: Revision(1), value: value.into() };
        Snapshot { revision: Revision(1), changed: Revision(1), entries: vec![kept] }.write(&file).unwrap();
        assert_eq!(Snapshot::read(&file).is_ok(), good, "{value:?}");
    }
}

#[test]
fn revisions_that_no_store_reached_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    for (created, modified, revision, good) in [
        (1, 1, 1, true),
        (1, 2, 2, true),
        (2, 1, 2, false),
        (1, 3, 2, false),
        (1, 1, 1 << 62, true),
        (1, 1, (1 << 62) + 1, false),
        (1, 1, u64::MAX, false),
    ] {
        let (created, modified) = (Revision(created), Revision(modified));
        let kept = Kept { key: "/registry/core/configmaps/a/b".into(), created, modified, value: "{}".into() };
        let revision = Revision(revision);
        Snapshot { revision, changed: revision, entries: vec![kept] }.write(&file).unwrap();
        assert_eq!(Snapshot::read(&file).is_ok(), good, "{created} {modified} {revision}");
    }
}

#[test]
fn a_schedule_keeps_a_few_and_writes_nothing_while_nothing_changes() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let (from, folder) = (dir.path().join("store"), dir.path().join("backups"));
        let store = LogStore::open(&from).await.unwrap();
        put(&store, POD, "{}", Class::Durable).await;
        let every = std::time::Duration::from_millis(1);
        let schedule = schedule::Schedule { every, keep: 2, folder: folder.clone() };
        let source = schedule::Source::Folder(from.clone());
        let files = || {
            let names = std::fs::read_dir(&folder).into_iter().flatten();
            let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.retain(|n| !n.starts_with('.'));
            names.sort();
            names
        };
        std::fs::create_dir(&folder).unwrap();
        let torn = folder.join(format!(".mote-{:020}-x.snapshot.tmp", 1));
        std::fs::write(&torn, "what a power cut left").unwrap();
        let task = tokio::task::spawn_local(schedule::run(source.clone(), schedule.clone(), || {
            mote_api::time::Time::from_unix(0)
        }));
        for _ in 0..10_000 {
            if !files().is_empty() {
                break;
            }
            tokio::time::sleep(every).await;
        }
        task.abort();
        assert_eq!(files().len(), 1, "{:?}", files());
        let time = mote_api::time::Time::from_unix(100);
        let mut all = files();
        assert_eq!(schedule::back_up(&source, &schedule, time).await, Ok(None), "nothing has changed");
        put(&store, EVENT, "{}", Class::Volatile).await;
        assert_eq!(schedule::back_up(&source, &schedule, time).await, Ok(None), "an event is no change");
        for n in 0..3 {
            put(&store, POD, &format!("{{\"n\":{n}}}"), Class::Durable).await;
            let written = schedule::back_up(&source, &schedule, time).await.unwrap().unwrap();
            all.push(written.file_name().unwrap().to_string_lossy().into());
        }
        assert_eq!(files(), all[2..]);
        assert!(!torn.exists());
        let engine = schedule::Source::Engine(std::rc::Rc::new(store.clone()));
        let kept = Snapshot::read(&folder.join(&all[3])).unwrap();
        assert_eq!(schedule::back_up(&engine, &schedule, time).await, Ok(None), "{:?}", kept.changed);
        store.close().await;
    });
}
