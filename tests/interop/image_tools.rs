//! skopeo and umoci read what we pack; we read what skopeo copies.

use crate::harness::{Registry, mote, need, run};

#[test]
fn skopeo_and_umoci_read_what_we_push() {
    need("skopeo", "skopeo");
    need("umoci", "umoci");
    let registry = Registry::with_images();
    let dir = tempfile::tempdir().expect("folder");
    let layout = dir.path().join("layout");
    let source = format!("docker://{}", registry.image("busybox"));
    let target = format!("oci:{}:busybox", layout.display());
    run("skopeo", &["copy", "--src-tls-verify=false", &source, &target]);
    let rootfs = dir.path().join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:busybox", layout.display()), rootfs.to_str().expect("UTF-8")]);
    assert!(rootfs.join("rootfs/bin/busybox").exists());
}

#[test]
fn we_pull_what_skopeo_pushes_in_both_manifest_formats() {
    need("skopeo", "skopeo");
    let stocked = Registry::with_images();
    let registry = Registry::empty();
    let dir = tempfile::tempdir().expect("folder");
    let data_dir = dir.path().join("data");
    let data_dir = data_dir.to_str().expect("UTF-8");
    for format in ["oci", "v2s2"] {
        let source = format!("docker://{}", stocked.image("busybox"));
        let reference = format!("{}/copy-{format}:1", registry.address());
        let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        run("skopeo", &["copy", tls[0], tls[1], "--format", format, &source, &format!("docker://{reference}")]);
        let program = mote();
        run(program.to_str().expect("UTF-8"), &["image", "pull", "--data-dir", data_dir, &reference]);
        let list = run(program.to_str().expect("UTF-8"), &["image", "ls", "--data-dir", data_dir]);
        assert!(list.contains(&format!("copy-{format}")), "{list}");
    }
}
