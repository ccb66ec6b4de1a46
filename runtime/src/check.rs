//! What this host lacks, in plain words, for `mote check`: each finding with what stops working and how to fix it.
//!
//! Looks and small harmless trials only; nothing is mounted, made or changed.

use crate::cgroup::{Layout, Mode};
use crate::sys;
use std::os::fd::AsFd;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    /// Works, with less.
    Warning,
    /// Pods cannot run.
    Missing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    /// `overlay file system`, `cgroup controller memory`, …
    pub what: String,
    /// What was seen, or what will not work.
    pub says: String,
    /// Empty, or what to do.
    pub fix: String,
}

/// Facts of a host; gathered by [`check`], judged by [`judge`].
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub root: bool,
    pub kernel: (u32, u32),
    pub filesystems: String,
    /// Names found in /proc/self/ns.
    pub namespaces: Vec<String>,
    pub controllers: Vec<String>,
    pub cgroup_mode: Option<Mode>,
    /// bpf(2) takes a program for a group's devices.
    pub device_programs: bool,
    pub openat2: bool,
    pub pidfd: bool,
    pub clone3: bool,
    pub sys_resource: bool,
    pub swap_accounting: bool,
    pub psi: bool,
    pub nf_tables: Option<bool>,
    pub ip_forward: bool,
    pub hard_open_files: u64,
    pub run_is_tmpfs: bool,
}

pub fn check() -> Vec<Finding> {
    judge(&gather())
}

/// Reads this host.
pub fn gather() -> Facts {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let layout = Layout::discover();
    let controllers = ["memory", "pids", "cpu", "cpuacct", "cpuset", "devices", "freezer"];
    let permitted = caps::read(None, caps::CapSet::Permitted).unwrap_or_default();
    let memory = layout.find("memory").map(|(root, v2)| (root.to_owned(), v2));
    Facts {
        root: nix::unistd::geteuid().is_root(),
        kernel: version(&read("/proc/sys/kernel/osrelease")),
        filesystems: read("/proc/filesystems"),
        namespaces: names_in("/proc/self/ns"),
        controllers: controllers.iter().filter(|c| layout.has(c)).map(|c| (*c).to_owned()).collect(),
        cgroup_mode: Some(layout.mode()),
        device_programs: crate::cgroup::devices::supported(),
        openat2: openat2_works(),
        pidfd: sys::pidfd_open(std::process::id() as i32).is_ok_and(|fd| sys::pidfd_send_signal(fd.as_fd(), 0).is_ok()),
        clone3: sys::clone3_exists(),
        sys_resource: permitted.contains(&caps::Capability::CAP_SYS_RESOURCE),
        swap_accounting: memory.is_some_and(|(root, v2)| v2 || root.join("memory.memsw.limit_in_bytes").exists()),
        psi: Path::new("/proc/pressure/memory").exists(),
        nf_tables: nf_tables(&read("/proc/modules")),
        ip_forward: read("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        hard_open_files: sys::get_rlimit(crate::container::rlimit_number("RLIMIT_NOFILE").unwrap_or(7))
            .map_or(0, |(_, hard)| hard),
        run_is_tmpfs: nix::sys::statfs::statfs("/run")
            .is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC),
    }
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn openat2_works() -> bool {
    use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, "/", how).is_ok()
}

/// `None` = built in or loadable cannot be told without trying; a netlink socket of the netfilter family is the cheap trial.
fn nf_tables(modules: &str) -> Option<bool> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    if modules.lines().any(|l| l.starts_with("nf_tables ")) {
        return Some(true);
    }
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
    match socket {
        Ok(_) if Path::new("/proc/sys/net/netfilter").exists() => Some(true),
        Ok(_) => None,
        Err(_) => Some(false),
    }
}

/// One thing a host should have.
struct Wish {
    what: &'static str,
    level: Level,
    good: fn(&Facts) -> bool,
    /// What does not work without it.
    says: &'static str,
    fix: &'static str,
}

impl Wish {
    const fn missing(what: &'static str, good: fn(&Facts) -> bool, says: &'static str, fix: &'static str) -> Self {
        Self { what, level: Level::Missing, good, says, fix }
    }
    const fn warning(what: &'static str, good: fn(&Facts) -> bool, says: &'static str, fix: &'static str) -> Self {
        Self { what, level: Level::Warning, good, says, fix }
    }
}

impl Facts {
    fn namespace(&self, file: &str) -> bool {
        self.namespaces.iter().any(|n| n == file)
    }
    fn controller(&self, name: &str) -> bool {
        self.controllers.iter().any(|c| c == name)
    }
    fn cgroups(&self) -> bool {
        self.cgroup_mode.is_some_and(|m| m != Mode::None)
    }
    fn overlay(&self) -> bool {
        self.filesystems.lines().any(|l| l.ends_with("\toverlay"))
    }
}

