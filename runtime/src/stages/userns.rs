//! User namespaces: id maps from outside, root inside, and mounts that show other owners.

use super::Child;
use super::hooks;
use super::report::{Fault, at, errno, plain};
use crate::container::extras::{Extras, Hook, IdMap, MountMaps, map_text};
use crate::container::{NamespaceKind, Rlimit};
use crate::sys::{self, Cloned};
use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// Where the setuid helpers of shadow's `uidmap` package may be.
const HELPER_FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin"];

/// What only the starter's own user namespace allows; refusals show in the later stages.
pub(super) fn prepare(rlimits: &[Rlimit]) {
    for limit in rlimits {
        let _ = sys::set_rlimit(limit.kind, limit.soft, limit.hard); // tried again, and told, in its own stage
    }
}

/// Writes both maps of `pid`, which has just made its user namespace. An ordinary user gets ranges by newuidmap(1), and else
/// maps itself alone.
pub(super) fn write_maps(pid: i32, extras: &Extras) -> Result<(), Fault> {
    let own = |id: u32| vec![IdMap { inside: 0, outside: id, count: 1 }];
    let (euid, egid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let uid = if extras.uid_maps.is_empty() { own(euid) } else { extras.uid_maps.clone() };
    let gid = if extras.gid_maps.is_empty() { own(egid) } else { extras.gid_maps.clone() };
    write_map(pid, "uid_map", "newuidmap", &uid)?;
    if euid != 0 && gid.len() == 1 && gid.first().is_some_and(|m| m.outside == egid && m.count == 1) {
        // The price of mapping oneself without a helper (user_namespaces(7)).
        let _ = std::fs::write(format!("/proc/{pid}/setgroups"), "deny");
    }
    write_map(pid, "gid_map", "newgidmap", &gid)
}

fn write_map(pid: i32, file: &str, helper: &str, maps: &[IdMap]) -> Result<(), Fault> {
    let path = format!("/proc/{pid}/{file}");
    let Err(refused) = std::fs::write(&path, map_text(maps)) else { return Ok(()) };
    let found = HELPER_FOLDERS.iter().map(|f| format!("{f}/{helper}")).find(|p| std::path::Path::new(p).exists());
    let (Some(found), true) = (found, refused.kind() == std::io::ErrorKind::PermissionDenied) else {
        return Err(at("write", path)(errno(&refused)));
    };
    let mut args = vec![helper.to_owned(), pid.to_string()];
    args.extend(maps.iter().flat_map(|m| [m.inside, m.outside, m.count]).map(|n| n.to_string()));
    let hook = Hook { path: found.into(), args, env: Vec::new(), timeout_s: Some(10) };
    hooks::run(&hook, b"").map_err(|e| plain(format!("write {path}: {e}")))
}

/// Root of the container's user namespace, once everything is opened that only the starter's user may open.
pub(super) fn become_root(child: &mut Child<'_>) -> Result<(), Fault> {
    if !child.has(NamespaceKind::User) {
        return Ok(());
    }
    root_inside()
}

pub(super) fn root_inside() -> Result<(), Fault> {
    match nix::unistd::setgroups(&[]) {
        // Denied together with a map of one's own making.
        Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
        Err(e) => return Err(at("set groups in", "user namespace")(e)),
    }
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(gid, gid, gid).map_err(at("become group 0 of", "user namespace"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(at("become user 0 of", "user namespace"))
}

/// The source of a bind mount as a tree of its own, shown through the maps. Needs the rights of the starter, so it is made by the parent.
pub(super) fn mapped_tree(source: &str, maps: &MountMaps, extras: &Extras) -> Result<OwnedFd, Fault> {
    let told = |e| at("map owners of", source)(e);
    let with = Extras {
        uid_maps: if maps.uid.is_empty() { extras.uid_maps.clone() } else { maps.uid.clone() },
        gid_maps: if maps.gid.is_empty() { extras.gid_maps.clone() } else { maps.gid.clone() },
        ..Extras::default()
    };
    if with.uid_maps.is_empty() || with.gid_maps.is_empty() {
        return Err(plain(format!("map owners of {source}: no mappings given, and no user namespace with mappings")));
    }
    let namespace = namespace_of(&with)?;
    let path = std::ffi::CString::new(source).map_err(|_| told(Errno::EINVAL))?;
    let tree = sys::open_tree(&path, maps.recursive).map_err(told)?;
    sys::map_mount(tree.as_fd(), namespace.as_fd(), maps.recursive).map_err(told)?;
    Ok(tree)
}

/// A user namespace with these maps and nobody in it.
fn namespace_of(extras: &Extras) -> Result<OwnedFd, Fault> {
    match sys::clone3(nix::sched::CloneFlags::CLONE_NEWUSER.bits() as u64, None)
        .map_err(at("make", "user namespace"))?
    {
        Cloned::Child => loop {
            nix::unistd::pause();
        },
        Cloned::Parent { pid, pidfd } => {
            let path = format!("/proc/{pid}/ns/user");
            let file =
                write_maps(pid, extras).and_then(|()| File::open(&path).map_err(|e| at("open", &path)(errno(&e))));
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL); // it waits for just that
            let _ = waitpid(Pid::from_raw(pid), None);
            Ok(file?.into())
        }
    }
}
