//! What a node may leave on a machine, counted; and removed by force when a test failed.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine;

/// Where to look: everything one instance makes carries one of these names.
pub struct Traces {
    pub data_dir: PathBuf,
    pub cgroup_parent: String,
    tag: String,
    run_dir: PathBuf,
}

impl Traces {
    /// The names of the instance with this (existing) data folder.
    pub fn of(data_dir: &Path, cgroup_parent: &str) -> Traces {
        let data_dir = data_dir.canonicalize().expect("data folder");
        let hash = ring::digest::digest(&ring::digest::SHA256, data_dir.as_os_str().as_encoded_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let run_dir = Path::new("/run/mote").join(&hex[..8]);
        Traces { data_dir, cgroup_parent: cgroup_parent.to_owned(), tag: hex[..4].to_owned(), run_dir }
    }

    /// The instance's folder below /run.
    pub fn run_dir(&self) -> String {
        self.run_dir.display().to_string()
    }

    fn processes(&self) -> Vec<machine::Process> {
        let own = std::process::id().cast_signed();
        let (dir, group) = (self.data_dir.to_string_lossy(), format!("/{}/", self.cgroup_parent));
        let run = self.run_dir.to_string_lossy();
        let mut all = machine::processes();
        all.retain(|p| {
            p.pid != own && (p.command.contains(&*dir) || p.command.contains(&*run) || p.cgroups.contains(&group))
        });
        all
    }

    fn mounts(&self) -> Vec<String> {
        let mut found = machine::mounts(&self.data_dir.to_string_lossy());
        found.extend(machine::mounts(&self.run_dir.to_string_lossy()));
        found
    }

    fn links(&self) -> Vec<String> {
        machine::links(&[format!("mote{}", self.tag), format!("mv{}", self.tag)])
    }

    fn tables(&self) -> Vec<String> {
        machine::tables(&format!("mote-{}", self.tag))
    }

    fn folders(&self) -> Vec<String> {
        let mut found = Vec::new();
        for dir in [
            self.data_dir.join("pods"),
            self.data_dir.join("containers"),
            self.data_dir.join("logs"),
            self.run_dir.join("sandbox"),
        ] {
            found.extend(
                fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path().display().to_string()),
            );
        }
        found
    }

    /// Everything of pods that exists, one line each: what must be empty when no pod is left (the node itself may run).
    pub fn of_pods(&self) -> Vec<String> {
        let mut left = self.folders();
        let marker = format!("/{}/pod", self.cgroup_parent);
        left.extend(
            machine::processes()
                .iter()
                .filter(|p| p.cgroups.contains(&marker))
                .map(|p| format!("process {}: {}", p.pid, p.command)),
        );
        left.extend(self.mounts().into_iter().map(|m| format!("mount {m}")));
        left.extend(machine::links(&[format!("mv{}", self.tag)]).into_iter().map(|l| format!("link {l}")));
        for group in machine::cgroups(&self.cgroup_parent) {
            let below = fs::read_dir(&group).into_iter().flatten().flatten();
            left.extend(
                below
                    .filter(|e| e.file_name().to_string_lossy().starts_with("pod"))
                    .map(|e| format!("cgroup {}", e.path().display())),
            );
        }
        left
    }

    /// Everything that exists, one line each: what must be empty after `mote down`.
    pub fn all(&self) -> Vec<String> {
        let mut left = self.of_pods();
        left.extend(self.processes().iter().map(|p| format!("process {}: {}", p.pid, p.command)));
        left.extend(self.links().into_iter().map(|l| format!("link {l}")));
        left.extend(self.tables().into_iter().map(|t| format!("nft table {t}")));
        left.extend(machine::cgroups(&self.cgroup_parent).iter().map(|c| format!("cgroup {}", c.display())));
        if self.run_dir.exists() {
            left.push(format!("folder {}", self.run_dir.display()));
        }
        left.sort();
        left.dedup();
        left
    }

    /// Removes all of it, whatever state it is in, so that a failed test does not spoil the next one.
    pub fn remove_by_force(&self) {
        for _ in 0..20 {
            let processes = self.processes();
            if processes.is_empty() {
                break;
            }
            for process in processes {
                machine::signal(process.pid, nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        for point in self.mounts().iter().rev() {
            let _ = nix::mount::umount2(Path::new(point), nix::mount::MntFlags::MNT_DETACH);
        }
        for link in self.links() {
            let _ = std::process::Command::new("ip").args(["link", "del", &link]).output();
        }
        for table in self.tables() {
            let _ = std::process::Command::new("nft").arg("delete").arg("table").args(table.split(' ')).output();
        }
        for group in machine::cgroups(&self.cgroup_parent) {
            remove_group(&group, 0);
        }
        let _ = fs::remove_dir_all(&self.run_dir);
    }
}

const GROUP_DEPTH_MAX: usize = 8;

fn remove_group(group: &Path, depth: usize) {
    if depth < GROUP_DEPTH_MAX {
        let below = fs::read_dir(group).into_iter().flatten().flatten().map(|e| e.path());
        for child in below.filter(|path| path.is_dir()) {
            remove_group(&child, depth + 1);
        }
    }
    let _ = fs::remove_dir(group);
}
