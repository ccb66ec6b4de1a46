//! The worker of one pod: observe, plan, say, execute, wait. It owns everything about its pod; others only put a new wish or a piece
//! of news into its [`Slot`] and wake it.

pub(crate) mod describe;
mod execute;
mod memory;
pub mod mirror;
mod observe;
mod probes;
mod say;

use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::{at, str_at};

use self::memory::Memory;
use crate::agent::Agent;
use crate::clock::{self, Moment};
use crate::pods::model::{Pod, Sandbox, Source, Volumes};
use crate::pods::plan::plan;
use crate::pods::slot::Slot;
use crate::pods::status::{Around, status};
use crate::pods::volumes::refresh;

/// Starts the worker of a new pod.
pub fn begin(agent: Rc<Agent>, slot: Rc<Slot>) {
    tokio::task::spawn_local(run(agent, slot));
}

/// The life of a worker.
async fn run(agent: Rc<Agent>, slot: Rc<Slot>) {
    let pod = slot.pod();
    let mut memory = Memory { first_attempt: observe::first_attempts(&agent, &pod), ..Memory::default() };
    let told = Rc::new(pod.object.get("status").cloned().unwrap_or_default());
    observe::told_attempts(&told, &mut memory.first_attempt);
    let mut started = clock::parse(str_at(&told, &["startTime"]));
    if agent.keeper.has_sandbox(pod.uid.as_str()) && (pod.deleting.is_some() || ended(&pod)) {
        memory.sandbox = Sandbox::Ready { ip: None };
    }
    let speaker = say::Speaker::new(agent.clone(), slot.clone(), told.clone());
    let mut said = told;
    let mut seen = pod;
    loop {
        if agent.closing.get() {
            // The process is about to end, or the keeper to be emptied: nothing new is begun.
            return std::future::pending().await;
        }
        for news in slot.take() {
            execute::hear(&mut memory, news);
        }
        let pod = current(&slot);
        notice(&mut memory, &seen, &pod);
        seen = pod.clone();
        let now = Moment::now();
        started = started.or(Some(now));
        observe::refresh(&agent, &slot, &pod, &mut memory, &said);
        let facts = observe::facts(&agent, &pod, &mut memory);
        let around = Around { host_ip: agent.config.host_ip, started, ended: ended(&pod) };
        let plan = plan(&pod, &facts, started, around.ended, now);
        let new = status(&pod, &facts, &around, &said, now);
        if new != *said {
            say::back_offs(&agent, &pod, &new, &mut memory);
            said = Rc::new(new);
        }
        speaker.say(&pod, &said);
        let acted = !plan.actions.is_empty();
        for action in plan.actions {
            execute::execute(&agent, &slot, &pod, &mut memory, action).await;
        }
        if plan.gone {
            speaker.finish(&pod).await;
            agent.forget(&pod.uid);
            // A wish that came while the last of it went (a static pod that is back): begin again.
            let again = slot.pod();
            if !slot.vanished() && again.deleting.is_none() {
                let _ = agent.want(again.object.clone(), again.source); // it was readable before
            }
            return;
        }
        if acted {
            tokio::task::yield_now().await;
            continue;
        }
        wait(&slot, &pod, &mut memory, plan.look_again, now).await;
    }
}

async fn wait(slot: &Slot, pod: &Pod, memory: &mut Memory, look_again: Option<Moment>, now: Moment) {
    let refresh = memory.refresh_at.filter(|_| memory.volumes == Volumes::Ready && pod.deleting.is_none());
    let next = look_again.into_iter().chain(refresh).min();
    match next {
        None => slot.woken().await,
        Some(next) => {
            // At least a millisecond: a moment that has come must not make a busy loop.
            let pause = next.since(now).max(Duration::from_millis(1));
            let _ = tokio::time::timeout(pause, slot.woken()).await;
        }
    }
    if refresh.is_some_and(|refresh| Moment::now() >= refresh) {
        memory.volumes = Volumes::Stale;
    }
}

/// Files that tell a pod's labels and annotations follow them at once.
fn notice(memory: &mut Memory, before: &Pod, pod: &Pod) {
    let differs = |field| at(&before.object, &["metadata", field]) != at(&pod.object, &["metadata", field]);
    if memory.volumes == Volumes::Ready
        && !Rc::ptr_eq(&before.object, &pod.object)
        && refresh::tells_of_itself(&pod.object)
        && (differs("labels") || differs("annotations"))
    {
        memory.volumes = Volumes::Stale;
    }
}

/// The wish, with its end when nobody has it any more.
fn current(slot: &Slot) -> Rc<Pod> {
    let pod = slot.pod();
    if !slot.vanished() {
        return pod;
    }
    if (pod.deleting.is_none() || pod.source == Source::Api)
        && let Ok(mut ending) = Pod::read(pod.object.clone(), pod.source)
    {
        // Force-deleted from the API: no grace is left to ask for; a manifest that went away: the pod's own.
        ending.deleting = Some(match pod.source {
            Source::Api => Duration::from_secs(1).min(pod.grace),
            Source::Static | Source::Nobody => pod.grace,
        });
        return Rc::new(ending);
    }
    pod
}

/// The API already calls it Succeeded or Failed.
fn ended(pod: &Pod) -> bool {
    pod.source == Source::Api && matches!(str_at(&pod.object, &["status", "phase"]), "Succeeded" | "Failed")
}
