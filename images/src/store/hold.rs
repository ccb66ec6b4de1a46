//! Who needs what: images, leases of containers, running work, pins. What nobody holds may go.
//!
//! A lease is a file that stays until it is released (a container outlives the process that started it). Work of a process holds by
//! a file it keeps locked: when the process dies, by whatever cause, the lock is gone and with it the hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::layout::layer_name;
use super::record::ImageRecord;
use super::{Image, Inner, Store};
use crate::file::{names, read_bounded};
use crate::limits::RECORD_BYTES_MAX;
use crate::{Error, Reference};

/// Names of layer folders and blobs.
#[derive(Clone, Default)]
pub struct Names {
    pub layers: BTreeSet<String>,
    pub blobs: BTreeSet<String>,
}

impl Names {
    /// All that belongs to an image; the names of its compressed layers are added by who knows them.
    pub fn of(record: &ImageRecord) -> Names {
        Names {
            layers: record.layers.iter().chain(&record.top).map(layer_name).collect(),
            blobs: [record.config, record.manifest, record.resolved].iter().map(|digest| digest.hex()).collect(),
        }
    }
}

/// Running work: what it named stays until this is dropped or the process ends.
pub(crate) struct Held {
    path: PathBuf,
    _lock: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // without its lock it means nothing
    }
}

impl Store {
    /// Keeps the layers of `image` while `owner` (a container id: letters, digits, `.`, `_`, `-`) lives, also over restarts.
    /// Idempotent. Fails if one has gone since the image was found. The image counts as used now.
    pub fn lease(&self, owner: &str, image: &Image) -> Result<(), Error> {
        let inner = &*self.inner;
        let path = inner.lease_path(owner)?;
        let _writing = inner.writing()?;
        for layer in &image.layers {
            if layer.path.symlink_metadata().is_err() {
                let reason = "it was deleted meanwhile".to_owned();
                return Err(Error::NotFound { what: format!("{}: layer {}", image.reference, layer.diff_id), reason });
            }
        }
        let names: String = image.layers.iter().map(|layer| layer_name(&layer.diff_id) + "\n").collect();
        inner.touch(&image.reference);
        // No container outlives its kernel.
        inner.layout.replace_for_now(&path, names.as_bytes())
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

    /// No sweep takes a pinned image, however full the disk is. Idempotent.
    pub fn pin(&self, reference: &Reference, pinned: bool) -> Result<(), Error> {
        let inner = &*self.inner;
        let path = inner.pin_path(reference);
        let _writing = inner.writing()?;
        if !pinned {
            return match inner.layout.disk.unlink(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("delete", &path, e)),
                _ => Ok(()),
            };
        }
        if inner.image_record(reference)?.is_none() {
            let reason = "no such image in the store".to_owned();
            return Err(Error::NotFound { what: reference.to_string(), reason });
        }
        inner.layout.replace(&path, format!("{reference}\n").as_bytes())
    }
}

impl Inner {
    fn lease_path(&self, owner: &str) -> Result<PathBuf, Error> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if owner.is_empty() || owner.len() > 200 || owner.starts_with('.') || !owner.bytes().all(fine) {
            return Err(Error::refused(format!("lease {owner:?}"), "want 1 to 200 letters, digits, '.', '_' or '-'"));
        }
        Ok(self.layout.dir("leases").join(owner))
    }

    /// Where a pin of this image lies.
    pub(crate) fn pin_path(&self, reference: &Reference) -> PathBuf {
        let image = self.layout.image(reference);
        self.layout.dir("pins").join(image.file_name().unwrap_or_default())
    }

    /// Notes that an image is used now: the time of its record. Nothing waits for the disk.
    pub(crate) fn touch(&self, reference: &Reference) {
        let touched = File::options()
            .write(true)
            .open(self.layout.image(reference))
            .and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(e) = touched
            && e.kind() != io::ErrorKind::NotFound
        {
            log::info!("note the use of {reference}: {e}");
        }
    }

    /// Holds what `names` names while the value lives. Call it with [`Inner::writing`] held, else a sweep may come in between.
    pub(crate) fn hold(&self, names: &Names) -> Result<Held, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let text: String = names.layers.iter().chain(&names.blobs).map(|name| format!("{name}\n")).collect();
        loop {
            let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = self.layout.dir("pulls").join(name);
            let mut file = match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue, // of another process of this number
                Err(e) => return Err(Error::io("create", &path, e)),
            };
            file.lock().map_err(|e| Error::io("lock", &path, e))?;
            file.write_all(text.as_bytes()).map_err(|e| Error::io("write", &path, e))?;
            return Ok(Held { path, _lock: file });
        }
    }

    /// Names that running work holds, one list each. What dead processes left is deleted.
    pub(crate) fn held(&self) -> Result<Vec<String>, Error> {
        let dir = self.layout.dir("pulls");
        let mut alive = Vec::new();
        for name in names(&dir)? {
            let path = dir.join(name);
            let Ok(file) = File::open(&path) else { continue };
            match file.try_lock() {
                Ok(()) => drop(std::fs::remove_file(&path)),
                Err(_) => alive.push(
                    String::from_utf8_lossy(&read_bounded(&path, RECORD_BYTES_MAX)?.unwrap_or_default()).into_owned(),
                ),
            }
        }
        Ok(alive)
    }

    /// Layers of running containers and running work.
    pub(crate) fn leased(&self) -> Result<Names, Error> {
        let mut all = Names::default();
        let dir = self.layout.dir("leases");
        let mut texts = self.held()?;
        for name in names(&dir)? {
            let text = read_bounded(&dir.join(name), RECORD_BYTES_MAX)?.unwrap_or_default();
            texts.push(String::from_utf8_lossy(&text).into_owned());
        }
        for name in texts.iter().flat_map(|text| text.lines()) {
            // Layers have half a digest for a name, blobs a whole one.
            if name.len() == 64 { &mut all.blobs } else { &mut all.layers }.insert(name.to_owned());
        }
        Ok(all)
    }

    /// Names of layer folders and blobs that images, leases and running work need.
    pub(crate) fn needed(&self) -> Result<Names, Error> {
        let mut all = self.leased()?;
        let compressed = self.compressed()?;
        let dir = self.layout.dir("images");
        for name in names(&dir)? {
            // A record that cannot be read (a newer version?) must not cost its layers: nothing is known to be unused then.
            let path = dir.join(&name);
            let record = self.read_image(&path)?.ok_or_else(|| {
                Error::corrupt(
                    format!("image record {}", path.display()),
                    "cannot be read; delete it, or use a newer mote",
                )
            })?;
            let own = Names::of(&record);
            all.blobs.extend(own.layers.iter().filter_map(|layer| compressed.get(layer).cloned()));
            all.layers.extend(own.layers);
            all.blobs.extend(own.blobs);
        }
        Ok(all)
    }

    /// The blob each layer came from, by the layer's name.
    pub(crate) fn compressed(&self) -> Result<BTreeMap<String, String>, Error> {
        Ok(self.layer_records()?.iter().map(|record| (layer_name(&record.diff_id), record.blob.hex())).collect())
    }
}
