//! Controllers: watch, compare, fix. Each derives one thing from the store's truth and writes it back through the API.
//!
//! Tasks (all local to one thread, ended when [`crate::control::Running`] is dropped):
//! - one reflector per resource ([`frame::reflect`]): list and watch -> [`world::World`], which tells every route;
//! - per controller one [`frame::run`] loop: its queue of keys -> `reconcile(key)`: read the world, plan (pure), execute;
//! - the scheduler ([`crate::scheduler`]) stands on the same world, so that a pod is parsed and kept once.
//!
//! There are no other channels: routes write keys into queues, writes go to the API, and what a write returns is learnt by the
//! world at once. A restart has no special path: nothing runs before the first lists are in.

pub mod client;
pub mod cron;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod endpoints;
pub mod events;
pub mod frame;
pub mod gc;
pub mod job;
pub mod namespace;
pub mod node;
pub mod pods;
pub mod replicaset;
mod revisions;
pub mod seam;
pub mod statefulset;
pub mod view;
pub mod world;

use crate::config::Cidr;
use events::Recorder;
use frame::Key;
use frame::reflect::{Keeper, reflect};
use frame::run::{Outcome, Work, run};
use seam::{Api, Event, Fut};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use tokio::task::JoinSet;
use world::{Change, RESOURCES, Res, World};

/// Names the version of the template that a pod of a DaemonSet or StatefulSet was made from.
const REVISION_HASH: &str = "controller-revision-hash";

/// What the controllers may not exceed, and how long they wait.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Without a lease renewal for so long a node is lost.
    pub node_grace_ms: u64,
    /// How long a pod that says nothing about it stays on a lost node.
    pub eviction_seconds: i64,
    /// Ended pods kept before the oldest are removed.
    pub ended_pods_max: usize,
    /// Creates and deletes of one ReplicaSet in one go.
    pub burst_max: usize,
    /// Endpoints in one EndpointSlice.
    pub slice_endpoints_max: usize,
    /// Keys one controller works on at once.
    pub at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            node_grace_ms: 40_000,
            eviction_seconds: 300,
            ended_pods_max: 1000,
            burst_max: 500,
            slice_endpoints_max: 100,
            at_once: 4,
        }
    }
}

/// What the controllers are told at start.
#[derive(Clone)]
pub struct Settings {
    pub limits: Limits,
    pub cluster_cidr: Cidr,
    /// Prefix length of the network each node gets of it.
    pub node_prefix: u8,
    /// The cluster's CA, PEM.
    pub ca_pem: Rc<str>,
}

/// What every controller holds.
#[derive(Clone)]
pub struct Context {
    pub api: Rc<dyn Api>,
    pub world: Rc<World>,
    pub events: Rc<Recorder>,
    pub settings: Rc<Settings>,
}

/// Starts every controller and the reflectors that feed the world.
pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    replicaset::spawn(cx, tasks);
    deployment::spawn(cx, tasks);
    endpoints::spawn(cx, tasks);
    node::spawn(cx, tasks);
    namespace::spawn(cx, tasks);
    daemonset::spawn(cx, tasks);
    statefulset::spawn(cx, tasks);
    job::spawn(cx, tasks);
    cronjob::spawn(cx, tasks);
    pods::spawn(cx, tasks);
    gc::spawn(cx, tasks);
    for (res, name) in RESOURCES {
        let feed = Feed { world: cx.world.clone(), res, keys: RefCell::default() };
        tasks.spawn_local(reflect(cx.api.clone(), name.into(), Rc::new(feed)));
    }
}

/// One resource's reflector feeds the world.
struct Feed {
    world: Rc<World>,
    res: Res,
    /// Found in the list that is under way.
    keys: RefCell<BTreeSet<Key>>,
}

impl Keeper for Feed {
    fn found(&self, object: &Rc<mote_api::tree::Value>) {
        self.keys.borrow_mut().insert(Key::new(mote_api::meta::namespace(object), mote_api::meta::name(object)));
        self.world.found(self.res, object);
    }

    fn listed(&self, revision: u64) {
        self.world.listed(self.res, &self.keys.take(), revision);
    }

    fn apply(&self, event: &Event) {
        self.world.observe(self.res, &event.object, event.gone, event.revision);
    }
}

impl Context {
    pub fn new(api: Rc<dyn Api>, settings: Settings) -> Context {
        let events = Recorder::new(api.clone());
        Context { api, world: Rc::default(), events, settings: Rc::new(settings) }
    }
    /// Starts one controller: `route` turns changes into keys, `reconcile` makes one key right.
    fn start(
        &self,
        tasks: &mut JoinSet<()>,
        name: &'static str,
        route: impl Fn(&Context, &Work, &Change) + 'static,
        reconcile: fn(Context, Key) -> Fut<'static, Outcome>,
    ) -> Rc<Work> {
        let work = Work::new();
        let (cx, keys) = (self.clone(), work.clone());
        self.world.route(move |change| route(&cx, &keys, change));
        let (cx, keys) = (self.clone(), work.clone());
        tasks.spawn_local(async move {
            cx.world.wait_synced().await;
            let at_once = cx.settings.limits.at_once;
            run(name, keys, at_once, move |key| reconcile(cx.clone(), key)).await;
        });
        work
    }
}
