//! The groups a container lives in: its cgroup, which may be a unit of systemd's, and its share of the processor's caches.

use super::report::{Fault, at, plain};
use super::{Child, Launch, Parent};
use crate::cgroup::systemd::{self, Address};
use crate::cgroup::{self, rdt};
use crate::container::{Cgroup, NamespaceKind};
use crate::sys;
use nix::sched::{CloneFlags, unshare};
use std::path::Path;

pub(super) fn make(parent: &mut Parent<'_>) -> Result<(), Fault> {
    let Cgroup { path, resources } = &parent.launch.container.cgroup;
    if path.is_empty() {
        return Ok(());
    }
    let Launch { layout, unit, container, .. } = parent.launch;
    let told = |e: cgroup::CgroupError| plain(e.to_string());
    if let Some(unit) = unit {
        let waiting = Waiting::start()?;
        systemd::start(&Address::of_host(), unit, &container.id, waiting.0, layout, resources).map_err(told)?;
        parent.waiting = Some(waiting);
    }
    match cgroup::create(layout, path, resources) {
        Ok(warnings) => parent.warnings.extend(warnings),
        Err(e) => {
            stop_unit(parent.launch);
            return Err(told(e));
        }
    }
    Ok(())
}

/// A process that does nothing but live.
pub(super) struct Waiting(i32);

impl Waiting {
    fn start() -> Result<Self, Fault> {
        match sys::clone3(0, None).map_err(at("clone", "process for a unit"))? {
            sys::Cloned::Parent { pid, .. } => Ok(Self(pid)),
            sys::Cloned::Child => {
                let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
                sys::close_from(0);
                nix::unistd::pause();
                sys::exit_now(0)
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL); // our own child, not waited for yet
        let _ = nix::sys::wait::waitpid(pid, None);
    }
}

fn stop_unit(launch: &Launch<'_>) {
    if let Some(unit) = launch.unit {
        let _ = systemd::stop(&Address::of_host(), unit); // the failure that brought us here is the one to tell
    }
}

pub(super) fn make_rdt(parent: &mut Parent<'_>) -> Result<(), Fault> {
    let Launch { extras, container, .. } = parent.launch;
    if let Some(wanted) = &extras.rdt {
        let made = rdt::create(Path::new(rdt::ROOT), &container.id, wanted);
        parent.rdt = made.map_err(|e| plain(e.to_string()))?;
    }
    Ok(())
}

pub(super) fn remove_rdt(launch: &Launch<'_>) {
    if let Some(wanted) = &launch.extras.rdt {
        rdt::remove(&rdt::own(Path::new(rdt::ROOT), &launch.container.id, wanted));
    }
}

pub(super) fn remove(launch: &Launch<'_>) {
    let path = &launch.container.cgroup.path;
    if !path.is_empty() {
        stop_unit(launch);
        let _ = cgroup::remove(launch.layout, path); // the failure that brought us here is the one to tell
    }
}

pub(super) fn enter(child: &mut Child<'_>) -> Result<(), Fault> {
    let Cgroup { path, resources } = &child.container.cgroup;
    if !path.is_empty() && !child.layout.v1.is_empty() {
        let told = |e: cgroup::CgroupError| plain(e.to_string());
        child.groups = cgroup::enter_self(child.layout, path).map_err(told)?;
        // Our maker may be dead and somebody else cleaning up after him, who finds us by our group only.
        if child.groups.is_empty() && !child.layout.folders(path, resources).map_err(told)?.is_empty() {
            return Err(plain(format!("enter cgroup {path}: it has been removed")));
        }
    }
    rdt::enter(&child.rdt).map_err(|e| plain(e.to_string()))?;
    if child.container.namespaces.iter().any(|n| n.kind == NamespaceKind::Cgroup && n.path.is_none()) {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(at("make", "cgroup namespace"))?;
    }
    Ok(())
}
