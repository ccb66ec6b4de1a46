//! The full description of one container, in the words of the OCI runtime specification.
//!
//! Everything the stages need and nothing they have to look up: users are numbers, limits are bytes and microseconds, mounts name
//! their source. It travels to the keeper as postcard, so fields are only ever appended together with a new frame version
//! (`keeper::protocol::VERSION`).

pub mod defaults;
pub mod extras;
pub mod rdt;
mod resources;

pub use resources::{Cgroup, DeviceRule, Resources, Setting};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest container or sandbox id in bytes; ids are folder names, so also no `/`, no leading dot.
pub const ID_BYTES_MAX: usize = 128;

/// One container (or, without namespaces and rootfs changes, one process).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Container {
    pub id: String,
    pub process: Process,
    pub rootfs: Rootfs,
    /// Root file system mounted read-only once everything is in place.
    pub readonly: bool,
    /// Kinds not named here are shared with the starter.
    pub namespaces: Vec<Namespace>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// In order; later ones may lie inside earlier ones.
    pub mounts: Vec<Mount>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// Nodes made in /dev beside the standard ones (null, zero, full, random, urandom, tty).
    pub devices: Vec<Device>,
    /// `net.ipv4.ip_forward` = `1`; set in the namespaces of the container.
    pub sysctls: Vec<(String, String)>,
    pub cgroup: Cgroup,
    pub stdio: Stdio,
    /// Propagation of `/` inside: private unless said otherwise (`rslave`, `rshared`, …).
    pub rootfs_propagation: Option<String>,
    /// Free words of the caller, given back by `List` (pod uid, container name, restart count, …).
    pub labels: Vec<(String, String)>,
}

/// What runs: also the whole of an exec request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// `args[0]` is looked up in PATH of `env` when it has no slash.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute; made if it does not exist (as runc and containerd do).
    pub cwd: String,
    pub user: User,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub rlimits: Vec<Rlimit>,
    /// -1000..=1000; lowering needs CAP_SYS_RESOURCE and is reported, not fatal, without it.
    pub oom_score_adj: Option<i32>,
    pub seccomp: Seccomp,
}

/// Numeric only; [`crate::user::resolve`] turns names of the image into this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: Option<u32>,
}

/// A set of capabilities, bit n = capability n (capability.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapSet(pub u64);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub bounding: CapSet,
    pub effective: CapSet,
    pub permitted: CapSet,
    pub inheritable: CapSet,
    pub ambient: CapSet,
}

/// `kind` is an RLIMIT number of this architecture; [`crate::container::rlimit_number`] maps the OCI name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub kind: u32,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    None,
    /// Made by [`crate::seccomp`].
    Filter(SeccompFilter),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompFilter {
    /// Classic BPF, eight bytes an instruction in the kernel's own layout of this machine.
    pub program: Vec<u8>,
    /// SECCOMP_FILTER_FLAG_* of linux/seccomp.h.
    pub flags: u32,
    /// Who is asked about calls the program answers with NOTIFY.
    pub listener: Option<SeccompListener>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompListener {
    /// Unix socket on the host that takes the notify descriptor (OCI `listenerPath`).
    pub path: PathBuf,
    /// Opaque to us.
    pub metadata: String,
    /// The container's OCI state as JSON, without its pid; may be empty.
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A folder that already holds the root file system.
    Path(PathBuf),
    /// Overlay, mounted in the container's own mount namespace only.
    Overlay {
        /// Top first, as overlayfs wants it.
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        /// `volatile` mount option: no fsync reaches the disk.
        volatile: bool,
    },
}

impl Default for Rootfs {
    fn default() -> Self {
        Rootfs::Path(PathBuf::from("/"))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceKind {
    Mount,
    Pid,
    Network,
    Ipc,
    Uts,
    Cgroup,
    User,
    Time,
}

/// A namespace to make (`path` absent) or to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    pub kind: NamespaceKind,
    pub path: Option<PathBuf>,
}

impl Namespace {
    pub fn new(kind: NamespaceKind) -> Self {
        Self { kind, path: None }
    }
    pub fn join(kind: NamespaceKind, path: impl Into<PathBuf>) -> Self {
        Self { kind, path: Some(path.into()) }
    }
}

/// One mount in OCI words (`type`, `source`, `options` as in config.json and mount(8)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub destination: String,
    /// `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup`, `bind`, … (`bind` may be left out when an option says bind or rbind).
    pub fstype: String,
    pub source: String,
    pub options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    Char,
    Block,
    Fifo,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub path: String,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// stdin /dev/null, stdout and stderr /dev/null.
    #[default]
    Null,
    /// The starter's own three descriptors (`mote-oci run`).
    Inherit,
    /// stdin /dev/null; the keeper writes both streams as CRI log lines to `path`.
    Log(Log),
    /// The same, and clients of the keeper may talk to the program.
    Talk(Talk),
}

/// Stdio of a program that somebody may attach to and write to (OCI and CRI: `stdin`, `stdinOnce`, `tty`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talk {
    pub log: Log,
    /// Of a program with a terminal, that is its stdin whatever this says.
    pub stdin: Stdin,
    /// stdin, stdout and stderr are a terminal of the container's own; both streams are logged as stdout then.
    pub terminal: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// /dev/null.
    #[default]
    None,
    /// Stays open whoever comes and goes.
    Open,
    /// Ends when the first who attached to it lets go of it.
    Once,
}

