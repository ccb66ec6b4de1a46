//! `spec` and `features`: what one may ask for.

use super::args::Args;
use crate::container::{Mount, defaults};
use serde_json::{Value, json};

/// Of the OCI runtime specification.
pub(super) const VERSION: &str = "1.2.0";

pub(super) fn features() -> Value {
    let capabilities: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    let apparmor = std::path::Path::new("/sys/module/apparmor").exists();
    let selinux = std::path::Path::new("/sys/fs/selinux/enforce").exists();
    let systemd = false;
    json!({
        "ociVersionMin": "1.0.0", "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": crate::stages::mount_options(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": systemd, "systemdUser": false, "rdma": true},
            "seccomp": {"enabled": true}, "apparmor": {"enabled": apparmor}, "selinux": {"enabled": selinux},
            "intelRdt": {"enabled": false}, "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": false}
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
        "ociVersion": VERSION,
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
