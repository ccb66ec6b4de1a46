//! The expressions rules are made of, as data: what a rule says can be compared and printed before the kernel sees it.

use std::net::Ipv4Addr;

use super::super::Cidr;
use super::super::wire::Messages;

/// A 32-bit register (NFT_REG32_00 is 8). Values longer than four bytes go on in the next ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reg(u32);

pub(crate) const R0: Reg = Reg(8);
pub(crate) const R1: Reg = Reg(9);
pub(crate) const R2: Reg = Reg(10);
const REG_VERDICT: u32 = 0;

/// A field of the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    base: u32,
    offset: u32,
    pub(crate) len: u32,
}

pub(crate) const IP_SADDR: Field = Field { base: 1, offset: 12, len: 4 };
pub(crate) const IP_DADDR: Field = Field { base: 1, offset: 16, len: 4 };
/// The destination port of TCP, UDP and SCTP alike.
pub(crate) const TH_DPORT: Field = Field { base: 2, offset: 2, len: 2 };

/// What is known about the packet beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meta {
    Mark = 3,
    OifName = 7,
    NfProto = 15,
    L4Proto = 16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict<'a> {
    Accept,
    Jump(&'a str),
    Goto(&'a str),
}

/// A reference to a set: its name, and for an anonymous one its id in the transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SetRef<'a> {
    pub(crate) name: &'a str,
    pub(crate) id: Option<u32>,
}

impl<'a> SetRef<'a> {
    /// A set by its name.
    pub(crate) fn named(name: &'a str) -> SetRef<'a> {
        SetRef { name, id: None }
    }
}

/// What a look-up that finds its key leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// The rest of the rule.
    Go,
    /// The map's value in a register.
    Value(Reg),
    /// The map's verdict.
    Verdict,
}

/// An expression. `Cmp`, `Lookup` end the rule when they do not match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Expr<'a> {
    Payload {
        field: Field,
        to: Reg,
    },
    Meta {
        key: Meta,
        to: Reg,
    },
    SetMark {
        from: Reg,
    },
    Cmp {
        reg: Reg,
        equal: bool,
        data: Vec<u8>,
    },
    Bitwise {
        reg: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// In a set or through a map.
    Lookup {
        set: SetRef<'a>,
        key: Reg,
        to: Found,
    },
    Load {
        to: Reg,
        data: Vec<u8>,
    },
    Verdict(Verdict<'a>),
    /// 0, 1, … in turn below `modulus`.
    InTurn {
        to: Reg,
        modulus: u32,
    },
    /// Puts the key into a set with timeouts, or renews its time.
    Remember {
        set: &'a str,
        key: Reg,
    },
    /// The route type of the destination address (2 is local).
    DestinationType {
        to: Reg,
    },
    Dnat {
        addr: Reg,
        port: Reg,
    },
    Snat {
        addr: Reg,
    },
    Masquerade,
    /// ICMP port unreachable.
    Reject,
}

/// `NFT_FIB_RESULT_ADDRTYPE` says this for an address of the machine itself (RTN_LOCAL).
pub(crate) const ROUTE_LOCAL: u32 = 2;

/// `field of addresses == (or !=) cidr`.
pub(crate) fn in_cidr<'a>(field: Field, equal: bool, cidr: Cidr) -> [Expr<'a>; 3] {
    [
        Expr::Payload { field, to: R0 },
        Expr::Bitwise { reg: R0, mask: cidr.mask().octets().to_vec(), xor: vec![0; 4] },
        Expr::Cmp { reg: R0, equal, data: cidr.base().octets().to_vec() },
    ]
}

/// `meta mark set meta mark | bit`.
pub(crate) fn mark<'a>(bit: u32) -> [Expr<'a>; 3] {
    [
        Expr::Meta { key: Meta::Mark, to: R0 },
        Expr::Bitwise { reg: R0, mask: (!bit).to_ne_bytes().to_vec(), xor: bit.to_ne_bytes().to_vec() },
        Expr::SetMark { from: R0 },
    ]
}

/// `meta mark & bit == bit`.
pub(crate) fn marked<'a>(bit: u32) -> [Expr<'a>; 3] {
    [
        Expr::Meta { key: Meta::Mark, to: R0 },
        Expr::Bitwise { reg: R0, mask: bit.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expr::Cmp { reg: R0, equal: true, data: bit.to_ne_bytes().to_vec() },
    ]
}

/// `oifname == name` (whole name).
pub(crate) fn leaves_by<'a>(name: &str) -> [Expr<'a>; 2] {
    let mut data = name.as_bytes().to_vec();
    data.resize(16, 0);
    [Expr::Meta { key: Meta::OifName, to: R0 }, Expr::Cmp { reg: R0, equal: true, data }]
}

