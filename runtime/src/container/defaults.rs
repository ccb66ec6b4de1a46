//! What every engine gives a Linux container unless told otherwise (containerd's and Docker's default specification).

use super::{DeviceKind, DeviceRule, Mount};

pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// proc, dev, devpts, shm (64 MiB), mqueue, sysfs (read-only), cgroup (read-only).
pub fn mounts() -> Vec<Mount> {
    vec![
        Mount::new("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        Mount::new("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Mount::new("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        Mount::new("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        Mount::new("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        Mount::new("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        Mount::new("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

pub fn masked_paths() -> Vec<String> {
    const MASKED: [&str; 10] = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/sys/firmware",
    ];
    MASKED.iter().map(|p| (*p).to_owned()).collect()
}

pub fn readonly_paths() -> Vec<String> {
    const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    READ_ONLY.iter().map(|p| (*p).to_owned()).collect()
}

/// Deny all, mknod of anything, then the standard nodes, ptys and tun: runc's list.
pub fn device_rules() -> Vec<DeviceRule> {
    let rule =
        |allow, kind, major, minor, access: &str| DeviceRule { allow, kind, major, minor, access: access.into() };
    let c = Some(DeviceKind::Char);
    let mut rules = vec![
        rule(false, None, None, None, "rwm"),
        rule(true, c, None, None, "m"),
        rule(true, Some(DeviceKind::Block), None, None, "m"),
    ];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule(true, c, Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(true, c, Some(136), None, "rwm"));
    rules
}
