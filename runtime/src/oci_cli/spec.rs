//! `spec` and `features`: what one may ask for.

use super::args::Args;
use crate::container::{Mount, defaults};
use serde_json::{Value, json};

/// Of the OCI runtime specification.
pub(super) const VERSION: &str = "1.2.0";
/// The example asks for nothing newer, and other runtimes refuse what they do not know.
const EXAMPLE_VERSION: &str = "1.0.2";

pub(super) fn features() -> Value {
    let capabilities: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    let apparmor = std::path::Path::new("/sys/module/apparmor").exists();
    let selinux = std::path::Path::new("/sys/fs/selinux/enforce").exists();
    json!({
        "ociVersionMin": "1.0.0", "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": crate::stages::mount_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {"enabled": true}, "apparmor": {"enabled": apparmor}, "selinux": {"enabled": selinux},
            "intelRdt": {"enabled": true}, "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true}
        },
        "annotations": {"dev.mote.version": env!("CARGO_PKG_VERSION")}
    })
}

pub(super) fn write(args: &Args) -> Result<(), String> {
    let path = args.bundle().join("config.json");
    if path.exists() {
        return Err(format!("File {} exists. Remove it first", path.display()));
    }
    let mut config = example();
    if args.flag("rootless") {
        rootless(&mut config);
    }
    std::fs::write(&path, format!("{config:#}\n")).map_err(|e| format!("write {}: {e}", path.display()))
}

fn mounts(mounts: Vec<Mount>) -> Value {
    let all = mounts
        .into_iter()
        .map(|m| json!({"destination": m.destination, "type": m.fstype, "source": m.source, "options": m.options}));
    Value::Array(all.collect())
}

/// runc's example: `sh` in a private everything.
pub fn example() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": EXAMPLE_VERSION,
        "process": {
            "terminal": true, "user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": [defaults::PATH, "TERM=xterm"], "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}], "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "mote",
        "mounts": mounts(defaults::mounts()),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": defaults::masked_paths(), "readonlyPaths": defaults::readonly_paths()
        }
    })
}

/// What an ordinary user may have: his own id as root, the host's network, no limits, /sys bound instead of mounted.
fn rootless(config: &mut Value) {
    let own = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let kinds = ["pid", "ipc", "uts", "mount", "cgroup", "user"];
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("resources");
        linux.insert("namespaces".into(), kinds.iter().map(|k| json!({"type": k})).collect());
        linux.insert("uidMappings".into(), own(nix::unistd::geteuid().as_raw()));
        linux.insert("gidMappings".into(), own(nix::unistd::getegid().as_raw()));
    }
    let mut all = defaults::mounts();
    all.retain(|m| m.fstype != "cgroup");
    for mount in &mut all {
        mount.options.retain(|o| !o.starts_with("gid=") && !o.starts_with("uid="));
        if mount.fstype == "sysfs" {
            *mount = Mount::bind("/sys", "/sys", true);
            mount.options = ["rbind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
            mount.fstype = "none".into();
        }
    }
    if let Some(config) = config.as_object_mut() {
        config.insert("mounts".into(), mounts(all));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// oci-spec's types are the judge: they refuse what is no field, no mount, no capability.
    #[test]
    fn the_examples_and_the_features_are_the_specifications() {
        let mut config = example();
        let spec: oci_spec::runtime::Spec = serde_json::from_value(config.clone()).unwrap();
        assert_eq!(spec.version(), EXAMPLE_VERSION);
        assert_eq!(spec.mounts().as_ref().map(Vec::len), Some(defaults::mounts().len()));
        rootless(&mut config);
        let spec: oci_spec::runtime::Spec = serde_json::from_value(config).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.uid_mappings().as_ref().map(Vec::len), Some(1));
        let features: oci_spec::runtime::Features = serde_json::from_value(features()).unwrap();
        assert_eq!(features.hooks().as_ref().map(Vec::len), Some(6));
    }

    #[test]
    fn the_rootless_example_is_a_bundle() {
        let mut config = example();
        rootless(&mut config);
        let bundle = crate::bundle::convert(&config, std::path::Path::new("/b"), "c").unwrap();
        assert!(bundle.warnings.is_empty(), "{:?}", bundle.warnings);
        assert_eq!(bundle.extras.uid_maps.len(), 1);
        assert!(bundle.container.mounts.iter().all(|m| m.fstype != "sysfs" && m.fstype != "cgroup"));
    }
}
