//! Against a registry that does what the test says: links that break, crawl or end with the puller, and how many bytes and requests it
//! takes then. As root.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a broken expectation is this program's failure

mod scripted;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mote_images::*;
use scripted::{Server, noise};

/// A registry with one image per tag; layers are `(seed, bytes)`.
struct Origin {
    tmp: tempfile::TempDir,
    store: Store,
    server: Server,
}

impl Origin {
    fn new() -> Origin {
        let tmp = tempfile::Builder::new().prefix("mote-img-link-").tempdir().unwrap();
        let store = Store::open(&tmp.path().join("origin")).unwrap();
        let server = Server::start(tmp.path().join("origin/blobs"));
        Origin { tmp, store, server }
    }
    fn image(&self, tag: &str, layers: &[(u64, usize)]) -> Image {
        let mut sources = Vec::new();
        for (seed, bytes) in layers {
            let dir = self.tmp.path().join(format!("layer-{seed}-{bytes}"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(format!("noise-{seed}")), noise(*seed, *bytes)).unwrap();
            sources.push(PackLayer::Dir(dir));
        }
        let config = ImageConfig { cmd: vec![tag.to_owned()], ..ImageConfig::default() };
        let spec = PackSpec { config, layers: sources, compression: Compression::Gzip, mtime: Some(0) };
        let image = self.store.pack(&self.name(tag), spec, &Cancel::default()).unwrap();
        self.server.tag(tag, image.manifest.hex());
        image
    }
    fn name(&self, tag: &str) -> Reference {
        format!("{}/x:{tag}", self.server.addr).parse().unwrap()
    }
    fn fresh(&self, name: &str) -> Store {
        Store::open(&self.tmp.path().join(name)).unwrap()
    }
    /// Bytes of the compressed layers of an image.
    fn compressed(&self, image: &Image) -> u64 {
        let manifest = std::fs::read(self.tmp.path().join("origin/blobs").join(image.manifest.hex())).unwrap();
        let text = String::from_utf8(manifest).unwrap();
        let layers = text.split("\"layers\"").nth(1).unwrap();
        layers
            .split("\"size\":")
            .skip(1)
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap())
            .sum()
    }
}

fn pull(store: &Store, name: &Reference) -> Image {
    store.pull(name, &PullOptions::default(), &Silent, &Cancel::default()).unwrap()
}

fn is_whole(store: &Store) {
    let damage = store.verify(&Silent, &Cancel::default()).unwrap();
    assert!(damage.is_empty(), "{:?}", damage.iter().map(|d| &d.why).collect::<Vec<_>>());
}

#[derive(Default)]
struct Heard(Mutex<Vec<Progress>>);
impl Observer for Heard {
    fn event(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress);
    }
}

#[test]
fn a_link_that_drops_every_so_often_brings_each_byte_once() {
    let origin = Origin::new();
    let image = origin.image("1", &[(1, 3_000_000), (2, 2_000_000)]);
    let bytes = origin.compressed(&image);
    origin.server.script.cut_every.store(400_000, Relaxed);
    let store = origin.fresh("pulled");
    assert_eq!(pull(&store, &origin.name("1")).id, image.id);
    is_whole(&store);
    let sent = origin.server.sent_in_all();
    // What was on the way when the connection broke is lost: at most a socket's worth, here nothing.
    assert!((bytes..bytes + bytes / 50).contains(&sent), "{sent} bytes sent for {bytes}");
    assert!(origin.server.requests().len() > 12);
}

#[test]
fn a_registry_without_ranges_is_asked_from_the_start_and_that_is_said() {
    let origin = Origin::new();
    let image = origin.image("1", &[(1, 500_000)]);
    let script = &origin.server.script;
    script.no_ranges.store(true, Relaxed);
    script.cut_every.store(300_000, Relaxed);
    let (store, heard) = (origin.fresh("pulled"), Heard::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while origin.server.requests().len() < 4 {
                std::thread::sleep(Duration::from_millis(5));
            }
            script.cut_every.store(0, Relaxed);
        });
        store.pull(&origin.name("1"), &PullOptions::default(), &heard, &Cancel::default()).unwrap();
    });
    assert_eq!(store.list().unwrap()[0].id, image.id);
    let heard = heard.0.into_inner().unwrap();
    assert!(heard.iter().any(|progress| matches!(progress, Progress::NoRanges { index: 0, lost } if *lost > 0)));
}

