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
pub(crate) mod conntrack;
mod firewall;
mod host;
mod ipam;
mod link;
mod name;
pub(crate) mod netns;
pub(crate) mod nft;
mod pod;
mod route;
pub(crate) mod socket;
mod sys;
mod wire;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use cidr::{Cidr, CidrError};
pub use host::node_address;
use ipam::Pool;
pub use name::Tag;
pub(crate) use name::hex as short_hash;
use socket::Socket;

/// The smallest node range: network address, gateway, broadcast address and some pods.
const NODE_SIZE_MIN: u64 = 8;
/// Bounds of a sane MTU in bytes (IPv4's least, and the loopback's).
const MTU_MIN: u32 = 576;
const MTU_MAX: u32 = 65_536;

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

/// The pod network of one node in the network namespace of the thread that calls. Shareable between threads.
pub struct Network {
    config: NetConfig,
    mtu: u32,
    pool: Mutex<Pool>,
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

impl NetConfig {
    /// The address pods use as their gateway, and the node's own address towards them.
    pub fn gateway(&self) -> Ipv4Addr {
        self.node_cidr.nth(1).unwrap_or(self.node_cidr.base())
    }

    fn check(&self) -> Result<(), Error> {
        let bad = |why: String| Err(Error::Config(why));
        let NetConfig { node_cidr, cluster_cidr, service_cidr, .. } = self;
        if node_cidr.size() < NODE_SIZE_MIN {
            return bad(format!("the node's pod range {node_cidr} is too small, want /29 or wider"));
        }
        if !cluster_cidr.covers(node_cidr) {
            return bad(format!("the node's pod range {node_cidr} is not in the cluster's {cluster_cidr}"));
        }
        if cluster_cidr.covers(service_cidr) || service_cidr.covers(cluster_cidr) {
            return bad(format!("pod range {cluster_cidr} and service range {service_cidr} overlap"));
        }
        if let Some(dns) = self.dns.filter(|dns| !service_cidr.contains(*dns)) {
            return bad(format!("the DNS address {dns} is not in the service range {service_cidr}"));
        }
        match self.mtu {
            Some(mtu) if !(MTU_MIN..=MTU_MAX).contains(&mtu) => {
                bad(format!("an MTU of {mtu} bytes is not between {MTU_MIN} and {MTU_MAX}"))
            }
            _ => Ok(()),
        }
    }
}

impl Network {
    /// Makes the node ready for pods: link, addresses, routes, forwarding, masquerading. Keeps what a former agent made.
    ///
    /// # Errors
    /// When the ranges overlap or are too small, or the kernel refuses (no CAP_NET_ADMIN, no bridge or nf_tables support).
    pub fn open(config: NetConfig) -> Result<Network, Error> {
        config.check()?;
        let mut socket = Socket::route()?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => host::uplink_mtu(&mut socket)?,
        };
        host::prepare(&mut socket, &config)?;
        let mut pool = Pool::new(config.node_cidr);
        for (id, address) in pod::list(&mut socket, config.tag)? {
            pool.note(&id, address);
        }
        Ok(Network { config, mtu, pool: Mutex::new(pool) })
    }

    /// The address pods use as their gateway, and the node's own address towards them.
    pub fn gateway(&self) -> Ipv4Addr {
        self.config.gateway()
    }

    /// Gives the network namespace at `netns` (a bind mount or `/proc/PID/ns/net`) its `lo`, `eth0`, address and routes.
    /// A second call with the same `id` returns the same address and repairs what is missing. Takes one to three
    /// milliseconds of kernel time.
    ///
    /// # Errors
    /// [`Error::Exhausted`], or the kernel's refusal; then nothing is left behind.
    pub fn attach(&self, id: &str, netns: &Path) -> Result<Ipv4Addr, Error> {
        if id.is_empty() || id.len() > ipam::ID_LEN_MAX || id.chars().any(char::is_control) {
            return Err(Error::Config(format!("sandbox id {id:?} is not 1 to {} printable bytes", ipam::ID_LEN_MAX)));
        }
        let address = self.pool().take(id).ok_or(Error::Exhausted(self.config.node_cidr))?;
        let place = pod::Place { config: &self.config, mtu: self.mtu, id, address };
        match place.attach(netns) {
            Ok(()) => Ok(address),
            Err(e) => {
                // The first error tells; what is left is found again under the same id.
                if self.detach(id).is_err() {
                    log::warn!("link of sandbox {id} is left behind after: {e}");
                }
                Err(e)
            }
        }
    }

    /// Takes the sandbox off the network and frees its address. Fine if it never was on it or its namespace is gone. The
    /// kernel may take tens of milliseconds: off the event loop, please.
    ///
    /// # Errors
    /// When the kernel refuses to delete the link; the address then stays taken.
    pub fn detach(&self, id: &str) -> Result<(), Error> {
        link::delete(&mut Socket::route()?, &self.config.tag.veth(id))?;
        self.pool().free(id);
        Ok(())
    }

    /// Every attached sandbox with its address, read from the kernel.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub fn attached(&self) -> Result<Vec<(String, Ipv4Addr)>, Error> {
        pod::list(&mut Socket::route()?, self.config.tag)
    }

    /// Makes the routes to other nodes' pods exactly these (range, node address). Nodes share one segment.
    ///
    /// # Errors
    /// The first refusal; the other routes are still tried.
    pub fn set_routes(&self, routes: &[(Cidr, Ipv4Addr)]) -> Result<(), Error> {
        host::set_routes(&mut Socket::route()?, &self.config, routes)
    }

    /// Removes everything [`Network::open`] and [`Network::attach`] made (not the forwarding switch).
    ///
    /// # Errors
    /// The first refusal; the rest is still tried.
    pub fn teardown(&self) -> Result<(), Error> {
        teardown(self.config.tag)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Every change of the pool is whole after each statement: a panic elsewhere cannot have broken it.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`Network::teardown`] for an instance of which only the tag is known (`mote down` after a crash). Also removes the
/// service proxy's table.
///
/// # Errors
/// The first refusal; the rest is still tried.
pub fn teardown(tag: Tag) -> Result<(), Error> {
    host::teardown(tag)
}
