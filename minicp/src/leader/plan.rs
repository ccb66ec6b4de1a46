//! Whose turn it is, judged by what was seen here and when: clocks of other machines may be years off. Pure.

use std::rc::Rc;
use std::time::Duration;

use mote_api::time::Time;
use mote_api::tree::{Value, i64_at, json, set, str_at};
use tokio::time::Instant;

use crate::config::ElectionTimes;

/// The Lease as it was read, and since when it has been like that to our eyes.
struct Seen {
    lease: Rc<Value>,
    since: Instant,
    /// Somebody deleted it; its holder may not know yet.
    gone: bool,
}

/// What one candidate knows of the Lease.
pub(super) struct Sight {
    me: Rc<str>,
    seen: Option<Seen>,
}

/// What a candidate does now.
#[derive(PartialEq, Debug)]
pub(super) enum Plan {
    /// Make the Lease: there is none, and nobody is known who still believes that there is.
    Create,
    /// Write it over this one (and not over a newer one).
    Take(Rc<Value>),
    /// Somebody's turn it is, for so long at least.
    Wait(Duration),
}

pub(super) fn holder(lease: &Value) -> &str {
    str_at(lease, &["spec", "holderIdentity"])
}

impl Sight {
    pub(super) fn new(me: Rc<str>) -> Sight {
        Sight { me, seen: None }
    }
    /// Notes what was read at `now`. Only a change is a sign of life: nothing that stands in it is compared with a clock.
    pub(super) fn see(&mut self, lease: Option<Rc<Value>>, now: Instant) {
        let version = |lease: &Value| str_at(lease, &["metadata", "resourceVersion"]).to_owned();
        self.seen = match (lease, self.seen.take()) {
            (None, old) => old.map(|old| Seen { gone: true, ..old }),
            (Some(lease), Some(old)) if version(&lease) == version(&old.lease) => {
                Some(Seen { lease, since: old.since, gone: false })
            }
            (Some(lease), _) => Some(Seen { lease, since: now, gone: false }),
        };
    }
    /// Somebody else, as far as is known.
    pub(super) fn holder(&self) -> Option<&str> {
        let holder = holder(&self.seen.as_ref()?.lease);
        (!holder.is_empty() && holder != &*self.me).then_some(holder)
    }
    pub(super) fn plan(&self, now: Instant) -> Plan {
        let Some(Seen { lease, since, gone }) = &self.seen else { return Plan::Create };
        let holder = holder(lease);
        let seconds = i64_at(lease, &["spec", "leaseDurationSeconds"]).unwrap_or(0);
        let over = *since + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(SECONDS_MAX));
        if holder.is_empty() || holder == &*self.me || over <= now {
            if *gone { Plan::Create } else { Plan::Take(lease.clone()) }
        } else {
            Plan::Wait(over - now)
        }
    }
}

/// A turn that somebody wrote down as longer is as long as this.
const SECONDS_MAX: u64 = 3600;

/// The Lease as `me` writes it: over `old`, or the first one. Fields of others stay.
pub(super) fn written(old: Option<&Value>, name: &str, me: &str, times: &ElectionTimes, now: Time) -> Value {
    let first = json!({"metadata": {"name": name, "namespace": super::NAMESPACE}, "spec": {"leaseTransitions": 0}});
    let mut new = old.cloned().unwrap_or(first);
    let mine = holder(&new) == me;
    if !mine {
        set(&mut new, &["spec", "acquireTime"], now.micro().into());
        if let Some(old) = old {
            let transitions = i64_at(old, &["spec", "leaseTransitions"]).unwrap_or(0).saturating_add(1);
            set(&mut new, &["spec", "leaseTransitions"], transitions.into());
        }
    }
    set(&mut new, &["spec", "holderIdentity"], me.into());
    set(&mut new, &["spec", "leaseDurationSeconds"], times.lease.as_secs().into());
    set(&mut new, &["spec", "renewTime"], now.micro().into());
    new
}

