use std::io::Cursor;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::*;
use crate::layer::listing;

/// A tar written by hand: header fields and content, nothing checked.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: u8, path: &str, link: &str, mode: u32, content: &[u8]) -> Tar {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(7).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    fn file(self, path: &str, content: &[u8]) -> Tar {
        self.entry(b'0', path, "", 0o644, content)
    }
    fn dir(self, path: &str) -> Tar {
        self.entry(b'5', path, "", 0o755, b"")
    }
    fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = 3 + key.len() + value.len();
            let length = (body + 1..body + 9).find(|n| *n == body + n.to_string().len()).unwrap();
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(b'x', "pax", "", 0, &data)
    }
    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

struct Out {
    dir: tempfile::TempDir,
    done: Result<Unpacked, Error>,
}

impl Out {
    fn fs(&self, path: &str) -> PathBuf {
        self.dir.path().join("fs").join(path)
    }
}

fn run(bytes: &[u8]) -> Out {
    let dir = tempfile::tempdir().unwrap();
    let fs = dir.path().join("fs");
    std::fs::create_dir(&fs).unwrap();
    let list = File::create(dir.path().join("list")).unwrap();
    let done = unpack(bytes, "layer x", &fs, list, &|_| {}, &Cancel::default());
    Out { dir, done }
}

