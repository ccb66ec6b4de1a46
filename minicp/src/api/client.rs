//! What scheduler, controllers and tests use: the API's own pipeline (admission, defaults, validation) without HTTP in between.

use std::rc::Rc;

use mote_api::kind::{Kind, Verbs};
use mote_api::meta;
use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::{Value, json};

use super::read::{ApiWatch, Told};
use super::request::{Filter, WriteOptions};
use super::words::{ListQuery, PatchType, Place};
use super::{Api, object};

pub use super::words::{DeleteOptions, EventType, Propagation};
pub use crate::store::Revision;

/// Objects that [`Client::each`] makes trees of before others have their turn: about a millisecond.
const EACH_TURN: usize = 50;

/// A handle to the API; cheap to clone. Resources are named `pods`, `deployments.apps`; `ns` is "" for cluster scope.
#[derive(Clone)]
pub struct Client {
    api: Rc<Api>,
    options: Rc<WriteOptions>,
}

/// One change. `object` is shared by all who watch; of a deleted object it is the last state.
#[derive(Clone)]
pub struct Event {
    pub ty: EventType,
    pub object: Rc<Value>,
    pub revision: Revision,
}

/// A running watch; dropped = ended.
pub struct Watch(ApiWatch);

impl Watch {
    /// None: fell too far behind or the server stops. List and watch again.
    pub async fn next(&mut self) -> Option<Event> {
        let told = self.0.next().await.ok()?;
        Some(self.event(&told))
    }
    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        let told = self.0.try_next()?.ok()?;
        Some(self.event(&told))
    }
    fn event(&self, told: &Told) -> Event {
        Event { ty: told.ty, object: self.0.value(told), revision: told.change.revision }
    }
}

impl Client {
    pub(crate) fn new(api: Rc<Api>, manager: &str) -> Client {
        Client { api, options: Rc::new(WriteOptions::internal(manager)) }
    }
    pub(crate) fn api(&self) -> Rc<Api> {
        self.api.clone()
    }
    /// The same API under another name in managedFields.
    pub fn named(&self, manager: &str) -> Client {
        Client::new(self.api.clone(), manager)
    }
    fn kind(&self, res: &str) -> Result<Rc<Kind>, Status> {
        self.api.registry().find(res).cloned().ok_or_else(Status::no_such_resource)
    }
    pub async fn get(&self, res: &str, ns: &str, name: &str) -> Result<Rc<Value>, Status> {
        let kind = self.kind(res)?;
        Ok(Rc::new(object::decode(&kind, &self.api.entry(&kind, ns, name).await?)))
    }
    /// `ns` None: all namespaces.
    pub async fn list(&self, res: &str, ns: Option<&str>) -> Result<(Vec<Rc<Value>>, Revision), Status> {
        let kind = self.kind(res)?;
        let listed = self.api.list(&kind, ns.unwrap_or(""), &ListQuery::all()).await?;
        Ok((listed.entries.iter().map(|(_, e)| Rc::new(object::decode(&kind, e))).collect(), listed.revision))
    }
    /// Every object of all namespaces in its turn, made a tree only for that. What [`Self::list`] holds of a large resource is several times its size.
    pub async fn each(&self, res: &str, found: &mut dyn FnMut(&Rc<Value>)) -> Result<Revision, Status> {
        let kind = self.kind(res)?;
        let listed = self.api.list(&kind, "", &ListQuery::all()).await?;
        for (n, (_, entry)) in listed.entries.into_iter().enumerate() {
            found(&Rc::new(object::decode(&kind, &entry)));
            if n % EACH_TURN == EACH_TURN - 1 {
                // Others have their turn: clients that wait for an answer of a server that has just started.
                tokio::task::yield_now().await;
            }
        }
        Ok(listed.revision)
    }
    pub async fn create(&self, res: &str, ns: &str, obj: Value) -> Result<Value, Status> {
        Ok(self.api.create(&self.kind(res)?, ns, obj, &[], &self.options).await?.value)
    }
    /// The whole object but its status. With `metadata.resourceVersion`: 409 if it changed meanwhile.
    pub async fn update(&self, res: &str, obj: Value) -> Result<Value, Status> {
        self.update_sub(res, "", obj).await
    }
    /// `status` only.
    pub async fn update_status(&self, res: &str, obj: Value) -> Result<Value, Status> {
        self.update_sub(res, "status", obj).await
    }
    /// Any subresource that is a part of its object: `finalize` of namespaces, `approval` of certificate signing requests.
    pub async fn update_sub(&self, res: &str, sub: &str, obj: Value) -> Result<Value, Status> {
        let kind = self.kind(res)?;
        let (ns, name) = (meta::namespace(&obj).to_owned(), meta::name(&obj).to_owned());
        let place = Place { kind: &kind, ns: &ns, name: &name, sub };
        Ok(self.api.update(place, obj, &[], &self.options).await?.value)
    }
    /// RFC 7386; a `metadata.resourceVersion` in the patch guards it.
    pub async fn merge_patch(
        &self,
        res: &str,
        ns: &str,
        name: &str,
        subresource: Option<&str>,
        patch: Value,
    ) -> Result<Value, Status> {
        let kind = self.kind(res)?;
        let place = Place { kind: &kind, ns, name, sub: subresource.unwrap_or("") };
        if place.sub == "scale" {
            return self.api.patch_scale(place, PatchType::Merge, &patch, &self.options).await;
        }
        Ok(self.api.patch(place, PatchType::Merge, &patch, &[], &self.options).await?.value)
    }
    pub async fn delete(&self, res: &str, ns: &str, name: &str, options: DeleteOptions) -> Result<(), Status> {
        self.api.delete(&self.kind(res)?, ns, name, &options, &self.options).await.map(drop)
    }
    /// Sets `spec.nodeName` once. `uid` "" for any.
    pub async fn bind(&self, ns: &str, pod: &str, uid: &str, node: &str) -> Result<(), Status> {
        let binding = json!({"metadata": {"uid": uid}, "target": {"kind": "Node", "name": node}});
        self.api.bind(&self.kind("pods")?, ns, pod, &binding, &self.options).await
    }
    /// Changes after `from` (of [`Self::list`]), all namespaces. 410 if that is too long ago.
    pub fn watch(&self, res: &str, from: Revision) -> Result<Watch, Status> {
        self.api.watch(&self.kind(res)?, "", Filter::everything(), from).map(Watch)
    }
    /// Every stored resource, as `list` takes it, and whether it is namespaced (namespace deletion, garbage collection). One name per
    /// stored object: not both views of events.
    pub fn resources(&self) -> Vec<(String, bool)> {
        let registry = self.api.registry();
        let mut seen = std::collections::HashSet::new();
        let stored = registry.all().iter().filter(|k| k.verbs == Verbs::All && seen.insert(object::prefix_of(k)));
        stored.map(|k| (k.resource(), k.namespaced)).collect()
    }
    /// The resource of a kind, as an owner reference names it; None: not served.
    pub fn resource_of(&self, api_version: &str, kind: &str) -> Option<(String, bool)> {
        let (group, version) = mote_api::kind::split_api_version(api_version);
        let registry = self.api.registry();
        // An owner may be named by a version that is served no longer.
        let found =
            registry.by_kind(group, version, kind).or_else(|| registry.all().iter().find(|k| k.is(group, kind)));
        found.map(|k| (k.resource(), k.namespaced))
    }
    pub fn now(&self) -> Time {
        self.api.now()
    }
    /// The cluster's CA, as `kube-root-ca.crt` carries it.
    pub fn ca_pem(&self) -> Rc<str> {
        self.api.ca_pem.clone()
    }
}
