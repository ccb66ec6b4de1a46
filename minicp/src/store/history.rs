//! What is true now, and enough of the past for watches that resume and lists that page.
//!
//! Pure memory: engines decide when a commit is applied here. History is bounded in number and bytes; beyond that it is compacted.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

use super::{Change, Compacted, Entry, Op, Range, Revision};

/// Changes kept for watches that resume and lists that page.
pub const HISTORY_CHANGES_MAX: usize = 4096;
/// Bytes of superseded values kept for them.
pub const HISTORY_BYTES_MAX: usize = 4 << 20;

/// All keys with their values, and the last changes.
pub struct Index {
    keys: BTreeMap<Rc<str>, Entry>,
    changes: VecDeque<Rc<Change>>,
    /// Bytes of old values that only history holds.
    held: usize,
    revision: Revision,
    /// What happened up to here is forgotten.
    compacted: Revision,
}

/// Bytes that live only because history names them.
fn cost(change: &Change) -> usize {
    change.previous.as_ref().map_or(0, |e| e.value.len()) + change.key.len()
}

impl Index {
    /// A recovered state without history.
    pub fn new(keys: BTreeMap<Rc<str>, Entry>, revision: Revision) -> Index {
        Index { keys, changes: VecDeque::new(), held: 0, revision, compacted: revision }
    }
    pub fn revision(&self) -> Revision {
        self.revision
    }
    /// The oldest revision that can be read.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }
    pub fn keys(&self) -> &BTreeMap<Rc<str>, Entry> {
        &self.keys
    }
    /// Does a commit's operations; returns what changed. Deleting what is not there changes nothing.
    pub fn apply(&mut self, revision: Revision, ops: &[Op]) -> Vec<Rc<Change>> {
        self.revision = self.revision.max(revision);
        let mut done = Vec::with_capacity(ops.len());
        for op in ops {
            let (key, value, previous) = match op {
                Op::Put(key, bytes) => {
                    let created = self.keys.get(key).map_or(revision, |e| e.created);
                    let entry = Entry { value: bytes.clone(), created, modified: revision };
                    let previous = self.keys.insert(key.clone(), entry.clone());
                    (key, Some(entry), previous)
                }
                Op::Delete(key) => match self.keys.remove(key) {
                    None => continue,
                    previous => (key, None, previous),
                },
            };
            let change = Rc::new(Change { key: key.clone(), revision, value, previous });
            self.held += cost(&change);
            self.changes.push_back(change.clone());
            done.push(change);
        }
        while self.changes.len() > HISTORY_CHANGES_MAX || self.held > HISTORY_BYTES_MAX {
            self.forget_first();
        }
        done
    }
    fn forget_first(&mut self) {
        if let Some(change) = self.changes.pop_front() {
            self.held -= cost(&change);
            self.compacted = self.compacted.max(change.revision);
        }
    }
    pub fn compact(&mut self, revision: Revision) {
        while self.changes.front().is_some_and(|c| c.revision <= revision) {
            self.forget_first();
        }
        self.compacted = self.compacted.max(revision.min(self.revision));
    }
    fn check(&self, at: Revision) -> Result<(), Compacted> {
        if at < self.compacted { Err(Compacted { wanted: at, oldest: self.compacted }) } else { Ok(()) }
    }
    /// Changes after `from`.
    pub fn since(&self, from: Revision) -> Result<impl Iterator<Item = &Rc<Change>>, Compacted> {
        self.check(from)?;
        let first = self.changes.partition_point(|c| c.revision <= from);
        Ok(self.changes.range(first..))
    }
    pub fn get(&self, key: &str, at: Option<Revision>) -> Result<Option<Entry>, Compacted> {
        let Some(at) = at.filter(|at| *at < self.revision) else { return Ok(self.keys.get(key).cloned()) };
        let then = self.since(at)?.find(|c| &*c.key == key).map(|c| c.previous.clone());
        Ok(then.unwrap_or_else(|| self.keys.get(key).cloned()))
    }
    /// See [`super::Store::range`].
    pub fn range(&self, prefix: &str, after: &str, at: Option<Revision>, limit: usize) -> Result<Range, Compacted> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let start = if after > prefix { Bound::Excluded(after) } else { Bound::Included(prefix) };
        let now = self.keys.range::<str, _>((start, Bound::Unbounded)).take_while(|(k, _)| k.starts_with(prefix));
        let Some(at) = at.filter(|at| *at < self.revision) else {
            return Ok(page(now, limit, self.revision));
        };
        // The first change after `at` knows what a key was at `at`.
        let mut then: BTreeMap<&Rc<str>, Option<&Entry>> = BTreeMap::new();
        for change in self.since(at)? {
            if change.key.starts_with(prefix) && (&*change.key > after || after <= prefix) {
                then.entry(&change.key).or_insert(change.previous.as_ref());
            }
        }
        let mut merged: BTreeMap<&Rc<str>, &Entry> = now.filter(|(k, _)| !then.contains_key(k)).collect();
        merged.extend(then.into_iter().filter_map(|(k, e)| Some((k, e?))));
        Ok(page(merged.into_iter(), limit, at))
    }
}

