//! The service proxy: Services and EndpointSlices become one nf_tables table (pure), and the difference to the table before
//! becomes one netlink transaction.
//!
//! `services` (what the watches said) -> `table` (pure: what the kernel should do) -> `plan` (pure: what to change) -> `rules`
//! (the same in nf_tables words) -> one transaction. Packets cost one map look-up however many Services there are.

pub(crate) mod plan;
pub(crate) mod rules;
pub(crate) mod services;
pub(crate) mod table;

use std::net::Ipv4Addr;

pub use services::Services;

use crate::net::conntrack::{self, Flow};
use crate::net::nft::{self, Batch};
use crate::net::socket::{Refusal, Socket};
use crate::net::{Cidr, Error, NetConfig, Tag};
use table::Table;

/// What the proxy must know of its node.
#[derive(Clone)]
pub struct ProxyConfig {
    /// Names the table.
    pub tag: Tag,
    /// This node's name, to tell local endpoints.
    pub node_name: String,
    /// The node's pod range (local pods).
    pub node_cidr: Cidr,
    /// The node's own address towards its pods.
    pub gateway: Ipv4Addr,
    /// All pods.
    pub cluster_cidr: Cidr,
    /// All cluster IPs.
    pub service_cidr: Cidr,
}

impl ProxyConfig {
    /// What follows from the pod network's configuration.
    pub fn new(net: &NetConfig, node_name: &str) -> ProxyConfig {
        ProxyConfig {
            tag: net.tag,
            node_name: node_name.to_owned(),
            node_cidr: net.node_cidr,
            gateway: net.gateway(),
            cluster_cidr: net.cluster_cidr,
            service_cidr: net.service_cidr,
        }
    }
}

/// Keeps the kernel's table equal to the Services.
pub struct Proxy {
    config: ProxyConfig,
    /// What the kernel holds, if we know: the table and the generation of the Services it was made from.
    applied: Option<(u64, Table)>,
    /// Whether this kernel can reject; found out at the first transaction.
    refuse: bool,
}

impl Proxy {
    /// Nothing is touched before the first [`Proxy::apply`]: a former agent's table goes on working until then.
    pub fn new(config: ProxyConfig) -> Proxy {
        Proxy { config, applied: None, refuse: true }
    }

    /// Makes the kernel's table say what `services` says: the difference in one transaction, or all of it the first time and
    /// whenever the table was removed by someone else. Cheap when nothing changed; call it at every (debounced) change, and
    /// now and then to notice a flushed ruleset.
    ///
    /// # Errors
    /// The kernel's refusal. The old rules stay in force, and the next call rebuilds the table.
    pub fn apply(&mut self, services: &Services) -> Result<(), Error> {
        let mut socket = Socket::netfilter()?;
        let name = self.config.tag.proxy_table();
        if !nft::present::table_exists(&mut socket, &name)? {
            self.applied = None;
        }
        if self.applied.as_ref().is_some_and(|(generation, _)| *generation == services.generation()) {
            return Ok(());
        }
        let new = table::table(services, &self.config);
        let old = self.applied.take();
        let done = match &old {
            Some((_, old)) => self.update(&mut socket, old, &new),
            None => Err(Refusal::unknown()),
        };
        // A table someone else has changed refuses the difference: then all of it.
        if done.is_err() {
            self.rebuild(&mut socket, &new).map_err(|e| e.error("load nf_tables table", name))?;
        }
        if let Some((_, old)) = &old {
            cut_stale(&plan::stale(old, &new));
        }
        self.applied = Some((services.generation(), new));
        Ok(())
    }

    fn update(&self, socket: &mut Socket, old: &Table, new: &Table) -> Result<(), Refusal> {
        let changes = plan::plan(old, new);
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(&self.config.tag.proxy_table());
        changes.iter().for_each(|change| rules::change(&mut batch, &self.config, change));
        batch.commit(socket)
    }

    fn rebuild(&mut self, socket: &mut Socket, new: &Table) -> Result<(), Refusal> {
        let nothing = Table::default();
        let changes = plan::plan(&nothing, new);
        loop {
            let mut batch = Batch::new(&self.config.tag.proxy_table());
            rules::frame(&mut batch, &self.config, self.refuse);
            changes.iter().for_each(|change| rules::change(&mut batch, &self.config, change));
            match batch.commit(socket) {
                Err(e) if self.refuse && matches!(e.errno, libc::ENOENT | libc::EOPNOTSUPP) => {
                    log::warn!(
                        "this kernel has no nf_tables reject: clients of Services without endpoints wait instead"
                    );
                    self.refuse = false;
                }
                done => return done,
            }
        }
    }

    /// Removes the table.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn teardown(&mut self) -> Result<(), Error> {
        self.applied = None;
        teardown(self.config.tag)
    }
}

/// Clients that keep sending datagrams would otherwise reach a gone endpoint for ever.
fn cut_stale(stale: &[plan::Stale]) {
    if stale.is_empty() {
        return;
    }
    let condemned = |flow: &Flow| {
        let named = |address| plan::Stale { address, port: flow.port, endpoint: flow.answers };
        stale.binary_search(&named(Some(flow.to))).is_ok() || stale.binary_search(&named(None)).is_ok()
    };
    match conntrack::cut(&condemned) {
        Ok(0) => {}
        Ok(n) => log::debug!("cut {n} UDP flows to endpoints that are gone"),
        Err(e) => log::warn!("UDP clients may go on to endpoints that are gone: {e}"),
    }
}

/// Removes the proxy's table of the instance; fine if there is none.
///
/// # Errors
/// The kernel's refusal.
pub fn teardown(tag: Tag) -> Result<(), Error> {
    nft::delete_table(&mut Socket::netfilter()?, &tag.proxy_table())
}