fn child(dir: &Path, name: &Reference) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pull-alone"));
    command.arg(dir).arg(name.to_string()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let origin = Origin::new();
    let image = origin.image("1", &[(1, 8_000_000), (2, 2_000_000)]);
    let bytes = origin.compressed(&image);
    let dir = origin.tmp.path().join("pulled");
    let script = &origin.server.script;
    // Slow enough to be worth a spool: more than two seconds for either layer.
    script.rate.store(600_000, Relaxed);
    for part in [3, 6] {
        let mut pulling = child(&dir, &origin.name("1"));
        let began = Instant::now();
        while origin.server.sent_in_all() < bytes * part / 10 {
            assert!(began.elapsed() < Duration::from_secs(60) && pulling.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(20));
        }
        pulling.kill().unwrap(); // SIGKILL
        pulling.wait().unwrap();
    }
    script.rate.store(0, Relaxed);
    std::thread::sleep(Duration::from_millis(200));
    let (store, heard) = (Store::open(&dir).unwrap(), Heard::default());
    assert!(store.find(&origin.name("1")).unwrap().is_none());
    assert!(store.usage().unwrap().partial > bytes / 3);
    store.pull(&origin.name("1"), &PullOptions::default(), &heard, &Cancel::default()).unwrap();
    is_whole(&store);
    assert_eq!(store.usage().unwrap().partial, 0);
    let sent = origin.server.sent_in_all();
    // What was in the sockets when the process died was sent and is lost.
    assert!(sent < bytes + 2_000_000, "{sent} bytes sent for {bytes}");
    let heard = heard.0.into_inner().unwrap();
    assert!(heard.iter().any(|progress| matches!(progress, Progress::Continued { at, .. } if *at > 1_000_000)));
}

#[test]
fn a_cancelled_pull_goes_on_where_it_was_and_a_damaged_beginning_is_found_out() {
    for harm in [false, true] {
        let origin = Origin::new();
        let image = origin.image("1", &[(1, 3_000_000)]);
        let bytes = origin.compressed(&image);
        let script = &origin.server.script;
        script.rate.store(250_000, Relaxed);
        let store = origin.fresh("pulled");
        let cancel = Cancel::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while origin.server.sent_in_all() < bytes / 2 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                cancel.cancel();
            });
            let pulled = store.pull(&origin.name("1"), &PullOptions::default(), &Silent, &cancel);
            assert!(matches!(pulled, Err(Error::Cancelled)));
        });
        script.rate.store(0, Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        let before = origin.server.sent_in_all();
        let dir = origin.tmp.path().join("pulled/partial");
        let partial: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        let data = partial.iter().find(|path| path.extension().is_none()).unwrap();
        let length = data.metadata().unwrap().len();
        if harm {
            let mut content = std::fs::read(data).unwrap();
            content[1_000_000] ^= 1;
            std::fs::write(data, content).unwrap();
        }
        pull(&store, &origin.name("1"));
        is_whole(&store);
        let fetched = origin.server.sent_in_all() - before;
        let want = if harm { (2 * bytes - length)..(2 * bytes) } else { (bytes - length)..(bytes - length + 10_000) };
        // A damaged stretch is noticed early by the inflater or late by the digest; then all comes anew.
        let early = harm && (bytes..2 * bytes).contains(&fetched);
        assert!(want.contains(&fetched) || early, "harm {harm}: {fetched} bytes, {length} of {bytes} were here");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}

#[test]
fn a_fast_link_leaves_no_spool() {
    let origin = Origin::new();
    origin.image("1", &[(1, 3_200_000)]);
    let store = origin.fresh("pulled");
    struct Watch(PathBuf, Mutex<u64>);
    impl Observer for Watch {
        fn event(&self, progress: Progress) {
            if let Progress::Bytes { done: 3_000_000.., .. } = progress {
                let found = std::fs::read_dir(&self.0).unwrap().flatten();
                *self.1.lock().unwrap() +=
                    found.map(|entry| entry.metadata().map_or(0, |meta| meta.len())).sum::<u64>();
            }
        }
    }
    let watch = Watch(origin.tmp.path().join("pulled/partial"), Mutex::new(0));
    store.pull(&origin.name("1"), &PullOptions::default(), &watch, &Cancel::default()).unwrap();
    assert_eq!(watch.1.into_inner().unwrap(), 0);
    is_whole(&store);
}

#[test]
fn nothing_to_do_takes_one_request_or_none() {
    let origin = Origin::new();
    let image = origin.image("1", &[(1, 100_000)]);
    let store = origin.fresh("pulled");
    let by_digest: Reference = format!("{}/x@{}", origin.server.addr, image.manifest).parse().unwrap();
    for (name, requests) in [(origin.name("1"), 1), (by_digest, 0)] {
        pull(&store, &name);
        origin.server.forget();
        let heard = Heard::default();
        store.pull(&name, &PullOptions::default(), &heard, &Cancel::default()).unwrap();
        assert_eq!(origin.server.requests().len(), requests, "{name}: {:?}", origin.server.requests());
        assert_eq!(heard.0.into_inner().unwrap(), [Progress::Done { id: image.id }]); // the 20 ms: tests/bench
    }
}

