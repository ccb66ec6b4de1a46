//! System calls that std and nix do not offer: extended attributes.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `fsetxattr(2)`.
pub(crate) fn fsetxattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: `name` ends with NUL (CStr); the kernel reads exactly `value.len()` bytes from a live slice; `fd` is open while borrowed.
    let done = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `flistxattr(2)`: names, in the kernel's order; none where the file system has no attributes.
pub(crate) fn flistxattr(fd: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let listed = grow(|buffer, size| {
        // SAFETY: the kernel writes at most `size` bytes, which is the buffer's length; `fd` is open while borrowed.
        unsafe { libc::flistxattr(fd.as_raw_fd(), buffer.cast(), size) }
    });
    match listed {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        listed => Ok(names(&listed?)),
    }
}

/// `fgetxattr(2)`.
pub(crate) fn fgetxattr(fd: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    grow(|buffer, size| {
        // SAFETY: `name` ends with NUL (CStr); the kernel writes at most `size` bytes, the buffer's length; `fd` is open while borrowed.
        unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), buffer.cast(), size) }
    })
}

/// `lsetxattr(2)`: a symbolic link in the last component is not followed.
pub(crate) fn lsetxattr(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: both strings end with NUL (CStr); the kernel reads exactly `value.len()` bytes from a live slice.
    let done = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `llistxattr(2)`: names, in the kernel's order.
pub(crate) fn llistxattr(path: &CStr) -> io::Result<Vec<Vec<u8>>> {
    let bytes = grow(|buffer, size| {
        // SAFETY: `path` ends with NUL; the kernel writes at most `size` bytes, which is the buffer's length.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), size) }
    })?;
    Ok(names(&bytes))
}

fn names(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|b| *b == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

/// `lgetxattr(2)`.
pub(crate) fn lgetxattr(path: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    grow(|buffer, size| {
        // SAFETY: both strings end with NUL; the kernel writes at most `size` bytes, which is the buffer's length.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), size) }
    })
}

/// Attribute lists and values are at most 64 KiB (xattr(7)).
fn grow(mut call: impl FnMut(*mut u8, usize) -> libc::ssize_t) -> io::Result<Vec<u8>> {
    for size in [256usize, 65536] {
        let mut buffer = vec![0u8; size];
        let n = call(buffer.as_mut_ptr(), size);
        match usize::try_from(n) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            Err(_) => match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ERANGE) => {}
                e => return Err(e),
            },
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}
