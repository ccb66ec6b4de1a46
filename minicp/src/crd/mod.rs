//! CustomResourceDefinitions come to life: names are accepted, kinds are served, and what a definition leaves behind is ended.
//!
//! observe ([`Definitions`], kept from a watch) -> [`Definitions::plan`] (pure) -> [`execute`]. Kinds are served before the status says
//! `Established`, and are gone before the definition is, so that who waits for either finds what it waited for.
//! Every API server does this for itself; they write the same statuses.

mod definitions;
mod instances;

use std::rc::Rc;
use std::time::Duration;

use mote_api::crd::{CLEANUP_FINALIZER, RESOURCE};
use mote_api::kind::Kind;
use mote_api::status::Status;
use mote_api::tree::{json, list_at, set};

use crate::api::Api;
use crate::api::request::WriteOptions;
use crate::api::words::Place;
use crate::store::{Ended, Watcher};
use definitions::{Definitions, Step};

/// Where definitions are stored.
const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";
/// Objects that have finalizers of their own, and steps that failed, are looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The loop's state: what is known, and where news come from.
pub(crate) struct Loop {
    definitions: Definitions,
    watcher: Watcher,
}

/// Serves what was established before. Ready when the kinds are.
pub(crate) async fn load(api: &Rc<Api>) -> Result<Loop, Status> {
    let mut definitions = Definitions::new();
    let range = api.store.range(PREFIX, "", None, 0).await?;
    let kind = own_kind(api)?;
    for (key, entry) in &range.entries {
        definitions.learn(&kind, key, Some(entry));
    }
    serve(api, &definitions);
    let watcher = api.store.watch(PREFIX, range.revision)?;
    Ok(Loop { definitions, watcher })
}

/// Ends with the store.
pub(crate) async fn run(api: Rc<Api>, mut state: Loop) {
    let options = WriteOptions::internal("kube-apiserver");
    loop {
        let again = execute(&api, &mut state.definitions, &options).await;
        let next = state.watcher.next();
        let mut news = if again { tokio::time::timeout(LOOK_AGAIN, next).await.ok() } else { Some(next.await) };
        while let Some(change) = news {
            match change {
                Ok(change) => match own_kind(&api) {
                    Ok(kind) => state.definitions.learn(&kind, &change.key, change.value.as_ref()),
                    Err(_) => return,
                },
                Err(Ended::Closed) => return,
                Err(Ended::Lagged) => match load(&api).await {
                    Ok(fresh) => state = fresh,
                    Err(e) => {
                        log::warn!("list definitions: {}", e.message);
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                },
            }
            news = state.watcher.try_next();
        }
    }
}

fn own_kind(api: &Api) -> Result<Rc<Kind>, Status> {
    api.registry().find(RESOURCE).cloned().ok_or_else(Status::no_such_resource)
}

/// Puts the kinds of all established definitions beside the built-in ones.
fn serve(api: &Api, definitions: &Definitions) {
    *api.registry.borrow_mut() = Rc::new(definitions.registry());
    api.defined.send_modify(|n| *n += 1);
}

/// Does what is to be done; true: something is left to look at again.
async fn execute(api: &Rc<Api>, definitions: &mut Definitions, options: &WriteOptions) -> bool {
    let mut again = false;
    let steps = definitions.plan(api.now());
    serve(api, definitions);
    for step in steps {
        let done = match &step {
            Step::Tell { name, status } => tell(api, name, status.clone(), options).await,
            Step::End { name, kind } => end(api, definitions, name, kind, options, &mut again).await,
        };
        match done {
            Err(e) if e.is_conflict() || e.is_not_found() => {}
            Err(e) => {
                log::warn!("definition {}: {}", step.name(), e.message);
                definitions.untold(step.name());
                again = true;
            }
            Ok(()) => {}
        }
    }
    again
}

/// Writes a definition's status.
async fn tell(api: &Rc<Api>, name: &str, status: mote_api::tree::Value, options: &WriteOptions) -> Result<(), Status> {
    let kind = own_kind(api)?;
    let place = Place { kind: &kind, ns: "", name, sub: "status" };
    let change = |mut old: mote_api::tree::Value| {
        // The rest of the status is others'.
        for field in ["conditions", "acceptedNames"] {
            set(&mut old, &["status", field], status.get(field).cloned().unwrap_or_default());
        }
        Ok((old, Vec::new()))
    };
    api.change(place, options, change).await.map(drop)
}

/// Ends the objects of a definition that is being deleted; the last one gone, it may go.
async fn end(
    api: &Rc<Api>,
    definitions: &mut Definitions,
    name: &str,
    kind: &Rc<Kind>,
    options: &WriteOptions,
    again: &mut bool,
) -> Result<(), Status> {
    if instances::delete_all(api, kind, options).await? > 0 {
        *again = true;
        return Ok(());
    }
    definitions.retire(name);
    serve(api, definitions);
    let own = own_kind(api)?;
    let place = Place { kind: &own, ns: "", name, sub: "" };
    let change = |mut old: mote_api::tree::Value| {
        let left: Vec<_> =
            list_at(&old, &["metadata", "finalizers"]).iter().filter(|f| *f != CLEANUP_FINALIZER).cloned().collect();
        set(&mut old, &["metadata", "finalizers"], json!(left));
        Ok((old, Vec::new()))
    };
    api.change(place, options, change).await.map(drop)
}
