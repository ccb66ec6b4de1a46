use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;

use super::super::Store;
use super::*;
use crate::manifest::Descriptor;
use crate::store::layers::{Intake, Taken};
use crate::store::{Damage, Part};
use crate::{BlobPolicy, Image, Platform, PullOptions, Reference, Silent};

/// An archive, drawn: `d/ 700` a folder, `f 644 text` a file, `s -> t` a symbolic link, `h > t` a hard link, `p |` a fifo; separated by `;`.
fn archive(picture: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for line in picture.split(';').map(str::trim) {
        let (path, rest) = line.split_once(' ').unwrap();
        let mut header = tar::Header::new_ustar();
        let (kind, mode, link, content) = match rest.split_once(' ') {
            _ if path.ends_with('/') => (tar::EntryType::Directory, rest, "", ""),
            None => (tar::EntryType::Fifo, "640", "", ""),
            Some(("->", target)) => (tar::EntryType::Symlink, "777", target, ""),
            Some((">", target)) => (tar::EntryType::Link, "0", target, ""),
            Some((mode, content)) => (tar::EntryType::Regular, mode, "", content),
        };
        header.set_entry_type(kind);
        header.set_mode(u32::from_str_radix(mode, 8).unwrap());
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_path(path).unwrap();
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(&tmp.path().join("images")).unwrap();
    (tmp, store)
}

fn take(store: &Store, picture: &str, durable: bool) -> DiffId {
    let bytes = archive(picture);
    let digest = Digest::of(&bytes);
    let want = Descriptor { media_type: String::new(), digest, size: bytes.len() as u64 };
    let (observer, cancel) = (&Silent, &Cancel::default());
    let intake = Intake { keep_blob: false, spool: false, anew: false, index: 0, observer, cancel };
    let open = |_| -> Result<Box<dyn Read + Send + '_>, Error> { Ok(Box::new(bytes.as_slice())) };
    let diff_id = DiffId::of_plain(digest);
    if let Taken::Finished(finished) = store.inner.take_in(&diff_id, &want, &open, &intake).unwrap() {
        store.inner.place_all(vec![finished], durable).unwrap();
    }
    diff_id
}

fn at(store: &Store, layer: &DiffId, path: &str) -> PathBuf {
    store.inner.layout.layer(layer).join("fs").join(path)
}

#[test]
fn what_a_layer_has_at_a_path() {
    let (_tmp, store) = store();
    let layer = take(
        &store,
        "d/ 700; f 644 x; s -> d; .wh.w 644 -; o/ 755; o/.wh..wh..opq 644 -; o/sub/ 711; o/sub/deep/ 701",
        true,
    );
    let trees = vec![Tree::open(&at(&store, &layer, "")).unwrap()];
    let mut folders = Folders { trees, known: HashMap::new() };
    for round in ["fresh", "known"] {
        for (path, want) in [
            ("", "folder 755"),
            ("d", "folder 700"),
            ("d/x", "nothing"),
            ("d/x/y", "nothing"),
            ("none", "nothing"),
            ("none/x", "nothing"),
            ("f", "other"),
            ("f/x", "hidden"),
            ("f/x/y", "hidden"),
            ("s", "other"),
            ("s/x", "hidden"),
            ("w", "whiteout"),
            ("w/x", "hidden"),
            ("o", "folder 755"),
            ("o/x", "hidden"),
            ("o/x/y", "hidden"),
            ("o/sub", "fresh folder 711"),
            ("o/sub/x", "hidden"),
            ("o/sub/deep", "fresh folder 701"),
        ] {
            let found = match folders.look(0, &InnerPath::new(path.as_bytes()).unwrap()).unwrap() {
                Found::Nothing => "nothing".to_owned(),
                Found::Hidden => "hidden".to_owned(),
                Found::Whiteout => "whiteout".to_owned(),
                Found::Other => "other".to_owned(),
                Found::Dir { fresh, attributes } => {
                    format!("{}folder {:o}", if fresh { "fresh " } else { "" }, attributes.mode)
                }
            };
            assert_eq!(found, want, "{path:?}, {round}");
        }
    }
    assert!(folders.look(1, &InnerPath::new(b"x").unwrap()).is_err(), "there is no such layer");
}

const BASE: &str = "d/ 2750; d/t 4711 target; d/s -> nowhere; d/p |; e/ 711";
const UPON: &str = "d/new 644 n; x/h > d/t; x/s > d/s; x/p > d/p; e/deep/f 644 f";

#[test]
fn folders_and_links_are_those_of_the_layers() {
    let (_tmp, store) = store();
    let layers = [take(&store, BASE, true), take(&store, UPON, true)];
    let top = store.inner.settle_top("x", &layers).unwrap().unwrap();
    let meta = |layer: &DiffId, path: &str| at(&store, layer, path).symlink_metadata().unwrap();
    let facts = |layer: &DiffId, path: &str| {
        let meta = meta(layer, path);
        (meta.mode(), meta.uid(), meta.gid(), meta.mtime())
    };
    for path in ["d", "e"] {
        assert_eq!(facts(&top, path), facts(&layers[0], path), "{path}");
    }
    // nobody describes it
    assert_eq!(facts(&top, "x"), (libc::S_IFDIR | 0o755, 0, 0, 0));
    for (link, target) in [("x/h", "d/t"), ("x/s", "d/s"), ("x/p", "d/p")] {
        assert_eq!(meta(&top, link).ino(), meta(&layers[0], target).ino(), "{link}");
    }
    assert!(meta(&top, "x/p").file_type().is_fifo() && meta(&top, "x/s").is_symlink());
    assert!(at(&store, &top, "e/deep").symlink_metadata().is_err(), "nothing below says anything about it");
    // the listing is that of what is there
    let is_whole = || store.verify(&Silent, &Cancel::default()).unwrap().is_empty();
    assert!(is_whole());
    let record = store.inner.layer_record(&top).unwrap().unwrap();
    assert_eq!((record.entries, record.open, record.blob_bytes), (7, false, 0)); // /, d, e, x and three links
    // made once
    let made = meta(&top, "").ino();
    assert_eq!(store.inner.settle_top("x", &layers).unwrap(), Some(top));
    assert_eq!(meta(&top, "").ino(), made);
    // in another order it is another, and none of the layers'
    let other = [layers[0], take(&store, "d/third 644 3", true), layers[1]];
    assert!(store.inner.settle_top("x", &other).unwrap().is_some_and(|name| name != top));
    assert!(is_whole());
}

#[test]
fn one_open_question_is_enough() {
    let (_tmp, store) = store();
    for upon in ["./ 755; d/x 644 x", "./ 755; h > t"] {
        let layers = [take(&store, "./ 755; d/ 700; t 644 t", true), take(&store, upon, true)];
        assert!(store.inner.settle_top("x", &layers).unwrap().is_some(), "{upon}");
    }
}

#[test]
fn no_top_layer_where_nothing_is_open() {
    let (_tmp, store) = store();
    for layers in [
        &["a/ 700; a/f 644 x"][..],
        &["a/f 644 x"],                        // the base's own folders have nothing below them
        &["a/f 644 x", "a/ 700"],              // described above
        &["a/f 644 x", "a/g 644 x; a/ 755"],   // by itself
        &["b/ 755", "c/f 644 x", "c/g 644 x"], // by nobody
    ] {
        let ids: Vec<DiffId> = layers.iter().map(|picture| take(&store, picture, true)).collect();
        let top = store.inner.settle_top("x", &ids).unwrap();
        // the root is open in every layer that does not describe it, and all agree about it
        assert_eq!(top, None, "{layers:?}");
    }
    assert!(crate::file::names(&store.inner.layout.dir("tmp")).unwrap().is_empty());
}

/// Counts how often the whole disk was waited for.
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicUsize);

