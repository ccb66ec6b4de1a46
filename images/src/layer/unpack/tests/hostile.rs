//! Archives made to harm, damaged, or cut: refused by the entry's name, with nothing written outside.

use super::*;

#[test]
fn bombs_are_called_off_wherever_they_hide() {
    let bounds = Bounds { bomb_floor_bytes: 4 << 20, ..BOUNDS };
    let zeros = vec![0u8; 8 << 20];
    let head = |kind| Tar::default().file("before", b"x").entry(kind, "zeros", "", 0o755, &zeros).end();
    for (name, archive) in [
        ("a file", head(b'0')),
        ("content nobody wants", head(b'5')),
        ("behind the end", [Tar::default().file("before", b"x").end(), zeros.clone()].concat()),
    ] {
        let got = why_within(&bounds, &gzip(&archive));
        assert!(got.contains("refused") && got.contains("decompression bomb: "), "{name}: {got}");
        assert_eq!(why_within(&bounds, &archive), "unpacked", "{name}, not compressed");
    }
    // zstd says it in a few bytes: one block of 128 KiB that repeats a zero, again and again
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
    let start = Tar::default().entry(b'0', "zeros", "", 0o755, &zeros).end();
    frame.extend_from_slice(&((512u32 << 3).to_le_bytes()[..3]));
    frame.extend_from_slice(&start[..512]);
    for last in [0, 0, 0, 0].iter().chain(&[0; 60]).chain(&[1]) {
        frame.extend_from_slice(&((128u32 << 10) << 3 | 1 << 1 | last).to_le_bytes()[..3]);
        frame.push(0);
    }
    assert!(why_within(&bounds, &frame).contains("decompression bomb: "));
}

#[test]
fn entries_and_depth_have_a_limit() {
    let bounds = Bounds { entries: 5, ..BOUNDS };
    let archive = |n: u32| (0..n).fold(Tar::default(), |tar, i| tar.file(&i.to_string(), b"")).end();
    assert_eq!(why_within(&bounds, &archive(5)), "unpacked");
    assert_eq!(why_within(&bounds, &archive(6)), "layer x: refused: entry \"5\": more than 5 entries");
    let deep = Tar::default().pax(&[("path", "d/".repeat(256).as_bytes())]).dir("d").end();
    assert_eq!(why(&deep), "unpacked");
}

#[test]
fn names_that_fold_together_are_refused() {
    // What lies there under a name the archive did not use stands for what such a file system finds.
    let folding = Bounds { folds: Some(true), ..BOUNDS };
    let plain = Tar::default()
        .dir("d")
        .file("d/f", b"1")
        .file("d/f", b"2")
        .dir("d")
        .file("i/j/k", b"")
        .dir("i")
        .file("i/.wh.l", b"");
    assert_eq!(why_within(&folding, &plain.end()), "unpacked");
    for (there, archive, name) in [
        ("file", Tar::default().file("file", b"x"), "file"),
        ("dir/", Tar::default().file("dir/f", b"x"), "dir/f"),
        ("dir/sub/", Tar::default().dir("dir").file("dir/sub/f", b"x"), "dir"),
    ] {
        let got = run_beside(there, &folding, &archive.end()[..]).done.map(drop).unwrap_err().to_string();
        let want = "this file system takes its name for that of another entry";
        assert_eq!(got, format!("layer x: refused: entry {name:?}: {want}"));
    }
    assert!(!Tree::open(tempfile::tempdir().unwrap().path()).unwrap().folds_names().unwrap());
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
        let cut = bytes.len() - 9000;
        let done = run_within(&BOUNDS, Breaks(Cursor::new(bytes[..cut].to_vec()))).done;
        assert!(matches!(done, Err(Error::Network { retryable: true, .. })));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, ..Default::default() })]
    #[test]
    fn no_archive_panics_or_escapes(kind in proptest::sample::select(&b"01235678LKxgSVD\0"[..]), name in "[a./]{0,20}", link in "[a./]{0,20}", junk in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        why(&Tar::default().dir("a").entry(kind, &name, &link, 0o644, &junk).file("z", b"1").end());
    }
}
