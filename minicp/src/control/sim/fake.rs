//! An API in memory for the simulation: revisions, watches, guarded writes, graceful deletes, finalizers, and seeded faults.

use crate::controllers::seam::{Api, Deletion, Event, Fut, Listed, Watching};
use mote_api::meta;
use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::{Value, json, list_at, set, str_at};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use tokio::sync::Notify;

type ObjectKey = (String, String, String);

struct Stream {
    res: String,
    events: RefCell<VecDeque<(u64, bool, Rc<Value>)>>,
    broken: Cell<bool>,
    news: Notify,
}

#[derive(Default)]
pub(super) struct Store {
    objects: BTreeMap<ObjectKey, Rc<Value>>,
    revision: u64,
    streams: Vec<Weak<Stream>>,
    serial: u64,
    /// Most replicas each ReplicaSet ever asked for, by uid.
    peak: BTreeMap<String, i64>,
    /// What must never have happened.
    pub(super) violations: Vec<String>,
}

pub(super) struct Fake {
    pub(super) store: RefCell<Store>,
    pub(super) random: RefCell<Random>,
    /// Of 1000 writes so many fail before they take effect.
    pub(super) faults: Cell<u64>,
    start: tokio::time::Instant,
}

/// xorshift: seeded, small, good enough to be unfair.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}

fn conflict(what: &str) -> Status {
    Status::new(409, "Conflict", format!("{what}: the object has been modified"))
}

fn missing(res: &str, name: &str) -> Status {
    Status::new(404, "NotFound", format!("{res} {name:?} not found"))
}

fn merge(target: &mut Value, patch: &Value) {
    let (Some(fields), true) = (patch.as_object(), target.is_object()) else {
        *target = patch.clone();
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            mote_api::tree::remove(target, &[name]);
        } else {
            let mut inner = target.get(name).cloned().unwrap_or(json!({}));
            if value.is_object() && !inner.is_object() {
                inner = json!({});
            }
            merge(&mut inner, value);
            set(target, &[name], inner);
        }
    }
}

impl Store {
    fn tell(&mut self, res: &str, gone: bool, object: &Rc<Value>) {
        self.streams.retain(|stream| stream.strong_count() > 0);
        for stream in self.streams.iter().filter_map(Weak::upgrade).filter(|stream| stream.res == res) {
            stream.events.borrow_mut().push_back((self.revision, gone, object.clone()));
            stream.news.notify_one();
        }
    }

    fn put(&mut self, res: &str, mut object: Value) -> Value {
        self.revision += 1;
        set(&mut object, &["metadata", "resourceVersion"], json!(self.revision.to_string()));
        let key = (res.to_string(), meta::namespace(&object).to_string(), meta::name(&object).to_string());
        let finished = meta::is_deleting(&object)
            && meta::finalizers(&object).next().is_none()
            && object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64) == Some(0);
        if res == "replicasets.apps" {
            let wants = mote_api::tree::i64_at(&object, &["spec", "replicas"]).unwrap_or(1);
            let peak = self.peak.entry(meta::uid(&object).to_string()).or_insert(0);
            *peak = wants.max(*peak);
        }
        let shared = Rc::new(object.clone());
        if finished {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, shared.clone());
        }
        self.tell(res, finished, &shared);
        object
    }

    /// A ReplicaSet never has more pods that stay than it ever asked for.
    fn check_doubled(&mut self, made: &Value) {
        let Some(owner) = meta::controller_of(made).filter(|owner| owner.kind == "ReplicaSet") else { return };
        let of_owner = |pod: &&Rc<Value>| {
            meta::controller_of(pod).is_some_and(|o| o.uid == owner.uid)
                && !meta::is_deleting(pod)
                && !matches!(str_at(pod, &["status", "phase"]), "Failed" | "Succeeded")
        };
        let has = i64::try_from(self.all("pods").iter().filter(of_owner).count()).unwrap_or(i64::MAX);
        let peak = self.peak.get(owner.uid).copied().unwrap_or(0);
        if has > peak {
            self.violations.push(format!("{} has {has} pods and never wanted more than {peak}", owner.name));
        }
    }

    pub(super) fn all(&self, res: &str) -> Vec<Rc<Value>> {
        self.objects.iter().filter(|(key, _)| key.0 == res).map(|(_, object)| object.clone()).collect()
    }
}

