//! The system calls that neither std nor nix has, each behind a safe function. The only `unsafe` of the crate.
#![allow(unsafe_code)]

mod attributes;
mod bpf;
#[cfg(test)]
mod counting;
mod exits;
mod mount;

pub(crate) use attributes::*;
pub(crate) use bpf::*;
#[cfg(test)]
pub(crate) use counting::allocations;
pub(crate) use exits::*;
pub(crate) use mount::*;

use nix::errno::Errno;
use nix::poll::{PollFlags, PollTimeout};
use std::ffi::{c_int, c_long, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `struct clone_args` of linux/sched.h, size VER2 (5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

pub(crate) const CLONE_NEWTIME: u64 = 0x80;
/// The child is our parent's, as we are; it ends with the signal we end with.
pub(crate) const CLONE_PARENT: u64 = 0x8000;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

pub(crate) enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

fn check(result: c_long) -> Result<c_long, Errno> {
    Errno::result(result)
}

/// A fork with namespaces: the child goes on here with a copy of everything.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: c_int = -1;
    let mut args = CloneArgs {
        flags: flags | CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: if flags & CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack given, so this is fork(2): the child runs on its own copy of this stack. Only single-threaded
    // programs of ours (the keeper, mote-oci) come here, so no lock is held by a thread that the child lacks. `args` and `pidfd`
    // outlive the call; the kernel writes one int to `pidfd`, and only in the parent's memory.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the call succeeded with CLONE_PIDFD, so `pidfd` is a fresh descriptor nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid: pid as i32, pidfd })
}

/// As [`fork`]; the child's pid in the parent.
pub(crate) fn fork_pid() -> Result<Option<i32>, Errno> {
    // SAFETY: guard and worker are single-threaded and fork nowhere but in their own loops, holding no lock.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(None),
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child.as_raw())),
    }
}

/// `signal` to this process when its parent's thread ends.
pub(crate) fn tell_parent_death(signal: i32) -> Result<(), Errno> {
    // SAFETY: integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) }).map(drop)
}

/// A descriptor that came by a message or over an exec, and has no owner in this process yet.
pub(crate) fn received_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: callers have the number from the kernel's message, or from the predecessor that left it open for us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sets a flag of the descriptor just taken.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    fd
}

/// Leaves it open for the program executed next.
pub(crate) fn keep_over_exec(fd: RawFd) {
    // SAFETY: clears a flag; who is not open is told EBADF.
    unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
}

/// Plain fork of a single-threaded program: true in the child.
pub(crate) fn fork() -> Result<bool, Errno> {
    // SAFETY: called by the daemon start before any thread exists, and by the sandbox init, which is single-threaded.
    let result = unsafe { nix::unistd::fork() }?;
    Ok(result.is_child())
}

pub(crate) fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: two integers; the result is a fresh descriptor.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0 as c_uint) })?;
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: integers and a null siginfo, which the kernel fills as kill(2) does.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0 as c_uint)
    })
    .map(drop)
}

/// `struct pidfd_info` up to `exit_code` (linux/pidfd.h, size VER0).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    numbers: [u32; 11],
    exit_code: i32,
}

/// Wait status of a process that is not our child, once it has been reaped; kernels from 6.15 on.
pub(crate) fn pidfd_exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // _IOWR(0xFF, 11, struct pidfd_info); the two direction bits come to the same value on every architecture of ours.
    let request = (3u64 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xff << 8) | 11;
    // SAFETY: the size in the request is that of `info`, which the kernel fills no further.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), request as _, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Marks every descriptor from `first` up close-on-exec; kernels before 5.11 get the slow way.
pub(crate) fn close_on_exec_from(first: u32) {
    const CLOSE_RANGE_CLOEXEC: c_uint = 4;
    // SAFETY: integers only; no descriptor is closed, so no Rust owner is surprised.
    let result = check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, CLOSE_RANGE_CLOEXEC) });
    if result.is_err() {
        for fd in first..4096 {
            // SAFETY: sets one flag; EBADF for those that are not open.
            unsafe { libc::fcntl(fd as c_int, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// For a daemon that owns nothing yet: really closes them.
pub(crate) fn close_from(first: u32) {
    // SAFETY: called at the start of the keeper, before any descriptor from `first` up has an owner in this process.
    let result = check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0 as c_uint) });
    if result.is_err() {
        for fd in first..4096 {
            // SAFETY: as above.
            unsafe { libc::close(fd as c_int) };
        }
    }
}

pub(crate) fn set_rlimit(kind: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: pid 0 = self; reads one rlimit64.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, kind, &raw const limit, std::ptr::null_mut::<u8>()) })
        .map(drop)
}