fn why(bytes: &[u8]) -> String {
    let out = run(bytes);
    let outside: Vec<_> = std::fs::read_dir(out.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "something was written outside: {outside:?}");
    match out.done {
        Ok(_) => "unpacked".to_owned(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn hostile_archives_are_refused_by_name() {
    let long = [b"1048577 path=".as_slice(), &[b'x'; 1 << 20]].concat();
    let xattrs: Vec<(String, &[u8])> = (0..300).map(|i| (format!("SCHILY.xattr.user.{i}"), &b"v"[..])).collect();
    let xattrs: Vec<(&str, &[u8])> = xattrs.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    let table: Vec<(Tar, &str)> = vec![
        (Tar::default().file("../evil", b"x"), "entry \"../evil\": path leads upwards"),
        (Tar::default().file("a/../../evil", b"x"), "path leads upwards"),
        (Tar::default().file("/evil", b"x"), "path is absolute"),
        (Tar::default().pax(&[("path", b"../evil")]).file("ok", b"x"), "path leads upwards"),
        (
            Tar::default().entry(b'2', "out", "..", 0o777, b"").file("out/evil", b"x"),
            "entry \"out/evil\": a parent is no folder",
        ),
        (
            Tar::default().entry(b'2', "out", "/tmp", 0o777, b"").dir("out/evil"),
            "entry \"out/evil\": a parent is no folder",
        ),
        (Tar::default().dir("d").entry(b'2', "d/s", ".", 0o777, b"").file("d/s/evil", b"x"), "a parent is no folder"),
        (Tar::default().file("f", b"x").file("f/evil", b"x"), "a parent is no folder"),
        (Tar::default().entry(b'1', "h", "../../etc/passwd", 0, b""), "leads upwards"),
        (Tar::default().entry(b'1', "h", "/etc/passwd", 0, b""), "absolute"),
        (Tar::default().entry(b'2', "s", "/etc", 0, b"").entry(b'1', "h", "s/passwd", 0, b""), "a parent is no folder"),
        (
            Tar::default().dir("d").entry(b'1', "h", "d", 0, b""),
            "entry \"h\": hard link to \"d\", which is a folder or hidden by this layer",
        ),
        (Tar::default().file(".wh.a", b"").entry(b'1', "h", "a", 0, b""), "a folder or hidden by this layer"),
        (
            Tar::default().entry(b'1', "h", "a", 0, b"").entry(b'1', "a", "h", 0, b""),
            "entry \"a\": hard link to itself",
        ),
        (Tar::default().entry(b'1', "h", "a", 0, b"").file("h/evil", b""), "entry \"h/evil\": a parent is no folder"),
        (Tar::default().entry(b'1', "h", "a", 0, b"").file("h/.wh..wh..opq", b""), "a parent is no folder"),
        (Tar::default().entry(b'6', "p", "", 0, b"").file("p/evil", b""), "entry \"p/evil\": a parent is no folder"),
        (Tar::default().entry(b'3', "c", "", 0, b"").dir("c/evil"), "entry \"c/evil\": a parent is no folder"),
        (Tar::default().entry(b'4', "b", "", 0, b"").entry(b'2', "b/evil", "x", 0, b""), "a parent is no folder"),
        (Tar::default().pax(&[("path", b"a\0b")]).file("a", b""), "PAX path contains a NUL byte"),
        (Tar::default().pax(&[("SCHILY.acl.access", b"user:1:rwz")]).file("a", b""), "entry \"user:1:rwz\" is not"),
        (
            Tar::default().pax(&[("path", "d/".repeat(300).as_bytes())]).file("a", b""),
            "path is deeper than 256 folders",
        ),
        (Tar::default().pax(&[("path", &[b'n'; 300])]).file("a", b""), "name is longer than 255 bytes"),
        (Tar::default().file(".wh.a", b"").file("a/.wh...", b""), "whiteout hides no name"),
        (
            Tar::default().entry(b'x', "pax", "", 0, &long).file("a", b""),
            "PAX header of 1048589 bytes, at most 1048576 are allowed",
        ),
        (Tar::default().entry(b'L', "l", "", 0, &long).file("a", b""), "long name of 1048589 bytes"),
        (Tar::default().entry(b'g', "g", "", 0, &long).file("a", b""), "PAX global header of"),
        (Tar::default().pax(&xattrs).file("a", b""), "more than 256 extended attributes"),
        (
            (0..9).fold(Tar::default(), |t, _| t.pax(&[("comment", b"x")])).file("a", b""),
            "extension headers before one entry",
        ),
        (Tar::default().pax(&[("uid", b"4294967296")]).file("a", b""), "entry \"a\": owner does not fit in 32 bits"),
        (Tar::default().entry(b'M', "m", "", 0, b""), "entry type 'M' is not supported"),
        (
            Tar::default().pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")]).file("s", b"1\n0\n99\n"),
            "sparse map is longer",
        ),
        (
            Tar::default().pax(&[("GNU.sparse.realsize", b"9"), ("GNU.sparse.map", b"5,4,0,1")]).file("s", b"abcde"),
            "sparse runs overlap",
        ),
        (
            Tar::default()
                .pax(&[("GNU.sparse.realsize", b"9999999999999"), ("GNU.sparse.map", b"0,1")])
                .file("s", b"a"),
            "bytes of files",
        ),
        (
            Tar::default().pax(&[("GNU.sparse.realsize", b"9"), ("GNU.sparse.map", b"0,3")]).file("s", b"abcde"),
            "does not match the stored size",
        ),
    ];
    for (tar, want) in table {
        let got = why(&tar.end());
        assert!(got.contains(want) && got.starts_with("layer x: "), "want {want:?}, got {got:?}");
    }
    let mut reserved = Tar::default().entry(b'3', "c", "", 0o600, b"").end();
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&reserved[..512]);
    header.as_ustar_mut().unwrap().set_device_major(0);
    header.as_ustar_mut().unwrap().set_device_minor(0);
    header.set_cksum();
    reserved[..512].copy_from_slice(header.as_bytes());
    assert!(why(&reserved).contains("character device 0/0 is reserved"));
}

#[test]
fn damage_is_found_wherever_it_is() {
    let whole = Tar::default().dir("d").file("d/a", &[7; 3000]).file("d/b", b"x").end();
    assert_eq!(why(&whole), "unpacked");
    for cut in [1, 511, 600, 1024, 1500, 4000, 4100, 4400] {
        let got = why(&whole[..cut]);
        // a cut between two entries is an end; only the digests tell, and the caller compares those
        assert!(cut % 512 == 0 || got.contains("corrupt"), "cut {cut}: {got}");
    }
    let mut flipped = whole.clone();
    flipped[520] ^= 1;
    assert!(why(&flipped).contains("after entry \"d\": header checksum does not match"));
    let gz = {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(&whole).unwrap();
        e.finish().unwrap()
    };
    for cut in 10..gz.len() {
        assert!(why(&gz[..cut]).contains("corrupt"), "cut {cut}");
    }
    assert!(why(b"no archive at all, but longer than nothing").contains("corrupt"));
}

#[test]
fn a_failing_source_is_named_as_such() {
    struct Breaks(Cursor<Vec<u8>>);
    impl Read for Breaks {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(io::Error::other(Error::Network {
                    what: "GET x".into(),
                    why: "connection reset".into(),
                    retryable: true,
                })),
                n => Ok(n),
            }
        }
    }
    let whole = Tar::default().file("a", &[7; 90000]).end();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gz.write_all(&whole).unwrap();
    for bytes in [whole, gz.finish().unwrap()] {
        let dir = tempfile::tempdir().unwrap();
        let list = File::create(dir.path().join("list")).unwrap();
        std::fs::create_dir(dir.path().join("fs")).unwrap();
        let cut = bytes.len() - 9000;
        let done = unpack(
            Breaks(Cursor::new(bytes[..cut].to_vec())),
            "x",
            &dir.path().join("fs"),
            list,
            &|_| {},
            &Cancel::default(),
        );
        assert!(matches!(done, Err(Error::Network { retryable: true, .. })));
    }
}

