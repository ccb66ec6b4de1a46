//! The scale-out engine: etcd v3 holds the state, any number of API servers share it.
//!
//! It is spoken to through its JSON gateway, which every etcd since 3.4 serves beside gRPC on the same port: no HTTP/2, no protobuf, one third more
//! bytes on the wire. Keys are `<prefix>/<group or core>/<plural>/[<ns>/]<name>`, values the objects' JSON (kube-apiserver's are protobuf: the two
//! cannot share a prefix, and a start refuses one that holds such values).
//!
//! | task | does |
//! |---|---|
//! | [`follow`] | one watch of everything under the prefix feeds an index in memory, from which all reads and watches are served |
//! | reads ([`Shared::fresh`]) | ask etcd (all that wait together: once) for the newest revision and wait until the index has it: no read is stale |
//! | a commit (one task each) | one transaction that compares modification revisions; it is done when the index has it too |
//! | [`compact`] | forgets what is older than five minutes (`compact_every`), one API server for all |
//! | [`presence`] | keeps the lease alive under which this server's own key lies |
//!
//! Revisions under other prefixes never come through the watch; when the index waits for one, a key of our own is written: its event comes after all
//! before it. Events carry an etcd lease, so that they go even if nobody is there to delete them. A member that fails is left for the next; the watch
//! goes on where it was. If that has been compacted, all is listed anew and every watcher told to do the same.

mod compact;
mod config;
mod follow;
mod http;
mod presence;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mote_api::tree::{Value, json};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::history::Index;
use super::watcher::Feeds;
use super::{CommitError, Compacted, Entry, Op, Pending, Range, ReadError, Reading, Revision, Store, Txn, Watcher};
pub use config::EtcdConfig;
use http::{CallError, Cluster};
use wire::Names;
#[doc(hidden)]
pub use wire::objects_in;

/// Transactions under way at once.
const COMMITS_MAX: usize = 64;
/// Transactions that may wait for their turn.
const WAITING_MAX: usize = 4096;
/// Keys of one page when all is listed.
const PAGE: usize = 500;
/// How long the watch may take to tell what is known to have happened, until a key is written to make it speak.
const MARK_AFTER: Duration = Duration::from_millis(20);
/// How long it may take at all.
const BEHIND_MAX: Duration = Duration::from_secs(5);
/// How much longer Events live than they must: one lease is given to the events of a minute.
const LEASE_SLACK: Duration = Duration::from_secs(60);

type Answer<T> = oneshot::Sender<T>;

/// Reads that wait for the next answer to "what is the newest revision".
#[derive(Default)]
struct Questions {
    waiting: Vec<Answer<Result<Revision, Rc<str>>>>,
    asking: bool,
}

struct Shared {
    cluster: Cluster,
    names: Names,
    index: RefCell<Index>,
    feeds: Feeds,
    /// The index went on.
    moved: Notify,
    /// The watch is behind: begin it anew, elsewhere.
    kick: Notify,
    questions: RefCell<Questions>,
    marking: Cell<bool>,
    commits: Semaphore,
    waiting: Cell<usize>,
    /// An etcd lease for events, and until when it is given to more of them.
    lease: RefCell<Option<(String, Instant)>>,
    event_ttl: Duration,
    /// The etcd lease under which this server says that it lives.
    presence: RefCell<Option<String>>,
    announcing: RefCell<Option<JoinHandle<()>>>,
    closing: Cell<bool>,
}

/// The engine; cheap to clone.
#[derive(Clone)]
pub struct EtcdStore(Rc<Shared>, Rc<[JoinHandle<()>]>);

/// Why a store on etcd cannot be opened.
#[derive(thiserror::Error, Debug)]
#[error("etcd: {0}")]
pub struct EtcdError(String);

