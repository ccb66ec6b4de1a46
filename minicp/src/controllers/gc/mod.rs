//! Garbage collection by owner references: background, foreground and orphaning deletes, over every kind that is served.
//!
//! The graph may lag behind the store, so that an owner counts as absent only when the API itself says so.

pub mod graph;

use super::Context;
use super::frame::Key;
use super::frame::reflect::{Keeper, reflect};
use super::frame::run::{Outcome, Work, run};
use super::seam::{Api, Deletion, Event};
use graph::{Graph, Todo, Uid};
use mote_api::crd::RESOURCE as DEFINITIONS;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, json, list_at, str_at};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

const NAME: &str = "garbage-collector";
/// Kinds that change all the time and own nothing and are owned by nothing that matters.
const SKIPPED: [&str; 4] = ["events", "events.events.k8s.io", "leases.coordination.k8s.io", "componentstatuses"];

struct State {
    graph: RefCell<Graph>,
    work: Rc<Work>,
    missing: Cell<usize>,
    synced: Notify,
    /// Definitions came or went: other kinds may be served.
    defined: Notify,
}

/// One resource's reflector feeds the graph.
struct Feed {
    state: Rc<State>,
    res: Rc<str>,
    listed: Cell<bool>,
    /// Found in the list that is under way.
    live: RefCell<BTreeSet<Uid>>,
}

impl Feed {
    fn look(&self, uids: Vec<Uid>) {
        uids.into_iter().for_each(|uid| self.state.work.add(uid.key()));
    }
}

impl Keeper for Feed {
    fn found(&self, object: &Rc<Value>) {
        self.live.borrow_mut().insert(Uid::parse(meta::uid(object)));
        let look = self.state.graph.borrow_mut().set(&self.res, object);
        self.look(look);
    }

    fn listed(&self, _revision: u64) {
        let live = self.live.take();
        let gone: Vec<Uid> =
            self.state.graph.borrow().of_resource(&self.res).filter(|uid| !live.contains(uid)).collect();
        for uid in gone {
            let look = self.state.graph.borrow_mut().remove(uid);
            self.look(look);
        }
        if &*self.res == DEFINITIONS {
            self.state.defined.notify_one();
        }
        if !self.listed.replace(true) {
            self.state.missing.set(self.state.missing.get().saturating_sub(1));
            self.state.synced.notify_one();
        }
    }

    fn apply(&self, event: &Event) {
        let mut graph = self.state.graph.borrow_mut();
        let look = if event.gone {
            graph.remove(Uid::parse(meta::uid(&event.object)))
        } else {
            graph.set(&self.res, &event.object)
        };
        drop(graph);
        self.look(look);
        if &*self.res == DEFINITIONS {
            self.state.defined.notify_one();
        }
    }
}

pub fn spawn(cx: &Context, tasks: &mut JoinSet<()>) {
    let state = Rc::new(State {
        graph: RefCell::default(),
        work: Work::new(),
        missing: Cell::new(wanted(cx).len()),
        synced: Notify::new(),
        defined: Notify::new(),
    });
    tasks.spawn_local(feed_all(cx.clone(), state.clone()));
    let cx = cx.clone();
    tasks.spawn_local(async move {
        while state.missing.get() > 0 {
            state.synced.notified().await;
        }
        let at_once = cx.settings.limits.at_once;
        run(NAME, state.work.clone(), at_once, move |key| {
            let (cx, state) = (cx.clone(), state.clone());
            Box::pin(async move { reconcile(&cx, &state, &key).await })
        })
        .await;
    });
}

fn wanted(cx: &Context) -> BTreeSet<String> {
    cx.api.resources().into_iter().map(|(res, _)| res).filter(|res| !SKIPPED.contains(&res.as_str())).collect()
}

/// One reflector per resource that is served, as definitions come and go.
async fn feed_all(cx: Context, state: Rc<State>) {
    let mut feeds: BTreeMap<String, (Rc<Feed>, AbortHandle)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let served = wanted(&cx);
        feeds.retain(|res, (feed, task)| {
            let stays = served.contains(res);
            if !stays {
                task.abort();
                feed.live.take();
                feed.listed(0);
            }
            stays
        });
        for res in served {
            if feeds.contains_key(&res) {
                continue;
            }
            let name: Rc<str> = res.as_str().into();
            let feed =
                Feed { state: state.clone(), res: name.clone(), listed: Cell::new(false), live: RefCell::default() };
            let feed = Rc::new(feed);
            let task = tasks.spawn_local(reflect(cx.api.clone(), name, feed.clone()));
            feeds.insert(res, (feed, task));
        }
        state.defined.notified().await;
        while tasks.try_join_next().is_some() {}
    }
}