impl crate::store::disk::Disk for Counting {
    fn sync_system(&self, _: &Path) -> io::Result<()> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn it_is_as_durable_as_what_it_is_made_of() {
    let tmp = tempfile::tempdir().unwrap();
    let disk = std::sync::Arc::new(Counting::default());
    let spool = crate::store::partial::SpoolPolicy::default();
    let store = Store::open_on(disk.clone(), &tmp.path().join("images"), "boot".to_owned(), spool).unwrap();
    let waits = || disk.0.load(std::sync::atomic::Ordering::Relaxed);
    for (upon, durable) in [("d/one 644 1", true), ("d/two 644 2", false)] {
        let layers = [take(&store, BASE, true), take(&store, upon, durable)];
        let before = waits();
        let top = store.inner.settle_top("x", &layers).unwrap().unwrap();
        let since = store.inner.layer_record(&top).unwrap().unwrap().volatile_since;
        assert_eq!((since.as_str(), waits() - before), if durable { ("", 1) } else { ("boot", 0) });
    }
}

#[test]
fn what_cannot_be_answered_is_said() {
    let (_tmp, store) = store();
    let (base, upon) = (take(&store, BASE, true), take(&store, "h > d/none", true));
    let error = store.inner.settle_top("image x", &[base, upon]).unwrap_err().to_string();
    assert!(error.starts_with("image x: refused: entry \"h\": hard link to \"d/none\""), "{error}");
    let absent = DiffId::of_plain(Digest::of(b"none"));
    let error = store.inner.settle_top("image x", &[base, absent]).unwrap_err().to_string();
    assert!(error.contains(&format!("layer {absent} vanished")), "{error}");
    // what a layer leaves open is not taken for nothing when it cannot be read
    let open = store.inner.layout.layer(&upon).join("open");
    std::fs::remove_file(&open).unwrap();
    let error = store.inner.settle_top("image x", &[base, upon]).unwrap_err();
    assert!(matches!(error, Error::Io { op: "open", .. }), "{error}");
    std::fs::write(&open, "?").unwrap();
    assert!(matches!(store.inner.settle_top("image x", &[base, upon]), Err(Error::Corrupt { .. })));
}

/// Imports an image of these layers; the compressed layers stay.
fn import(store: &Store, dir: &Path, name: &str, layers: &[&str]) -> Image {
    let blobs = dir.join(name).join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        serde_json::json!({ "mediaType": kind, "digest": digest.to_string(), "size": bytes.len() })
    };
    let archives: Vec<Vec<u8>> = layers.iter().map(|picture| archive(picture)).collect();
    let ids: Vec<String> = archives.iter().map(|bytes| Digest::of(bytes).to_string()).collect();
    let host = Platform::host();
    let config = serde_json::json!({ "os": "linux", "architecture": host.architecture, "config": {}, "rootfs": { "type": "layers", "diff_ids": ids } });
    let layers: Vec<_> = archives.iter().map(|bytes| put(crate::manifest::OCI_LAYER, bytes)).collect();
    let config = put(crate::manifest::OCI_CONFIG, config.to_string().as_bytes());
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let manifest = put(crate::manifest::OCI_MANIFEST, manifest.to_string().as_bytes());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(dir.join(name).join("index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join(name).join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let name: Reference = name.parse().unwrap();
    let from = dir.join(name.familiar().split(':').next().unwrap());
    let keep = BlobPolicy::Keep;
    store.import_with(&from, Some(&name), &host, keep, &Silent, &Cancel::default()).unwrap().remove(0)
}

#[test]
fn a_damaged_top_layer_is_found_and_made_anew() {
    let (tmp, store) = store();
    let one = import(&store, tmp.path(), "one", &[BASE, UPON]);
    let two = import(&store, tmp.path(), "two", &[BASE, "d/other 644 o; y/h > d/t"]);
    let path = |image: &Image, layer: usize, path: &str| image.layers[layer].path.join(path);
    let folder = |image: &Image, layer: usize| path(image, layer, "..");
    let damage = || store.verify(&Silent, &Cancel::default()).unwrap();
    let words = |damage: &[Damage]| {
        damage.iter().map(|found| format!("{}: {}", found.part, found.why)).collect::<Vec<_>>().join("\n")
    };
    let chmod = |path: PathBuf| std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
    let harms: [(&str, &dyn Fn()); 9] = [
        ("d: kind, mode or owner changed", &|| chmod(path(&one, 2, "d"))),
        ("x/h: No such file", &|| std::fs::remove_file(path(&one, 2, "x/h")).unwrap()),
        ("x/s: target or owner changed", &|| {
            std::fs::remove_file(path(&one, 2, "x/s")).unwrap();
            std::os::unix::fs::symlink("elsewhere", path(&one, 2, "x/s")).unwrap();
        }),
        ("its listing is damaged", &|| std::fs::write(folder(&one, 2).join("list"), "?").unwrap()),
        ("a layer or its configuration is missing", &|| std::fs::remove_dir_all(folder(&one, 2)).unwrap()),
        // what is linked is the same file everywhere
        ("d/t: content changed", &|| std::fs::write(path(&one, 0, "d/t"), "TARGET").unwrap()),
        // the links keep what the layer lost
        ("d/t: No such file", &|| std::fs::remove_file(path(&one, 0, "d/t")).unwrap()),
        ("what it leaves open:", &|| std::fs::remove_file(folder(&one, 1).join("open")).unwrap()),
        ("what it leaves open:", &|| std::fs::write(folder(&two, 1).join("open"), "?").unwrap()),
    ];
    for (want, harm) in harms {
        assert_eq!(words(&damage()), "");
        harm();
        let found = damage();
        assert!(words(&found).contains(want), "want {want:?}, got {}", words(&found));
        let left = store.repair(&found, &PullOptions::default(), &Silent, &Cancel::default()).unwrap();
        assert_eq!((words(&left), words(&damage())), (String::new(), String::new()), "{want}");
        let target = path(&one, 0, "d/t").metadata().unwrap();
        assert_eq!(
            (target.mode() & 0o7777, std::fs::read(path(&one, 2, "x/h")).unwrap()),
            (0o4711, b"target".to_vec())
        );
        for link in [path(&one, 2, "x/h"), path(&two, 2, "y/h")] {
            assert_eq!(link.metadata().unwrap().ino(), target.ino(), "{want}: {}", link.display());
        }
        assert_eq!(path(&one, 2, "d").metadata().unwrap().mode() & 0o7777, 0o2750, "{want}");
    }
}

#[test]
fn partial_layers_and_records_are_looked_at() {
    let (tmp, store) = store();
    import(&store, tmp.path(), "one", &[BASE]);
    let root = tmp.path().join("images");
    let bytes = vec![5; 1000];
    let name = Digest::of(b"what it will be").hex();
    let (partial, sums) = (root.join("partial").join(&name), root.join("partial").join(format!("{name}.sums")));
    std::fs::write(&partial, &bytes).unwrap();
    let verify = || store.verify(&Silent, &Cancel::default()).unwrap();
    assert!(verify().is_empty(), "nothing is vouched for");
    std::fs::write(&sums, crate::store::partial::sums_of("boot", &bytes[..600])).unwrap();
    assert!(verify().is_empty());
    let mut bad = bytes;
    bad[100] ^= 1;
    for harmed in [bad, vec![5; 599]] {
        std::fs::write(&partial, harmed).unwrap();
        let found = verify();
        assert!(matches!(found.as_slice(), [Damage { part: Part::Partial(found), .. }] if *found == name));
        assert!(found[0].why.starts_with("600 bytes are noted"), "{}", found[0].why);
        // not while someone works on it
        let file = File::open(&partial).unwrap();
        file.lock().unwrap();
        assert!(verify().is_empty());
    }
    // a record that cannot be read says nothing of its image any more
    let record = root.join("images").join("0123");
    std::fs::write(&record, "?").unwrap();
    let found = verify();
    assert_eq!(
        found.iter().map(|found| found.part.to_string()).collect::<Vec<_>>(),
        [format!("partial layer sha256:{name}"), "image record 0123".to_owned()]
    );
    let left = store.repair(&found, &PullOptions::default(), &Silent, &Cancel::default()).unwrap();
    assert!(matches!(left.as_slice(), [Damage { part: Part::Record(_), why }] if why.ends_with("pull it again")));
    assert!(verify().is_empty() && !partial.exists() && !sums.exists() && !record.exists());
    assert_eq!(store.list().unwrap().len(), 1);
}
