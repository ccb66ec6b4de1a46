//! The volumes of a pod: made before its sandbox, refreshed while it runs, removed with it.
//!
//! | kind | where |
//! |---|---|
//! | emptyDir | `<data>/pods/<uid>/volumes/<name>`; `medium: Memory` on the run folder's tmpfs |
//! | hostPath | the host's path |
//! | configMap, secret, downwardAPI, projected | `<run>/pods/<uid>/volumes/<name>`, an [`atomic`] folder (no flash writes) |

pub mod atomic;
mod content;
pub mod refresh;

use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use mote_api::quantity::Quantity;
use mote_api::tree::{Value, at, bool_at, i64_at, list_at, str_at};
use mote_runtime::container::Mount;

use super::dirs::{self, Roots};
use super::model::{Pod, PodUid, Wanted};
use content::files;
pub use content::{Content, Tokens};

enum Place {
    Data,
    Run,
    Host(PathBuf),
}

const KINDS: [&str; 6] = ["emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected"];

fn kind(volume: &Value) -> Result<&'static str, String> {
    let found = KINDS.iter().find(|kind| at(volume, &[kind]).is_some_and(Value::is_object));
    match found {
        Some(kind) => Ok(kind),
        None => {
            let keys: Vec<&str> = volume
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key.as_str())
                .filter(|key| *key != "name")
                .collect();
            match keys.first() {
                None => Ok("emptyDir"),
                Some(other) => {
                    Err(format!("volume {:?}: {other} volumes are not supported", str_at(volume, &["name"])))
                }
            }
        }
    }
}

fn place(volume: &Value) -> Result<Place, String> {
    Ok(match kind(volume)? {
        "emptyDir" if str_at(volume, &["emptyDir", "medium"]) == "Memory" => Place::Run,
        "emptyDir" => Place::Data,
        "hostPath" => Place::Host(PathBuf::from(str_at(volume, &["hostPath", "path"]))),
        _ => Place::Run,
    })
}

fn path(roots: &Roots, uid: &PodUid, volume: &Value) -> Result<PathBuf, String> {
    let name = str_at(volume, &["name"]);
    mote_api::meta::dns_label(name).map_err(|why| format!("volume name {name:?}: {why}"))?;
    Ok(match place(volume)? {
        Place::Data => roots.pod_data(uid).join("volumes").join(name),
        Place::Run => roots.pod_run(uid).join("volumes").join(name),
        Place::Host(path) => path,
    })
}

/// Makes every volume of the pod, or brings those with content up to date. Idempotent.
///
/// # Errors
/// The first that cannot be made, for the `FailedMount` event.
pub fn make(pod: &Pod, roots: &Roots, content: &Content<'_>) -> Result<(), String> {
    let gid = i64_at(&pod.object, &["spec", "securityContext", "fsGroup"]).and_then(|gid| u32::try_from(gid).ok());
    for volume in list_at(&pod.object, &["spec", "volumes"]) {
        let name = str_at(volume, &["name"]);
        let dir = path(roots, &pod.uid, volume)?;
        let failed = |why: String| format!("MountVolume.SetUp failed for volume {name:?} : {why}");
        match kind(volume)? {
            "emptyDir" => empty_dir(&dir, volume, gid).map_err(failed)?,
            "hostPath" => host_path(&dir, str_at(volume, &["hostPath", "type"])).map_err(failed)?,
            kind => {
                let files = files(pod, at(volume, &[kind]).unwrap_or(&Value::Null), kind, content).map_err(failed)?;
                atomic::write(&dir, &files, gid).map_err(|e| failed(format!("write {}: {e}", dir.display())))?;
            }
        }
    }
    Ok(())
}

