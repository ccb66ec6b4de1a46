//! The shared picture of the cluster: one cache per resource for all controllers and the scheduler, filled by the reflectors.
//!
//! A change is parsed once, put into its cache, and told to every registered route; routes turn it into keys of work queues
//! and do nothing else.

use super::frame::Key;
use super::frame::cache::{Cache, Stale, View};
use super::view::apps::{ReplicaSet, Workload};
use super::view::batch::{CronJob, Job};
use super::view::node::{Lease, Node};
use super::view::pod::Pod;
use super::view::service::{Service, Slice};
use super::view::{Meta, Plain};
use mote_api::tree::Value;
use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

/// A watched resource with a view of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Res {
    Pods,
    Nodes,
    Leases,
    ReplicaSets,
    Deployments,
    DaemonSets,
    StatefulSets,
    Jobs,
    CronJobs,
    Services,
    Slices,
    Endpoints,
    Namespaces,
    ServiceAccounts,
    ConfigMaps,
}

/// All of them, and what they are called on the wire.
pub const RESOURCES: [(Res, &str); 15] = [
    (Res::Namespaces, "namespaces"),
    (Res::Nodes, "nodes"),
    (Res::Leases, "leases.coordination.k8s.io"),
    (Res::Pods, "pods"),
    (Res::ReplicaSets, "replicasets.apps"),
    (Res::Deployments, "deployments.apps"),
    (Res::DaemonSets, "daemonsets.apps"),
    (Res::StatefulSets, "statefulsets.apps"),
    (Res::Jobs, "jobs.batch"),
    (Res::CronJobs, "cronjobs.batch"),
    (Res::Services, "services"),
    (Res::Slices, "endpointslices.discovery.k8s.io"),
    (Res::Endpoints, "endpoints"),
    (Res::ServiceAccounts, "serviceaccounts"),
    (Res::ConfigMaps, "configmaps"),
];

/// Every node's heartbeats live here.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The CA that pods trust, in every namespace.
pub const ROOT_CA: &str = "kube-root-ca.crt";

/// Which side of a change an object is on; `None` before it was and after it is gone.
pub struct Sides<V> {
    pub old: Option<Rc<V>>,
    pub new: Option<Rc<V>>,
}

impl<V> Sides<V> {
    /// The new state, or the last one of an object that is gone.
    pub fn any(&self) -> Option<&Rc<V>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Both states, where they are.
    pub fn each(&self) -> impl Iterator<Item = &Rc<V>> {
        self.old.iter().chain(self.new.iter())
    }
}

/// One change that the picture has taken in.
pub enum Change {
    Pod(Sides<Pod>),
    Node(Sides<Node>),
    Lease(Sides<Lease>),
    ReplicaSet(Sides<ReplicaSet>),
    Deployment(Sides<Workload>),
    DaemonSet(Sides<Workload>),
    StatefulSet(Sides<Workload>),
    Job(Sides<Job>),
    CronJob(Sides<CronJob>),
    Service(Sides<Service>),
    Slice(Sides<Slice>),
    Endpoints(Sides<Slice>),
    Namespace(Sides<Plain>),
    ServiceAccount(Sides<Plain>),
    ConfigMap(Sides<Plain>),
}

#[derive(Default)]
pub struct Caches {
    pub pods: Cache<Pod>,
    pub nodes: Cache<Node>,
    pub leases: Cache<Lease>,
    pub replica_sets: Cache<ReplicaSet>,
    pub deployments: Cache<Workload>,
    pub daemon_sets: Cache<Workload>,
    pub stateful_sets: Cache<Workload>,
    pub jobs: Cache<Job>,
    pub cron_jobs: Cache<CronJob>,
    pub services: Cache<Service>,
    pub slices: Cache<Slice>,
    pub endpoints: Cache<Slice>,
    pub namespaces: Cache<Plain>,
    pub service_accounts: Cache<Plain>,
    pub config_maps: Cache<Plain>,
}

type Route = Box<dyn Fn(&Change)>;

#[derive(Default)]
pub struct World {
    caches: RefCell<Caches>,
    routes: RefCell<Vec<Route>>,
    synced: Cell<usize>,
    all_synced: tokio::sync::Notify,
}

/// How a piece of news came to us.
enum News {
    /// Returned by a write of our own.
    Learnt,
    /// Told by list or watch at this revision.
    Told { gone: bool, revision: u64 },
}

