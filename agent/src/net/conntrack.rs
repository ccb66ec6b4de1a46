//! Cuts flows the kernel's connection tracking still translates to where they should no longer go. Only datagram protocols need
//! it: a translated flow lives as long as its client keeps sending (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

use std::net::Ipv4Addr;

use super::Error;
use super::nft::{NFPROTO_IPV4, generic};
use super::socket::Socket;
use super::wire::{self, Attrs, Messages, flags};

const CT_GET: u16 = 1 << 8 | 1;
const CT_NEW: u16 = 1 << 8;
const CT_DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const GENERIC_LEN: usize = 4;
const UDP: u8 = 17;
/// Flows cut at one call; a flow that is missed ends by its timeout.
const CUTS_MAX: usize = 65_536;

/// A tracked UDP flow: where the client sends, and who answers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flow {
    pub(crate) to: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) answers: Ipv4Addr,
}

/// Ends all UDP flows that `condemned` names; says how many.
///
/// # Errors
/// When the flows cannot be listed (no nf_conntrack_netlink in the kernel).
pub(crate) fn cut(condemned: &dyn Fn(&Flow) -> bool) -> Result<usize, Error> {
    let mut socket = Socket::netfilter()?;
    let request = Messages::one(CT_GET, flags::DUMP, |m| generic(m, NFPROTO_IPV4, 0));
    let each = |found: &mut Vec<Vec<u8>>, kind, body: &[u8]| {
        if kind == CT_NEW
            && found.len() < CUTS_MAX
            && let Some((flow, tuple)) = parse(body)
            && condemned(&flow)
        {
            found.push(tuple.to_vec());
        }
    };
    let tuples = socket.dump(&request, each).map_err(|e| e.error("list", "tracked connections"))?;
    for tuple in &tuples {
        let request = Messages::one(CT_DELETE, flags::ACK, |m| {
            generic(m, NFPROTO_IPV4, 0);
            m.nest(CTA_TUPLE_ORIG, |m| m.raw(tuple));
        });
        match socket.request(&request) {
            // It ended by itself.
            Err(e) if e.errno == libc::ENOENT => {}
            other => other.map_err(|e| e.error("delete", "tracked connection"))?,
        }
    }
    Ok(tuples.len())
}

/// A UDP flow and the bytes that name it to the kernel.
fn parse(body: &[u8]) -> Option<(Flow, &[u8])> {
    let attrs = Attrs::after(body, GENERIC_LEN);
    let tuple = attrs.find(CTA_TUPLE_ORIG)?;
    let sent = Attrs(tuple);
    if sent.find_path(&[CTA_TUPLE_PROTO, CTA_PROTO_NUM])? != [UDP] {
        return None;
    }
    let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
    let flow = Flow {
        to: address(sent.find_path(&[CTA_TUPLE_IP, CTA_IP_V4_DST])?)?,
        port: wire::be16(sent.find_path(&[CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT])?)?,
        answers: address(attrs.find_path(&[CTA_TUPLE_REPLY, CTA_TUPLE_IP, CTA_IP_V4_SRC])?)?,
    };
    Some((flow, tuple))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(m: &mut Messages, src: u8, dst: u8, protocol: u8, port: u16) {
        m.nest(CTA_TUPLE_IP, |m| {
            m.attr(CTA_IP_V4_SRC, &[10, 0, 0, src]);
            m.attr(CTA_IP_V4_DST, &[10, 0, 0, dst]);
        });
        m.nest(CTA_TUPLE_PROTO, |m| {
            m.attr(CTA_PROTO_NUM, &[protocol]);
            m.attr(CTA_PROTO_DST_PORT, &port.to_be_bytes());
        });
    }

    fn body(protocol: u8) -> Vec<u8> {
        let message = Messages::one(CT_NEW, 0, |m| {
            generic(m, NFPROTO_IPV4, 0);
            m.nest(CTA_TUPLE_ORIG, |m| tuple(m, 1, 2, protocol, 53));
            m.nest(CTA_TUPLE_REPLY, |m| tuple(m, 3, 1, protocol, 9));
        });
        message.bytes().unwrap()[wire::HEADER_LEN..].to_vec()
    }

    #[test]
    fn reads_udp_flows_only() {
        let udp = body(UDP);
        let (flow, name) = parse(&udp).unwrap();
        assert_eq!(flow, Flow { to: [10, 0, 0, 2].into(), port: 53, answers: [10, 0, 0, 3].into() });
        assert_eq!(Attrs(name).find_path(&[CTA_TUPLE_PROTO, CTA_PROTO_NUM]), Some(&[UDP][..]));
        assert!(parse(&body(6)).is_none());
        for cut in 0..udp.len() {
            assert!(parse(&udp[..cut]).is_none(), "cut at {cut}");
        }
    }
}
