//! Resources -> controller files, by cgroups-rs' controllers on the folders we made.

use super::{CgroupError, Layout, checked, fault};
use crate::container::{DeviceKind, DeviceRule, Resources, Setting};
use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuset::CpuSetController;
use cgroups_rs::fs::devices::{DevicePermissions, DeviceType, DevicesController};
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use std::error::Error as _;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Microseconds; the kernel's default period.
const CPU_PERIOD_US: u64 = 100_000;

struct Place {
    folder: PathBuf,
    root: PathBuf,
    v2: bool,
}

fn place(layout: &Layout, controller: &'static str, path: &Path) -> Result<Place, CgroupError> {
    let missing = || io::Error::other(format!("this host has no {controller} cgroup controller"));
    let (root, v2) = layout.find(controller).ok_or_else(|| fault("limit cgroup", path, missing()))?;
    Ok(Place { folder: root.join(path), root: root.to_owned(), v2 })
}

/// The io error below the crate's own, which names file and value.
fn explain(folder: &Path, error: &cgroups_rs::fs::error::Error) -> CgroupError {
    let raw = error.source().and_then(|s| s.downcast_ref::<io::Error>());
    let text = match raw {
        Some(io) => format!("{error}: {io}"),
        None => error.to_string(),
    };
    let kind = raw.map_or(io::ErrorKind::Other, io::Error::kind);
    fault("limit cgroup", folder, io::Error::new(kind, text))
}

/// Returns what this host cannot limit, one line each.
pub(super) fn write(layout: &Layout, path: &str, resources: &Resources) -> Result<Vec<String>, CgroupError> {
    let path = checked(path)?;
    let mut warnings = Vec::new();
    memory(layout, path, resources, &mut warnings)?;
    cpu(layout, path, resources)?;
    if let Some(max) = resources.pids_max {
        let p = place(layout, "pids", path)?;
        let value = i64::try_from(max).map_or(MaxValue::Max, MaxValue::Value);
        PidController::new(p.folder.clone(), p.root, p.v2).set_pid_max(value).map_err(|e| explain(&p.folder, &e))?;
    }
    cpuset(layout, path, resources)?;
    if !resources.devices.is_empty() {
        match layout.find("devices") {
            Some((root, false)) => devices(&root.join(path), root, &resources.devices)?,
            _ => warnings.extend(device_program(layout, path, &resources.devices)),
        }
    }
    settings(layout, path, &resources.settings)?;
    unified(layout, path, &resources.unified)?;
    Ok(warnings)
}

/// The rarer limits, as file and value.
fn settings(layout: &Layout, path: &Path, settings: &[Setting]) -> Result<(), CgroupError> {
    for setting in settings {
        let p = place(layout, setting.controller, path)?;
        let (file, value) = if p.v2 { (&setting.v2, &setting.v2_value) } else { (&setting.v1, &setting.v1_value) };
        if file.contains('/') {
            return Err(fault("limit cgroup", file, io::ErrorKind::InvalidInput.into()));
        }
        let file = p.folder.join(file);
        // Of two names for one limit a kernel has one; what v2 has no word for is left out, as runc does.
        if (p.v2 && setting.v2.is_empty()) || (setting.either && !file.exists()) {
            continue;
        }
        std::fs::write(&file, value).map_err(|e| fault("write", &file, e))?;
    }
    Ok(())
}

fn unified(layout: &Layout, path: &Path, unified: &[(String, String)]) -> Result<(), CgroupError> {
    if unified.is_empty() {
        return Ok(());
    }
    match layout.v2.as_ref().filter(|_| layout.v1.is_empty()) {
        None => Err(fault("limit cgroup", path, io::Error::other("unified resources need cgroup v2"))),
        Some((root, _)) => {
            for (file, value) in unified {
                if file.contains('/') || !file.contains('.') {
                    return Err(fault("limit cgroup", file, io::ErrorKind::InvalidInput.into()));
                }
                let file = root.join(path).join(file);
                std::fs::write(&file, value).map_err(|e| fault("write", &file, e))?;
            }
            Ok(())
        }
    }
}

fn memory(layout: &Layout, path: &Path, resources: &Resources, warnings: &mut Vec<String>) -> Result<(), CgroupError> {
    let (max, swap) = (resources.memory_max, resources.memory_swap_max);
    if max.is_none() && swap.is_none() {
        return Ok(());
    }
    let p = place(layout, "memory", path)?;
    let memory = MemController::new(p.folder.clone(), p.root, p.v2);
    let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let limit = || max.map_or(Ok(()), |max| memory.set_limit(number(max)).map_err(|e| explain(&p.folder, &e)));
    let Some(total) = swap else { return limit() };
    // v1 counts memory and swap together and wants the sum no smaller at any time; v2 counts swap alone.
    let alone = if total == u64::MAX { total } else { total.saturating_sub(max.unwrap_or(0)) };
    let swap_limit = || memory.set_memswap_limit(number(if p.v2 { alone } else { total }));
    if p.v2 {
        limit()?;
    } else if limit().is_err() {
        swap_limit().map_err(|e| explain(&p.folder, &e))?; // raising both: the sum first
        return limit();
    }
    match swap_limit() {
        Ok(()) => Ok(()),
        Err(_) if total == u64::MAX && !swap_accounting(&p.folder, p.v2) => Ok(()),
        Err(e) if !swap_accounting(&p.folder, p.v2) => {
            warnings.push(format!("memory swap limit: no swap accounting in this kernel ({e})"));
            Ok(())
        }
        Err(e) => Err(explain(&p.folder, &e)),
    }
}

