//! Layers in the store: present or not, unpacked once by whoever comes first, visible only whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layout::sync_dir;
use super::record::{self, LayerRecord};
use super::{Inner, read_bounded};
use crate::layer::{Unpacked, unpack};
use crate::limits::RECORD_BYTES_MAX;
use crate::manifest::Descriptor;
use crate::{Cancel, DiffId, Error};

/// How a layer is taken in.
pub struct Intake<'a> {
    pub keep_blob: bool,
    /// Wait for the disk.
    pub durable: bool,
    /// Hears transferred bytes.
    pub progress: &'a dyn Fn(u64),
    pub cancel: &'a Cancel,
}

/// Begins to read a layer's compressed bytes.
pub type Open<'a> = dyn Fn() -> Result<Box<dyn Read + 'a>, Error> + 'a;

impl Inner {
    /// The record of a layer that is here and whole. One that was written in an earlier boot and never settled counts as absent: a
    /// power cut may have taken parts of it.
    pub(crate) fn layer_record(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>, Error> {
        let path = self.layout.layer(diff_id).join("record");
        let Some(bytes) = read_bounded(&path, RECORD_BYTES_MAX)? else { return Ok(None) };
        match record::decode::<LayerRecord>(&bytes) {
            Ok(found) if found.diff_id != *diff_id => {
                Err(Error::corrupt(format!("layer {diff_id}"), "its folder belongs to another layer"))
            }
            Ok(found) if found.volatile_since.is_empty() || found.volatile_since == self.boot => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(why) => {
                log::warn!("layer {diff_id}: {why}; it will be fetched again");
                Ok(None)
            }
        }
    }

    /// Makes a layer be here. `open` is called once, and only if it is not.
    pub(crate) fn take_in<'a>(
        &self,
        diff_id: &DiffId,
        want: &Descriptor,
        open: &Open<'a>,
        intake: &Intake<'_>,
    ) -> Result<(LayerRecord, bool), Error> {
        if let Some(found) = self.layer_record(diff_id)? {
            return Ok((found, false));
        }
        let _lock = self.lock_layer(diff_id, intake.cancel)?;
        if let Some(found) = self.layer_record(diff_id)? {
            return Ok((found, false)); // someone else was faster
        }
        let work = Work(self.layout.fresh()?);
        let record = self.unpack_into(&work.0, diff_id, want, open, intake)?;
        self.place(&work.0, &record, intake.durable)?;
        Ok((record, true))
    }

