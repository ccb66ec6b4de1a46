//! The store: images, their documents, their unpacked layers. One per `<data-dir>/images`; any number of processes share it.

pub mod disk;
pub mod gc;
mod hold;
pub mod layers;
pub mod layout;
pub mod partial;
pub mod record;
pub(crate) mod settle;
mod top;
mod usage;
mod verify;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use gc::{GcPolicy, Swept};
pub use layout::Space;
pub use usage::Usage;
pub use verify::{Damage, Part};

use crate::file::{names, read_bounded};
use crate::limits::{DOCUMENT_BYTES_MAX, RECORD_BYTES_MAX};
use crate::manifest::{self, Document, Manifest};
use crate::{Cancel, DiffId, Digest, Error, ImageConfig, Observer, Reference};
use disk::{Disk, Real};
pub(crate) use hold::Names;
use layout::{FORMAT, Layout};
use partial::SpoolPolicy;
use record::ImageRecord;

/// A handle on the store of one folder; clones share it.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What the clones share.
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    /// The kernel's boot id: layers not yet settled are good for this boot only.
    pub(crate) boot: String,
    pub(crate) spool: SpoolPolicy,
}

/// An image whose every layer is in the store.
#[derive(Clone)]
pub struct Image {
    pub reference: Reference,
    /// Digest of the configuration: the image's identity (`imageID` of a container status).
    pub id: Digest,
    /// Digest of the manifest of this platform.
    pub manifest: Digest,
    /// Digest the registry serves for the reference: the manifest's, or that of an index above it.
    pub resolved: Digest,
    /// Bytes of the files of all layers.
    pub size: u64,
    /// Base first.
    pub layers: Vec<Layer>,
    pub config: ImageConfig,
}

/// One unpacked layer: a lower folder for overlayfs.
#[derive(Clone)]
pub struct Layer {
    pub diff_id: DiffId,
    pub path: PathBuf,
}

/// Held while the store is changed: nothing is deleted meanwhile. Long work holds what it needs by name instead ([`hold`]).
pub(crate) struct Writing(#[allow(dead_code)] File);

impl Store {
    /// Opens the store in `dir`, makes it if it is not there, sweeps what a crash left.
    pub fn open(dir: &Path) -> Result<Store, Error> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        Store::open_on(Arc::new(Real), dir, boot, SpoolPolicy::default())
    }

    fn open_on(disk: Arc<dyn Disk>, dir: &Path, boot: String, spool: SpoolPolicy) -> Result<Store, Error> {
        for name in
            ["", "blobs", "images", "layers", "leases", "locks", "partial", "pins", "pulls", "signatures", "tmp"]
        {
            let path = dir.join(name);
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(&path).map_err(|e| Error::io("create", &path, e))?;
        }
        let layout = Layout { root: dir.canonicalize().map_err(|e| Error::io("open", dir, e))?, disk };
        let store = Store { inner: Arc::new(Inner { layout, boot, spool }) };
        store.inner.check_format()?;
        store.inner.sweep()?;
        store.inner.sweep_partials(false)?;
        Ok(store)
    }

    /// The image, if all of it is here.
    pub fn find(&self, reference: &Reference) -> Result<Option<Image>, Error> {
        match self.inner.image_record(reference)? {
            Some(record) => self.inner.image(&record),
            None => Ok(None),
        }
    }

    /// Every image that is whole, by reference.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let mut images = Vec::new();
        for record in self.inner.image_records()? {
            images.extend(self.inner.image(&record)?);
        }
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(images)
    }

    /// Forgets the image; its layers go with [`Store::prune`] unless another image or a lease holds them.
    pub fn remove(&self, reference: &Reference) -> Result<(), Error> {
        let path = self.inner.layout.image(reference);
        let disk = &*self.inner.layout.disk;
        match disk.unlink(&path) {
            Ok(()) => {
                self.pin(reference, false)?;
                disk.sync_folder(&self.inner.layout.dir("images")).map_err(|e| Error::io("sync", &path, e))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotFound { what: reference.to_string(), reason: "no such image in the store".to_owned() })
            }
            Err(e) => Err(Error::io("delete", &path, e)),
        }
    }

    /// Waits until every layer is known to be on the disk. Cheap when nothing is outstanding; may take seconds after a pull.
    pub fn settle(&self) -> Result<(), Error> {
        let _writing = self.inner.writing()?;
        self.inner.settle()
    }

    /// Reads everything and compares it with what was written.
    pub fn verify(&self, observer: &dyn Observer, cancel: &Cancel) -> Result<Vec<Damage>, Error> {
        verify::verify(&self.inner, observer, cancel)
    }

    /// Bytes on disk.
    pub fn usage(&self) -> Result<Usage, Error> {
        usage::usage(&self.inner)
    }
}

