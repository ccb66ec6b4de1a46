//! Programs for the kernel: seccomp filters and the device programs of cgroup v2.

use super::check;
use nix::errno::Errno;
use std::ffi::{c_int, c_long, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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