async fn reconcile(cx: &Context, state: &State, key: &Key) -> Outcome {
    let uid = Uid::of_key(key);
    let (node, todo) = {
        let graph = state.graph.borrow();
        let Some(node) = graph.get(uid).cloned() else { return Ok(None) };
        (node, graph.todo(uid))
    };
    match todo {
        Todo::Nothing => {}
        Todo::CheckOwners => check_owners(cx, state, uid, &node).await?,
        Todo::Orphan(dependants) => {
            for dependant in dependants {
                let child = state.graph.borrow().get(dependant).cloned();
                if let Some(child) = child {
                    drop_owners(cx, &child, |owner| Uid::parse(owner) == uid).await?;
                }
            }
            drop_finalizer(cx, &node, "orphan").await?;
        }
        Todo::EndFirst(dependants) => dependants.into_iter().for_each(|d| state.work.add(d.key())),
        Todo::Release => drop_finalizer(cx, &node, "foregroundDeletion").await?,
    }
    Ok(None)
}

/// How one owner stands, asked of the API itself.
enum Owner {
    Stays,
    /// It waits for us to end.
    Waits,
    Absent,
}

async fn owner_now(api: &dyn Api, reference: &Value, ns: &str) -> Result<Owner, Status> {
    // a kind we do not know may exist all the same: leave its dependants alone
    let Some((res, namespaced)) = api.resource_of(str_at(reference, &["apiVersion"]), str_at(reference, &["kind"]))
    else {
        return Ok(Owner::Stays);
    };
    let ns = if namespaced { ns } else { "" };
    let object = match api.get(&res, ns, str_at(reference, &["name"])).await {
        Err(status) if status.is_not_found() => return Ok(Owner::Absent),
        other => other?,
    };
    if meta::uid(&object) != str_at(reference, &["uid"]) {
        return Ok(Owner::Absent);
    }
    let waits = meta::is_deleting(&object) && meta::finalizers(&object).any(|f| f == "foregroundDeletion");
    Ok(if waits { Owner::Waits } else { Owner::Stays })
}

async fn check_owners(cx: &Context, state: &State, uid: Uid, node: &graph::Node) -> Result<(), Status> {
    let Some(object) = live(cx, node, uid).await? else { return Ok(()) };
    if meta::is_deleting(&object) {
        return Ok(());
    }
    let (mut stays, mut waits, mut absent) = (false, false, BTreeSet::new());
    for reference in list_at(&object, &["metadata", "ownerReferences"]) {
        match owner_now(&*cx.api, reference, &node.key.ns).await? {
            Owner::Stays => stays = true,
            Owner::Waits => waits = true,
            Owner::Absent => drop(absent.insert(str_at(reference, &["uid"]).to_string())),
        }
    }
    if stays {
        if !absent.is_empty() {
            drop_owners(cx, node, |owner| absent.contains(owner)).await?;
        }
        return Ok(());
    }
    if !waits && absent.is_empty() {
        return Ok(());
    }
    let first = waits && state.graph.borrow().has_dependants(uid);
    let how = Deletion {
        uid: Some(meta::uid(&object).into()),
        propagation: Some(if first { "Foreground" } else { "Background" }),
        ..Deletion::default()
    };
    match cx.api.delete(&node.res, &node.key.ns, &node.key.name, how).await {
        Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
        _ => Ok(()),
    }
}

/// The object as it is now, if it still is the same one.
async fn live(cx: &Context, node: &graph::Node, uid: Uid) -> Result<Option<Rc<Value>>, Status> {
    match cx.api.get(&node.res, &node.key.ns, &node.key.name).await {
        Ok(object) if Uid::parse(meta::uid(&object)) == uid => Ok(Some(object)),
        Ok(_) => Ok(None),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

async fn drop_owners(cx: &Context, node: &graph::Node, gone: impl Fn(&str) -> bool) -> Result<(), Status> {
    rewrite(cx, node, "ownerReferences", |reference| gone(str_at(reference, &["uid"]))).await
}

async fn drop_finalizer(cx: &Context, node: &graph::Node, name: &str) -> Result<(), Status> {
    rewrite(cx, node, "finalizers", |finalizer| finalizer.as_str() == Some(name)).await
}

/// Writes a list of the metadata without the items that go.
async fn rewrite(cx: &Context, node: &graph::Node, field: &str, goes: impl Fn(&Value) -> bool) -> Result<(), Status> {
    let object = match cx.api.get(&node.res, &node.key.ns, &node.key.name).await {
        Err(status) if status.is_not_found() => return Ok(()),
        other => other?,
    };
    let list = list_at(&object, &["metadata", field]);
    let rest: Vec<&Value> = list.iter().filter(|item| !goes(item)).collect();
    if rest.len() == list.len() {
        return Ok(());
    }
    let patch = json!({"metadata": {"resourceVersion": meta::resource_version(&object), field: rest}});
    match cx.api.merge_patch(&node.res, &node.key.ns, &node.key.name, None, patch).await {
        Err(status) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