impl Inner {
    fn check_format(&self) -> Result<(), Error> {
        let path = self.layout.dir("FORMAT");
        match read_bounded(&path, 4096)? {
            Some(bytes) if bytes == FORMAT.as_bytes() => Ok(()),
            Some(bytes) => Err(Error::refused(
                format!("image store {}", self.layout.root.display()),
                format!(
                    "its format is {:?}, this mote knows {:?}",
                    String::from_utf8_lossy(&bytes).trim(),
                    FORMAT.trim()
                ),
            )),
            None => {
                let _writing = self.writing()?; // another process that opens the store sweeps what is half written
                self.layout.replace(&path, FORMAT.as_bytes())
            }
        }
    }

    /// Deletes what crashed work left in tmp, unless someone is at work.
    fn sweep(&self) -> Result<(), Error> {
        let dir = self.layout.dir("tmp");
        if names(&dir)?.is_empty() {
            return Ok(());
        }
        let Some(deleting) = self.deleting()? else { return Ok(()) };
        if !self.held()?.is_empty() {
            return Ok(());
        }
        let dead = names(&dir)?;
        drop(deleting); // new work takes new names
        dead.iter().try_for_each(|name| layout::remove_tree(&dir.join(name)))
    }

    fn lock_file(&self) -> Result<(PathBuf, File), Error> {
        let path = self.layout.dir("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(|e| Error::io("open", &path, e))?;
        Ok((path, file))
    }

    /// Waits while someone deletes (short), then keeps deleters out.
    pub(crate) fn writing(&self) -> Result<Writing, Error> {
        let (path, file) = self.lock_file()?;
        file.lock_shared().map_err(|e| Error::io("lock", &path, e))?;
        Ok(Writing(file))
    }

    /// Keeps writers out; `None` while there are any.
    pub(crate) fn deleting(&self) -> Result<Option<File>, Error> {
        let (path, file) = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(e)) => Err(Error::io("lock", &path, e)),
        }
    }

    pub(crate) fn image_record(&self, reference: &Reference) -> Result<Option<ImageRecord>, Error> {
        self.read_image(&self.layout.image(reference))
    }

    pub(crate) fn read_image(&self, path: &Path) -> Result<Option<ImageRecord>, Error> {
        let Some(bytes) = read_bounded(path, RECORD_BYTES_MAX)? else { return Ok(None) };
        match record::decode(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(why) => {
                log::warn!("image record {}: {why}; the image counts as absent", path.display());
                Ok(None)
            }
        }
    }

    pub(crate) fn image_records(&self) -> Result<Vec<ImageRecord>, Error> {
        let dir = self.layout.dir("images");
        let mut records = Vec::new();
        for name in names(&dir)? {
            records.extend(self.read_image(&dir.join(name))?);
        }
        Ok(records)
    }

    pub(crate) fn write_image(&self, reference: &Reference, record: &ImageRecord) -> Result<(), Error> {
        let bytes = record::encode(record).map_err(|why| Error::corrupt(reference.to_string(), why))?;
        self.layout.replace(&self.layout.image(reference), &bytes)
    }

    /// The image of a record, if its configuration and every layer are here.
    pub(crate) fn image(&self, record: &ImageRecord) -> Result<Option<Image>, Error> {
        let Some(config) = self.read_blob(&record.config)? else { return Ok(None) };
        let (config, _) = ImageConfig::parse(&config, &record.reference)?;
        let mut layers = Vec::with_capacity(record.layers.len());
        let mut size = 0u64;
        for diff_id in record.layers.iter().chain(&record.top) {
            let Some(layer) = self.layer_record(diff_id)? else { return Ok(None) };
            size = size.saturating_add(layer.file_bytes);
            layers.push(Layer { diff_id: *diff_id, path: self.layout.layer(diff_id).join("fs") });
        }
        let reference = record.reference.parse()?;
        Ok(Some(Image {
            reference,
            id: record.config,
            manifest: record.manifest,
            resolved: record.resolved,
            size,
            layers,
            config,
        }))
    }

    /// The manifest of an image, if it is here and whole.
    pub(crate) fn manifest(&self, record: &ImageRecord) -> Result<Option<Manifest>, Error> {
        let Some(bytes) = self.read_blob(&record.manifest)? else { return Ok(None) };
        match manifest::parse(&bytes, "", &record.reference)? {
            Document::Manifest(manifest) => Ok(Some(manifest)),
            Document::Index(_) => Err(Error::corrupt(record.reference.clone(), "its manifest is an index")),
        }
    }

    /// A small document, verified; a damaged one counts as absent.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let bytes = read_bounded(&self.layout.blob(digest), DOCUMENT_BYTES_MAX)?;
        Ok(bytes.filter(|bytes| Digest::of(bytes) == *digest))
    }

    pub(crate) fn write_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if self.read_blob(&digest)?.is_none() {
            self.layout.replace(&self.layout.blob(&digest), bytes)?;
        }
        Ok(digest)
    }
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod crash;
