//! True disk usage: blocks, not sizes; hard links once, also those from one layer to another.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Inner;
use crate::Error;
use crate::file::names;

/// Bytes on disk.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// Of unpacked layers (shared ones once).
    pub layers: u64,
    /// Of manifests, configurations and kept compressed layers.
    pub blobs: u64,
    /// Of beginnings of layers whose transfer broke off, and of work in progress.
    pub partial: u64,
    /// Of layers and blobs no image and no lease needs: what `prune` would free (with the beginnings of layers).
    pub unused: u64,
}

/// Walks the store.
pub(super) fn usage(inner: &Inner) -> Result<Usage, Error> {
    let needed = inner.needed()?;
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    for folder in ["layers", "blobs", "partial", "tmp"] {
        let dir = inner.layout.dir(folder);
        for name in names(&dir)? {
            let bytes = count(&dir.join(&name), &mut seen)?;
            let (sum, is_needed) = match folder {
                "layers" => (&mut usage.layers, needed.layers.contains(&name)),
                "blobs" => (&mut usage.blobs, needed.blobs.contains(&name)),
                _ => (&mut usage.partial, true),
            };
            *sum = sum.saturating_add(bytes);
            if !is_needed {
                usage.unused = usage.unused.saturating_add(bytes);
            }
        }
    }
    Ok(usage)
}

/// Of a file or a folder with all in it.
pub(super) fn disk_bytes(path: &Path) -> Result<u64, Error> {
    count(path, &mut HashSet::new())
}

/// Of what was not seen before. What vanishes meanwhile counts nothing.
fn count(path: &Path, seen: &mut HashSet<(u64, u64)>) -> Result<u64, Error> {
    let mut total = 0u64;
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = match path.symlink_metadata() {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io("stat", &path, e)),
        };
        if meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
            total = total.saturating_add(meta.blocks().saturating_mul(512));
        }
        if meta.is_dir() {
            let entries = match std::fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io("read", &path, e)),
            };
            for entry in entries {
                todo.push(entry.map_err(|e| Error::io("read", &path, e))?.path());
            }
        }
    }
    Ok(total)
}
