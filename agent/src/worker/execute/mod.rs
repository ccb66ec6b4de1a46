//! Doing what the plan says, and remembering what came of it. One file per thing that is made: [`content`] of volumes, the
//! [`sandbox`], the [`image`], the [`container`]; [`removal`] takes them away.

mod container;
mod content;
mod image;
mod removal;
mod sandbox;

use std::rc::Rc;

use crate::agent::Agent;
use crate::clock::Moment;
use crate::pods::model::{Failure, ImageState, Pod, Sandbox};
use crate::pods::plan::Action;
use crate::pods::slot::{News, Slot};
use crate::worker::memory::Memory;

/// Takes a piece of news into the memory.
pub(super) fn hear(memory: &mut Memory, news: News) {
    match news {
        News::Image { container, result: Ok(image) } => {
            memory.pull_failures.remove(&container);
            memory.images.insert(container.clone(), ImageState::Ready { at: Moment::now() });
            memory.found.insert(container, *image);
        }
        News::Image { container, result: Err((reason, message)) } => {
            let times = memory.pull_failures.entry(container.clone()).or_insert(0);
            *times = times.saturating_add(1);
            let failure = Failure { reason, message, at: Moment::now(), times: *times };
            memory.images.insert(container, ImageState::Failed(failure));
        }
        News::Probed { id, probed } => {
            memory.probed.insert(id, probed);
        }
        News::Network => {
            if matches!(memory.sandbox, Sandbox::Failed(_)) {
                memory.sandbox = Sandbox::None;
            }
        }
    }
}

fn failure(before: Option<&Failure>, reason: &'static str, message: String) -> Failure {
    Failure { reason, message, at: Moment::now(), times: before.map_or(0, |before| before.times).saturating_add(1) }
}

/// Does one action of the plan.
pub(super) async fn execute(agent: &Rc<Agent>, slot: &Rc<Slot>, pod: &Rc<Pod>, memory: &mut Memory, action: Action) {
    match action {
        Action::MakeVolumes => content::make(agent, pod, memory).await,
        Action::MakeSandbox => sandbox::make(agent, pod, memory).await,
        Action::Pull { container } => {
            if let Some(wanted) = pod.container(&container) {
                memory.images.insert(container.clone(), ImageState::Pulling);
                tokio::task::spawn_local(image::pull(
                    agent.clone(),
                    slot.clone(),
                    pod.clone(),
                    container,
                    wanted.image.clone(),
                    wanted.pull,
                ));
            }
        }
        Action::Start { container, attempt, crashes } => {
            container::start(agent, pod, memory, &container, attempt, crashes).await
        }
        Action::Stop { container, id, grace, why } => {
            container::stop(agent, slot, pod, memory, &container, &id, grace, &why).await
        }
        Action::Kill { id } => {
            if let Some(stopping) = memory.stopping.get_mut(&id) {
                stopping.killed = true;
            }
            if let Err(error) = agent.keeper.signal(&id, libc::SIGKILL, true).await {
                log::warn!("kill container {id}: {error}");
            }
        }
        Action::Remove { id, attempt, container } => {
            removal::run(agent, memory, &container, &id).await;
            let log = agent.config.roots.log(pod, &container, attempt);
            removal::logs(&log);
            let _ = std::fs::remove_file(agent.config.roots.termination_log(&pod.uid, &container, attempt));
        }
        Action::RemoveSandbox => sandbox::remove(agent, pod, memory).await,
        Action::RemoveAll => removal::all(agent, pod, memory).await,
    }
}
