//! Who owns whom, over all kinds: uids and edges only, no objects.

use crate::controllers::frame::Key;
use mote_api::meta;
use mote_api::tree::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A uid as a number: 16 bytes instead of a string.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uid(u128);

impl Uid {
    /// Of a UUID; anything else is hashed.
    pub fn parse(text: &str) -> Self {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        if hex.len() == 32
            && let Ok(number) = u128::from_str_radix(&hex, 16)
        {
            return Uid(number);
        }
        Uid(u128::from(crate::controllers::view::fingerprint(&Value::String(text.into()))))
    }

    /// As the key of a work queue.
    pub fn key(self) -> Key {
        Key::cluster(&format!("{:032x}", self.0))
    }

    pub fn of_key(key: &Key) -> Self {
        Uid(u128::from_str_radix(&key.name, 16).unwrap_or(0))
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    pub res: Rc<str>,
    pub key: Key,
    /// Its owners; the flag is `blockOwnerDeletion`.
    pub owners: Box<[(Uid, bool)]>,
    pub deleting: bool,
    /// Waits with its own end for that of its dependants.
    pub foreground: bool,
    /// Lets its dependants go before it ends.
    pub orphan: bool,
}

#[derive(Default)]
pub struct Graph {
    nodes: BTreeMap<Uid, Node>,
    dependants: BTreeMap<Uid, BTreeSet<Uid>>,
}

/// What to do about one object.
#[derive(PartialEq, Eq)]
pub enum Todo {
    Nothing,
    /// Its owners have to be looked at: none of them may be left.
    CheckOwners,
    /// Take the owner out of these, then take the finalizer away.
    Orphan(Vec<Uid>),
    /// End these first.
    EndFirst(Vec<Uid>),
    /// All who blocked are gone: take the finalizer away.
    Release,
}

impl Graph {
    pub fn get(&self, uid: Uid) -> Option<&Node> {
        self.nodes.get(&uid)
    }

    pub fn has_dependants(&self, uid: Uid) -> bool {
        self.dependants.get(&uid).is_some_and(|set| !set.is_empty())
    }

    /// Uids of all objects of one resource.
    pub fn of_resource<'a>(&'a self, res: &'a str) -> impl Iterator<Item = Uid> + 'a {
        self.nodes.iter().filter(move |(_, node)| &*node.res == res).map(|(uid, _)| *uid)
    }

    /// Takes in an object; gives the uids to look at.
    pub fn set(&mut self, res: &Rc<str>, object: &Value) -> Vec<Uid> {
        let uid = Uid::parse(meta::uid(object));
        let finalizer = |name: &str| meta::finalizers(object).any(|f| f == name);
        let node = Node {
            res: res.clone(),
            key: Key::new(meta::namespace(object), meta::name(object)),
            owners: meta::owners(object).map(|o| (Uid::parse(o.uid), o.block_owner_deletion)).collect(),
            deleting: meta::is_deleting(object),
            foreground: finalizer("foregroundDeletion"),
            orphan: finalizer("orphan"),
        };
        if self.nodes.get(&uid) == Some(&node) {
            return Vec::new();
        }
        let mut look = self.unlink(uid);
        for (owner, _) in &node.owners {
            self.dependants.entry(*owner).or_default().insert(uid);
            look.push(*owner);
        }
        look.push(uid);
        if node.deleting && node.foreground {
            look.extend(self.dependants.get(&uid).into_iter().flatten());
        }
        self.nodes.insert(uid, node);
        look
    }

    /// An object is gone; gives the uids to look at.
    pub fn remove(&mut self, uid: Uid) -> Vec<Uid> {
        let mut look = self.unlink(uid);
        self.nodes.remove(&uid);
        look.extend(self.dependants.get(&uid).into_iter().flatten());
        look
    }

    /// Takes out the edges to its owners; gives those owners.
    fn unlink(&mut self, uid: Uid) -> Vec<Uid> {
        let owners: Vec<Uid> = self.nodes.get(&uid).into_iter().flat_map(|n| n.owners.iter().map(|o| o.0)).collect();
        for owner in &owners {
            if let Some(set) = self.dependants.get_mut(owner) {
                set.remove(&uid);
                if set.is_empty() {
                    self.dependants.remove(owner);
                }
            }
        }
        owners
    }

