//! A cache that reads its own writes, so that a late watch can never make a controller do a thing twice.
//!
//! Upstream guards this with counted "expectations". Here every object carries its revision: what a write returned is put into
//! the cache at once ([`Cache::learn`]), a watch event older than that is ignored, and a write that the watch has already
//! overtaken is not put back. Deletes return no object, so their uids are remembered until the watch confirms them ([`Cache::doom`]).

use super::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a cached view has to tell about itself.
pub trait View {
    fn key(&self) -> &Key;
    fn uid(&self) -> &Rc<str>;
    /// The revision of its last change.
    fn revision(&self) -> u64;
    /// A deletion is under way.
    fn deleting(&self) -> bool;
}

pub struct Cache<V> {
    items: BTreeMap<Key, Rc<V>>,
    /// Revision up to which the watch has told everything.
    seen: u64,
    doomed: BTreeSet<Rc<str>>,
    synced: bool,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Cache { items: BTreeMap::new(), seen: 0, doomed: BTreeSet::new(), synced: false }
    }
}

impl<V: View> Cache<V> {
    pub fn get(&self, key: &Key) -> Option<&Rc<V>> {
        self.items.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rc<V>> {
        self.items.values()
    }

    /// The objects of one namespace, in order of name.
    pub fn in_namespace(&self, ns: &Rc<str>) -> impl Iterator<Item = &Rc<V>> {
        let from = Key { ns: ns.clone(), name: "".into() };
        let ns = ns.clone();
        self.items.range(from..).take_while(move |(key, _)| key.ns == ns).map(|(_, value)| value)
    }

    pub fn count(&self) -> usize {
        self.items.len()
    }

    /// The first list has arrived.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// A deletion is under way, as the watch says or as we asked ourselves.
    pub fn leaving(&self, view: &V) -> bool {
        view.deleting() || self.doomed.contains(view.uid())
    }

    /// A delete of this uid was accepted; the watch will confirm it.
    pub fn doom(&mut self, key: &Key, uid: &Rc<str>) {
        if self.items.get(key).is_some_and(|view| view.uid() == uid && !view.deleting()) {
            self.doomed.insert(uid.clone());
        }
    }

    /// Takes in what a write of our own returned. Gives the old view if the new one was taken.
    pub fn learn(&mut self, view: Rc<V>) -> Result<Option<Rc<V>>, Stale> {
        if view.revision() <= self.seen {
            return Err(Stale); // the watch told this already, and maybe a later deletion too
        }
        self.put(view)
    }

    /// Takes in a change told by the watch at `revision`. Gives the old view if the change was news.
    pub fn observe(&mut self, view: Rc<V>, gone: bool, revision: u64) -> Result<Option<Rc<V>>, Stale> {
        self.seen = self.seen.max(revision);
        if gone {
            self.doomed.remove(view.uid());
            return match self.items.get(view.key()) {
                Some(old) if old.uid() == view.uid() => Ok(self.items.remove(view.key())),
                _ => Err(Stale), // a newer object of the same name, learnt from our own write, stays
            };
        }
        self.put(view)
    }

    fn put(&mut self, view: Rc<V>) -> Result<Option<Rc<V>>, Stale> {
        if self.items.get(view.key()).is_some_and(|old| old.revision() >= view.revision()) {
            return Err(Stale);
        }
        if view.deleting() {
            self.doomed.remove(view.uid());
        }
        Ok(self.items.insert(view.key().clone(), view))
    }

    /// Starts taking in a new list made at `revision`: gives what the list no longer has and must be dropped by the caller.
    pub fn missing(&self, listed: &BTreeSet<Key>, revision: u64) -> Vec<Rc<V>> {
        self.items.values().filter(|v| v.revision() <= revision && !listed.contains(v.key())).cloned().collect()
    }

    pub fn mark_synced(&mut self, revision: u64) {
        self.seen = self.seen.max(revision);
        self.synced = true;
        let live: BTreeSet<&Rc<str>> = self.items.values().map(|v| v.uid()).collect();
        self.doomed.retain(|uid| live.contains(uid));
    }
}

/// The cache already knew better.
#[derive(PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Stale;

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing {
        key: Key,
        uid: Rc<str>,
        revision: u64,
        deleting: bool,
    }

    impl View for Thing {
        fn key(&self) -> &Key {
            &self.key
        }
        fn uid(&self) -> &Rc<str> {
            &self.uid
        }
        fn revision(&self) -> u64 {
            self.revision
        }
        fn deleting(&self) -> bool {
            self.deleting
        }
    }

    fn thing(name: &str, uid: &str, revision: u64) -> Rc<Thing> {
        Rc::new(Thing { key: Key::new("ns", name), uid: uid.into(), revision, deleting: false })
    }

    #[test]
    fn own_write_is_seen_before_the_watch_tells_it() {
        let mut cache = Cache::default();
        assert!(cache.learn(thing("a", "1", 5)).is_ok());
        assert_eq!(cache.count(), 1);
        assert!(cache.observe(thing("a", "1", 5), false, 5).is_err());
        assert_eq!(cache.count(), 1);
    }

    #[test]
    fn a_write_overtaken_by_its_deletion_leaves_no_ghost() {
        let mut cache = Cache::default();
        assert!(cache.observe(thing("a", "1", 5), false, 5).is_ok());
        assert!(cache.observe(thing("a", "1", 5), true, 6).is_ok());
        assert!(cache.learn(thing("a", "1", 5)).is_err());
        assert_eq!(cache.count(), 0);
    }

    #[test]
    fn a_late_deletion_of_the_old_does_not_hurt_the_new() {
        let mut cache = Cache::default();
        assert!(cache.observe(thing("a", "1", 5), false, 5).is_ok());
        assert!(cache.learn(thing("a", "2", 8)).is_ok());
        assert!(cache.observe(thing("a", "1", 5), true, 7).is_err());
        assert_eq!(cache.get(&Key::new("ns", "a")).map(|v| v.uid.to_string()), Some("2".into()));
    }

    #[test]
    fn doomed_stays_doomed_through_a_stale_update() {
        let mut cache = Cache::default();
        assert!(cache.observe(thing("a", "1", 5), false, 5).is_ok());
        cache.doom(&Key::new("ns", "a"), &"1".into());
        assert!(cache.observe(thing("a", "1", 6), false, 6).is_ok());
        let view = cache.get(&Key::new("ns", "a")).cloned().unwrap();
        assert!(cache.leaving(&view));
        assert!(cache.observe(thing("a", "1", 6), true, 7).is_ok());
        assert!(!cache.leaving(&thing("a", "1", 6)));
    }

    #[test]
    fn a_list_older_than_our_write_does_not_drop_it() {
        let mut cache = Cache::default();
        assert!(cache.learn(thing("old", "1", 5)).is_ok());
        assert!(cache.learn(thing("new", "2", 9)).is_ok());
        let gone = cache.missing(&BTreeSet::new(), 7);
        assert_eq!(gone.iter().map(|v| v.uid.to_string()).collect::<Vec<_>>(), ["1"]);
    }

    #[test]
    fn namespace_range_is_exact() {
        let mut cache = Cache::default();
        for (ns, name) in [("a", "x"), ("b", "x"), ("b", "y"), ("bb", "x")] {
            let thing =
                Thing { key: Key::new(ns, name), uid: format!("{ns}{name}").into(), revision: 1, deleting: false };
            assert!(cache.learn(Rc::new(thing)).is_ok());
        }
        assert_eq!(cache.in_namespace(&"b".into()).count(), 2);
        assert_eq!(cache.in_namespace(&"".into()).count(), 0);
    }
}
