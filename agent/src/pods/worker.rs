//! The worker of one pod: observe, plan, say, execute, wait. It owns everything about its pod; others only put a new wish or a piece
//! of news into its [`Slot`] and wake it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::{Value, json, str_at};
use mote_images::Image;
use mote_runtime::container::Process;
use tokio::sync::Notify;

use super::model::{Failure, Instance, Pod, Probed, Sandbox, Source, Stopping, Volumes};
use super::plan::plan;
use super::status::{Around, status};
use super::{execute, observe, say};
use crate::agent::Agent;
use crate::clock::{self, Moment};
use crate::probes::Probing;

/// How often content of volumes is looked at again.
const REFRESH: Duration = Duration::from_secs(60);

/// What tasks of the pod tell its worker.
pub enum News {
    /// An image is here, or not to be had (the kubelet's word and the reason).
    Image {
        /// For which container.
        container: String,
        /// What came of it.
        result: Result<Box<Image>, (&'static str, String)>,
    },
    /// The probes of a container have found something new.
    Probed {
        /// Container id.
        id: String,
        /// What.
        probed: Probed,
    },
    /// The pod network is there now.
    Network,
}

/// The one place through which the rest of the agent reaches a worker.
pub struct Slot {
    pod: RefCell<Rc<Pod>>,
    news: RefCell<Vec<News>>,
    vanished: Cell<bool>,
    wake: Notify,
}

impl Slot {
    /// With the first wish.
    pub fn new(pod: Pod) -> Rc<Slot> {
        Rc::new(Slot {
            pod: RefCell::new(Rc::new(pod)),
            news: RefCell::default(),
            vanished: Cell::new(false),
            wake: Notify::new(),
        })
    }

    /// Look again.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// A new wish.
    pub fn want(&self, pod: Pod) {
        *self.pod.borrow_mut() = Rc::new(pod);
        self.vanished.set(false);
        self.wake();
    }

    /// Nobody wants it any more.
    pub fn vanish(&self) {
        self.vanished.set(true);
        self.wake();
    }

    /// News for the worker.
    pub fn tell(&self, news: News) {
        self.news.borrow_mut().push(news);
        self.wake();
    }

    /// Who wants it.
    pub fn source(&self) -> Source {
        self.pod.borrow().source
    }

    /// The present wish.
    pub fn pod(&self) -> Rc<Pod> {
        self.pod.borrow().clone()
    }
}

/// What only the worker knows: everything else is read anew from the keeper.
#[derive(Default)]
pub struct Memory {
    pub(super) volumes: Volumes,
    pub(super) volumes_at: Moment,
    pub(super) sandbox: Sandbox,
    pub(super) images: BTreeMap<String, super::model::ImageState>,
    pub(super) found: BTreeMap<String, Image>,
    pub(super) pull_failures: BTreeMap<String, u32>,
    pub(super) starts: BTreeMap<String, Failure>,
    pub(super) stopping: BTreeMap<String, Stopping>,
    pub(super) probed: BTreeMap<String, Probed>,
    pub(super) probing: BTreeMap<String, Probing>,
    /// Runs that never came to be, by container.
    pub(super) stillborn: BTreeMap<String, Vec<Instance>>,
    /// Last words by container id.
    pub(super) messages: BTreeMap<String, String>,
    /// Processes by container id, for exec probes and hooks.
    pub(super) processes: BTreeMap<String, Process>,
    pub(super) first_attempt: BTreeMap<String, u32>,
    /// Waiting reasons already told as events, by container.
    pub(super) backing_off: BTreeMap<String, String>,
}

/// The life of a worker.
pub async fn run(agent: Rc<Agent>, slot: Rc<Slot>) {
    let pod = slot.pod();
    let mut memory = Memory { first_attempt: observe::first_attempts(&agent, &pod), ..Memory::default() };
    let told = pod.object.get("status").cloned().unwrap_or_default();
    observe::told_attempts(&told, &mut memory.first_attempt);
    let mut started = clock::parse(str_at(&told, &["startTime"]));
    if agent.keeper.has_sandbox(pod.uid.as_str()) && (pod.deleting.is_some() || ended(&pod)) {
        memory.sandbox = Sandbox::Ready { ip: None };
    }
    let mut said = told;
    let speaker = say::Speaker::new(agent.clone(), slot.clone());
    loop {
        if agent.closing.get() {
            // The process is about to end, or the keeper to be emptied: nothing new is begun.
            return std::future::pending().await;
        }
        for news in slot.news.take() {
            execute::hear(&mut memory, news);
        }
        let pod = current(&slot);
        let now = Moment::now();
        started = started.or(Some(now));
        observe::refresh(&agent, &slot, &pod, &mut memory, &said);
        let facts = observe::facts(&agent, &pod, &mut memory);
        let around = Around { host_ip: agent.config.host_ip, started, ended: ended(&pod) };
        let plan = plan(&pod, &facts, started, around.ended, now);
        let new = status(&pod, &facts, &around, &said, now);
        if new != said {
            say::back_offs(&agent, &pod, &new, &mut memory);
            said = new;
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
            if !slot.vanished.get() && again.deleting.is_none() {
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
    let refresh = (crate::volumes::changing(&pod.object) && memory.volumes == Volumes::Ready && pod.deleting.is_none())
        .then(|| memory.volumes_at.plus(REFRESH));
    let next = look_again.into_iter().chain(refresh).min();
    match next {
        None => slot.wake.notified().await,
        Some(next) => {
            // At least a millisecond: a moment that has come must not make a busy loop.
            let pause = next.since(now).max(Duration::from_millis(1));
            let _ = tokio::time::timeout(pause, slot.wake.notified()).await;
        }
    }
    if refresh.is_some_and(|refresh| Moment::now() >= refresh) {
        memory.volumes = Volumes::None;
    }
}

/// The wish, with its end when nobody has it any more.
fn current(slot: &Slot) -> Rc<Pod> {
    let pod = slot.pod();
    if !slot.vanished.get() {
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

/// The reference of a container in events.
pub fn field_of(pod: &Pod, container: &str) -> String {
    match pod.container(container).map(|wanted| wanted.role) {
        Some(super::model::Role::App) | None => format!("spec.containers{{{container}}}"),
        Some(_) => format!("spec.initContainers{{{container}}}"),
    }
}

/// DeleteOptions that end the life of a pod object.
pub(super) fn last_delete(uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
}