/// The Lease as its holder leaves it: whoever looks next may take it.
pub(super) fn released(old: &Value, now: Time) -> Value {
    let mut new = old.clone();
    set(&mut new, &["spec", "holderIdentity"], "".into());
    set(&mut new, &["spec", "leaseDurationSeconds"], 1.into());
    set(&mut new, &["spec", "renewTime"], now.micro().into());
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: u64, holder: &str, seconds: i64, renewed: &str) -> Rc<Value> {
        Rc::new(json!({"metadata": {"name": "l", "resourceVersion": version.to_string()},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": renewed, "leaseTransitions": 4}}))
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_lasts_as_long_as_signs_of_life_are_seen() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let wait = |seconds| Plan::Wait(Duration::from_secs(seconds));
        // What was read when, and the plan then. The times written in it are of a machine in 1970 and of one in 2099.
        let old = lease(1, "other", 15, "1970-01-01T00:00:00.000000Z");
        let new = lease(2, "other", 15, "2099-01-01T00:00:00.000000Z");
        for (reads, now, want) in [
            (vec![], 0, Plan::Create),
            (vec![(None, 0)], 0, Plan::Create),
            (vec![(Some(&old), 0)], 0, wait(15)),
            (vec![(Some(&old), 0), (Some(&old), 14)], 14, wait(1)),
            (vec![(Some(&old), 0), (Some(&old), 15)], 15, Plan::Take(old.clone())),
            (vec![(Some(&old), 0), (Some(&new), 14)], 15, wait(14)),
            (vec![(Some(&old), 0), (Some(&new), 14), (Some(&new), 29)], 29, Plan::Take(new.clone())),
            (vec![(Some(&new), 0), (None, 1)], 1, wait(14)),
            (vec![(Some(&new), 0), (None, 1)], 15, Plan::Create),
            (vec![(Some(&lease(3, "", 15, "")), 0), (None, 1)], 1, Plan::Create),
            (vec![(Some(&lease(3, "", 15, "")), 0)], 0, Plan::Take(lease(3, "", 15, ""))),
            (vec![(Some(&lease(3, "me", 15, "")), 0)], 0, Plan::Take(lease(3, "me", 15, ""))),
            (vec![(Some(&lease(3, "other", -1, "")), 0)], 0, Plan::Take(lease(3, "other", -1, ""))),
            (vec![(Some(&lease(3, "other", i64::MAX, "")), 0)], 0, wait(3600)),
        ] {
            let mut sight = Sight::new("me".into());
            for (read, when) in &reads {
                sight.see(read.cloned(), at(*when));
            }
            assert_eq!(sight.plan(at(now)), want, "{reads:?} at {now}");
        }
    }

    #[test]
    fn what_is_written() {
        let times = ElectionTimes::default();
        let now = Time::from_unix(60);
        let of = |lease: &Value| {
            let number = |field| i64_at(lease, &["spec", field]);
            let text = |field| str_at(lease, &["spec", field]).to_owned();
            (
                text("holderIdentity"),
                text("acquireTime"),
                text("renewTime"),
                number("leaseTransitions"),
                number("leaseDurationSeconds"),
            )
        };
        let minute = "1970-01-01T00:01:00.000000Z".to_owned();
        let first = written(None, "l", "me", &times, now);
        assert_eq!(of(&first), ("me".into(), minute.clone(), minute.clone(), Some(0), Some(15)));
        let again = written(Some(&first), "l", "me", &times, Time::from_unix(61));
        let later = "1970-01-01T00:01:01.000000Z".to_owned();
        assert_eq!(of(&again), ("me".into(), minute.clone(), later.clone(), Some(0), Some(15)), "renewed");
        let mut kept = Value::clone(&lease(7, "other", 99, ""));
        set(&mut kept, &["spec", "strategy"], "x".into());
        let taken = written(Some(&kept), "l", "me", &times, now);
        assert_eq!(of(&taken), ("me".into(), minute.clone(), minute, Some(5), Some(15)));
        assert_eq!(str_at(&taken, &["metadata", "resourceVersion"]), "7", "guards the write");
        assert_eq!(str_at(&taken, &["spec", "strategy"]), "x");
        let free = released(&again, Time::from_unix(62));
        assert_eq!((holder(&free), i64_at(&free, &["spec", "leaseDurationSeconds"])), ("", Some(1)));
        assert_eq!(i64_at(&written(Some(&free), "l", "other", &times, now), &["spec", "leaseTransitions"]), Some(1));
    }
}
