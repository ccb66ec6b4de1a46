//! The security context of a container: the container's word before the pod's, the pod's before the image's.

use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use mote_api::tree::{Value, at, bool_at, i64_at, list_at, parse_json, str_at};
use mote_images::Image;
use mote_runtime::container::{CapSet, Capabilities, Device, DeviceKind, Seccomp};
use mote_runtime::seccomp;
use mote_runtime::user::{self, FILE_BYTES_MAX, Resolved};

/// The two places a security context is written.
pub(super) struct Context<'a> {
    pub(super) pod: &'a Value,
    pub(super) container: &'a Value,
}

impl Context<'_> {
    fn number(&self, field: &str) -> Option<i64> {
        i64_at(self.container, &["securityContext", field])
            .or_else(|| i64_at(self.pod, &["spec", "securityContext", field]))
    }

    fn flag(&self, field: &str) -> Option<bool> {
        bool_at(self.container, &["securityContext", field])
            .or_else(|| bool_at(self.pod, &["spec", "securityContext", field]))
    }

    pub(super) fn privileged(&self) -> bool {
        bool_at(self.container, &["securityContext", "privileged"]) == Some(true)
    }

    pub(super) fn read_only_root(&self) -> bool {
        bool_at(self.container, &["securityContext", "readOnlyRootFilesystem"]) == Some(true)
    }

    pub(super) fn no_new_privileges(&self) -> bool {
        bool_at(self.container, &["securityContext", "allowPrivilegeEscalation"]) == Some(false)
    }

    /// The user the container runs as, in numbers.
    pub(super) fn user(&self, image: &Image) -> Result<Resolved, String> {
        let passwd = from_image(image, "passwd");
        let group = from_image(image, "group");
        let wanted = match (self.number("runAsUser"), self.number("runAsGroup")) {
            (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
            (Some(uid), None) => uid.to_string(),
            (None, Some(gid)) => format!("{}:{gid}", image.config.user.split(':').next().unwrap_or_default()),
            (None, None) => image.config.user.clone(),
        };
        let mut who = user::resolve(&wanted, &passwd, &group).map_err(|e| e.to_string())?;
        if self.flag("runAsNonRoot") == Some(true) && who.user.uid == 0 {
            return Err("container has runAsNonRoot and image will run as root".into());
        }
        let more =
            list_at(self.pod, &["spec", "securityContext", "supplementalGroups"]).iter().filter_map(Value::as_i64);
        let fs_group = i64_at(self.pod, &["spec", "securityContext", "fsGroup"]);
        for gid in more.chain(fs_group).filter_map(|gid| u32::try_from(gid).ok()) {
            if !who.user.groups.contains(&gid) {
                who.user.groups.push(gid);
            }
        }
        Ok(who)
    }

    pub(super) fn capabilities(&self, privileged: bool) -> Result<Capabilities, String> {
        if privileged {
            return Ok(Capabilities::engine(CapSet::all()));
        }
        let set = |field: &str| -> Result<CapSet, String> {
            let mut set = CapSet::EMPTY;
            for name in
                list_at(self.container, &["securityContext", "capabilities", field]).iter().filter_map(Value::as_str)
            {
                set = set.with(CapSet::parse(name).ok_or_else(|| format!("unknown capability {name:?}"))?);
            }
            Ok(set)
        };
        Ok(Capabilities::engine(CapSet::DEFAULT.with(set("add")?).without(set("drop")?).with(set("add")?)))
    }

    /// The system calls the container may make: its own profile before the pod's. None named is none applied, as upstream has it.
    /// `profiles` holds those of the node.
    pub(super) fn seccomp(&self, bounding: CapSet, profiles: &Path) -> Result<Seccomp, String> {
        let own = at(self.container, &["securityContext", "seccompProfile"]);
        let of_pod = at(self.pod, &["spec", "securityContext", "seccompProfile"]);
        let Some(profile) = [own, of_pod].into_iter().flatten().find(|profile| profile.is_object()) else {
            return Ok(Seccomp::None);
        };
        let told = |e: seccomp::SeccompError| format!("seccomp profile: {e}");
        let compiled = match str_at(profile, &["type"]) {
            _ if self.privileged() => return Ok(Seccomp::None),
            "RuntimeDefault" => seccomp::standard(bounding).map_err(told)?,
            "Localhost" => {
                let name = str_at(profile, &["localhostProfile"]);
                seccomp::compile(&node_profile(&profiles.join("seccomp"), name)?).map_err(told)?
            }
            _ => return Ok(Seccomp::None),
        };
        Ok(Seccomp::Filter(compiled.filter))
    }
}

