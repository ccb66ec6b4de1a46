//! The same image unpacked by us and by Debian's `umoci`: every attribute of every path must be equal. As root; fails without umoci.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a broken expectation is this program's failure

use std::path::Path;
use std::process::Command;

use mote_images::*;

fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-euc", script]).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// (Link counts differ by nature: overlayfs counts 1 for merged folders.) Mode, owner, size, device, time with nanoseconds (of all but the root), target, extended attributes, content.
fn tree(root: &Path) -> String {
    sh(&format!(
        "cd {} && find . -mindepth 1 -printf '%P|%y|%m|%U:%G|%l|%T@\\n' | sort;
         find . -mindepth 1 ! -type d -printf '%P|%s\\n' | sort;
         find . \\( -type b -o -type c \\) -exec stat -c '%n %t:%T' {{}} + | sort;
         find . -type f -print0 | sort -z | xargs -0r sha256sum;
         find . -mindepth 1 -print0 | sort -z | xargs -0r getfattr -h -d -m - -e hex 2>/dev/null | grep -v overlay || true",
        root.display()
    ))
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
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    let blobs = dir.join("layout/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    for layer in ["l1", "l2", "l3"] {
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

#[test]
fn trees_are_equal() {
    let tmp = tempfile::Builder::new().prefix("mote-img-umoci-").tempdir().unwrap();
    image_layout(tmp.path());
    sh(&format!("umoci unpack --image {0}/layout:t {0}/bundle", tmp.path().display()));
    let store = Store::open(&tmp.path().join("store")).unwrap();
    let name: Reference = "test/umoci:1".parse().unwrap();
    let images =
        store.import(&tmp.path().join("layout"), Some(&name), &Platform::host(), &Silent, &Cancel::default()).unwrap();
    assert!(store.verify(&Silent, &Cancel::default()).unwrap().is_empty());
    let overlay = Overlay::mount(&images[0], &tmp.path().join("merged"));
    let (ours, theirs) = (tree(&overlay.0), tree(&tmp.path().join("bundle/rootfs")));
    let different: Vec<_> = ours
        .lines()
        .filter(|line| !theirs.contains(line))
        .chain(theirs.lines().filter(|line| !ours.contains(line)))
        .take(20)
        .collect();
    assert!(ours == theirs, "{different:#?}");
    assert!(ours.lines().count() > 1000);
}