fn page<'a>(mut all: impl Iterator<Item = (&'a Rc<str>, &'a Entry)>, limit: usize, revision: Revision) -> Range {
    let entries = all.by_ref().take(limit).map(|(k, e)| (k.clone(), e.clone())).collect();
    Range { entries, more: all.count() as u64, revision }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(key: &str, value: u64) -> Op {
        Op::Put(key.into(), value.to_string().into())
    }

    #[test]
    fn created_survives_and_deletion_of_nothing_is_nothing() {
        let mut i = Index::new(BTreeMap::new(), Revision(5));
        i.apply(Revision(6), &[put("/a", 1)]);
        i.apply(Revision(7), &[put("/a", 2)]);
        let e = i.get("/a", None).unwrap().unwrap();
        assert_eq!((e.created, e.modified), (Revision(6), Revision(7)));
        assert!(i.apply(Revision(8), &[Op::Delete("/b".into())]).is_empty());
        assert_eq!(i.revision(), Revision(8));
        assert_eq!(i.get("/a", Some(Revision(5))).unwrap(), None);
        assert!(i.get("/a", Some(Revision(4))).is_err());
        assert!(i.since(Revision(4)).is_err());
    }

    #[test]
    fn history_is_bounded() {
        let mut i = Index::new(BTreeMap::new(), Revision(0));
        for r in 1..=(HISTORY_CHANGES_MAX as u64 + 10) {
            i.apply(Revision(r), &[put("/a", r)]);
        }
        assert_eq!(i.since(Revision(9)).err(), Some(Compacted { wanted: Revision(9), oldest: Revision(10) }));
        assert_eq!(i.since(Revision(10)).unwrap().count(), HISTORY_CHANGES_MAX);
        let big = Op::Put("/b".into(), vec![0; HISTORY_BYTES_MAX].into());
        i.apply(Revision(100_000), std::slice::from_ref(&big));
        i.apply(Revision(100_001), &[big]);
        assert!(i.since(Revision(100_000)).is_err(), "the old 4 MiB value is not kept");
    }

    proptest! {
        /// Every past state can be read back, whole and in pages, and the changes lead from one to the next.
        #[test]
        fn agrees_with_a_model(ops in proptest::collection::vec((0u8..2, 0u8..8), 1..60), limit in 1usize..5) {
            let mut index = Index::new(BTreeMap::new(), Revision(0));
            let mut model: BTreeMap<String, u64> = BTreeMap::new();
            let mut states = vec![model.clone()];
            for (n, (what, key)) in ops.iter().enumerate() {
                let (r, key) = (n as u64 + 1, format!("/{}/{key}", key % 2));
                if *what == 0 {
                    index.apply(Revision(r), &[put(&key, r)]);
                    model.insert(key, r);
                } else {
                    index.apply(Revision(r), &[Op::Delete(key.as_str().into())]);
                    model.remove(&key);
                }
                states.push(model.clone());
            }
            for (r, state) in states.iter().enumerate() {
                let at = Some(Revision(r as u64));
                for prefix in ["/", "/0/", "/1/"] {
                    let want: Vec<_> = state.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.clone(), *v)).collect();
                    let mut got = Vec::new();
                    let mut after = String::new();
                    loop {
                        let page = index.range(prefix, &after, at, limit).unwrap();
                        prop_assert_eq!(page.revision, Revision(r as u64));
                        prop_assert_eq!(page.more as usize, want.len() - got.len() - page.entries.len());
                        got.extend(page.entries.iter().map(|(k, e)| (k.to_string(), e.modified.0)));
                        let Some((last, _)) = page.entries.last() else { break };
                        after = last.to_string();
                    }
                    prop_assert_eq!(got, want);
                }
                let mut replay = state.clone();
                for change in index.since(Revision(r as u64)).unwrap() {
                    match &change.value {
                        Some(e) => replay.insert(change.key.to_string(), e.modified.0),
                        None => replay.remove(&*change.key),
                    };
                }
                prop_assert_eq!(&replay, states.last().unwrap());
            }
        }
    }
}
