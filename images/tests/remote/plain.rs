//! The whole way against Debian's `docker-registry` and `skopeo`: packed, pushed, pulled, copied; what breaks on the way and what is said.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use mote_images::*;

use crate::stock::Registry;

fn run(program: &str, args: &[&str]) -> String {
    crate::scripted::run(Path::new("/"), program, args)
}

/// Two layers: the second changes, hides and replaces things of the first.
fn sources(dir: &Path) -> Vec<PackLayer> {
    // skopeo remembers blobs per machine: what it meets must be new to it
    let salt = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    let (base, upper) = (dir.join("base"), dir.join("upper"));
    for path in [base.join("etc/gone"), base.join("usr/bin"), upper.join("etc")] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::fs::write(base.join("etc/gone/x"), b"x").unwrap();
    std::fs::write(base.join("etc/conf"), b"old").unwrap();
    std::fs::write(base.join("usr/bin/tool"), vec![7u8; 300_000]).unwrap();
    std::fs::hard_link(base.join("usr/bin/tool"), base.join("usr/bin/tool2")).unwrap();
    std::os::unix::fs::symlink("usr/bin", base.join("bin")).unwrap();
    // noise does not compress: several network buffers
    let mut seed = salt;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
        (seed >> 24) as u8
    })
    .take(3_000_000)
    .collect();
    std::fs::write(base.join("usr/noise"), noise).unwrap();
    std::fs::write(upper.join("etc/conf"), format!("new {salt}")).unwrap();
    run("mknod", &[upper.join("etc/gone").to_str().unwrap(), "c", "0", "0"]);
    vec![PackLayer::Dir(base), PackLayer::Dir(upper)]
}

fn pack(store: &Store, name: &Reference, dir: &Path) -> Image {
    let config =
        ImageConfig { entrypoint: vec!["/usr/bin/tool".into()], env: vec!["A=b".into()], ..ImageConfig::default() };
    store
        .pack(
            name,
            PackSpec { config, layers: sources(dir), compression: Compression::Gzip, mtime: Some(0) },
            &Cancel::default(),
        )
        .unwrap()
}

/// Path, mode, owner, size, link target and content of everything below a folder.
fn tree(root: &Path) -> String {
    run(
        "sh",
        &[
            "-c",
            &format!(
                "cd {} && find . -mindepth 1 -printf '%P %M %U:%G %s %l %n\\n' | sort; find . -type f -print0 | sort -z | xargs -0r sha256sum",
                root.display()
            ),
        ],
    )
}

fn store_in(dir: &Path, name: &str) -> Store {
    Store::open(&dir.join(name)).unwrap()
}

fn pull(store: &Store, reference: &Reference) -> Result<Image, Error> {
    store.pull(reference, &PullOptions::default(), &Silent, &Cancel::default())
}

/// An image of a store, and in a registry of its own.
struct Published {
    tmp: tempfile::TempDir,
    registry: Registry,
    store: Store,
    name: Reference,
    image: Image,
    /// What the push said.
    digest: Digest,
}

fn published() -> Published {
    let tmp = tempfile::tempdir().unwrap();
    let registry = Registry::open();
    let store = store_in(tmp.path(), "one");
    let name = registry.reference("team/app:1");
    let image = pack(&store, &name, tmp.path());
    let digest = store.push(&name, &name, None, &PullOptions::default(), &Silent, &Cancel::default()).unwrap();
    Published { tmp, registry, store, name, image, digest }
}

