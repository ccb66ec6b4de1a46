//! Taking away: one run of a container, or everything the pod has on this node.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::sandbox;
use crate::agent::Agent;
use crate::keeper;
use crate::pods::dirs;
use crate::pods::model::Pod;
use crate::pods::{spec, volumes};
use crate::worker::memory::Memory;

/// The writable layer of a container and its hold on the image.
pub(super) fn clear_folder(agent: &Agent, id: &str) {
    if let Err(error) = dirs::remove_tree(&agent.config.roots.container(id)) {
        log::warn!("{error}");
    }
    if let Err(error) = agent.images.release(id) {
        log::warn!("release image of container {id}: {error}");
    }
}

/// One run: its container, its folders, and what was remembered of it.
pub(super) async fn run(agent: &Rc<Agent>, memory: &mut Memory, container: &str, id: &str) {
    if let Err(error) = agent.keeper.remove(id).await
        && error.kind() != Some(mote_runtime::keeper::protocol::FailureKind::NotFound)
    {
        log::warn!("remove container {id}: {error}");
    }
    if let Some(runs) = memory.stillborn.get_mut(container) {
        runs.retain(|run| run.id != id);
    }
    clear_folder(agent, id);
    memory.probed.remove(id);
    memory.probing.remove(id);
    memory.stopping.remove(id);
    memory.messages.remove(id);
    memory.processes.remove(id);
}

/// A log file and what rotation made of it.
pub(super) fn logs(log: &std::path::Path) {
    let Some((folder, name)) = log.parent().zip(log.file_name()) else { return };
    let name = name.to_string_lossy();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&*name) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Everything the pod has on this node.
pub(super) async fn all(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory) {
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for listed in agent.keeper.of_pod(pod.uid.as_str()) {
        ids.insert(listed.id.clone(), keeper::label(&listed, "container").to_owned());
    }
    for (name, runs) in &memory.stillborn {
        ids.extend(runs.iter().map(|run| (run.id.clone(), name.clone())));
    }
    for (id, container) in ids {
        run(agent, memory, &container, &id).await;
    }
    sandbox::remove(agent, pod, memory).await;
    let (roots, uid) = (agent.config.roots.clone(), pod.uid.clone());
    let logs = roots.pod_logs(&pod.namespace, &pod.name, &pod.uid);
    let group = spec::pod_cgroup(&agent.config.cgroup_parent, pod.uid.as_str());
    let removed = tokio::task::spawn_blocking(move || {
        let volumes = volumes::remove(&roots, &uid).and_then(|()| dirs::remove_tree(&logs));
        let group =
            mote_runtime::cgroup::remove(&mote_runtime::cgroup::Layout::discover(), &group).map_err(|e| e.to_string());
        (volumes, group)
    });
    match removed.await {
        Ok((volumes, group)) => {
            if let Err(error) = volumes {
                log::warn!("{error}");
            }
            if let Err(error) = group {
                log::warn!("{error}");
            }
        }
        Err(error) => log::warn!("clean up after pod {}: {error}", pod.key()),
    }
}
