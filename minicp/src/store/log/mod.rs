//! The embedded engine: an append-only checksummed revision log with group commit, snapshot and truncation; all values in memory.
//!
//! One task ([`flush`]) owns the disk. A commit is checked and gets its revision at once, waits in the queue while the frame before
//! it is synced, and goes to disk together with all that came meanwhile. Only then do reads and watches see it: nobody ever saw
//! what a power cut can take back. Volatile commits take the same queue without the disk; the log reserves revisions in blocks so
//! that none is ever given out twice.

#[cfg(test)]
mod day;
pub mod disk;
#[cfg(test)]
mod fake;
mod frame;
pub(super) mod recover;
#[cfg(test)]
mod tests;
pub(super) mod writer;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use tokio::sync::{Notify, oneshot};

use super::history::Index;
use super::watcher::Feeds;
use super::{
    Class, CommitError, Compacted, Entry, Guard, Op, Pending, Range, ReadError, Reading, Revision, Store, Txn, Watcher,
    is_kept,
};
use disk::{Disk, Folder};
use frame::FrameWriter;
pub use recover::OpenError;
use writer::{Kept, WriteError, Writer};

/// Bytes of log beyond which a snapshot replaces it (or twice the snapshot's size, if that is more).
pub const LOG_BYTES_MAX: u64 = 4 << 20;
/// Bytes of one group commit; what waits beyond it goes with the next.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Commits that may wait for the disk.
pub const WAITING_MAX: usize = 4096;
/// Revisions reserved on disk at a time for volatile commits: a node's leases of a day.
const RESERVE: u64 = 10_000;

/// A commit that has its revision and waits for the disk.
struct Accepted {
    revision: Revision,
    class: Class,
    ops: Vec<Op>,
    done: oneshot::Sender<Result<Revision, CommitError>>,
}

enum Waiting {
    Commit(Accepted),
    /// A refused commit, answered once what it lost against is visible.
    Lost(oneshot::Sender<Result<Revision, CommitError>>),
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Keys of accepted commits that reads do not see yet, and when they were last written (None: deleted).
    ahead: HashMap<Rc<str>, Option<Revision>>,
    /// Commits accepted and not yet answered.
    unanswered: usize,
    /// The last revision given out.
    last: Revision,
    /// Revisions up to here are safe to give out to volatile commits.
    reserved: Revision,
    /// Set once the disk failed.
    broken: Option<Rc<str>>,
    closing: bool,
}

struct Shared {
    index: RefCell<Index>,
    feeds: Feeds,
    queue: RefCell<Queue>,
    wake: Notify,
    ended: Cell<bool>,
    end: Notify,
}

/// The embedded engine; cheap to clone.
#[derive(Clone)]
pub struct LogStore(Rc<Shared>);

impl LogStore {
    /// Opens or makes the store in `folder` and takes its lock. Needs a `LocalSet`.
    pub async fn open(folder: &Path) -> Result<LogStore, OpenError> {
        Self::open_locked(Self::lock(folder).await?)
    }
    /// The lock alone, which [`Self::open_locked`] needs.
    pub async fn lock(folder: &Path) -> Result<Folder, OpenError> {
        let path = folder.to_path_buf();
        let opened = tokio::task::spawn_blocking(move || Folder::open(&path)).await;
        let disk = opened.map_err(std::io::Error::other).and_then(|d| d);
        disk.map_err(|e| OpenError::Io(folder.display().to_string(), e))
    }
    pub fn open_locked(folder: Folder) -> Result<LogStore, OpenError> {
        Self::with_disk(Box::new(folder), LOG_BYTES_MAX)
    }
    /// On any disk; for tests.
    fn with_disk(mut disk: Box<dyn Disk>, log_bytes_max: u64) -> Result<LogStore, OpenError> {
        let found = recover::recover(&mut *disk)?;
        let writer = Writer {
            disk,
            generation: found.generation,
            log_len: found.log_len,
            snapshot_len: found.snapshot_len,
            log_bytes_max,
        };
        let queue = Queue { last: found.revision, reserved: found.revision, ..Queue::default() };
        let shared = Rc::new(Shared {
            index: RefCell::new(Index::new(found.keys, found.revision)),
            feeds: Feeds::default(),
            queue: RefCell::new(queue),
            wake: Notify::new(),
            ended: Cell::new(false),
            end: Notify::new(),
        });
        tokio::task::spawn_local(flush(shared.clone(), writer));
        Ok(LogStore(shared))
    }
}

