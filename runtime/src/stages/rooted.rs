//! Paths inside a root file system that may be hostile: every look-up by openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), every change by
//! descriptor. Symlinks of the image lead where they lead *inside*; /proc/*/fd links lead nowhere.

use super::report::{Fault, at, plain};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Deepest destination that is made.
const DEPTH_MAX: usize = 128;
/// A rename elsewhere makes openat2 give up with EAGAIN; then it is asked again.
const TRIES: usize = 32;

/// Opens `path` (absolute inside) below `root`.
pub(crate) fn open(root: impl AsFd, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    let relative = path.trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut result = Err(Errno::EAGAIN);
    for _ in 0..TRIES {
        result = openat2(root.as_fd(), relative, how);
        if !matches!(result, Err(Errno::EAGAIN)) {
            break;
        }
    }
    result
}

/// Opens a folder by its path outside, which is the host's and leads where it says.
pub(super) fn open_outside(path: &Path) -> Result<OwnedFd, Errno> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// For mount(2), which takes paths only: the name of an open descriptor in the host's /proc.
pub(crate) fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens the folder `path`, made with its parents where missing.
pub(crate) fn make_dir(root: impl AsFd, path: &str) -> Result<OwnedFd, Fault> {
    match open(&root, path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(Errno::ENOENT) => {}
        result => return result.map_err(at("open", path)),
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") || parts.len() > DEPTH_MAX {
        return Err(plain(format!("make folder {path}: must be absolute, without `..`")));
    }
    // Up to the first that is there, then down again.
    let way = |depth: usize| parts.iter().take(depth).fold(String::from("/"), |way, part| way + part + "/");
    let look = |depth| open(&root, &way(depth), OFlag::O_PATH | OFlag::O_DIRECTORY);
    let mut depth = parts.len().saturating_sub(1);
    let mut folder = loop {
        match look(depth) {
            Err(Errno::ENOENT) if depth > 0 => depth -= 1,
            result => break result.map_err(at("open", way(depth)))?,
        }
    };
    for part in parts.iter().skip(depth) {
        nix::sys::stat::mkdirat(&folder, *part, Mode::from_bits_truncate(0o755)).map_err(at("make folder", path))?;
        depth += 1;
        folder = look(depth).map_err(at("open", way(depth)))?;
    }
    Ok(folder)
}

/// Opens `name` of the folder `path`, made empty where missing; never by a link of that name.
pub(crate) fn make_own_file(root: impl AsFd, path: &str, name: &str) -> Result<OwnedFd, Fault> {
    let folder = make_dir(root, path)?;
    let told = || at("make file", format!("{path}/{name}"));
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match nix::fcntl::openat(&folder, name, flags, Mode::from_bits_truncate(0o644)) {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(told()(e)),
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = nix::fcntl::openat(&folder, name, flags, Mode::empty()).map_err(told())?;
    let kind = SFlag::from_bits_truncate(fstat(&found).map_err(told())?.st_mode & SFlag::S_IFMT.bits());
    match kind == SFlag::S_IFLNK {
        true => Err(plain(format!("make file {path}/{name}: is a link of the image"))),
        false => Ok(found),
    }
}

/// Opens the file `path`, made empty where missing.
pub(crate) fn make_file(root: impl AsFd, path: &str) -> Result<OwnedFd, Fault> {
    match open(&root, path, OFlag::O_PATH) {
        Err(Errno::ENOENT) => {}
        result => return result.map_err(at("open", path)),
    }
    let (parent, file) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("/", path));
    let parent = make_dir(&root, parent)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    nix::fcntl::openat(&parent, file, flags, Mode::from_bits_truncate(0o644)).map_err(at("make file", path))?;
    open(&root, path, OFlag::O_PATH).map_err(at("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_the_image_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("real")).unwrap();
        symlink(outside.path(), root.join("evil")).unwrap();
        symlink("../../../../..", root.join("up")).unwrap();
        symlink("/real", root.join("abs")).unwrap();
        let fd = OwnedFd::from(std::fs::File::open(&root).unwrap());

        make_dir(&fd, "/abs/a/b").map_err(|f| f.what).unwrap();
        assert!(root.join("real/a/b").is_dir());
        make_file(&fd, "/up/x/file").map_err(|f| f.what).unwrap();
        assert!(root.join("x/file").is_file(), "`..` stops at the root");
        // The link's target does not exist inside the root: refused, and nothing appears outside.
        assert!(make_dir(&fd, "/evil/c").is_err());
        assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
        assert!(make_dir(&fd, "/new/../../etc").is_err());
        assert!(make_file(&fd, "/real").is_ok(), "what is there is opened, whatever it is");
        assert!(matches!(open(&fd, "/real/a/none", OFlag::O_PATH), Err(Errno::ENOENT)));
    }
}
