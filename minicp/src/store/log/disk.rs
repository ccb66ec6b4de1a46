//! What the engine asks of a disk: a flat folder of append-only files. Tests put a disk here that loses power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// One folder. Nothing is safe before [`Disk::sync`] (content) and [`Disk::sync_names`] (creation, renaming, removal) returned.
pub trait Disk: Send {
    fn list(&self) -> io::Result<Vec<String>>;
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Makes the file if it is not there.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Replaces `to`.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&mut self, name: &str) -> io::Result<()>;
    fn sync_names(&mut self) -> io::Result<()>;
}

/// Files that only their owner may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// A real folder, locked for this process alone.
pub struct Folder {
    path: PathBuf,
    /// The file last appended to.
    open: Option<(String, File)>,
    /// Holds the lock, if this is a store.
    _lock: Option<File>,
}

impl Folder {
    /// Makes the folder (0700) and takes its lock; `WouldBlock` if another process has it.
    pub fn open(path: &Path) -> io::Result<Folder> {
        crate::pki::files::make_private_dir(path)?;
        let lock = private().truncate(false).write(true).open(path.join("lock"))?;
        lock.try_lock().map_err(|e| match e {
            fs::TryLockError::Error(e) => e,
            fs::TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "in use by another process"),
        })?;
        Ok(Folder { path: path.into(), open: None, _lock: Some(lock) })
    }
    /// Any folder: to read a store that another process may have open, or to put a file that belongs to no store.
    pub(crate) fn unlocked(path: &Path) -> Folder {
        Folder { path: path.into(), open: None, _lock: None }
    }
    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        if self.open.as_ref().is_none_or(|(n, _)| n != name) {
            let file = private().append(true).open(self.path.join(name))?;
            self.open = Some((name.into(), file));
        }
        self.open.as_mut().map(|(_, f)| f).ok_or_else(|| io::Error::other("no file is open"))
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
        names.filter(|n| n.as_ref().map_or(true, |n| n != "lock")).collect()
    }
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.file(name)?.set_len(len)
    }
    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.open = None;
        fs::rename(self.path.join(from), self.path.join(to))
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open = None;
        fs::remove_file(self.path.join(name))
    }
    fn sync_names(&mut self) -> io::Result<()> {
        // Only Unix can sync a folder, and only there it is needed.
        if cfg!(unix) { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }
}
