//! Control groups on v1, hybrid and v2 hosts: made, limited, read, killed and removed by the path below each hierarchy's root.
//!
//! Only groups named by the caller are touched; parents are made on demand. On v1 a container enters by writing `0` to `tasks` of
//! each hierarchy itself, while it is one thread: the kernel then skips the global lock that makes a `cgroup.procs` write cost
//! 10 ms on a busy machine. On v2 it is born inside (CLONE_INTO_CGROUP).

pub(crate) mod devices;
mod layout;
mod limits;
pub(crate) mod rdt;
mod read;
pub mod systemd;

pub use layout::{Layout, Mode};
pub use read::{Stats, oom_kills, stats};

use crate::container::Resources;
use nix::errno::Errno;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// How long [`remove`] goes on killing and retrying.
pub const REMOVE_WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}: {cause}")]
pub struct CgroupError {
    pub operation: &'static str,
    pub object: String,
    pub cause: io::Error,
}

pub(crate) fn fault(operation: &'static str, object: impl AsRef<Path>, cause: io::Error) -> CgroupError {
    CgroupError { operation, object: object.as_ref().display().to_string(), cause }
}

/// v1 hierarchies a container with these limits needs. memory and pids always (OOM, counting, killing), cpuacct for its bill.
fn wanted(controller: &str, resources: &Resources) -> bool {
    if resources.settings.iter().any(|s| s.controller == controller) {
        return true;
    }
    match controller {
        "memory" | "pids" | "cpuacct" => true,
        "cpu" => {
            resources.cpu_shares.is_some() || resources.cpu_quota_us.is_some() || resources.cpu_period_us.is_some()
        }
        "cpuset" => resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some(),
        "devices" => !resources.devices.is_empty(),
        _ => false,
    }
}

/// A relative path without `..`, or the reason why not.
fn checked(path: &str) -> Result<&Path, CgroupError> {
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_)));
    if relative.as_os_str().is_empty() || !plain {
        return Err(fault("use cgroup path", path, io::ErrorKind::InvalidInput.into()));
    }
    Ok(relative)
}

impl Layout {
    /// Folders of the group `path` in the hierarchies `resources` need.
    pub(crate) fn folders(&self, path: &str, resources: &Resources) -> Result<Vec<PathBuf>, CgroupError> {
        let relative = checked(path)?;
        let mut folders: Vec<PathBuf> = Vec::new();
        for (point, controllers) in &self.v1 {
            if controllers.iter().any(|c| wanted(c, resources)) {
                folders.push(point.join(relative));
            }
        }
        if let (Some((point, _)), true) = (&self.v2, self.v1.is_empty()) {
            folders.push(point.join(relative));
        }
        Ok(folders)
    }

    /// Where the group's folder is or would be, in every hierarchy.
    fn possible(&self, path: &str) -> Result<impl Iterator<Item = PathBuf>, CgroupError> {
        let relative = checked(path)?;
        let points = self.v1.iter().chain(&self.v2).map(|(p, _)| p).chain(&self.named);
        Ok(points.map(move |p| p.join(relative)))
    }

    /// Every folder of the group that exists, whatever hierarchy.
    fn existing(&self, path: &str) -> Result<Vec<PathBuf>, CgroupError> {
        Ok(self.possible(path)?.filter(|p| p.is_dir()).collect())
    }
}

/// Makes `path` (and its parents) in every hierarchy that is needed and writes the limits. Idempotent; undone when a limit is refused.
/// Returns what could not be had, one line each.
pub fn create(layout: &Layout, path: &str, resources: &Resources) -> Result<Vec<String>, CgroupError> {
    let folders = layout.folders(path, resources)?;
    let mut made = Vec::new();
    let result = make_folders(layout, path, &folders, &mut made).and_then(|()| limits::write(layout, path, resources));
    if result.is_err() {
        for folder in made.iter().rev() {
            let _ = fs::remove_dir(folder); // only empty groups that this call made
        }
    }
    result
}

/// Whether the caller may make the group: it exists and is his, or the first folder above it that exists is.
pub(crate) fn may_create(layout: &Layout, path: &str) -> bool {
    let Ok(folders) = layout.folders(path, &Resources::default()) else { return false };
    let writable = |folder: &PathBuf| {
        let there = folder.ancestors().find(|f| f.exists()).unwrap_or(folder);
        nix::unistd::access(there, nix::unistd::AccessFlags::W_OK).is_ok()
            && nix::unistd::access(&there.join("cgroup.procs"), nix::unistd::AccessFlags::W_OK).is_ok()
    };
    !folders.is_empty() && folders.iter().all(writable)
}