impl Fake {
    pub(super) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Fake {
            store: RefCell::default(),
            random: RefCell::new(Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)),
            faults: Cell::new(0),
            start: tokio::time::Instant::now(),
        })
    }

    fn roll(&self) -> bool {
        self.random.borrow_mut().below(1000) < self.faults.get()
    }

    /// One write: a wait, then maybe a failure, then the write.
    async fn write<T>(&self, f: impl FnOnce(&mut Store) -> Result<T, Status>) -> Result<T, Status> {
        let wait = self.random.borrow_mut().below(8);
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        if self.roll() {
            return Err(Status::internal("fault"));
        }
        f(&mut self.store.borrow_mut())
    }

    fn live(store: &Store, res: &str, ns: &str, name: &str) -> Result<Value, Status> {
        let key = (res.to_string(), ns.to_string(), name.to_string());
        store.objects.get(&key).map(|object| (**object).clone()).ok_or_else(|| missing(res, name))
    }

    /// Breaks every watch, as a server that restarts.
    pub(super) fn break_watches(&self) {
        for stream in self.store.borrow().streams.iter().filter_map(Weak::upgrade) {
            stream.broken.set(true);
            stream.news.notify_one();
        }
    }

    pub(super) fn change(&self, res: &str, ns: &str, name: &str, patch: &Value) {
        let mut store = self.store.borrow_mut();
        if let Ok(mut object) = Self::live(&store, res, ns, name) {
            merge(&mut object, patch);
            store.put(res, object);
        }
    }
}

impl Api for Fake {
    fn get<'a>(&'a self, res: &'a str, ns: &'a str, name: &'a str) -> Fut<'a, Result<Rc<Value>, Status>> {
        Box::pin(async move { Self::live(&self.store.borrow(), res, ns, name).map(Rc::new) })
    }

