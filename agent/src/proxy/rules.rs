//! The proxy's table in nf_tables words: its fixed frame, and each planned change.
//!
//! ```text
//! prerouting, output ─ jump dispatch ─ daddr . proto . dport ─ map services ──── goto in-…  (one look-up, however many Services)
//!                                     └ local daddr: proto . dport ─ map node-ports ─ goto ex-…
//! in-…, ex-…  [mark whom to hide]  numgen in turn ─ map ─ dnat
//!     with affinity: per endpoint [client in ep-…: goto ep-…], then numgen in turn ─ map ─ goto ep-… (remember client, dnat)
//! postrouting  client == endpoint: snat to gateway · marked, to a pod of this node: snat to gateway · marked: masquerade
//! forward, local  what is still addressed to the service range: reject
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use super::ProxyConfig;
use super::plan::Change;
use super::services::Protocol;
use super::table::{Chain, Front, Hide};
use crate::net::nft::expr::{self, Expr, Field, Found, Meta, R0, R1, R2, Reg, SetRef, Verdict};
use crate::net::nft::{ANONYMOUS, Base, Batch, Element, ElementValue, Hook, SetType, Value, types};
use crate::net::short_hash;

/// The packet mark of connections whose client address is to be hidden; upstream's default bit.
const MARK_HIDE: u32 = 0x4000;

const DISPATCH: &str = "dispatch";
const SERVICES: &str = "services";
const NODE_PORTS: &str = "node-ports";
const HAIRPINS: &str = "hairpins";
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;
const PRIORITY_FILTER: i32 = 0;

const FRONT_TYPE: SetType = SetType { key: types::ADDR_PROTO_PORT, key_len: 12, value: Value::Verdict };
const NODE_PORT_TYPE: SetType = SetType { key: types::PROTO_PORT, key_len: 8, value: Value::Verdict };
const HAIRPIN_TYPE: SetType = SetType { key: types::ADDR_ADDR, key_len: 8, value: Value::None };
const TURN_TYPE: SetType = SetType { key: types::INTEGER, key_len: 4, value: Value::Data(types::ADDR_PORT, 8) };
const TURN_CHAIN_TYPE: SetType = SetType { key: types::INTEGER, key_len: 4, value: Value::Verdict };
const CLIENT_TYPE: SetType = SetType { key: types::ADDR, key_len: 4, value: Value::None };

/// The table without any Service. `refuse` is false on kernels that cannot reject: clients then wait instead.
pub(crate) fn frame(batch: &mut Batch, config: &ProxyConfig, refuse: bool) {
    batch.reset_table();
    batch.set(SERVICES, FRONT_TYPE);
    batch.set(NODE_PORTS, NODE_PORT_TYPE);
    batch.set(HAIRPINS, HAIRPIN_TYPE);
    batch.chain(DISPATCH, None);
    let mut key = load(expr::IP_DADDR, R0);
    key.extend(proto_and_port(R1, R2));
    key.push(Expr::Lookup { set: SetRef::named(SERVICES), key: R0, to: Found::Verdict });
    batch.rule(DISPATCH, &key);
    let mut key = vec![
        Expr::DestinationType { to: R0 },
        Expr::Cmp { reg: R0, equal: true, data: expr::ROUTE_LOCAL.to_ne_bytes().to_vec() },
    ];
    // Answers to a translated loopback address would be dropped as martians.
    key.extend(expr::in_cidr(expr::IP_DADDR, false, crate::net::Cidr::new(Ipv4Addr::LOCALHOST, 8)));
    key.extend(proto_and_port(R0, R1));
    key.push(Expr::Lookup { set: SetRef::named(NODE_PORTS), key: R0, to: Found::Verdict });
    batch.rule(DISPATCH, &key);
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch.chain(name, Some(Base { kind: "nat", hook, priority: PRIORITY_DSTNAT }));
        batch.rule(name, &[Expr::Verdict(Verdict::Jump(DISPATCH))]);
    }
    source_translation(batch, config);
    if refuse {
        for (name, hook) in [("forward", Hook::Forward), ("local", Hook::Output)] {
            batch.chain(name, Some(Base { kind: "filter", hook, priority: PRIORITY_FILTER }));
            let mut rule = Vec::from(expr::in_cidr(expr::IP_DADDR, true, config.service_cidr));
            rule.extend(expr::leaves_by(&config.tag.bridge()));
            rule.push(Expr::Reject);
            batch.rule(name, &rule);
        }
    }
}

