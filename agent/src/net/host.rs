//! The node's side of the pod network: the link that holds its own addresses, routes, forwarding and masquerading.

use std::fs;
use std::net::Ipv4Addr;

use super::link::{self, Link};
use super::nft::expr::{self, Expr};
use super::nft::{self, Base, Batch, Hook};
use super::route::{self, Route};
use super::socket::Socket;
use super::{Cidr, Error, NetConfig, Tag, firewall};

const FORWARD_SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
const MTU_DEFAULT: u32 = 1500;
/// After the proxy's own source translations (100), which know better.
const MASQUERADE_PRIORITY: i32 = 105;
const HOME_ALIAS: &str = "mote-node ";
/// IFNAMSIZ-bounded names aside, the most routes to other nodes.
const NODES_MAX: usize = 5_000;

/// Makes link, addresses, routes, forwarding and the masquerading table, or repairs them.
pub(super) fn prepare(socket: &mut Socket, config: &NetConfig) -> Result<(), Error> {
    let name = config.tag.bridge();
    link::ensure_bridge(socket, &name)?;
    let home = link::get(socket, &name)?.ok_or_else(|| gone(&name))?;
    link::no_ipv6_autoconf(socket, home.index);
    let alias = format!("{HOME_ALIAS}{}", config.cluster_cidr);
    link::set_up(socket, home.index, Some(&alias)).map_err(|e| e.error("set up link", &name))?;
    set_addresses(socket, &home, &[Some(config.gateway()), config.dns])?;
    // Unused pod addresses and unassigned cluster IPs end here instead of leaking to the default route; and the node itself
    // speaks to Services from an address that every node can answer.
    for range in [config.node_cidr, config.service_cidr] {
        let way = Route::new(range, None, home.index, Some(config.gateway()));
        route::set(socket, &way).map_err(|e| e.error("set route", range.to_string()))?;
    }
    forward()?;
    masquerade(config)?;
    firewall::open(config.tag, config.cluster_cidr);
    Ok(())
}

fn set_addresses(socket: &mut Socket, home: &Link, wanted: &[Option<Ipv4Addr>]) -> Result<(), Error> {
    for old in route::addresses(socket)?.into_iter().filter(|a| a.link == home.index) {
        if !wanted.contains(&Some(old.address)) {
            let done = route::delete_address(socket, home.index, old.address);
            done.map_err(|e| e.error("delete address", old.address.to_string()))?;
        }
    }
    for address in wanted.iter().flatten() {
        let done = route::add_address(socket, home.index, *address);
        done.map_err(|e| e.error("add address", address.to_string()))?;
    }
    Ok(())
}

/// Forwarding belongs to the whole network namespace; it is switched on and never off, as others may count on it by then.
fn forward() -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::Kernel {
        op: "switch on",
        object: FORWARD_SWITCH.to_owned(),
        cause: e.to_string(),
        errno: e.raw_os_error().unwrap_or(0),
    };
    if fs::read_to_string(FORWARD_SWITCH).map_err(failed)?.trim() == "1" {
        return Ok(());
    }
    fs::write(FORWARD_SWITCH, "1").map_err(failed)
}

fn masquerade(config: &NetConfig) -> Result<(), Error> {
    let table = config.tag.net_table();
    let mut socket = Socket::netfilter()?;
    if !config.masquerade {
        return nft::delete_table(&mut socket, &table);
    }
    let mut batch = Batch::new(&table);
    batch.reset_table();
    let base = Base { kind: "nat", hook: Hook::Postrouting, priority: MASQUERADE_PRIORITY };
    batch.chain("postrouting", Some(base));
    let mut rule = Vec::from(expr::in_cidr(expr::IP_SADDR, true, config.node_cidr));
    rule.extend(expr::in_cidr(expr::IP_DADDR, false, config.cluster_cidr));
    rule.push(Expr::Masquerade);
    batch.rule("postrouting", &rule);
    batch.commit(&mut socket).map_err(|e| e.error("load nf_tables table", table))
}

/// Makes our routes through other nodes exactly these.
pub(super) fn set_routes(socket: &mut Socket, config: &NetConfig, wanted: &[(Cidr, Ipv4Addr)]) -> Result<(), Error> {
    if wanted.len() > NODES_MAX {
        return Err(Error::Config(format!("{} nodes are more than the {NODES_MAX} this network serves", wanted.len())));
    }
    let wanted: Vec<Route> = wanted
        .iter()
        .filter(|(range, _)| config.cluster_cidr.covers(range) && *range != config.node_cidr)
        .map(|(range, node)| Route::new(*range, Some(*node), 0, Some(config.gateway())))
        .collect();
    let present: Vec<Route> = list_ours(socket, config.cluster_cidr)?;
    let (stale, missing) = plan_routes(&present, &wanted);
    let mut first = Ok(());
    for way in stale {
        first = first.and(route::delete(socket, way).map_err(|e| e.error("delete route", way.dst.to_string())));
    }
    for way in missing {
        first = first.and(route::set(socket, way).map_err(|e| e.error("set route", way.dst.to_string())));
    }
    first
}

