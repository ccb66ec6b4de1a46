//! Named files of an archive or a folder, each readable on its own: a tar is indexed once, then read by position.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::layer::codec::{Codec, Decoder};
use crate::layer::entry::Inner as InnerPath;
use crate::limits::{DOCUMENT_BYTES_MAX, ENTRIES_MAX, LAYER_TAR_BYTES_MAX};
use crate::pack::open;
use crate::store::Inner;
use crate::store::layout::Work;
use crate::{Error, digest};

/// Where named files come from.
pub(super) enum Source {
    Folder(PathBuf),
    Tar { file: Arc<File>, index: BTreeMap<String, (u64, u64)>, _inflated: Option<Work> },
}

impl Source {
    /// A folder, or a tar file, compressed or not (a compressed one is inflated into the store's tmp first).
    pub(super) fn open(inner: &Inner, path: &Path) -> Result<Source, Error> {
        let meta = path.metadata().map_err(|e| Error::io("open", path, e))?;
        if meta.is_dir() {
            return Ok(Source::Folder(path.to_owned()));
        }
        let mut head = [0u8; 4];
        let n = open(path)?.read(&mut head).map_err(|e| Error::io("read", path, e))?;
        let (file, work) = match Codec::of(head.get(..n).unwrap_or_default()) {
            Codec::Plain => (open(path)?, None),
            _ => {
                let work = inner.layout.fresh()?;
                let plain = work.0.join("archive.tar");
                let decode = || -> io::Result<()> {
                    let mut from = Decoder::new(BufReader::new(File::open(path)?))?.take(LAYER_TAR_BYTES_MAX);
                    io::copy(&mut from, &mut File::create(&plain)?).map(drop)
                };
                decode().map_err(|e| Error::io("inflate", path, e))?;
                (open(&plain)?, Some(work))
            }
        };
        let index = index(&file, path)?;
        Ok(Source::Tar { file: Arc::new(file), index, _inflated: work })
    }

    /// A file of this name; `None` if there is none.
    pub(super) fn file(&self, name: &str) -> Result<Option<Section>, Error> {
        let inner = InnerPath::new(name.as_bytes()).map_err(|why| Error::refused(name, why))?;
        match self {
            Source::Folder(dir) => {
                let path = dir.join(inner.text());
                match File::open(&path) {
                    Ok(file) => {
                        let left = file.metadata().map_err(|e| Error::io("stat", &path, e))?.len();
                        Ok(Some(Section { file: Arc::new(file), at: 0, left }))
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(Error::io("open", &path, e)),
                }
            }
            Source::Tar { file, index, .. } => {
                Ok(index.get(&inner.text()).map(|(at, left)| Section { file: file.clone(), at: *at, left: *left }))
            }
        }
    }

    /// A small file as a whole.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(section) = self.file(name)? else { return Ok(None) };
        if section.left > DOCUMENT_BYTES_MAX {
            return Err(Error::refused(
                name,
                format!("{} bytes, at most {DOCUMENT_BYTES_MAX} are supported", section.left),
            ));
        }
        let mut bytes = Vec::new();
        section.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes).map_err(|e| Error::io("read", name, e))?;
        Ok(Some(bytes))
    }
}

fn index(file: &File, path: &Path) -> Result<BTreeMap<String, (u64, u64)>, Error> {
    let corrupt = |e: io::Error| Error::corrupt(path.display().to_string(), format!("not a readable tar: {e}"));
    let mut archive = tar::Archive::new(file);
    let mut index = BTreeMap::new();
    let mut count = 0u64;
    for entry in archive.entries_with_seek().map_err(corrupt)? {
        let entry = entry.map_err(corrupt)?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(Error::refused(path.display().to_string(), format!("more than {ENTRIES_MAX} entries")));
        }
        let Ok(name) = InnerPath::new(&entry.path_bytes()) else { continue };
        if entry.header().entry_type().is_file() {
            index.insert(name.text(), (entry.raw_file_position(), entry.size()));
        }
    }
    Ok(index)
}

/// A stretch of a file.
#[derive(Clone)]
pub(super) struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Section {
    /// Bytes still to come.
    pub(super) fn len(&self) -> u64 {
        self.left
    }

    /// What is left behind its first `n` bytes.
    pub(super) fn from(&self, n: u64) -> Section {
        let n = n.min(self.left);
        Section { file: self.file.clone(), at: self.at + n, left: self.left - n }
    }

    /// The digest of all of it.
    pub(super) fn digest(&self) -> io::Result<digest::Digest> {
        let mut reader = crate::layer::hashing::Hashing::new(self.clone(), u64::MAX);
        reader.drain()?;
        Ok(reader.finish().0.unwrap_or_default().digest())
    }
}

impl Read for Section {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(out.get_mut(..length).unwrap_or_default(), self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
