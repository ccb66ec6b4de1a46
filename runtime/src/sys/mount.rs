//! The mount calls of Linux 5.2 and later.

use super::check;
use nix::errno::Errno;
use std::ffi::{CStr, c_int, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A new mount of `fstype`, configured by `(key, value)`, not yet attached anywhere.
pub(crate) fn new_mount(fstype: &CStr, options: &[(&CStr, std::ffi::CString)]) -> Result<OwnedFd, Errno> {
    const CONFIG_STRING: c_uint = 1;
    const CONFIG_CREATE: c_uint = 6;
    const CLOEXEC: c_uint = 1;
    // SAFETY: a NUL-terminated name; the result is a fresh descriptor.
    let context = unsafe {
        let fd = check(libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), CLOEXEC))?;
        OwnedFd::from_raw_fd(fd as RawFd)
    };
    let configure = |command: c_uint, key: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: key and value are null or NUL-terminated and outlive the call.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0 as c_int) })
    };
    for (key, value) in options {
        configure(CONFIG_STRING, key.as_ptr(), value.as_ptr())?;
    }
    configure(CONFIG_CREATE, std::ptr::null(), std::ptr::null())?;
    // SAFETY: integers only; a fresh descriptor.
    let fd = check(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0 as c_uint) })?;
    // SAFETY: just made.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches a mount made by [`new_mount`] at the folder or file `target` stands for.
pub(crate) fn attach_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    const FROM_EMPTY: c_uint = 0x4;
    const TO_EMPTY: c_uint = 0x40;
    // SAFETY: two descriptors and two empty strings.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            FROM_EMPTY | TO_EMPTY,
        )
    })
    .map(drop)
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
pub(super) struct MountAttr {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) propagation: u64,
    pub(super) userns_fd: u64,
}

/// mount_setattr(2) with AT_RECURSIVE: the `rro`, `rnosuid`, … options. 5.12 and later.
pub(crate) fn set_mount_attributes(mount: BorrowedFd<'_>, set: u64, clear: u64) -> Result<(), Errno> {
    mount_setattr(mount, &MountAttr { set, clear, propagation: 0, userns_fd: 0 }, true)
}

pub(super) fn mount_setattr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> Result<(), Errno> {
    const AT_RECURSIVE: c_uint = 0x8000;
    // SAFETY: a descriptor, an empty string, and a struct whose size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as c_uint | if recursive { AT_RECURSIVE } else { 0 },
            &raw const *attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}
