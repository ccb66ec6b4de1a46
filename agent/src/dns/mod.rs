//! Cluster DNS: names of Services and pods answered from the same [`Services`] the proxy uses; all other names are asked of the
//! host's own name servers.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::proxy::Services;

/// What the DNS server must know.
#[derive(Clone)]
pub struct DnsConfig {
    /// Where to listen, UDP and TCP (the cluster DNS address, port 53).
    pub listen: Vec<SocketAddr>,
    /// The cluster domain, e.g. `cluster.local`.
    pub domain: String,
    /// Name servers for all other names; empty: those of `/etc/resolv.conf`, read again when it changes.
    pub upstreams: Vec<SocketAddr>,
}

/// A running DNS server; dropping it ends its tasks. Lives in a `LocalSet`.
pub struct Server {}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[error("listen for DNS on {address}: {cause}")]
pub struct StartError {
    address: SocketAddr,
    cause: std::io::Error,
}

impl Server {
    /// Binds the sockets and answers from then on.
    ///
    /// # Errors
    /// When an address cannot be bound (53 taken by a resolver that listens on all addresses, no such local address).
    pub async fn start(_config: DnsConfig, _services: Rc<RefCell<Services>>) -> Result<Server, StartError> {
        todo!()
    }
}