fn swap_accounting(folder: &Path, v2: bool) -> bool {
    folder.join(if v2 { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" }).exists()
}

fn cpu(layout: &Layout, path: &Path, resources: &Resources) -> Result<(), CgroupError> {
    if resources.cpu_shares.is_none() && resources.cpu_quota_us.is_none() && resources.cpu_period_us.is_none() {
        return Ok(());
    }
    let p = place(layout, "cpu", path)?;
    let cpu = CpuController::new(p.folder.clone(), p.root, p.v2);
    let told = |e: cgroups_rs::fs::error::Error| explain(&p.folder, &e);
    if let Some(shares) = resources.cpu_shares.filter(|s| *s > 0) {
        cpu.set_shares(if p.v2 { weight(shares) } else { shares }).map_err(told)?;
    }
    match (resources.cpu_quota_us, resources.cpu_period_us) {
        (None, None) => Ok(()),
        // Period first on v1: a quota is judged against it.
        (quota, period) if !p.v2 => {
            period.map_or(Ok(()), |us| cpu.set_cfs_period(us)).map_err(told)?;
            quota.map_or(Ok(()), |us| cpu.set_cfs_quota(us.max(-1))).map_err(told)
        }
        (quota, period) => {
            let file = p.folder.join("cpu.max");
            // Both stand in one file: what is not given stays.
            let now = std::fs::read_to_string(&file).unwrap_or_default();
            let mut now = now.split_whitespace();
            let quota_now = now.next().unwrap_or("max").to_owned();
            let period_now = now.next().and_then(|p| p.parse().ok()).unwrap_or(CPU_PERIOD_US);
            let quota = quota.map_or(quota_now, |q| if q > 0 { q.to_string() } else { "max".to_owned() });
            let text = format!("{quota} {}", period.unwrap_or(period_now));
            std::fs::write(&file, text).map_err(|e| fault("write", &file, e))
        }
    }
}

/// v1 shares (2..=262144) to v2 weight (1..=10000): the OCI specification's linear map.
pub(super) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn cpuset(layout: &Layout, path: &Path, resources: &Resources) -> Result<(), CgroupError> {
    if resources.cpuset_cpus.is_none() && resources.cpuset_mems.is_none() {
        return Ok(());
    }
    let p = place(layout, "cpuset", path)?;
    let cpuset = CpuSetController::new(p.folder.clone(), p.root, p.v2);
    if let Some(cpus) = &resources.cpuset_cpus {
        cpuset.set_cpus(cpus).map_err(|e| explain(&p.folder, &e))?;
    }
    match &resources.cpuset_mems {
        Some(mems) => cpuset.set_mems(mems).map_err(|e| explain(&p.folder, &e)),
        None => Ok(()),
    }
}

/// A new v1 cpuset group is empty and admits nobody until it has cpus and memory nodes: the parent's.
pub(super) fn inherit_cpuset(folder: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = folder.join(file);
        if std::fs::read_to_string(&own).is_ok_and(|v| v.trim().is_empty()) {
            let parent = folder.parent().map(|p| p.join(file)).unwrap_or_default();
            let value = std::fs::read_to_string(&parent).map_err(|e| fault("read", &parent, e))?;
            std::fs::write(&own, value.trim()).map_err(|e| fault("write", &own, e))?;
        }
    }
    Ok(())
}

/// v2: by a program; a kernel or an outer container that refuses bpf(2) leaves the capabilities and file modes alone to protect devices.
fn device_program(layout: &Layout, path: &Path, rules: &[DeviceRule]) -> Option<String> {
    let (root, _) = layout.v2.as_ref()?;
    let attached = std::fs::File::open(root.join(path))
        .map_err(|e| e.to_string())
        .and_then(|group| super::devices::attach(group.as_fd(), rules).map_err(|e| e.desc().to_lowercase()));
    attached.err().map(|cause| format!("device rules: not enforced, the kernel refuses the program: {cause}"))
}

fn devices(folder: &Path, root: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let controller = DevicesController::new(folder.to_owned(), root.to_owned());
    for rule in rules {
        let kind = match rule.kind {
            None => DeviceType::All,
            Some(DeviceKind::Block) => DeviceType::Block,
            Some(DeviceKind::Char | DeviceKind::Fifo) => DeviceType::Char,
        };
        let (major, minor) = (rule.major.map_or(-1, i64::from), rule.minor.map_or(-1, i64::from));
        let access: Vec<DevicePermissions> = rule.access.chars().filter_map(permission).collect();
        let result = if rule.allow {
            controller.allow_device(kind, major, minor, &access)
        } else {
            controller.deny_device(kind, major, minor, &access)
        };
        result.map_err(|e| explain(folder, &e))?;
    }
    Ok(())
}

fn permission(letter: char) -> Option<DevicePermissions> {
    match letter {
        'r' => Some(DevicePermissions::Read),
        'w' => Some(DevicePermissions::Write),
        'm' => Some(DevicePermissions::MkNod),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn shares_become_weights() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(super::weight(shares), weight, "{shares}");
        }
    }
}
