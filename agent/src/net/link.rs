//! Links over rtnetlink: bridges, veth pairs, their flags and aliases (rtnetlink(7), include/uapi/linux/if_link.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::Error;
use super::socket::{Refusal, Socket};
use super::wire::{self, Attrs, Messages, flags};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

const IFF_UP: u32 = 1;
const IF_OPER_UP: u8 = 6;
/// Length of `struct ifinfomsg`.
const IFINFO_LEN: usize = 16;

/// A link as the kernel lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: String,
    pub(crate) mtu: u32,
    /// The index of the other end of a veth pair, in whatever namespace that is.
    pub(crate) peer: u32,
    /// Whether packets pass (RFC 2863 operational state).
    pub(crate) works: bool,
}

/// A link's hardware address.
pub(crate) type Mac = [u8; 6];

/// What a new veth pair looks like: one end here, the other born inside another namespace.
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: Mac,
    pub(crate) peer_netns: BorrowedFd<'a>,
    pub(crate) mtu: u32,
}

fn ifinfo(m: &mut Messages, index: u32, ifi_flags: u32, change: u32) {
    m.raw(&[0; 4]);
    m.ne32(index);
    m.ne32(ifi_flags);
    m.ne32(change);
}

/// Creates a bridge; fine if it is there.
pub(crate) fn ensure_bridge(socket: &mut Socket, name: &str) -> Result<(), Error> {
    let request = Messages::one(RTM_NEWLINK, flags::ACK | flags::CREATE | flags::EXCL, |m| {
        ifinfo(m, 0, 0, 0);
        m.attr_str(IFLA_IFNAME, name);
        m.nest(IFLA_LINKINFO, |m| m.attr(IFLA_INFO_KIND, b"bridge"));
    });
    match socket.request(&request) {
        Err(e) if e.errno == libc::EEXIST => Ok(()),
        other => other.map_err(|e| e.error("create bridge", name)),
    }
}

/// Creates a veth pair.
pub(crate) fn create_veth(socket: &mut Socket, veth: &Veth<'_>) -> Result<(), Error> {
    let request = Messages::one(RTM_NEWLINK, flags::ACK | flags::CREATE | flags::EXCL, |m| {
        ifinfo(m, 0, 0, 0);
        m.attr_str(IFLA_IFNAME, veth.name);
        m.attr(IFLA_ADDRESS, &veth.mac);
        m.attr_ne32(IFLA_MTU, veth.mtu);
        m.nest(IFLA_LINKINFO, |m| {
            m.attr(IFLA_INFO_KIND, b"veth");
            m.nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    ifinfo(m, 0, 0, 0);
                    m.attr_str(IFLA_IFNAME, veth.peer_name);
                    m.attr(IFLA_ADDRESS, &veth.peer_mac);
                    m.attr_ne32(IFLA_MTU, veth.mtu);
                    m.attr_ne32(IFLA_NET_NS_FD, veth.peer_netns.as_raw_fd().unsigned_abs());
                });
            });
        });
    });
    socket.request(&request).map_err(|e| e.error("create veth pair", veth.name))
}

/// Sets a link up, with an alias if one is given.
pub(crate) fn set_up(socket: &mut Socket, index: u32, alias: Option<&str>) -> Result<(), Refusal> {
    socket.request(&Messages::one(RTM_SETLINK, flags::ACK, |m| {
        ifinfo(m, index, IFF_UP, IFF_UP);
        if let Some(alias) = alias {
            m.attr(IFLA_IFALIAS, alias.as_bytes());
        }
    }))
}

/// Keeps the kernel from giving the link an IPv6 address of its own accord, with all the solicitations that follow. Best
/// effort: a kernel without IPv6 has nothing to keep from.
pub(crate) fn no_ipv6_autoconf(socket: &mut Socket, index: u32) {
    let request = Messages::one(RTM_SETLINK, flags::ACK, |m| {
        ifinfo(m, index, 0, 0);
        m.nest(IFLA_AF_SPEC, |m| {
            m.nest(u16::try_from(libc::AF_INET6).unwrap_or(10), |m| {
                m.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
    });
    if let Err(e) = socket.request(&request) {
        log::debug!("link {index} keeps IPv6 autoconfiguration: errno {}", e.errno);
    }
}

/// The link of this name, if there is one.
pub(crate) fn get(socket: &mut Socket, name: &str) -> Result<Option<Link>, Error> {
    let request = Messages::one(RTM_GETLINK, 0, |m| {
        ifinfo(m, 0, 0, 0);
        m.attr_str(IFLA_IFNAME, name);
        m.attr_ne32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
    match socket.get(&request, parse) {
        Ok(link) => Ok(link),
        Err(e) if e.errno == libc::ENODEV => Ok(None),
        Err(e) => Err(e.error("read link", name)),
    }
}

/// All links.
pub(crate) fn list(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let request = Messages::one(RTM_GETLINK, flags::DUMP, |m| {
        ifinfo(m, 0, 0, 0);
        m.attr_ne32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
    socket.list(&request, RTM_NEWLINK, parse).map_err(|e| e.error("list", "links"))
}

/// Deletes a link (of a veth pair: both ends); fine if there is none.
pub(crate) fn delete(socket: &mut Socket, name: &str) -> Result<(), Error> {
    let request = Messages::one(RTM_DELLINK, flags::ACK, |m| {
        ifinfo(m, 0, 0, 0);
        m.attr_str(IFLA_IFNAME, name);
    });
    match socket.request(&request) {
        Err(e) if e.errno == libc::ENODEV => Ok(()),
        other => other.map_err(|e| e.error("delete link", name)),
    }
}

fn parse(body: &[u8]) -> Option<Link> {
    let attrs = Attrs::after(body, IFINFO_LEN);
    Some(Link {
        index: wire::ne32(body, 4)?,
        name: wire::text(attrs.find(IFLA_IFNAME)?),
        alias: attrs.find(IFLA_IFALIAS).map(wire::text).unwrap_or_default(),
        mtu: attrs.find(IFLA_MTU).and_then(|v| wire::ne32(v, 0)).unwrap_or(0),
        peer: attrs.find(IFLA_LINK).and_then(|v| wire::ne32(v, 0)).unwrap_or(0),
        works: attrs.find(IFLA_OPERSTATE) == Some(&[IF_OPER_UP]),
    })
}