impl World {
    /// A look at the caches. Not to be held across an await.
    pub fn look(&self) -> Ref<'_, Caches> {
        self.caches.borrow()
    }

    /// Adds a route; all routes are added before the first reflector runs.
    pub fn route(&self, route: impl Fn(&Change) + 'static) {
        self.routes.borrow_mut().push(Box::new(route));
    }

    /// Takes in what a write of our own returned, before the watch tells it.
    pub fn learn(&self, res: Res, object: &Value) {
        self.take(res, object, &News::Learnt);
    }

    /// A delete of this pod was accepted.
    pub fn doom_pod(&self, key: &Key, uid: &Rc<str>) {
        self.caches.borrow_mut().pods.doom(key, uid);
    }

    /// Takes in one change of a watch.
    pub fn observe(&self, res: Res, object: &Value, gone: bool, revision: u64) {
        self.take(res, object, &News::Told { gone, revision });
    }

    /// Takes in one object of a list.
    pub fn found(&self, res: Res, object: &Value) {
        self.take(res, object, &News::Told { gone: false, revision: 0 });
    }

    /// The list of `res`, made at `revision`, had just these keys; what it lacked is gone.
    pub fn listed(&self, res: Res, keys: &BTreeSet<Key>, revision: u64) {
        let dropped = self.drop_missing(res, keys, revision);
        self.tell(dropped);
        if self.mark_synced(res, revision) {
            self.synced.set(self.synced.get() + 1);
            if self.is_synced() {
                self.all_synced.notify_waiters();
            }
        }
    }

    /// Every resource has been listed once.
    pub fn is_synced(&self) -> bool {
        self.synced.get() == RESOURCES.len()
    }

    /// Waits for that.
    pub async fn wait_synced(&self) {
        while !self.is_synced() {
            let wait = self.all_synced.notified();
            if self.is_synced() {
                return;
            }
            wait.await;
        }
    }

    fn tell(&self, changes: Vec<Change>) {
        for change in changes {
            for route in self.routes.borrow().iter() {
                route(&change);
            }
        }
    }

    fn take(&self, res: Res, object: &Value, news: &News) {
        let change = self.caches.borrow_mut().take(res, object, news);
        self.tell(change.into_iter().collect());
    }

    fn drop_missing(&self, res: Res, listed: &BTreeSet<Key>, revision: u64) -> Vec<Change> {
        self.caches.borrow_mut().drop_missing(res, listed, revision)
    }

    fn mark_synced(&self, res: Res, revision: u64) -> bool {
        self.caches.borrow_mut().mark_synced(res, revision)
    }
}

fn put<V: View>(cache: &mut Cache<V>, view: V, news: &News) -> Result<Sides<V>, Stale> {
    let view = Rc::new(view);
    match *news {
        News::Learnt => cache.learn(view.clone()).map(|old| Sides { old, new: Some(view) }),
        News::Told { gone: false, revision } => {
            cache.observe(view.clone(), false, revision).map(|old| Sides { old, new: Some(view) })
        }
        News::Told { gone: true, revision } => cache.observe(view, true, revision).map(|old| Sides { old, new: None }),
    }
}

/// Runs one expression for the cache, parser and change of a resource.
macro_rules! per_resource {
    ($caches:expr, $res:expr, |$cache:ident, $parse:ident, $change:ident| $body:expr) => {{
        macro_rules! arm {
            ($field:ident, $parser:expr, $variant:ident) => {{
                let $cache = &mut $caches.$field;
                #[allow(unused_variables)]
                let $parse = $parser;
                #[allow(unused_variables)]
                let $change = Change::$variant;
                $body
            }};
        }
        match $res {
            Res::Pods => arm!(pods, Pod::parse, Pod),
            Res::Nodes => arm!(nodes, Node::parse, Node),
            Res::Leases => arm!(leases, Lease::parse, Lease),
            Res::ReplicaSets => arm!(replica_sets, ReplicaSet::parse, ReplicaSet),
            Res::Deployments => arm!(deployments, Workload::parse, Deployment),
            Res::DaemonSets => arm!(daemon_sets, Workload::parse, DaemonSet),
            Res::StatefulSets => arm!(stateful_sets, Workload::parse, StatefulSet),
            Res::Jobs => arm!(jobs, Job::parse, Job),
            Res::CronJobs => arm!(cron_jobs, CronJob::parse, CronJob),
            Res::Services => arm!(services, Service::parse, Service),
            Res::Slices => arm!(slices, Slice::parse, Slice),
            Res::Endpoints => arm!(endpoints, Slice::parse_endpoints, Endpoints),
            Res::Namespaces => arm!(namespaces, plain, Namespace),
            Res::ServiceAccounts => arm!(service_accounts, plain, ServiceAccount),
            Res::ConfigMaps => arm!(config_maps, plain, ConfigMap),
        }
    }};
}

fn plain(object: &Value) -> Plain {
    Plain { meta: Meta::parse(object) }
}

impl Caches {
    fn take(&mut self, res: Res, object: &Value, news: &News) -> Option<Change> {
        if skipped(res, object) {
            return None;
        }
        per_resource!(self, res, |cache, parse, change| put(cache, parse(object), news).ok().map(change))
    }

    fn drop_missing(&mut self, res: Res, listed: &BTreeSet<Key>, revision: u64) -> Vec<Change> {
        per_resource!(self, res, |cache, parse, change| {
            let mut changes = Vec::new();
            for view in cache.missing(listed, revision) {
                if let Ok(old) = cache.observe(view, true, revision) {
                    changes.push(change(Sides { old, new: None }));
                }
            }
            changes
        })
    }

    /// True the first time.
    fn mark_synced(&mut self, res: Res, revision: u64) -> bool {
        per_resource!(self, res, |cache, parse, change| {
            let first = !cache.synced();
            cache.mark_synced(revision);
            first
        })
    }
}

/// What nobody asks for is not kept: of ConfigMaps only the root CA's, of ServiceAccounts only `default`, of Leases only nodes'.
fn skipped(res: Res, object: &Value) -> bool {
    match res {
        Res::ConfigMaps => mote_api::meta::name(object) != ROOT_CA,
        Res::ServiceAccounts => mote_api::meta::name(object) != "default",
        Res::Leases => mote_api::meta::namespace(object) != LEASE_NAMESPACE,
        _ => false,
    }
}
