//! The seam between the loops and the API: what scheduler and controllers ask of it, and nothing else.
//!
//! In production this is [`crate::api::Client`] (the same pipeline as HTTP: admission, defaults, validation), in the simulation a
//! seeded fake with faults. Futures are boxed so that one copy of each loop serves both.

use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::Value;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// A boxed local future: everything here runs on one thread.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a delete asks for; the default is the API's own default for the kind.
#[derive(Clone, Default)]
pub struct Deletion {
    /// Seconds of grace; `None` takes the object's own.
    pub grace_seconds: Option<i64>,
    /// Delete only if the object still has this uid.
    pub uid: Option<Rc<str>>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<&'static str>,
}

/// Objects, and the revision to watch from.
pub type Listed = (Vec<Rc<Value>>, u64);

/// One change of a watched resource.
pub struct Event {
    /// The object is gone; `object` is its last state.
    pub gone: bool,
    pub object: Rc<Value>,
    /// The store's revision of this change: of a deletion it is newer than the object's own resourceVersion.
    pub revision: u64,
}

/// A running watch. `None` means that it ended or fell behind: list again.
pub trait Watching {
    fn next(&mut self) -> Fut<'_, Option<Event>>;
}

/// The API as the loops see it. Errors are the API's own [`Status`].
pub trait Api {
    fn get<'a>(&'a self, res: &'a str, ns: &'a str, name: &'a str) -> Fut<'a, Result<Rc<Value>, Status>>;
    /// `ns` `None`: all namespaces. The number is the revision to watch from.
    fn list<'a>(&'a self, res: &'a str, ns: Option<&'a str>) -> Fut<'a, Result<Listed, Status>>;
    /// Every object of all namespaces in its turn; returns the revision to watch from.
    fn each<'a>(&'a self, res: &'a str, found: &'a mut dyn FnMut(&Rc<Value>)) -> Fut<'a, Result<u64, Status>> {
        Box::pin(async move {
            let (objects, revision) = self.list(res, None).await?;
            objects.iter().for_each(found);
            Ok(revision)
        })
    }
    fn create<'a>(&'a self, res: &'a str, ns: &'a str, object: Value) -> Fut<'a, Result<Value, Status>>;
    /// Replaces the object if its resourceVersion still is the newest, else 409.
    fn update<'a>(&'a self, res: &'a str, object: Value) -> Fut<'a, Result<Value, Status>>;
    fn update_status<'a>(&'a self, res: &'a str, object: Value) -> Fut<'a, Result<Value, Status>>;
    fn merge_patch<'a>(
        &'a self,
        res: &'a str,
        ns: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        patch: Value,
    ) -> Fut<'a, Result<Value, Status>>;
    fn delete<'a>(&'a self, res: &'a str, ns: &'a str, name: &'a str, how: Deletion) -> Fut<'a, Result<(), Status>>;
    fn bind<'a>(&'a self, ns: &'a str, pod: &'a str, uid: &'a str, node: &'a str) -> Fut<'a, Result<(), Status>>;
    fn watch(&self, res: &str, from: u64) -> Result<Box<dyn Watching>, Status>;
    /// Every resource that may be listed, and whether it is namespaced.
    fn resources(&self) -> Vec<(String, bool)>;
    /// The resource of a kind, as an owner reference names it, and whether it is namespaced; None: not served.
    fn resource_of(&self, api_version: &str, kind: &str) -> Option<(String, bool)>;
    fn now(&self) -> Time;
}
