//! What is finished gets its place, for good: the bytes first, one wait for the disk, then the names. A layer's folder is moved to its
//! place only when all of it is on the disk, so that a layer that is there is whole whatever a power cut does.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::Inner;
use super::layout::Work;
use super::partial::Partial;
use super::record::{self, ImageRecord, LayerRecord};
use crate::{Digest, Error, Reference};

/// A layer that is whole, in a folder of its own.
pub(crate) struct Finished<'a> {
    pub(super) work: Work,
    pub(crate) record: LayerRecord,
    /// What its compressed bytes were kept in on the way: not needed any more once it has its place.
    pub(super) spool: Option<Partial<'a>>,
    /// Nobody else unpacks the layer meanwhile.
    pub(super) lock: File,
}

impl Inner {
    /// Gives layers their places. `durable`: waits for the disk, once for all of them.
    pub(crate) fn place_all(&self, mut layers: Vec<Finished<'_>>, durable: bool) -> Result<(), Error> {
        for Finished { work, record, .. } in &mut layers {
            record.volatile_since = if durable { String::new() } else { self.boot.clone() };
            self.write_layer_record(&work.0, record)?;
        }
        if let Some(Finished { work, .. }) = layers.first().filter(|_| durable) {
            self.sync_all_of(&work.0)?;
        }
        for Finished { work, record, .. } in &layers {
            self.move_to_place(&work.0, record)?;
        }
        if durable {
            self.sync_layers_folder()?;
        }
        for Finished { spool, lock, .. } in layers {
            spool.into_iter().for_each(Partial::discard);
            drop(lock);
        }
        Ok(())
    }

    /// The same for one folder whose record says already how durable it is.
    pub(super) fn place(&self, work: &Path, record: &LayerRecord) -> Result<(), Error> {
        self.write_layer_record(work, record)?;
        if record.volatile_since.is_empty() {
            self.sync_all_of(work)?;
        }
        self.move_to_place(work, record)?;
        if record.volatile_since.is_empty() { self.sync_layers_folder() } else { Ok(()) }
    }

    fn write_layer_record(&self, work: &Path, record: &LayerRecord) -> Result<(), Error> {
        let bytes = record::encode(record).map_err(|why| Error::corrupt(format!("layer {}", record.diff_id), why))?;
        let file = work.join("record");
        self.layout.disk.write(&file, &bytes).map_err(|e| Error::io("write", &file, e))
    }

    /// One call for thousands of files.
    fn sync_all_of(&self, path: &Path) -> Result<(), Error> {
        self.layout.disk.sync_system(path).map_err(|e| Error::io("sync", path, e))
    }

    fn move_to_place(&self, work: &Path, record: &LayerRecord) -> Result<(), Error> {
        let target = self.layout.layer(&record.diff_id);
        if target.symlink_metadata().is_ok() {
            self.discard(&target)?; // damaged, or lost in a power cut
        }
        self.layout.disk.rename(work, &target).map_err(|e| Error::io("rename to", &target, e))
    }

    fn sync_layers_folder(&self) -> Result<(), Error> {
        let dir = self.layout.dir("layers");
        self.layout.disk.sync_folder(&dir).map_err(|e| Error::io("sync", &dir, e))
    }

    /// Waits for the disk once and notes it in every layer that was written without.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        let mut volatile = Vec::new();
        for record in self.layer_records()? {
            if !record.volatile_since.is_empty() && record.volatile_since == self.boot {
                volatile.push(record);
            }
        }
        if volatile.is_empty() {
            return Ok(());
        }
        let dir = self.layout.dir("layers");
        self.sync_all_of(&dir)?;
        for mut record in volatile {
            record.volatile_since.clear();
            let bytes =
                record::encode(&record).map_err(|why| Error::corrupt(format!("layer {}", record.diff_id), why))?;
            self.layout.replace(&self.layout.layer(&record.diff_id).join("record"), &bytes)?;
        }
        Ok(())
    }

    /// Makes an image visible for good, its documents and those of its layers that nobody waited for, with two waits for the whole disk
    /// however many there are: first everything that was written, then the names it gets. Whatever a power cut leaves of the second
    /// step, no name leads to bytes that are not there.
    pub(crate) fn settle_image(
        &self,
        reference: &Reference,
        image: &ImageRecord,
        documents: &[Vec<u8>],
    ) -> Result<(), Error> {
        let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        for bytes in documents {
            let digest = Digest::of(bytes);
            if self.read_blob(&digest)?.is_none() {
                files.insert(self.layout.blob(&digest), bytes.clone());
            }
        }
        for diff_id in image.layers.iter().chain(&image.top) {
            if let Some(mut record) = self.layer_record(diff_id)?
                && !std::mem::take(&mut record.volatile_since).is_empty()
            {
                let bytes = record::encode(&record).map_err(|why| Error::corrupt(format!("layer {diff_id}"), why))?;
                files.insert(self.layout.layer(diff_id).join("record"), bytes);
            }
        }
        // The last name, so that even within this boot nobody finds the image before all of it is there.
        let bytes = record::encode(image).map_err(|why| Error::corrupt(reference.to_string(), why))?;
        let files = files.into_iter().chain([(self.layout.image(reference), bytes)]).enumerate();
        let work = self.layout.fresh()?;
        let disk = &*self.layout.disk;
        let mut parts = Vec::new();
        for (number, (path, bytes)) in files {
            let part = work.0.join(number.to_string());
            disk.write(&part, &bytes).map_err(|e| Error::io("write", &path, e))?;
            parts.push((part, path));
        }
        disk.sync_system(&work.0).map_err(|e| Error::io("sync", &work.0, e))?;
        for (part, path) in &parts {
            disk.rename(part, path).map_err(|e| Error::io("write", path, e))?;
        }
        disk.sync_system(&work.0).map_err(|e| Error::io("sync", &work.0, e))
    }
}
