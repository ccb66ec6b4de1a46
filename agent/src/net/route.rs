//! Addresses, routes and neighbours over rtnetlink (rtnetlink(7)). IPv4 only.

use std::net::Ipv4Addr;

use super::link::Mac;
use super::socket::{Refusal, Socket};
use super::wire::{self, Attrs, Messages, flags};
use super::{Cidr, Error};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const AF_INET: u8 = 2;
const TABLE_MAIN: u8 = 254;
/// Who made a route (`ip route show proto 109`): ours, so that they can be told from the administrator's.
pub(crate) const PROTO_MOTE: u8 = 109;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const TYPE_UNICAST: u8 = 1;
const FLAG_ONLINK: u32 = 4;
const NUD_PERMANENT: u16 = 0x80;
const RTMSG_LEN: usize = 12;
const IFADDR_LEN: usize = 8;

/// A route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    pub(crate) dst: Cidr,
    pub(crate) via: Option<Ipv4Addr>,
    /// Index of the outgoing link; 0 lets the kernel find it from `via`.
    pub(crate) link: u32,
    /// The source address the kernel prefers.
    pub(crate) src: Option<Ipv4Addr>,
    pub(crate) protocol: u8,
    pub(crate) metric: u32,
}

impl Route {
    /// A route of our own.
    pub(crate) fn new(dst: Cidr, via: Option<Ipv4Addr>, link: u32, src: Option<Ipv4Addr>) -> Route {
        Route { dst, via, link, src, protocol: PROTO_MOTE, metric: 0 }
    }

    fn write(&self, m: &mut Messages) {
        let scope = if self.via.is_some() { SCOPE_UNIVERSE } else { SCOPE_LINK };
        m.raw(&[AF_INET, self.dst.prefix_len(), 0, 0, TABLE_MAIN, self.protocol, scope, TYPE_UNICAST]);
        m.ne32(if self.via.is_some() && self.link != 0 { FLAG_ONLINK } else { 0 });
        m.attr(RTA_DST, &self.dst.base().octets());
        if self.link != 0 {
            m.attr_ne32(RTA_OIF, self.link);
        }
        if let Some(via) = self.via {
            m.attr(RTA_GATEWAY, &via.octets());
        }
        if let Some(src) = self.src {
            m.attr(RTA_PREFSRC, &src.octets());
        }
    }
}

/// An address on a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) address: Ipv4Addr,
    /// Whether the world may know it (scope global).
    pub(crate) global: bool,
}

/// Adds or replaces a route.
pub(crate) fn set(socket: &mut Socket, route: &Route) -> Result<(), Refusal> {
    socket.request(&Messages::one(RTM_NEWROUTE, flags::ACK | flags::CREATE | flags::REPLACE, |m| route.write(m)))
}

/// Deletes a route; fine if there is none.
pub(crate) fn delete(socket: &mut Socket, route: &Route) -> Result<(), Refusal> {
    match socket.request(&Messages::one(RTM_DELROUTE, flags::ACK, |m| route.write(m))) {
        Err(e) if e.errno == libc::ESRCH => Ok(()),
        other => other,
    }
}

/// All unicast routes of the main table.
pub(crate) fn list(socket: &mut Socket) -> Result<Vec<Route>, Error> {
    let request = Messages::one(RTM_GETROUTE, flags::DUMP, |m| {
        m.raw(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]);
        m.ne32(0);
    });
    socket.list(&request, RTM_NEWROUTE, parse_route).map_err(|e| e.error("list", "routes"))
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let &[family, len, _, _, table, protocol, _, kind] = body.first_chunk::<8>()?;
    if family != AF_INET || table != TABLE_MAIN || kind != TYPE_UNICAST {
        return None;
    }
    let attrs = Attrs::after(body, RTMSG_LEN);
    let number = |kind| attrs.find(kind).and_then(|v| wire::ne32(v, 0)).unwrap_or(0);
    Some(Route {
        dst: Cidr::new(attrs.find(RTA_DST).and_then(ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED), len),
        via: attrs.find(RTA_GATEWAY).and_then(ipv4),
        link: number(RTA_OIF),
        src: attrs.find(RTA_PREFSRC).and_then(ipv4),
        protocol,
        metric: number(RTA_PRIORITY),
    })
}

/// Puts an address (as a single host) on a link; fine if it is there.
pub(crate) fn add_address(socket: &mut Socket, link: u32, address: Ipv4Addr) -> Result<(), Refusal> {
    let kind_flags = flags::ACK | flags::CREATE | flags::REPLACE;
    socket.request(&Messages::one(RTM_NEWADDR, kind_flags, |m| write_address(m, link, address)))
}

/// Takes an address off a link; fine if it is not there.
pub(crate) fn delete_address(socket: &mut Socket, link: u32, address: Ipv4Addr) -> Result<(), Refusal> {
    match socket.request(&Messages::one(RTM_DELADDR, flags::ACK, |m| write_address(m, link, address))) {
        Err(e) if e.errno == libc::EADDRNOTAVAIL => Ok(()),
        other => other,
    }
}

fn write_address(m: &mut Messages, link: u32, address: Ipv4Addr) {
    m.raw(&[AF_INET, 32, 0, SCOPE_UNIVERSE]);
    m.ne32(link);
    m.attr(IFA_LOCAL, &address.octets());
    m.attr(IFA_ADDRESS, &address.octets());
}

/// All IPv4 addresses.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<Address>, Error> {
    let request = Messages::one(RTM_GETADDR, flags::DUMP, |m| {
        m.raw(&[AF_INET, 0, 0, 0]);
        m.ne32(0);
    });
    socket.list(&request, RTM_NEWADDR, parse_address).map_err(|e| e.error("list", "addresses"))
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let &[family, _, _, scope] = body.first_chunk::<4>()?;
    let attrs = Attrs::after(body, IFADDR_LEN);
    let address = attrs.find(IFA_LOCAL).or_else(|| attrs.find(IFA_ADDRESS)).and_then(ipv4)?;
    let link = wire::ne32(body, 4)?;
    (family == AF_INET).then_some(Address { link, address, global: scope == SCOPE_UNIVERSE })
}

/// Writes a neighbour's MAC down for good, so that nobody ever asks for it.
pub(crate) fn set_neighbour(socket: &mut Socket, link: u32, address: Ipv4Addr, mac: Mac) -> Result<(), Refusal> {
    socket.request(&Messages::one(RTM_NEWNEIGH, flags::ACK | flags::CREATE | flags::REPLACE, |m| {
        m.raw(&[AF_INET, 0, 0, 0]);
        m.ne32(link);
        m.ne16(NUD_PERMANENT);
        m.raw(&[0, TYPE_UNICAST]);
        m.attr(NDA_DST, &address.octets());
        m.attr(NDA_LLADDR, &mac);
    }))
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}
