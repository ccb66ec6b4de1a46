//! OCI bundle (`config.json`) -> [`Container`].
//!
//! Read as a tree, not by oci-spec's types: those refuse a whole file for one unknown capability name, where runc warns, and are
//! larger than the rest of `mote-oci`.

mod extras;
mod resources;
pub(crate) mod tree;

pub(crate) use resources::resources;

use crate::container::extras::{Extras, ProcessExtras};
use crate::container::{
    CapSet, Capabilities, Cgroup, Container, Device, Mount, Namespace, NamespaceKind, Process, Rlimit, Rootfs, Seccomp,
    User, rlimit_number,
};
use serde_json::Value;
use std::path::Path;
use tree::{flag, list, number, optional, pairs, strings, text};

/// Largest config.json in bytes.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("read {path}: {cause}")]
    Read { path: String, cause: std::io::Error },
    #[error("parse {path}: {cause}")]
    Parse { path: String, cause: serde_json::Error },
    #[error("config.json: {0}")]
    Invalid(String),
}

/// A container and what of its description was left out, one line each.
pub struct Bundle {
    pub container: Container,
    pub extras: Extras,
    pub annotations: Vec<(String, String)>,
    /// `linux.cgroupsPath` as it is given.
    pub cgroups_path: String,
    pub warnings: Vec<String>,
    /// What nobody needs to hear unless he looks for it: every engine's profile names system calls of other architectures.
    pub notes: Vec<String>,
    /// The text it was read from: what is looked up later (exec, hooks) must not follow a file that changes.
    pub text: Vec<u8>,
}

fn invalid(text: impl Into<String>) -> BundleError {
    BundleError::Invalid(text.into())
}