#[test]
fn ten_images_that_share_a_base_fetch_it_once() {
    let origin = Origin::new();
    let mut base = String::new();
    for n in 0..10 {
        let image = origin.image(&format!("{n}"), &[(1, 2_000_000), (100 + n, 10_000)]);
        let manifest =
            std::fs::read_to_string(origin.tmp.path().join("origin/blobs").join(image.manifest.hex())).unwrap();
        let layers = manifest.split("\"layers\"").nth(1).unwrap();
        base = layers.split("sha256:").nth(1).unwrap().chars().take(64).collect();
    }
    // Five in threads of this process, five in processes of their own, all at once.
    let dir = origin.tmp.path().join("pulled");
    let store = Store::open(&dir).unwrap();
    origin.server.script.rate.store(2_000_000, Relaxed);
    let mut children: Vec<_> = (5..10).map(|n| child(&dir, &origin.name(&format!("{n}")))).collect();
    std::thread::scope(|scope| {
        for n in 0..5 {
            let (store, name) = (&store, origin.name(&format!("{n}")));
            scope.spawn(move || pull(store, &name));
        }
    });
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    let gets = origin.server.requests().iter().filter(|line| line.contains(&base)).count();
    assert_eq!(gets, 1, "the base was asked for {gets} times");
    assert!(origin.server.sent(&base) < 2_100_000);
    assert_eq!(store.list().unwrap().len(), 10);
    assert_eq!(std::fs::read_dir(dir.join("layers")).unwrap().count(), 11);
    is_whole(&store);
    assert_eq!(std::fs::read_dir(dir.join("tmp")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(dir.join("pulls")).unwrap().count(), 0);
}

#[test]
fn repair_fetches_just_what_is_damaged() {
    let origin = Origin::new();
    let image = origin.image("1", &[(1, 400_000), (2, 300_000), (3, 200_000)]);
    let store = origin.fresh("pulled");
    let name = origin.name("1");
    let pulled = pull(&store, &name);
    let dir = origin.tmp.path().join("pulled");
    let options = PullOptions::default();
    let repair = || {
        let damage = store.verify(&Silent, &Cancel::default()).unwrap();
        assert!(!damage.is_empty());
        origin.server.forget();
        let left = store.repair(&damage, &options, &Silent, &Cancel::default()).unwrap();
        assert!(left.is_empty(), "{:?}", left.iter().map(|left| &left.why).collect::<Vec<_>>());
        is_whole(&store);
        assert_eq!(store.find(&name).unwrap().unwrap().id, image.id);
        origin.server.requests()
    };
    // A flipped bit, a cut file, a missing file, a missing folder: the layer of each, nothing else.
    let file = pulled.layers[1].path.join("noise-2");
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[150_000] ^= 4;
    let harms: [&dyn Fn(); 4] = [
        &|| std::fs::write(&file, &bad).unwrap(),
        &|| std::fs::write(&file, &good[..1000]).unwrap(),
        &|| std::fs::remove_file(&file).unwrap(),
        &|| std::fs::remove_dir_all(pulled.layers[1].path.parent().unwrap()).unwrap(),
    ];
    for harm in harms {
        harm();
        assert_eq!(repair().len(), 1);
        assert_eq!(std::fs::read(&file).unwrap(), good);
    }
    // Documents too.
    for digest in [image.manifest, image.id] {
        let path = dir.join("blobs").join(digest.hex());
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(repair().len(), 1, "damaged {digest}");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(repair().len(), 1, "missing {digest}");
    }
    // Not under a container.
    store.lease("c1", &pulled).unwrap();
    std::fs::write(&file, &bad).unwrap();
    let damage = store.verify(&Silent, &Cancel::default()).unwrap();
    let left = store.repair(&damage, &options, &Silent, &Cancel::default()).unwrap();
    assert!(left.len() == 1 && left[0].why.contains("a container uses it"), "{}", left[0].why);
    store.release("c1").unwrap();
    // Without the registry the damage stays damage, and the rest stays.
    let mut gone = options.clone();
    gone.registries = Registries::default();
    origin.server.tag("1", "0".repeat(64));
    origin.server.script.cut_every.store(1, Relaxed);
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            cancel.cancel();
        });
        assert!(matches!(store.repair(&damage, &gone, &Silent, &cancel), Err(Error::Cancelled)));
    });
    assert_eq!(std::fs::read(&file).unwrap(), bad);
    assert!(pulled.layers[0].path.join("noise-1").exists());
}

