//! `tmpcopyup`: what the image has below a new tmpfs is copied into it. Only by descriptors, never through a link.

use super::report::{Fault, at};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// Deepest folder that is copied.
const DEPTH_MAX: usize = 64;
/// Most entries that are copied.
const ENTRIES_MAX: usize = 65_536;

/// `from` and `to` are folders, opened (O_PATH will do).
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, name: &str) -> Result<(), Fault> {
    let mut left = ENTRIES_MAX;
    // Owner and mode of the folder itself, too.
    let meta = fstatat(from, c"", AtFlags::AT_EMPTY_PATH).map_err(at("stat", name))?;
    let place = super::rooted::name(to);
    let (uid, gid) = owner(&meta);
    fchownat(to, c"", uid, gid, AtFlags::AT_EMPTY_PATH).map_err(at("chown", name))?;
    fchmodat(nix::fcntl::AT_FDCWD, place.as_str(), mode(&meta), FchmodatFlags::FollowSymlink)
        .map_err(at("set mode of", name))?;
    folder(from, to, 0, &mut left).map_err(at("copy up", name))
}

fn mode(meta: &FileStat) -> Mode {
    Mode::from_bits_truncate(meta.st_mode & 0o7777)
}

fn owner(meta: &FileStat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.st_uid)), Some(Gid::from_raw(meta.st_gid)))
}

fn folder(from: &OwnedFd, to: &OwnedFd, depth: usize, left: &mut usize) -> Result<(), Errno> {
    if depth > DEPTH_MAX {
        return Err(Errno::ELOOP);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut list = Dir::openat(from, c".", flags, Mode::empty())?;
    for entry in list.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *left = left.checked_sub(1).ok_or(Errno::E2BIG)?;
        one(from, to, name, depth, left)?;
    }
    Ok(())
}

fn one(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize, left: &mut usize) -> Result<(), Errno> {
    let meta = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(meta.st_mode & libc::S_IFMT);
    let open = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let none = Mode::empty();
    if kind == SFlag::S_IFDIR {
        mkdirat(to, name, mode(&meta))?;
        let (a, b) =
            (openat(from, name, open | OFlag::O_DIRECTORY, none)?, openat(to, name, open | OFlag::O_DIRECTORY, none)?);
        folder(&a, &b, depth + 1, left)?;
    } else if kind == SFlag::S_IFREG {
        let mut a = File::from(openat(from, name, open | OFlag::O_NONBLOCK, none)?);
        let made = open | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut b = File::from(openat(to, name, made, mode(&meta))?);
        std::io::copy(&mut a, &mut b).map_err(|e| super::report::errno(&e))?;
    } else if kind == SFlag::S_IFLNK {
        symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
    } else {
        mknodat(to, name, kind, mode(&meta), meta.st_rdev as _)?;
    }
    let (uid, gid) = owner(&meta);
    fchownat(to.as_fd(), name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind != SFlag::S_IFLNK {
        fchmodat(to, name, mode(&meta), FchmodatFlags::FollowSymlink)?; // chown takes the set-id bits away
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_and_no_link_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("a/b/file"), "text").unwrap();
        std::fs::set_permissions(from.join("a/b/file"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        let open = |p: &std::path::Path| OwnedFd::from(std::fs::File::open(p).unwrap());
        super::copy(&open(&from), &open(&to), "to").map_err(|f| f.what).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("a/b/file")).unwrap(), "text");
        assert_eq!(std::fs::metadata(to.join("a/b/file")).unwrap().permissions().mode() & 0o7777, 0o4711);
        assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert_eq!(std::fs::read_link(to.join("link")).unwrap().to_str(), Some("/etc/passwd"));
    }
}
