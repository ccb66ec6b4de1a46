//! A folder of files that changes all at once: `..data` points to the folder of the present version, every file is a link through it.
//! Readers see the old files or the new ones, never a mix (upstream's AtomicWriter has the same layout, so programs that watch
//! `..data` work).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

/// A file of such a folder.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// Makes `dir` hold exactly these files (paths relative, without `..`). Returns whether anything had to change.
pub fn write(dir: &Path, files: &BTreeMap<String, File>, gid: Option<u32>) -> io::Result<bool> {
    std::fs::create_dir_all(dir)?;
    let data = dir.join("..data");
    if same(&data, files) {
        return Ok(false);
    }
    let version = dir.join(format!("..{}", crate::clock::Moment::now().0));
    std::fs::create_dir(&version)?;
    std::fs::set_permissions(&version, std::fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let target = version.join(checked(path)?);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &file.bytes)?;
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(file.mode & 0o777))?;
        if gid.is_some() {
            chown(&target, None, gid)?;
        }
    }
    let name = version.file_name().map(PathBuf::from).unwrap_or_default();
    let next = dir.join("..data_tmp");
    let _ = std::fs::remove_file(&next);
    symlink(&name, &next)?;
    std::fs::rename(&next, &data)?;
    let tops: Vec<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for top in &tops {
        let link = dir.join(top);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (path, file_name) = (entry.path(), entry.file_name());
        let old_name = file_name.to_string_lossy();
        if old_name == "..data" || path == version || tops.iter().any(|top| *top == old_name) {
            continue;
        }
        if entry.file_type()?.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
    }
    Ok(true)
}

fn checked(path: &str) -> io::Result<&Path> {
    let path = Path::new(path);
    let sane = path.components().all(|part| matches!(part, Component::Normal(_))) && !path.as_os_str().is_empty();
    if sane {
        Ok(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("path {} leads out of the volume", path.display())))
    }
}

fn same(data: &Path, files: &BTreeMap<String, File>) -> bool {
    let Ok(present) = count(data) else { return false };
    present == files.len()
        && files.iter().all(|(path, file)| {
            let target = data.join(path);
            let mode = std::fs::metadata(&target).map(|meta| meta.permissions().mode() & 0o777);
            mode.is_ok_and(|mode| mode == file.mode & 0o777)
                && std::fs::read(&target).is_ok_and(|bytes| bytes == file.bytes)
        })
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut n = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        n += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, File> {
        list.iter().map(|(k, v)| ((*k).to_owned(), File { bytes: v.as_bytes().to_vec(), mode: 0o644 })).collect()
    }

    #[test]
    fn versions_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
        assert!(write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert!(!write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert_eq!((read("a"), read("d/b")), (Some("1".into()), Some("2".into())));
        assert!(write(dir.path(), &files(&[("a", "3"), ("c", "4")]), None).unwrap());
        assert_eq!((read("a"), read("d/b"), read("c")), (Some("3".into()), None, Some("4".into())));
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 4, "{names:?}"); // a, c, ..data, one version
    }

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "a/../../x", ""] {
            assert!(write(dir.path(), &files(&[(bad, "1")]), None).is_err(), "{bad}");
        }
    }
}
