//! The same image unpacked by us and by Debian's `umoci`: every attribute of every path must be equal. As root; fails without umoci.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a broken expectation is this program's failure

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use mote_images::*;

fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-euc", script]).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Every path (the time of those in `undated` left out: folders nobody describes or
/// something was hidden in, which umoci gives the present) with type, mode, owner, size, device, time with nanoseconds, target, names of the same file, content, extended attributes.
/// (Link counts and sizes of folders differ by nature: overlayfs counts 1 for merged folders.)
fn tree(root: &Path, undated: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut names: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let name =
            String::from_utf8_lossy(path.strip_prefix(root).unwrap().as_os_str().as_bytes()).replace('\u{fffd}', "?");
        let mut line = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
        if !undated.contains(&name.as_str()) {
            line += &format!(" {}.{:09}", meta.mtime(), meta.mtime_nsec());
        }
        if kind.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            line += &format!(" {} bytes, device {}", meta.len(), if kind.is_file() { 0 } else { meta.rdev() });
            names.entry(meta.ino()).or_default().push(name.clone());
        }
        if kind.is_symlink() {
            line += &format!(" -> {:?}", std::fs::read_link(&path).unwrap());
        }
        if kind.is_file() {
            line += &format!(" {}", Digest::of(&std::fs::read(&path).unwrap()));
        }
        found.insert(name, line);
    }
    if undated.contains(&"/") {
        found.remove(""); // the root itself
    }
    for mut group in names.into_values().filter(|group| group.len() > 1) {
        group.sort();
        for name in &group {
            found.get_mut(name).unwrap().push_str(&format!(" same file: {group:?}"));
        }
    }
    let attributes = sh(&format!(
        "cd {} && find . -print0 | LC_ALL=C sort -z | xargs -0r getfattr -h -d -m - -e hex 2>/dev/null | grep -v overlay || true",
        root.display()
    ));
    for block in attributes.split("\n\n").filter(|block| block.contains('\n')) {
        let (name, values) = block.split_once('\n').unwrap();
        found.insert(format!("attributes {name}"), values.to_owned());
    }
    found
}

/// What differs, in words.
fn differences(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    differ
        .take(20)
        .map(|name| format!("{name}\n  ours   {:?}\n  theirs {:?}", ours.get(name), theirs.get(name)))
        .collect()
}

/// Mounts the layers as overlayfs, read-only, for as long as it lives.
struct Overlay(std::path::PathBuf);