fn make_folders(layout: &Layout, path: &str, folders: &[PathBuf], made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let depth = checked(path)?.components().count();
    let unified = layout.v2.as_ref().filter(|_| layout.v1.is_empty());
    let cpuset = layout.find("cpuset").filter(|(_, v2)| !v2).map(|(point, _)| point);
    for folder in folders {
        let cpuset = cpuset.is_some_and(|point| folder.starts_with(point));
        // Most have their parents already, and only these two kinds are to be seen to on the way.
        if unified.is_none() && !cpuset && make_folder(folder, made).is_ok() {
            continue;
        }
        let mut parents: Vec<&Path> = folder.ancestors().take(depth).collect();
        parents.reverse();
        for part in parents {
            if let Some((root, have)) = unified {
                enable_controllers(part.parent().unwrap_or(root), have);
            }
            make_folder(part, made)?;
            if cpuset {
                limits::inherit_cpuset(part)?;
            }
        }
    }
    Ok(())
}

fn make_folder(folder: &Path, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    match fs::create_dir(folder) {
        Ok(()) => made.push(folder.to_owned()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(fault("create cgroup", folder, e)),
    }
    Ok(())
}

/// v2: lets the groups below `parent` use what we limit. A refusal shows when the limit is written.
fn enable_controllers(parent: &Path, have: &[String]) {
    let file = parent.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).unwrap_or_default();
    for name in
        have.iter().filter(|n| ["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"].contains(&n.as_str()))
    {
        if !enabled.split_whitespace().any(|e| e == name) {
            let _ = fs::write(&file, format!("+{name}"));
        }
    }
}

/// New limits for an existing group; hierarchies it had no need of so far are joined by its processes.
pub fn update(layout: &Layout, path: &str, resources: &Resources) -> Result<Vec<String>, CgroupError> {
    let inside = processes(layout, path)?;
    let mut made = Vec::new();
    make_folders(layout, path, &layout.folders(path, resources)?, &mut made)?;
    for folder in made.iter().filter(|f| f.ends_with(path.trim_start_matches('/'))) {
        for pid in &inside {
            let _ = fs::write(folder.join("cgroup.procs"), pid.to_string()); // gone meanwhile
        }
    }
    limits::write(layout, path, resources)
}

/// Descriptor for CLONE_INTO_CGROUP, on v2 hosts only.
pub(crate) fn open_for_clone(layout: &Layout, path: &str) -> Option<OwnedFd> {
    let (point, _) = layout.v2.as_ref().filter(|_| layout.v1.is_empty())?;
    let folder = fs::File::open(point.join(checked(path).ok()?)).ok()?;
    Some(folder.into())
}

/// Moves the calling single-threaded process into every v1 group of that path; on a v2 host it was born there. Their folders.
pub(crate) fn enter_self(layout: &Layout, path: &str) -> Result<Vec<PathBuf>, CgroupError> {
    let mut entered = Vec::new();
    for folder in layout.possible(path)? {
        let v2 = layout.v2.as_ref().is_some_and(|(point, _)| folder.starts_with(point));
        let file = folder.join(if v2 { "cgroup.procs" } else { "tasks" });
        match fs::File::options().write(true).open(&file).and_then(|mut file| file.write_all(b"0")) {
            Ok(()) => entered.push(folder),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(fault("enter cgroup", &file, e)),
        }
    }
    Ok(entered)
}

/// Moves a process into the hierarchies by which a systemd on v1 sees whether a unit lives.
pub(crate) fn track(layout: &Layout, path: &str, pid: i32) -> Result<(), CgroupError> {
    if layout.v1.is_empty() {
        return Ok(());
    }
    let points = layout.v2.iter().map(|(p, _)| p).chain(&layout.named);
    for folder in points.map(|p| p.join(path)).filter(|f| f.is_dir()) {
        let file = folder.join("cgroup.procs");
        fs::write(&file, pid.to_string()).map_err(|e| fault("enter cgroup", &file, e))?;
    }
    Ok(())
}

/// Moves the caller to the root of every hierarchy: limits and kills of whoever started it no longer reach it.
pub(crate) fn enter_root(layout: &Layout) {
    let points = layout.v1.iter().map(|(p, _)| p).chain(layout.v2.iter().map(|(p, _)| p));
    for point in points {
        let _ = fs::write(point.join("cgroup.procs"), "0"); // not permitted = stay where we are
    }
}

/// Every process in the group and the groups below it.
pub fn processes(layout: &Layout, path: &str) -> Result<Vec<i32>, CgroupError> {
    let mut pids = Vec::new();
    for folder in layout.existing(path)? {
        collect_processes(&folder, &mut pids, 0);
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Deepest nesting of groups below a container that is followed.
const DEPTH_MAX: usize = 32;

fn collect_processes(folder: &Path, pids: &mut Vec<i32>, depth: usize) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 0));
    for child in subfolders(folder, depth) {
        collect_processes(&child, pids, depth + 1);
    }
}

