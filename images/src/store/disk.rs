//! The order of writes is what survives a power cut. Every step of it goes through this seam: bytes, wait for the bytes, name, wait
//! for the name. The real disk is the default of each method; the tests put one in its place that notes at each step what a power
//! cut would leave (`store/crash.rs`). The files of a layer are written past it, and waited for as a whole by `sync_system`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// One file system under the store.
pub trait Disk: Send + Sync {
    /// Makes or empties a file and writes it. Nothing waits for the disk.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        std::fs::write(path, bytes)
    }

    /// Adds to the end of an open file. Nothing waits for the disk.
    fn append(&self, file: &mut File, bytes: &[u8], path: &Path) -> io::Result<()> {
        let _ = path;
        file.write_all(bytes)
    }

    /// Waits until a file's bytes are on the disk, not its name (fdatasync(2)).
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_data()
    }

    /// Waits until the names in a folder are on the disk.
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Waits until everything of the file system that holds `path` is on the disk (syncfs(2)): one call for thousands of files.
    fn sync_system(&self, path: &Path) -> io::Result<()> {
        Ok(nix::unistd::syncfs(&File::open(path)?)?)
    }

    /// Gives a file or folder another name, in place of what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    /// Takes a file's name away.
    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// The file system as it is.
pub struct Real;

impl Disk for Real {}
