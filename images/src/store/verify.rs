//! Finds damage without a network: documents by their digest, layers by their listing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::Inner;
use super::record::{ImageRecord, LayerRecord};
use crate::digest::Hasher;
use crate::file::names;
use crate::layer::listing::{self, Line};
use crate::limits::STAGE_BUFFER_BYTES;
use crate::{Cancel, DiffId, Digest, Error, Observer, Progress};

/// Findings per layer that are listed; beyond it the layer is lost anyway.
const FINDINGS_MAX: usize = 20;

/// What `verify` found wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    pub part: Part,
    pub why: String,
}

/// A part of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// By its reference.
    Image(String),
    Layer(DiffId),
    /// By 64 hex digits (or whatever name it has).
    Blob(String),
    /// The beginning of a compressed layer, by the same name.
    Partial(String),
    /// What says which image a reference is, by its file: the reference is lost with it.
    Record(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Image(reference) => write!(f, "image {reference}"),
            Part::Layer(diff_id) => write!(f, "layer {diff_id}"),
            Part::Blob(hex) => write!(f, "blob sha256:{hex}"),
            Part::Partial(hex) => write!(f, "partial layer sha256:{hex}"),
            Part::Record(name) => write!(f, "image record {name}"),
        }
    }
}

pub(super) fn verify(inner: &Inner, observer: &dyn Observer, cancel: &Cancel) -> Result<Vec<Damage>, Error> {
    let mut damage = Vec::new();
    let dir = inner.layout.dir("blobs");
    for name in names(&dir)? {
        cancel.check()?;
        match hash(&dir.join(&name), cancel) {
            Ok(digest) if digest.hex() == name => {}
            Ok(_) => damage.push(Damage { part: Part::Blob(name), why: "its bytes have another digest".to_owned() }),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(e) => damage.push(Damage { part: Part::Blob(name), why: e.to_string() }),
        }
    }
    for (name, why) in inner.damaged_partials()? {
        damage.push(Damage { part: Part::Partial(name), why });
    }
    for (index, record) in inner.layer_records()?.iter().enumerate() {
        if !inner.is_settled(record) {
            continue; // counts as absent: a power cut may have taken parts of it
        }
        for why in layer(inner, record, cancel)? {
            damage.push(Damage { part: Part::Layer(record.diff_id), why });
        }
        observer.event(Progress::Extracted { index, diff_id: record.diff_id, bytes: record.file_bytes });
    }
    for name in names(&inner.layout.dir("images"))? {
        if inner.read_image(&inner.layout.dir("images").join(&name))?.is_none() {
            damage.push(Damage { part: Part::Record(name), why: "it cannot be read".to_owned() });
        }
    }
    for record in inner.image_records()? {
        damage.extend(image(inner, &record));
    }
    Ok(damage)
}

/// What an image lacks.
fn image(inner: &Inner, record: &ImageRecord) -> Option<Damage> {
    let found = |why: String| Some(Damage { part: Part::Image(record.reference.clone()), why });
    match inner.image(record) {
        // A damaged document was found among the blobs.
        Ok(Some(_)) => {
            let documents = [record.manifest, record.resolved];
            let lost = documents.iter().find(|digest| inner.layout.blob(digest).symlink_metadata().is_err());
            lost.and_then(|digest| found(format!("its document {digest} is missing")))
        }
        Ok(None) => found("a layer or its configuration is missing".to_owned()),
        Err(e) => found(e.to_string()),
    }
}

fn hash(path: &Path, cancel: &Cancel) -> Result<Digest, Error> {
    let mut hasher = Hasher::default();
    read_through(path, cancel, |bytes| hasher.update(bytes))?;
    Ok(hasher.digest())
}

fn read_through(path: &Path, cancel: &Cancel, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut buffer = vec![0; STAGE_BUFFER_BYTES];
    loop {
        cancel.check()?;
        match file.read(&mut buffer).map_err(|e| Error::io("read", path, e))? {
            0 => return Ok(()),
            n => each(buffer.get(..n).unwrap_or_default()),
        }
    }
}

