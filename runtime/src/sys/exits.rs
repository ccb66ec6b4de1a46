//! Ends of processes that are nobody's children of ours, as the kernel's process connector tells them (linux/cn_proc.h, linux/connector.h).

use super::check;
use nix::errno::Errno;
use std::ffi::c_long;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const EXIT: u32 = 0x8000_0000;
/// Where fields are in a message: nlmsghdr (16 bytes), cn_msg (20), proc_event.
const WHAT: u32 = 36;
const PID: u32 = 52;
const STATUS: u32 = 60;
/// A filter has 4096 instructions; with more processes all ends are let through.
const PIDS_MAX: usize = 2000;

/// A socket that hears of ends, only those of `pids`; it is read when one is looked for, and wakes nobody.
pub(crate) fn exit_news() -> Result<OwnedFd, Errno> {
    const CONNECTOR: i32 = 11;
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: integers only; the descriptor is fresh.
    let socket = unsafe {
        let fd = check(c_long::from(libc::socket(libc::AF_NETLINK, kind, CONNECTOR)))?;
        OwnedFd::from_raw_fd(fd as RawFd)
    };
    // SAFETY: sockaddr_nl is plain data for which zeroes are valid; the call reads it, with its size.
    unsafe {
        let mut address: libc::sockaddr_nl = std::mem::zeroed();
        (address.nl_family, address.nl_groups) = (libc::AF_NETLINK as u16, 1);
        let size = size_of::<libc::sockaddr_nl>() as u32;
        check(c_long::from(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size)))?;
    }
    Ok(socket)
}

/// Asks for events. Nobody takes that back: the socket may be shared with the process we forked from, and kernels before 6.6 only count.
pub(crate) fn exit_news_wanted(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // nlmsghdr {length, NLMSG_DONE, 0, 0, 0}, cn_msg {CN_IDX_PROC, CN_VAL_PROC, 0, 0, length 4}, PROC_CN_MCAST_LISTEN.
    let halves = |low: u16, high: u16| -> u32 {
        let ([a, b], [c, d]) = (low.to_ne_bytes(), high.to_ne_bytes());
        u32::from_ne_bytes([a, b, c, d])
    };
    let message: [u32; 10] = [40, halves(3, 0), 0, 0, 1, 1, 0, 0, halves(4, 0), 1];
    // SAFETY: reads the message, whose size is given.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), size_of_val(&message), 0) };
    check(sent as c_long).map(drop)
}

/// From now on only ends of `pids` are queued.
pub(crate) fn exit_news_of(socket: BorrowedFd<'_>, pids: &[i32]) -> Result<(), Errno> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Loads read the network's byte order, the message is in the machine's.
    let turned = |value: u32| u32::from_be_bytes(value.to_ne_bytes());
    let mut program = vec![op(LOAD_WORD, 0, 0, WHAT), op(JUMP_EQUAL, 1, 0, turned(EXIT)), op(RETURN, 0, 0, 0)];
    if pids.len() <= PIDS_MAX {
        program.push(op(LOAD_WORD, 0, 0, PID));
        for pid in pids {
            program.extend([op(JUMP_EQUAL, 0, 1, turned(*pid as u32)), op(RETURN, 0, 0, u32::MAX)]);
        }
        program.push(op(RETURN, 0, 0, 0));
    } else {
        program.push(op(RETURN, 0, 0, u32::MAX));
    }
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let size = size_of::<libc::sock_fprog>() as u32;
    // SAFETY: `filter` names as many instructions as `program` has, both alive; the kernel copies and verifies them.
    let set = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const filter).cast(), size)
    };
    check(c_long::from(set)).map(drop)
}

/// The next end that is queued: pid and wait status.
pub(crate) fn next_exit(socket: BorrowedFd<'_>) -> Option<(i32, i32)> {
    let mut message = [0u8; 256];
    // SAFETY: writes at most the buffer's size.
    let got = unsafe { libc::recv(socket.as_raw_fd(), message.as_mut_ptr().cast(), message.len(), libc::MSG_DONTWAIT) };
    let message = message.get(..usize::try_from(got).ok()?)?;
    let word = |at: u32| {
        let bytes = message.get(at as usize..)?.first_chunk::<4>()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    if word(WHAT) == Some(EXIT) { Some((word(PID)? as i32, word(STATUS)? as i32)) } else { Some((0, 0)) }
}
