//! The Services of the cluster with their endpoints, as proxy and DNS read them: fed object by object from two watches.

use serde_json::Value;

/// Services joined with their EndpointSlices. The one truth behind the proxy's table and the DNS answers: the agent keeps
/// it in an `Rc<RefCell<Services>>`, changes it from its watches, then calls `Proxy::apply`; the DNS server reads it as it is.
#[derive(Default)]
pub struct Services {}

impl Services {
    /// A Service was added or changed.
    pub fn set_service(&mut self, _service: &Value) {}
    /// A Service is gone.
    pub fn remove_service(&mut self, _namespace: &str, _name: &str) {}
    /// An EndpointSlice was added or changed.
    pub fn set_slice(&mut self, _slice: &Value) {}
    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, _namespace: &str, _name: &str) {}
    /// A relist: makes this exactly what the two lists say.
    pub fn replace<'a>(
        &mut self,
        _services: impl IntoIterator<Item = &'a Value>,
        _slices: impl IntoIterator<Item = &'a Value>,
    ) {
    }
}
