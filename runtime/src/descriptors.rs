//! Descriptors that travel over Unix sockets (SCM_RIGHTS of unix(7)).

use crate::sys;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The most that come with one message; the kernel closes what is beyond.
pub(crate) const AT_ONCE_MAX: usize = 3;

/// Sends as many of `bytes` as fit, the descriptors with the first of them. Returns how many.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> nix::Result<usize> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let with = [ControlMessage::ScmRights(&raw)];
    let parts = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &parts, &with, MsgFlags::MSG_NOSIGNAL, None)
}

/// Where control messages are received, aligned as their header is.
#[repr(align(8))]
struct Space([u8; nix::sys::socket::cmsg_space::<[RawFd; AT_ONCE_MAX]>()]);

/// Reads bytes, and what descriptors came with them. `flags` as of recvmsg(2).
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8], flags: MsgFlags) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut space = Space([0; nix::sys::socket::cmsg_space::<[RawFd; AT_ONCE_MAX]>()]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space.0), flags)?;
    let mut came = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            came.extend(raw.into_iter().map(sys::own));
        }
    }
    Ok((message.bytes, came))
}
