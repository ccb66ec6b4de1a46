//! What lies where below the store's folder. Version 1:
//!
//! ```text
//! FORMAT                          "mote image store 1\n"; another content is refused
//! lock                            flock: shared while writing, exclusive while deleting
//! blobs/<64 hex>                  manifests, indexes, configurations, kept compressed layers, by sha256
//! images/<32 hex>                 one record per reference, named by the first half of sha256(reference)
//! layers/<32 hex>/fs              a layer, named by the first half of its diffID: overlayfs lower folder
//!                /list            names and checksums (layer::listing)
//!                /open            what only the layers below can answer (layer::open); absent if nothing is
//!                /record          sizes, whether it is known to be on the disk
//! leases/<owner>                  layer names, one a line
//! partial/<64 hex>                the beginning of a compressed layer whose transfer broke off (store::partial)
//!        /<64 hex>.sums           how much of it is known to be on the disk
//! pins/<32 hex>                   images that no sweep may take, named as in images/
//! pulls/<unique>                  what running work needs, as in leases/; the file is locked as long as the work runs
//! signatures/<64 hex>             signatures of the image with this manifest or index that were found good (signature::payload)
//! locks/<32 hex>                  flock: one process and thread unpacks a layer, the others wait
//! tmp/<unique>/                   work in progress; swept at open when nobody works
//! ```
//!
//! Layer names are halved because overlayfs takes all lower folders in one page of options on kernels before 6.8. The whole diffID is
//! in the record and compared.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Disk;
use crate::digest::Hasher;
use crate::{DiffId, Digest, Error, Reference};

pub const FORMAT: &str = "mote image store 1\n";

/// Bytes of a file system, and how many of them are still to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    pub total: u64,
    pub available: u64,
}

/// A folder in tmp that goes when its work is done or failed; a successful rename has already taken it away.
pub struct Work(pub PathBuf);

impl Work {
    /// Now, and with word of what went wrong.
    pub fn remove(self) -> Result<(), Error> {
        remove_tree(&self.0)
    }
}

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

/// Paths of one store, and the disk they are on.
pub struct Layout {
    pub root: PathBuf,
    pub disk: Arc<dyn Disk>,
}

impl Layout {
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }
    pub fn layer(&self, diff_id: &DiffId) -> PathBuf {
        self.root.join("layers").join(layer_name(diff_id))
    }
    pub fn image(&self, reference: &Reference) -> PathBuf {
        let mut hasher = Hasher::default();
        hasher.update(reference.to_string().as_bytes());
        self.root.join("images").join(half(hasher.digest().hex()))
    }
    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }
    pub fn signatures(&self, digest: &Digest) -> PathBuf {
        self.root.join("signatures").join(digest.hex())
    }
    pub fn layer_lock(&self, diff_id: &DiffId) -> PathBuf {
        self.root.join("locks").join(layer_name(diff_id))
    }
    pub fn dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Room on the file system.
    pub fn space(&self) -> Result<Space, Error> {
        let disk = nix::sys::statvfs::statvfs(&self.root).map_err(|e| Error::io("stat", &self.root, e.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        Ok(Space { total: bytes(disk.blocks()), available: bytes(disk.blocks_available()) })
    }

    /// A new, empty folder in tmp.
    pub fn fresh(&self) -> Result<Work, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let path =
                self.root.join("tmp").join(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Work(path)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io("create", &path, e)),
            }
        }
    }

    /// Replaces a small file as a whole: written beside, synced, renamed, folder synced.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.put(path, bytes, true)
    }

    /// The same for what need not outlive the kernel that runs now: nothing waits for the disk.
    pub fn replace_for_now(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.put(path, bytes, false)
    }

    fn put(&self, path: &Path, bytes: &[u8], sync: bool) -> Result<(), Error> {
        let work = self.fresh()?;
        let part = work.0.join("part");
        let write = || -> io::Result<()> {
            self.disk.write(&part, bytes)?;
            if sync { self.settle(&part, path) } else { self.disk.rename(&part, path) }
        };
        write().map_err(|e| Error::io("write", path, e))
    }

    /// Gives a finished file its place for good: its bytes first, then its name.
    pub fn settle(&self, part: &Path, path: &Path) -> io::Result<()> {
        self.disk.sync_file(part)?;
        self.disk.rename(part, path)?;
        self.disk.sync_folder(path.parent().unwrap_or(path))
    }
}

/// The name of a layer's folder.
pub fn layer_name(diff_id: &DiffId) -> String {
    half(diff_id.hex())
}

fn half(mut hex: String) -> String {
    hex.truncate(32);
    hex
}
