//! Files that only their owner may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Makes a folder with mode 0700, parents too; an existing one is tightened to it.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

/// Writes files of one folder with mode 0600, so that after a crash there is of each the old one or the new one, and none before those that stand
/// in front of it.
pub fn write_private(folder: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    // All are written before the first is waited for: most file systems bring them to the disk together.
    let written = files.iter().map(|(name, text)| write_temp(folder, name, text)).collect::<io::Result<Vec<_>>>()?;
    for ((name, _), (temp, file)) in files.iter().zip(written) {
        file.sync_all()?;
        fs::rename(temp, folder.join(name))?;
    }
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// The same for a file that can be made again: nothing waits for the disk, and a power cut may leave it empty.
pub fn write_private_again(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let (temp, _) = write_temp(folder, name, text)?;
    fs::rename(temp, folder.join(name))
}

fn write_temp(folder: &Path, name: &str, text: &str) -> io::Result<(PathBuf, File)> {
    let temp = folder.join(format!("{name}.tmp"));
    let _ = fs::remove_file(&temp);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temp)?;
    file.write_all(text.as_bytes())?;
    Ok((temp, file))
}
