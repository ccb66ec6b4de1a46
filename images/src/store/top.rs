//! The top layer of an image: what its layers leave open ([`crate::layer::open`]), answered. Few images need one. It consists of folders
//! with attributes and of hard links into the layers, so it costs no space; it is made from what is here, and made anew when lost. Its
//! name is the chain of the layers, so images with the same layers share it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Inner;
use super::record::LayerRecord;
use crate::digest::Hasher;
use crate::layer::entry::Inner as InnerPath;
use crate::layer::listing::{Line, Writer};
use crate::layer::open::Open;
use crate::layer::stack::{Found, Plan, Stack, plan};
use crate::layer::tree::{Attributes, Occupant, Tree};
use crate::limits::STAGE_BUFFER_BYTES;
use crate::{Cancel, DiffId, Digest, Error};

impl Inner {
    /// Makes the top layer that these layers (base first, all here) need, if they need one. Waits for the disk only if they did.
    pub(crate) fn settle_top(&self, what: &str, layers: &[DiffId]) -> Result<Option<DiffId>, Error> {
        let (mut open, mut durable) = (Vec::with_capacity(layers.len()), true);
        for diff_id in layers {
            let lost = || Error::corrupt(what, format!("layer {diff_id} vanished while the image was taken in"));
            let record = self.layer_record(diff_id)?.ok_or_else(lost)?;
            durable &= record.volatile_since.is_empty();
            open.push(self.left_open(&record)?);
        }
        // The base's own folders have nothing below them.
        if open.iter().enumerate().all(|(layer, open)| open.links.is_empty() && (layer == 0 || open.folders.is_empty()))
        {
            return Ok(None);
        }
        let top = name(layers);
        let _lock = self.lock_layer(&top, &Cancel::default())?;
        if self.layer_record(&top)?.is_some() {
            return Ok(Some(top));
        }
        let mut seen = Folders { trees: Vec::with_capacity(layers.len()), known: HashMap::new() };
        for diff_id in layers {
            let fs = self.layout.layer(diff_id).join("fs");
            seen.trees.push(Tree::open(&fs).map_err(|e| Error::io("open", &fs, e))?);
        }
        let plan = plan(&open, &mut seen).map_err(|e| Error::refused(what, e.to_string()))?;
        if plan.is_empty() {
            return Ok(None);
        }
        let work = self.layout.fresh()?;
        let entries = (plan.folders.len() + plan.links.len()) as u64;
        make(&work.0, &plan, &mut seen).map_err(|e| Error::io("make the top layer in", &work.0, e))?;
        let record = LayerRecord {
            diff_id: top,
            blob: Digest::of(b""),
            blob_bytes: 0,
            file_bytes: 0,
            entries,
            open: false,
            volatile_since: if durable { String::new() } else { self.boot.clone() },
        };
        self.place(&work.0, &record)?;
        Ok(Some(top))
    }

    /// What a layer leaves open.
    pub(super) fn left_open(&self, record: &LayerRecord) -> Result<Open, Error> {
        let path = self.layout.layer(&record.diff_id).join("open");
        match File::open(&path) {
            Ok(file) => Open::read(file).map_err(|e| Error::corrupt(path.display().to_string(), e.to_string())),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !record.open => Ok(Open::default()),
            Err(e) => Err(Error::io("open", &path, e)),
        }
    }
}

/// The chain of layers as a name; no archive hashes to it.
fn name(layers: &[DiffId]) -> DiffId {
    let mut hasher = Hasher::default();
    hasher.update(b"mote top layer 1\n");
    for diff_id in layers {
        hasher.update(diff_id.hex().as_bytes());
    }
    hasher.diff_id()
}

/// The layers' folders on disk. What is known of a folder is kept: the same parents come again and again.
struct Folders {
    trees: Vec<Tree>,
    known: HashMap<(usize, InnerPath), Way>,
}

/// What a folder means for the paths in it.
#[derive(Clone, PartialEq)]
enum Way {
    /// It is there; whether it or one above it is opaque.
    Folder { hides: bool },
    /// It is not: this is found at every path in it.
    Gone(Found),
}

