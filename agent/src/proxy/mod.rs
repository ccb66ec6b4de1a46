//! The service proxy: Services and EndpointSlices become one nf_tables table (pure), and the difference to the table before
//! becomes one netlink transaction.

mod services;

pub use services::Services;

use crate::net::{Cidr, Error, Tag};
use std::net::Ipv4Addr;

/// What the proxy must know of its node.
#[derive(Clone)]
pub struct ProxyConfig {
    /// Names the table.
    pub tag: Tag,
    /// This node's name, to tell local endpoints.
    pub node_name: String,
    /// The node's pod range (local pods) and its gateway address.
    pub node_cidr: Cidr,
    /// The node's own address towards its pods.
    pub gateway: Ipv4Addr,
    /// All pods.
    pub cluster_cidr: Cidr,
    /// All cluster IPs.
    pub service_cidr: Cidr,
}

/// Keeps the kernel's table equal to the Services.
pub struct Proxy {
    #[allow(dead_code)]
    config: ProxyConfig,
}

impl Proxy {
    /// Nothing is touched before the first [`Proxy::apply`]: a former agent's table goes on working until then.
    pub fn new(config: ProxyConfig) -> Proxy {
        Proxy { config }
    }

    /// Makes the kernel's table say what `services` says: the difference in one transaction, or all of it the first time and
    /// whenever the table was removed by someone else. Cheap when nothing changed; call it at every (debounced) change.
    ///
    /// # Errors
    /// The kernel's refusal. The old rules stay in force, and the next call rebuilds the table.
    pub fn apply(&mut self, _services: &Services) -> Result<(), Error> {
        todo!()
    }

    /// Removes the table.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn teardown(&mut self) -> Result<(), Error> {
        teardown(self.config.tag)
    }
}

/// Removes the proxy's table of the instance; fine if there is none.
///
/// # Errors
/// The kernel's refusal.
pub fn teardown(_tag: Tag) -> Result<(), Error> {
    crate::net::teardown(_tag)
}
