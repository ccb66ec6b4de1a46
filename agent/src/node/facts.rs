//! What this machine is, from /proc, uname and statvfs.

use std::path::Path;

use mote_api::tree::{Value, json};

/// Memory kept back for the system and ourselves.
pub(super) const MEMORY_RESERVED_BYTES: u64 = 32 << 20;
/// Below this much available memory the node is under pressure.
const MEMORY_AVAILABLE_MIN: u64 = 32 << 20;
/// Below this share of free disk (percent) the node is under pressure.
const DISK_FREE_PERCENT_MIN: u64 = 5;

/// The machine.
pub struct Machine {
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes that new processes can have.
    pub memory_available_bytes: u64,
    /// Bytes of the file system the data folder is on.
    pub disk_bytes: u64,
    /// Bytes of it that are free.
    pub disk_free_bytes: u64,
    /// Thousandths of a core.
    pub cpu_milli: u64,
}

/// Pressures.
pub(super) struct Pressure {
    pub(super) memory: bool,
    pub(super) disk: bool,
    pub(super) pids: bool,
}

/// Looks at the machine.
pub fn machine(data: &Path) -> Machine {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (disk_bytes, disk_free_bytes) = nix::sys::statvfs::statvfs(data).map_or((0, 0), |fs| {
        #[allow(clippy::unnecessary_cast)] // the fields are u32 on some targets
        let (size, blocks, free) = (fs.fragment_size() as u64, fs.blocks() as u64, fs.blocks_available() as u64);
        (size.saturating_mul(blocks), size.saturating_mul(free))
    });
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    Machine {
        memory_bytes: kib(&meminfo, "MemTotal:").saturating_mul(1024),
        memory_available_bytes: kib(&meminfo, "MemAvailable:").saturating_mul(1024),
        disk_bytes,
        disk_free_bytes,
        cpu_milli: cores.saturating_mul(1000),
    }
}

fn kib(meminfo: &str, key: &str) -> u64 {
    let line = meminfo.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse().ok()).unwrap_or(0)
}

pub(super) fn pressure(machine: &Machine) -> Pressure {
    let processes = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let processes: u64 =
        processes.split_whitespace().nth(3).and_then(|p| p.split('/').nth(1)?.parse().ok()).unwrap_or(0);
    let pid_max: u64 = std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(32_768);
    Pressure {
        memory: machine.memory_available_bytes < MEMORY_AVAILABLE_MIN,
        disk: machine.disk_free_bytes < machine.disk_bytes / 100 * DISK_FREE_PERCENT_MIN,
        pids: processes > pid_max / 10 * 9,
    }
}

/// The architecture as Go, and so Kubernetes, calls it.
pub(super) fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        other => other,
    }
}

fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
}

/// `status.nodeInfo` of a Node.
pub(super) fn node_info(version: &str) -> Value {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os_image = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"')
        .to_owned();
    let mut machine_id = first_line("/etc/machine-id");
    if machine_id.is_empty() {
        machine_id = first_line("/proc/sys/kernel/random/boot_id").replace('-', "");
    }
    let mut system_uuid = first_line("/sys/class/dmi/id/product_uuid");
    if system_uuid.is_empty() {
        system_uuid.clone_from(&machine_id);
    }
    json!({
        "machineID": machine_id, "systemUUID": system_uuid, "bootID": first_line("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": first_line("/proc/sys/kernel/osrelease"), "osImage": os_image,
        "containerRuntimeVersion": concat!("mote://", env!("CARGO_PKG_VERSION")),
        "kubeletVersion": version, "kubeProxyVersion": version,
        "operatingSystem": "linux", "architecture": go_arch(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_meminfo() {
        assert_eq!(kib("MemFree: 1 kB\nMemTotal:       24105 kB\n", "MemTotal:"), 24105);
        assert_eq!(kib("", "MemTotal:"), 0);
        let machine = machine(Path::new("/"));
        assert!(machine.memory_bytes > 0 && machine.disk_bytes > 0 && machine.cpu_milli >= 1000);
    }
}
