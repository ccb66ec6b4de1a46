use std::ffi::{CStr, CString};
use std::io::{Cursor, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::*;
use crate::layer::listing;

mod hostile;

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
    fn xattr(&self, path: &str, name: &CStr) -> Option<Vec<u8>> {
        let path = CString::new(self.fs(path).into_os_string().into_vec()).unwrap();
        crate::sys::lgetxattr(&path, name).ok()
    }
    /// Folders that only the layers below can describe.
    fn open_folders(&self) -> Vec<String> {
        self.done.as_ref().unwrap().open.folders.iter().map(Inner::text).collect()
    }
}

fn run(bytes: &[u8]) -> Out {
    run_within(&BOUNDS, bytes)
}

fn run_within(bounds: &Bounds, bytes: impl Read + Send) -> Out {
    run_beside("", bounds, bytes)
}

/// Into a folder in which this folder is already.
fn run_beside(there: &str, bounds: &Bounds, bytes: impl Read + Send) -> Out {
    let dir = tempfile::tempdir().unwrap();
    let fs = dir.path().join("fs");
    std::fs::create_dir_all(fs.join(there)).unwrap();
    let list = File::create(dir.path().join("list")).unwrap();
    let onto = Onto { what: "layer x", fs: &fs, list, progress: &|_| {}, cancel: &Cancel::default() };
    let done = unpack_within(bounds, bytes, onto);
    Out { dir, done }
}

/// The verdict, which must be the same with openat2 and without.
fn why(bytes: &[u8]) -> String {
    let verdict = why_within(&BOUNDS, bytes);
    assert_eq!(why_within(&Bounds { openat2: false, ..BOUNDS }, bytes), verdict, "on an old kernel");
    verdict
}

fn why_within(bounds: &Bounds, bytes: &[u8]) -> String {
    let out = run_within(bounds, bytes);
    let outside: Vec<_> = std::fs::read_dir(out.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "something was written outside: {outside:?}");
    match out.done {
        Ok(_) => "unpacked".to_owned(),
        Err(e) => e.to_string(),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a folder's own set-gid bit gives a new file, and what the umask takes from it, is not what the archive says.
#[test]
fn owner_and_mode_are_the_archives() {
    let shared = Tar::default().pax(&[("gid", b"50")]).entry(b'5', "shared", "", 0o2777, b"");
    let out = run(&[0o644, 0o666, 0o777, 0o4711, 0o1600, 0]
        .iter()
        .fold(shared, |tar, mode| tar.entry(b'0', &format!("shared/{mode:o}"), "", *mode, b"x"))
        .end());
    assert!(out.done.is_ok());
    assert_eq!(out.fs("shared").metadata().unwrap().gid(), 50);
    for entry in std::fs::read_dir(out.fs("shared")).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let want = (0, 0, u32::from_str_radix(entry.file_name().to_str().unwrap(), 8).unwrap());
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), want);
    }
}

#[test]
fn both_digests_cover_every_byte_however_compressed() {
    let plain = [Tar::default().file("a", b"x").end(), b"behind the end".to_vec()].concat();
    for blob in [plain.clone(), gzip(&plain), [gzip(&plain[..700]), gzip(&plain[700..])].concat()] {
        let done = run(&blob).done.unwrap();
        assert_eq!((done.digest, done.diff_id), (Digest::of(&blob), DiffId::of_plain(Digest::of(&plain))));
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
    let opaque = |path: &str| out.xattr(path, c"trusted.overlay.opaque").is_some_and(|value| value == b"y");
    let whiteout = |path: &str| {
        std::fs::symlink_metadata(out.fs(path)).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
    };
    assert!(opaque("d") && opaque("dir") && opaque("dir2"));
    assert!(!opaque("") && !opaque("deep"));
    assert!(whiteout("gone") && whiteout("deep/down/x"));
    assert_eq!(std::fs::read(out.fs("again")).unwrap(), b"new");
    assert_eq!(std::fs::read(out.fs("before")).unwrap(), b"new");
    assert!(out.fs("d/kept").exists() && out.fs("dir2/x").exists() && !out.fs(".wh..wh.plnk").exists());
    assert_eq!(out.open_folders(), ["/", "deep", "deep/down"]);
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
    assert_eq!(out.open_folders(), ["/", "o"]);
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
    assert_eq!(out.xattr("d/suid", c"user.a").unwrap(), b"1\n\0");
    assert!(out.xattr("d/suid", c"trusted.overlay.redirect").is_none());
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
