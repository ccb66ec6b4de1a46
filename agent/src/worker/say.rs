//! Telling the API server: the status of a pod, one request at a time, always the newest, only when it changed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::{Map, Value, json, list_at, str_at};
use tokio::sync::Notify;

use super::memory::Memory;
use super::mirror;
use crate::agent::Agent;
use crate::client::{Content, path};
use crate::pods::model::{Pod, Source};
use crate::pods::slot::Slot;

struct Said {
    wanted: RefCell<Option<Rc<Value>>>,
    sent: RefCell<Rc<Value>>,
    wake: Notify,
    idle: Notify,
    busy: Cell<bool>,
    done: Cell<bool>,
}

/// Speaks for one pod.
pub(super) struct Speaker {
    agent: Rc<Agent>,
    said: Rc<Said>,
}

const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long the end of a pod waits for its last status to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Speaker {
    /// For the pod of this slot; starts its task.
    /// `sent` is what the API has.
    pub(super) fn new(agent: Rc<Agent>, slot: Rc<Slot>, sent: Rc<Value>) -> Speaker {
        let said = Rc::new(Said {
            wanted: RefCell::new(None),
            sent: RefCell::new(sent),
            wake: Notify::new(),
            idle: Notify::new(),
            busy: Cell::new(false),
            done: Cell::new(false),
        });
        if agent.client.is_some() && slot.source() != Source::Nobody {
            tokio::task::spawn_local(speak(agent.clone(), slot, said.clone()));
        }
        Speaker { agent, said }
    }

    /// This is the status now.
    pub(super) fn say(&self, pod: &Pod, status: &Rc<Value>) {
        let known = self.agent.said.borrow().get(&pod.uid).is_some_and(|known| known == status);
        if known {
            return;
        }
        self.agent.said.borrow_mut().insert(pod.uid.clone(), status.clone());
        *self.said.wanted.borrow_mut() = Some(status.clone());
        self.said.wake.notify_one();
    }

    /// Nothing of the pod is left here: last words, then its object may go.
    pub(super) async fn finish(&self, pod: &Pod) {
        let Some(client) = &self.agent.client else { return };
        let quiet = async {
            while self.said.busy.get() || self.said.wanted.borrow().is_some() {
                self.said.idle.notified().await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, quiet).await;
        self.said.done.set(true);
        self.said.wake.notify_one();
        if pod.source == Source::Static {
            mirror::remove_of(&self.agent, pod).await;
        }
        if pod.source != Source::Api || pod.object.pointer("/spec/nodeName").is_none() {
            return;
        }
        let mut pause = Duration::from_millis(200);
        loop {
            let target = path::core(&pod.namespace, "pods", &pod.name);
            match client.delete(&target, &last_delete(pod.uid.as_str())).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) if !error.is_retryable() => {
                    log::error!("delete pod {}: {error}", pod.key());
                    return;
                }
                Err(error) => log::debug!("delete pod {}: {error}; trying on", pod.key()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

async fn speak(agent: Rc<Agent>, slot: Rc<Slot>, said: Rc<Said>) {
    let Some(client) = agent.client.clone() else { return };
    let mut pause = Duration::from_millis(200);
    loop {
        let Some(status) = said.wanted.borrow_mut().take() else {
            said.idle.notify_one();
            if said.done.get() {
                return;
            }
            said.wake.notified().await;
            continue;
        };
        let patch = difference(&said.sent.borrow(), &status);
        let Some(mut patch) = patch else { continue };
        let pod = slot.pod();
        if pod.source == Source::Static {
            mirror::ensure(&agent, &pod).await;
        } else if let Some(map) = patch.as_object_mut() {
            map.insert("metadata".into(), json!({"uid": pod.uid.as_str()}));
        }
        said.busy.set(true);
        let target = format!("{}/status", path::core(&pod.namespace, "pods", &pod.name));
        let result = client.patch(&target, Content::MergePatch, &patch).await;
        said.busy.set(false);
        match result {
            Ok(_) => {
                *said.sent.borrow_mut() = status;
                pause = Duration::from_millis(200);
            }
            Err(error) if error.is_retryable() => {
                log::debug!("patch status of pod {}: {error}; trying on", pod.key());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                let mut wanted = said.wanted.borrow_mut();
                if wanted.is_none() {
                    *wanted = Some(status);
                }
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {
                log::debug!("patch status of pod {}: {error}", pod.key())
            }
            Err(error) => log::error!("patch status of pod {}: {error}", pod.key()),
        }
    }
}

/// DeleteOptions that end the life of a pod object.
fn last_delete(uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}})
}

/// A merge patch from one status to another; `None` when they are the same.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object()?);
    let mut patch = Map::new();
    for (key, value) in new {
        if old.get(key) != Some(value) {
            patch.insert(key.clone(), value.clone());
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        if MINE.contains(&key.as_str()) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    (!patch.is_empty()).then(|| json!({"status": patch}))
}

/// Fields that the node takes back when they no longer hold.
const MINE: [&str; 7] = [
    "podIP",
    "podIPs",
    "reason",
    "message",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
];

/// Tells as events which containers are held back now.
pub(super) fn back_offs(agent: &Agent, pod: &Pod, status: &Value, memory: &mut Memory) {
    let both = [list_at(status, &["initContainerStatuses"]), list_at(status, &["containerStatuses"])];
    for entry in both.into_iter().flatten() {
        let (name, reason) = (str_at(entry, &["name"]), str_at(entry, &["state", "waiting", "reason"]));
        let message = str_at(entry, &["state", "waiting", "message"]);
        let key = format!("{reason}{message}");
        if memory.backing_off.get(name).map_or("", String::as_str) == key {
            continue;
        }
        memory.backing_off.insert(name.to_owned(), key);
        match reason {
            "CrashLoopBackOff" => {
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}_{}({})",
                    pod.name, pod.namespace, pod.uid
                );
                agent.events.note(&pod.object, &pod.field_of(name), true, "BackOff", &message);
            }
            "ImagePullBackOff" => {
                let image = pod.container(name).map_or("", |wanted| wanted.image.as_str());
                agent.events.note(
                    &pod.object,
                    &pod.field_of(name),
                    false,
                    "BackOff",
                    &format!("Back-off pulling image {image:?}"),
                );
                agent.events.note(&pod.object, &pod.field_of(name), true, "Failed", "Error: ImagePullBackOff");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_sent() {
        let old = json!({"phase": "Running", "podIP": "1.2.3.4", "extra": 1});
        assert_eq!(difference(&old, &old), None);
        let new = json!({"phase": "Failed", "reason": "Evicted"});
        assert_eq!(
            difference(&old, &new),
            Some(json!({"status": {"phase": "Failed", "reason": "Evicted", "podIP": null}}))
        );
    }
}
