//! Where the things of a pod lie. What must outlive a reboot is below the data folder; what need not (and must not wear the flash,
//! or is secret) is below the run folder, a tmpfs.

use std::path::{Path, PathBuf};

use super::model::{Pod, PodUid};

/// The two roots of a node.
#[derive(Clone)]
pub struct Roots {
    /// `--data-dir`.
    pub data: PathBuf,
    /// `/run/mote/<tag>`.
    pub run: PathBuf,
}

impl Roots {
    /// Durable part of a pod: emptyDir volumes.
    pub fn pod_data(&self, uid: &PodUid) -> PathBuf {
        self.data.join("pods").join(uid.as_str())
    }

    /// Volatile part of a pod: `etc/`, `volumes/` (configMap, secret, downwardAPI, projected), `term/`.
    pub fn pod_run(&self, uid: &PodUid) -> PathBuf {
        self.run.join("pods").join(uid.as_str())
    }

    /// Log folder of a pod, as the kubelet names it.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &PodUid) -> PathBuf {
        self.data.join("logs").join(format!("{namespace}_{name}_{uid}"))
    }

    /// Log file of one run of a container.
    pub fn log(&self, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
        self.pod_logs(&pod.namespace, &pod.name, &pod.uid).join(container).join(format!("{attempt}.log"))
    }

    /// Upper and work folder of a container.
    pub fn container(&self, id: &str) -> PathBuf {
        self.data.join("containers").join(id)
    }

    /// Where the container leaves its last words.
    pub fn termination_log(&self, uid: &PodUid, container: &str, attempt: u32) -> PathBuf {
        self.pod_run(uid).join("term").join(format!("{container}-{attempt}"))
    }
}

/// Removes a folder and everything in it; it not being there is fine.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(std::io::Error::new(error.kind(), format!("remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// `create_dir_all` whose error names the folder.
pub fn make(path: &Path) -> Result<(), String> {
    std::fs::create_dir_all(path).map_err(|e| format!("make folder {}: {e}", path.display()))
}

/// `write` whose error names the file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|e| format!("write {}: {e}", path.display()))
}
