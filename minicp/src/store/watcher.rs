//! A watcher's bounded queue between the store's apply loop and one reader; and all of an engine's, which are told and ended together.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use tokio::sync::Notify;

use super::Change;

/// Changes one watcher may lag behind. Then it is cut off (410) and must list again.
pub const WATCH_BACKLOG_MAX: usize = 4096;

struct Queue {
    changes: VecDeque<Rc<Change>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Fell behind, what is queued was thrown away.
    Lagged,
    /// The store is closing.
    Closed,
}

struct Shared {
    prefix: Box<str>,
    queue: RefCell<Queue>,
    wake: Notify,
}

/// What is done to every change on its way to the reader.
pub(crate) type Lens = Rc<dyn Fn(Rc<Change>) -> Rc<Change>>;

/// The reader's end.
pub struct Watcher(Rc<Shared>, Option<Lens>);

/// The store's end.
struct Feed(Weak<Shared>);

/// A watch came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Lagged,
    Closed,
}

impl Watcher {
    fn new(prefix: &str) -> (Watcher, Feed) {
        let queue = RefCell::new(Queue { changes: VecDeque::new(), state: State::Open });
        let shared = Rc::new(Shared { prefix: prefix.into(), queue, wake: Notify::new() });
        let feed = Feed(Rc::downgrade(&shared));
        (Watcher(shared, None), feed)
    }
    /// The same changes, seen through `lens`.
    pub(crate) fn through(self, lens: Lens) -> Watcher {
        Watcher(self.0, Some(lens))
    }
    /// The next change; waits for one.
    pub async fn next(&mut self) -> Result<Rc<Change>, Ended> {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.0.wake.notified().await;
        }
    }
    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Result<Rc<Change>, Ended>> {
        let mut queue = self.0.queue.borrow_mut();
        if let Some(change) = queue.changes.pop_front() {
            drop(queue);
            return Some(Ok(match &self.1 {
                Some(lens) => lens(change),
                None => change,
            }));
        }
        match queue.state {
            State::Open => None,
            State::Lagged => Some(Err(Ended::Lagged)),
            State::Closed => Some(Err(Ended::Closed)),
        }
    }
}

impl Feed {
    /// False: the reader is gone or was cut off, forget this feed.
    fn push(&self, change: &Rc<Change>) -> bool {
        let Some(shared) = self.0.upgrade() else { return false };
        if !change.key.starts_with(&*shared.prefix) {
            return true;
        }
        let mut queue = shared.queue.borrow_mut();
        if queue.changes.len() >= WATCH_BACKLOG_MAX {
            queue.changes = VecDeque::new();
            queue.state = State::Lagged;
        } else {
            queue.changes.push_back(change.clone());
        }
        shared.wake.notify_one();
        queue.state == State::Open
    }
    /// The reader has missed something.
    fn cut(&self) {
        if let Some(shared) = self.0.upgrade() {
            let mut queue = shared.queue.borrow_mut();
            queue.changes = VecDeque::new();
            queue.state = State::Lagged;
            shared.wake.notify_one();
        }
    }
    fn close(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.queue.borrow_mut().state = State::Closed;
            shared.wake.notify_one();
        }
    }
}

/// All watches of one engine.
#[derive(Default)]
pub(super) struct Feeds {
    open: RefCell<Vec<Feed>>,
    closed: Cell<bool>,
}

impl Feeds {
    /// A watch that begins with `since`, what has happened already; ended at once if the store is closing.
    pub(super) fn watch<'a>(&self, prefix: &str, since: impl Iterator<Item = &'a Rc<Change>>) -> Watcher {
        let (watcher, feed) = Watcher::new(prefix);
        for change in since {
            feed.push(change);
        }
        if self.closed.get() {
            feed.close();
        } else {
            self.open.borrow_mut().push(feed);
        }
        watcher
    }
    pub(super) fn tell(&self, changes: &[Rc<Change>]) {
        self.open.borrow_mut().retain(|feed| changes.iter().all(|change| feed.push(change)));
    }
    /// All have missed something.
    pub(super) fn cut(&self) {
        for feed in self.open.borrow_mut().drain(..) {
            feed.cut();
        }
    }
    /// Ends all, and those that are still to come at their beginning.
    pub(super) fn close(&self) {
        self.closed.set(true);
        for feed in self.open.borrow_mut().drain(..) {
            feed.close();
        }
    }
}
