//! A folder or some files as a tar: ustar headers, PAX records only where ustar cannot say it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::{PackLayer, open};
use crate::layer::entry::{Inner as InnerPath, xattr_allowed};
use crate::sys;
use crate::{Cancel, Error};

/// Values above this do not fit in the octal fields of a header.
const OCTAL_ID_MAX: u64 = 0o7777777;
const OCTAL_SIZE_MAX: u64 = 0o77777777777;
const NAME_FIELD_BYTES: usize = 100;

/// One entry before it is written.
struct Entry {
    path: Vec<u8>,
    kind: EntryType,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: i64,
    link: Vec<u8>,
    device: (u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Writes the layer's archive to `out`, gives `out` back.
pub(super) fn write<W: Write>(source: &PackLayer, mtime: Option<i64>, out: W, cancel: &Cancel) -> Result<W, Error> {
    let mut writer = Writer { out, fixed_mtime: mtime, links: HashMap::new(), cancel };
    match source {
        PackLayer::Dir(dir) => {
            let meta = std::fs::metadata(dir).map_err(|e| Error::io("stat", dir, e))?;
            if !meta.is_dir() {
                return Err(Error::refused(dir.display().to_string(), "not a folder"));
            }
            writer.folder(dir, Vec::new())?;
        }
        PackLayer::Files(files) => writer.files(files)?,
    }
    writer.out.write_all(&[0; 1024]).map_err(|e| Error::io("write", "layer archive", e))?;
    Ok(writer.out)
}

struct Writer<'a, W> {
    out: W,
    fixed_mtime: Option<i64>,
    /// First name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    cancel: &'a Cancel,
}

impl<W: Write> Writer<'_, W> {
    fn files(&mut self, files: &[(String, PathBuf, u32)]) -> Result<(), Error> {
        let mut sorted: BTreeMap<Vec<u8>, Option<(&PathBuf, u32)>> = BTreeMap::new();
        for (path, source, mode) in files {
            let inner = InnerPath::new(path.trim_start_matches('/').as_bytes())
                .map_err(|why| Error::refused(path.clone(), why))?;
            let mut parent = inner.split().0;
            while !parent.is_root() {
                sorted.entry(parent.bytes().to_vec()).or_insert(None);
                parent = parent.split().0;
            }
            sorted.insert(inner.bytes().to_vec(), Some((source, *mode)));
        }
        for (path, file) in sorted {
            let mtime = self.fixed_mtime.unwrap_or(0);
            let mut entry = Entry {
                path,
                kind: EntryType::Directory,
                mode: 0o755,
                uid: 0,
                gid: 0,
                size: 0,
                mtime,
                link: Vec::new(),
                device: (0, 0),
                xattrs: BTreeMap::new(),
            };
            match file {
                None => self.entry(entry, None)?,
                Some((source, mode)) => {
                    let meta = std::fs::metadata(source).map_err(|e| Error::io("stat", source, e))?;
                    if !meta.is_file() {
                        return Err(Error::refused(source.display().to_string(), "not a regular file"));
                    }
                    (entry.kind, entry.mode, entry.size) = (EntryType::Regular, mode & 0o7777, meta.len());
                    entry.mtime = self.fixed_mtime.unwrap_or(meta.mtime());
                    self.entry(entry, Some(source))?;
                }
            }
        }
        Ok(())
    }