impl Overlay {
    fn mount(image: &Image, at: &Path) -> Overlay {
        std::fs::create_dir(at).unwrap();
        let mut lower: Vec<_> = image.layers.iter().rev().map(|layer| layer.path.display().to_string()).collect();
        if lower.len() == 1 {
            let empty = at.with_extension("empty");
            std::fs::create_dir(&empty).unwrap();
            lower.push(empty.display().to_string());
        }
        sh(&format!("mount -t overlay mote-img-test -o ro,lowerdir={} {}", lower.join(":"), at.display()));
        Overlay(at.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Three layers: real Debian files (our own /etc, some programs, set-id ones), a torture layer, and one that hides and replaces.
fn image_layout(dir: &Path) {
    sh(&format!(
        "cd {}
         mkdir l1 l2 l3
         cp -a --parents /etc /usr/bin/perl /usr/bin/passwd /usr/bin/chage /bin /usr/share/perl l1/ 2>/dev/null || true
         cd l2
         mkdir -p d/deep/$(printf 'x%.0s' $(seq 120))/$(printf 'y%.0s' $(seq 120)) sticky empty
         chmod 1777 sticky; chmod 0700 empty
         printf data > d/file; ln d/file d/hard; ln -s /abs/olute d/abs; ln -s $(printf 'z%.0s' $(seq 150)) d/long
         mknod d/null c 1 3; mknod d/loop b 7 200; mkfifo d/fifo
         chown 3000000:4000000 d/file; chmod 6755 d/file; chown -h 5:6 d/abs
         printf x > \"$(printf 'na\\303\\257ve \\377name')\"
         setfattr -n user.test -v 'va=l
ue' d/deep; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 d/file
         truncate -s 3000000 d/sparse; printf end >> d/sparse
         touch -d '1969-06-01 12:00:00.25 UTC' d/file; touch -d '2035-01-01 00:00:00.123456789 UTC' d/deep
         cd ../l3
         mkdir -p d etc; : > d/.wh.hard; : > .wh.sticky; mkdir empty; : > empty/.wh..wh..opq; printf new > empty/new
         printf 'replaced' > etc/passwd; mkdir -p etc/hostname.d",
        dir.display()
    ));
    for (layer, options) in [
        ("l1", "--format=gnu"),
        ("l2", "--format=posix --sparse --xattrs --xattrs-include=* "),
        ("l3", "--format=ustar"),
    ] {
        sh(&format!("cd {}/{layer} && tar -c {options} --numeric-owner -f ../{layer}.tar .", dir.display()));
    }
    layout(dir, &["l1", "l2", "l3"]);
}

/// An OCI layout of the archives NAME.tar.
fn layout(dir: &Path, names: &[&str]) {
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    let blobs = dir.join("layout/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    for layer in names {
        let (digest, size) = put(&std::fs::read(dir.join(format!("{layer}.tar"))).unwrap());
        descriptors.push(serde_json::json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size }));
        diff_ids.push(digest);
    }
    let host = Platform::host();
    let config = serde_json::json!({ "architecture": host.architecture, "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let (digest, size) = put(config.to_string().as_bytes());
    let config =
        serde_json::json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let (digest, size) =
        put(serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": descriptors })
            .to_string()
            .as_bytes());
    let name = serde_json::json!({ "org.opencontainers.image.ref.name": "t" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{ "mediaType": kind, "digest": digest, "size": size, "annotations": name }] });
    std::fs::write(dir.join("layout/index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// The image as our overlayfs shows it must equal what umoci unpacks.
fn compare(dir: &Path, undated: &[&str]) -> BTreeMap<String, String> {
    sh(&format!("umoci unpack --image {0}/layout:t {0}/bundle", dir.display()));
    compare_with(dir, "bundle/rootfs", undated)
}

fn compare_with(dir: &Path, other: &str, undated: &[&str]) -> BTreeMap<String, String> {
    let store = Store::open(&dir.join("store")).unwrap();
    let name: Reference = "test/umoci:1".parse().unwrap();
    let images =
        store.import(&dir.join("layout"), Some(&name), &Platform::host(), &Silent, &Cancel::default()).unwrap();
    let damage = store.verify(&Silent, &Cancel::default()).unwrap();
    assert!(damage.is_empty(), "{damage:?}");
    let overlay = Overlay::mount(&images[0], &dir.join(format!("merged-{}", other.replace('/', "-"))));
    let (ours, theirs) = (tree(&overlay.0, undated), tree(&dir.join(other), undated));
    let different = differences(&ours, &theirs);
    assert!(different.is_empty(), "{}", different.join("\n"));
    ours
}

#[test]
fn trees_are_equal() {
    let tmp = tempfile::Builder::new().prefix("mote-img-umoci-").tempdir().unwrap();
    image_layout(tmp.path());
    assert!(compare(tmp.path(), &[]).len() > 1000);
}

/// Layers no builder would make: folders that layers below describe, links to files of other layers, sparse files in every form.
fn torture(dir: &Path) {
    let sparse = "truncate -s 5M $1; printf data | dd of=$1 bs=1 seek=70000 conv=notrunc status=none; printf end >> $1";
    sh(&format!(
        "cd {0}; fill() {{ {sparse}; }}
         mkdir -p t1/d/sub t1/gone/in t1/opaque/in t1/again t2/d/sub t2/x t2/implicit/deep t2/gone t2/opaque t3/d/sub t3/opaque t3/again t4
         cd t1; printf target > d/sub/target; ln d/sub/target d/sub/target2; ln -s ../nowhere d/sub/sym; mknod d/sub/null c 1 3
         printf 1 > gone/in/f; printf 1 > opaque/in/f; printf 1 > again/f; printf 1 > gone/g
         setfattr -n user.d -v folder d/sub; setfattr -n user.t -v file d/sub/target
         chown 3:4 d; chmod 0750 d; chown 5:6 d/sub; chmod 2775 d/sub; chmod 1700 opaque; chmod 711 again; chown 9:9 gone; chown 70000:3000000 d/sub/target; chmod 4711 d/sub/target
         touch -d '1960-02-29 01:02:03.000000001 UTC' d/sub; touch -d '2001-01-01 00:00:00.5 UTC' d; touch -d '2002-01-01 UTC' opaque again; chmod 0751 .; touch -d '2003-03-03 UTC' .
         tar -c --format=posix --xattrs '--xattrs-include=*' --numeric-owner -f ../t1.tar .
         cd ../t2; printf new > d/sub/new; printf deep > implicit/deep/f; fill s00; fill s01; fill s10; : > gone/.wh.in; : > opaque/.wh..wh..opq; printf 2 > opaque/own
         mkdir -p opaque/in; printf 2 > opaque/in/other; printf c > d/ce
         cd ../t3; printf 3 > d/sub/three; : > .wh.again; printf 3 > again/new; : > opaque/.wh.own; : > .wh..wh.plnk; : > d/.wh.ce
         cd ..
         tar -c --format=gnu --numeric-owner -C t2 -f t2.tar ./d/sub/new implicit/deep/f ./gone/.wh.in opaque/.wh..wh..opq opaque/own opaque/in/other d/ce
         for v in 0.0 0.1 1.0; do tar -c --format=posix --sparse --sparse-version=$v --numeric-owner -C t2 -f t2$v.tar s$(echo $v | tr -d .); done
         for part in t20.0 t20.1 t21.0; do tar -A -f t2.tar $part.tar; done
         tar -c --format=ustar --numeric-owner -C t3 -f t3.tar .wh.again again/new ./opaque/.wh.own .wh..wh.plnk ./d/sub/three d/.wh.ce
         tar -c --format=ustar --numeric-owner -C t3 -f t3b.tar ./opaque/.wh.own .wh..wh.plnk ./d/sub/three d/.wh.ce",
        dir.display()
    ));
    let mut links = tar::Builder::new(std::fs::File::create(dir.join("t4.tar")).unwrap());
    for (name, target) in [
        ("x/h", "d/sub/target"),
        ("x/sym", "d/sub/sym"),
        ("x/null", "d/sub/null"),
        ("d/sub/more", "x/h"),
        ("later", "d/sub/three"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Link);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        links.append_link(&mut header, name, target).unwrap();
    }
    links.finish().unwrap();
    layout(dir, &["t1", "t2", "t3", "t4"]);
}

#[test]
fn layers_that_lean_on_those_below() {
    let tmp = tempfile::Builder::new().prefix("mote-img-torture-").tempdir().unwrap();
    torture(tmp.path());
    let ours = compare(tmp.path(), &["", "implicit", "implicit/deep", "x", "again", "opaque", "opaque/in"]);
    assert!(ours["x/h"].contains(r#"["d/sub/more", "d/sub/target", "d/sub/target2", "x/h"]"#), "{}", ours["x/h"]);
    assert!(ours["d/sub"].starts_with("42775 5:6 -"));
}

/// A containerd of our own for as long as it lives.
struct Containerd {
    child: std::process::Child,
    socket: String,
    mounted: Vec<std::path::PathBuf>,
}

impl Containerd {
    fn start(dir: &Path) -> Containerd {
        let dir = dir.join("ctrd");
        std::fs::create_dir(&dir).unwrap();
        let socket = format!("{}/s", dir.display());
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = \"{socket}\"\n[ttrpc]\naddress = \"\"\n",
            dir.display()
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let quiet = || std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new("containerd")
            .arg("-c")
            .arg(dir.join("config.toml"))
            .stdout(quiet())
            .stderr(quiet())
            .spawn()
            .expect("start containerd");
        let containerd = Containerd { child, socket, mounted: Vec::new() };
        sh(&format!(
            "for i in $(seq 100); do ctr -a {0} version >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1",
            containerd.socket
        ));
        containerd
    }

    /// Imports the layout and mounts what it makes of it.
    fn show(&mut self, dir: &Path) -> std::path::PathBuf {
        let at = dir.join("containerd");
        std::fs::create_dir(&at).unwrap();
        sh(&format!(
            "cd {0}; tar -c -C layout -f layout.tar .; ctr -a {1} images import --base-name test.example/t layout.tar >&2
             ctr -a {1} images mount test.example/t:t {2}",
            dir.display(),
            self.socket,
            at.display()
        ));
        self.mounted.push(at.clone());
        at
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for at in &self.mounted {
            let _ = Command::new("umount").arg(at).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn as_containerd_shows_it() {
    let tmp = tempfile::Builder::new().prefix("mote-img-ctrd-").tempdir().unwrap();
    torture(tmp.path());
    // containerd refuses what is hidden and made anew in one layer, and links to files of layers below
    layout(tmp.path(), &["t1", "t2", "t3b"]);
    let mut containerd = Containerd::start(tmp.path());
    containerd.show(tmp.path());
    // what it does not describe itself a layer's folder has from below, but for the time; the root not even that
    let undated = ["/", "d", "d/sub", "gone", "implicit", "implicit/deep", "opaque", "opaque/in"];
    let ours = compare_with(tmp.path(), "containerd", &undated);
    assert_eq!(ours["d/sub"], "42775 5:6");
}

/// All of Debian's essential system, nginx on it, a site on that.
#[test]
fn a_whole_debian_is_equal() {
    let tmp = tempfile::Builder::new().prefix("mote-img-debian-").tempdir().unwrap();
    let dir = tmp.path();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    sh(&format!("{}/images/fixtures/build", top.display()));
    let cache = std::env::var("MOTE_CACHE").map_or_else(|_| top.join(".cache"), Into::into);
    let fixtures = cache.join("fixtures").join(sh("dpkg --print-architecture").trim());
    for layer in ["base", "nginx", "site"] {
        sh(&format!(
            "tar -c --format=posix --xattrs '--xattrs-include=*' --acls --numeric-owner -f {1}/{layer}.tar -C {0}/layers/{layer} .",
            fixtures.display(),
            dir.display()
        ));
    }
    layout(dir, &["base", "nginx", "site"]);
    let ours = compare(dir, &[]);
    // set-id programs, devices' folders, names outside ASCII, files of several names: it is no toy
    assert!(ours.len() > 4000, "{}", ours.len());
    assert!(ours["usr/bin/passwd"].starts_with("104755 0:0 ") && ours["bin"].contains("-> \"usr/bin\""));
    assert!(ours["usr/bin/perl"].contains("same file: [\"usr/bin/perl\", \"usr/bin/perl5"), "{}", ours["usr/bin/perl"]);
    assert!(ours.contains_key("usr/sbin/nginx"));
}

/// What umoci does not read: old GNU sparse files, owners and times in base 256, access control lists of GNU tar.
#[test]
fn as_gnu_tar_reads_it() {
    let tmp = tempfile::Builder::new().prefix("mote-img-gnu-").tempdir().unwrap();
    let dir = tmp.path();
    sh(&format!(
        "cd {}; mkdir -p l/d; cd l
         truncate -s 5M sparse; for at in 1 9 70 71 300 1000 1200; do printf data | dd of=sparse bs=4096 seek=$at conv=notrunc status=none; done
         truncate -s 3M hole; printf x > owned; chown 5000000:4000000000 owned; touch -d '1955-05-05 UTC' owned; touch -d '2300-01-01 UTC' hole
         tar -c --format=gnu --sparse --numeric-owner -f ../gnu.tar .
         printf x > d/acl; setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff0200070079cf010004000400ffffffff08000400c0c62d0010000700ffffffff20000400ffffffff d/acl
         setfattr -n system.posix_acl_default -v 0x0200000001000700ffffffff02000500c9cf010004000500ffffffff10000500ffffffff20000500ffffffff d
         tar -c --format=posix --acls --numeric-owner -f ../acl.tar ./d
         grep -aq SCHILY.acl.access ../acl.tar; grep -aq SCHILY.acl.default ../acl.tar
         mkdir ../want; cd ../want; tar -x --acls --numeric-owner -f ../gnu.tar; tar -x --acls --numeric-owner -f ../acl.tar",
        dir.display()
    ));
    layout(dir, &["gnu", "acl"]);
    let ours = compare_with(dir, "want", &[]);
    assert!(ours["attributes # file: d"].contains("system.posix_acl_default=0x0200000001"), "{ours:?}");
    assert!(ours["owned"].contains(" 5000000:4000000000 -462672000.000000000 "), "{}", ours["owned"]);
    sh(&format!("test $(du -k {0}/store/layers/*/fs/hole | cut -f1) -lt 100", dir.display()));
}
