//! The system calls that neither std nor nix has, each behind a safe function. The only `unsafe` of the crate.
#![allow(unsafe_code)]

mod attributes;

pub(crate) use attributes::*;

use nix::errno::Errno;
use std::ffi::{CStr, c_int, c_long, c_uint};
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
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// mount_setattr(2) with AT_RECURSIVE: the `rro`, `rnosuid`, … options. 5.12 and later.
pub(crate) fn set_mount_attributes(mount: BorrowedFd<'_>, set: u64, clear: u64) -> Result<(), Errno> {
    mount_setattr(mount, &MountAttr { set, clear, propagation: 0, userns_fd: 0 }, true)
}

fn mount_setattr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> Result<(), Errno> {
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

/// Loads classic BPF as a seccomp filter of this process. `program` is a whole number of `struct sock_filter` in native layout; the
/// descriptor is there when `flags` ask for a listener.
pub(crate) fn load_seccomp(program: &[u8], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    const NEW_LISTENER: u32 = 8;
    const SET_MODE_FILTER: c_uint = 1;
    let length = u16::try_from(program.len() / 8).map_err(|_| Errno::EINVAL)?;
    if length == 0 || !program.len().is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    // sock_filter needs 4-byte alignment, which a byte slice need not have.
    let mut words: Vec<u64> = vec![0; usize::from(length)];
    for (word, bytes) in words.iter_mut().zip(program.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    let fprog = libc::sock_fprog { len: length, filter: words.as_mut_ptr().cast() };
    // SAFETY: `fprog` names `length` instructions of 8 bytes each, alive in `words`; the kernel copies and verifies them.
    let fd = check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const fprog) })?;
    // SAFETY: with this flag, and only then, the answer is a fresh descriptor (close-on-exec by itself).
    Ok((flags & NEW_LISTENER != 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_DETACH: c_int = 9;
const BPF_PROG_GET_FD_BY_ID: c_int = 13;
const BPF_PROG_QUERY: c_int = 16;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of other groups on the way to the root stay in force, and so do several in one group.
const BPF_F_ALLOW_MULTI: u32 = 2;
/// Programs of one group that are looked at; we attach one.
const PROGRAMS_MAX: usize = 64;

/// `union bpf_attr`, as far as the five commands used here read it: words at fixed places, zero elsewhere.
#[repr(C, align(8))]
struct BpfAttr([u32; 32]);

impl BpfAttr {
    fn new(words: &[(usize, u32)]) -> Self {
        let mut attr = Self([0; 32]);
        for (at, value) in words {
            if let Some(word) = attr.0.get_mut(*at) {
                *word = *value;
            }
        }
        attr
    }

    /// A pointer field, at an even word; the kernel reads it as one u64 of this machine's order.
    fn point(&mut self, at: usize, address: u64) {
        let bytes = address.to_ne_bytes();
        for (word, half) in self.0.iter_mut().skip(at).zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*half);
        }
    }
}

fn bpf(command: c_int, attr: &mut BpfAttr) -> Result<c_long, Errno> {
    // SAFETY: `attr` is as large as said, its unused part is zero as bpf(2) wants it, and whatever its pointers name (program, licence,
    // the list of ids) is alive in the caller and as large as its count says.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<BpfAttr>()) })
}

fn bpf_descriptor(command: c_int, attr: &mut BpfAttr) -> Result<OwnedFd, Errno> {
    let fd = bpf(command, attr)?;
    // SAFETY: these commands answer with a fresh descriptor (close-on-exec by themselves).
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Has the kernel verify a BPF_PROG_TYPE_CGROUP_DEVICE program, a whole number of `struct bpf_insn`.
pub(crate) fn load_device_program(program: &[u8]) -> Result<OwnedFd, Errno> {
    const CGROUP_DEVICE: u32 = 15;
    // bpf_insn needs 4-byte alignment, which a byte slice need not have.
    let words: Vec<u64> = program.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes)).collect();
    let count = u32::try_from(words.len()).map_err(|_| Errno::E2BIG)?;
    let mut attr = BpfAttr::new(&[(0, CGROUP_DEVICE), (1, count)]);
    attr.point(2, words.as_ptr() as u64);
    attr.point(4, c"Apache-2.0".as_ptr() as u64);
    bpf_descriptor(BPF_PROG_LOAD, &mut attr)
}

pub(crate) fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let (group, program) = (group.as_raw_fd() as u32, program.as_raw_fd() as u32);
    let mut attr = BpfAttr::new(&[(0, group), (1, program), (2, BPF_CGROUP_DEVICE), (3, BPF_F_ALLOW_MULTI)]);
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

pub(crate) fn detach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let (group, program) = (group.as_raw_fd() as u32, program.as_raw_fd() as u32);
    bpf(BPF_PROG_DETACH, &mut BpfAttr::new(&[(0, group), (1, program), (2, BPF_CGROUP_DEVICE)])).map(drop)
}

/// The device programs attached to this very group.
pub(crate) fn device_programs(group: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0u32; PROGRAMS_MAX];
    let mut attr = BpfAttr::new(&[(0, group.as_raw_fd() as u32), (1, BPF_CGROUP_DEVICE), (6, PROGRAMS_MAX as u32)]);
    attr.point(4, ids.as_mut_ptr() as u64);
    bpf(BPF_PROG_QUERY, &mut attr)?;
    let count = attr.0.get(6).map_or(0, |n| *n as usize);
    ids.iter().take(count).map(|id| bpf_descriptor(BPF_PROG_GET_FD_BY_ID, &mut BpfAttr::new(&[(0, *id)]))).collect()
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
