//! The seam's production side: minicp's own in-process client.

use super::seam::{Api, Deletion, Event, Fut, Listed, Watching};
use crate::api::client::{Client, DeleteOptions, EventType, Propagation, Revision, Watch};
use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::Value;
use std::rc::Rc;

impl Watching for Watch {
    fn next(&mut self) -> Fut<'_, Option<Event>> {
        Box::pin(async move {
            let event = Watch::next(self).await?;
            Some(Event { gone: event.ty == EventType::Deleted, object: event.object, revision: event.revision.0 })
        })
    }
}

impl Api for Client {
    fn get<'a>(&'a self, res: &'a str, ns: &'a str, name: &'a str) -> Fut<'a, Result<Rc<Value>, Status>> {
        Box::pin(Client::get(self, res, ns, name))
    }

    fn list<'a>(&'a self, res: &'a str, ns: Option<&'a str>) -> Fut<'a, Result<Listed, Status>> {
        Box::pin(async move { Client::list(self, res, ns).await.map(|(objects, revision)| (objects, revision.0)) })
    }

    fn each<'a>(&'a self, res: &'a str, found: &'a mut dyn FnMut(&Rc<Value>)) -> Fut<'a, Result<u64, Status>> {
        Box::pin(async move { Client::each(self, res, found).await.map(|revision| revision.0) })
    }

    fn create<'a>(&'a self, res: &'a str, ns: &'a str, object: Value) -> Fut<'a, Result<Value, Status>> {
        Box::pin(Client::create(self, res, ns, object))
    }

    fn update<'a>(&'a self, res: &'a str, object: Value) -> Fut<'a, Result<Value, Status>> {
        Box::pin(Client::update(self, res, object))
    }

    fn update_status<'a>(&'a self, res: &'a str, object: Value) -> Fut<'a, Result<Value, Status>> {
        Box::pin(Client::update_status(self, res, object))
    }

    fn merge_patch<'a>(
        &'a self,
        res: &'a str,
        ns: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        patch: Value,
    ) -> Fut<'a, Result<Value, Status>> {
        Box::pin(Client::merge_patch(self, res, ns, name, subresource, patch))
    }

    fn delete<'a>(&'a self, res: &'a str, ns: &'a str, name: &'a str, how: Deletion) -> Fut<'a, Result<(), Status>> {
        let options = DeleteOptions {
            grace_seconds: how.grace_seconds,
            uid: how.uid.map(|uid| uid.to_string()),
            propagation: how.propagation.map(|name| match name {
                "Foreground" => Propagation::Foreground,
                "Orphan" => Propagation::Orphan,
                _ => Propagation::Background,
            }),
            ..DeleteOptions::default()
        };
        Box::pin(Client::delete(self, res, ns, name, options))
    }

    fn bind<'a>(&'a self, ns: &'a str, pod: &'a str, uid: &'a str, node: &'a str) -> Fut<'a, Result<(), Status>> {
        Box::pin(Client::bind(self, ns, pod, uid, node))
    }

    fn watch(&self, res: &str, from: u64) -> Result<Box<dyn Watching>, Status> {
        Ok(Box::new(Client::watch(self, res, Revision(from))?))
    }

    fn resources(&self) -> Vec<(String, bool)> {
        Client::resources(self)
    }

    fn resource_of(&self, api_version: &str, kind: &str) -> Option<(String, bool)> {
        Client::resource_of(self, api_version, kind)
    }

    fn now(&self) -> Time {
        Client::now(self)
    }
}