fn source_translation(batch: &mut Batch, config: &ProxyConfig) {
    const NAME: &str = "postrouting";
    batch.chain(NAME, Some(Base { kind: "nat", hook: Hook::Postrouting, priority: PRIORITY_SRCNAT }));
    let mut hairpin = load(expr::IP_SADDR, R0);
    hairpin.extend(load(expr::IP_DADDR, R1));
    hairpin.push(Expr::Lookup { set: SetRef::named(HAIRPINS), key: R0, to: Found::Go });
    hairpin.extend(expr::snat_to(config.gateway));
    batch.rule(NAME, &hairpin);
    // The pods' links have no address of their own to masquerade by.
    let mut near = Vec::from(expr::marked(MARK_HIDE));
    near.extend(expr::in_cidr(expr::IP_DADDR, true, config.node_cidr));
    near.extend(expr::snat_to(config.gateway));
    batch.rule(NAME, &near);
    let mut far = Vec::from(expr::marked(MARK_HIDE));
    far.push(Expr::Masquerade);
    batch.rule(NAME, &far);
}

/// Adds one change to the transaction.
pub(crate) fn change(batch: &mut Batch, config: &ProxyConfig, change: &Change<'_>) {
    match change {
        Change::DeleteFront(front) => batch.delete_elements(SERVICES, &[bare(&front_key(front))]),
        Change::DeleteNodePort(protocol, port) => {
            batch.delete_elements(NODE_PORTS, &[bare(&node_port_key(*protocol, *port))]);
        }
        Change::DeleteHairpin(address) => batch.delete_elements(HAIRPINS, &[bare(&hairpin_key(*address))]),
        Change::AddFront(front, chain) => {
            let key = front_key(front);
            batch.add_elements(SERVICES, &[Element { key: &key, value: ElementValue::Goto(chain) }]);
        }
        Change::AddNodePort(protocol, port, chain) => {
            let key = node_port_key(*protocol, *port);
            batch.add_elements(NODE_PORTS, &[Element { key: &key, value: ElementValue::Goto(chain) }]);
        }
        Change::AddHairpin(address) => batch.add_elements(HAIRPINS, &[bare(&hairpin_key(*address))]),
        Change::AddChain(name, chain) => {
            batch.chain(name, None);
            add_endpoints(batch, name, chain, &[]);
            fill(batch, config, name, chain);
        }
        Change::RefillChain { name, old, new } => {
            batch.flush_chain(name);
            // Endpoints that stay keep their clients, unless those are to be remembered for another time.
            let (keep_old, keep_new): (&[_], &[_]) =
                if old.affinity_s == new.affinity_s { (&new.endpoints, &old.endpoints) } else { (&[], &[]) };
            delete_endpoints(batch, name, old, keep_old);
            add_endpoints(batch, name, new, keep_new);
            fill(batch, config, name, new);
        }
        Change::DeleteChain(name, old) => {
            batch.flush_chain(name);
            delete_endpoints(batch, name, old, &[]);
            batch.delete_chain(name);
        }
    }
}

type End = (Ipv4Addr, u16);

/// The name of an endpoint's own chain, and of the set of clients that stay with it. Only Services with affinity have these.
fn end_name(chain: &str, (address, port): End) -> String {
    let hash: String = short_hash(format!("{chain} {address}:{port}").as_bytes()).chars().take(12).collect();
    format!("ep-{hash}-{address}:{port}")
}

fn add_endpoints(batch: &mut Batch, name: &str, chain: &Chain, present: &[End]) {
    let Some(seconds) = chain.affinity_s else { return };
    for end in chain.endpoints.iter().filter(|end| present.binary_search(end).is_err()) {
        let own = end_name(name, *end);
        batch.memory_set(&own, CLIENT_TYPE, Duration::from_secs(seconds.into()));
        batch.chain(&own, None);
        let mut remember = load(expr::IP_SADDR, R0);
        remember.push(Expr::Remember { set: &own, key: R0 });
        batch.rule(&own, &remember);
        let mut translate = Vec::from(transport(chain));
        translate.extend(to_endpoint(end.0, end.1));
        batch.rule(&own, &translate);
    }
}

fn delete_endpoints(batch: &mut Batch, name: &str, chain: &Chain, keep: &[End]) {
    if chain.affinity_s.is_none() {
        return;
    }
    for end in chain.endpoints.iter().filter(|end| keep.binary_search(end).is_err()) {
        let own = end_name(name, *end);
        batch.flush_chain(&own);
        batch.delete_set(&own);
        batch.delete_chain(&own);
    }
}

