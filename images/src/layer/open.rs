//! What a layer cannot settle by itself, because the answer lies in the layers below: folders it has something in but does not
//! describe, and hard links to files that are not its own. Layers arrive in any order and are shared by images, so both are only
//! written down here, in the file `open` beside the layer's folder (in the form of a listing: folders as nodes, links as links);
//! [`super::stack`] answers them once all layers of an image are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use super::entry::Inner;
use super::listing::{self, Line, Writer};

/// The open questions of one layer.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// Folders the archive has something in but does not describe. They stand as 0755, root, 1970.
    pub folders: BTreeSet<Inner>,
    /// Hard links whose target is no file of this layer, by their own name. They do not stand in the layer's folder.
    pub links: BTreeMap<Inner, Inner>,
}

impl Open {
    /// Nothing is open.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.links.is_empty()
    }

    /// Writes the file `open`.
    pub fn write(&self, file: File) -> io::Result<()> {
        let mut out = Writer::new(file)?;
        for path in &self.folders {
            let mode = libc::S_IFDIR | 0o755;
            out.line(&Line::Node { path: path.bytes().to_vec(), mode, uid: 0, gid: 0, device: 0 })?;
        }
        for (path, target) in &self.links {
            out.line(&Line::Hardlink { path: path.bytes().to_vec(), target: target.bytes().to_vec() })?;
        }
        out.finish()
    }

    /// Reads it again. An error means that it is damaged.
    pub fn read(file: File) -> io::Result<Open> {
        let mut open = Open::default();
        let mut strange = false;
        listing::read(file, |line| match line {
            Line::Node { path, .. } => match Inner::new(&path) {
                Ok(path) => drop(open.folders.insert(path)),
                Err(_) => strange = true,
            },
            Line::Hardlink { path, target } => match (Inner::new(&path), Inner::new(&target)) {
                (Ok(path), Ok(target)) => drop(open.links.insert(path, target)),
                _ => strange = true,
            },
            _ => strange = true,
        })?;
        if strange { Err(io::Error::new(io::ErrorKind::InvalidData, "holds what is never open")) } else { Ok(open) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("open");
        let inner = |text: &str| Inner::new(text.as_bytes()).unwrap();
        let open = Open {
            folders: BTreeSet::from([inner(""), inner("a/b")]),
            links: BTreeMap::from([(inner("h"), inner("a/t")), (inner("i"), inner("a/t"))]),
        };
        open.write(File::create(&path).unwrap()).unwrap();
        assert_eq!(Open::read(File::open(&path).unwrap()).unwrap(), open);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[30] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Open::read(File::open(&path).unwrap()).is_err());
        let mut out = Writer::new(File::create(&path).unwrap()).unwrap();
        out.line(&Line::Gone { path: b"x".to_vec() }).unwrap();
        out.finish().unwrap();
        assert!(Open::read(File::open(&path).unwrap()).is_err());
    }
}
