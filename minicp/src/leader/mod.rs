//! Leader election: of several servers on one etcd, one runs scheduler and controllers.
//!
//! As upstream's: the Lease `kube-system/kube-controller-manager` names the holder, who renews it; who waits takes it over when it has seen no
//! change for `leaseDurationSeconds`, by its own monotonic clock ([`plan`]). Every write is guarded by the version that was read, so that of two who
//! take it one loses. A holder that could not renew stops before its turn is over for others, and its controllers cannot write after that ([`gate`]);
//! one that ends orderly gives the Lease back. On the embedded store there is no election: its lock lets one server in.

mod gate;
mod plan;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::ElectionTimes;
use crate::controllers::seam::{Api, Fut};
use gate::{Gate, Until};
use plan::{Plan, Sight, holder, released, written};

const RESOURCE: &str = "leases.coordination.k8s.io";
const NAMESPACE: &str = "kube-system";
/// The name of the Lease: of the part of upstream whose work is most of what the holder does.
const NAME: &str = "kube-controller-manager";
/// How long an orderly end waits for the Lease to be given back.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// What an election asks of the API.
pub(crate) trait Leases {
    fn read(&self) -> Fut<'_, Result<Rc<Value>, Status>>;
    fn create(&self, lease: Value) -> Fut<'_, Result<Value, Status>>;
    /// 409 if it changed meanwhile.
    fn update(&self, lease: Value) -> Fut<'_, Result<Value, Status>>;
    fn now(&self) -> Time;
}

impl Leases for Rc<dyn Api> {
    fn read(&self) -> Fut<'_, Result<Rc<Value>, Status>> {
        self.get(RESOURCE, NAMESPACE, NAME)
    }
    fn create(&self, lease: Value) -> Fut<'_, Result<Value, Status>> {
        Api::create(&**self, RESOURCE, NAMESPACE, lease)
    }
    fn update(&self, lease: Value) -> Fut<'_, Result<Value, Status>> {
        Api::update(&**self, RESOURCE, lease)
    }
    fn now(&self) -> Time {
        Api::now(&**self)
    }
}

