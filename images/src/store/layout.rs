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
//! signatures/<64 hex>             signatures of the image with this manifest or index that were found good (signature::payload)
//! locks/<32 hex>                  flock: one process and thread unpacks a layer, the others wait
//! tmp/<unique>/                   work in progress; swept at open when nobody works
//! ```
//!
//! Layer names are halved because overlayfs takes all lower folders in one page of options on kernels before 6.8. The whole diffID is
//! in the record and compared.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Hasher;
use crate::{DiffId, Digest, Error, Reference};

pub const FORMAT: &str = "mote image store 1\n";

/// Paths of one store.
pub struct Layout {
    pub root: PathBuf,
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
    pub fn signatures(&self, digest: &Digest) -> PathBuf {
        self.root.join("signatures").join(digest.hex())
    }
    pub fn layer_lock(&self, diff_id: &DiffId) -> PathBuf {
        self.root.join("locks").join(layer_name(diff_id))
    }
    pub fn dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A new, empty folder in tmp.
    pub fn fresh(&self) -> Result<PathBuf, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let path =
                self.root.join("tmp").join(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(path),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
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
        let dir = self.fresh()?;
        let part = dir.join("part");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(bytes)?;
            if sync {
                file.sync_all()?;
            }
            std::fs::rename(&part, path)?;
            if sync { sync_dir(path.parent().unwrap_or(path)) } else { Ok(()) }
        };
        let done = write().map_err(|e| Error::io("write", path, e));
        let _ = std::fs::remove_dir_all(&dir); // swept at the next open otherwise
        done
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

/// Makes a rename in this folder last.
pub fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