#[test]
fn whiteouts_take_overlayfs_form_in_any_order() {
    let out = run(&Tar::default()
        .dir("d")
        .file("d/.wh..wh..opq", b"")
        .file("d/kept", b"k")
        .file(".wh.gone", b"")
        .file(".wh.again", b"")
        .file("again", b"new")
        .file("before", b"new")
        .file(".wh.before", b"")
        .file(".wh.dir", b"")
        .dir("dir")
        .dir("dir2")
        .file("dir2/x", b"")
        .file(".wh.dir2", b"")
        .file(".wh..wh.plnk/1", b"")
        .file("deep/down/.wh.x", b"")
        .end());
    out.done.as_ref().unwrap();
    let opaque = |path: &str| {
        let path = std::ffi::CString::new(out.fs(path).to_str().unwrap()).unwrap();
        crate::sys::lgetxattr(&path, c"trusted.overlay.opaque").is_ok_and(|value| value == b"y")
    };
    let whiteout = |path: &str| {
        std::fs::symlink_metadata(out.fs(path)).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
    };
    assert!(opaque("d") && opaque("dir") && opaque("dir2"));
    assert!(!opaque("") && !opaque("deep"));
    assert!(whiteout("gone") && whiteout("deep/down/x"));
    assert_eq!(std::fs::read(out.fs("again")).unwrap(), b"new");
    assert_eq!(std::fs::read(out.fs("before")).unwrap(), b"new");
    assert!(out.fs("d/kept").exists() && out.fs("dir2/x").exists() && !out.fs(".wh..wh.plnk").exists());
    let open = &out.done.as_ref().unwrap().open;
    assert_eq!(open.folders.iter().map(Inner::text).collect::<Vec<_>>(), ["/", "deep", "deep/down"]);
}

#[test]
fn what_the_layers_below_must_answer_stays_open() {
    let out = run(&Tar::default()
        .entry(b'1', "h", "below/t", 0, b"")
        .entry(b'1', "of", "h", 0, b"") // a link to an open link
        .file("was", b"a file")
        .entry(b'1', "was", "t", 0, b"")
        .entry(b'1', "taken", "t", 0, b"")
        .file("taken", b"by a file")
        .entry(b'1', "dir", "t", 0, b"")
        .dir("dir")
        .entry(b'1', "g/one", "t", 0, b"")
        .file("g", b"its folder went")
        .entry(b'1', "kept", "t", 0, b"")
        .file(".wh.kept", b"")
        .file(".wh.new", b"")
        .file("new/inner", b"")
        .file("o/.wh..wh..opq", b"")
        .file(".wh.n", b"")
        .file("n/.wh..wh..opq", b"")
        .end());
    let open = &out.done.as_ref().unwrap().open;
    let links: Vec<_> = open.links.iter().map(|(name, of)| format!("{} > {}", name.text(), of.text())).collect();
    assert_eq!(links, ["h > below/t", "kept > t", "of > below/t", "was > t"]);
    // `new` and `n` are new whatever is below: the same layer hid it
    assert_eq!(open.folders.iter().map(Inner::text).collect::<Vec<_>>(), ["/", "o"]);
    for folder in ["new", "n", "o"] {
        let meta = out.fs(folder).metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o755, 0), "{folder}");
    }
    for gone in ["h", "of", "was", "kept", "g/one"] {
        assert!(out.fs(gone).symlink_metadata().is_err(), "{gone}");
    }
}