#[test]
fn packed_pushed_and_pulled_by_us_and_by_skopeo() {
    let Published { tmp, registry, store, name, image: packed, digest } = published();
    assert_eq!(digest, packed.manifest);

    // what we pushed, pulled by us into an empty store: the same trees
    let other = store_in(tmp.path(), "two");
    let pulled = pull(&other, &name).unwrap();
    assert_eq!(
        (pulled.id, pulled.manifest, pulled.config.env.clone()),
        (packed.id, packed.manifest, vec!["A=b".to_owned()])
    );
    for (ours, theirs) in pulled.layers.iter().zip(&packed.layers) {
        assert_eq!(tree(&ours.path), tree(&theirs.path));
    }
    assert!(other.verify(&Silent, &Cancel::default()).unwrap().is_empty());
    assert_eq!(std::fs::read_dir(tmp.path().join("two/tmp")).unwrap().count(), 0);

    // nothing to do: one request, nothing waited for
    let before = registry.requests();
    assert_eq!(pull(&other, &name).unwrap().manifest, packed.manifest);
    assert_eq!(registry.requests() - before, 1);

    // skopeo copies it on as docker schema 2; and compresses an uncompressed one by zstd
    let plain = registry.reference("team/plain:1");
    let spec = PackSpec {
        config: ImageConfig::default(),
        layers: sources(&tmp.path().join("again")),
        compression: Compression::None,
        mtime: Some(0),
    };
    let plain_image = store.pack(&plain, spec, &Cancel::default()).unwrap();
    let archive = tmp.path().join("plain.tar");
    store.export(&plain, &archive, &Cancel::default()).unwrap();
    let oci = format!("oci-archive:{}", archive.display());
    let zstd = registry.reference("zstd/app:1");
    run(
        "skopeo",
        &[
            "copy",
            "--dest-tls-verify=false",
            "--dest-compress-format",
            "zstd",
            "--dest-compress-level",
            "3",
            &oci,
            &format!("docker://{zstd}"),
        ],
    );
    let docker = registry.reference("team/v2s2:1");
    let (from, to) = (format!("docker://{name}"), format!("docker://{docker}"));
    run("skopeo", &["copy", "--src-tls-verify=false", "--dest-tls-verify=false", "-f", "v2s2", &from, &to]);
    for (reference, sign, image) in [(&zstd, "tar+zstd", &plain_image), (&docker, "rootfs.diff.tar.gzip", &packed)] {
        let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]);
        assert!(raw.contains(sign), "{raw}");
        let fresh = store_in(tmp.path(), &reference.repository().replace('/', "-"));
        assert_eq!(tree(&pull(&fresh, reference).unwrap().layers[0].path), tree(&image.layers[0].path));
    }

    // the archive we write is skopeo's and ours, and the other way round
    let archive = tmp.path().join("app.tar");
    store.export(&name, &archive, &Cancel::default()).unwrap();
    let oci = format!("oci-archive:{}", archive.display());
    assert!(run("skopeo", &["inspect", &oci]).contains(&packed.manifest.to_string()));
    for (kind, tail) in [("docker-archive", ":team/x:2"), ("oci-archive", ":team/x:2"), ("oci", ":team/x:2")] {
        let path = tmp.path().join(format!("from-{kind}"));
        run("skopeo", &["copy", &oci, &format!("{kind}:{}{tail}", path.display())]);
        let fresh = store_in(tmp.path(), &format!("store-{kind}"));
        let images = fresh.import(&path, None, &Platform::host(), &Silent, &Cancel::default()).unwrap();
        assert_eq!(images[0].reference.to_string(), "docker.io/team/x:2", "{kind}");
        assert_eq!(
            images[0].layers.iter().map(|l| l.diff_id).collect::<Vec<_>>(),
            packed.layers.iter().map(|l| l.diff_id).collect::<Vec<_>>()
        );
        assert_eq!(tree(&images[0].layers[1].path), tree(&packed.layers[1].path));
    }
    // bytes do not depend on when or where
    let again = tmp.path().join("again.tar");
    store.export(&name, &again, &Cancel::default()).unwrap();
    assert_eq!(std::fs::read(archive).unwrap(), std::fs::read(again).unwrap());
}

#[test]
fn the_registrys_reason_reaches_the_user() {
    let tmp = tempfile::tempdir().unwrap();
    let registry = Registry::open();
    let store = store_in(tmp.path(), "one");
    let missing = registry.reference("no/such:1");
    let error = pull(&store, &missing).err().unwrap();
    assert!(matches!(error, Error::NotFound { .. }) && !error.is_retryable());
    assert_eq!(error.to_string(), format!("{missing}: not found: manifest unknown (404 Not Found)"));

    let name = registry.reference("team/s390x:1");
    let config = ImageConfig { platform: "linux/s390x".parse().unwrap(), ..ImageConfig::default() };
    let exe = vec![("/x".to_owned(), PathBuf::from("/proc/self/exe"), 0o755)];
    store.pack(&name, PackSpec::of_files(exe, config), &Cancel::default()).unwrap();
    store.push(&name, &name, None, &PullOptions::default(), &Silent, &Cancel::default()).unwrap();
    let amd = PullOptions { platform: "linux/amd64".parse().unwrap(), ..PullOptions::default() };
    let error = store_in(tmp.path(), "two").pull(&name, &amd, &Silent, &Cancel::default()).err().unwrap();
    assert_eq!(error.to_string(), format!("{name}: no image for linux/amd64, it offers linux/s390x"));

    let nowhere: Reference = "127.0.0.1:1/x".parse().unwrap();
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            cancel.cancel();
        });
        // Before the attempts it would make are over: else the error is the network's.
        let error = store.pull(&nowhere, &PullOptions::default(), &Silent, &cancel).err().unwrap();
        assert!(matches!(error, Error::Cancelled), "{error}");
    });
}

