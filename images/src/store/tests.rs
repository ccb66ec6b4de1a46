use std::io::Read;

use super::record::LayerRecord;
use super::*;
use crate::PullOptions;
use crate::manifest::Descriptor;
use crate::store::layers::{Intake, Taken};
use crate::{Compression, PackLayer, PackSpec, Silent};

fn pack(store: &Store, name: &str, files: &[(&str, &str)]) -> Image {
    let tmp = tempfile::tempdir().unwrap();
    for (path, content) in files {
        std::fs::create_dir_all(tmp.path().join(path).parent().unwrap()).unwrap();
        std::fs::write(tmp.path().join(path), content).unwrap();
    }
    let spec = PackSpec {
        config: ImageConfig::default(),
        layers: vec![PackLayer::Dir(tmp.path().into())],
        compression: Compression::Gzip,
        mtime: Some(0),
    };
    store.pack(&name.parse().unwrap(), spec, &Cancel::default()).unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(&tmp.path().join("images")).unwrap();
    (tmp, store)
}

#[test]
fn what_is_needed_stays_and_the_rest_goes() {
    let (_tmp, store) = store();
    let a = pack(&store, "a", &[("x", "1")]);
    let b = pack(&store, "b", &[("y", "2")]);
    assert_eq!(
        store.list().unwrap().iter().map(|i| i.reference.familiar()).collect::<Vec<_>>(),
        ["a:latest", "b:latest"]
    );
    assert_eq!(store.prune().unwrap(), 0);
    store.lease("pod-1.c", &a).unwrap();
    store.remove(&a.reference).unwrap();
    assert!(matches!(store.remove(&a.reference), Err(Error::NotFound { .. })));
    assert!(store.find(&a.reference).unwrap().is_none());
    store.prune().unwrap();
    assert!(a.layers[0].path.join("x").exists(), "a leased layer must stay");
    store.release("pod-1.c").unwrap();
    store.release("pod-1.c").unwrap();
    assert!(store.usage().unwrap().unused > 0);
    assert!(store.prune().unwrap() > 0);
    assert!(!a.layers[0].path.exists() && b.layers[0].path.join("y").exists());
    assert_eq!(store.usage().unwrap().unused, 0);
    assert!(store.leases().unwrap().is_empty());
    for owner in ["", "../x", ".x", "a/b"] {
        assert!(store.lease(owner, &b).is_err(), "{owner:?}");
    }
}

#[test]
fn usage_is_what_du_says() {
    let (tmp, store) = store();
    let source = tmp.path().join("source");
    std::fs::create_dir_all(source.join("deep/er")).unwrap();
    std::fs::write(source.join("file"), vec![7; 1_000_001]).unwrap();
    std::fs::hard_link(source.join("file"), source.join("deep/again")).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), source.join("deep/er/link")).unwrap();
    let noise: Vec<u8> = (0..300_000u32).flat_map(|n| n.wrapping_mul(n).to_be_bytes()).collect();
    std::fs::write(source.join("deep/er/noise"), noise).unwrap();
    let spec = |cmd: &str| PackSpec {
        config: ImageConfig { cmd: vec![cmd.into()], ..ImageConfig::default() },
        layers: vec![PackLayer::Dir(source.clone())],
        compression: Compression::Gzip,
        mtime: Some(0),
    };
    for name in ["a", "b"] {
        store.pack(&name.parse().unwrap(), spec(name), &Cancel::default()).unwrap(); // two images, one layer
    }
    let du = |folder: &str| -> u64 {
        let script =
            format!("du -c --block-size=1 {}/{folder}/* | tail -n 1 | cut -f 1", tmp.path().join("images").display());
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
    };
    let usage = store.usage().unwrap();
    assert_eq!((usage.layers, usage.blobs, usage.partial, usage.unused), (du("layers"), du("blobs"), 0, 0));
    assert!(usage.layers > 2_200_000 && usage.layers < 2_400_000, "{usage:?}: the file of two names counts once");
}

#[test]
fn nothing_is_deleted_while_something_is_written() {
    let (_tmp, store) = store();
    let writing = store.inner.writing().unwrap();
    assert!(matches!(store.prune(), Err(Error::InUse { .. })));
    drop(writing);
    store.prune().unwrap();
}

#[test]
fn another_process_shares_and_a_crash_leaves_nothing() {
    let (tmp, store) = store();
    let image = pack(&store, "a", &[("x", "1")]);
    std::fs::create_dir_all(tmp.path().join("images/tmp/999-1/fs/deep")).unwrap();
    let again = Store::open(&tmp.path().join("images")).unwrap();
    assert!(names(&tmp.path().join("images/tmp")).unwrap().is_empty());
    assert_eq!(again.find(&image.reference).unwrap().unwrap().manifest, image.manifest);
    std::fs::write(tmp.path().join("images/FORMAT"), "mote image store 99\n").unwrap();
    assert!(Store::open(&tmp.path().join("images")).err().unwrap().to_string().contains("99"));
}

