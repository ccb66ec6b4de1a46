//! Drives one work queue: a bounded number of keys at once, one timer for the next deadline.

use super::Key;
use super::queue::{Next, Queue};
use crate::controllers::seam::Fut;
use mote_api::status::Status;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Far enough to mean "no deadline".
const NO_DEADLINE: Duration = Duration::from_secs(86_400 * 365);

/// Milliseconds after which to look at the key again, or why it failed.
pub type Outcome = Result<Option<u64>, Status>;

/// The queue of one loop, shared between routes that add and the runner that takes.
pub struct Work {
    queue: RefCell<Queue>,
    news: Notify,
    start: Instant,
}

impl Work {
    pub fn new() -> Rc<Self> {
        Rc::new(Work { queue: RefCell::default(), news: Notify::new(), start: Instant::now() })
    }

    /// Milliseconds of this queue's own monotonic clock.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn add(&self, key: Key) {
        self.queue.borrow_mut().add(key);
        self.news.notify_one();
    }

    /// Look at the key in `ms` milliseconds at the latest.
    pub fn add_in(&self, key: Key, ms: u64) {
        let at = self.now_ms().saturating_add(ms);
        self.queue.borrow_mut().add_at(key, at);
        self.news.notify_one();
    }
}

/// Runs keys for ever, at most `at_once` of them side by side. `name` is for the log.
pub async fn run(name: &'static str, work: Rc<Work>, at_once: usize, reconcile: impl Fn(Key) -> Fut<'static, Outcome>) {
    let mut running: JoinSet<(Key, Outcome)> = JoinSet::new();
    loop {
        let mut deadline = NO_DEADLINE;
        while running.len() < at_once {
            let now = work.now_ms();
            let next = work.queue.borrow_mut().next(now);
            match next {
                Next::Work(key) => {
                    let future = reconcile(key.clone());
                    running.spawn_local(async move { (key, future.await) });
                }
                Next::Wait(at) => {
                    deadline = Duration::from_millis(at.saturating_sub(now));
                    break;
                }
                Next::Idle => break,
            }
        }
        tokio::select! {
            biased;
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Ok((key, outcome)) = ended {
                    finish(name, &work, &key, outcome);
                }
            }
            () = work.news.notified() => {}
            () = tokio::time::sleep(deadline) => {}
        }
    }
}

/// Puts the key back as its outcome wants; an error is logged here and nowhere else.
fn finish(name: &str, work: &Work, key: &Key, outcome: Outcome) {
    let now = work.now_ms();
    match outcome {
        Ok(again_in) => work.queue.borrow_mut().done(key, now, again_in),
        Err(status) => {
            let wait = work.queue.borrow_mut().failed(key, now);
            let level =
                if status.is_conflict() || status.is_not_found() { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "{name}: {key}: {status}; again in {wait} ms");
        }
    }
}
