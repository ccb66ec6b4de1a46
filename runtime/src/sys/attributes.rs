//! Attributes of this process, of terminals and of mount trees.

use super::check;
use super::mount::{MountAttr, mount_setattr};
use crate::container::extras::Scheduler;
use nix::errno::Errno;
use std::ffi::{CStr, c_int, c_long, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A detached copy of the mount that `path` lies on, from `path` down.
pub(crate) fn open_tree(path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    const CLONE: c_uint = 1;
    const AT_RECURSIVE: c_uint = 0x8000;
    let flags = CLONE | libc::O_CLOEXEC as c_uint | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: a NUL-terminated path and integers; the result is a fresh descriptor.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// The same of an open folder, with all mounts below it.
pub(crate) fn clone_tree(folder: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const CLONE: c_uint = 1;
    const AT_RECURSIVE: c_uint = 0x8000;
    let flags = CLONE | libc::O_CLOEXEC as c_uint | AT_RECURSIVE | libc::AT_EMPTY_PATH as c_uint;
    // SAFETY: a descriptor, an empty string and integers; the result is a fresh descriptor.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_open_tree, folder.as_raw_fd(), c"".as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Makes a detached tree show its owners through the maps of a user namespace.
pub(crate) fn map_mount(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    const IDMAP: u64 = 0x10_0000;
    let attr = MountAttr { set: IDMAP, clear: 0, propagation: 0, userns_fd: namespace.as_raw_fd() as u64 };
    mount_setattr(tree, &attr, recursive)
}

/// The other end of an unlocked terminal master, by descriptor: no path, so no link can lead elsewhere.
pub(crate) fn open_terminal_peer(master: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // _IOW('T', 0x31, int) and _IO('T', 0x41); powerpc has other direction bits.
    const POWERPC: bool = cfg!(target_arch = "powerpc64");
    const UNLOCK: u32 = if POWERPC { 0x8004_5431 } else { 0x4004_5431 };
    const PEER: u32 = if POWERPC { 0x2000_5441 } else { 0x5441 };
    let unlocked: c_int = 0;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the first call reads one int, the second takes integers and answers with a fresh descriptor.
    unsafe {
        check(c_long::from(libc::ioctl(master.as_raw_fd(), UNLOCK as _, &raw const unlocked)))?;
        let fd = check(c_long::from(libc::ioctl(master.as_raw_fd(), PEER as _, flags)))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Makes the terminal the controlling one of this session's leader.
pub(crate) fn take_terminal(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: integers only.
    check(c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0 as c_int) })).map(drop)
}

pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: reads one winsize.
    check(c_long::from(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) })).map(drop)
}

/// Rows and columns, `None` when it is no terminal.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: writes one winsize.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) };
    (result == 0).then_some((size.ws_row, size.ws_col))
}

pub(crate) fn personality(number: u32) -> Result<(), Errno> {
    // SAFETY: one integer.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(number)) }).map(drop)
}

/// `struct sched_attr` of linux/sched/types.h, size VER0.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

pub(crate) fn set_scheduler(wanted: &Scheduler) -> Result<(), Errno> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime_ns,
        deadline: wanted.deadline_ns,
        period: wanted.period_ns,
    };
    // SAFETY: pid 0 = self; reads one struct that says its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0 as c_uint) }).map(drop)
}

pub(crate) fn set_io_priority(priority: u32) -> Result<(), Errno> {
    const WHO_PROCESS: c_int = 1;
    // SAFETY: integers only; 0 = self.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0 as c_int, priority as c_int) }).map(drop)
}

pub(crate) fn set_affinity(mask: &[u64; 16]) -> Result<(), Errno> {
    // SAFETY: 0 = self; the kernel reads as many bytes as the mask has.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0 as c_int, size_of_val(mask), mask.as_ptr()) }).map(drop)
}

pub(crate) fn join_session_keyring(name: &CStr) -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a NUL-terminated name.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }).map(drop)
}

pub(crate) fn set_domainname(name: &str) -> Result<(), Errno> {
    // SAFETY: as many bytes are read as the name has.
    check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) }).map(drop)
}

/// Takes a descriptor that came over a socket.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg has just made it for us; nix hands it out as a number that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Standard input, for as long as anybody likes.
pub(crate) fn stdin() -> BorrowedFd<'static> {
    // SAFETY: descriptor 0 is open from start to end: Rust opens /dev/null there if it was closed, and nobody of ours closes it.
    unsafe { BorrowedFd::borrow_raw(0) }
}
