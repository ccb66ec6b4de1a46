use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn tree(dir: &Path) {
    std::fs::create_dir_all(dir.join("etc/deep")).unwrap();
    std::fs::write(dir.join("etc/deep/file"), b"content").unwrap();
    std::fs::set_permissions(dir.join("etc/deep/file"), PermissionsExt::from_mode(0o4750)).unwrap();
    std::fs::hard_link(dir.join("etc/deep/file"), dir.join("also")).unwrap();
    symlink("../x", dir.join("etc/link")).unwrap();
    std::fs::write(dir.join("ä".repeat(90)), b"").unwrap();
    std::os::unix::fs::chown(dir.join("etc"), Some(3_000_000), Some(7)).unwrap();
    crate::sys::lsetxattr(&CString::new(dir.join("also").to_str().unwrap()).unwrap(), c"user.k", b"v\n1").unwrap();
    nix::sys::stat::mknod(&dir.join("gone"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0).unwrap();
}
use std::ffi::CString;

fn spec(dir: &Path, compression: Compression) -> PackSpec {
    PackSpec {
        config: ImageConfig { cmd: vec!["/x".into()], ..ImageConfig::default() },
        layers: vec![PackLayer::Dir(dir.into())],
        compression,
        mtime: Some(1000),
    }
}

#[test]
fn the_same_input_gives_the_same_image_and_the_same_tree() {
    let tmp = tempfile::tempdir().unwrap();
    let reference: Reference = "a.test/x:1".parse().unwrap();
    let mut manifests = Vec::new();
    for (source, store, compression) in
        [("t1", "s1", Compression::Gzip), ("t2", "s2", Compression::Gzip), ("t2", "s3", Compression::None)]
    {
        let source = tmp.path().join(source);
        if !source.exists() {
            if manifests.len() == 1 {
                // Other times, another order of names in the folder.
                std::fs::create_dir_all(source.join("etc/deep")).unwrap();
                (0..200).for_each(|n| std::fs::write(source.join(format!("etc/{n}")), "").unwrap());
                std::fs::write(source.join("ä".repeat(90)), "").unwrap();
                (0..200).for_each(|n| std::fs::remove_file(source.join(format!("etc/{n}"))).unwrap());
            }
            tree(&source);
            let file = File::open(source.join("etc/deep/file")).unwrap();
            let day = std::time::Duration::from_secs(86_400 * (manifests.len() as u64 + 1));
            file.set_modified(std::time::UNIX_EPOCH + day).unwrap();
        }
        let store = Store::open(&tmp.path().join(store)).unwrap();
        let image = store.pack(&reference, spec(&source, compression), &Cancel::default()).unwrap();
        let fs = &image.layers[0].path;
        let file = fs.join("etc/deep/file").metadata().unwrap();
        assert_eq!((file.mode() & 0o7777, file.nlink(), file.mtime()), (0o4750, 2, 1000));
        assert_eq!(
            (fs.join("etc").metadata().unwrap().uid(), fs.join("etc").metadata().unwrap().gid()),
            (3_000_000, 7)
        );
        assert_eq!(std::fs::read_link(fs.join("etc/link")).unwrap(), Path::new("../x"));
        assert!(fs.join("ä".repeat(90)).exists());
        assert_eq!(fs.join("gone").symlink_metadata().unwrap().rdev(), 0);
        assert_eq!(
            crate::sys::lgetxattr(&CString::new(fs.join("also").to_str().unwrap()).unwrap(), c"user.k").unwrap(),
            b"v\n1"
        );
        assert!(store.verify(&Silent, &Cancel::default()).unwrap().is_empty());
        assert_eq!(store.find(&reference).unwrap().unwrap().id, image.id);
        manifests.push((image.manifest, image.layers[0].diff_id, image.id));
    }
    assert_eq!(manifests[0], manifests[1]);
    assert_eq!((manifests[0].1, manifests[0].2), (manifests[2].1, manifests[2].2));
    assert_ne!(manifests[0].0, manifests[2].0);
}

#[test]
fn files_become_an_image() {
    let tmp = tempfile::tempdir().unwrap();
    let store = Store::open(&tmp.path().join("s")).unwrap();
    let exe = tmp.path().join("program");
    let bytes: Vec<u8> = (0..300_000u32).flat_map(|n| n.wrapping_mul(n).to_be_bytes()).collect();
    std::fs::write(&exe, bytes).unwrap();
    let files = vec![("/bin/mote".to_owned(), exe.clone(), 0o755), ("/bin/again".to_owned(), exe.clone(), 0o700)];
    let image = store
        .pack(&"demo".parse().unwrap(), PackSpec::of_files(files, ImageConfig::default()), &Cancel::default())
        .unwrap();
    let fs = &image.layers[0].path;
    assert_eq!(std::fs::read(fs.join("bin/mote")).unwrap(), std::fs::read(&exe).unwrap());
    assert_eq!(
        (fs.join("bin/again").metadata().unwrap().mode(), fs.join("bin").metadata().unwrap().mode()),
        (0o100700, 0o40755)
    );
    let escape = PackSpec::of_files(vec![("../x".to_owned(), exe, 0)], ImageConfig::default());
    assert!(store.pack(&"demo:2".parse().unwrap(), escape, &Cancel::default()).is_err());
    assert!(store.find(&"demo:2".parse().unwrap()).unwrap().is_none());
    // A file with more bytes than its size says is not cut in silence.
    let longer = PackSpec::of_files(vec![("/x".to_owned(), "/proc/version".into(), 0)], ImageConfig::default());
    assert!(store.pack(&"demo:2".parse().unwrap(), longer, &Cancel::default()).is_err());
}