fn fill(batch: &mut Batch, config: &ProxyConfig, name: &str, chain: &Chain) {
    let mut hide = match chain.hide {
        Hide::NoOne => None,
        Hide::Everyone => Some(Vec::new()),
        Hide::Outsiders => Some(Vec::from(expr::in_cidr(expr::IP_SADDR, false, config.cluster_cidr))),
    };
    if let Some(rule) = &mut hide {
        rule.extend(expr::mark(MARK_HIDE));
        batch.rule(name, rule);
    }
    let turn = Expr::InTurn { to: R0, modulus: u32::try_from(chain.endpoints.len()).unwrap_or(1) };
    let keys: Vec<[u8; 4]> = (0u32..).take(chain.endpoints.len()).map(u32::to_ne_bytes).collect();
    if chain.affinity_s.is_some() {
        let owns: Vec<String> = chain.endpoints.iter().map(|end| end_name(name, *end)).collect();
        for own in &owns {
            let mut known = load(expr::IP_SADDR, R0);
            known.push(Expr::Lookup { set: SetRef::named(own), key: R0, to: Found::Go });
            known.push(Expr::Verdict(Verdict::Goto(own)));
            batch.rule(name, &known);
        }
        let pairs = keys.iter().zip(&owns);
        let elements: Vec<_> = pairs.map(|(key, own)| Element { key, value: ElementValue::Goto(own) }).collect();
        let set = SetRef { name: ANONYMOUS, id: Some(batch.anonymous_map(TURN_CHAIN_TYPE, &elements)) };
        return batch.rule(name, &[turn, Expr::Lookup { set, key: R0, to: Found::Verdict }]);
    }
    if let [(address, port)] = chain.endpoints.as_slice() {
        let mut rule = Vec::from(transport(chain));
        rule.extend(to_endpoint(*address, *port));
        return batch.rule(name, &rule);
    }
    let values: Vec<Vec<u8>> = chain.endpoints.iter().map(|(a, p)| parts(&[&a.octets(), &p.to_be_bytes()])).collect();
    let pairs = keys.iter().zip(&values);
    let elements: Vec<_> = pairs.map(|(key, data)| Element { key, value: ElementValue::Data(data) }).collect();
    let set = SetRef { name: ANONYMOUS, id: Some(batch.anonymous_map(TURN_TYPE, &elements)) };
    let mut rule = Vec::from(transport(chain));
    rule.push(turn);
    rule.push(Expr::Lookup { set, key: R0, to: Found::Value(R1) });
    rule.push(Expr::Dnat { addr: R1, port: R2 });
    batch.rule(name, &rule);
}

/// `dnat to address:port`.
fn to_endpoint<'a>(address: Ipv4Addr, port: u16) -> [Expr<'a>; 3] {
    [
        Expr::Load { to: R1, data: address.octets().to_vec() },
        Expr::Load { to: R2, data: port.to_be_bytes().to_vec() },
        Expr::Dnat { addr: R1, port: R2 },
    ]
}

/// Only for who lists the rules: nft wants to know the transport before it shows ports.
fn transport<'a>(chain: &Chain) -> [Expr<'a>; 2] {
    [Expr::Meta { key: Meta::L4Proto, to: R0 }, Expr::Cmp { reg: R0, equal: true, data: vec![chain.protocol as u8] }]
}

fn load<'a>(field: Field, to: Reg) -> Vec<Expr<'a>> {
    vec![Expr::Payload { field, to }]
}

fn proto_and_port<'a>(proto: Reg, port: Reg) -> [Expr<'a>; 2] {
    [Expr::Meta { key: Meta::L4Proto, to: proto }, Expr::Payload { field: expr::TH_DPORT, to: port }]
}

fn bare(key: &[u8]) -> Element<'_> {
    Element { key, value: ElementValue::None }
}

fn front_key(front: &Front) -> Vec<u8> {
    parts(&[&front.address.octets(), &[front.protocol as u8], &front.port.to_be_bytes()])
}

fn node_port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    parts(&[&[protocol as u8], &port.to_be_bytes()])
}

fn hairpin_key(address: Ipv4Addr) -> Vec<u8> {
    parts(&[&address.octets(), &address.octets()])
}

/// A joined key: each part fills whole registers.
fn parts(parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(12);
    for part in parts {
        key.extend_from_slice(part);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}
