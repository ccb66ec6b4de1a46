//! Events live an hour, and there are never more than so many of them.

use std::collections::VecDeque;
use std::rc::Rc;

use mote_api::kind::Kind;

use super::{Api, object};
use crate::store::{Class, Op, Revision, Txn};

/// Seconds an Event is kept (upstream's `--event-ttl`). Looked at whenever a new one is made: an idle server has no timer for it.
pub const EVENT_TTL_SECONDS: i64 = 3600;
/// Events kept at most; the oldest go first.
pub const EVENTS_MAX: usize = 2000;

/// Events in the order they were made.
#[derive(Default)]
pub(crate) struct Window(VecDeque<(Rc<str>, i64)>);

impl Api {
    /// Remembers a new Event, and lets the oldest go.
    pub(crate) fn note_event(&self, kind: &Kind, ns: &str, name: &str, _revision: Revision) {
        if kind.plural != "events" {
            return;
        }
        let now = self.now().unix();
        let mut gone = Vec::new();
        {
            let mut window = self.events.borrow_mut();
            window.0.push_back((object::key(kind, ns, name).into(), now));
            while let Some((key, made)) = window.0.front() {
                if window.0.len() <= EVENTS_MAX && now.saturating_sub(*made) < EVENT_TTL_SECONDS {
                    break;
                }
                gone.push(Op::Delete(key.clone()));
                window.0.pop_front();
            }
        }
        for op in gone {
            // Accepted at once; nobody waits for it.
            drop(self.store.commit(Txn { guards: Vec::new(), ops: vec![op], class: Class::Volatile }));
        }
    }
}