pub(crate) fn get_rlimit(kind: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: pid 0 = self; writes one rlimit64.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, kind, std::ptr::null::<u8>(), &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets IFF_UP on `lo` of this process's network namespace.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    // SAFETY: an ordinary socket; the descriptor is fresh.
    let socket = unsafe {
        let fd = check(c_long::from(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)))?;
        OwnedFd::from_raw_fd(fd as RawFd)
    };
    // SAFETY: ifreq is plain data for which zeroes are valid; both ioctls read and write this one struct, whose name is NUL-terminated.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
            *to = from as libc::c_char;
        }
        check(c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request)))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request)))?;
    }
    Ok(())
}

/// Empty signal mask and default actions, as a fresh program expects them.
pub(crate) fn signal_mask_clear() {
    // SAFETY: an empty set is valid for sigprocmask; default actions hold no pointers. Called in a fresh child before exec.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        for signal in 1..65 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// A write to a pipe that nobody reads ends this process quietly, as it does any C program; Rust's start-up has it fail instead, and a print panic.
/// For commands that only print: who serves others must outlive them.
pub fn end_on_closed_pipe() {
    // SAFETY: the default action holds no pointers.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Ends a cloned child without running the parent's exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Gives freed heap pages back to the kernel (glibc keeps them; musl returns them itself).
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer, touches only free memory of the allocator; we are single-threaded.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// As nix's, but without a lifetime, so that a list of them can be used again. Whoever polls has the descriptors open.
#[repr(transparent)]
pub(crate) struct PollFd(libc::pollfd);

impl PollFd {
    pub(crate) fn new(fd: BorrowedFd<'_>, flags: PollFlags) -> Self {
        Self(libc::pollfd { fd: fd.as_raw_fd(), events: flags.bits(), revents: 0 })
    }

    /// After [`poll`]; whatever the kernel says that has no name counts as well.
    pub(crate) fn state(&self) -> PollFlags {
        PollFlags::from_bits_retain(self.0.revents)
    }
}

/// poll(2).
pub(crate) fn poll(fds: &mut [PollFd], timeout: PollTimeout) -> Result<(), Errno> {
    // SAFETY: as many structures as said, of the kernel's layout (transparent); it writes their `revents` alone. A closed descriptor is told as such.
    let result = unsafe { libc::poll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, i32::from(timeout)) };
    Errno::result(result).map(drop)
}

/// One dead child of ours with its wait status, without waiting.
pub(crate) fn reap_one() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: writes one int.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Moves up to `most` bytes from a pipe to the start of a file, without waiting for any to come.
pub(crate) fn splice_to_start(pipe: BorrowedFd<'_>, file: BorrowedFd<'_>, most: usize) -> Result<usize, Errno> {
    let mut at: libc::loff_t = 0;
    let (pipe, file) = (pipe.as_raw_fd(), file.as_raw_fd());
    // SAFETY: two descriptors, a null offset as pipes need it, and one that outlives the call.
    let moved = unsafe { libc::splice(pipe, std::ptr::null_mut(), file, &raw mut at, most, libc::SPLICE_F_NONBLOCK) };
    Errno::result(moved).map(|count| count as usize)
}

/// Moves up to `most` bytes from a terminal's master into a pipe; waits for neither.
pub(crate) fn splice_into(from: BorrowedFd<'_>, pipe: BorrowedFd<'_>, most: usize) -> Result<usize, Errno> {
    let (from, pipe) = (from.as_raw_fd(), pipe.as_raw_fd());
    let none = std::ptr::null_mut;
    // SAFETY: two descriptors and null offsets.
    let moved = unsafe { libc::splice(from, none(), pipe, none(), most, libc::SPLICE_F_NONBLOCK) };
    Errno::result(moved).map(|count| count as usize)
}

/// A dead child of ours.
pub(crate) struct Ended {
    pub(crate) pid: i32,
    /// As wait(2) gives it.
    pub(crate) status: i32,
}

/// One dead child, without waiting and without taking it away: until [`reap`] its pid stays its own, and a status that is not yet written
/// down is not lost with us.
pub(crate) fn peek_ended() -> Option<Ended> {
    // SAFETY: siginfo_t is plain data for which zeroes are valid; the call writes it. WNOHANG with nobody dead leaves the pid zero.
    let (pid, code, value) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &raw mut info, flags) != 0 {
            return None;
        }
        (info.si_pid(), info.si_code, info.si_status())
    };
    let status = match code {
        libc::CLD_EXITED => (value & 0xff) << 8,
        libc::CLD_DUMPED => value | 0x80,
        _ => value,
    };
    (pid > 0).then_some(Ended { pid, status })
}

/// Takes a dead child away; no child of ours is fine.
pub(crate) fn reap(pid: i32) {
    // SAFETY: a null status is allowed.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
}

/// Whether clone3 is there and allowed, without cloning: a size of zero is refused as EINVAL by a kernel that knows the call.
pub(crate) fn clone3_exists() -> bool {
    // SAFETY: a null pointer of size 0, which the kernel refuses before it reads anything.
    let result = check(unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0usize) });
    result == Err(Errno::EINVAL)
}