impl Stdio {
    /// Where output is logged.
    pub fn log(&self) -> Option<&Log> {
        match self {
            Stdio::Null | Stdio::Inherit => None,
            Stdio::Log(log) | Stdio::Talk(Talk { log, .. }) => Some(log),
        }
    }

    pub fn terminal(&self) -> bool {
        matches!(self, Stdio::Talk(Talk { terminal: true, .. }))
    }
}

/// A CRI log file; rotated to `path.<timestamp>` by the keeper at `max_bytes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    pub path: PathBuf,
    /// 0 = never rotate.
    pub max_bytes: u64,
    /// Files kept, the live one included; kubelet's default is 5.
    pub max_files: u32,
}

impl CapSet {
    pub const EMPTY: CapSet = CapSet(0);
    /// What containerd and Docker give an unprivileged container: CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE
    /// NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP.
    pub const DEFAULT: CapSet = CapSet(0xa804_25fb);

    #[must_use]
    pub fn with(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }
    #[must_use]
    pub fn without(self, other: CapSet) -> CapSet {
        CapSet(self.0 & !other.0)
    }
    pub fn contains(self, bit: u8) -> bool {
        self.0 & 1u64.checked_shl(u32::from(bit)).unwrap_or(0) != 0
    }
}

impl Capabilities {
    /// What an engine gives a container: bounding, permitted and effective alike, nothing inheritable (CVE-2022-24769).
    pub fn engine(set: CapSet) -> Self {
        Self { bounding: set, effective: set, permitted: set, inheritable: CapSet::EMPTY, ambient: CapSet::EMPTY }
    }
}

impl Mount {
    /// Bind mount of a host path (recursive, private).
    pub fn bind(source: impl Into<String>, destination: impl Into<String>, read_only: bool) -> Self {
        let options = ["rbind", "rprivate", if read_only { "ro" } else { "rw" }];
        Self {
            destination: destination.into(),
            fstype: "bind".into(),
            source: source.into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        }
    }
    pub fn new(fstype: &str, destination: &str, options: &[&str]) -> Self {
        Self {
            destination: destination.into(),
            fstype: fstype.into(),
            source: fstype.into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        }
    }
}

/// RLIMIT number of an OCI name (`RLIMIT_NOFILE`), `None` if there is none of that name.
#[allow(clippy::unnecessary_cast)] // the constants are i32 with musl, u32 with glibc
pub fn rlimit_number(name: &str) -> Option<u32> {
    const NAMES: [(&str, u32); 16] = [
        ("RLIMIT_CPU", libc::RLIMIT_CPU as u32),
        ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE as u32),
        ("RLIMIT_DATA", libc::RLIMIT_DATA as u32),
        ("RLIMIT_STACK", libc::RLIMIT_STACK as u32),
        ("RLIMIT_CORE", libc::RLIMIT_CORE as u32),
        ("RLIMIT_RSS", libc::RLIMIT_RSS as u32),
        ("RLIMIT_NPROC", libc::RLIMIT_NPROC as u32),
        ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE as u32),
        ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK as u32),
        ("RLIMIT_AS", libc::RLIMIT_AS as u32),
        ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS as u32),
        ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING as u32),
        ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE as u32),
        ("RLIMIT_NICE", libc::RLIMIT_NICE as u32),
        ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO as u32),
        ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME as u32),
    ];
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
}

/// Ids become folder and cgroup names: 1 to [`ID_BYTES_MAX`] of `[A-Za-z0-9_.+-]`, no leading dot (runc's rule, and no `..`).
pub fn valid_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= ID_BYTES_MAX
        && !id.starts_with('.')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_folder_names() {
        for good in ["a", "pod-1_x.y+z", &"x".repeat(ID_BYTES_MAX)] {
            assert!(valid_id(good), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "a\0", "ä", &"x".repeat(ID_BYTES_MAX + 1)] {
            assert!(!valid_id(bad), "{bad}");
        }
    }

    #[test]
    fn default_capabilities_are_the_engines() {
        let names = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "SETGID",
            "SETUID",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "NET_RAW",
            "SYS_CHROOT",
            "MKNOD",
            "AUDIT_WRITE",
            "SETFCAP",
        ];
        let set = names.iter().fold(CapSet::EMPTY, |s, n| s.with(CapSet::parse(n).unwrap()));
        assert_eq!(set, CapSet::DEFAULT);
        assert!(set.contains(0) && !set.contains(21) && !set.contains(200));
        assert_eq!(CapSet::parse("cap_sys_admin"), Some(CapSet(1 << 21)));
        assert_eq!(CapSet::parse("CAP_NO_SUCH"), None);
        assert_eq!(set.without(CapSet(1)).0 & 1, 0);
    }
}
