//! Layers in the store: present or not, unpacked once by whoever comes first, visible only whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use super::Inner;
use super::layout::Work;
use super::partial::{Partial, Spooled};
use super::record::{self, LayerRecord};
use super::settle::Finished;
use crate::file::{names, read_bounded};
use crate::layer::{Onto, Unpacked, unpack};
use crate::limits::RECORD_BYTES_MAX;
use crate::manifest::Descriptor;
use crate::{Cancel, DiffId, Error, Observer, Progress};

/// How a layer is taken in.
pub struct Intake<'a> {
    /// The compressed bytes stay in `blobs/`.
    pub keep_blob: bool,
    /// They may come slowly: what arrived is kept until the layer is whole.
    pub spool: bool,
    /// Replace the layer even if it is here.
    pub anew: bool,
    /// Number of the layer, for the observer.
    pub index: usize,
    pub observer: &'a dyn Observer,
    pub cancel: &'a Cancel,
}

/// A layer that was asked for.
pub(crate) enum Taken<'a> {
    /// In its place: it was, or someone else was faster.
    Here(LayerRecord),
    /// Unpacked and checked; [`Inner::place_all`] gives it its place.
    Finished(Finished<'a>),
}

/// Begins to read a layer's compressed bytes at a position.
pub type Open<'a> = dyn Fn(u64) -> Result<Box<dyn Read + Send + 'a>, Error> + 'a;

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
            Ok(found) if self.is_settled(&found) => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(why) => {
                log::warn!("layer {diff_id}: {why}; it will be fetched again");
                Ok(None)
            }
        }
    }

    /// Whether all of a layer can be there: known to be on the disk, or written under the kernel that still runs.
    pub(crate) fn is_settled(&self, record: &LayerRecord) -> bool {
        record.volatile_since.is_empty() || record.volatile_since == self.boot
    }

    /// Has a layer ready. `open` is called only if it is not here, or is to be replaced.
    pub(crate) fn take_in<'a>(
        &self,
        diff_id: &DiffId,
        want: &Descriptor,
        open: &Open<'a>,
        intake: &Intake<'_>,
    ) -> Result<Taken<'_>, Error> {
        let present = || if intake.anew { Ok(None) } else { self.layer_record(diff_id) };
        if let Some(found) = present()? {
            return Ok(Taken::Here(found));
        }
        let lock = self.lock_layer(diff_id, intake.cancel)?;
        if let Some(found) = present()? {
            return Ok(Taken::Here(found)); // someone else was faster
        }
        let ((work, record), spool) = self.fetch(diff_id, want, open, intake)?;
        Ok(Taken::Finished(Finished { work, record, spool, lock }))
    }

    /// Unpacks a layer into a folder of its own: from its kept blob, else from `open` behind what an earlier attempt left. The spool, where
    /// there is one, has done its duty when the folder has its place.
    fn fetch<'a>(
        &self,
        diff_id: &DiffId,
        want: &Descriptor,
        open: &Open<'a>,
        intake: &Intake<'_>,
    ) -> Result<((Work, LayerRecord), Option<Partial<'_>>), Error> {
        if let Some(blob) = self.kept_blob(want) {
            match self.unpack_new(diff_id, want, blob, intake) {
                // It may be another image's, and good: then it is the promise that is wrong, and the network says so too.
                Err(e @ Error::Corrupt { .. }) if intake.spool => {
                    log::warn!("kept blob {}: {e}; fetched again", want.digest);
                }
                done => return done.map(|done| (done, None)),
            }
        }
        let (mut spool, mut attempts_left) = (intake.spool || intake.keep_blob, 1);
        loop {
            let partial = if spool { self.partial(&want.digest)? } else { None };
            let from = partial.as_ref().map_or(0, Partial::length);
            if from > 0 {
                intake.observer.event(Progress::Continued { index: intake.index, at: from });
            }
            let mut input = Spooled::new(partial, intake.keep_blob, want.size, open(from)?);
            let done = self.unpack_new(diff_id, want, &mut input, intake);
            let is_empty = input.at() == 0;
            let partial = input.into_partial();
            match (done, partial) {
                (Ok(done), Some(partial)) if intake.keep_blob => {
                    partial.keep(&self.layout.blob(&want.digest))?;
                    return Ok((done, None));
                }
                (Ok(done), partial) => return Ok((done, partial)),
                // What lay here is damaged: once more, all from the network.
                (Err(Error::Corrupt { .. }), Some(partial)) if from > 0 && attempts_left > 0 => partial.discard(),
                (Err(e @ Error::Corrupt { .. }), Some(partial)) => {
                    partial.discard();
                    return Err(e);
                }
                // The layer comes first, what would make a second attempt cheap comes last.
                (Err(e @ Error::DiskFull { .. }), partial) if attempts_left > 0 && !intake.keep_blob => {
                    drop(partial);
                    if self.sweep_partials(true)? == 0 {
                        return Err(e);
                    }
                    spool = false;
                }
                (Err(e), partial) => {
                    partial.filter(|_| is_empty).into_iter().for_each(Partial::discard);
                    return Err(e);
                }
            }
            attempts_left -= 1;
        }
    }

    /// The compressed layer, if it was kept.
    pub(crate) fn kept_blob(&self, want: &Descriptor) -> Option<File> {
        let file = File::open(self.layout.blob(&want.digest)).ok()?;
        file.metadata().is_ok_and(|meta| meta.len() == want.size).then_some(file)
    }

    fn unpack_new(
        &self,
        diff_id: &DiffId,
        want: &Descriptor,
        input: impl Read + Send,
        intake: &Intake<'_>,
    ) -> Result<(Work, LayerRecord), Error> {
        let work = self.layout.fresh()?;
        let what = format!("layer {}", want.digest);
        let (fs, list) = (work.0.join("fs"), work.0.join("list"));
        std::fs::create_dir(&fs).map_err(|e| Error::io("create", &fs, e))?;
        std::os::unix::fs::chown(&fs, Some(0), Some(0)).map_err(|e| Error::io("chown", &fs, e))?;
        std::fs::set_permissions(&fs, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(|e| Error::io("chmod", &fs, e))?;
        let list_file = File::create(&list).map_err(|e| Error::io("create", &list, e))?;
        let input = Exact { inner: input, left: want.size, what: &what };
        let progress = |done| intake.observer.event(Progress::Bytes { index: intake.index, done });
        let onto = Onto { what: &what, fs: &fs, list: list_file, progress: &progress, cancel: intake.cancel };
        let done = unpack(input, onto)?;
        check(&what, &done, diff_id, want)?;
        if !done.open.is_empty() {
            let path = work.0.join("open");
            File::create(&path).and_then(|file| done.open.write(file)).map_err(|e| Error::io("write", &path, e))?;
        }
        let record = LayerRecord {
            diff_id: *diff_id,
            blob: done.digest,
            blob_bytes: done.blob_bytes,
            file_bytes: done.file_bytes,
            entries: done.entries,
            open: !done.open.is_empty(),
            volatile_since: self.boot.clone(), // until someone waits for the disk
        };
        Ok((work, record))
    }

    /// Every readable layer record.
    pub(crate) fn layer_records(&self) -> Result<Vec<LayerRecord>, Error> {
        let dir = self.layout.dir("layers");
        let mut found = Vec::new();
        for name in names(&dir)? {
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
        let work = self.layout.fresh()?;
        let aside = work.0.join("gone");
        self.layout.disk.rename(path, &aside).map_err(|e| Error::io("rename", path, e))?;
        work.remove()
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

/// Exactly as many bytes as promised.
struct Exact<'a, R> {
    inner: R,
    left: u64,
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
        Ok(n)
    }
}