/// What differs between a layer's folder and its listing.
fn layer(inner: &Inner, record: &LayerRecord, cancel: &Cancel) -> Result<Vec<String>, Error> {
    let dir = inner.layout.layer(&record.diff_id);
    let mut lines: BTreeMap<Vec<u8>, Line> = BTreeMap::new();
    let list = match File::open(dir.join("list")) {
        Ok(list) => list,
        Err(e) => return Ok(vec![format!("its listing cannot be read: {e}")]),
    };
    let listed = listing::read(list, |line| match line {
        Line::Gone { path } => lines.retain(|known, _| {
            known != &path && known.strip_prefix(path.as_slice()).is_none_or(|rest| rest.first() != Some(&b'/'))
        }),
        line => drop(lines.insert(line.path().to_vec(), line)),
    });
    if let Err(e) = listed {
        return Ok(vec![format!("its listing is damaged: {e}")]);
    }
    let fs = dir.join("fs");
    let mut findings = Vec::new();
    if let Err(e) = inner.left_open(record) {
        findings.push(format!("what it leaves open: {e}"));
    }
    for (path, line) in &lines {
        cancel.check()?;
        if let Some(why) = differs(&fs, line, cancel)? {
            findings.push(format!("{}: {why}", String::from_utf8_lossy(path)));
        }
        if findings.len() >= FINDINGS_MAX {
            findings.push("and more".to_owned());
            return Ok(findings);
        }
    }
    unknown(&fs, &lines, &mut findings)?;
    Ok(findings)
}

fn at(fs: &Path, path: &[u8]) -> std::path::PathBuf {
    if path.is_empty() { fs.to_owned() } else { fs.join(std::ffi::OsStr::from_bytes(path)) }
}

fn differs(fs: &Path, line: &Line, cancel: &Cancel) -> Result<Option<String>, Error> {
    let path = at(fs, line.path());
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) => return Ok(Some(e.to_string())),
    };
    let owner = |mode: u32, uid: u32, gid: u32| (meta.mode(), meta.uid(), meta.gid()) != (mode, uid, gid);
    Ok(match line {
        Line::File { mode, uid, gid, size, crc32, .. } => {
            if owner(*mode, *uid, *gid) {
                Some("mode or owner changed".to_owned())
            } else if meta.len() != *size {
                Some(format!("{} bytes, should be {size}", meta.len()))
            } else {
                let mut crc = crc32fast::Hasher::new();
                match read_through(&path, cancel, |bytes| crc.update(bytes)) {
                    Ok(()) => (crc.finalize() != *crc32).then(|| "content changed".to_owned()),
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(e) => Some(e.to_string()),
                }
            }
        }
        Line::Node { mode, uid, gid, device, .. } => {
            let is_device = meta.file_type().is_char_device() || meta.file_type().is_block_device();
            (owner(*mode, *uid, *gid) || (is_device && meta.rdev() != *device))
                .then(|| "kind, mode or owner changed".to_owned())
        }
        Line::Symlink { uid, gid, target, .. } => {
            let same = std::fs::read_link(&path).is_ok_and(|found| found.as_os_str().as_bytes() == target.as_slice());
            (!same || meta.uid() != *uid || meta.gid() != *gid).then(|| "target or owner changed".to_owned())
        }
        Line::Hardlink { target, .. } => {
            let same = at(fs, target).symlink_metadata().is_ok_and(|other| other.ino() == meta.ino());
            // The target may have been replaced later in the archive; then this name is the only one left, which is right.
            (!same && meta.nlink() > 1).then(|| "no longer the same file as its hard link".to_owned())
        }
        Line::Gone { .. } => None,
    })
}

/// Files nobody listed.
fn unknown(fs: &Path, lines: &BTreeMap<Vec<u8>, Line>, findings: &mut Vec<String>) -> Result<(), Error> {
    let mut todo = vec![Vec::new()];
    while let Some(folder) = todo.pop() {
        let path = at(fs, &folder);
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("read", &path, e))?;
            let mut name = folder.clone();
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend_from_slice(entry.file_name().as_bytes());
            if !lines.contains_key(&name) {
                findings.push(format!("{}: not part of the layer", String::from_utf8_lossy(&name)));
                if findings.len() > FINDINGS_MAX {
                    return Ok(());
                }
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(name);
            }
        }
    }
    Ok(())
}