/// `snat to addr`.
pub(crate) fn snat_to<'a>(addr: Ipv4Addr) -> [Expr<'a>; 2] {
    [Expr::Load { to: R0, data: addr.octets().to_vec() }, Expr::Snat { addr: R0 }]
}

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFPROTO_IPV4: u32 = 2;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const NAT_SNAT: u32 = 0;
const NAT_DNAT: u32 = 1;
const NG_INCREMENTAL: u32 = 0;
const FIB_ADDRTYPE: u32 = 3;
const FIB_F_DADDR: u32 = 2;
const DYNSET_UPDATE: u32 = 1;
const ICMP_PORT_UNREACHABLE: u8 = 3;

impl Expr<'_> {
    fn name(&self) -> &'static str {
        match self {
            Expr::Payload { .. } => "payload",
            Expr::Meta { .. } | Expr::SetMark { .. } => "meta",
            Expr::Cmp { .. } => "cmp",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Lookup { .. } => "lookup",
            Expr::Load { .. } | Expr::Verdict(_) => "immediate",
            Expr::InTurn { .. } => "numgen",
            Expr::Remember { .. } => "dynset",
            Expr::DestinationType { .. } => "fib",
            Expr::Dnat { .. } | Expr::Snat { .. } => "nat",
            Expr::Masquerade => "masq",
            Expr::Reject => "reject",
        }
    }

    pub(crate) fn write(&self, m: &mut Messages) {
        m.attr_str(NFTA_EXPR_NAME, self.name());
        m.nest(NFTA_EXPR_DATA, |m| self.write_data(m));
    }

    /// The attributes of each expression by their number in its `enum nft_*_attributes`.
    fn write_data(&self, m: &mut Messages) {
        match self {
            Expr::Payload { field, to } => numbers(m, &[(1, to.0), (2, field.base), (3, field.offset), (4, field.len)]),
            Expr::Meta { key, to } => numbers(m, &[(1, to.0), (2, *key as u32)]),
            Expr::SetMark { from } => numbers(m, &[(2, Meta::Mark as u32), (3, from.0)]),
            Expr::Cmp { reg, equal, data } => {
                numbers(m, &[(1, reg.0), (2, if *equal { CMP_EQ } else { CMP_NEQ })]);
                m.nest(3, |m| data_value(m, data));
            }
            Expr::Bitwise { reg, mask, xor } => {
                numbers(m, &[(1, reg.0), (2, reg.0), (3, u32::try_from(mask.len()).unwrap_or(0))]);
                m.nest(4, |m| data_value(m, mask));
                m.nest(5, |m| data_value(m, xor));
            }
            Expr::Lookup { set, key, to } => {
                m.attr_str(1, set.name);
                m.attr_be32(2, key.0);
                match to {
                    Found::Go => {}
                    Found::Value(to) => m.attr_be32(3, to.0),
                    Found::Verdict => m.attr_be32(3, REG_VERDICT),
                }
                if let Some(id) = set.id {
                    m.attr_be32(4, id);
                }
            }
            Expr::Load { to, data } => {
                m.attr_be32(1, to.0);
                m.nest(2, |m| data_value(m, data));
            }
            Expr::Verdict(verdict) => {
                m.attr_be32(1, REG_VERDICT);
                m.nest(2, |m| data_verdict(m, *verdict));
            }
            Expr::InTurn { to, modulus } => numbers(m, &[(1, to.0), (2, *modulus), (3, NG_INCREMENTAL), (4, 0)]),
            Expr::Remember { set, key } => {
                m.attr_str(1, set);
                numbers(m, &[(3, DYNSET_UPDATE), (4, key.0)]);
            }
            Expr::DestinationType { to } => numbers(m, &[(1, to.0), (2, FIB_ADDRTYPE), (3, FIB_F_DADDR)]),
            Expr::Dnat { addr, port } => numbers(m, &[(1, NAT_DNAT), (2, NFPROTO_IPV4), (3, addr.0), (5, port.0)]),
            Expr::Snat { addr } => numbers(m, &[(1, NAT_SNAT), (2, NFPROTO_IPV4), (3, addr.0)]),
            Expr::Masquerade => {}
            Expr::Reject => {
                m.attr_be32(1, 0);
                m.attr(2, &[ICMP_PORT_UNREACHABLE]);
            }
        }
    }
}

fn numbers(m: &mut Messages, attrs: &[(u16, u32)]) {
    for (kind, value) in attrs {
        m.attr_be32(*kind, *value);
    }
}

pub(crate) fn data_value(m: &mut Messages, data: &[u8]) {
    m.attr(NFTA_DATA_VALUE, data);
}

pub(crate) fn data_verdict(m: &mut Messages, verdict: Verdict<'_>) {
    let (code, chain) = match verdict {
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
    };
    m.nest(NFTA_DATA_VERDICT, |m| {
        m.attr_be32(NFTA_VERDICT_CODE, i32::cast_unsigned(code));
        if let Some(chain) = chain {
            m.attr_str(NFTA_VERDICT_CHAIN, chain);
        }
    });
}
