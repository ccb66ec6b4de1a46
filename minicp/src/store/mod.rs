//! The one truth: keys, values and a global revision, as etcd has them.
//!
//! Every commit gets the next revision; every key knows by which revision it was made and last written; what changed since a
//! revision can be watched and read until history is compacted. Keys are `/registry/<group or core>/<plural>/[<ns>/]<name>`.
//! Two engines are here: the embedded [`log`], and [`etcd`] v3 itself.

pub mod etcd;
pub mod history;
pub mod log;
pub(crate) mod sealed;
pub mod snapshot;
mod watcher;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

pub use watcher::{Ended, WATCH_BACKLOG_MAX, Watcher};

/// The servers that share this state, each by a key of its own ([`Store::announce`]). No resource has a group of this name.
pub const SERVERS: &str = "/registry/servers/";
/// What lies under these is not kept: heartbeats and events, all of the volatile class.
const VOLATILE_PREFIXES: [&str; 3] = ["/registry/core/events/", "/registry/coordination.k8s.io/leases/", SERVERS];

/// Whether a snapshot holds this key.
fn is_kept(key: &str) -> bool {
    !VOLATILE_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Counts commits. 0 is before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A key's value and when it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub value: Bytes,
    pub created: Revision,
    pub modified: Revision,
}

/// What must hold for a transaction to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    Absent(Rc<str>),
    /// The key was last written by exactly this revision.
    Unchanged(Rc<str>, Revision),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put(Rc<str>, Bytes),
    Delete(Rc<str>),
}

/// Whether a commit is written to disk before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    Durable,
    /// Heartbeats and events: in memory only, gone after a restart (the revision is not).
    Volatile,
}

/// All of `ops` if all of `guards` hold, else nothing.
#[derive(Clone, Debug)]
pub struct Txn {
    pub guards: Vec<Guard>,
    pub ops: Vec<Op>,
    pub class: Class,
}

/// Part of the keys under a prefix, in order.
#[derive(Clone, Debug)]
pub struct Range {
    pub entries: Vec<(Rc<str>, Entry)>,
    /// Keys after the last of `entries`: 0 when that was all.
    pub more: u64,
    /// What `entries` is true of.
    pub revision: Revision,
}

/// History before `oldest` is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("required revision {wanted} has been compacted, oldest is {oldest}")]
pub struct Compacted {
    pub wanted: Revision,
    pub oldest: Revision,
}

/// Why a question was not answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Compacted(#[from] Compacted),
    /// The engine is out of reach.
    #[error("the store is not available: etcd: {0}")]
    Unavailable(Rc<str>),
}

/// Why a commit was not done. Nothing of it is visible then.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommitError {
    /// A guard does not hold. By now every read sees what broke it.
    #[error("the key was changed meanwhile")]
    Conflict,
    #[error("no space left on the disk of the store; reads go on, writes are refused until there is room")]
    Full,
    /// The disk failed: nobody knows what it holds. Writes are refused until a restart.
    #[error("store: {0}")]
    Failed(Rc<str>),
}

/// One key's change by one commit.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: Rc<str>,
    pub revision: Revision,
    /// None: deleted
    pub value: Option<Entry>,
    /// None: was not there
    pub previous: Option<Entry>,
}

pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;
/// The answer to a question about the present or the past.
pub type Reading<'a, T> = Pending<'a, Result<T, ReadError>>;

/// A store engine.
pub trait Store {
    /// The newest revision that reads see.
    fn revision(&self) -> Revision;
    /// Ready when reads see `revision`, if that is given out at all: another server of the same state may have told a client of it.
    fn reach(&self, _revision: Revision) -> Pending<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// At a past revision, or now.
    fn get<'a>(&'a self, key: &'a str, at: Option<Revision>) -> Reading<'a, Option<Entry>>;
    /// Keys that start with `prefix` and come after `after` ("": from the first), at most `limit` (0: all).
    fn range<'a>(&'a self, prefix: &'a str, after: &'a str, at: Option<Revision>, limit: usize) -> Reading<'a, Range>;
    /// Ready when the commit is as safe as its class promises and visible to reads. It is done even if nobody waits for it. Two that are under way
    /// at once may come in either order.
    fn commit(&self, txn: Txn) -> Pending<'_, Result<Revision, CommitError>>;
    /// Changes of keys that start with `prefix`, by revisions after `from`.
    fn watch(&self, prefix: &str, from: Revision) -> Result<Watcher, Compacted>;
    /// Says to the servers that share this state that this one lives: `key` is there until the store is closed, and goes within seconds
    /// when this process ends in another way. A second call takes the place of the first. False: nobody shares it.
    fn announce(&self, _key: &str, _value: Bytes) -> bool {
        false
    }
    /// Forgets history up to `revision`.
    fn compact(&self, revision: Revision);
    /// Ends all watches and waits for what is being written.
    fn close(&self) -> Pending<'_, ()>;
}