/// Our routes through other nodes, of the cluster with this pod range.
fn list_ours(socket: &mut Socket, cluster: Cidr) -> Result<Vec<Route>, Error> {
    let mut routes = route::list(socket)?;
    routes.retain(|r| r.protocol == route::PROTO_MOTE && r.via.is_some() && cluster.covers(&r.dst));
    Ok(routes)
}

/// What to delete and what to set. Pure. A range that only changes its node is replaced in one step, not deleted first.
fn plan_routes<'a>(present: &'a [Route], wanted: &'a [Route]) -> (Vec<&'a Route>, Vec<&'a Route>) {
    let stale = present.iter().filter(|p| !wanted.iter().any(|w| w.dst == p.dst)).collect();
    let same = |w: &&Route| present.iter().any(|p| p.dst == w.dst && p.via == w.via && p.src == w.src);
    (stale, wanted.iter().filter(|w| !same(w)).collect())
}

/// Removes what the instance made. Goes on after a refusal and reports the first.
pub(super) fn teardown(tag: Tag) -> Result<(), Error> {
    let mut socket = Socket::route()?;
    let mut first = Ok(());
    if let Some(home) = link::get(&mut socket, &tag.bridge())? {
        let cluster = home.alias.strip_prefix(HOME_ALIAS).and_then(|range| range.parse().ok());
        for way in cluster.map(|range| list_ours(&mut socket, range)).transpose()?.unwrap_or_default() {
            let done = route::delete(&mut socket, &way).map_err(|e| e.error("delete route", way.dst.to_string()));
            first = first.and(done);
        }
    }
    let mut filter = Socket::netfilter()?;
    for table in [tag.proxy_table(), tag.net_table()] {
        first = first.and(nft::delete_table(&mut filter, &table));
    }
    firewall::close(tag);
    let prefix = tag.veth_prefix();
    let mut names: Vec<String> = link::list(&mut socket)?.into_iter().map(|l| l.name).collect();
    names.retain(|name| name.starts_with(&prefix) || *name == tag.bridge());
    // The link with the addresses goes last: while it is there a second teardown still finds the routes.
    names.sort_by_key(|name| *name == tag.bridge());
    for name in names {
        first = first.and(link::delete(&mut socket, &name));
    }
    first
}

/// The MTU of the link that leads to the world.
pub(super) fn uplink_mtu(socket: &mut Socket) -> Result<u32, Error> {
    let Some(uplink) = default_route(socket)?.map(|r| r.link) else { return Ok(MTU_DEFAULT) };
    let found = link::list(socket)?.into_iter().find(|l| l.index == uplink && l.mtu >= super::MTU_MIN);
    Ok(found.map_or(MTU_DEFAULT, |l| l.mtu.min(super::MTU_MAX)))
}

/// The address the node is known by: the source address of its default route, else the first global address of a link
/// that is not of mote's making. `None` when the node has only its loopback.
///
/// # Errors
/// When routes or addresses cannot be read.
pub fn node_address() -> Result<Option<Ipv4Addr>, Error> {
    let mut socket = Socket::route()?;
    let uplink = default_route(&mut socket)?;
    if let Some(src) = uplink.as_ref().and_then(|r| r.src) {
        return Ok(Some(src));
    }
    let links = link::list(&mut socket)?;
    let ours = |index: u32| links.iter().any(|l| l.index == index && l.alias.starts_with(HOME_ALIAS));
    let mut found = route::addresses(&mut socket)?;
    found.retain(|a| a.global && !a.address.is_loopback() && !ours(a.link));
    let on_uplink = found.iter().find(|a| uplink.as_ref().is_some_and(|r| r.link == a.link));
    Ok(on_uplink.or(found.first()).map(|a| a.address))
}

fn default_route(socket: &mut Socket) -> Result<Option<Route>, Error> {
    Ok(route::list(socket)?.into_iter().filter(|r| r.dst.prefix_len() == 0 && r.via.is_some()).min_by_key(|r| r.metric))
}

fn gone(name: &str) -> Error {
    Error::Kernel { op: "read link", object: name.to_owned(), cause: "it vanished".into(), errno: libc::ENODEV }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(dst: &str, via: [u8; 4]) -> Route {
        Route::new(dst.parse().unwrap(), Some(Ipv4Addr::from(via)), 0, None)
    }

    #[test]
    fn routes_change_only_where_they_differ() {
        let (a, b, c) =
            (way("10.42.1.0/24", [9, 0, 0, 1]), way("10.42.2.0/24", [9, 0, 0, 2]), way("10.42.3.0/24", [9, 0, 0, 3]));
        let moved = way("10.42.2.0/24", [9, 0, 0, 9]);
        // What the kernel lists also names the link it found.
        let present = [Route { link: 7, ..a.clone() }, Route { link: 7, ..b }, Route { link: 7, ..c }];
        let wanted = [a, moved.clone()];
        let (stale, missing) = plan_routes(&present, &wanted);
        assert_eq!(stale, [&present[2]]);
        assert_eq!(missing, [&moved]);
        assert_eq!(plan_routes(&[], &[]), (vec![], vec![]));
    }
}