    fn unpack_into<'a>(
        &self,
        work: &Path,
        diff_id: &DiffId,
        want: &Descriptor,
        open: &Open<'a>,
        intake: &Intake<'_>,
    ) -> Result<LayerRecord, Error> {
        let what = format!("layer {}", want.digest);
        let (fs, list) = (work.join("fs"), work.join("list"));
        std::fs::create_dir(&fs).map_err(|e| Error::io("create", &fs, e))?;
        std::os::unix::fs::chown(&fs, Some(0), Some(0)).map_err(|e| Error::io("chown", &fs, e))?;
        std::fs::set_permissions(&fs, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|e| Error::io("chmod", &fs, e))?;
        let list_file = File::create(&list).map_err(|e| Error::io("create", &list, e))?;
        let blob = work.join("blob");
        let copy =
            if intake.keep_blob { Some(File::create(&blob).map_err(|e| Error::io("create", &blob, e))?) } else { None };
        let input = Exact { inner: open()?, left: want.size, copy, what: &what };
        let done = unpack(input, &what, &fs, list_file, intake.progress, intake.cancel)?;
        check(&what, &done, diff_id, want)?;
        if !done.open.is_empty() {
            let path = work.join("open");
            File::create(&path).and_then(|file| done.open.write(file)).map_err(|e| Error::io("write", &path, e))?;
        }
        if intake.keep_blob {
            self.keep_blob(&blob, &want.digest)?;
        }
        let volatile_since = if intake.durable { String::new() } else { self.boot.clone() };
        Ok(LayerRecord {
            diff_id: *diff_id,
            blob: done.digest,
            blob_bytes: done.blob_bytes,
            file_bytes: done.file_bytes,
            entries: done.entries,
            implicit: Vec::new(), // in the file `open`: there may be many
            volatile_since,
        })
    }

    /// Writes the record and moves the finished folder to its place.
    pub(crate) fn place(&self, work: &Path, record: &LayerRecord, durable: bool) -> Result<(), Error> {
        let target = self.layout.layer(&record.diff_id);
        let bytes = record::encode(record).map_err(|why| Error::corrupt(format!("layer {}", record.diff_id), why))?;
        let file = work.join("record");
        std::fs::write(&file, bytes).map_err(|e| Error::io("write", &file, e))?;
        if durable {
            // One call for thousands of files; they share a file system with the folder.
            let folder = File::open(work).map_err(|e| Error::io("open", work, e))?;
            nix::unistd::syncfs(&folder).map_err(|e| Error::io("sync", work, e.into()))?;
        }
        if target.symlink_metadata().is_ok() {
            self.discard(&target)?; // damaged, or lost in a power cut
        }
        std::fs::rename(work, &target).map_err(|e| Error::io("rename to", &target, e))?;
        if durable {
            sync_dir(&self.layout.dir("layers")).map_err(|e| Error::io("sync", self.layout.dir("layers"), e))?;
        }
        Ok(())
    }

    fn keep_blob(&self, part: &Path, digest: &crate::Digest) -> Result<(), Error> {
        let path = self.layout.blob(digest);
        let done = || -> io::Result<()> {
            File::open(part)?.sync_all()?;
            std::fs::rename(part, &path)?;
            sync_dir(&self.layout.dir("blobs"))
        };
        done().map_err(|e| Error::io("write", &path, e))
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
        let folder = File::open(&dir).map_err(|e| Error::io("open", &dir, e))?;
        nix::unistd::syncfs(&folder).map_err(|e| Error::io("sync", &dir, e.into()))?;
        for mut record in volatile {
            record.volatile_since.clear();
            let bytes =
                record::encode(&record).map_err(|why| Error::corrupt(format!("layer {}", record.diff_id), why))?;
            self.layout.replace(&self.layout.layer(&record.diff_id).join("record"), &bytes)?;
        }
        Ok(())
    }

    /// Every readable layer record.
    pub(crate) fn layer_records(&self) -> Result<Vec<LayerRecord>, Error> {
        let dir = self.layout.dir("layers");
        let mut found = Vec::new();
        for name in super::names(&dir)? {
            if let Some(bytes) = read_bounded(&dir.join(name).join("record"), RECORD_BYTES_MAX)?
                && let Ok(record) = record::decode::<LayerRecord>(&bytes)
            {
                found.push(record);
            }
        }
        Ok(found)
    }

    pub(crate) fn lock_layer(&self, diff_id: &DiffId, cancel: &Cancel) -> Result<File, Error> {
        let path = self.layout.layer_lock(diff_id);
        let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) => {
                    cancel.check()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(std::fs::TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
            }
        }
    }

    /// Moves a folder out of sight, then deletes it: a crash in between leaves only something in tmp.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), Error> {
        let work = Work(self.layout.fresh()?);
        let aside = work.0.join("gone");
        std::fs::rename(path, &aside).map_err(|e| Error::io("rename", path, e))?;
        remove_tree(&work.0)
    }
}

/// A folder in tmp that goes when its work is done or failed; a successful rename has already taken it away.
pub struct Work(pub PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0); // swept at the next open otherwise
    }
}

/// Deletes a folder and everything in it; no error if it is not there.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("delete", path, e)),
        _ => Ok(()),
    }
}

fn check(what: &str, done: &Unpacked, diff_id: &DiffId, want: &Descriptor) -> Result<(), Error> {
    if done.blob_bytes != want.size {
        return Err(Error::corrupt(what, format!("{} bytes, the manifest says {}", done.blob_bytes, want.size)));
    }
    if done.digest != want.digest {
        return Err(Error::corrupt(what, format!("its bytes have the digest {}", done.digest)));
    }
    if done.diff_id != *diff_id {
        return Err(Error::corrupt(
            what,
            format!("its archive has the diffID {}, the configuration says {diff_id}", done.diff_id),
        ));
    }
    Ok(())
}

/// Exactly as many bytes as promised, copied aside where wanted.
struct Exact<'a, R> {
    inner: R,
    left: u64,
    copy: Option<File>,
    what: &'a str,
}

impl<R: Read> Read for Exact<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(out)?;
        let Some(left) = self.left.checked_sub(n as u64) else {
            return Err(io::Error::other(Error::corrupt(self.what, "longer than the manifest says")));
        };
        self.left = left;
        if let Some(copy) = &mut self.copy {
            copy.write_all(out.get(..n).unwrap_or_default())
                .map_err(|e| io::Error::other(Error::io("write a copy of", self.what, e)))?;
        }
        Ok(n)
    }
}
