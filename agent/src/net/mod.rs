//! The pod network of a node: every pod has its own namespace and address, reaches every other pod without translation,
//! and the world behind the node's address.
//!
//! ```text
//!  pod netns            host netns
//!  eth0 10.42.0.7/32 ── mv<tag><hash>          route 10.42.0.7/32 dev mv<tag><hash>
//!    default via 10.42.0.1                     mote<tag>: 10.42.0.1/32 (gateway), 10.43.0.10/32 (cluster DNS)
//! ```
//!
//! Pods are *routed*, each on its own veth pair, not switched on one segment: then every packet passes the host's IP layer,
//! so that a Service's answer always finds its way back through the translation (a bridge needs br_netfilter or hides
//! the client's address), no pod can claim another's address, and no ARP is spoken at all (both ends know each other's
//! MAC). The link `mote<tag>` (a bridge without ports: the one kind of link that every kernel has) is only the home of the
//! node's own addresses.
//!
//! The kernel is the only memory: which sandbox has which address is written in the alias of its veth, and gone with it.
//! All operations are idempotent; a restarted agent finds everything as it was.

mod cidr;
mod name;

use std::net::Ipv4Addr;
use std::path::Path;

pub use cidr::{Cidr, CidrError};
pub use name::Tag;

/// What [`Network::open`] must know.
#[derive(Clone)]
pub struct NetConfig {
    /// Names everything this instance makes.
    pub tag: Tag,
    /// The range this node's pods get their addresses from; its first host address is the gateway. At least 8 addresses.
    pub node_cidr: Cidr,
    /// The range of all pods of the cluster: not masqueraded.
    pub cluster_cidr: Cidr,
    /// The range of the Services' cluster IPs: routed so that the node itself reaches them too.
    pub service_cidr: Cidr,
    /// The cluster DNS address, made local on this node (conventionally the tenth of the service range).
    pub dns: Option<Ipv4Addr>,
    /// MTU of the pods' links in bytes; `None` takes that of the default route's link.
    pub mtu: Option<u32>,
    /// Whether pods reach the world behind the node's address.
    pub masquerade: bool,
}

/// The pod network of one node in the network namespace of the caller. Shareable between threads.
pub struct Network {
    config: NetConfig,
}

/// Why the network could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense; nothing was done.
    #[error("network: {0}")]
    Config(String),
    /// Every address of the node's range is taken.
    #[error("no free pod address in {0}")]
    Exhausted(Cidr),
    /// A kernel request failed.
    #[error("{op} {object}: {cause}")]
    Kernel {
        /// What was asked for.
        op: &'static str,
        /// Of which thing.
        object: String,
        /// The errno, and the kernel's own words if it gave some.
        cause: String,
        /// The errno, 0 when the answer was not understood.
        errno: i32,
    },
}

impl Network {
    /// Makes the node ready for pods: link, addresses, routes, forwarding, masquerading. Keeps what a former agent made.
    ///
    /// # Errors
    /// When the ranges overlap or are too small, or the kernel refuses (no CAP_NET_ADMIN, no bridge or nf_tables support).
    pub fn open(config: NetConfig) -> Result<Network, Error> {
        Ok(Network { config })
    }

    /// The address pods use as their gateway, and the node's own address towards them.
    pub fn gateway(&self) -> Ipv4Addr {
        self.config.node_cidr.nth(1).unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Gives the network namespace at `netns` (a bind mount or `/proc/PID/ns/net`) its `lo`, `eth0`, address and routes.
    /// A second call with the same `id` returns the same address and repairs what is missing.
    ///
    /// # Errors
    /// [`Error::Exhausted`], or the kernel's refusal; then nothing is left behind.
    pub fn attach(&self, _id: &str, _netns: &Path) -> Result<Ipv4Addr, Error> {
        todo!()
    }

    /// Takes the sandbox off the network and frees its address. Fine if it never was on it or its namespace is gone.
    ///
    /// # Errors
    /// When the kernel refuses to delete the link.
    pub fn detach(&self, _id: &str) -> Result<(), Error> {
        todo!()
    }

    /// Every attached sandbox with its address, read from the kernel.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub fn attached(&self) -> Result<Vec<(String, Ipv4Addr)>, Error> {
        todo!()
    }

    /// Makes the routes to other nodes' pods exactly these (range, node address). Nodes share one segment.
    ///
    /// # Errors
    /// The first refusal; the other routes are still tried.
    pub fn set_routes(&self, _routes: &[(Cidr, Ipv4Addr)]) -> Result<(), Error> {
        todo!()
    }

    /// Removes everything [`Network::open`] and [`Network::attach`] made (not the forwarding switch).
    ///
    /// # Errors
    /// The first refusal; the rest is still tried.
    pub fn teardown(&self) -> Result<(), Error> {
        teardown(self.config.tag, self.config.cluster_cidr)
    }
}

/// As [`Network::teardown`] for an instance of which only the tag is known (`mote down` after a crash).
///
/// # Errors
/// The first refusal; the rest is still tried.
pub fn teardown(_tag: Tag, _cluster_cidr: Cidr) -> Result<(), Error> {
    todo!()
}

/// The address the node is known by: the source address of its default route, else the first global address of a link
/// that is not of mote's making. `None` when the node has only its loopback.
///
/// # Errors
/// When routes or addresses cannot be read.
pub fn node_address() -> Result<Option<Ipv4Addr>, Error> {
    todo!()
}