#[test]
fn attributes_links_devices_and_replacements() {
    let out = run(&Tar::default()
        .dir("./")
        .dir("d")
        .pax(&[
            ("uid", b"3000000"),
            ("gid", b"5"),
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.user.a", b"1\n\0"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/x"),
        ])
        .entry(b'0', "d/suid", "", 0o4755, b"s")
        .entry(b'1', "d/link", "d/suid", 0o600, b"")
        .entry(b'2', "d/sym", "../../nowhere", 0o777, b"")
        .entry(b'3', "d/null", "", 0o666, b"")
        .entry(b'6', "d/fifo", "", 0o640, b"")
        .file("d/twice", b"first, longer")
        .file("d/twice", b"2nd")
        .dir("r")
        .file("r/inner", b"")
        .file("r", b"now a file")
        .pax(&[("path", "über/".repeat(40).as_bytes())])
        .dir("short")
        .end());
    let done = out.done.as_ref().unwrap();
    let stat = |path: &str| std::fs::symlink_metadata(out.fs(path)).unwrap();
    let suid = stat("d/suid");
    assert_eq!((suid.mode() & 0o7777, suid.uid(), suid.gid(), suid.nlink()), (0o4755, 3_000_000, 5, 2));
    assert_eq!((suid.mtime(), suid.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(stat("d/link").ino(), suid.ino());
    let c = std::ffi::CString::new(out.fs("d/suid").to_str().unwrap()).unwrap();
    assert_eq!(crate::sys::lgetxattr(&c, c"user.a").unwrap(), b"1\n\0");
    assert!(crate::sys::lgetxattr(&c, c"trusted.overlay.redirect").is_err());
    assert_eq!(std::fs::read_link(out.fs("d/sym")).unwrap().to_str(), Some("../../nowhere"));
    assert_eq!((stat("d/null").rdev(), stat("d/null").mode() & 0o7777), (nix::sys::stat::makedev(1, 7), 0o666));
    assert!(stat("d/fifo").file_type().is_fifo() && stat("d/fifo").mode() & 0o7777 == 0o640);
    assert_eq!(std::fs::read(out.fs("d/twice")).unwrap(), b"2nd");
    assert_eq!(std::fs::read(out.fs("r")).unwrap(), b"now a file");
    assert_eq!((stat("d").mtime(), stat("").mtime()), (1_000_000_000, 1_000_000_000));
    assert!(out.fs(&"über/".repeat(40)).is_dir());
    assert_eq!(done.open.folders.len(), 39);
}

#[test]
fn sparse_files_in_every_format() {
    let want = [&[0u8; 1000][..], b"data", &[0; 500], b"tail"].concat();
    let size = want.len().to_string();
    let pairs = "2\n1000\n4\n1504\n4\n";
    let mut v10 = pairs.as_bytes().to_vec();
    v10.resize(512, 0);
    v10.extend_from_slice(b"datatail");
    let v00: Vec<(&str, &[u8])> = vec![
        ("GNU.sparse.size", size.as_bytes()),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"1000"),
        ("GNU.sparse.numbytes", b"4"),
        ("GNU.sparse.offset", b"1504"),
        ("GNU.sparse.numbytes", b"4"),
    ];
    let archives = [
        Tar::default().pax(&v00).file("s", b"datatail"),
        Tar::default()
            .pax(&[
                ("GNU.sparse.size", size.as_bytes()),
                ("GNU.sparse.map", b"1000,4,1504,4"),
                ("GNU.sparse.name", b"s"),
            ])
            .file("x", b"datatail"),
        Tar::default()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", size.as_bytes()),
            ])
            .file("GNUSparseFile.1/s", &v10),
    ];
    for archive in archives {
        let out = run(&archive.file("after", b"1").end());
        assert_eq!(out.done.as_ref().map(|done| done.file_bytes).unwrap(), want.len() as u64 + 1);
        assert_eq!(std::fs::read(out.fs("s")).unwrap(), want);
        assert!(out.fs("after").exists());
    }
}

#[test]
fn the_listing_knows_every_path() {
    let out =
        run(&Tar::default().dir("d").file("d/a", b"hello").entry(b'1', "h", "d/a", 0, b"").file(".wh.w", b"").end());
    out.done.as_ref().unwrap();
    let mut lines = Vec::new();
    listing::read(File::open(out.dir.path().join("list")).unwrap(), |line| lines.push(line)).unwrap();
    let paths: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line.path()).into_owned()).collect();
    assert_eq!(paths, ["d", "d/a", "h", "w"]);
    assert!(matches!(lines[1], Line::File { size: 5, crc32, .. } if crc32 == crc32fast::hash(b"hello")));
    let bytes = std::fs::read(out.dir.path().join("list")).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        std::fs::write(out.dir.path().join("bad"), &bad).unwrap();
        assert!(listing::read(File::open(out.dir.path().join("bad")).unwrap(), |_| {}).is_err(), "flip at {at}");
    }
}

#[test]
fn a_kernel_without_openat2_is_as_strict() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("fs/d")).unwrap();
    std::os::unix::fs::symlink("..", dir.path().join("fs/d/up")).unwrap();
    for mut tree in
        [Tree::open(&dir.path().join("fs")).unwrap(), Tree::open_old_kernel(&dir.path().join("fs")).unwrap()]
    {
        let path = |text: &str| Inner::new(text.as_bytes()).unwrap();
        assert!(tree.make_file(&path("d/up/x")).is_err());
        assert!(tree.make_file(&path("d/up/d/x")).is_err());
        tree.make_file(&path("d/x")).unwrap();
        tree.remove(&path("d/x")).unwrap();
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]
    #[test]
    fn no_archive_panics_or_escapes(kind in proptest::sample::select(&b"01235678LKxgSVD\0"[..]), name in "[a./]{0,20}", link in "[a./]{0,20}", junk in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        why(&Tar::default().dir("a").entry(kind, &name, &link, 0o644, &junk).file("z", b"1").end());
    }
}
