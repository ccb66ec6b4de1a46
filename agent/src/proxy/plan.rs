//! The difference between two tables, as the changes of one transaction in the order the kernel can take them. Pure.

use std::net::Ipv4Addr;

use super::services::Protocol;
use super::table::{Chain, ChainName, Front, Table};

/// One change. A plan's order: what leads to chains goes first, then chains change, then what leads to them comes, then
/// unused chains go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change<'a> {
    DeleteFront(Front),
    DeleteNodePort(Protocol, u16),
    DeleteHairpin(Ipv4Addr),
    /// A new chain with its rules.
    AddChain(&'a ChainName, &'a Chain),
    /// Other rules for a chain.
    RefillChain {
        name: &'a ChainName,
        old: &'a Chain,
        new: &'a Chain,
    },
    AddFront(Front, &'a ChainName),
    AddNodePort(Protocol, u16, &'a ChainName),
    AddHairpin(Ipv4Addr),
    DeleteChain(&'a ChainName, &'a Chain),
}

/// What to change to come from `old` to `new`.
pub(crate) fn plan<'a>(old: &'a Table, new: &'a Table) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    for (front, chain) in &old.fronts {
        if new.fronts.get(front) != Some(chain) {
            changes.push(Change::DeleteFront(*front));
        }
    }
    for (port, chain) in &old.node_ports {
        if new.node_ports.get(port) != Some(chain) {
            changes.push(Change::DeleteNodePort(port.0, port.1));
        }
    }
    changes.extend(old.hairpins.difference(&new.hairpins).map(|a| Change::DeleteHairpin(*a)));
    for (name, chain) in &new.chains {
        match old.chains.get(name) {
            None => changes.push(Change::AddChain(name, chain)),
            Some(old) if old != chain => changes.push(Change::RefillChain { name, old, new: chain }),
            Some(_) => {}
        }
    }
    for (front, chain) in &new.fronts {
        if old.fronts.get(front) != Some(chain) {
            changes.push(Change::AddFront(*front, chain));
        }
    }
    for (port, chain) in &new.node_ports {
        if old.node_ports.get(port) != Some(chain) {
            changes.push(Change::AddNodePort(port.0, port.1, chain));
        }
    }
    changes.extend(new.hairpins.difference(&old.hairpins).map(|a| Change::AddHairpin(*a)));
    let gone = old.chains.iter().filter(|(name, _)| !new.chains.contains_key(*name));
    changes.extend(gone.map(|(name, chain)| Change::DeleteChain(name, chain)));
    changes
}

/// A (front, endpoint) pair of a datagram protocol that no longer holds: the kernel still sends known clients there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Stale {
    /// `None` for a node port: any address of the node.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) port: u16,
    pub(crate) endpoint: Ipv4Addr,
}

/// The UDP flows to cut after coming from `old` to `new`. (TCP ends by itself: the endpoint is gone or resets.)
pub(crate) fn stale(old: &Table, new: &Table) -> Vec<Stale> {
    let mut found = Vec::new();
    let gone = |was: &ChainName, now: Option<&ChainName>| -> Vec<Ipv4Addr> {
        let Some(before) = old.chains.get(was).filter(|c| c.protocol == Protocol::Udp) else { return Vec::new() };
        let after = now.and_then(|name| new.chains.get(name)).map_or(&[][..], |c| &c.endpoints);
        before.endpoints.iter().filter(|e| after.binary_search(e).is_err()).map(|e| e.0).collect()
    };
    for (front, chain) in &old.fronts {
        let ends = gone(chain, new.fronts.get(front)).into_iter();
        found.extend(ends.map(|endpoint| Stale { address: Some(front.address), port: front.port, endpoint }));
    }
    for (key, chain) in &old.node_ports {
        let ends = gone(chain, new.node_ports.get(key)).into_iter();
        found.extend(ends.map(|endpoint| Stale { address: None, port: key.1, endpoint }));
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests;