/// Bytes of a seccomp profile of the node.
const PROFILE_BYTES_MAX: usize = 1 << 20;

fn node_profile(folder: &Path, name: &str) -> Result<Value, String> {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !inside {
        return Err(format!("seccomp profile {name:?}: must be a path below {}", folder.display()));
    }
    let path = folder.join(name);
    let told = |e: &dyn std::fmt::Display| format!("read seccomp profile {}: {e}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path).map_err(|e| told(&e))?;
    file.take(PROFILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|e| told(&e))?;
    parse_json(&bytes, PROFILE_BYTES_MAX).map(|parsed| parsed.value).map_err(|e| told(&e))
}

/// `/etc/<file>` as the topmost layer has it. Links are not followed: they would lead out of the image.
fn from_image(image: &Image, file: &str) -> String {
    for layer in image.layers.iter().rev() {
        let etc = layer.path.join("etc");
        let Ok(kind) = std::fs::symlink_metadata(&etc) else { continue };
        if !kind.is_dir() {
            return String::new();
        }
        let path: PathBuf = etc.join(file);
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        if !found.is_file() || found.len() > FILE_BYTES_MAX as u64 {
            return String::new();
        }
        return std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    }
    String::new()
}

/// The device nodes right below the host's /dev, for privileged containers.
pub(super) fn host_devices() -> Vec<Device> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/dev").into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let kind = match meta.file_type() {
            kind if kind.is_char_device() => DeviceKind::Char,
            kind if kind.is_block_device() => DeviceKind::Block,
            _ => continue,
        };
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let path = entry.path().to_string_lossy().into_owned();
        if [
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            "/dev/tty",
            "/dev/ptmx",
            "/dev/console",
        ]
        .contains(&path.as_str())
        {
            continue; // the standard ones, which the runtime makes
        }
        all.push(Device {
            path,
            kind,
            major: number(nix::sys::stat::major(meta.rdev())),
            minor: number(nix::sys::stat::minor(meta.rdev())),
            mode: meta.mode() & 0o777,
            uid: meta.uid(),
            gid: meta.gid(),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use mote_api::tree::json;

    use super::*;

    #[test]
    fn seccomp_profiles() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("seccomp")).unwrap();
        std::fs::write(scratch.path().join("seccomp/own.json"), r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        let of = |pod: &Value, container: &Value| {
            let pod = json!({"spec": {"securityContext": {"seccompProfile": pod}}});
            let container = json!({"securityContext": {"seccompProfile": container}});
            Context { pod: &pod, container: &container }.seccomp(CapSet::DEFAULT, scratch.path())
        };
        let named = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
        let (none, standard) = (Value::Null, json!({"type": "RuntimeDefault"}));
        assert_eq!(of(&none, &none), Ok(Seccomp::None));
        assert!(matches!(of(&standard, &none), Ok(Seccomp::Filter(_))));
        assert_eq!(of(&standard, &json!({"type": "Unconfined"})), Ok(Seccomp::None), "the container's word counts");
        assert!(matches!(of(&none, &named("own.json")), Ok(Seccomp::Filter(_))));
        for (name, why) in [("../own.json", "must be"), ("/own.json", "must be"), ("", "must be"), ("no.json", "read")]
        {
            assert!(of(&none, &named(name)).unwrap_err().contains(why), "{name}");
        }
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let pod = json!({});
        let cap = |name: &str| CapSet::parse(name).unwrap_or_default();
        for (context, expected) in [
            (json!({}), CapSet::DEFAULT),
            (json!({"drop": ["ALL"]}), CapSet::EMPTY),
            (json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}), cap("NET_BIND_SERVICE")),
            (
                json!({"add": ["SYS_TIME"], "drop": ["CHOWN"]}),
                CapSet::DEFAULT.with(cap("SYS_TIME")).without(cap("CHOWN")),
            ),
        ] {
            let container = json!({"securityContext": {"capabilities": context}});
            let made = Context { pod: &pod, container: &container }.capabilities(false).unwrap();
            assert_eq!(made.bounding, expected);
        }
        let container = json!({"securityContext": {"capabilities": {"add": ["NOPE"]}}});
        assert!(Context { pod: &pod, container: &container }.capabilities(false).is_err());
    }
}
