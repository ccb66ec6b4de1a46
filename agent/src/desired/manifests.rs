//! Static pods: every `*.yaml`, `*.yml` and `*.json` of one folder, read again when something in it changes. A changed manifest is
//! another pod: the UID is a hash of node, file and content.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use mote_api::meta;
use mote_api::tree::{Value, set, set_default, str_at};

use crate::agent::Agent;
use crate::clock::Moment;
use crate::inotify::Watch;
use crate::pods::model::Source;
use crate::worker::mirror;

/// Largest manifest file that is read.
const FILE_BYTES_MAX: u64 = 3 << 20;
/// Editors write in several steps; read once they are done.
const SETTLE: Duration = Duration::from_millis(100);
/// Without inotify, or while the folder is not there.
const POLL: Duration = Duration::from_secs(10);

/// Follows the folder for ever.
pub async fn follow(agent: Rc<Agent>, folder: PathBuf) {
    loop {
        let watch = Watch::new(&folder);
        agent.want_all(read(&folder, &agent.config.node_name), Source::Static);
        agent.statics_known.set(true);
        match watch {
            Ok(watch) => {
                watch.changed().await;
                tokio::time::sleep(SETTLE).await;
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Every pod of the folder. A file that cannot be read is said and left out.
pub fn read(folder: &Path, node_name: &str) -> Vec<Value> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            !hidden && path.extension().is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|known| ext == *known))
        })
        .collect();
    files.sort();
    let mut pods = Vec::new();
    for file in files {
        match pods_of(&file, node_name) {
            Ok(found) => pods.extend(found),
            Err(why) => log::error!("read manifest {}: {why}", file.display()),
        }
    }
    pods
}

fn pods_of(file: &Path, node_name: &str) -> Result<Vec<Value>, String> {
    let size = std::fs::metadata(file).map_err(|e| e.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let documents = mote_api::yaml::parse(&text).map_err(|e| e.to_string())?;
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .map(|document| static_pod(document, file, node_name))
        .collect()
}

/// A manifest as a pod of this node.
fn static_pod(mut pod: Value, file: &Path, node_name: &str) -> Result<Value, String> {
    if str_at(&pod, &["kind"]) != "Pod" || str_at(&pod, &["apiVersion"]) != "v1" {
        return Err(format!("is a {} {}, not a v1 Pod", str_at(&pod, &["apiVersion"]), str_at(&pod, &["kind"])));
    }
    let own_name = meta::name(&pod).to_owned();
    meta::dns_subdomain(&own_name).map_err(|why| format!("metadata.name {own_name:?}: {why}"))?;
    let content = serde_json::to_vec(&pod).map_err(|e| e.to_string())?;
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [node_name.as_bytes(), b"\0", file.as_os_str().as_encoded_bytes(), b"\0", &content] {
        hash.update(part);
    }
    let uid: String = hash.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    set(&mut pod, &["metadata", "name"], format!("{own_name}-{node_name}").into());
    set_default(&mut pod, &["metadata", "namespace"], "default".into());
    set(&mut pod, &["metadata", "uid"], uid.clone().into());
    set(&mut pod, &["metadata", "annotations", mirror::HASH], uid.into());
    set(&mut pod, &["metadata", "annotations", mirror::SOURCE], "file".into());
    set(&mut pod, &["metadata", "annotations", mirror::SEEN], Moment::now().rfc3339().into());
    set(&mut pod, &["spec", "nodeName"], node_name.into());
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_become_pods_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "a.json",
            r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": []}}"#,
        );
        write("b.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: one, namespace: ns}\nspec: {containers: []}\n");
        write("c.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: no}\n");
        write("d.json", "{broken");
        write(".hidden.json", "{}");
        let names = |pods: &[Value]| {
            pods.iter().map(|p| format!("{}/{}", meta::namespace(p), meta::name(p))).collect::<Vec<_>>()
        };
        let first = read(dir.path(), "n1");
        assert_eq!(names(&first), ["default/web-n1", "ns/one-n1"]);
        assert_eq!(meta::uid(&first[0]).len(), 32);
        assert_eq!(meta::uid(&read(dir.path(), "n1")[0]), meta::uid(&first[0]));
        write(
            "a.json",
            r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [], "x": 1}}"#,
        );
        assert_ne!(meta::uid(&read(dir.path(), "n1")[0]), meta::uid(&first[0]));
    }
}