#[test]
fn damage_is_found() {
    use std::os::unix::fs::PermissionsExt;
    type Harm = fn(&Path);
    let table: [(&str, Harm); 6] = [
        ("x: content changed", |fs| std::fs::write(fs.join("x"), "2").unwrap()),
        ("x: 0 bytes, should be 1", |fs| std::fs::write(fs.join("x"), "").unwrap()),
        ("x: mode or owner changed", |fs| {
            std::fs::set_permissions(fs.join("x"), PermissionsExt::from_mode(0o600)).unwrap()
        }),
        ("d/y: No such file", |fs| std::fs::remove_file(fs.join("d/y")).unwrap()),
        ("d/z: not part of the layer", |fs| std::fs::write(fs.join("d/z"), "").unwrap()),
        ("its listing is damaged", |fs| std::fs::write(fs.join("../list"), "mote layer list 1\n\x01").unwrap()),
    ];
    for (want, harm) in table {
        let (_tmp, store) = store();
        let image = pack(&store, "a", &[("x", "1"), ("d/y", "2")]);
        assert!(store.verify(&Silent, &Cancel::default()).unwrap().is_empty());
        harm(&image.layers[0].path);
        let damage = store.verify(&Silent, &Cancel::default()).unwrap();
        assert!(
            damage.len() == 1 && damage[0].why.starts_with(want),
            "want {want:?}, got {:?}",
            damage.iter().map(|d| &d.why).collect::<Vec<_>>()
        );
    }
    let (tmp, store) = store();
    let image = pack(&store, "a", &[("x", "1")]);
    std::fs::write(tmp.path().join("images/blobs").join(image.id.hex()), "{}").unwrap();
    let damage = store.verify(&Silent, &Cancel::default()).unwrap();
    assert_eq!(
        damage.iter().map(|d| d.part.to_string()).collect::<Vec<_>>(),
        [format!("blob {}", image.id), "image docker.io/library/a:latest".to_owned()]
    );
    assert!(store.find(&image.reference).unwrap().is_none());
}

#[test]
fn a_layer_of_an_earlier_boot_counts_only_if_it_was_settled() {
    let (_tmp, store) = store();
    let image = pack(&store, "a", &[("x", "1")]);
    let path = image.layers[0].path.parent().unwrap().join("record");
    let write = |boot: &str| {
        let mut record: LayerRecord = record::decode(&std::fs::read(&path).unwrap()).unwrap();
        record.volatile_since = boot.to_owned();
        std::fs::write(&path, record::encode(&record).unwrap()).unwrap();
    };
    write("another boot");
    assert!(store.find(&image.reference).unwrap().is_none());
    write(&store.inner.boot);
    assert!(store.find(&image.reference).unwrap().is_some());
    store.settle().unwrap();
    assert!(record::decode::<LayerRecord>(&std::fs::read(&path).unwrap()).unwrap().volatile_since.is_empty());
}

#[test]
fn a_layer_that_is_not_what_was_promised_leaves_nothing() {
    let (tmp, store) = store();
    let image = pack(&store, "a", &[("x", "1")]);
    let record = store.inner.layer_record(&image.layers[0].diff_id).unwrap().unwrap();
    let blob = std::fs::read(store.inner.layout.blob(&record.blob)).unwrap();
    store.remove(&image.reference).unwrap();
    store.prune().unwrap();
    let other: DiffId = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let right = Descriptor { media_type: String::new(), digest: record.blob, size: blob.len() as u64 };
    let table = [
        (record.diff_id, Descriptor { digest: Digest::of(b""), ..right.clone() }, "its bytes have the digest"),
        (record.diff_id, Descriptor { size: right.size - 1, ..right.clone() }, "longer than the manifest says"),
        (record.diff_id, Descriptor { size: right.size + 1, ..right.clone() }, "the manifest says"),
        (other, right.clone(), "its archive has the diffID"),
    ];
    let cancel = Cancel::default();
    let intake =
        |keep_blob| Intake { keep_blob, spool: true, anew: false, index: 0, observer: &Silent, cancel: &cancel };
    let open = |_| -> Result<Box<dyn Read + Send + '_>, Error> { Ok(Box::new(blob.as_slice())) };
    for (diff_id, want, why) in table {
        let error = store.inner.take_in(&diff_id, &want, &open, &intake(true)).err().expect("wrong");
        assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains(why), "want {why:?}, got {error}");
        for name in ["layers", "tmp", "blobs", "partial"] {
            assert!(names(&tmp.path().join("images").join(name)).unwrap().is_empty(), "{name} after {why:?}");
        }
    }
    // threads that want the same layer unpack it once
    let fresh: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| match store.inner.take_in(&record.diff_id, &right, &open, &intake(false)).unwrap() {
                    Taken::Finished(finished) => store.inner.place_all(vec![finished], false).map(|()| true).unwrap(),
                    Taken::Here(_) => false,
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(fresh.iter().filter(|fresh| **fresh).count(), 1);
}

/// Opens the store once more, as another process would, in the middle of every write.
struct Meddler(PathBuf);

impl Disk for Meddler {
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        Store::open(&self.0).unwrap();
        File::open(path)?.sync_data()
    }
}

#[test]
fn who_opens_the_store_sweeps_nothing_that_is_being_written() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("images");
    let meddled = Arc::new(Meddler(dir.clone()));
    let store = Store::open_on(meddled, &dir, "boot".to_owned(), SpoolPolicy::default()).unwrap();
    let image = pack(&store, "a", &[("x", "1")]);
    store.pin(&image.reference, true).unwrap();
    std::fs::write(image.layers[0].path.join("x"), "2").unwrap();
    let damage = store.verify(&Silent, &Cancel::default()).unwrap();
    assert!(store.repair(&damage, &PullOptions::default(), &Silent, &Cancel::default()).unwrap().is_empty());
    assert!(store.verify(&Silent, &Cancel::default()).unwrap().is_empty());
}