impl Queue {
    fn holds(&self, guard: &Guard, index: &Index) -> bool {
        let modified = |key: &Rc<str>| match self.ahead.get(key) {
            Some(ahead) => *ahead,
            None => index.keys().get(key).map(|e| e.modified),
        };
        match guard {
            Guard::Absent(key) => modified(key).is_none(),
            Guard::Unchanged(key, revision) => modified(key) == Some(*revision),
        }
    }
    /// Whether a volatile commit may be done on the spot.
    fn idle(&self) -> bool {
        self.unanswered == 0 && self.waiting.is_empty()
    }
}

impl Shared {
    /// Accepts or refuses; the answer comes through the receiver.
    fn submit(&self, txn: Txn) -> Result<oneshot::Receiver<Result<Revision, CommitError>>, CommitError> {
        let mut queue = self.queue.borrow_mut();
        let (done, answer) = oneshot::channel();
        if !txn.guards.iter().all(|g| queue.holds(g, &self.index.borrow())) {
            if queue.idle() {
                return Err(CommitError::Conflict);
            }
            queue.waiting.push(Waiting::Lost(done));
            return Ok(answer);
        }
        if queue.closing {
            return Err(CommitError::Failed("the store is closed".into()));
        }
        let revision = Revision(queue.last.0 + 1);
        let on_disk = txn.class == Class::Durable || revision > queue.reserved;
        if let Some(cause) = queue.broken.clone().filter(|_| on_disk) {
            return Err(CommitError::Failed(cause));
        }
        if queue.unanswered >= WAITING_MAX {
            return Err(CommitError::Failed("too many writes wait for the disk".into()));
        }
        queue.last = revision;
        if !on_disk && queue.idle() {
            drop(queue);
            self.publish(revision, &txn.ops);
            let _ = done.send(Ok(revision));
            return Ok(answer);
        }
        for op in &txn.ops {
            match op {
                Op::Put(key, _) => queue.ahead.insert(key.clone(), Some(revision)),
                Op::Delete(key) => queue.ahead.insert(key.clone(), None),
            };
        }
        queue.unanswered += 1;
        queue.waiting.push(Waiting::Commit(Accepted { revision, class: txn.class, ops: txn.ops, done }));
        drop(queue);
        self.wake.notify_one();
        Ok(answer)
    }
    /// Makes a commit visible to reads and watches.
    fn publish(&self, revision: Revision, ops: &[Op]) {
        let changes = self.index.borrow_mut().apply(revision, ops);
        self.feeds.tell(&changes);
    }
    /// Takes what waits, as one frame (empty if nothing is for the disk).
    fn take_batch(&self) -> (Vec<Waiting>, Vec<u8>, Revision) {
        let mut queue = self.queue.borrow_mut();
        let (mut frame, mut taken, mut reserve) = (FrameWriter::new(), 0, queue.reserved);
        for waiting in &queue.waiting {
            if frame.len() > BATCH_BYTES_MAX {
                break;
            }
            taken += 1;
            let Waiting::Commit(commit) = waiting else { continue };
            match commit.class {
                Class::Durable => frame.commit(commit.revision, &commit.ops),
                Class::Volatile if commit.revision > reserve => {
                    reserve = Revision(commit.revision.0 + RESERVE);
                    frame.reserve(reserve);
                }
                Class::Volatile => {}
            }
        }
        let bytes = if frame.is_empty() { Vec::new() } else { frame.finish() };
        (queue.waiting.drain(..taken).collect(), bytes, reserve)
    }
    /// Answers a batch that is safe.
    fn settle(&self, batch: Vec<Waiting>, reserved: Revision) {
        self.queue.borrow_mut().reserved = reserved;
        for waiting in batch {
            match waiting {
                Waiting::Lost(done) => drop(done.send(Err(CommitError::Conflict))),
                Waiting::Commit(commit) => {
                    self.publish(commit.revision, &commit.ops);
                    let mut queue = self.queue.borrow_mut();
                    queue.unanswered -= 1;
                    for op in &commit.ops {
                        let (Op::Put(key, _) | Op::Delete(key)) = op;
                        // A later commit of the same key may be on its way.
                        let ours = if let Op::Put(..) = op { Some(commit.revision) } else { None };
                        if queue.ahead.get(key) == Some(&ours) {
                            queue.ahead.remove(key);
                        }
                    }
                    drop(queue);
                    let _ = commit.done.send(Ok(commit.revision));
                }
            }
        }
    }
    /// Answers a batch that failed, and all that was checked on top of it.
    fn fail(&self, batch: Vec<Waiting>, error: WriteError) {
        let mut queue = self.queue.borrow_mut();
        let answer = match error {
            WriteError::Full => {
                log::error!("store: no space left on the disk, writes are refused until there is room");
                CommitError::Full
            }
            WriteError::Broken(cause) => {
                log::error!("store: {cause}; writes are refused until a restart");
                let cause: Rc<str> = cause.into();
                queue.broken = Some(cause.clone());
                CommitError::Failed(cause)
            }
        };
        let all = batch.into_iter().chain(std::mem::take(&mut queue.waiting)).collect::<Vec<_>>();
        queue.ahead.clear();
        queue.unanswered = 0;
        queue.last = self.index.borrow().revision();
        for waiting in all {
            let (Waiting::Lost(done) | Waiting::Commit(Accepted { done, .. })) = waiting;
            let _ = done.send(Err(answer.clone()));
        }
    }
    fn kept(&self) -> (Vec<Kept>, Revision) {
        let index = self.index.borrow();
        let reserved = self.queue.borrow().reserved;
        let kept = index.keys().iter().filter(|(key, _)| is_kept(key));
        (kept.map(|(key, e)| Kept::new(key, e)).collect(), index.revision().max(reserved))
    }
}