fn subfolders(folder: &Path, depth: usize) -> Vec<PathBuf> {
    if depth >= DEPTH_MAX {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Sends `signal` to every process of the group. SIGKILL goes through `cgroup.kill` where the group has it, else round after round
/// until none is left to fork another.
pub fn signal_all(layout: &Layout, path: &str, signal: i32) -> Result<(), CgroupError> {
    if signal == libc::SIGKILL {
        for folder in layout.existing(path)? {
            let _ = fs::write(folder.join("cgroup.kill"), "1"); // no such file on v1
        }
    }
    let rounds = if signal == libc::SIGKILL { 20 } else { 1 };
    for _ in 0..rounds {
        let pids = processes(layout, path)?;
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::try_from(signal).ok(),
            );
        }
    }
    Ok(())
}

/// Pauses or resumes every process of the group; the v1 freezer group is made when it is first needed.
pub fn freeze(layout: &Layout, path: &str, frozen: bool) -> Result<(), CgroupError> {
    let (point, v2) =
        layout.find("freezer").ok_or_else(|| fault("freeze cgroup", path, io::ErrorKind::Unsupported.into()))?;
    let folder = point.join(checked(path)?);
    let (file, value) = match (v2, frozen) {
        (true, true) => ("cgroup.freeze", "1"),
        (true, false) => ("cgroup.freeze", "0"),
        (false, true) => ("freezer.state", "FROZEN"),
        (false, false) => ("freezer.state", "THAWED"),
    };
    if !v2 && frozen && !folder.is_dir() {
        fs::create_dir_all(&folder).map_err(|e| fault("create cgroup", &folder, e))?;
        for pid in processes(layout, path)? {
            let _ = fs::write(folder.join("cgroup.procs"), pid.to_string()); // gone meanwhile
        }
    }
    let file = folder.join(file);
    fs::write(&file, value).map_err(|e| fault("write", &file, e))
}

/// Names of the groups right below `path`, in whatever hierarchy.
pub fn below(layout: &Layout, path: &str) -> Result<std::collections::BTreeSet<String>, CgroupError> {
    let folders = layout.existing(path)?;
    let inside = folders.iter().flat_map(|folder| subfolders(folder, 0));
    Ok(inside.filter_map(|folder| Some(folder.file_name()?.to_str()?.to_owned())).collect())
}

/// Kills what is left inside, removes the group and the groups below it; gone already is fine. Gives up after [`REMOVE_WAIT_MAX`].
pub fn remove(layout: &Layout, path: &str) -> Result<(), CgroupError> {
    let until = Instant::now() + REMOVE_WAIT_MAX;
    let mut pause = Duration::from_micros(200);
    loop {
        match try_remove(layout, path) {
            Ok(()) => return Ok(()),
            Err(e) if Instant::now() >= until => return Err(e),
            Err(_) => {
                kill_all(layout, path)?;
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        }
    }
}

/// Thaws the group and kills everything inside; does not wait for the end of it.
pub(crate) fn kill_all(layout: &Layout, path: &str) -> Result<(), CgroupError> {
    let _ = freeze_thaw(layout, path);
    signal_all(layout, path, libc::SIGKILL)
}

/// A frozen v1 process does not die of SIGKILL.
fn freeze_thaw(layout: &Layout, path: &str) -> Result<(), CgroupError> {
    let frozen = layout.find("freezer").map(|(p, _)| p.join(path.trim_start_matches('/'))).is_some_and(|p| p.is_dir());
    if frozen { freeze(layout, path, false) } else { Ok(()) }
}

/// One attempt without killing: fails with EBUSY while processes are left. For groups that should be empty by now (pod level).
pub fn try_remove(layout: &Layout, path: &str) -> Result<(), CgroupError> {
    for folder in layout.existing(path)? {
        remove_tree(&folder, 0)?;
    }
    Ok(())
}

fn remove_tree(folder: &Path, depth: usize) -> Result<(), CgroupError> {
    match fs::remove_dir(folder) {
        Ok(()) => return Ok(()),
        Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(()),
        Err(e) if e.raw_os_error() != Some(Errno::EBUSY as i32) => return Err(fault("remove cgroup", folder, e)),
        Err(_) => {}
    }
    for child in subfolders(folder, depth) {
        remove_tree(&child, depth + 1)?;
    }
    match fs::remove_dir(folder) {
        Err(e) if e.raw_os_error() != Some(Errno::ENOENT as i32) => Err(fault("remove cgroup", folder, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
