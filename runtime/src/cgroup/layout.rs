//! Where each controller lives on this host: read once from /proc/self/mountinfo.

use std::path::{Path, PathBuf};

/// Controllers we know, by their cgroup v1 names (v2 calls blkio `io`, has cpuacct inside cpu, and freezer and devices without a name).
pub(crate) const CONTROLLERS: [&str; 12] = [
    "memory", "pids", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "hugetlb", "net_cls", "net_prio",
    "rdma",
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// v1 mounts: mount point and the controllers on it.
    pub(crate) v1: Vec<(PathBuf, Vec<String>)>,
    /// Mount point of the v2 hierarchy and its `cgroup.controllers`.
    pub(crate) v2: Option<(PathBuf, Vec<String>)>,
    /// Where systemd keeps its units on v1, without controllers.
    pub(crate) named: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    V1,
    /// v1 controllers plus a v2 mount that has none of ours.
    Hybrid,
    V2,
    /// No cgroup file system is mounted.
    None,
}

impl Layout {
    /// Reads this host; an unreadable mountinfo is an empty layout.
    pub fn discover() -> Self {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::parse(&text, |root| {
            // Something else may be mounted over it: mountinfo names it all the same.
            let there = root.join("cgroup.procs").exists();
            there.then(|| std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default())
        })
    }

    /// `controllers` of a mount point: what its `cgroup.controllers` says (v1 has none), or nothing if it cannot be reached.
    pub(crate) fn parse(mountinfo: &str, controllers: impl Fn(&Path) -> Option<String>) -> Self {
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (Some(point), mut right) = (left.split(' ').nth(4), right.split(' ')) else { continue };
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) if layout.v2.is_none() => {
                    let point = PathBuf::from(point);
                    let Some(names) = controllers(&point) else { continue };
                    let names = names.split_whitespace().map(str::to_owned).collect();
                    layout.v2 = Some((point, names));
                }
                (Some("cgroup"), Some(options)) => {
                    if layout.named.is_none() && options.split(',').any(|o| o == "name=systemd") {
                        layout.named = controllers(Path::new(point)).map(|_| PathBuf::from(point));
                    }
                    let names: Vec<String> =
                        options.split(',').filter(|o| CONTROLLERS.contains(o)).map(str::to_owned).collect();
                    let known = |c: &String| layout.v1.iter().any(|(_, have)| have.contains(c));
                    if !names.is_empty() && !names.iter().any(known) && controllers(Path::new(point)).is_some() {
                        layout.v1.push((PathBuf::from(point), names));
                    }
                }
                _ => {}
            }
        }
        layout
    }

    pub fn mode(&self) -> Mode {
        match (&self.v2, self.v1.is_empty()) {
            (None, true) => Mode::None,
            (None, false) => Mode::V1,
            (Some(_), false) => Mode::Hybrid,
            (Some(_), true) => Mode::V2,
        }
    }

    /// The hierarchy that holds `controller` and whether it is v2.
    pub(crate) fn find(&self, controller: &str) -> Option<(&Path, bool)> {
        if let Some((point, _)) = self.v1.iter().find(|(_, have)| have.iter().any(|c| c == controller)) {
            return Some((point, false));
        }
        let name = match controller {
            "blkio" => "io",
            "cpuacct" => "cpu",
            other => other,
        };
        let (point, have) = self.v2.as_ref()?;
        (have.iter().any(|c| c == name) || (name == "freezer" && self.v1.is_empty())).then_some((point.as_path(), true))
    }

    pub fn has(&self, controller: &str) -> bool {
        self.find(controller).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 20 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
        31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n\
        33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        35 30 0:28 / /mnt/again rw - cgroup cgroup rw,memory\nbroken line\n";

    #[test]
    fn hybrid_and_v2() {
        let hybrid = Layout::parse(HYBRID, |_| Some(String::new()));
        assert_eq!(hybrid.mode(), Mode::Hybrid);
        assert_eq!(hybrid.v1.len(), 2, "second mount of memory and the named hierarchy do not count");
        assert_eq!(hybrid.find("cpuacct"), Some((Path::new("/sys/fs/cgroup/cpu,cpuacct"), false)));
        assert_eq!(hybrid.find("freezer"), None);
        assert!(!hybrid.has("pids"));

        let v2 = Layout::parse("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 c rw", |_| Some("cpu io memory pids\n".into()));
        assert_eq!(v2.mode(), Mode::V2);
        assert_eq!(v2.find("blkio"), Some((Path::new("/sys/fs/cgroup"), true)));
        assert!(v2.has("cpuacct") && v2.has("freezer") && !v2.has("devices") && !v2.has("cpuset"));
        assert_eq!(Layout::parse("", |_| Some(String::new())).mode(), Mode::None);
        let covered = Layout::parse(HYBRID, |point| (!point.ends_with("memory")).then(String::new));
        assert_eq!(covered.find("memory"), Some((Path::new("/mnt/again"), false)), "a covered mount does not count");
    }
}
