//! True disk usage: blocks, not sizes; hard links once.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Inner, names};
use crate::Error;

/// Bytes on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Of unpacked layers (shared ones once).
    pub layers: u64,
    /// Of manifests, configurations and kept compressed layers.
    pub blobs: u64,
    /// Of layers and blobs no image and no lease needs: what `prune` would free.
    pub unused: u64,
}

/// Walks the store.
pub(super) fn usage(inner: &Inner) -> Result<Usage, Error> {
    let (layers, blobs) = inner.needed()?;
    let mut usage = Usage { layers: 0, blobs: 0, unused: 0 };
    for (folder, needed) in [("layers", &layers), ("blobs", &blobs)] {
        let dir = inner.layout.dir(folder);
        for name in names(&dir)? {
            let bytes = disk_bytes(&dir.join(&name))?;
            *(if folder == "layers" { &mut usage.layers } else { &mut usage.blobs }) += bytes;
            if !needed.contains(&name) {
                usage.unused += bytes;
            }
        }
    }
    Ok(usage)
}

/// Of a file or a folder with all in it.
pub(super) fn disk_bytes(path: &Path) -> Result<u64, Error> {
    let mut seen = HashSet::new();
    let mut total = 0u64;
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().map_err(|e| Error::io("stat", &path, e))?;
        if meta.nlink() < 2 || meta.is_dir() || seen.insert(meta.ino()) {
            total = total.saturating_add(meta.blocks().saturating_mul(512));
        }
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(|e| Error::io("read", &path, e))? {
                todo.push(entry.map_err(|e| Error::io("read", &path, e))?.path());
            }
        }
    }
    Ok(total)
}
