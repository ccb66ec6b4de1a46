//! Starting a container, and asking one to stop.

use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::at;
use mote_images::Image;
use mote_runtime::container::{Container, Rootfs};

use super::failure;
use super::removal::clear_folder;
use crate::agent::Agent;
use crate::clock::Moment;
use crate::keeper;
use crate::pods::dirs;
use crate::pods::model::{Exit, Instance, Pod, Source, State, Stopping};
use crate::pods::plan::short;
use crate::pods::slot::Slot;
use crate::pods::spec;
use crate::worker::describe::describe;
use crate::worker::memory::Memory;
use crate::worker::probes;

/// Fields of a container that need its process again while it runs.
const PROCESS_USERS: [&str; 4] = ["lifecycle", "startupProbe", "readinessProbe", "livenessProbe"];

/// Describes the container, makes its folders and has the keeper start it.
pub(super) async fn start(
    agent: &Rc<Agent>,
    pod: &Rc<Pod>,
    memory: &mut Memory,
    name: &str,
    attempt: u32,
    crashes: u32,
) {
    let Some((wanted, image)) = pod.container(name).zip(memory.found.get(name).cloned()) else { return };
    let field = pod.field_of(name);
    let container = match describe(agent, pod, &memory.sandbox, wanted, &image, attempt, crashes).await {
        Ok(container) => container,
        Err(why) => {
            agent.events.note(&pod.object, &field, true, "Failed", &format!("Error: {why}"));
            let failed = failure(memory.starts.get(name), "CreateContainerConfigError", why);
            memory.starts.insert(name.to_owned(), failed);
            return;
        }
    };
    let id = container.id.clone();
    if let Err(why) = make_folders(agent, pod, &container, &image, name, attempt) {
        agent.events.note(&pod.object, &field, true, "Failed", &format!("Error: {why}"));
        let failed = failure(memory.starts.get(name), "CreateContainerError", why);
        memory.starts.insert(name.to_owned(), failed);
        return;
    }
    agent.events.note(&pod.object, &field, false, "Created", &format!("Container created: {name}"));
    let process = container.process.clone();
    match agent.keeper.start(container).await {
        Ok(started) => {
            for warning in &started.warnings {
                log::debug!("container {id}: {warning}");
            }
            agent.events.note(&pod.object, &field, false, "Started", &format!("Container started: {name}"));
            memory.starts.remove(name);
            memory.images.remove(name);
            memory.found.remove(name); // the next start looks for it anew
            if at(&wanted.spec, &["lifecycle", "postStart"]).is_some() {
                tokio::task::spawn_local(probes::hook::post_start(
                    agent.clone(),
                    pod.clone(),
                    name.to_owned(),
                    id.clone(),
                    process.clone(),
                ));
            }
            if PROCESS_USERS.iter().any(|field| at(&wanted.spec, &[field]).is_some()) {
                memory.processes.insert(id, process);
            }
        }
        Err(keeper::Error::Refused(refused)) => {
            let why = format!("failed to start container {name}: {refused}");
            agent.events.note(&pod.object, &field, true, "Failed", &format!("Error: {why}"));
            memory.images.remove(name);
            let now = Moment::now();
            let exit = Exit { code: 128, cannot_run: Some(why), finished: now, ..Exit::default() };
            let runs = memory.stillborn.entry(name.to_owned()).or_default();
            runs.push(Instance {
                id: id.clone(),
                attempt,
                crashes,
                hash: wanted.hash.clone(),
                image: wanted.image.clone(),
                image_id: spec::image_id(&image),
                started: now,
                state: State::Exited(exit),
            });
            clear_folder(agent, &id);
        }
        Err(error) => {
            let failed = failure(memory.starts.get(name), "RunContainerError", error.to_string());
            memory.starts.insert(name.to_owned(), failed);
            clear_folder(agent, &id);
        }
    }
}

fn make_folders(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    image: &Image,
    name: &str,
    attempt: u32,
) -> Result<(), String> {
    let roots = &agent.config.roots;
    agent.images.lease(&container.id, image).map_err(|e| e.to_string())?;
    if let Rootfs::Overlay { upper, work, .. } = &container.rootfs {
        dirs::make(upper)?;
        dirs::make(work)?;
    }
    for file in [roots.log(pod, name, attempt), roots.termination_log(&pod.uid, name, attempt)] {
        if let Some(parent) = file.parent() {
            dirs::make(parent)?;
        }
    }
    let last_words = roots.termination_log(&pod.uid, name, attempt);
    dirs::write(&last_words, b"")?;
    // Whoever the container runs as may write its last words.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&last_words, std::fs::Permissions::from_mode(0o666))
        .map_err(|e| format!("set mode of {}: {e}", last_words.display()))
}

/// Begins the end of a run: the preStop hook and the stop signal now, SIGKILL when the plan sees the deadline pass.
#[allow(clippy::too_many_arguments)] // an action's own fields, behind what every action gets
pub(super) async fn stop(
    agent: &Rc<Agent>,
    slot: &Rc<Slot>,
    pod: &Rc<Pod>,
    memory: &mut Memory,
    container: &str,
    id: &str,
    grace: Duration,
    why: &str,
) {
    let now = Moment::now();
    let deadline = now.plus(grace);
    if let Some(stopping) = memory.stopping.get_mut(id) {
        stopping.deadline = stopping.deadline.min(deadline);
        return;
    }
    memory.stopping.insert(id.to_owned(), Stopping { deadline, killed: false });
    memory.probing.remove(id);
    if pod.source != Source::Nobody {
        agent.events.note(&pod.object, &pod.field_of(container), false, "Killing", why);
    }
    log::debug!("stop container {id}: {} until SIGKILL", short(grace));
    let stop = agent.keeper.of_pod(pod.uid.as_str()).into_iter().find(|listed| listed.id == id);
    let signal = stop.and_then(|listed| keeper::label(&listed, "stop").parse().ok()).unwrap_or(libc::SIGTERM);
    let hook = pod.container(container).and_then(|wanted| at(&wanted.spec, &["lifecycle", "preStop"])).is_some();
    if hook && !grace.is_zero() {
        let process = memory.processes.get(id).cloned();
        let hook = probes::hook::pre_stop(
            agent.clone(),
            pod.clone(),
            container.to_owned(),
            id.to_owned(),
            process,
            grace,
            signal,
        );
        let slot = slot.clone();
        tokio::task::spawn_local(async move {
            hook.await;
            slot.wake();
        });
    } else if let Err(error) = agent.keeper.signal(id, signal, false).await {
        log::warn!("stop container {id}: {error}");
    }
}