const ALLOW: &str = "allow it in the seccomp profile around mote, or upgrade";
const ISOLATED: &str = "pods are isolated by them";
const NAMESPACES: &str = "build the kernel with CONFIG_NAMESPACES and its parts";
/// Raspberry Pi OS and others switch the memory controller off.
const MEMORY_FIX: &str = "boot with cgroup_enable=memory cgroup_memory=1 on the kernel's command line";
/// Stands for "kernel" and its version.
const KERNEL: &str = "kernel";

const HOST: [Wish; 12] = [
    Wish::missing("user root", |f| f.root, "containers, mounts and networks need root", "run as root or with sudo"),
    Wish::missing(
        KERNEL,
        |f| f.kernel >= (5, 6),
        "openat2 and pidfd_send_signal need 5.6 or newer",
        "upgrade the kernel",
    ),
    Wish::missing("clone3", |f| f.clone3, "containers are started by it", ALLOW),
    Wish::missing("openat2", |f| f.openat2, "paths of an image are looked up safely by it", ALLOW),
    Wish::missing("pidfd", |f| f.pidfd, "containers are watched and signalled by it", "upgrade the kernel"),
    Wish::missing(
        "overlay file system",
        Facts::overlay,
        "image layers are joined by it",
        "modprobe overlay, or build the kernel with CONFIG_OVERLAY_FS",
    ),
    Wish::missing("mount namespaces", |f| f.namespace("mnt"), ISOLATED, NAMESPACES),
    Wish::missing("PID namespaces", |f| f.namespace("pid"), ISOLATED, NAMESPACES),
    Wish::missing("network namespaces", |f| f.namespace("net"), ISOLATED, NAMESPACES),
    Wish::missing("IPC namespaces", |f| f.namespace("ipc"), ISOLATED, NAMESPACES),
    Wish::missing("UTS namespaces", |f| f.namespace("uts"), ISOLATED, NAMESPACES),
    Wish::missing("cgroup namespaces", |f| f.namespace("cgroup"), ISOLATED, NAMESPACES),
];

const MOUNTED: Wish = Wish::missing(
    "cgroups",
    Facts::cgroups,
    "no cgroup file system is mounted",
    "mount -t cgroup2 none /sys/fs/cgroup",
);

/// Asked only where cgroups are mounted.
const GROUPS: [Wish; 6] = [
    Wish::missing("cgroup controller memory", |f| f.controller("memory"), "memory limits cannot be kept", MEMORY_FIX),
    Wish::missing(
        "cgroup controller pids",
        |f| f.controller("pids"),
        "a fork bomb in a pod would take the node",
        "build the kernel with CONFIG_CGROUP_PIDS",
    ),
    Wish::missing(
        "cgroup controller cpu",
        |f| f.controller("cpu"),
        "cpu limits and shares cannot be kept",
        "build the kernel with CONFIG_CFS_BANDWIDTH",
    ),
    Wish::warning(
        "cgroup controller cpuset",
        |f| f.controller("cpuset"),
        "no cpu pinning",
        "boot with cgroup_enable=cpuset",
    ),
    Wish::warning(
        "device rules",
        |f| f.cgroup_mode != Some(Mode::V2) || f.device_programs,
        "bpf(2) refuses device programs: containers are kept from devices by capabilities and file modes alone",
        "give CAP_BPF (or CAP_SYS_ADMIN) to what runs mote; the kernel needs CONFIG_CGROUP_BPF",
    ),
    Wish::warning(
        "swap accounting",
        |f| f.swap_accounting,
        "swap use of pods is not limited",
        "boot with swapaccount=1",
    ),
];

const NODE: [Wish; 7] = [
    Wish::warning(
        "CAP_SYS_RESOURCE",
        |f| f.sys_resource,
        "oom_score_adj cannot be lowered and hard limits cannot be raised",
        "give the capability to the service or outer container that runs mote",
    ),
    Wish::missing(
        "nf_tables",
        |f| f.nf_tables != Some(false),
        "Services and masquerading are nf_tables rules",
        "modprobe nf_tables nf_nat, or CONFIG_NF_TABLES",
    ),
    Wish::warning(
        "nf_tables loaded",
        |f| f.nf_tables.is_some(),
        "could not be seen; it may load on first use",
        "modprobe nf_tables nf_nat nft_chain_nat",
    ),
    Wish::warning(
        "net.ipv4.ip_forward",
        |f| f.ip_forward,
        "is off; mote turns it on when the pod network starts",
        "sysctl -w net.ipv4.ip_forward=1",
    ),
    Wish::warning("PSI", |f| f.psi, "no pressure figures: eviction goes by thresholds only", "boot with psi=1"),
    Wish::warning(
        "open files",
        |f| f.hard_open_files >= 4096,
        "the hard limit is below 4096: each container takes a few in the keeper",
        "ulimit -Hn 65536, or LimitNOFILE= in the unit",
    ),
    Wish::warning(
        "/run",
        |f| f.run_is_tmpfs,
        "is no tmpfs: run-time state would reach the disk and outlive a reboot",
        "mount -t tmpfs tmpfs /run",
    ),
];

