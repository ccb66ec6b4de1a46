//! Reading the machine: processes, cgroups, mounts.

use std::fs;
use std::path::{Path, PathBuf};

/// One process: its id, command line and cgroup membership as the kernel tells them.
pub struct Process {
    pub pid: i32,
    pub command: String,
    pub cgroups: String,
}

/// All processes.
pub fn processes() -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ").trim().to_owned();
        found.push(Process { pid, command, cgroups: String::from_utf8_lossy(&read("cgroup")).into_owned() });
    }
    found
}

/// Folders named `name` right below a cgroup hierarchy of this machine.
pub fn cgroups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut found = vec![root.join(name)];
    found.extend(fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path().join(name)));
    found.retain(|path| path.is_dir());
    found
}

/// Mount points of this mount namespace that contain `part`.
pub fn mounts(part: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.contains(part))
        .map(str::to_owned)
        .collect()
}

/// Network links whose name starts with one of `prefixes`.
pub fn links(prefixes: &[String]) -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").expect("/sys/class/net");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))).collect()
}

/// nf_tables tables whose name contains `part`, as `family name`.
pub fn tables(part: &str) -> Vec<String> {
    super::need("nft", "nftables");
    let list = super::run("nft", &["list", "tables"]);
    list.lines()
        .filter_map(|line| line.strip_prefix("table "))
        .filter(|name| name.contains(part))
        .map(str::to_owned)
        .collect()
}

/// A value of the first cgroup file that exists among `candidates` (v1 and v2 names) in the cgroup whose path ends with `suffix`.
pub fn cgroup_value(suffix: &str, candidates: &[&str]) -> Option<String> {
    let root = Path::new("/sys/fs/cgroup");
    let mut bases = vec![root.to_owned()];
    bases.extend(fs::read_dir(root).ok()?.flatten().map(|entry| entry.path()));
    let paths = bases.iter().flat_map(|base| candidates.iter().map(move |name| base.join(suffix).join(name)));
    paths.into_iter().find_map(|path| fs::read_to_string(path).ok()).map(|text| text.trim().to_owned())
}

/// Sends a signal; false when there is no such process.
pub fn signal(pid: i32, signal: nix::sys::signal::Signal) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).is_ok()
}
