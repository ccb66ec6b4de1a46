//! What only OCI's own words can ask for, beside [`Container`](super::Container): hooks, terminals, id maps, labels, scheduling.
//!
//! Not part of the keeper's frames: Kubernetes asks for none of it today.

use super::rdt::Rdt;
use std::path::PathBuf;

/// Most lines of one id map (user_namespaces(7)).
pub const ID_MAP_LINES_MAX: usize = 340;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    pub hooks: Hooks,
    /// Of a user namespace that is made; empty = the starter's own id alone becomes root.
    pub uid_maps: Vec<IdMap>,
    pub gid_maps: Vec<IdMap>,
    /// `monotonic` or `boottime`, seconds, nanoseconds.
    pub time_offsets: Vec<(String, i64, u32)>,
    /// personality(2).
    pub personality: Option<u32>,
    /// SELinux label of every file system that is mounted.
    pub mount_label: Option<String>,
    /// Mounts, by their place in `Container::mounts`, shown with other owners.
    pub mount_maps: Vec<(usize, MountMaps)>,
    /// Descriptors from 3 up that the program keeps.
    pub keep_fds: u32,
    /// Stay in the host's root mount: move the root file system over `/` and chroot (initramfs).
    pub no_pivot: bool,
    /// A session keyring of its own, as runc makes one.
    pub own_keyring: bool,
    /// Network devices of the host's that become the container's: name here, name there.
    pub devices: Vec<(String, String)>,
    pub rdt: Option<Rdt>,
    pub process: ProcessExtras,
}

/// The part that an exec has too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessExtras {
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    pub scheduler: Option<Scheduler>,
    /// ioprio_set(2): class in the upper three bits of sixteen, level below.
    pub io_priority: Option<u32>,
    /// CPU list before the container's group is entered, and the one the program runs with.
    pub cpu_affinity: (Option<String>, Option<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountMaps {
    /// Empty = those of the container's user namespace.
    pub uid: Vec<IdMap>,
    pub gid: Vec<IdMap>,
    pub recursive: bool,
}

/// sched_setattr(2), units as there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime_ns: u64,
    pub deadline_ns: u64,
    pub period_ns: u64,
}

/// In the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// `args[0]` included; empty = the path alone.
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Seconds; absent = for ever.
    pub timeout_s: Option<u32>,
}

/// One line a user namespace's map file wants per range.
pub(crate) fn map_text(maps: &[IdMap]) -> String {
    maps.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count)).collect()
}

/// `0-2,5` -> bits of an affinity mask, lowest CPU first; at most 1024 CPUs.
pub(crate) fn cpu_list(text: &str) -> Option<[u64; 16]> {
    let mut mask = [0u64; 16];
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last {
            return None;
        }
        for cpu in first..=last.min(1024) {
            *mask.get_mut(cpu / 64)? |= 1 << (cpu % 64);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_list("0-2, 5").unwrap()[0], 0b10_0111);
        assert_eq!(cpu_list("64").unwrap()[1], 1);
        assert_eq!(cpu_list("").unwrap(), [0; 16]);
        for bad in ["2-1", "x", "1024", "1-", "0-99999999999"] {
            assert_eq!(cpu_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn maps_are_lines() {
        let map = IdMap { inside: 0, outside: 100_000, count: 65_536 };
        assert_eq!(map_text(&[map, IdMap { inside: 65_536, outside: 5, count: 1 }]), "0 100000 65536\n65536 5 1\n");
    }
}