/// Pure: every choice is in the tables.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let groups: &[Wish] = if facts.cgroups() { &GROUPS } else { &[] };
    let wishes = HOST.iter().chain([&MOUNTED]).chain(groups).chain(&NODE);
    wishes.map(|wish| wish.judge(facts)).collect()
}

impl Wish {
    fn judge(&self, facts: &Facts) -> Finding {
        let (major, minor) = facts.kernel;
        let what = if self.what == KERNEL { format!("kernel {major}.{minor}") } else { self.what.to_owned() };
        let good = (self.good)(facts);
        let (level, says, fix) = if good { (Level::Ok, "", "") } else { (self.level, self.says, self.fix) };
        Finding { level, what, says: says.into(), fix: fix.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            root: true,
            kernel: (6, 1),
            filesystems: "nodev\tproc\nnodev\toverlay\n".into(),
            namespaces: ["mnt", "pid", "net", "ipc", "uts", "cgroup"].map(String::from).to_vec(),
            controllers: ["memory", "pids", "cpu", "cpuset"].map(String::from).to_vec(),
            cgroup_mode: Some(Mode::V2),
            device_programs: true,
            openat2: true,
            pidfd: true,
            clone3: true,
            sys_resource: true,
            swap_accounting: true,
            psi: true,
            nf_tables: Some(true),
            ip_forward: true,
            hard_open_files: 65536,
            run_is_tmpfs: true,
        }
    }

    fn bad(facts: &Facts) -> Vec<(Level, String)> {
        judge(facts).into_iter().filter(|f| f.level != Level::Ok).map(|f| (f.level, f.what)).collect()
    }

    #[test]
    fn each_lack_is_named() {
        assert_eq!(bad(&good()), []);
        type Change = fn(&mut Facts);
        let table: [(Change, Level, &str); 21] = [
            (|f| f.root = false, Level::Missing, "user root"),
            (|f| f.kernel = (4, 19), Level::Missing, "kernel 4.19"),
            (|f| f.filesystems = "nodev\toverlayish\n".into(), Level::Missing, "overlay file system"),
            (|f| f.namespaces.retain(|n| n != "pid"), Level::Missing, "PID namespaces"),
            (|f| f.controllers.retain(|c| c != "memory"), Level::Missing, "cgroup controller memory"),
            (|f| f.controllers.retain(|c| c != "cpuset"), Level::Warning, "cgroup controller cpuset"),
            (|f| f.cgroup_mode = Some(Mode::None), Level::Missing, "cgroups"),
            (|f| f.device_programs = false, Level::Warning, "device rules"),
            (|f| f.nf_tables = Some(false), Level::Missing, "nf_tables"),
            (|f| f.nf_tables = None, Level::Warning, "nf_tables loaded"),
            (|f| f.sys_resource = false, Level::Warning, "CAP_SYS_RESOURCE"),
            (|f| f.hard_open_files = 1024, Level::Warning, "open files"),
            (|f| f.openat2 = false, Level::Missing, "openat2"),
            (|f| f.clone3 = false, Level::Missing, "clone3"),
            (|f| f.pidfd = false, Level::Missing, "pidfd"),
            (|f| f.namespaces.retain(|n| n != "mnt"), Level::Missing, "mount namespaces"),
            (|f| f.controllers.retain(|c| c != "pids"), Level::Missing, "cgroup controller pids"),
            (|f| f.swap_accounting = false, Level::Warning, "swap accounting"),
            (|f| f.psi = false, Level::Warning, "PSI"),
            (|f| f.ip_forward = false, Level::Warning, "net.ipv4.ip_forward"),
            (|f| f.run_is_tmpfs = false, Level::Warning, "/run"),
        ];
        for (change, level, what) in table {
            let mut facts = good();
            change(&mut facts);
            assert_eq!(bad(&facts), [(level, what.to_owned())]);
        }
    }

    #[test]
    fn v1_needs_no_device_programs() {
        let facts = Facts { cgroup_mode: Some(Mode::Hybrid), device_programs: false, ..good() };
        assert_eq!(bad(&facts), []);
    }

    #[test]
    fn kernel_versions() {
        assert_eq!(version("6.18.44-fc-v595\n"), (6, 18));
        assert_eq!(version("5.10.0"), (5, 10));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn this_machine_can_run_containers() {
        let missing: Vec<_> = check().into_iter().filter(|f| f.level == Level::Missing).collect();
        assert_eq!(missing, [], "the tests of this crate need such a machine");
    }
}