impl EtcdStore {
    /// Lists everything and begins to follow it. Waits for an etcd that is not there yet, as long as the configuration says. Needs a `LocalSet`.
    pub async fn open(config: &EtcdConfig) -> Result<EtcdStore, EtcdError> {
        let (members, tls) = config::check(config).map_err(EtcdError)?;
        let shared = Rc::new(Shared {
            cluster: Cluster::new(members, tls),
            names: Names(config.prefix.clone()),
            index: RefCell::new(Index::new(BTreeMap::new(), Revision(0))),
            feeds: Feeds::default(),
            moved: Notify::new(),
            kick: Notify::new(),
            questions: RefCell::default(),
            marking: Cell::new(false),
            commits: Semaphore::new(COMMITS_MAX),
            waiting: Cell::new(0),
            lease: RefCell::default(),
            event_ttl: config.event_ttl,
            presence: RefCell::default(),
            announcing: RefCell::default(),
            closing: Cell::new(false),
        });
        let until = Instant::now() + config.patience;
        let index = loop {
            let why = match timeout_at(until, shared.list()).await {
                Ok(Ok(index)) => break index,
                Ok(Err(why)) => why.to_string(),
                Err(_) => format!("no answer in time; {}", shared.cluster.trouble()),
            };
            if Instant::now() >= until {
                return Err(EtcdError(format!("none of {} answers: {why}", config.servers.join(", "))));
            }
            log::warn!("etcd: {why}; trying again");
            tokio::time::sleep(Duration::from_secs(1).min(config.patience / 4)).await;
        };
        if let Some(key) = index.keys().iter().find(|(_, e)| !is_ours(e)).map(|(k, _)| k) {
            return Err(EtcdError(format!(
                "the value of {key} is no JSON (of a kube-apiserver?): give this cluster another --etcd-prefix"
            )));
        }
        *shared.index.borrow_mut() = index;
        let tasks = [
            tokio::task::spawn_local(follow::run(shared.clone())),
            tokio::task::spawn_local(compact::run(shared.clone(), config.compact_every)),
        ];
        Ok(EtcdStore(shared, Rc::new(tasks)))
    }
}

fn is_ours(entry: &Entry) -> bool {
    entry.value.first() == Some(&b'{') || super::sealed::is_sealed(&entry.value)
}

/// Goes by itself after a while.
fn expires(key: &str) -> bool {
    key.starts_with("/registry/core/events/")
}