fn empty_dir(dir: &Path, volume: &Value, gid: Option<u32>) -> Result<(), String> {
    if !dir.is_dir() {
        dirs::make(dir)?;
        let limit = at(volume, &["emptyDir", "sizeLimit"])
            .and_then(Quantity::of)
            .map(|limit| limit.value())
            .filter(|limit| *limit > 0);
        if let (Some(limit), "Memory") = (limit, str_at(volume, &["emptyDir", "medium"])) {
            use nix::mount::{MsFlags, mount};
            let options = format!("size={limit},mode=0777");
            mount(Some("mote"), dir, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
                .map_err(|e| format!("mount tmpfs on {}: {e}", dir.display()))?;
        }
    }
    let mode = if gid.is_some() { 0o2777 } else { 0o777 };
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode))
        .map_err(|e| format!("set mode of {}: {e}", dir.display()))?;
    if gid.is_some() {
        chown(dir, None, gid).map_err(|e| format!("set group of {}: {e}", dir.display()))?;
    }
    Ok(())
}

fn host_path(path: &Path, kind: &str) -> Result<(), String> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("hostPath {}: must be absolute and without ..", path.display()));
    }
    let meta = std::fs::metadata(path);
    let is = |test: fn(&std::fs::Metadata) -> bool| meta.as_ref().is_ok_and(test);
    let ok = match kind {
        "" => true,
        "DirectoryOrCreate" => {
            if meta.is_err() {
                dirs::make(path)?;
            }
            path.is_dir()
        }
        "FileOrCreate" => {
            if meta.is_err() {
                dirs::write(path, b"")?;
            }
            path.is_file()
        }
        "Directory" => is(std::fs::Metadata::is_dir),
        "File" => is(std::fs::Metadata::is_file),
        "Socket" => is(|meta| meta.file_type().is_socket()),
        "CharDevice" => is(|meta| meta.file_type().is_char_device()),
        "BlockDevice" => is(|meta| meta.file_type().is_block_device()),
        _ => false,
    };
    if ok { Ok(()) } else { Err(format!("hostPath type check failed: {} is not a {kind}", path.display())) }
}

/// The mounts of a container. `expand` resolves `$(NAME)` of `subPathExpr`.
///
/// # Errors
/// When a mount names no volume, or a sub path leads out of it.
pub fn mounts(
    pod: &Pod,
    wanted: &Wanted,
    roots: &Roots,
    expand: &dyn Fn(&str) -> String,
) -> Result<Vec<Mount>, String> {
    let volumes = list_at(&pod.object, &["spec", "volumes"]);
    let mut out = Vec::new();
    for mount in list_at(&wanted.spec, &["volumeMounts"]) {
        let name = str_at(mount, &["name"]);
        let volume = volumes.iter().find(|volume| str_at(volume, &["name"]) == name);
        let volume = volume.ok_or_else(|| format!("volume mount {name:?} names no volume of the pod"))?;
        let mut source = path(roots, &pod.uid, volume)?;
        let sub = match str_at(mount, &["subPathExpr"]) {
            "" => str_at(mount, &["subPath"]).to_owned(),
            expression => expand(expression),
        };
        if !sub.is_empty() {
            source = below(&source, &sub)?;
        }
        let written = !matches!(kind(volume)?, "emptyDir" | "hostPath");
        let read_only = bool_at(mount, &["readOnly"]) == Some(true) || written;
        let mut made = Mount::bind(source.to_string_lossy(), str_at(mount, &["mountPath"]), read_only);
        let propagation = match str_at(mount, &["mountPropagation"]) {
            "HostToContainer" => "rslave",
            "Bidirectional" => "rshared",
            _ => "rprivate",
        };
        for option in made.options.iter_mut().filter(|option| *option == "rprivate") {
            *option = propagation.into();
        }
        out.push(made);
    }
    Ok(out)
}

/// A path below a volume; made as a folder when it is not there. Links that lead out are refused.
fn below(volume: &Path, sub: &str) -> Result<PathBuf, String> {
    let sub = Path::new(sub);
    if !sub.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("subPath {}: must be relative and without ..", sub.display()));
    }
    let target = volume.join(sub);
    if std::fs::symlink_metadata(&target).is_err() {
        dirs::make(&target)?;
    }
    let real = |path: &Path| path.canonicalize().map_err(|e| format!("resolve {}: {e}", path.display()));
    let (inside, whole) = (real(&target)?, real(volume)?);
    if inside.starts_with(&whole) {
        Ok(inside)
    } else {
        Err(format!("subPath {} leads out of the volume", sub.display()))
    }
}

