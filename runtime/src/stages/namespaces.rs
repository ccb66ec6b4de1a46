//! Namespaces that are there already: opened by path, compared, joined.

use super::Child;
use super::report::{Fault, at, errno};
use crate::container::{Namespace, NamespaceKind};
use crate::sys;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::os::fd::OwnedFd;

/// As clone3, unshare and setns take it.
pub(super) fn flag(kind: NamespaceKind) -> CloneFlags {
    match kind {
        NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
        NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
        NamespaceKind::Network => CloneFlags::CLONE_NEWNET,
        NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
        NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
        NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        NamespaceKind::User => CloneFlags::CLONE_NEWUSER,
        NamespaceKind::Time => CloneFlags::from_bits_retain(sys::CLONE_NEWTIME as i32),
    }
}

/// One to be joined by path; `None` = it is to be made.
pub(super) fn open(namespace: &Namespace) -> Option<Result<OwnedFd, Fault>> {
    let path = namespace.path.as_ref()?;
    Some(File::open(path).map(OwnedFd::from).map_err(|e| at("open namespace", path.display())(errno(&e))))
}

/// Everything joined by path but the mount namespace, which would take the paths of the later stages away.
pub(super) fn open_all(namespaces: &[Namespace]) -> Result<Vec<(CloneFlags, OwnedFd)>, Fault> {
    let mut joins = Vec::new();
    for namespace in namespaces.iter().filter(|n| n.kind != NamespaceKind::Mount) {
        if let Some(file) = open(namespace) {
            joins.push((flag(namespace.kind), file?));
        }
    }
    Ok(joins)
}

/// The child's stage.
pub(super) fn join(child: &mut Child<'_>) -> Result<(), Fault> {
    // All opened before the first is joined: a mount namespace would take the paths away. With a user namespace, the process in between
    // has joined the others.
    let between = child.has(NamespaceKind::User);
    let mut joins = Vec::new();
    for namespace in &child.container.namespaces {
        let here = if between { namespace.kind == NamespaceKind::Mount } else { namespace.kind != NamespaceKind::Pid };
        if let (Some(path), true) = (&namespace.path, here) {
            let file = File::open(path).map_err(|e| at("open", path.display())(errno(&e)))?;
            joins.push((file, namespace.kind, path));
        }
    }
    joins.sort_by_key(|(_, kind, _)| *kind == NamespaceKind::Mount);
    for (file, kind, path) in joins {
        setns(&file, flag(kind)).map_err(at("join namespace", path.display()))?;
    }
    Ok(())
}

/// setns for a PID namespace moves children only; back again afterwards.
pub(super) struct PidNamespace(Option<OwnedFd>);

impl PidNamespace {
    pub(super) fn enter(target: Option<OwnedFd>) -> Result<Self, Fault> {
        let Some(target) = target else { return Ok(Self(None)) };
        let own = File::open("/proc/self/ns/pid").map_err(|e| at("open", "/proc/self/ns/pid")(errno(&e)))?;
        setns(&target, CloneFlags::CLONE_NEWPID).map_err(at("join", "pid namespace"))?;
        Ok(Self(Some(own.into())))
    }
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        if let Some(own) = &self.0 {
            // Cannot fail: our own namespace, by a descriptor opened before.
            let _ = setns(own, CloneFlags::CLONE_NEWPID);
        }
    }
}

/// Ours and the target's differ.
pub(super) fn differs(target: i32, kind: &str) -> bool {
    let read = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}")).ok();
    read(&target.to_string()).is_some_and(|theirs| read("self") != Some(theirs))
}
