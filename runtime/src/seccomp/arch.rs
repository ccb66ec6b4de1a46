//! Architectures of one build's family, and the numbers their system calls have.
//!
//! The tables are text made by `examples/syscall_tables.rs`; its head describes their lines. A build carries its own family's alone: a
//! filter for another machine is of no use here.

/// Architectures whose programs one kernel runs, and how that kernel lays out what a filter reads.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    pub(crate) big_endian: bool,
    /// The family's own first, in the order of the table's columns.
    pub(crate) arches: &'static [Arch],
    table: &'static str,
}

pub(crate) struct Arch {
    /// As OCI and libseccomp write it, without `SCMP_ARCH_`.
    pub(crate) name: &'static str,
    /// AUDIT_ARCH_* of linux/audit.h.
    pub(crate) token: u32,
    /// Programs of this architecture pass 32-bit arguments; the upper halves mean nothing.
    pub(crate) narrow: bool,
    /// socketcall(2) and ipc(2), where the architecture has them.
    pub(crate) multiplexers: bool,
}

/// Number of the first x32 call; x32 shares x86_64's token.
pub(crate) const X32_FIRST: u32 = 0x4000_0000;
/// socketcall(2) and ipc(2) have these numbers wherever they are.
pub(crate) const SOCKETCALL: u32 = 102;
pub(crate) const IPC: u32 = 117;

const fn arch(name: &'static str, token: u32, narrow: bool, multiplexers: bool) -> Arch {
    Arch { name, token, narrow, multiplexers }
}

#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) const X86_64: Family = Family {
    big_endian: false,
    arches: &[
        arch("X86_64", 0xc000_003e, false, false),
        arch("X86", 0x4000_0003, true, true),
        arch("X32", 0xc000_003e, true, false),
    ],
    table: include_str!("tables/x86_64.txt"),
};

#[cfg(any(test, target_arch = "aarch64"))]
pub(crate) const AARCH64: Family = Family {
    big_endian: false,
    arches: &[arch("AARCH64", 0xc000_00b7, false, false), arch("ARM", 0x4000_0028, true, false)],
    table: include_str!("tables/aarch64.txt"),
};

#[cfg(any(test, target_arch = "s390x"))]
pub(crate) const S390X: Family = Family {
    big_endian: true,
    arches: &[arch("S390X", 0x8000_0016, false, true), arch("S390", 0x16, true, true)],
    table: include_str!("tables/s390x.txt"),
};

#[cfg(any(test, target_arch = "powerpc64"))]
pub(crate) const PPC64LE: Family = Family {
    big_endian: false,
    arches: &[arch("PPC64LE", 0xc000_0015, false, true)],
    table: include_str!("tables/ppc64le.txt"),
};

/// The family of this build; `None` where we have no table, and so no filters.
pub(crate) fn family() -> Option<Family> {
    #[cfg(target_arch = "x86_64")]
    return Some(X86_64);
    #[cfg(target_arch = "aarch64")]
    return Some(AARCH64);
    #[cfg(target_arch = "s390x")]
    return Some(S390X);
    #[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
    return Some(PPC64LE);
    #[allow(unreachable_code)]
    None
}

/// Architectures libseccomp knows and no build of ours runs on; a profile may name them.
const FOREIGN: [&str; 22] = [
    "X86",
    "X86_64",
    "X32",
    "ARM",
    "AARCH64",
    "S390",
    "S390X",
    "PPC64LE",
    "PPC",
    "PPC64",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PARISC",
    "PARISC64",
    "RISCV64",
    "LOONGARCH64",
    "M68K",
    "SHEB",
];

/// Whether anybody's architecture is called so.
pub(crate) fn known(name: &str) -> bool {
    FOREIGN.contains(&name) || name == "SH"
}

/// Columns of a table.
const COLUMNS_MAX: usize = 3;

/// A family's calls by name.
pub(crate) struct Calls(Vec<(&'static str, [Option<u32>; COLUMNS_MAX])>);

impl Calls {
    pub(crate) fn read(family: &Family) -> Self {
        let mut last = [u32::MAX; COLUMNS_MAX];
        let mut all = Vec::with_capacity(480);
        for line in family.table.lines() {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let mut numbers = [None; COLUMNS_MAX];
            for (number, last) in numbers.iter_mut().zip(&mut last).take(family.arches.len()) {
                *number = match words.next() {
                    Some("-") => continue,
                    None | Some(".") => Some(last.wrapping_add(1)),
                    Some(digits) => digits.parse().ok(),
                };
                *last = number.unwrap_or(*last);
            }
            all.push((name, numbers));
        }
        all.sort_unstable_by_key(|(name, _)| *name);
        Self(all)
    }

    /// Numbers in the order of the family's architectures; `None` = no such call on any of them.
    pub(crate) fn find(&self, name: &str) -> Option<&[Option<u32>; COLUMNS_MAX]> {
        let at = self.0.binary_search_by_key(&name, |(name, _)| name).ok()?;
        self.0.get(at).map(|(_, numbers)| numbers)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }
}

/// First argument of socketcall(2) or ipc(2) that stands for the call `name`: (multiplexer, argument).
pub(crate) fn multiplexed(name: &str) -> Option<(u32, u32)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPCS: [(&str, u32); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(at) = SOCKET.iter().position(|n| *n == name) {
        return Some((SOCKETCALL, at as u32 + 1));
    }
    IPCS.iter().find(|(n, _)| *n == name).map(|(_, number)| (IPC, *number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_the_headers_have_them() {
        let find = |family: &Family, name: &str| Calls::read(family).find(name).copied();
        assert_eq!(find(&X86_64, "read"), Some([Some(0), Some(3), Some(X32_FIRST)]));
        assert_eq!(find(&X86_64, "execve"), Some([Some(59), Some(11), Some(X32_FIRST + 520)]));
        assert_eq!(find(&X86_64, "clone3"), Some([Some(435), Some(435), Some(X32_FIRST + 435)]));
        assert_eq!(find(&X86_64, "socketcall"), Some([None, Some(SOCKETCALL), None]));
        assert_eq!(find(&AARCH64, "openat"), Some([Some(56), Some(322), None]));
        assert_eq!(find(&AARCH64, "set_tls"), Some([None, Some(0xf_0005), None]));
        assert_eq!(find(&AARCH64, "execveat"), Some([Some(281), Some(387), None]));
        assert_eq!(find(&S390X, "mmap2"), Some([None, Some(192), None]));
        assert_eq!(find(&S390X, "ipc"), Some([Some(IPC), Some(IPC), None]));
        assert_eq!(find(&S390X, "openat2"), Some([Some(437), Some(437), None]));
        assert_eq!(find(&PPC64LE, "switch_endian"), Some([Some(363), None, None]));
        assert_eq!(find(&PPC64LE, "no_such_call"), None);
        assert_eq!((multiplexed("sendmmsg"), multiplexed("shmctl")), (Some((102, 20)), Some((117, 24))));
    }

    #[test]
    fn tables_follow_this_kernels_library() {
        // libc's own constants are an independent source for the architecture the tests run on.
        let calls = Calls::read(&family().unwrap());
        let pairs = [("openat2", libc::SYS_openat2), ("pidfd_open", libc::SYS_pidfd_open), ("exit", libc::SYS_exit)];
        for (name, number) in pairs {
            assert_eq!(calls.find(name).unwrap()[0].map(i64::from), Some(number), "{name}");
        }
    }
}