/// Removes everything of the pod's volumes.
pub fn remove(roots: &Roots, uid: &PodUid) -> std::io::Result<()> {
    let volumes = roots.pod_run(uid).join("volumes");
    for entry in std::fs::read_dir(&volumes).into_iter().flatten().flatten() {
        // EINVAL: not a mount, which is the usual case.
        let _ = nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH);
    }
    dirs::remove_tree(&roots.pod_run(uid))?;
    dirs::remove_tree(&roots.pod_data(uid))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use mote_api::tree::json;

    use super::*;
    use crate::pods::model::Source;
    use crate::pods::spec::env::{Refs, Self_};

    fn pod(volumes: Value) -> Pod {
        let object = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i:1", "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}]}],
            "volumes": volumes}});
        Pod::read(Rc::new(object), Source::Api).unwrap_or_else(|why| panic!("{why}"))
    }

    fn make_in(dir: &Path, pod: &Pod, refs: &Refs) -> Result<(), String> {
        let roots = Roots { data: dir.join("data"), run: dir.join("run") };
        let me = Self_ {
            pod: &pod.object,
            pod_ip: "",
            host_ip: "",
            node_name: "n",
            node_cpu_milli: 1000,
            node_memory_bytes: 1,
        };
        make(pod, &roots, &Content { refs, me: &me, tokens: &Tokens::new() })
    }

    #[test]
    fn content_comes_from_all_sources() {
        let dir = tempfile::tempdir().unwrap();
        let refs = Refs {
            config_maps: [("cm".into(), Some(json!({"data": {"k": "v"}, "binaryData": {"b": "AAE="}}).into()))].into(),
            secrets: [("s".into(), Some(json!({"data": {"p": "c2VjcmV0"}}).into()))].into(),
        };
        let pod = pod(json!([{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "cm"}},
            {"name": "p", "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "p", "path": "d/pw", "mode": 0o400}]}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}]));
        make_in(dir.path(), &pod, &refs).unwrap();
        let read = |path: &str| std::fs::read(dir.path().join(path)).unwrap();
        assert_eq!(read("run/pods/u1/volumes/c/k"), b"v");
        assert_eq!(read("run/pods/u1/volumes/c/b"), [0, 1]);
        assert_eq!(read("run/pods/u1/volumes/p/d/pw"), b"secret");
        assert_eq!(read("run/pods/u1/volumes/p/labels"), b"a=\"b\"");
        let roots = Roots { data: dir.path().join("data"), run: dir.path().join("run") };
        let mounts = mounts(&pod, &pod.containers[0], &roots, &|text| text.to_owned()).unwrap();
        assert!(mounts[0].source.ends_with("data/pods/u1/volumes/v/s"), "{}", mounts[0].source);
        remove(&roots, &pod.uid).unwrap();
        assert!(!dir.path().join("run/pods/u1").exists() && !dir.path().join("data/pods/u1").exists());
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for (volume, expected) in [
            (
                json!({"name": "v", "configMap": {"name": "x"}}),
                "MountVolume.SetUp failed for volume \"v\" : configmap \"x\" not found",
            ),
            (json!({"name": "v", "nfs": {}}), "volume \"v\": nfs volumes are not supported"),
            (json!({"name": "v", "hostPath": {"path": "a/b"}}), "must be absolute"),
            (json!({"name": "v", "hostPath": {"path": "/dev/null", "type": "Directory"}}), "is not a Directory"),
        ] {
            let why = make_in(dir.path(), &pod(json!([volume])), &Refs::default()).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        assert!(
            make_in(
                dir.path(),
                &pod(json!([{"name": "v", "secret": {"secretName": "x", "optional": true}}])),
                &Refs::default()
            )
            .is_ok()
        );
    }

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        for bad in ["..", "../x", "/etc", "out"] {
            assert!(below(dir.path(), bad).is_err(), "{bad}");
        }
        assert!(below(dir.path(), "a/b").unwrap().is_dir());
    }
}
