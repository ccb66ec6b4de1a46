//! Kubernetes Events of this node: what happened, for `kubectl describe`. The same event again only raises its count. Sent by one task
//! from a bounded queue: an API server that is not there delays nothing.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use mote_api::tree::{Value, json, str_at};
use tokio::sync::Notify;

use crate::client::{Client, Content};
use crate::clock::Moment;
use crate::pods::model::fnv;

/// Events waiting to be sent; the oldest goes first when there are more.
const QUEUE_MAX: usize = 512;
/// Events whose count is remembered.
const KNOWN_MAX: usize = 2048;

struct Pending {
    name: String,
    namespace: String,
    event: Value,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Pending>,
    /// Count so far, by event name.
    known: HashMap<String, u32>,
}

/// Where events are handed in.
#[derive(Clone)]
pub struct Events {
    node: Rc<str>,
    state: Rc<RefCell<State>>,
    wake: Rc<Notify>,
}

impl Events {
    /// For this node; without a client events go to the log only.
    pub fn new(node: &str, client: Option<Rc<Client>>) -> Events {
        let events = Events { node: node.into(), state: Rc::default(), wake: Rc::default() };
        if let Some(client) = client {
            let sender = events.clone();
            tokio::task::spawn_local(async move { sender.send(client).await });
        }
        events
    }

    /// Something happened to `object`. `field` is the part of it (`spec.containers{name}`), or empty.
    pub fn note(&self, object: &Value, field: &str, warning: bool, reason: &str, message: &str) {
        let kind = if warning { "Warning" } else { "Normal" };
        let what = match str_at(object, &["kind"]) {
            "" => "Pod",
            kind => kind,
        };
        let (namespace, name) = (str_at(object, &["metadata", "namespace"]), str_at(object, &["metadata", "name"]));
        let level = if warning { log::Level::Warn } else { log::Level::Info };
        log::log!(level, "{what} {namespace}/{name}: {reason}: {message}");
        let message = message.get(..1024).unwrap_or(message);
        let hash = fnv(&[
            str_at(object, &["metadata", "uid"]).as_bytes(),
            field.as_bytes(),
            reason.as_bytes(),
            message.as_bytes(),
        ]);
        let event_name = format!("{name}.{hash:016x}");
        let event_namespace = if namespace.is_empty() { "default" } else { namespace };
        let now = Moment::now().rfc3339();
        let mut state = self.state.borrow_mut();
        if state.known.len() >= KNOWN_MAX {
            state.known.clear();
        }
        let count = state.known.entry(event_name.clone()).or_insert(0);
        *count = count.saturating_add(1);
        let count = *count;
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": event_name, "namespace": event_namespace},
            "involvedObject": {
                "apiVersion": "v1", "kind": what, "name": name, "namespace": namespace,
                "uid": str_at(object, &["metadata", "uid"]), "resourceVersion": str_at(object, &["metadata", "resourceVersion"]),
                "fieldPath": field},
            "reason": reason, "message": message, "type": kind, "count": count,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "kubelet", "host": &*self.node},
            "reportingComponent": "kubelet", "reportingInstance": &*self.node,
        });
        // A newer count of an event that still waits replaces it.
        if let Some(waiting) = state.queue.iter_mut().find(|pending| pending.name == event_name) {
            let first = str_at(&waiting.event, &["firstTimestamp"]).to_owned();
            waiting.event = event;
            mote_api::tree::set(&mut waiting.event, &["firstTimestamp"], first.into());
        } else {
            if state.queue.len() >= QUEUE_MAX {
                state.queue.pop_front();
            }
            state.queue.push_back(Pending { name: event_name, namespace: event_namespace.to_owned(), event });
        }
        drop(state);
        self.wake.notify_one();
    }

    async fn send(self, client: Rc<Client>) {
        let mut failures = 0u32;
        loop {
            let Some(pending) = self.state.borrow_mut().queue.pop_front() else {
                self.wake.notified().await;
                continue;
            };
            let collection = format!("/api/v1/namespaces/{}/events", pending.namespace);
            let created = client.create(&collection, &pending.event).await;
            let result = match created {
                Err(error) if error.is_conflict() => {
                    let event = &pending.event;
                    let patch = json!({"count": event["count"], "lastTimestamp": event["lastTimestamp"], "message": event["message"]});
                    client.patch(&format!("{collection}/{}", pending.name), Content::MergePatch, &patch).await
                }
                other => other,
            };
            match result {
                Ok(_) => failures = 0,
                Err(error) if error.is_retryable() && failures < 5 => {
                    failures += 1;
                    self.state.borrow_mut().queue.push_front(pending);
                    tokio::time::sleep(std::time::Duration::from_secs(1 << failures)).await;
                }
                Err(error) => log::debug!("send event {}: {error}", pending.name),
            }
        }
    }
}
