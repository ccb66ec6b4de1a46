//! File systems of a container, mounted before pivot_root through descriptors below its future root.

use super::options::{self, Options};
use super::report::{Fault, at, plain};
use super::rooted;
use super::{Child, Source, copy_up};
use crate::container::{Device, DeviceKind, Mount, NamespaceKind};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use std::os::fd::{AsFd, OwnedFd};

const NONE: Option<&str> = None;

fn is_bind(m: &Mount) -> bool {
    m.fstype == "bind" || m.options.iter().any(|o| o == "bind" || o == "rbind")
}

/// Opens what is bound from outside, before the user changes and the first mount covers a path.
pub(super) fn sources(child: &mut Child<'_>) -> Result<(), Fault> {
    let container = child.container;
    child.sources.resize_with(container.mounts.len(), || None);
    for (m, source) in container.mounts.iter().zip(&mut child.sources) {
        if source.is_none() && is_bind(m) {
            let place = nix::fcntl::open(m.source.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
            *source = Some(Source::Place(place.map_err(at("bind", &m.source))?));
        }
    }
    super::rootfs::source(child)
}

pub(super) fn mounts(child: &mut Child<'_>) -> Result<(), Fault> {
    let container = child.container;
    let sources = std::mem::take(&mut child.sources);
    for (m, source) in container.mounts.iter().zip(sources) {
        let mut options = options::parse(&m.options);
        if let (Some(label), false) = (&child.extras.mount_label, is_bind(m) || UNLABELLED.contains(&m.fstype.as_str()))
        {
            options.data.push_str(if options.data.is_empty() { "context=\"" } else { ",context=\"" });
            options.data.push_str(label);
            options.data.push('"');
        }
        if let Some(source) = source {
            bind(child, m, &source, &options)?;
        } else if m.fstype == "cgroup" {
            cgroup_view(child, m, &options)?;
        } else {
            fresh(child.root()?, m, &options)?;
        }
    }
    Ok(())
}

/// File systems that take no SELinux context.
const UNLABELLED: [&str; 5] = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue"];

fn fresh(root: &OwnedFd, m: &Mount, options: &Options) -> Result<(), Fault> {
    let target = rooted::make_dir(root, &m.destination)?;
    let mut data = options.data.as_str();
    let source = if m.source.is_empty() { m.fstype.as_str() } else { &m.source };
    let what = format!("{} at {}", m.fstype, m.destination);
    // A terminal group that the user namespace does not map is left out rather than failed at.
    let mut without_group = String::new();
    let attempt = |data: &str| {
        let data = (!data.is_empty()).then_some(data);
        mount(Some(source), rooted::name(&target).as_str(), Some(m.fstype.as_str()), options.flags, data)
    };
    let mut result = attempt(data);
    if result == Err(Errno::EINVAL) && m.fstype == "devpts" {
        without_group = data.split(',').filter(|o| !o.starts_with("gid=")).collect::<Vec<_>>().join(",");
        data = &without_group;
        result = attempt(data);
    }
    drop(without_group);
    result.map_err(at("mount", what))?;
    if options.copy_up {
        let top = rooted::open(root, &m.destination, OFlag::O_PATH).map_err(at("open", &m.destination))?;
        copy_up::copy(&target, &top, &m.destination)?;
    }
    propagate(root, m, options)
}

fn bind(child: &Child<'_>, m: &Mount, source: &Source, options: &Options) -> Result<(), Fault> {
    let root = child.root()?;
    let (Source::Place(fd) | Source::Tree(fd)) = source;
    let folder = fstat(fd).map_err(at("stat", &m.source))?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let target = if folder { rooted::make_dir(root, &m.destination) } else { rooted::make_file(root, &m.destination) }?;
    let recursive = options.flags & MsFlags::MS_REC;
    match source {
        Source::Place(fd) => {
            let flags = MsFlags::MS_BIND | recursive;
            mount(Some(rooted::name(fd).as_str()), rooted::name(&target).as_str(), NONE, flags, NONE)
        }
        Source::Tree(fd) => sys::attach_mount(fd.as_fd(), target.as_fd()),
    }
    .map_err(at("bind", format_args!("{} to {}", m.source, m.destination)))?;
    let flags = options.flags - MsFlags::MS_REC;
    if !flags.is_empty() {
        remount(root, &m.destination, flags)?;
    }
    propagate(root, m, options)
}

/// Changes the flags of the bind mount that stands at `path`, keeping those it has.
fn remount(root: &OwnedFd, path: &str, flags: MsFlags) -> Result<(), Fault> {
    let top = rooted::open(root, path, OFlag::O_PATH).map_err(at("open", path))?;
    let have = fstatfs(&top).map_or(0, |s| s.flags().bits());
    let kept = MsFlags::from_bits_truncate(have as _)
        & (MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY);
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | kept | flags;
    mount(NONE, rooted::name(&top).as_str(), NONE, flags, NONE).map_err(at("remount", path))
}

fn propagate(root: &OwnedFd, m: &Mount, options: &Options) -> Result<(), Fault> {
    if options.propagation.is_empty() && options.recursive_set | options.recursive_clear == 0 {
        return Ok(());
    }
    let top = rooted::open(root, &m.destination, OFlag::O_PATH).map_err(at("open", &m.destination))?;
    for flag in &options.propagation {
        mount(NONE, rooted::name(&top).as_str(), NONE, *flag, NONE)
            .map_err(at("set propagation of", &m.destination))?;
    }
    if options.recursive_set | options.recursive_clear != 0 {
        sys::set_mount_attributes(top.as_fd(), options.recursive_set, options.recursive_clear)
            .map_err(at("set recursive attributes of", &m.destination))?;
    }
    Ok(())
}

/// v2: the hierarchy as the container's cgroup namespace shows it. v1: a tmpfs with one folder per hierarchy the container has a
/// group of its own in; the others would show the host.
fn cgroup_view(child: &Child<'_>, m: &Mount, options: &Options) -> Result<(), Fault> {
    let root = child.root()?;
    if child.layout.v1.is_empty() {
        let v2 = Mount { fstype: "cgroup2".into(), source: "cgroup".into(), ..m.clone() };
        return fresh(root, &v2, options).or_else(|fault| match (fault.errno, &child.layout.v2) {
            // A user namespace without a cgroup namespace of its own: the group's own folder.
            (Errno::EPERM | Errno::EBUSY, Some((point, _))) => {
                let folder = point.join(child.container.cgroup.path.trim_start_matches('/'));
                let place = nix::fcntl::open(&folder, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
                let source = Source::Place(place.map_err(at("bind", folder.display()))?);
                bind(child, m, &source, &Options { data: String::new(), flags: options.flags, ..Options::default() })
            }
            _ => Err(fault),
        });
    }
    let outer = Mount { fstype: "tmpfs".into(), source: "tmpfs".into(), ..m.clone() };
    let writable = Options { flags: options.flags - MsFlags::MS_RDONLY, data: "mode=755".into(), ..Options::default() };
    fresh(root, &outer, &writable)?;
    let path = child.container.cgroup.path.trim_start_matches('/');
    for (point, controllers) in child.layout.v1.iter().filter(|(point, _)| child.groups.contains(&point.join(path))) {
        let joined = controllers.join(",");
        let destination = format!("{}/{joined}", m.destination.trim_end_matches('/'));
        let one = Mount { destination, fstype: "cgroup".into(), source: "cgroup".into(), options: vec![] };
        let inner = Options { flags: options.flags, data: joined.clone(), ..Options::default() };
        let fresh = if child.has(NamespaceKind::Cgroup) { fresh(root, &one, &inner).is_ok() } else { false };
        if !fresh {
            // Without a cgroup namespace, or where it may not be mounted (user namespaces): the group's own folder.
            let folder = point.join(path);
            let place = nix::fcntl::open(&folder, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
            let source = Source::Place(place.map_err(at("bind", folder.display()))?);
            bind(child, &one, &source, &Options { data: String::new(), ..inner })?;
        }
        if controllers.len() > 1 {
            let folder = rooted::open(root, &m.destination, OFlag::O_PATH).map_err(at("open", &m.destination))?;
            for name in controllers {
                nix::unistd::symlinkat(joined.as_str(), &folder, name.as_str()).map_err(at("link", name))?;
            }
        }
    }
    if options.flags.contains(MsFlags::MS_RDONLY) {
        let top = rooted::open(root, &m.destination, OFlag::O_PATH).map_err(at("open", &m.destination))?;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | options.flags;
        mount(NONE, rooted::name(&top).as_str(), NONE, flags, NONE).map_err(at("remount", &m.destination))?;
    }
    Ok(())
}

const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The nodes every program expects, on a /dev of the container's own (a tmpfs among its mounts).
pub(super) fn devices(child: &mut Child<'_>) -> Result<(), Fault> {
    let container = child.container;
    let own = container.mounts.iter().any(|m| m.destination.trim_end_matches('/') == "/dev" && m.fstype == "tmpfs");
    if own {
        let dev =
            rooted::open(child.root()?, "/dev", OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(at("open", "/dev"))?;
        for (name, major, minor) in NODES {
            let device = Device {
                path: format!("/dev/{name}"),
                kind: DeviceKind::Char,
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            };
            node(child, &dev, name, &device)?;
        }
        for (name, target) in LINKS {
            link(&dev, name, target)?;
        }
        if container.mounts.iter().any(|m| m.fstype == "devpts") {
            link(&dev, "ptmx", "pts/ptmx")?;
        }
    }
    for device in &container.devices {
        let (parent, name) = device.path.rsplit_once('/').unwrap_or(("/dev", &device.path));
        let parent = rooted::make_dir(child.root()?, parent)?;
        node(child, &parent, name, device)?;
    }
    Ok(())
}

fn link(dev: &OwnedFd, name: &str, target: &str) -> Result<(), Fault> {
    match nix::unistd::symlinkat(target, dev, name) {
        Err(Errno::EEXIST) | Ok(()) => Ok(()),
        Err(e) => Err(at("link /dev", name)(e)),
    }
}

fn node(child: &Child<'_>, parent: &OwnedFd, name: &str, device: &Device) -> Result<(), Fault> {
    let kind = match device.kind {
        DeviceKind::Char => SFlag::S_IFCHR,
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Fifo => SFlag::S_IFIFO,
    };
    let number = nix::sys::stat::makedev(device.major.into(), device.minor.into());
    match nix::sys::stat::mknodat(parent, name, kind, Mode::from_bits_truncate(device.mode), number) {
        Ok(()) if device.uid == 0 && device.gid == 0 => Ok(()),
        Ok(()) => {
            let (uid, gid) = (nix::unistd::Uid::from_raw(device.uid), nix::unistd::Gid::from_raw(device.gid));
            let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            nix::unistd::fchownat(parent, name, Some(uid), Some(gid), flags).map_err(at("chown device", &device.path))
        }
        Err(Errno::EEXIST) => Ok(()),
        // Not allowed to make nodes here (device rules, user namespace): the host's own node, if it has one.
        Err(Errno::EPERM) => {
            let host = Mount::bind(device.path.as_str(), device.path.as_str(), false);
            let place = nix::fcntl::open(device.path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
            let source = Source::Place(place.map_err(at("bind", &device.path))?);
            // Flags stay those of the host's /dev: a user namespace may not take any away.
            bind(child, &host, &source, &Options::default())
        }
        Err(e) => Err(at("make device", &device.path)(e)),
    }
}

/// `a.b` or `a/b` = value, only if the file really is of procfs (an image may mount or link anything at /proc).
pub(super) fn sysctls(child: &mut Child<'_>) -> Result<(), Fault> {
    for (key, value) in &child.container.sysctls {
        let path = sysctl_path(key).ok_or_else(|| plain(format!("set sysctl {key}: not a sysctl name")))?;
        let file = rooted::open(child.root()?, &path, OFlag::O_WRONLY).map_err(at("set sysctl", key))?;
        write_sysctl(file, value).map_err(at("set sysctl", format_args!("{key} = {value}")))?;
    }
    Ok(())
}

pub(crate) fn sysctl_path(key: &str) -> Option<String> {
    let slashes = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    let plain = slashes.split('/').all(|p| !p.is_empty() && p != "." && p != "..");
    plain.then(|| format!("/proc/sys/{slashes}"))
}

pub(crate) fn write_sysctl(file: OwnedFd, value: &str) -> Result<(), Errno> {
    if fstatfs(&file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Errno::EXDEV);
    }
    nix::unistd::write(&file, value.as_bytes()).map(drop)
}

pub(super) fn readonly_paths(child: &mut Child<'_>) -> Result<(), Fault> {
    for path in &child.container.readonly_paths {
        let root = child.root()?;
        let target = match rooted::open(root, path, OFlag::O_PATH) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            result => result.map_err(at("open", path))?,
        };
        let name = rooted::name(&target);
        mount(Some(name.as_str()), name.as_str(), NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
            .map_err(at("protect", path))?;
        remount(root, path, MsFlags::MS_RDONLY)?;
    }
    Ok(())
}

/// Folders get an empty read-only tmpfs, files the host's /dev/null, opened and checked before any byte of the image is trusted
/// (CVE-2025-31133: the container's own /dev/null may be anything).
pub(super) fn masked_paths(child: &mut Child<'_>) -> Result<(), Fault> {
    for path in &child.container.masked_paths {
        let target = match rooted::open(child.root()?, path, OFlag::O_PATH) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            result => result.map_err(at("open", path))?,
        };
        let name = rooted::name(&target);
        let folder = fstat(&target).map_err(at("stat", path))?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if folder {
            mount(Some("tmpfs"), name.as_str(), Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k,nr_inodes=1"))
                .or_else(|_| mount(Some("tmpfs"), name.as_str(), Some("tmpfs"), MsFlags::MS_RDONLY, NONE))
        } else {
            mount(Some(rooted::name(&child.null).as_str()), name.as_str(), NONE, MsFlags::MS_BIND, NONE)
        }
        .map_err(at("mask", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward").unwrap(), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(
            sysctl_path("net/ipv4/conf/eth0.1/forwarding").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.1/forwarding"
        );
        for bad in ["", "..", "net..x", "net/../../x", "a/"] {
            assert_eq!(sysctl_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_procfs_takes_sysctls() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(write_sysctl(file.into(), "1"), Err(Errno::EXDEV));
    }
}
