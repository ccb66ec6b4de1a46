//! The API as one leader's controllers see it: once the turn is over it takes no writes. A process that was stopped for a minute wakes up in the middle
//! of a controller's work; what it does then must not be done beside its successor.

use std::cell::Cell;
use std::rc::Rc;

use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::Value;
use tokio::time::Instant;

use crate::controllers::seam::{Api, Deletion, Fut, Listed, Watching};

/// Until when a leader may write; set again with each renewal.
pub(super) type Until = Rc<Cell<Instant>>;

pub(super) struct Gate {
    pub(super) api: Rc<dyn Api>,
    pub(super) until: Until,
}

impl Gate {
    /// What `write` returns, if the turn lasts when it begins.
    fn pass<'a, T: 'a>(
        &'a self,
        write: impl FnOnce(&'a dyn Api) -> Fut<'a, Result<T, Status>>,
    ) -> Fut<'a, Result<T, Status>> {
        if Instant::now() < self.until.get() {
            write(&*self.api)
        } else {
            let over = Status::new(503, "ServiceUnavailable", "this server's turn as leader is over");
            Box::pin(std::future::ready(Err(over)))
        }
    }
}

impl Api for Gate {
    fn get<'a>(&'a self, res: &'a str, ns: &'a str, name: &'a str) -> Fut<'a, Result<Rc<Value>, Status>> {
        self.api.get(res, ns, name)
    }
    fn list<'a>(&'a self, res: &'a str, ns: Option<&'a str>) -> Fut<'a, Result<Listed, Status>> {
        self.api.list(res, ns)
    }
    fn each<'a>(&'a self, res: &'a str, found: &'a mut dyn FnMut(&Rc<Value>)) -> Fut<'a, Result<u64, Status>> {
        self.api.each(res, found)
    }
    fn create<'a>(&'a self, res: &'a str, ns: &'a str, object: Value) -> Fut<'a, Result<Value, Status>> {
        self.pass(|api| api.create(res, ns, object))
    }
    fn update<'a>(&'a self, res: &'a str, object: Value) -> Fut<'a, Result<Value, Status>> {
        self.pass(|api| api.update(res, object))
    }
    fn update_status<'a>(&'a self, res: &'a str, object: Value) -> Fut<'a, Result<Value, Status>> {
        self.pass(|api| api.update_status(res, object))
    }
    fn merge_patch<'a>(
        &'a self,
        res: &'a str,
        ns: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        patch: Value,
    ) -> Fut<'a, Result<Value, Status>> {
        self.pass(|api| api.merge_patch(res, ns, name, subresource, patch))
    }
    fn delete<'a>(&'a self, res: &'a str, ns: &'a str, name: &'a str, how: Deletion) -> Fut<'a, Result<(), Status>> {
        self.pass(|api| api.delete(res, ns, name, how))
    }
    fn bind<'a>(&'a self, ns: &'a str, pod: &'a str, uid: &'a str, node: &'a str) -> Fut<'a, Result<(), Status>> {
        self.pass(|api| api.bind(ns, pod, uid, node))
    }
    fn watch(&self, res: &str, from: u64) -> Result<Box<dyn Watching>, Status> {
        self.api.watch(res, from)
    }
    fn resources(&self) -> Vec<(String, bool)> {
        self.api.resources()
    }
    fn resource_of(&self, api_version: &str, kind: &str) -> Option<(String, bool)> {
        self.api.resource_of(api_version, kind)
    }
    fn now(&self) -> Time {
        self.api.now()
    }
}
