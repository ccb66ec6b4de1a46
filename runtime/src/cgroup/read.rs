//! Small readers: what a group used, and whether the OOM killer was there.

use super::{CgroupError, Layout, checked, fault};
use std::path::Path;

/// Counters of one group; 0 where the host has no such controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_usage_ns: u64,
    /// Bytes.
    pub memory_usage: u64,
    /// Usage without inactive file pages, as the kubelet reports it.
    pub memory_working_set: u64,
    /// Anonymous memory.
    pub memory_rss: u64,
    pub pids: u64,
    /// Processes of this group killed by the OOM killer so far.
    pub oom_kills: u64,
}

/// # Errors
/// The path is no group path, or no hierarchy has the group.
pub fn stats(layout: &Layout, path: &str) -> Result<Stats, CgroupError> {
    let relative = checked(path)?;
    let mut stats = Stats::default();
    let mut seen = false;
    if let Some((root, v2)) = layout.find("memory") {
        let folder = root.join(relative);
        seen |= folder.is_dir();
        let (usage, rss, inactive) = if v2 {
            ("memory.current", "anon", "inactive_file")
        } else {
            ("memory.usage_in_bytes", "total_rss", "total_inactive_file")
        };
        stats.memory_usage = number(&folder.join(usage));
        let text = read(&folder.join("memory.stat"));
        stats.memory_rss = keyed(&text, rss);
        stats.memory_working_set = stats.memory_usage.saturating_sub(keyed(&text, inactive));
    }
    if let Some((root, v2)) = layout.find("cpuacct") {
        let folder = root.join(relative);
        seen |= folder.is_dir();
        stats.cpu_usage_ns = if v2 {
            keyed(&read(&folder.join("cpu.stat")), "usage_usec").saturating_mul(1000)
        } else {
            number(&folder.join("cpuacct.usage"))
        };
    }
    if let Some((root, _)) = layout.find("pids") {
        let folder = root.join(relative);
        seen |= folder.is_dir();
        stats.pids = number(&folder.join("pids.current"));
    }
    stats.oom_kills = oom_kills(layout, path);
    if seen { Ok(stats) } else { Err(fault("read cgroup", path, std::io::ErrorKind::NotFound.into())) }
}

/// Processes of this very group killed by the OOM killer; 0 when there is no such group.
pub fn oom_kills(layout: &Layout, path: &str) -> u64 {
    let (Some((root, v2)), Ok(path)) = (layout.find("memory"), checked(path)) else { return 0 };
    let file = root.join(path).join(if v2 { "memory.events" } else { "memory.oom_control" });
    keyed(&read(&file), "oom_kill")
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

fn number(file: &Path) -> u64 {
    read(file).trim().parse().unwrap_or(0)
}

fn keyed(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_are_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(super::keyed(text, "oom_kill"), 3);
        assert_eq!(super::keyed(text, "oom"), 0);
        assert_eq!(super::keyed("", "oom_kill"), 0);
    }
}
