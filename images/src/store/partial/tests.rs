use super::*;
use crate::store::Store;

#[test]
fn any_damage_to_the_sums_costs_only_what_lies_behind_it() {
    let good = [(1000u64, 7u32), (70_000, 8), (u64::MAX, 9)];
    let mut bytes = format!("{MAGIC}boot\n").into_bytes();
    let head = bytes.len();
    good.iter().for_each(|(end, crc)| bytes.extend(record(*end, *crc)));
    assert_eq!(parse(&bytes).unwrap(), ("boot".to_owned(), good.to_vec()));
    for at in head..bytes.len() {
        let whole = (at - head) / RECORD_BYTES;
        assert_eq!(parse(&bytes[..at]).unwrap().1, good[..whole], "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert_eq!(parse(&flipped).unwrap().1, good[..whole], "flip at {at}");
    }
    for at in 0..head {
        assert!(parse(&bytes[..at]).is_none());
    }
    // Ends only grow.
    bytes.truncate(head);
    [(500, 1), (500, 1)].iter().for_each(|(end, crc)| bytes.extend(record(*end, *crc)));
    assert_eq!(parse(&bytes).unwrap().1.len(), 1);
}

fn store_of_boot(dir: &Path, boot: &str, sync_every: Duration) -> Store {
    let policy = SpoolPolicy { worth: Duration::ZERO, sync_every };
    Store::open_on(std::sync::Arc::new(super::super::disk::Real), dir, boot.to_owned(), policy).unwrap()
}

/// Reads so many bytes of `blob` through the spool, then breaks off.
fn begin(store: &Store, blob: &[u8], bytes: u64) -> u64 {
    let partial = store.inner.partial(&Digest::of(blob)).unwrap().unwrap();
    let from = partial.length();
    let network = &blob[usize::try_from(from).unwrap()..];
    let mut spooled = Spooled::new(Some(partial), false, blob.len() as u64, network);
    let mut found = Vec::new();
    (&mut spooled).take(bytes).read_to_end(&mut found).unwrap();
    assert_eq!(found, blob[..usize::try_from(bytes).unwrap()]);
    from
}

#[test]
fn what_counts_after_a_kill_and_after_a_power_cut() {
    let tmp = tempfile::tempdir().unwrap();
    let blob: Vec<u8> = (0..100_000u32).map(|i| (i * 7 + i / 256) as u8).collect();
    let path = tmp.path().join("partial").join(Digest::of(&blob).hex());
    let never = Duration::from_secs(1000);
    // Nothing was synced: a kill costs nothing, a power cut all of it.
    begin(&store_of_boot(tmp.path(), "one", never), &blob, 10_000);
    assert_eq!(begin(&store_of_boot(tmp.path(), "one", never), &blob, 20_000), 10_000);
    assert_eq!(begin(&store_of_boot(tmp.path(), "two", never), &blob, 30_000), 0);
    // With all synced, also behind a stretch that was not: what a record vouches for is kept.
    assert_eq!(begin(&store_of_boot(tmp.path(), "two", Duration::ZERO), &blob, 40_000), 30_000);
    let kept = begin(&store_of_boot(tmp.path(), "three", never), &blob, 45_000);
    assert!((30_001..=40_000).contains(&kept), "{kept}");
    assert_eq!(begin(&store_of_boot(tmp.path(), "four", never), &blob, 45_000), kept, "twice cut");
    // A flipped bit before the record is noticed; the file is begun anew.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(begin(&store_of_boot(tmp.path(), "five", never), &blob, 50_000), 0);
    // Half a record at the end (a kill in the middle of a write) does not harm the next.
    let sums = sums_path(&path);
    let half = [std::fs::read(&sums).unwrap(), vec![1; 7]].concat();
    std::fs::write(&sums, half).unwrap();
    assert_eq!(begin(&store_of_boot(tmp.path(), "five", Duration::ZERO), &blob, 60_000), 50_000);
    assert!(begin(&store_of_boot(tmp.path(), "six", never), &blob, 60_000) > 50_000);
}

#[test]
fn the_old_and_the_many_go_but_not_under_someone() {
    let tmp = tempfile::tempdir().unwrap();
    let store = store_of_boot(tmp.path(), "one", Duration::from_secs(1000));
    let [old, new, busy] = [[1u8; 100], [2; 100], [3; 100]];
    for blob in [&old, &new, &busy] {
        begin(&store, blob, 50);
    }
    let long_ago = SystemTime::now() - PARTIAL_AGE_MAX - Duration::from_secs(60);
    for blob in [&old, &busy] {
        let path = tmp.path().join("partial").join(Digest::of(blob).hex());
        File::options().append(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    let held = store.inner.partial(&Digest::of(&busy)).unwrap().unwrap();
    assert!(store.inner.partial(&Digest::of(&busy)).unwrap().is_none(), "one at a time");
    assert_eq!(store.inner.sweep_partials(false).unwrap(), 50);
    let left: Vec<String> = names(&tmp.path().join("partial")).unwrap();
    assert_eq!(left.len(), 4, "{left:?}");
    drop(held);
    assert_eq!(store.inner.sweep_partials(true).unwrap(), 100);
    assert!(names(&tmp.path().join("partial")).unwrap().is_empty());
}