impl Shared {
    fn revision(&self) -> Revision {
        self.index.borrow().revision()
    }
    /// Everything, at one revision.
    async fn list(&self) -> Result<Index, CallError> {
        let (mut keys, mut after, mut at) = (BTreeMap::new(), String::new(), Revision(0));
        loop {
            let answer = self.cluster.call("/v3/kv/range", self.names.range("/registry/", &after, at, PAGE), true);
            let answer = answer.await?;
            let page = self.names.entries(&answer).map_err(|e| CallError::Unknown(e.to_string()))?;
            if at == Revision(0) {
                at = wire::header(&answer);
            }
            keys.extend(page.entries);
            let last = page.last.and_then(|k| String::from_utf8(k).ok());
            match last.as_deref().and_then(|k| k.strip_prefix(self.names.0.as_str())) {
                Some(key) if page.more > 0 => after = format!("/registry{key}"),
                _ => return Ok(Index::new(keys, at)),
            }
        }
    }
    /// What happened at one revision is visible from now on.
    fn publish(&self, revision: Revision, ops: &[Op]) {
        if revision <= self.revision() {
            return;
        }
        let changes = self.index.borrow_mut().apply(revision, ops);
        self.feeds.tell(&changes);
        self.moved.notify_waiters();
    }
    /// False: not by then.
    async fn reaches(&self, revision: Revision, until: Instant) -> bool {
        loop {
            let moved = self.moved.notified();
            if self.revision() >= revision {
                return true;
            }
            if timeout_at(until, moved).await.is_err() {
                return self.revision() >= revision;
            }
        }
    }
    /// Waits until the index has what is known to have happened.
    async fn catch_up(&self, revision: Revision) -> Result<(), ReadError> {
        let began = Instant::now();
        if self.reaches(revision, began + MARK_AFTER).await {
            return Ok(());
        }
        if !self.marking.replace(true) {
            let marked = self.cluster.call("/v3/kv/put", self.names.put(wire::MARK, b"{}"), true).await;
            self.marking.set(false);
            marked.map_err(|e| ReadError::Unavailable(e.to_string().into()))?;
        }
        if self.reaches(revision, began + BEHIND_MAX).await {
            return Ok(());
        }
        self.kick.notify_one();
        Err(ReadError::Unavailable(format!("the watch is behind revision {revision}").into()))
    }
    /// Ready when reads see all that had happened when this was asked.
    async fn fresh(self: &Rc<Self>) -> Result<(), ReadError> {
        let (answer, newest) = oneshot::channel();
        {
            let mut questions = self.questions.borrow_mut();
            questions.waiting.push(answer);
            if !questions.asking {
                questions.asking = true;
                tokio::task::spawn_local(ask(self.clone()));
            }
        }
        let newest = newest.await.unwrap_or_else(|_| Err("the store is closed".into()));
        self.catch_up(newest.map_err(ReadError::Unavailable)?).await
    }
    /// The same for a read of the past.
    async fn fresh_at(self: &Rc<Self>, at: Option<Revision>) -> Result<(), ReadError> {
        if at.is_some_and(|at| at <= self.revision()) { Ok(()) } else { self.fresh().await }
    }
    async fn ask_past(&self, body: String, at: Revision) -> Result<Value, ReadError> {
        match self.cluster.call("/v3/kv/range", body, true).await {
            Err(CallError::Refused(_, why)) if why.contains("compacted") => {
                Err(Compacted { wanted: at, oldest: self.index.borrow().compacted() }.into())
            }
            answer => answer.map_err(|e| ReadError::Unavailable(e.to_string().into())),
        }
    }
    /// Beyond the index's own history, etcd's is asked.
    async fn past(&self, prefix: &str, after: &str, at: Revision, limit: usize) -> Result<Range, ReadError> {
        let mut out = Range { entries: Vec::new(), more: 0, revision: at };
        let mut after = after.to_owned();
        loop {
            let page = if limit == 0 { PAGE } else { (limit - out.entries.len()).min(PAGE) };
            let answer = self.ask_past(self.names.range(prefix, &after, at, page), at).await?;
            let page = self.names.entries(&answer).map_err(|e| ReadError::Unavailable(e.to_string().into()))?;
            let last = page.entries.last().map(|(k, _)| k.to_string());
            out.entries.extend(page.entries);
            out.more = page.more;
            match last {
                Some(last) if page.more > 0 && (limit == 0 || out.entries.len() < limit) => after = last,
                _ => return Ok(out),
            }
        }
    }
    /// A new etcd lease.
    async fn grant(&self, ttl: Duration) -> Result<String, CallError> {
        let body = json!({"TTL": ttl.as_secs().to_string()}).to_string();
        let answer = self.cluster.call("/v3/lease/grant", body, true).await?;
        wire::lease_id(&answer).ok_or_else(|| CallError::Unknown("a lease without number".into()))
    }
    /// An etcd lease for an event of now.
    async fn event_lease(&self) -> Result<String, CallError> {
        if let Some((id, until)) = &*self.lease.borrow()
            && Instant::now() < *until
        {
            return Ok(id.clone());
        }
        let id = self.grant(self.event_ttl + LEASE_SLACK).await?;
        *self.lease.borrow_mut() = Some((id.clone(), Instant::now() + LEASE_SLACK));
        Ok(id)
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, CommitError> {
        let _turn = self.commits.acquire().await.map_err(|_| CommitError::Failed("the store is closed".into()))?;
        let with_lease = txn.ops.iter().any(|op| matches!(op, Op::Put(key, _) if expires(key)));
        let lease = if with_lease { Some(self.event_lease().await.map_err(refused)?) } else { None };
        let mut answer = self.cluster.call("/v3/kv/txn", self.names.txn(&txn, lease.as_deref(), expires), false).await;
        if let Err(CallError::Refused(_, why)) = &answer
            && why.contains("lease not found")
        {
            *self.lease.borrow_mut() = None;
            let lease = self.event_lease().await.map_err(refused)?;
            answer = self.cluster.call("/v3/kv/txn", self.names.txn(&txn, Some(&lease), expires), false).await;
        }
        let answer = answer.map_err(refused)?;
        let revision = wire::header(&answer);
        // Done it is in any case; a read that comes before the watch has told waits for itself.
        let _ = self.catch_up(revision).await;
        if wire::succeeded(&answer) { Ok(revision) } else { Err(CommitError::Conflict) }
    }
}

/// Asks for the newest revision until nobody waits.
async fn ask(shared: Rc<Shared>) {
    loop {
        let waiting = {
            let mut questions = shared.questions.borrow_mut();
            if questions.waiting.is_empty() {
                questions.asking = false;
                return;
            }
            std::mem::take(&mut questions.waiting)
        };
        let answer = shared.cluster.call("/v3/kv/range", shared.names.get(wire::NOTHING, Revision(0)), true).await;
        let newest = answer.map(|a| wire::header(&a)).map_err(|e| Rc::from(e.to_string()));
        for question in waiting {
            let _ = question.send(newest.clone());
        }
    }
}

fn refused(error: CallError) -> CommitError {
    match error {
        CallError::Refused(_, why) if why.contains("database space exceeded") => CommitError::Full,
        CallError::Refused(_, why) => CommitError::Failed(format!("etcd: {why}").into()),
        CallError::Unsent(why) => CommitError::Failed(format!("etcd: {why}; nothing was written").into()),
        CallError::Unknown(why) => {
            CommitError::Failed(format!("etcd: {why}; whether it was written is not known").into())
        }
    }
}

impl Store for EtcdStore {
    fn revision(&self) -> Revision {
        self.0.revision()
    }
    fn reach(&self, revision: Revision) -> Pending<'_, ()> {
        Box::pin(async move {
            // Who asks for the future gets the answer that it is the future.
            let _ = self.0.fresh_at(Some(revision)).await;
        })
    }
    fn get<'a>(&'a self, key: &'a str, at: Option<Revision>) -> Reading<'a, Option<Entry>> {
        Box::pin(async move {
            self.0.fresh_at(at).await?;
            let known = self.0.index.borrow().get(key, at);
            match (known, at) {
                (Err(_), Some(at)) => {
                    let answer = self.0.ask_past(self.0.names.get(key, at), at).await?;
                    let found = self.0.names.entries(&answer);
                    let found = found.map_err(|e| ReadError::Unavailable(e.to_string().into()))?;
                    Ok(found.entries.into_iter().next().map(|(_, entry)| entry))
                }
                (known, _) => Ok(known?),
            }
        })
    }
    fn range<'a>(&'a self, prefix: &'a str, after: &'a str, at: Option<Revision>, limit: usize) -> Reading<'a, Range> {
        Box::pin(async move {
            self.0.fresh_at(at).await?;
            let known = self.0.index.borrow().range(prefix, after, at, limit);
            match (known, at) {
                (Err(_), Some(at)) => self.0.past(prefix, after, at, limit).await,
                (known, _) => Ok(known?),
            }
        })
    }
    /// Goes on when nobody waits for it any more.
    fn commit(&self, txn: Txn) -> Pending<'_, Result<Revision, CommitError>> {
        let shared = self.0.clone();
        let failed = |why: &str| Err(CommitError::Failed(why.into()));
        let (done, answer) = oneshot::channel();
        let refused = if shared.closing.get() {
            failed("the store is closed")
        } else if shared.waiting.get() >= WAITING_MAX {
            failed("too many writes wait for etcd")
        } else {
            shared.waiting.set(shared.waiting.get() + 1);
            Ok(tokio::task::spawn_local(async move {
                let result = shared.commit(txn).await;
                shared.waiting.set(shared.waiting.get() - 1);
                let _ = done.send(result);
            }))
        };
        Box::pin(async move {
            refused?;
            answer.await.unwrap_or_else(|_| Err(CommitError::Failed("the store is closed".into())))
        })
    }
    fn watch(&self, prefix: &str, from: Revision) -> Result<Watcher, Compacted> {
        Ok(self.0.feeds.watch(prefix, self.0.index.borrow().since(from)?))
    }
    fn compact(&self, revision: Revision) {
        self.0.index.borrow_mut().compact(revision);
    }
    fn announce(&self, key: &str, value: Bytes) -> bool {
        let present = Op::Put(key.into(), value);
        let task = tokio::task::spawn_local(presence::run(self.0.clone(), present));
        if let Some(before) = self.0.announcing.borrow_mut().replace(task) {
            before.abort();
        }
        true
    }
    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async {
            self.0.closing.set(true);
            let announcing = self.0.announcing.borrow_mut().take();
            if let Some(announcing) = announcing {
                announcing.abort();
                presence::end(&self.0).await;
            }
            // What was accepted is done first.
            let all = u32::try_from(COMMITS_MAX).unwrap_or(u32::MAX);
            let _done = self.0.commits.acquire_many(all).await;
            for task in self.1.iter() {
                task.abort();
            }
            self.0.feeds.close();
        })
    }
}
