//! The one unsafe corner of the network code: a socket option nix has no type for.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

/// Asks the kernel for errors in words (`NETLINK_EXT_ACK`) and without a copy of the request (`NETLINK_CAP_ACK`). Old
/// kernels know neither and then speak in errnos, which is fine.
pub(crate) fn want_words(socket: impl AsFd) {
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        let len = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(4);
        // SAFETY: the descriptor is open for the whole call because it is borrowed; the pointer is to `on`, alive on this
        // stack frame, with its exact size; the kernel only reads it.
        unsafe {
            libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), len);
        }
    }
}
