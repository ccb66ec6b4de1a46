//! The one unsafe corner of the agent: a socket option, a question to a terminal and a word to the allocator that nix has no types for.
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

/// Tells glibc's allocator what a small process of few threads wants: one heap for all of them, and what is free at its end back to the
/// kernel soon (mallopt(3)). Other libraries need no telling.
pub(crate) fn lean_heap() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, 128 << 10)] {
        // SAFETY: takes and gives numbers only, and is called before there is a second thread.
        unsafe {
            libc::mallopt(parameter, value);
        }
    }
}

/// Rows and columns of the terminal behind `fd` (ioctl_tty(2), TIOCGWINSZ); `None` if there is none or it does not say.
pub(crate) fn window(fd: impl AsFd) -> Option<(usize, usize)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open for the whole call because it is borrowed; the kernel writes one `winsize`, which lives on
    // this stack frame.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (done == 0 && size.ws_row > 0 && size.ws_col > 0).then(|| (size.ws_row.into(), size.ws_col.into()))
}