#[test]
fn basic_authentication() {
    let tmp = tempfile::tempdir().unwrap();
    // bcrypt of "secret", made with htpasswd -nbB
    let htpasswd = tmp.path().join("htpasswd");
    let hash = run("sh", &["-c", "perl -e 'print crypt(\"secret\", \"\\$2y\\$05\\$abcdefghijklmnopqrstuu\")'"]);
    std::fs::write(&htpasswd, format!("me:{hash}\n")).unwrap();
    let registry =
        Registry::start("", &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display()));
    let store = store_in(tmp.path(), "one");
    let name = registry.reference("team/app:1");
    pack(&store, &name, tmp.path());
    let credentials =
        |password: &str| Some(Credentials { username: "me".into(), password: password.into(), identity_token: None });
    let push =
        |credentials| store.push(&name, &name, credentials, &PullOptions::default(), &Silent, &Cancel::default());
    assert!(matches!(push(None), Err(Error::Unauthorized { .. })));
    push(credentials("secret")).unwrap();
    let other = store_in(tmp.path(), "two");
    let with = |credentials| PullOptions { credentials, ..PullOptions::default() };
    for wrong in [None, credentials("wrong")] {
        let error = other.pull(&name, &with(wrong), &Silent, &Cancel::default()).err().unwrap();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    }
    other.pull(&name, &with(credentials("secret")), &Silent, &Cancel::default()).unwrap();
    let config = tmp.path().join("config.json");
    let auth = run("sh", &["-c", "printf me:secret | base64"]);
    std::fs::write(&config, format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{}\"}}}}}}", registry.addr, auth.trim()))
        .unwrap();
    let registries = Registries { docker_config: Some(config), ..Registries::default() };
    store_in(tmp.path(), "three")
        .pull(&name, &PullOptions { registries, ..PullOptions::default() }, &Silent, &Cancel::default())
        .unwrap();
}

/// Forwards to `to`; cuts every connection after `limit` bytes of answers.
fn flaky_proxy(to: SocketAddr, limit: usize) -> (SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = sent.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, TcpStream::connect(to)) else { return };
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            let count = count.clone();
            std::thread::spawn(move || {
                let mut buffer = [0u8; 8192];
                let mut left = limit;
                while left > 0 {
                    let n = match server.read(&mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(n) => n.min(left),
                    };
                    if client.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                    left -= n;
                    count.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (addr, sent)
}

#[test]
fn a_link_that_breaks_costs_no_byte_twice() {
    struct Resumes(Mutex<usize>);
    impl Observer for Resumes {
        fn event(&self, progress: Progress) {
            if matches!(progress, Progress::Resumed { at, .. } if at > 0) {
                *self.0.lock().unwrap() += 1;
            }
        }
    }
    let Published { tmp, registry, image: packed, .. } = published();
    let (addr, sent) = flaky_proxy(registry.addr, 700_000);
    let through: Reference = format!("{addr}/team/app:1").parse().unwrap();
    let resumes = Resumes(Mutex::new(0));
    let image =
        store_in(tmp.path(), "two").pull(&through, &PullOptions::default(), &resumes, &Cancel::default()).unwrap();
    assert_eq!(image.manifest, packed.manifest);
    assert_eq!(tree(&image.layers[0].path), tree(&packed.layers[0].path));
    assert!(*resumes.0.lock().unwrap() >= 3);
    let sent = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!((3_000_000..3_200_000).contains(&sent), "{sent} bytes for 3 MB of layers");
}

#[test]
fn a_corrupt_layer_is_refused_and_nothing_stays() {
    let Published { tmp, registry, name, .. } = published();
    // flip one byte in the middle of the largest blob the registry stores
    let find = format!("find {} -type f -size +1M", registry.dir.path().join("data").display());
    let blob = PathBuf::from(run("sh", &["-c", &find]).trim());
    let mut bytes = std::fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let other = store_in(tmp.path(), "two");
    let error = pull(&other, &name).err().unwrap();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().starts_with("layer sha256:"), "{error}");
    assert!(other.list().unwrap().is_empty() && other.find(&name).unwrap().is_none());
    assert_eq!(std::fs::read_dir(tmp.path().join("two/tmp")).unwrap().count(), 0);
    // the good layer may stay; it goes with prune
    other.prune().unwrap();
    assert_eq!(other.usage().unwrap().layers, 0);
}

#[test]
fn a_full_disk_says_so_and_leaves_nothing() {
    let Published { tmp, registry: _registry, name, .. } = published();
    let small = tmp.path().join("small");
    std::fs::create_dir(&small).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=1m", "mote-img-test", small.to_str().unwrap()]);
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(small.clone());
    let other = store_in(&small, "store");
    let error = pull(&other, &name).err().unwrap();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("usr/noise") && error.is_retryable(), "{error}");
    assert_eq!(std::fs::read_dir(small.join("store/tmp")).unwrap().count(), 0);
}