    fn list<'a>(&'a self, res: &'a str, ns: Option<&'a str>) -> Fut<'a, Result<Listed, Status>> {
        Box::pin(async move {
            let store = self.store.borrow();
            let all = store.all(res).into_iter().filter(|o| ns.is_none_or(|ns| meta::namespace(o) == ns)).collect();
            Ok((all, store.revision))
        })
    }

    fn create<'a>(&'a self, res: &'a str, ns: &'a str, mut object: Value) -> Fut<'a, Result<Value, Status>> {
        let now = self.now();
        Box::pin(self.write(move |store| {
            store.serial += 1;
            let generated = str_at(&object, &["metadata", "generateName"]).to_string();
            if meta::name(&object).is_empty() {
                set(&mut object, &["metadata", "name"], json!(format!("{generated}{:05}", store.serial)));
            }
            if !ns.is_empty() {
                set(&mut object, &["metadata", "namespace"], json!(ns));
            }
            let name = meta::name(&object).to_string();
            if Self::live(store, res, ns, &name).is_ok() {
                return Err(Status::new(409, "AlreadyExists", format!("{res} {name:?} already exists")));
            }
            set(&mut object, &["metadata", "uid"], json!(format!("{:08x}-0000-4000-8000-000000000000", store.serial)));
            set(&mut object, &["metadata", "generation"], json!(1));
            set(&mut object, &["metadata", "creationTimestamp"], json!(now.to_string()));
            let made = store.put(res, object);
            store.check_doubled(&made);
            Ok(made)
        }))
    }

    fn update<'a>(&'a self, res: &'a str, object: Value) -> Fut<'a, Result<Value, Status>> {
        Box::pin(self.write(move |store| {
            let old = Self::live(store, res, meta::namespace(&object), meta::name(&object))?;
            let mut new = object;
            let version = meta::resource_version(&new);
            if !version.is_empty() && version != meta::resource_version(&old) {
                return Err(conflict(res));
            }
            for field in ["uid", "generation", "creationTimestamp"] {
                set(
                    &mut new,
                    &["metadata", field],
                    old.pointer(&format!("/metadata/{field}")).cloned().unwrap_or_default(),
                );
            }
            Ok(store.put(res, new))
        }))
    }

    fn update_status<'a>(&'a self, res: &'a str, object: Value) -> Fut<'a, Result<Value, Status>> {
        self.update(res, object)
    }

    fn merge_patch<'a>(
        &'a self,
        res: &'a str,
        ns: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        patch: Value,
    ) -> Fut<'a, Result<Value, Status>> {
        Box::pin(self.write(move |store| {
            let old = Self::live(store, res, ns, name)?;
            for guard in ["resourceVersion", "uid"] {
                let wanted = str_at(&patch, &["metadata", guard]);
                if !wanted.is_empty() && wanted != str_at(&old, &["metadata", guard]) {
                    return Err(conflict(res));
                }
            }
            let mut new = old.clone();
            merge(&mut new, &patch);
            if subresource == Some("status") {
                let status = new.get("status").cloned().unwrap_or_default();
                new = old.clone();
                set(&mut new, &["status"], status);
            } else if new.get("spec") != old.get("spec") {
                set(&mut new, &["metadata", "generation"], json!(meta::generation(&old) + 1));
            }
            if new == old {
                return Ok(new);
            }
            Ok(store.put(res, new))
        }))
    }

    fn delete<'a>(&'a self, res: &'a str, ns: &'a str, name: &'a str, how: Deletion) -> Fut<'a, Result<(), Status>> {
        let now = self.now();
        Box::pin(self.write(move |store| {
            let mut object = Self::live(store, res, ns, name)?;
            if how.uid.as_ref().is_some_and(|uid| **uid != *meta::uid(&object)) {
                return Err(conflict(res));
            }
            let bound = res == "pods" && !str_at(&object, &["spec", "nodeName"]).is_empty();
            let grace = how.grace_seconds.unwrap_or(if bound { 30 } else { 0 });
            if meta::is_deleting(&object) && grace > 0 {
                return Ok(());
            }
            let mut finalizers = list_at(&object, &["metadata", "finalizers"]).to_vec();
            match how.propagation {
                Some("Foreground") => finalizers.push(json!("foregroundDeletion")),
                Some("Orphan") => finalizers.push(json!("orphan")),
                _ => {}
            }
            set(&mut object, &["metadata", "finalizers"], json!(finalizers));
            set(&mut object, &["metadata", "deletionTimestamp"], json!(now.plus_seconds(grace).to_string()));
            set(&mut object, &["metadata", "deletionGracePeriodSeconds"], json!(grace));
            store.put(res, object);
            Ok(())
        }))
    }

    fn bind<'a>(&'a self, ns: &'a str, pod: &'a str, uid: &'a str, node: &'a str) -> Fut<'a, Result<(), Status>> {
        Box::pin(self.write(move |store| {
            let mut object = Self::live(store, "pods", ns, pod)?;
            if meta::uid(&object) != uid || !str_at(&object, &["spec", "nodeName"]).is_empty() {
                return Err(conflict("pods"));
            }
            set(&mut object, &["spec", "nodeName"], json!(node));
            store.put("pods", object);
            Ok(())
        }))
    }

    fn watch(&self, res: &str, from: u64) -> Result<Box<dyn Watching>, Status> {
        let mut store = self.store.borrow_mut();
        if store.revision != from
            && store.objects.iter().any(|((r, ..), o)| {
                r == res && meta::resource_version(o).parse::<u64>().is_ok_and(|revision| revision > from)
            })
        {
            return Err(Status::expired("too old"));
        }
        let stream = Rc::new(Stream {
            res: res.to_string(),
            events: RefCell::default(),
            broken: Cell::new(false),
            news: Notify::new(),
        });
        store.streams.push(Rc::downgrade(&stream));
        let lag = self.random.borrow_mut().below(20);
        Ok(Box::new(FakeWatch { stream, lag }))
    }

    fn resources(&self) -> Vec<(String, bool)> {
        ["pods", "replicasets.apps", "deployments.apps", "services", "endpointslices.discovery.k8s.io", "configmaps"]
            .into_iter()
            .map(|res| (res.to_string(), true))
            .collect()
    }

    fn resource_of(&self, api_version: &str, kind: &str) -> Option<(String, bool)> {
        let (group, version) = mote_api::kind::split_api_version(api_version);
        let registry = mote_api::kind::Registry::builtin();
        registry.by_kind(group, version, kind).map(|k| (k.resource(), k.namespaced))
    }

    fn now(&self) -> Time {
        let passed = i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX);
        Time::from_unix_micros(1_800_000_000_000_000 + passed)
    }
}

struct FakeWatch {
    stream: Rc<Stream>,
    lag: u64,
}

impl Watching for FakeWatch {
    fn next(&mut self) -> Fut<'_, Option<Event>> {
        Box::pin(async move {
            loop {
                if self.stream.broken.get() {
                    return None;
                }
                let first = self.stream.events.borrow_mut().pop_front();
                if let Some((revision, gone, object)) = first {
                    tokio::time::sleep(std::time::Duration::from_millis(self.lag)).await;
                    return Some(Event { gone, object, revision });
                }
                self.stream.news.notified().await;
            }
        })
    }
}