impl Folders {
    fn way(&mut self, layer: usize, folder: &InnerPath) -> io::Result<Way> {
        let key = (layer, folder.clone());
        if let Some(way) = self.known.get(&key) {
            return Ok(way.clone());
        }
        let above = if folder.is_root() { Way::Folder { hides: false } } else { self.way(layer, &folder.split().0)? };
        let way = match above {
            Way::Gone(found) => Way::Gone(found),
            Way::Folder { hides } => match self.tree(layer)?.is_opaque(folder) {
                Ok(opaque) => Way::Folder { hides: hides || opaque },
                Err(e) => match e.raw_os_error() {
                    Some(libc::ENOENT) => Way::Gone(if hides { Found::Hidden } else { Found::Nothing }),
                    Some(libc::ENOTDIR | libc::ELOOP) => Way::Gone(Found::Hidden),
                    _ => return Err(e),
                },
            },
        };
        self.known.insert(key, way.clone());
        Ok(way)
    }

    fn tree(&mut self, layer: usize) -> io::Result<&mut Tree> {
        self.trees.get_mut(layer).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Stack for Folders {
    fn look(&mut self, layer: usize, path: &InnerPath) -> io::Result<Found> {
        let above = if path.is_root() { Way::Folder { hides: false } } else { self.way(layer, &path.split().0)? };
        let hidden = match above {
            Way::Gone(found) => return Ok(found),
            Way::Folder { hides } => hides,
        };
        let tree = self.tree(layer)?;
        Ok(match tree.occupant(path)? {
            Occupant::Nothing if hidden => Found::Hidden,
            Occupant::Nothing => Found::Nothing,
            Occupant::Whiteout => Found::Whiteout,
            Occupant::Other => Found::Other,
            Occupant::Dir => Found::Dir { fresh: hidden, attributes: tree.folder_attributes(path)? },
        })
    }
}

/// Writes the folder `fs` and its listing into `work`.
fn make(work: &Path, plan: &Plan, from: &mut Folders) -> io::Result<()> {
    let fs = work.join("fs");
    std::fs::create_dir(&fs)?;
    let mut tree = Tree::open(&fs)?;
    let mut list = Writer::new(File::create(work.join("list"))?)?;
    for (path, attributes) in &plan.folders {
        if !path.is_root() {
            tree.make_dir(path)?;
        }
        tree.dir_attributes(path, attributes)?;
        let Attributes { mode, uid, gid, .. } = *attributes;
        list.line(&Line::Node { path: path.bytes().to_vec(), mode: libc::S_IFDIR | mode, uid, gid, device: 0 })?;
    }
    for (path, (layer, target)) in &plan.links {
        tree.adopt(path, from.tree(*layer)?, target)?;
        list.line(&line(&fs, path)?)?;
    }
    for (path, attributes) in &plan.folders {
        tree.dir_mtime(path, attributes.mtime)?;
    }
    list.finish()
}

/// The listing's line about a file that is there.
fn line(fs: &Path, path: &InnerPath) -> io::Result<Line> {
    let at = fs.join(std::ffi::OsStr::from_bytes(path.bytes()));
    let meta = at.symlink_metadata()?;
    let (path, mode, uid, gid) = (path.bytes().to_vec(), meta.mode(), meta.uid(), meta.gid());
    Ok(if meta.is_symlink() {
        Line::Symlink { path, uid, gid, target: std::fs::read_link(&at)?.as_os_str().as_bytes().to_vec() }
    } else if meta.is_file() {
        let mut crc = crc32fast::Hasher::new();
        let mut file = File::open(&at)?;
        let mut buffer = vec![0; STAGE_BUFFER_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => crc.update(buffer.get(..n).unwrap_or_default()),
            }
        }
        Line::File { path, mode, uid, gid, size: meta.len(), crc32: crc.finalize() }
    } else {
        Line::Node { path, mode, uid, gid, device: meta.rdev() }
    })
}

#[cfg(test)]
mod tests;