/// Does blocking work with the writer on another thread. The writer is lost if that thread panics.
async fn on_disk(
    mut writer: Writer,
    work: impl FnOnce(&mut Writer) -> Result<(), WriteError> + Send + 'static,
) -> Result<(Writer, Result<(), WriteError>), WriteError> {
    let thread = tokio::task::spawn_blocking(move || {
        let result = work(&mut writer);
        (writer, result)
    });
    thread.await.map_err(|e| WriteError::Broken(format!("writing thread: {e}")))
}

/// Writes what waits, batch by batch, until the store closes. Returns the writer unless it was lost.
async fn write_batches(shared: &Shared, mut writer: Writer) -> Option<Writer> {
    loop {
        if shared.queue.borrow().waiting.is_empty() {
            if shared.queue.borrow().closing {
                return Some(writer);
            }
            shared.wake.notified().await;
            // Whoever else is about to write goes with the same frame.
            tokio::task::yield_now().await;
            continue;
        }
        let (batch, frame, reserved) = shared.take_batch();
        let mut result = Ok(());
        if !frame.is_empty() {
            match on_disk(writer, move |w| w.append(&frame)).await {
                Ok((w, r)) => (writer, result) = (w, r),
                Err(lost) => {
                    shared.fail(batch, lost);
                    return None;
                }
            }
        }
        match result {
            Ok(()) => shared.settle(batch, reserved),
            Err(e) => shared.fail(batch, e),
        }
        if writer.wants_snapshot() && shared.queue.borrow().broken.is_none() {
            let (kept, revision) = shared.kept();
            match on_disk(writer, move |w| w.roll(&kept, revision)).await {
                Ok((w, Ok(()))) => writer = w,
                Ok((w, Err(e))) => {
                    writer = w;
                    shared.fail(Vec::new(), e);
                }
                Err(lost) => {
                    shared.fail(Vec::new(), lost);
                    return None;
                }
            }
        }
    }
}

async fn flush(shared: Rc<Shared>, writer: Writer) {
    let writer = write_batches(&shared, writer).await;
    shared.feeds.close();
    // The lock goes with the disk.
    let _ = tokio::task::spawn_blocking(move || drop(writer)).await;
    shared.ended.set(true);
    shared.end.notify_waiters();
}

impl Store for LogStore {
    fn revision(&self) -> Revision {
        self.0.index.borrow().revision()
    }
    fn get<'a>(&'a self, key: &'a str, at: Option<Revision>) -> Reading<'a, Option<Entry>> {
        Box::pin(std::future::ready(self.0.index.borrow().get(key, at).map_err(ReadError::from)))
    }
    fn range<'a>(&'a self, prefix: &'a str, after: &'a str, at: Option<Revision>, limit: usize) -> Reading<'a, Range> {
        Box::pin(std::future::ready(self.0.index.borrow().range(prefix, after, at, limit).map_err(ReadError::from)))
    }
    fn commit(&self, txn: Txn) -> Pending<'_, Result<Revision, CommitError>> {
        let submitted = self.0.submit(txn);
        Box::pin(async move {
            let lost = |_| CommitError::Failed("the store is closed".into());
            submitted?.await.map_err(lost)?
        })
    }
    fn watch(&self, prefix: &str, from: Revision) -> Result<Watcher, Compacted> {
        Ok(self.0.feeds.watch(prefix, self.0.index.borrow().since(from)?))
    }
    fn compact(&self, revision: Revision) {
        self.0.index.borrow_mut().compact(revision);
    }
    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async {
            self.0.queue.borrow_mut().closing = true;
            self.0.wake.notify_one();
            while !self.0.ended.get() {
                self.0.end.notified().await;
            }
        })
    }
}
