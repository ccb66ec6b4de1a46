//! The root file system: overlay or folder, and the change into it.

use super::Child;
use super::options;
use super::overlay::Overlay;
use super::report::{Fault, at, errno, plain};
use super::rooted;
use crate::container::{NamespaceKind, Rootfs};
use crate::sys;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const NONE: Option<&str> = None;

/// Nothing we mount may reach the host; what the host mounts later may reach us only where a slave mount is asked for.
pub(super) fn propagation(child: &mut Child<'_>) -> Result<(), Fault> {
    if !child.has(NamespaceKind::Mount) {
        return Ok(());
    }
    let word = child.container.rootfs_propagation.as_deref().unwrap_or("rslave");
    let flag = options::propagation(word).ok_or_else(|| plain(format!("rootfs propagation {word}: unknown")))?;
    let flag = if flag.contains(MsFlags::MS_SHARED) { flag } else { MsFlags::MS_SLAVE | MsFlags::MS_REC };
    mount(NONE, "/", NONE, flag, NONE).map_err(at("set propagation of", "/"))
}

/// Where the host's mounts are shared, a root bound to itself would show there too, and could not be pivoted to: the mount it lies in is ours alone
/// from here on (as with runc).
fn keep_to_ourselves(child: &Child<'_>, below: &OwnedFd) -> Result<(), Fault> {
    let word = child.container.rootfs_propagation.as_deref().unwrap_or_default();
    if !options::propagation(word).is_some_and(|flag| flag.contains(MsFlags::MS_SHARED)) {
        return Ok(());
    }
    let read = |path: &str| std::fs::read_to_string(path).map_err(|e| at("read", path)(errno(&e)));
    let info = read(&format!("/proc/self/fdinfo/{}", below.as_raw_fd()))?;
    let number = info.lines().find_map(|l| l.strip_prefix("mnt_id:")).map(str::trim).unwrap_or_default();
    let mounts = read("/proc/self/mountinfo")?;
    let point = mount_point(&mounts, number).ok_or_else(|| plain("rootfs: the mount it lies in is not to be found"))?;
    mount(NONE, &point, NONE, MsFlags::MS_PRIVATE, NONE).map_err(at("make private", point.display()))
}

/// Of the mount with this number (proc_pid_mountinfo(5): blanks and the like are `\ooo`).
fn mount_point(mountinfo: &str, number: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().find(|line| line.split(' ').next() == Some(number))?;
    let mut parts = line.split(' ').nth(4)?.split('\\');
    let mut path = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(3)?;
        path.push(u8::from_str_radix(digits, 8).ok()?);
        path.extend(rest.as_bytes());
    }
    Some(OsStr::from_bytes(&path).into())
}

/// Opened while the starter's user is ours: the way to it may be closed to the container's.
pub(super) fn source(child: &mut Child<'_>) -> Result<(), Fault> {
    match &child.container.rootfs {
        Rootfs::Path(path) if path != Path::new("/") => {
            let opened = rooted::open_outside(path).map_err(at("open rootfs", path.display()))?;
            child.root_source = Some(opened);
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn root(child: &mut Child<'_>) -> Result<(), Fault> {
    let mounts = child.has(NamespaceKind::Mount);
    match &child.container.rootfs {
        Rootfs::Path(path) if path == Path::new("/") => {}
        Rootfs::Path(_) if !mounts => child.root = child.root_source.take(),
        Rootfs::Path(path) => {
            let below = child.root_source.take().ok_or_else(|| plain("rootfs: not opened"))?;
            keep_to_ourselves(child, &below)?;
            let top = bind_root(&below, path).map_err(at("bind rootfs", path.display()))?;
            // A shared mount cannot be pivoted to, and ours shall not spread.
            mount(NONE, rooted::name(&top).as_str(), NONE, MsFlags::MS_PRIVATE, NONE)
                .map_err(at("make private", path.display()))?;
            child.root = Some(top);
        }
        Rootfs::Overlay { .. } if !mounts => return Err(plain("overlay root file system: needs a mount namespace")),
        Rootfs::Overlay { lower, upper, work, volatile } => {
            let overlay = Overlay { lower, upper, work, volatile: *volatile };
            child.root = Some(overlay.mount(child.scratch)?);
        }
    }
    Ok(())
}

/// The folder as a mount of its own, by descriptor: the way to it may be closed to the user we are now. By path where the kernel has
/// no such call.
fn bind_root(below: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    match sys::clone_tree(below.as_fd()) {
        Ok(tree) => {
            sys::attach_mount(tree.as_fd(), below.as_fd())?;
            Ok(tree)
        }
        Err(Errno::ENOSYS) => {
            mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
            rooted::open_outside(path)
        }
        Err(e) => Err(e),
    }
}

pub(super) fn pivot(child: &mut Child<'_>) -> Result<(), Fault> {
    let Some(root) = &child.root else { return Ok(()) };
    nix::unistd::fchdir(root).map_err(at("enter", "rootfs"))?;
    if !child.has(NamespaceKind::Mount) {
        nix::unistd::chroot(".").map_err(at("chroot to", "rootfs"))?;
        return Ok(());
    }
    let old = rooted::open_outside(Path::new("/")).map_err(at("open", "old root"))?;
    let pivoted = if child.extras.no_pivot { Err(Errno::EINVAL) } else { nix::unistd::pivot_root(".", ".") };
    match pivoted {
        Ok(()) => {
            // Both are at `.` now, which is the new one to who is in it. To detach the old one must reach nobody who has a share in it.
            nix::unistd::fchdir(&old).map_err(at("enter", "old root"))?;
            mount(NONE, ".", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE).map_err(at("make slave", "old root"))?;
            umount2(".", MntFlags::MNT_DETACH).map_err(at("detach", "old root"))?;
        }
        // The host's root is the initramfs, which cannot be pivoted away from.
        Err(Errno::EINVAL) => {
            mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE).map_err(at("move rootfs to", "/"))?;
            nix::unistd::chroot(".").map_err(at("chroot to", "rootfs"))?;
        }
        Err(e) => return Err(at("pivot_root to", "rootfs")(e)),
    }
    nix::unistd::chdir("/").map_err(at("enter", "/"))?;
    child.root = None;
    if let Some(flag) = child.container.rootfs_propagation.as_deref().and_then(options::propagation) {
        mount(NONE, "/", NONE, flag, NONE).map_err(at("set propagation of", "/"))?;
    }
    if child.container.readonly {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(NONE, "/", NONE, flags, NONE).map_err(at("make read-only", "/"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_by_number() {
        let text = "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n23 22 0:5 / /a\\040b\\134c rw - tmpfs x rw\n24 22 0:6 / /bad\\9 rw - tmpfs x rw\n";
        assert_eq!(mount_point(text, "22"), Some("/".into()));
        assert_eq!(mount_point(text, "23"), Some("/a b\\c".into()));
        assert_eq!((mount_point(text, "24"), mount_point(text, "2"), mount_point(text, "")), (None, None, None));
    }
}
