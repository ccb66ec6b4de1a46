//! Pods that wait for a node, as a pure machine: the most important and longest waiting first; what could not be placed rests
//! until something changes, and then no sooner than its back-off.

use crate::controllers::frame::Key;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// First and longest rest of a pod that could not be placed, in milliseconds.
const BACKOFF_MS: (u64, u64) = (1_000, 10_000);

#[derive(PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub enum Next {
    Pod(Key),
    /// Nothing before this time.
    Wait(u64),
    Idle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Active {
        since: u64,
    },
    /// Comes back by itself at this time.
    Resting {
        until: u64,
    },
    /// Comes back when the world changes, not before this time.
    Parked {
        until: u64,
    },
    /// Handed out.
    Out,
}

struct Entry {
    priority: i64,
    attempts: u32,
    place: Place,
}

#[derive(Default)]
pub struct Queue {
    entries: BTreeMap<Key, Entry>,
    active: BTreeSet<(Reverse<i64>, u64, Key)>,
    resting: BTreeSet<(u64, Key)>,
    parked: BTreeSet<Key>,
}

impl Queue {
    /// The pod is new or changed: try it now.
    pub fn add(&mut self, key: &Key, priority: i64, now: u64) {
        let attempts = self.leave(key).map_or(0, |entry| entry.attempts);
        self.enter(key, Entry { priority, attempts, place: Place::Active { since: now } });
    }

    /// It needs a node no more.
    pub fn remove(&mut self, key: &Key) {
        self.leave(key);
    }

    /// It could not be placed: wait for a change of the world.
    pub fn park(&mut self, key: &Key, now: u64) {
        self.again(key, now, |until| Place::Parked { until });
    }

    /// Its binding failed: try again after the back-off.
    pub fn rest(&mut self, key: &Key, now: u64) {
        self.again(key, now, |until| Place::Resting { until });
    }

    /// Something changed that may let parked pods in.
    pub fn wake(&mut self, now: u64) {
        for key in std::mem::take(&mut self.parked) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let Place::Parked { until } = entry.place else { continue };
            if until <= now {
                entry.place = Place::Active { since: now };
                self.active.insert((Reverse(entry.priority), now, key));
            } else {
                entry.place = Place::Resting { until };
                self.resting.insert((until, key));
            }
        }
    }

    pub fn next(&mut self, now: u64) -> Next {
        while let Some((until, _)) = self.resting.first() {
            if *until > now {
                break;
            }
            if let Some((_, key)) = self.resting.pop_first()
                && let Some(entry) = self.entries.get_mut(&key)
            {
                entry.place = Place::Active { since: now };
                self.active.insert((Reverse(entry.priority), now, key));
            }
        }
        if let Some((_, _, key)) = self.active.pop_first() {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::Out;
            }
            return Next::Pod(key);
        }
        self.resting.first().map_or(Next::Idle, |(until, _)| Next::Wait(*until))
    }

    fn again(&mut self, key: &Key, now: u64, place: impl Fn(u64) -> Place) {
        // removed or added anew meanwhile: that decides
        if self.entries.get(key).is_none_or(|entry| entry.place != Place::Out) {
            return;
        }
        if let Some(mut entry) = self.leave(key) {
            let wait = BACKOFF_MS.0.checked_shl(entry.attempts.min(16)).unwrap_or(BACKOFF_MS.1).min(BACKOFF_MS.1);
            entry.attempts = entry.attempts.saturating_add(1);
            entry.place = place(now.saturating_add(wait));
            self.enter(key, entry);
        }
    }

    fn enter(&mut self, key: &Key, entry: Entry) {
        match entry.place {
            Place::Active { since } => drop(self.active.insert((Reverse(entry.priority), since, key.clone()))),
            Place::Resting { until } => drop(self.resting.insert((until, key.clone()))),
            Place::Parked { .. } => drop(self.parked.insert(key.clone())),
            Place::Out => {}
        }
        self.entries.insert(key.clone(), entry);
    }

    fn leave(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        match entry.place {
            Place::Active { since } => drop(self.active.remove(&(Reverse(entry.priority), since, key.clone()))),
            Place::Resting { until } => drop(self.resting.remove(&(until, key.clone()))),
            Place::Parked { .. } => drop(self.parked.remove(key)),
            Place::Out => {}
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[test]
    fn importance_then_age() {
        let mut queue = Queue::default();
        queue.add(&key("late"), 0, 5);
        queue.add(&key("early"), 0, 3);
        queue.add(&key("vip"), 100, 9);
        let order: Vec<Next> = (0..4).map(|_| queue.next(10)).collect();
        assert_eq!(order, [Next::Pod(key("vip")), Next::Pod(key("early")), Next::Pod(key("late")), Next::Idle]);
    }

    #[test]
    fn parked_pods_wait_for_a_change_and_their_back_off() {
        let mut queue = Queue::default();
        queue.add(&key("a"), 0, 0);
        assert_eq!(queue.next(0), Next::Pod(key("a")));
        queue.park(&key("a"), 0);
        assert_eq!(queue.next(1_000_000), Next::Idle);
        queue.wake(500);
        assert_eq!(queue.next(500), Next::Wait(1000));
        assert_eq!(queue.next(1000), Next::Pod(key("a")));
        queue.park(&key("a"), 1000);
        queue.wake(9000);
        assert_eq!(queue.next(9000), Next::Pod(key("a")));
    }

    #[test]
    fn removed_while_out_stays_removed() {
        let mut queue = Queue::default();
        queue.add(&key("a"), 0, 0);
        assert_eq!(queue.next(0), Next::Pod(key("a")));
        queue.remove(&key("a"));
        queue.rest(&key("a"), 0);
        assert_eq!(queue.next(1_000_000), Next::Idle);
    }

    #[test]
    fn changed_while_out_is_tried_again_at_once() {
        let mut queue = Queue::default();
        queue.add(&key("a"), 0, 0);
        assert_eq!(queue.next(0), Next::Pod(key("a")));
        queue.add(&key("a"), 0, 1);
        queue.park(&key("a"), 1);
        assert_eq!(queue.next(1), Next::Pod(key("a")));
    }

    #[test]
    fn back_off_is_capped_at_the_far_end() {
        let mut queue = Queue::default();
        let mut now = 0;
        for _ in 0..100 {
            queue.add(&key("a"), 0, now);
            assert_eq!(queue.next(now), Next::Pod(key("a")));
            queue.rest(&key("a"), now);
            now += 1;
        }
        assert_eq!(queue.next(now), Next::Wait(now - 1 + BACKOFF_MS.1));
    }
}
