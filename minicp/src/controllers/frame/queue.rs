//! The work queue as a pure machine: one slot per key, never one key twice at once, capped back-off, one next deadline.
//!
//! Times are milliseconds of a monotonic clock that the caller owns. [`super::run`] drives it.

use super::Key;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// First retry after a failure.
pub const BACKOFF_MS_MIN: u64 = 20;
/// Longest wait between two tries of a failing key.
pub const BACKOFF_MS_MAX: u64 = 60_000;

/// What to do next.
#[derive(PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub enum Next {
    Work(Key),
    /// Nothing is ready before this time.
    Wait(u64),
    /// Nothing to do until a key is added.
    Idle,
}

#[derive(Default)]
pub struct Queue {
    ready: VecDeque<Key>,
    /// Keys in `ready`, or to be run again when their present run ends.
    dirty: BTreeSet<Key>,
    running: BTreeSet<Key>,
    later: BTreeMap<Key, u64>,
    deadlines: BTreeSet<(u64, Key)>,
    failures: BTreeMap<Key, u32>,
}

impl Queue {
    /// The key's facts changed: run it now, or once more after its present run.
    pub fn add(&mut self, key: Key) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        if !self.running.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Looks at the key at `at` at the latest; an earlier deadline stays.
    pub fn add_at(&mut self, key: Key, at: u64) {
        if let Some(&set) = self.later.get(&key) {
            if set <= at {
                return;
            }
            self.deadlines.remove(&(set, key.clone()));
        }
        self.later.insert(key.clone(), at);
        self.deadlines.insert((at, key));
    }

    pub fn next(&mut self, now: u64) -> Next {
        while let Some((at, _)) = self.deadlines.first() {
            if *at > now {
                break;
            }
            if let Some((_, key)) = self.deadlines.pop_first() {
                self.later.remove(&key);
                self.add(key);
            }
        }
        if let Some(key) = self.ready.pop_front() {
            self.dirty.remove(&key);
            self.running.insert(key.clone());
            return Next::Work(key);
        }
        self.deadlines.first().map_or(Next::Idle, |(at, _)| Next::Wait(*at))
    }

    /// The run ended well; `again_in` is the plan's own wish, in milliseconds.
    pub fn done(&mut self, key: &Key, now: u64, again_in: Option<u64>) {
        self.failures.remove(key);
        self.finish(key);
        if let Some(ms) = again_in {
            self.add_at(key.clone(), now.saturating_add(ms));
        }
    }

    /// The run failed: the key comes back after its back-off, which is returned in milliseconds.
    pub fn failed(&mut self, key: &Key, now: u64) -> u64 {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let wait = BACKOFF_MS_MIN.checked_shl(*failures).filter(|ms| *ms <= BACKOFF_MS_MAX && *failures < 32);
        let wait = wait.unwrap_or(BACKOFF_MS_MAX);
        *failures = failures.saturating_add(1);
        self.finish(key);
        self.add_at(key.clone(), now.saturating_add(wait));
        wait
    }

    fn finish(&mut self, key: &Key) {
        self.running.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[test]
    fn one_slot_per_key() {
        let mut queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!(queue.next(0), Next::Work(key("a")));
        assert_eq!(queue.next(0), Next::Work(key("b")));
        assert_eq!(queue.next(0), Next::Idle);
    }

    #[test]
    fn never_twice_at_once_but_once_more_after() {
        let mut queue = Queue::default();
        queue.add(key("a"));
        assert_eq!(queue.next(0), Next::Work(key("a")));
        queue.add(key("a"));
        assert_eq!(queue.next(0), Next::Idle);
        queue.done(&key("a"), 0, None);
        assert_eq!(queue.next(0), Next::Work(key("a")));
        queue.done(&key("a"), 0, None);
        assert_eq!(queue.next(0), Next::Idle);
    }

    #[test]
    fn earliest_deadline_wins() {
        let mut queue = Queue::default();
        queue.add_at(key("a"), 50);
        queue.add_at(key("a"), 90);
        queue.add_at(key("b"), 70);
        queue.add_at(key("b"), 60);
        assert_eq!(queue.next(10), Next::Wait(50));
        assert_eq!(queue.next(50), Next::Work(key("a")));
        assert_eq!(queue.next(50), Next::Wait(60));
        assert_eq!(queue.next(60), Next::Work(key("b")));
        assert_eq!(queue.next(1000), Next::Idle);
    }

    #[test]
    fn back_off_doubles_to_the_cap_and_is_forgotten() {
        let mut queue = Queue::default();
        let mut waits = Vec::new();
        let mut now = 0;
        for _ in 0..80 {
            queue.add(key("a"));
            assert_eq!(queue.next(now), Next::Work(key("a")));
            let wait = queue.failed(&key("a"), now);
            waits.push(wait);
            now += wait;
        }
        assert_eq!(waits[..4], [20, 40, 80, 160]);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(waits[79], BACKOFF_MS_MAX);
        assert_eq!(queue.next(now), Next::Work(key("a")));
        queue.done(&key("a"), now, None);
        queue.add(key("a"));
        assert_eq!(queue.next(now), Next::Work(key("a")));
        assert_eq!(queue.failed(&key("a"), now), BACKOFF_MS_MIN);
    }
}
