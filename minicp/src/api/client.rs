//! What scheduler, controllers and tests use: the API's own pipeline (admission, defaults, validation) without HTTP in between.

use std::rc::Rc;

use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::Value;

pub use crate::store::Revision;

/// A handle to the API; cheap to clone. Resources are named `pods`, `deployments.apps`; `ns` is "" for cluster scope.
#[derive(Clone)]
pub struct Client {}

/// `?propagationPolicy=`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Propagation {
    #[default]
    Background,
    Foreground,
    Orphan,
}

/// How to delete.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds; None: the object's own.
    pub grace_seconds: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version of the object.
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
}

/// What happened to an object, as upstream's watch events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

/// One change. `object` is shared by all who watch; of a deleted object it is the last state.
#[derive(Clone)]
pub struct Event {
    pub ty: EventType,
    pub object: Rc<Value>,
    pub revision: Revision,
}

/// A running watch; dropped = ended.
pub struct Watch {}

impl Watch {
    /// None: fell too far behind or the server stops. List and watch again.
    pub async fn next(&mut self) -> Option<Event> {
        unimplemented!()
    }
}

impl Client {
    pub async fn get(&self, res: &str, ns: &str, name: &str) -> Result<Rc<Value>, Status> {
        let _ = (res, ns, name);
        unimplemented!()
    }
    /// `ns` None: all namespaces.
    pub async fn list(&self, res: &str, ns: Option<&str>) -> Result<(Vec<Rc<Value>>, Revision), Status> {
        let _ = (res, ns);
        unimplemented!()
    }
    pub async fn create(&self, res: &str, ns: &str, obj: Value) -> Result<Value, Status> {
        let _ = (res, ns, obj);
        unimplemented!()
    }
    /// The whole object but its status. With `metadata.resourceVersion`: 409 if it changed meanwhile.
    pub async fn update(&self, res: &str, obj: Value) -> Result<Value, Status> {
        let _ = (res, obj);
        unimplemented!()
    }
    /// `status` only.
    pub async fn update_status(&self, res: &str, obj: Value) -> Result<Value, Status> {
        let _ = (res, obj);
        unimplemented!()
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
        let _ = (res, ns, name, subresource, patch);
        unimplemented!()
    }
    pub async fn delete(&self, res: &str, ns: &str, name: &str, options: DeleteOptions) -> Result<(), Status> {
        let _ = (res, ns, name, options);
        unimplemented!()
    }
    /// Sets `spec.nodeName` once. `uid` "" for any.
    pub async fn bind(&self, ns: &str, pod: &str, uid: &str, node: &str) -> Result<(), Status> {
        let _ = (ns, pod, uid, node);
        unimplemented!()
    }
    /// Changes after `from` (of [`Self::list`]), all namespaces. 410 if that is too long ago.
    pub fn watch(&self, res: &str, from: Revision) -> Result<Watch, Status> {
        let _ = (res, from);
        unimplemented!()
    }
    /// Every served resource that may be listed, as `list` takes it, and whether it is namespaced (namespace deletion, garbage collection).
    pub fn resources(&self) -> Vec<(String, bool)> {
        unimplemented!()
    }
    pub fn now(&self) -> Time {
        unimplemented!()
    }
    /// The cluster's CA, as `kube-root-ca.crt` carries it.
    pub fn ca_pem(&self) -> Rc<str> {
        unimplemented!()
    }
}