#[test]
fn dropped_layers_come_back_for_an_export() {
    let origin = Origin::new();
    let image = origin.image("1", &[(1, 300_000), (2, 200_000)]);
    let (store, name) = (origin.fresh("pulled"), origin.name("1"));
    let drop_blobs = PullOptions { blobs: BlobPolicy::Drop, ..PullOptions::default() };
    store.pull(&name, &drop_blobs, &Silent, &Cancel::default()).unwrap();
    let blobs = || std::fs::read_dir(origin.tmp.path().join("pulled/blobs")).unwrap().count();
    assert_eq!(blobs(), 2, "manifest and configuration");
    let to = |name: &str| origin.tmp.path().join(name);
    let failed =
        store.export_as(std::slice::from_ref(&name), &to("a.tar"), ArchiveFormat::OciArchive, &Cancel::default());
    assert!(matches!(failed, Err(Error::NotFound { .. })) && !to("a.tar").exists());
    {
        let _loan = store.borrow_blobs(&name, &drop_blobs, &Silent, &Cancel::default()).unwrap();
        assert_eq!(blobs(), 4);
        store
            .export_as(std::slice::from_ref(&name), &to("a.tar"), ArchiveFormat::OciArchive, &Cancel::default())
            .unwrap();
        store
            .export_as(std::slice::from_ref(&name), &to("d.tar"), ArchiveFormat::DockerArchive, &Cancel::default())
            .unwrap();
        store.export_as(std::slice::from_ref(&name), &to("o"), ArchiveFormat::OciLayout, &Cancel::default()).unwrap();
    }
    assert_eq!(blobs(), 2);
    // All three in again, also compressed, also where nothing else is known.
    let gz = Command::new("gzip").arg("-k").arg(to("d.tar")).status().unwrap();
    assert!(gz.success());
    for from in ["a.tar", "d.tar", "d.tar.gz", "o"] {
        let store = origin.fresh(&format!("from-{from}"));
        let keep = BlobPolicy::Keep;
        let found = store.import_with(&to(from), None, &Platform::host(), keep, &Silent, &Cancel::default()).unwrap();
        assert_eq!((found[0].id, &found[0].reference), (image.id, &name), "{from}");
        assert_eq!(std::fs::read(found[0].layers[0].path.join("noise-1")).unwrap(), noise(1, 300_000));
        is_whole(&store);
        // And out once more, the same bytes.
        if from != "d.tar.gz" {
            let again = origin.tmp.path().join("again");
            let format = match from {
                "a.tar" => ArchiveFormat::OciArchive,
                "d.tar" => ArchiveFormat::DockerArchive,
                _ => ArchiveFormat::OciLayout,
            };
            store.export_as(std::slice::from_ref(&name), &again, format, &Cancel::default()).unwrap();
            let same = Command::new("diff").arg("-r").arg(&again).arg(to(from)).output().unwrap();
            assert!(same.status.success(), "{from}: {}", String::from_utf8_lossy(&same.stdout));
            let _ = std::fs::remove_file(&again).or_else(|_| std::fs::remove_dir_all(&again));
        }
        // Without a registry a damaged layer comes back from the kept blob.
        std::fs::write(found[0].layers[1].path.join("noise-2"), "?").unwrap();
        origin.server.forget();
        let damage = store.verify(&Silent, &Cancel::default()).unwrap();
        assert!(store.repair(&damage, &drop_blobs, &Silent, &Cancel::default()).unwrap().is_empty());
        is_whole(&store);
        assert!(origin.server.requests().is_empty());
    }
    for (format, layer) in [("oci-archive", "a.tar"), ("docker-archive", "d.tar"), ("oci", "o")] {
        let seen =
            Command::new("skopeo").arg("inspect").arg(format!("{format}:{}", to(layer).display())).output().unwrap();
        assert!(seen.status.success(), "{format}: {}", String::from_utf8_lossy(&seen.stderr));
    }
}