    /// A folder, then what is in it, by name. Depth is bounded by PATH_MAX.
    fn folder(&mut self, dir: &Path, path: Vec<u8>) -> Result<(), Error> {
        self.cancel.check()?;
        self.node(dir, path.clone())?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))? {
            names.push(entry.map_err(|e| Error::io("read", dir, e))?.file_name());
        }
        names.sort();
        for name in names {
            let mut inner = path.clone();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(name.as_bytes());
            let source = dir.join(&name);
            let meta = source.symlink_metadata().map_err(|e| Error::io("stat", &source, e))?;
            if meta.is_dir() { self.folder(&source, inner)? } else { self.node(&source, inner)? }
        }
        Ok(())
    }

    fn node(&mut self, source: &Path, path: Vec<u8>) -> Result<(), Error> {
        let meta = source.symlink_metadata().map_err(|e| Error::io("stat", source, e))?;
        let kind = meta.file_type();
        let mut entry = Entry {
            kind: EntryType::Regular,
            mode: meta.mode() & 0o7777,
            uid: meta.uid().into(),
            gid: meta.gid().into(),
            size: 0,
            mtime: self.fixed_mtime.unwrap_or(meta.mtime()),
            link: Vec::new(),
            device: (0, 0),
            xattrs: xattrs(source)?,
            path,
        };
        let opaque = entry.xattrs.remove(&b"trusted.overlay.opaque"[..]).is_some_and(|value| value == b"y");
        entry.xattrs.retain(|name, _| xattr_allowed(name));
        if kind.is_dir() {
            entry.kind = EntryType::Directory;
            let folder = entry.path.clone();
            self.entry(entry, None)?;
            return if opaque { self.whiteout(&folder, b".wh..wh..opq") } else { Ok(()) };
        }
        if kind.is_socket() {
            return Ok(()); // means nothing in an image
        }
        if kind.is_char_device() && meta.rdev() == 0 {
            let (folder, name) = split(&entry.path);
            return self.whiteout(folder, &[b".wh.", name].concat());
        }
        if meta.nlink() > 1 {
            let first = self.links.entry((meta.dev(), meta.ino())).or_insert_with(|| entry.path.clone());
            if *first != entry.path {
                (entry.kind, entry.link, entry.xattrs) = (EntryType::Link, first.clone(), BTreeMap::new());
                return self.entry(entry, None);
            }
        }
        let device = (nix::sys::stat::major(meta.rdev()) as u32, nix::sys::stat::minor(meta.rdev()) as u32);
        if kind.is_symlink() {
            let target = std::fs::read_link(source).map_err(|e| Error::io("read link", source, e))?;
            (entry.kind, entry.link, entry.mode) = (EntryType::Symlink, target.as_os_str().as_bytes().to_vec(), 0o777);
        } else if kind.is_char_device() {
            (entry.kind, entry.device) = (EntryType::Char, device);
        } else if kind.is_block_device() {
            (entry.kind, entry.device) = (EntryType::Block, device);
        } else if kind.is_fifo() {
            entry.kind = EntryType::Fifo;
        } else {
            entry.size = meta.len();
            return self.entry(entry, Some(source));
        }
        self.entry(entry, None)
    }

    fn whiteout(&mut self, folder: &[u8], name: &[u8]) -> Result<(), Error> {
        let path = if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() };
        let mtime = self.fixed_mtime.unwrap_or(0);
        let entry = Entry {
            path,
            kind: EntryType::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime,
            link: vec![],
            device: (0, 0),
            xattrs: BTreeMap::new(),
        };
        self.entry(entry, None)
    }

    fn entry(&mut self, mut entry: Entry, content: Option<&Path>) -> Result<(), Error> {
        self.cancel.check()?;
        if entry.kind == EntryType::Directory {
            if entry.path.is_empty() {
                entry.path = b".".to_vec();
            }
            entry.path.push(b'/');
        }
        let text = String::from_utf8_lossy(&entry.path).into_owned();
        let fail = |e: io::Error| Error::io("pack", &text, e);
        let records = pax_records(&entry);
        if !records.is_empty() {
            let mut header = header(&Entry {
                path: b"pax".to_vec(),
                kind: EntryType::XHeader,
                size: records.len() as u64,
                mode: 0o644,
                link: vec![],
                ..entry_like(&entry)
            });
            header.set_cksum();
            self.out.write_all(header.as_bytes()).and_then(|()| self.padded(&records)).map_err(fail)?;
        }
        let mut header = header(&entry);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(fail)?;
        let Some(source) = content else { return Ok(()) };
        let mut file = open(source)?;
        let copied = io::copy(&mut (&mut file).take(entry.size), &mut self.out).map_err(fail)?;
        // The header with the size is out already.
        if copied != entry.size || file.read(&mut [0]).map_err(fail)? != 0 {
            return Err(Error::corrupt(text, "the file's size changed while it was packed"));
        }
        self.pad(copied).map_err(fail)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let rest = usize::try_from(written.wrapping_neg() % 512).unwrap_or(0);
        self.out.write_all([0u8; 512].get(..rest).unwrap_or_default())
    }
}

fn entry_like(entry: &Entry) -> Entry {
    Entry {
        path: vec![],
        kind: entry.kind,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: entry.mtime,
        link: vec![],
        device: (0, 0),
        xattrs: BTreeMap::new(),
    }
}

/// The ustar header; what does not fit is cut, and in the PAX records whole.
fn header(entry: &Entry) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.min(OCTAL_ID_MAX));
    header.set_gid(entry.gid.min(OCTAL_ID_MAX));
    header.set_size(entry.size.min(OCTAL_SIZE_MAX));
    header.set_mtime(u64::try_from(entry.mtime).unwrap_or(0));
    // Only a GNU header has no device fields; this one is ustar.
    let _ = header.set_device_major(entry.device.0);
    let _ = header.set_device_minor(entry.device.1);
    let old = header.as_old_mut();
    old.name.iter_mut().zip(&entry.path).for_each(|(to, from)| *to = *from);
    old.linkname.iter_mut().zip(&entry.link).for_each(|(to, from)| *to = *from);
    header
}

fn pax_records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| {
        // The length counts itself.
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        records.extend_from_slice(format!("{length} ").as_bytes());
        records.extend_from_slice(key);
        records.push(b'=');
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    if entry.path.len() > NAME_FIELD_BYTES || !entry.path.is_ascii() {
        add(b"path", &entry.path);
    }
    if entry.link.len() > NAME_FIELD_BYTES || !entry.link.is_ascii() {
        add(b"linkpath", &entry.link);
    }
    if entry.uid > OCTAL_ID_MAX {
        add(b"uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > OCTAL_ID_MAX {
        add(b"gid", entry.gid.to_string().as_bytes());
    }
    if entry.size > OCTAL_SIZE_MAX {
        add(b"size", entry.size.to_string().as_bytes());
    }
    if entry.mtime < 0 {
        add(b"mtime", entry.mtime.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

fn xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    let fail = |e: io::Error| Error::io("read attributes of", path, e);
    let text = CString::new(path.as_os_str().as_bytes()).map_err(|e| fail(e.into()))?;
    let mut found = BTreeMap::new();
    let names = match sys::llistxattr(&text) {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(found),
        done => done.map_err(fail)?,
    };
    for name in names {
        let key = CString::new(name.as_slice()).map_err(|e| fail(e.into()))?;
        match sys::lgetxattr(&text, &key) {
            Ok(value) => drop(found.insert(name, value)),
            Err(e) if e.raw_os_error() == Some(libc::ENODATA) => {} // gone meanwhile
            Err(e) => return Err(fail(e)),
        }
    }
    Ok(found)
}