/// Reads `<dir>/config.json` for container `id`.
pub fn load(dir: &Path, id: &str) -> Result<Bundle, BundleError> {
    let path = dir.join("config.json");
    let name = path.display().to_string();
    let told = |cause| BundleError::Read { path: name.clone(), cause };
    if std::fs::metadata(&path).map_err(told)?.len() > CONFIG_BYTES_MAX {
        return Err(invalid(format!("larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let bytes = std::fs::read(&path).map_err(told)?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|cause| BundleError::Parse { path: name.clone(), cause })?;
    let mut bundle = convert(&value, dir, id)?;
    bundle.text = bytes;
    Ok(bundle)
}

/// `config` as container `id`; relative paths are below `dir`.
pub fn convert(config: &Value, dir: &Path, id: &str) -> Result<Bundle, BundleError> {
    let version = text(config, "ociVersion");
    if !version.starts_with("1.") {
        return Err(invalid(format!("ociVersion {version:?} is not supported")));
    }
    let (mut warnings, mut notes) = (Vec::new(), Vec::new());
    let root = config.get("root").ok_or_else(|| invalid("root: missing"))?;
    let root_path = text(root, "path");
    if root_path.is_empty() {
        return Err(invalid("root.path: missing"));
    }
    let linux = config.get("linux").unwrap_or(&Value::Null);
    let process = config.get("process").ok_or_else(|| invalid("process: missing"))?;
    let mut process_of = self::process(process, &mut warnings)?;
    process_of.seccomp = seccomp(config, linux, dir, id, &mut notes)?;
    let container = Container {
        id: id.to_owned(),
        process: process_of,
        rootfs: Rootfs::Path(dir.join(root_path)),
        readonly: flag(root, "readonly"),
        namespaces: namespaces(linux)?,
        hostname: optional(config, "hostname"),
        domainname: optional(config, "domainname"),
        mounts: list(config, "mounts").map(|m| mount(m, dir)).collect(),
        masked_paths: strings(linux, "maskedPaths"),
        readonly_paths: strings(linux, "readonlyPaths"),
        devices: list(linux, "devices").map(device).collect::<Result<_, _>>()?,
        sysctls: pairs(linux, "sysctl"),
        cgroup: Cgroup {
            path: cgroup_path(linux, id),
            resources: resources(linux.get("resources").unwrap_or(&Value::Null)),
        },
        rootfs_propagation: optional(linux, "rootfsPropagation"),
        ..Container::default()
    };
    let extras = extras::extras(config, linux, process)?;
    let cgroups_path = text(linux, "cgroupsPath").to_owned();
    let annotations = pairs(config, "annotations");
    Ok(Bundle { container, extras, annotations, cgroups_path, warnings, notes, text: Vec::new() })
}

/// A process description on its own (`exec --process`).
pub(crate) fn load_process(value: &Value) -> Result<(Process, ProcessExtras, Vec<String>), BundleError> {
    let mut warnings = Vec::new();
    Ok((process(value, &mut warnings)?, extras::process_extras(value)?, warnings))
}

fn process(process: &Value, warnings: &mut Vec<String>) -> Result<Process, BundleError> {
    let user = process.get("user").unwrap_or(&Value::Null);
    let id = |key: &str| {
        u32::try_from(number(user, key).unwrap_or(0)).map_err(|_| invalid(format!("process.user.{key}: out of range")))
    };
    let mut rlimits = Vec::new();
    for limit in list(process, "rlimits") {
        let name = text(limit, "type");
        let kind = rlimit_number(name).ok_or_else(|| invalid(format!("process.rlimits: unknown type {name:?}")))?;
        let value = |key| limit.get(key).and_then(Value::as_u64).unwrap_or(0);
        rlimits.push(Rlimit { kind, soft: value("soft"), hard: value("hard") });
    }
    let given = process.get("capabilities").unwrap_or(&Value::Null);
    let mut set = |key: &str| {
        strings(given, key).iter().fold(CapSet::EMPTY, |all, name| match CapSet::parse(name) {
            Some(capability) => all.with(capability),
            None => {
                warnings.push(format!("ignoring unknown capability {name}"));
                all
            }
        })
    };
    let capabilities = Capabilities {
        bounding: set("bounding"),
        effective: set("effective"),
        permitted: set("permitted"),
        inheritable: set("inheritable"),
        ambient: set("ambient"),
    };
    Ok(Process {
        args: strings(process, "args"),
        env: strings(process, "env"),
        cwd: text(process, "cwd").to_owned(),
        user: User {
            uid: id("uid")?,
            gid: id("gid")?,
            groups: list(user, "additionalGids")
                .filter_map(Value::as_u64)
                .filter_map(|g| u32::try_from(g).ok())
                .collect(),
            umask: number(user, "umask").and_then(|u| u32::try_from(u).ok()),
        },
        capabilities,
        no_new_privileges: flag(process, "noNewPrivileges"),
        rlimits,
        oom_score_adj: number(process, "oomScoreAdj").and_then(|n| i32::try_from(n).ok()),
        ..Process::default()
    })
}

fn seccomp(
    config: &Value,
    linux: &Value,
    dir: &Path,
    id: &str,
    notes: &mut Vec<String>,
) -> Result<Seccomp, BundleError> {
    let Some(profile) = linux.get("seccomp").filter(|v| !v.is_null()) else { return Ok(Seccomp::None) };
    let compiled = crate::seccomp::compile(profile).map_err(|e| invalid(format!("linux.seccomp: {e}")))?;
    notes.extend(compiled.warnings);
    let mut filter = compiled.filter;
    if let Some(listener) = &mut filter.listener {
        listener.state = serde_json::json!({
            "ociVersion": text(config, "ociVersion"), "id": id, "status": "creating", "bundle": dir.display().to_string(),
            "annotations": config.get("annotations").unwrap_or(&Value::Null),
        })
        .to_string();
    }
    Ok(Seccomp::Filter(filter))
}

fn namespaces(linux: &Value) -> Result<Vec<Namespace>, BundleError> {
    let mut all: Vec<Namespace> = Vec::new();
    for namespace in list(linux, "namespaces") {
        let kind = match text(namespace, "type") {
            "mount" => NamespaceKind::Mount,
            "pid" => NamespaceKind::Pid,
            "network" => NamespaceKind::Network,
            "ipc" => NamespaceKind::Ipc,
            "uts" => NamespaceKind::Uts,
            "cgroup" => NamespaceKind::Cgroup,
            "user" => NamespaceKind::User,
            "time" => NamespaceKind::Time,
            other => return Err(invalid(format!("linux.namespaces: unknown type {other:?}"))),
        };
        if all.iter().any(|n| n.kind == kind) {
            return Err(invalid(format!("linux.namespaces: {kind:?} given twice")));
        }
        all.push(Namespace { kind, path: optional(namespace, "path").filter(|p| !p.is_empty()).map(Into::into) });
    }
    Ok(all)
}

fn mount(m: &Value, dir: &Path) -> Mount {
    let options = strings(m, "options");
    let fstype = text(m, "type").to_owned();
    let bind = fstype == "bind" || options.iter().any(|o| o == "bind" || o == "rbind");
    let source = text(m, "source");
    let source = if bind { dir.join(source).display().to_string() } else { source.to_owned() };
    Mount { destination: text(m, "destination").to_owned(), fstype, source, options }
}

fn device(value: &Value) -> Result<Device, BundleError> {
    let path = text(value, "path").to_owned();
    let number = |key: &str, default: u32| match number(value, key) {
        None => Ok(default),
        Some(n) => u32::try_from(n).map_err(|_| invalid(format!("linux.devices {path}: {key} out of range"))),
    };
    let kind = resources::device_kind(text(value, "type"))
        .ok_or_else(|| invalid(format!("linux.devices {path}: unknown type")))?;
    Ok(Device {
        kind,
        major: number("major", 0)?,
        minor: number("minor", 0)?,
        mode: number("fileMode", 0o666)?,
        uid: number("uid", 0)?,
        gid: number("gid", 0)?,
        path,
    })
}

/// Absolute or relative, always below the hierarchy's root; absent = the id. A systemd-style `slice:prefix:name` becomes folders.
fn cgroup_path(linux: &Value, id: &str) -> String {
    let path = text(linux, "cgroupsPath");
    let parts: Vec<&str> = path.split(':').collect();
    match parts.as_slice() {
        [slice, prefix, name] => {
            format!("{}/{prefix}-{name}.scope", if slice.is_empty() { "system.slice" } else { slice })
        }
        _ if path.trim_matches('/').is_empty() => id.to_owned(),
        _ => path.trim_start_matches('/').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "process": {"args": ["true"], "cwd": "/", "user": {"uid": 1, "gid": 2, "additionalGids": [3]},
                "capabilities": {"bounding": ["CAP_KILL", "CAP_FROM_THE_FUTURE"]},
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]},
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/data", "source": "data", "options": ["rbind", "ro"]}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/x"}],
                "resources": {"memory": {"limit": 1024, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": 5}}}
        })
    }

    #[test]
    fn a_bundle_is_read() {
        let bundle = convert(&config(), Path::new("/b"), "c1").unwrap();
        let c = bundle.container;
        assert_eq!(bundle.warnings, ["ignoring unknown capability CAP_FROM_THE_FUTURE"]);
        assert_eq!(c.process.capabilities.bounding, CapSet(1 << 5));
        assert_eq!((c.process.user.uid, c.process.user.gid, c.process.user.groups), (1, 2, vec![3]));
        assert_eq!(c.rootfs, Rootfs::Path("/b/rootfs".into()));
        assert_eq!(c.mounts[0].source, "/b/data");
        assert_eq!(c.cgroup.path, "c1");
        let r = c.cgroup.resources;
        assert!(r.devices.is_empty(), "no rules asked for, none made up");
        assert_eq!(
            (r.memory_max, r.memory_swap_max, r.pids_max, r.cpu_quota_us),
            (Some(1024), Some(u64::MAX), Some(u64::MAX), Some(5))
        );
        assert_eq!(
            c.namespaces,
            [Namespace::new(NamespaceKind::Pid), Namespace::join(NamespaceKind::Network, "/run/x")]
        );
    }

    #[test]
    fn nonsense_is_told() {
        let cases = [
            ("/ociVersion", json!("2.0"), "ociVersion"),
            ("/root/path", json!(""), "root.path"),
            ("/linux/namespaces/0/type", json!("planet"), "planet"),
            ("/linux/namespaces/0/type", json!("network"), "twice"),
            ("/process/rlimits/0/type", json!("RLIMIT_X"), "RLIMIT_X"),
            ("/process/user/uid", json!(-1), "uid"),
        ];
        for (at, value, word) in cases {
            let mut config = config();
            *config.pointer_mut(at).unwrap() = value;
            let error = convert(&config, Path::new("/b"), "c").err().unwrap().to_string();
            assert!(error.contains(word), "{at}: {error}");
        }
    }

    #[test]
    fn cgroup_paths() {
        for (path, expected) in [
            ("", "id"),
            ("/", "id"),
            ("/a/b", "a/b"),
            ("user.slice:mote:x", "user.slice/mote-x.scope"),
            (":cri:x", "system.slice/cri-x.scope"),
        ] {
            assert_eq!(cgroup_path(&json!({"cgroupsPath": path}), "id"), expected);
        }
    }
}