/// One that would lead; dropped: it does nothing any more, and says nothing.
pub(crate) struct Candidate {
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Candidate {
    /// Waits for the turn of `me`, a name no other candidate has; `start` starts what the leader does, on the API it is given, and what it
    /// returns is dropped when the turn is over.
    pub(crate) fn spawn<T: 'static>(
        api: Rc<dyn Api>,
        me: Rc<str>,
        times: ElectionTimes,
        start: impl Fn(Rc<dyn Api>) -> T + 'static,
    ) -> Candidate {
        let led = api.clone();
        Self::of(api, me, times, move |until| start(Rc::new(Gate { api: led.clone(), until })))
    }
    fn of<T: 'static>(
        leases: impl Leases + 'static,
        me: Rc<str>,
        times: ElectionTimes,
        start: impl Fn(Until) -> T + 'static,
    ) -> Candidate {
        let (end, ended) = oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            let mut voter =
                Voter { leases, me: me.clone(), times, sight: Sight::new(me), lease: None, renewed: Instant::now() };
            tokio::select! {
                () = voter.run(start) => {}
                _ = ended => {}
            }
            // What it led has been dropped with the future above.
            voter.release().await;
        });
        Candidate { end: Some(end), task }
    }
    /// Stops what it leads, if it leads, and gives the Lease back.
    pub(crate) async fn end(mut self) {
        drop(self.end.take());
        let _ = (&mut self.task).await;
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Voter<L> {
    leases: L,
    me: Rc<str>,
    times: ElectionTimes,
    sight: Sight,
    /// As we wrote it last, while it is ours.
    lease: Option<Value>,
    /// When the write of it began.
    renewed: Instant,
}

impl<L: Leases> Voter<L> {
    async fn run<T>(&mut self, start: impl Fn(Until) -> T) {
        loop {
            self.acquire().await;
            let until: Until = Rc::new(Cell::new(self.renewed + self.times.deadline));
            log::info!("leader election: {} leads: scheduler and controllers start", self.me);
            let work = start(until.clone());
            let why = self.keep(&until).await;
            drop(work);
            self.lease = None;
            log::warn!("leader election: {why}: scheduler and controllers have stopped here");
        }
    }
    /// Ready when the Lease is ours.
    async fn acquire(&mut self) {
        let (mut told, mut trouble) = (String::new(), false);
        loop {
            let wait = match self.look().await {
                Ok(None) => return,
                Ok(Some(wait)) => {
                    trouble = false;
                    wait
                }
                Err(e) => {
                    if !std::mem::replace(&mut trouble, true) {
                        log::warn!("leader election: {}", e.message);
                    }
                    self.times.retry
                }
            };
            if let Some(other) = self.sight.holder().filter(|other| *other != told) {
                log::info!("leader election: {other} leads: scheduler and controllers wait here");
                told = other.to_owned();
            }
            sleep(wait.min(self.times.retry)).await;
        }
    }
    /// One look, and a hold if it is free. None: it is ours; else how long it is not.
    async fn look(&mut self) -> Result<Option<Duration>, Status> {
        let read = match self.leases.read().await {
            Ok(lease) => Some(lease),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e),
        };
        self.sight.see(read, Instant::now());
        let old = match self.sight.plan(Instant::now()) {
            Plan::Wait(wait) => return Ok(Some(wait)),
            Plan::Create => None,
            Plan::Take(old) => Some(old),
        };
        match self.write(old.as_deref()).await {
            Ok(()) => Ok(None),
            // Somebody else was faster.
            Err(e) if e.is_conflict() || e.is_already_exists() || e.is_not_found() => Ok(Some(Duration::ZERO)),
            Err(e) => Err(e),
        }
    }
    /// Writes that it is ours, if it still is `old`.
    async fn write(&mut self, old: Option<&Value>) -> Result<(), Status> {
        let began = Instant::now();
        let new = written(old, NAME, &self.me, &self.times, self.leases.now());
        let done = match old {
            Some(_) => self.leases.update(new).await,
            None => self.leases.create(new).await,
        };
        self.lease = Some(done?);
        self.renewed = began;
        Ok(())
    }
    /// Renews the Lease; ready when the turn is over, and why it is.
    async fn keep(&mut self, until: &Until) -> String {
        loop {
            sleep(self.times.renew.saturating_sub(self.renewed.elapsed())).await;
            let over = self.renewed + self.times.deadline;
            let Ok(renewed) = timeout_at(over, self.renew()).await else {
                return format!("{} could not renew in time", self.me);
            };
            if let Err(other) = renewed {
                return format!("{other:?} has the lease");
            }
            until.set(self.renewed + self.times.deadline);
        }
    }
    /// Tries until it is written, or somebody else's.
    async fn renew(&mut self) -> Result<(), String> {
        let mut trouble = false;
        loop {
            let old = self.lease.clone();
            let error = match self.write(old.as_ref()).await {
                Ok(()) => return Ok(()),
                Err(e) => e,
            };
            if error.is_conflict() || error.is_not_found() || error.is_already_exists() {
                // Ours after all (an answer was lost, or somebody wrote a label), another's, or gone.
                match self.leases.read().await {
                    Ok(lease) if holder(&lease) == &*self.me => self.lease = Some(Value::clone(&lease)),
                    Ok(lease) => return Err(holder(&lease).to_owned()),
                    Err(e) if e.is_not_found() => self.lease = None,
                    Err(_) => {}
                }
            } else if !std::mem::replace(&mut trouble, true) {
                log::warn!("leader election: renew: {}", error.message);
            }
            sleep(self.times.retry.min(self.times.renew / 4)).await;
        }
    }
    /// Gives the Lease back, if it is ours.
    async fn release(&self) {
        if let Some(lease) = &self.lease {
            let free = released(lease, self.leases.now());
            let _ = timeout(RELEASE_WITHIN, self.leases.update(free)).await;
        }
    }
}
