//! The event recorder: says once what happened, then counts. Events are for people; losing one is no error.
//!
//! Bounded three ways: distinct events remembered, writes per source (a bucket refilled over time), and events waiting.

use super::frame::Key;
use super::seam::Api;
use mote_api::time::Time;
use mote_api::tree::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Distinct events whose count is remembered.
const REMEMBERED_MAX: usize = 512;
/// Writes that may come at once, and how many seconds give back one.
const BURST: i64 = 300;
const REFILL_SECONDS: i64 = 1;
/// Bytes of a message, as upstream.
const MESSAGE_BYTES_MAX: usize = 1024;

/// What an event is about.
#[derive(Clone)]
pub struct About {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub key: Key,
    pub uid: Rc<str>,
}

type Identity = (Rc<str>, &'static str, String);

struct Seen {
    name: String,
    count: i64,
}

#[derive(Default)]
struct State {
    seen: BTreeMap<Identity, Seen>,
    order: VecDeque<Identity>,
    spent: i64,
    refilled: i64,
    serial: u64,
}

pub struct Recorder {
    api: Rc<dyn Api>,
    state: RefCell<State>,
}

enum Write {
    Create(Value),
    Count(String, Value),
}

impl Recorder {
    pub fn new(api: Rc<dyn Api>) -> Rc<Self> {
        Rc::new(Recorder { api, state: RefCell::default() })
    }

    /// `component` and `reason` are upstream's words; the write happens in the background.
    pub fn say(
        self: &Rc<Self>,
        component: &'static str,
        about: About,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let now = self.api.now();
        let Some(write) = self.state.borrow_mut().plan(component, &about, warning, reason, message, now) else {
            return;
        };
        let api = self.api.clone();
        tokio::task::spawn_local(async move {
            let ns = if about.key.ns.is_empty() { "default" } else { &about.key.ns };
            let result = match write {
                Write::Create(event) => api.create("events", ns, event).await,
                Write::Count(name, patch) => api.merge_patch("events", ns, &name, None, patch).await,
            };
            if let Err(status) = result {
                log::debug!("event {reason} of {}: {status}", about.key);
            }
        });
    }
}

impl State {
    fn plan(
        &mut self,
        component: &'static str,
        about: &About,
        warning: bool,
        reason: &'static str,
        mut message: String,
        now: Time,
    ) -> Option<Write> {
        if !self.may_write(now) {
            return None;
        }
        if message.len() > MESSAGE_BYTES_MAX {
            let cut = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(cut);
        }
        let identity = (about.uid.clone(), reason, message.clone());
        if let Some(seen) = self.seen.get_mut(&identity) {
            seen.count = seen.count.saturating_add(1);
            return Some(Write::Count(
                seen.name.clone(),
                json!({"count": seen.count, "lastTimestamp": now.to_string()}),
            ));
        }
        self.serial = self.serial.wrapping_add(1);
        let stamp = now.unix_micros().unsigned_abs().wrapping_add(self.serial);
        let name = format!("{}.{stamp:016x}", about.key.name);
        if self.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(identity.clone());
        self.seen.insert(identity, Seen { name: name.clone(), count: 1 });
        let ns = if about.key.ns.is_empty() { "default" } else { &about.key.ns };
        let mut involved = json!({
            "apiVersion": about.api_version, "kind": about.kind, "name": &*about.key.name, "uid": &*about.uid,
        });
        if !about.key.ns.is_empty() {
            mote_api::tree::set(&mut involved, &["namespace"], json!(&*about.key.ns));
        }
        Some(Write::Create(json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": ns},
            "involvedObject": involved,
            "reason": reason, "message": message, "type": if warning { "Warning" } else { "Normal" },
            "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
            "firstTimestamp": now.to_string(), "lastTimestamp": now.to_string(), "count": 1,
        })))
    }

    fn may_write(&mut self, now: Time) -> bool {
        let back = now.unix().saturating_sub(self.refilled).div_euclid(REFILL_SECONDS).max(0);
        self.spent = self.spent.saturating_sub(back).max(0);
        self.refilled = now.unix();
        if self.spent >= BURST {
            return false;
        }
        self.spent += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(uid: &str) -> About {
        About { api_version: "v1", kind: "Pod", key: Key::new("ns", "p"), uid: uid.into() }
    }

    #[test]
    fn the_same_again_is_counted() {
        let mut state = State::default();
        let now = Time::from_unix(1000);
        let Some(Write::Create(first)) = state.plan("c", &about("1"), true, "R", "m".into(), now) else {
            panic!("no event")
        };
        let Some(Write::Count(name, patch)) = state.plan("c", &about("1"), true, "R", "m".into(), now) else {
            panic!("not counted")
        };
        assert_eq!(first.pointer("/metadata/name").and_then(Value::as_str), Some(&*name));
        assert_eq!(patch.pointer("/count").and_then(Value::as_i64), Some(2));
        assert!(matches!(state.plan("c", &about("2"), true, "R", "m".into(), now), Some(Write::Create(_))));
    }

    #[test]
    fn rate_and_memory_are_bounded() {
        let mut state = State::default();
        let now = Time::from_unix(1000);
        let written =
            (0..1000).filter(|i| state.plan("c", &about("1"), false, "R", format!("{i}"), now).is_some()).count();
        assert_eq!(i64::try_from(written), Ok(BURST));
        let later = Time::from_unix(1000 + REFILL_SECONDS);
        assert!(state.plan("c", &about("1"), false, "R", "x".into(), later).is_some());
        assert!(state.plan("c", &about("1"), false, "R", "y".into(), later).is_none());
        for i in 0..2 * REMEMBERED_MAX {
            state.spent = 0;
            state.plan("c", &about("1"), false, "R", format!("more {i}"), later);
        }
        assert_eq!(state.seen.len(), REMEMBERED_MAX);
    }
}
