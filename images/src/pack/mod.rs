//! Pack: folders and files become an image, the same bytes every time: entries sorted, times fixed, owners and modes as they are,
//! nothing of this machine's clock or names inside.

mod layer;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::digest::Hasher;
use crate::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_LAYER};
use crate::pull::{Taking, WantedLayer, finish, plan, take_in_all};
use crate::store::record::ImageRecord;
use crate::store::{Image, Inner, Store};
use crate::{Cancel, DiffId, Digest, Error, ImageConfig, Reference, Silent};

/// What to build.
pub struct PackSpec {
    pub config: ImageConfig,
    /// Base first.
    pub layers: Vec<PackLayer>,
    pub compression: Compression,
    /// Seconds since 1970 given to every file (SOURCE_DATE_EPOCH); `None` keeps each file's own time.
    pub mtime: Option<i64>,
}

/// Source of one layer.
pub enum PackLayer {
    /// Everything below a folder, with owners, modes and extended attributes as they are; overlayfs' whiteouts become OCI's.
    Dir(PathBuf),
    /// `(path in the image, file on this machine, mode)`, owned by root; parents are made 0755.
    Files(Vec<(String, PathBuf, u32)>),
}

/// How layers are compressed for registries and archives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    None,
    Gzip,
}

impl PackSpec {
    /// One layer of a few files, uncompressed and with all times 0: an image out of our own executable, for one.
    pub fn of_files(files: Vec<(String, PathBuf, u32)>, config: ImageConfig) -> PackSpec {
        PackSpec { config, layers: vec![PackLayer::Files(files)], compression: Compression::None, mtime: Some(0) }
    }
}

impl Store {
    /// Builds an image into the store under `reference`. The same input gives the same bytes. The layers' compressed form is kept: there
    /// is no registry to fetch it from again.
    pub fn pack(&self, reference: &Reference, spec: PackSpec, cancel: &Cancel) -> Result<Image, Error> {
        let inner = &*self.inner;
        let _writing = inner.writing()?;
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for source in &spec.layers {
            let (blob, diff_id) = blob(inner, source, &spec, cancel)?;
            layers.push(blob);
            diff_ids.push(diff_id);
        }
        let config = spec.config.document(&diff_ids);
        let digest = Digest::of(&config);
        let manifest = Manifest {
            config: Descriptor { media_type: OCI_CONFIG.to_owned(), digest, size: config.len() as u64 },
            layers,
        };
        let document = manifest.document();
        let manifest_digest = Digest::of(&document);
        let wanted = plan(&manifest, &diff_ids, &reference.to_string())?;
        let gone = |layer: &WantedLayer, _: u64| -> Result<Box<dyn Read + Send>, Error> {
            Err(Error::corrupt(format!("layer {}", layer.blob.digest), "it was just written and is gone"))
        };
        // The blobs just written serve as the source.
        let how = Taking { keep_blobs: true, spool: false, durable: true, anew: None };
        take_in_all(inner, manifest_digest, &wanted, &gone, &how, &Silent, cancel)?;
        let record = ImageRecord {
            reference: reference.to_string(),
            resolved: manifest_digest,
            manifest: manifest_digest,
            config: digest,
            platform: spec.config.platform.clone(),
            layers: diff_ids,
            since: crate::store::now(),
            local: true,
            top: None,
        };
        finish(inner, reference, record, &[document, config], true, &Silent)
    }
}

/// Writes one layer's blob into the store.
fn blob(inner: &Inner, source: &PackLayer, spec: &PackSpec, cancel: &Cancel) -> Result<(Descriptor, DiffId), Error> {
    let work = inner.layout.fresh()?;
    let part = work.0.join("blob");
    let fail = |e| Error::io("write", &part, e);
    let file = Hashed::new(BufWriter::new(File::create(&part).map_err(fail)?));
    let (diff_id, file) = match spec.compression {
        Compression::None => {
            let tar = layer::write(source, spec.mtime, Hashed::new(file), cancel)?;
            (tar.hasher.diff_id(), tar.inner)
        }
        Compression::Gzip => {
            // No name, no time, no system in the header.
            let gzip = flate2::GzBuilder::new().operating_system(255).write(file, flate2::Compression::default());
            let tar = layer::write(source, spec.mtime, Hashed::new(gzip), cancel)?;
            (tar.hasher.diff_id(), tar.inner.finish().map_err(fail)?)
        }
    };
    let Hashed { inner: out, hasher, count } = file;
    let digest = hasher.digest();
    let path = inner.layout.blob(&digest);
    let settle = || -> io::Result<()> {
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        inner.layout.settle(&part, &path)
    };
    settle().map_err(fail)?;
    let media_type = match spec.compression {
        Compression::None => OCI_LAYER.to_owned(),
        Compression::Gzip => format!("{OCI_LAYER}+gzip"),
    };
    Ok((Descriptor { media_type, digest, size: count }, diff_id))
}

/// Hashes and counts what is written.
pub(crate) struct Hashed<W> {
    inner: W,
    hasher: Hasher,
    count: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Hashed<W> {
        Hashed { inner, hasher: Hasher::default(), count: 0 }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..n).unwrap_or_default());
        self.count += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Opens a file for a message that names it.
pub(crate) fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|e| Error::io("open", path, e))
}

#[cfg(test)]
mod tests;