#[test]
fn several_images_go_into_one_file() {
    let origin = Origin::new();
    let tags = ["1", "2"].map(|tag| origin.image(tag, &[(1, 300_000), (tag.parse().unwrap(), 50_000 + tag.len())]));
    let (one, two) = (origin.name("1"), origin.name("2"));
    // a second name of the first
    let again: Reference = format!("{}/again:1", origin.server.addr).parse().unwrap();
    let store = origin.fresh("pulled");
    let keep = PullOptions { blobs: BlobPolicy::Keep, ..PullOptions::default() };
    for name in [&one, &two, &again] {
        store.pull(name, &keep, &Silent, &Cancel::default()).unwrap();
    }
    let all = [one.clone(), two.clone(), again.clone(), one.clone()];
    for (format, skopeo) in [
        (ArchiveFormat::OciArchive, "oci-archive"),
        (ArchiveFormat::DockerArchive, "docker-archive"),
        (ArchiveFormat::OciLayout, "oci"),
    ] {
        let to = origin.tmp.path().join(skopeo);
        store.export_as(&all, &to, format, &Cancel::default()).unwrap();
        let fresh = origin.fresh(&format!("from-{skopeo}"));
        let found = fresh.import(&to, None, &Platform::host(), &Silent, &Cancel::default()).unwrap();
        let mut found: Vec<_> = found.iter().map(|image| (image.reference.clone(), image.id)).collect();
        found.sort_by_key(|(name, _)| name.to_string());
        let mut want = vec![(one.clone(), tags[0].id), (two.clone(), tags[1].id), (again.clone(), tags[0].id)];
        want.sort_by_key(|(name, _)| name.to_string());
        assert_eq!(found, want, "{skopeo}");
        is_whole(&fresh);
        // three layers, each once: the noise does not compress
        let size: u64 = String::from_utf8(Command::new("du").args(["-sb"]).arg(&to).output().unwrap().stdout)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!((400_000..450_000).contains(&size), "{skopeo}: {size} bytes");
        for name in [&one, &two, &again] {
            let of = format!("{skopeo}:{}:{}", to.display(), name.familiar());
            let seen = Command::new("skopeo").args(["inspect", "--config", &of]).output().unwrap();
            assert!(seen.status.success(), "{of}: {}", String::from_utf8_lossy(&seen.stderr));
        }
    }
}

#[test]
fn a_full_disk_is_swept_of_what_can_be_fetched_again() {
    let origin = Origin::new();
    for (tag, seed) in [("1", 1), ("2", 2), ("3", 3), ("4", 4)] {
        origin.image(tag, &[(seed, 3_000_000)]);
    }
    let small = origin.tmp.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "mote-img-gc"]).arg(&small).status().unwrap();
    assert!(mounted.success());
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(small.clone());
    let store = Store::open(&small.join("store")).unwrap();
    let options = PullOptions { blobs: BlobPolicy::Drop, ..PullOptions::default() };
    for tag in ["1", "2", "3", "4"] {
        store.pull(&origin.name(tag), &options, &Silent, &Cancel::default()).unwrap();
        std::thread::sleep(Duration::from_millis(1100)); // idle time is told in seconds
    }
    let used = store.usage().unwrap();
    assert!((12_000_000..13_000_000).contains(&used.layers), "{used:?}");
    // Image 1 was used last, image 2 is pinned: 3 is the one.
    let first = store.find(&origin.name("1")).unwrap().unwrap();
    store.lease("c1", &first).unwrap();
    store.release("c1").unwrap();
    store.pin(&origin.name("2"), true).unwrap();
    let policy = GcPolicy { high_percent: 70, low_percent: 60, age_min: Duration::ZERO, ..GcPolicy::default() };
    let quiet = store.sweep_images(&GcPolicy { high_percent: 99, ..policy }, &|_, _| panic!("nobody is to be asked"));
    assert_eq!(quiet.unwrap(), Swept::default());
    // With the registry away nothing goes.
    let kept = store.sweep_images(&policy, &|_, _| false).unwrap();
    assert!(kept.images.is_empty() && kept.freed == 0 && kept.wanted > 0, "{kept:?}");
    assert_eq!(store.list().unwrap().len(), 4);
    let asked = Mutex::new(Vec::new());
    let swept = store.sweep_images(&policy, &|reference, digest| {
        asked.lock().unwrap().push(reference.clone());
        can_fetch(reference, digest, &Registries::default(), &Cancel::default())
    });
    assert_eq!(swept.as_ref().unwrap().images, [origin.name("3").to_string()]);
    assert_eq!(asked.into_inner().unwrap(), [origin.name("3")]);
    assert!(swept.unwrap().freed > 2_900_000);
    assert!(store.space().unwrap().available > 16 * 1024 * 1024 * 4 / 10);
    assert_eq!(std::fs::read_dir(small.join("store/tmp")).unwrap().count(), 0);
    is_whole(&store);
    let missing: Reference = format!("{}/x:none", origin.server.addr).parse().unwrap();
    assert!(!can_fetch(&missing, &Digest::of(b"x"), &Registries::default(), &Cancel::default()));
    pull(&store, &origin.name("3"));
}