    /// Pure: what one object needs.
    pub fn todo(&self, uid: Uid) -> Todo {
        let Some(node) = self.nodes.get(&uid) else { return Todo::Nothing };
        let dependants = || self.dependants.get(&uid).into_iter().flatten().copied();
        if node.deleting && node.orphan {
            return Todo::Orphan(dependants().collect());
        }
        if node.deleting && node.foreground {
            let blocks = |d: &Uid| {
                self.nodes.get(d).is_some_and(|n| n.owners.iter().any(|(owner, block)| *owner == uid && *block))
            };
            if !dependants().any(|d| blocks(&d)) {
                return Todo::Release;
            }
            let alive = |d: &Uid| self.nodes.get(d).is_some_and(|n| !n.deleting);
            return Todo::EndFirst(dependants().filter(alive).collect());
        }
        if node.deleting || node.owners.is_empty() {
            return Todo::Nothing;
        }
        // the usual case costs nothing: an owner is there and stays
        let stays = |owner: &Uid| self.nodes.get(owner).is_some_and(|n| !(n.deleting && n.foreground));
        if node.owners.iter().all(|(owner, _)| stays(owner)) { Todo::Nothing } else { Todo::CheckOwners }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::{json, set};

    fn object(name: &str, owners: &[(&str, bool)]) -> Value {
        let owners: Vec<Value> =
            owners.iter().map(|(uid, block)| json!({"uid": uid, "blockOwnerDeletion": block})).collect();
        json!({"metadata": {"name": name, "uid": name, "ownerReferences": owners}})
    }

    fn deleting(mut object: Value, finalizer: &str) -> Value {
        set(&mut object, &["metadata", "deletionTimestamp"], json!("2026-01-01T00:00:00Z"));
        set(&mut object, &["metadata", "finalizers"], json!([finalizer]));
        object
    }

    fn uid(name: &str) -> Uid {
        Uid::parse(name)
    }

    #[test]
    fn what_each_object_needs() {
        let mut graph = Graph::default();
        let res: Rc<str> = "things".into();
        graph.set(&res, &object("owner", &[]));
        graph.set(&res, &object("child", &[("owner", true)]));
        graph.set(&res, &object("orphan", &[("never", false)]));
        graph.set(&res, &object("both", &[("owner", false), ("never", false)]));
        assert!(graph.todo(uid("owner")) == Todo::Nothing);
        assert!(graph.todo(uid("child")) == Todo::Nothing);
        assert!(graph.todo(uid("orphan")) == Todo::CheckOwners);
        assert!(graph.todo(uid("both")) == Todo::CheckOwners);
        graph.set(&res, &deleting(object("owner", &[]), "foregroundDeletion"));
        assert!(graph.todo(uid("child")) == Todo::CheckOwners);
        let Todo::EndFirst(mut first) = graph.todo(uid("owner")) else { panic!("not foreground") };
        first.sort();
        let mut want = vec![uid("both"), uid("child")];
        want.sort();
        assert!(first == want);
        let look = graph.remove(uid("child"));
        assert!(look.contains(&uid("owner")));
        assert!(graph.todo(uid("owner")) == Todo::Release); // `both` does not block
        graph.set(&res, &deleting(object("owner", &[]), "orphan"));
        assert!(graph.todo(uid("owner")) == Todo::Orphan(vec![uid("both")]));
        let look = graph.remove(uid("owner"));
        assert!(look == vec![uid("both")]);
    }

    #[test]
    fn nothing_to_look_at_when_nothing_changed() {
        let mut graph = Graph::default();
        let res: Rc<str> = "things".into();
        assert!(!graph.set(&res, &object("child", &[("owner", true)])).is_empty());
        assert!(graph.set(&res, &object("child", &[("owner", true)])).is_empty());
        assert!(graph.has_dependants(uid("owner")));
        graph.set(&res, &object("child", &[]));
        assert!(!graph.has_dependants(uid("owner")));
    }
}
