//! What the proxy wants the kernel to do, as data: fronts (addresses clients use) that lead to chains (endpoints in turn).
//! Pure: Services in, table out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::ProxyConfig;
use super::services::{Endpoint, Entry, Key, Kind, Protocol, Service, ServicePort, Services};
use crate::net::nft::CHAIN_NAME_MAX;
use crate::net::short_hash;

/// Endpoints one port of a Service is spread over; more are left aside (upstream's slices hold 1,000 too).
const ENDPOINTS_MAX: usize = 4_000;

/// The name of a chain.
pub(crate) type ChainName = Arc<str>;

/// Everything the kernel's table holds beside its fixed frame.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Table {
    /// Cluster IPs, external and load balancer addresses.
    pub(crate) fronts: BTreeMap<Front, ChainName>,
    pub(crate) node_ports: BTreeMap<(Protocol, u16), ChainName>,
    pub(crate) chains: BTreeMap<ChainName, Chain>,
    /// Endpoints on this node: a client that reaches itself needs its own address translated too.
    pub(crate) hairpins: BTreeSet<Ipv4Addr>,
}

/// Where clients send to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Front {
    pub(crate) address: Ipv4Addr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

/// Endpoints in turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chain {
    pub(crate) protocol: Protocol,
    pub(crate) hide: Hide,
    pub(crate) affinity_s: Option<u32>,
    /// Sorted, never empty.
    pub(crate) endpoints: Vec<(Ipv4Addr, u16)>,
}

/// Whose client address is replaced by the node's, so that answers come back through this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hide {
    /// Clients that are neither pods nor nodes.
    Outsiders,
    Everyone,
    NoOne,
}

/// The table for these Services on this node. When two Services claim one address, the first by name has it.
pub(crate) fn table(services: &Services, config: &ProxyConfig) -> Table {
    let mut table = Table::default();
    for (key, service, entry) in services.iter() {
        let Kind::Virtual(ip) = service.kind else { continue };
        for port in &service.ports {
            table.add_port(key, service, ip, port, &candidates(entry, port), config);
        }
    }
    table
}

impl Table {
    fn add_port(
        &mut self,
        key: &Key,
        service: &Service,
        ip: Ipv4Addr,
        port: &ServicePort,
        candidates: &[(&Endpoint, u16)],
        config: &ProxyConfig,
    ) {
        let inside = chosen(candidates, service.internal_local.then_some(config.node_name.as_str()));
        let front = |address| Front { address, protocol: port.protocol, port: port.port };
        if let Some(name) = self.add_chain(key, service, port, "in", Hide::Outsiders, inside) {
            self.fronts.entry(front(ip)).or_insert(name);
        }
        if service.external.is_empty() && port.node_port.is_none() {
            return self.add_hairpins(candidates, config);
        }
        let hide = if service.external_local { Hide::NoOne } else { Hide::Everyone };
        let outside = chosen(candidates, service.external_local.then_some(config.node_name.as_str()));
        if let Some(name) = self.add_chain(key, service, port, "ex", hide, outside) {
            for address in &service.external {
                self.fronts.entry(front(*address)).or_insert_with(|| name.clone());
            }
            if let Some(node_port) = port.node_port {
                self.node_ports.entry((port.protocol, node_port)).or_insert(name);
            }
        }
        self.add_hairpins(candidates, config);
    }

    fn add_hairpins(&mut self, candidates: &[(&Endpoint, u16)], config: &ProxyConfig) {
        let here = candidates.iter().map(|(e, _)| e.address).filter(|a| config.node_cidr.contains(*a));
        self.hairpins.extend(here);
    }

    fn add_chain(
        &mut self,
        key: &Key,
        service: &Service,
        port: &ServicePort,
        side: &str,
        hide: Hide,
        endpoints: Vec<(Ipv4Addr, u16)>,
    ) -> Option<ChainName> {
        if endpoints.is_empty() {
            return None;
        }
        let name = chain_name(side, key, port);
        let chain = Chain { protocol: port.protocol, hide, affinity_s: service.affinity_s, endpoints };
        self.chains.insert(name.clone(), chain);
        Some(name)
    }
}

/// Unique by its hash, readable by its tail.
fn chain_name(side: &str, (namespace, name): &Key, port: &ServicePort) -> ChainName {
    let protocol = port.protocol.name();
    let full = format!("{namespace}/{name}/{protocol}/{}", port.port);
    let hash: String = short_hash(full.as_bytes()).chars().take(12).collect();
    let mut text = format!("{side}-{hash}-{full}");
    // Kubernetes names are ASCII; anything else is cut where a character begins.
    let mut end = CHAIN_NAME_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.into()
}

/// The endpoints of one Service port with their own ports: slices name the port as the Service does.
fn candidates<'a>(entry: &'a Entry, port: &ServicePort) -> Vec<(&'a Endpoint, u16)> {
    let mut found = Vec::new();
    for slice in entry.slices.values() {
        for target in slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol) {
            found.extend(slice.endpoints.iter().map(|e| (e, target.port)));
        }
    }
    found
}

/// The ready endpoints; if there are none, those that still serve while they end (as upstream's proxy).
fn chosen(candidates: &[(&Endpoint, u16)], node: Option<&str>) -> Vec<(Ipv4Addr, u16)> {
    let here = |e: &Endpoint| node.is_none_or(|node| e.node == node);
    let pick = |want: fn(&Endpoint) -> bool| -> Vec<(Ipv4Addr, u16)> {
        let fit = candidates.iter().filter(|(e, _)| here(e) && want(e));
        let unique: BTreeSet<_> = fit.map(|(e, port)| (e.address, *port)).collect();
        unique.into_iter().take(ENDPOINTS_MAX).collect()
    };
    let ready = pick(|e| e.ready);
    if ready.is_empty() { pick(|e| e.serving && e.terminating) } else { ready }
}

#[cfg(test)]
mod tests;
