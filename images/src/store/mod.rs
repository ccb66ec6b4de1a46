//! The store: images, their documents, their unpacked layers. One per `<data-dir>/images`; any number of processes share it.

pub mod layers;
pub mod layout;
pub mod record;
mod top;
mod usage;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use usage::Usage;
pub use verify::Damage;

use crate::limits::{DOCUMENT_BYTES_MAX, RECORD_BYTES_MAX};
use crate::{Cancel, DiffId, Digest, Error, ImageConfig, Observer, PullOptions, Reference};
use layout::{FORMAT, Layout, layer_name};
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

/// Held while something is written into the store: nothing is deleted meanwhile.
pub(crate) struct Writing(#[allow(dead_code)] File);

impl Store {
    /// Opens the store in `dir`, makes it if it is not there, sweeps what a crash left.
    pub fn open(dir: &Path) -> Result<Store, Error> {
        for name in ["", "blobs", "images", "layers", "leases", "locks", "signatures", "tmp"] {
            let path = dir.join(name);
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(&path).map_err(|e| Error::io("create", &path, e))?;
        }
        let layout = Layout { root: dir.canonicalize().map_err(|e| Error::io("open", dir, e))? };
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let store = Store { inner: Arc::new(Inner { layout, boot }) };
        store.inner.check_format()?;
        store.inner.sweep()?;
        Ok(store)
    }

    /// The image, if all of it is here.
    pub fn find(&self, reference: &Reference) -> Result<Option<Image>, Error> {
        match self.inner.image_record(reference)? {
            Some(record) => self.inner.image(&record),
            None => Ok(None),
        }
    }

    /// Makes the image be here: asks the registry, fetches and unpacks what is missing.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Image, Error> {
        crate::pull::pull(self, reference, options, observer, cancel)
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
        match std::fs::remove_file(&path) {
            Ok(()) => layout::sync_dir(&self.inner.layout.dir("images")).map_err(|e| Error::io("sync", &path, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotFound { what: reference.to_string(), reason: "no such image in the store".to_owned() })
            }
            Err(e) => Err(Error::io("delete", &path, e)),
        }
    }

    /// Keeps the layers of `image` while `owner` (a container id: letters, digits, `.`, `_`, `-`) lives, also over restarts. Idempotent.
    pub fn lease(&self, owner: &str, image: &Image) -> Result<(), Error> {
        let path = self.inner.lease_path(owner)?;
        let names: String = image.layers.iter().map(|layer| layer_name(&layer.diff_id) + "\n").collect();
        // No container outlives its kernel.
        self.inner.layout.replace_for_now(&path, names.as_bytes())
    }

    /// Ends a lease; no error if there was none.
    pub fn release(&self, owner: &str) -> Result<(), Error> {
        let path = self.inner.lease_path(owner)?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("delete", &path, e)),
            _ => Ok(()),
        }
    }

    /// Owners of all leases.
    pub fn leases(&self) -> Result<Vec<String>, Error> {
        names(&self.inner.layout.dir("leases"))
    }

    /// Deletes layers and blobs that no image and no lease needs; bytes freed. Waits for nobody: refused while something is written.
    pub fn prune(&self) -> Result<u64, Error> {
        let _deleting = self.inner.deleting()?.ok_or_else(|| Error::InUse {
            what: "image store".to_owned(),
            by: "a running pull, import or pack".to_owned(),
        })?;
        let (layers, blobs) = self.inner.needed()?;
        let mut freed = 0;
        let dir = self.inner.layout.dir("layers");
        for name in names(&dir)? {
            if !layers.contains(&name) {
                freed += usage::disk_bytes(&dir.join(&name))?;
                self.inner.discard(&dir.join(&name))?;
            }
        }
        for dir in [self.inner.layout.dir("blobs"), self.inner.layout.dir("signatures")] {
            for name in names(&dir)? {
                if !blobs.contains(&name) {
                    let path = dir.join(&name);
                    freed += usage::disk_bytes(&path)?;
                    std::fs::remove_file(&path).map_err(|e| Error::io("delete", &path, e))?;
                }
            }
        }
        Ok(freed)
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
            None => self.layout.replace(&path, FORMAT.as_bytes()),
        }
    }

    /// Deletes what crashed work left in tmp, unless someone is at work.
    fn sweep(&self) -> Result<(), Error> {
        let dir = self.layout.dir("tmp");
        if names(&dir)?.is_empty() {
            return Ok(());
        }
        let Some(_deleting) = self.deleting()? else { return Ok(()) };
        names(&dir)?.iter().try_for_each(|name| layers::remove_tree(&dir.join(name)))
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
    fn deleting(&self) -> Result<Option<File>, Error> {
        let (path, file) = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(e)) => Err(Error::io("lock", &path, e)),
        }
    }

    fn lease_path(&self, owner: &str) -> Result<PathBuf, Error> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if owner.is_empty() || owner.len() > 200 || owner.starts_with('.') || !owner.bytes().all(fine) {
            return Err(Error::refused(format!("lease {owner:?}"), "want 1 to 200 letters, digits, '.', '_' or '-'"));
        }
        Ok(self.layout.dir("leases").join(owner))
    }

    pub(crate) fn image_record(&self, reference: &Reference) -> Result<Option<ImageRecord>, Error> {
        self.read_image(&self.layout.image(reference))
    }

    fn read_image(&self, path: &Path) -> Result<Option<ImageRecord>, Error> {
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

    /// Names of layer folders and blobs that images and leases need.
    pub(crate) fn needed(&self) -> Result<(BTreeSet<String>, BTreeSet<String>), Error> {
        let (mut layers, mut blobs) = (BTreeSet::new(), BTreeSet::new());
        let dir = self.layout.dir("images");
        let mut by_layer = BTreeMap::new();
        for record in self.layer_records()? {
            by_layer.insert(record.diff_id, record.blob.hex());
        }
        for name in names(&dir)? {
            // A record that cannot be read (a newer version?) must not cost its layers: nothing is known to be unused then.
            let path = dir.join(&name);
            let record = self.read_image(&path)?.ok_or_else(|| {
                Error::corrupt(
                    format!("image record {}", path.display()),
                    "cannot be read; delete it, or use a newer mote",
                )
            })?;
            layers.extend(record.layers.iter().chain(&record.top).map(layer_name));
            blobs.extend([record.config.hex(), record.manifest.hex(), record.resolved.hex()]);
            blobs.extend(record.layers.iter().filter_map(|diff_id| by_layer.get(diff_id).cloned()));
        }
        let dir = self.layout.dir("leases");
        for name in names(&dir)? {
            let text = read_bounded(&dir.join(name), RECORD_BYTES_MAX)?.unwrap_or_default();
            layers.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
        Ok((layers, blobs))
    }
}

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Names in a folder, sorted; names that are no UTF-8 are none of ours.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))? {
        let entry = entry.map_err(|e| Error::io("read", dir, e))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// A small file; `None` if it is not there (or cannot be told from garbage by its length).
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > max {
        Err(Error::refused(path.display().to_string(), format!("longer than {max} bytes")))
    } else {
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests;
