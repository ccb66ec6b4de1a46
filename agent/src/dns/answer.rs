//! What the cluster says to a question: pure, from the Services as they are now. Follows Kubernetes' "DNS-Based Service
//! Discovery" specification 1.1.0 and, where that is silent, what CoreDNS does.

use std::net::Ipv4Addr;

use super::wire::{Answer, Data, Query, Rcode, Record, kind};
use crate::proxy::services::{Endpoint, Entry, Kind, Service, Services};

/// Seconds for which clients may keep an answer (CoreDNS' default).
const TTL_S: u32 = 5;
/// Aliases followed inside the cluster.
const ALIASES_MAX: usize = 8;
/// Records of one answer; a headless Service may have more endpoints.
const RECORDS_MAX: usize = 1000;

/// What to do with a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Reply(Answer),
    /// Not ours: ask the other servers.
    Forward,
    /// The answer so far ends in an alias to this name outside: ask for its addresses and add them.
    Chase(Answer, String),
}

/// The zone we speak for.
pub(crate) struct Zone {
    name: String,
    labels: Vec<String>,
}

impl Zone {
    pub(crate) fn new(domain: &str) -> Zone {
        let name = domain.trim_matches('.').to_ascii_lowercase();
        Zone { labels: name.split('.').map(str::to_owned).collect(), name }
    }
}

/// Records found, or why there are none.
enum Found {
    /// The name exists; no records means it has none of this kind.
    Records(Vec<Record>, Vec<Record>),
    Alias(String),
    Nothing,
}

/// Answers a question.
pub(crate) fn answer(query: &Query, services: &Services, zone: &Zone) -> Outcome {
    let names: Vec<&str> = query.labels.iter().map(String::as_str).collect();
    let mut path = names.clone();
    let mut answers: Vec<Record> = Vec::new();
    let mut owned: Vec<String>;
    for _ in 0..ALIASES_MAX {
        let owner = answers.last().and_then(|r| if let Data::Cname(to) = &r.data { Some(to.clone()) } else { None });
        let Some(inner) = strip(&path, zone) else {
            return match owner {
                Some(target) => Outcome::Chase(reply(Rcode::NoError, answers, Vec::new(), Vec::new()), target),
                None => reverse(&path, query, services, zone),
            };
        };
        match look_up(inner, query, services, zone) {
            Found::Records(mut found, extra) => {
                found.iter_mut().for_each(|r| r.owner = owner.clone());
                let authority = if found.is_empty() { vec![soa(services, zone)] } else { Vec::new() };
                answers.extend(found);
                return Outcome::Reply(reply(Rcode::NoError, answers, authority, extra));
            }
            Found::Nothing => {
                return Outcome::Reply(reply(Rcode::NxDomain, answers, vec![soa(services, zone)], Vec::new()));
            }
            Found::Alias(target) => {
                answers.push(Record { owner, ttl_s: TTL_S, data: Data::Cname(target.clone()) });
                if query.kind == kind::CNAME {
                    return Outcome::Reply(reply(Rcode::NoError, answers, Vec::new(), Vec::new()));
                }
                owned = target.to_ascii_lowercase().split('.').map(str::to_owned).collect();
                path = owned.iter().map(String::as_str).collect();
            }
        }
    }
    Outcome::Reply(Answer::failed(Rcode::ServFail))
}

fn reply(rcode: Rcode, answers: Vec<Record>, authority: Vec<Record>, additional: Vec<Record>) -> Answer {
    Answer { rcode, authoritative: true, answers, authority, additional }
}

fn soa(services: &Services, zone: &Zone) -> Record {
    // Any number that changes with the zone will do.
    let serial = (services.generation() & u64::from(u32::MAX)) as u32;
    let data = Data::Soa { zone: zone.name.clone(), serial, negative_ttl_s: TTL_S };
    Record { owner: Some(zone.name.clone()), ttl_s: TTL_S, data }
}

/// The labels in front of the zone's, if the name is in it.
fn strip<'a, 'b>(path: &'b [&'a str], zone: &Zone) -> Option<&'b [&'a str]> {
    let at = path.len().checked_sub(zone.labels.len())?;
    let (inner, tail) = path.split_at_checked(at)?;
    tail.iter().zip(&zone.labels).all(|(a, b)| *a == b.as_str()).then_some(inner)
}

fn look_up(inner: &[&str], query: &Query, services: &Services, zone: &Zone) -> Found {
    match inner {
        [] => {
            let asked = matches!(query.kind, kind::SOA | kind::ANY);
            Found::Records(if asked { vec![soa(services, zone)] } else { Vec::new() }, Vec::new())
        }
        ["svc" | "pod"] => nodata(),
        [namespace, "svc"] => exists(services.has_namespace(namespace)),
        [dashed, _, "pod"] => dashed_address(dashed).map_or(Found::Nothing, |a| addresses(&[a], query)),
        [rest @ .., name, namespace, "svc"] => match services.get(namespace, name) {
            Some((service, entry)) => of_service(rest, name, namespace, service, entry, query, zone),
            None => Found::Nothing,
        },
        _ => Found::Nothing,
    }
}

fn of_service(
    rest: &[&str],
    name: &str,
    namespace: &str,
    service: &Service,
    entry: &Entry,
    query: &Query,
    zone: &Zone,
) -> Found {
    let base = format!("{name}.{namespace}.svc.{}", zone.name);
    match (rest, &service.kind) {
        ([], Kind::External(target)) if is_name(target) => Found::Alias(target.clone()),
        (_, Kind::External(_)) => Found::Nothing,
        ([], Kind::Virtual(ip)) if query.kind != kind::SRV => addresses(&[*ip], query),
        ([], Kind::Headless) if query.kind != kind::SRV => addresses(&ready(entry), query),
        ([], _) => srv(None, &base, service, entry),
        ([port, protocol], _) if port.starts_with('_') && protocol.starts_with('_') => {
            let (port, protocol) = (port.get(1..).unwrap_or(""), protocol.get(1..).unwrap_or(""));
            match srv(Some((port, protocol)), &base, service, entry) {
                Found::Records(..) if query.kind != kind::SRV && query.kind != kind::ANY => nodata(),
                found => found,
            }
        }
        ([protocol], _) if protocol.starts_with('_') => {
            exists(service.ports.iter().any(|p| protocol.get(1..) == Some(p.protocol.name())))
        }
        ([host], _) => {
            let mut known = endpoints(entry).filter(|e| host_name(e) == *host).peekable();
            if known.peek().is_none() {
                return Found::Nothing;
            }
            let found: Vec<Ipv4Addr> = known.map(|e| e.address).take(RECORDS_MAX).collect();
            addresses(&found, query)
        }
        _ => Found::Nothing,
    }
}

/// SRV records: of the Service itself, or for a headless one of each endpoint with its address beside it.
fn srv(wanted: Option<(&str, &str)>, base: &str, service: &Service, entry: &Entry) -> Found {
    let fits = |name: &str, protocol: &str| wanted.is_none_or(|(n, p)| name.eq_ignore_ascii_case(n) && protocol == p);
    let mut targets: Vec<(u16, String, Ipv4Addr)> = Vec::new();
    match service.kind {
        Kind::Virtual(ip) => {
            let ports = service.ports.iter().filter(|p| !p.name.is_empty() && fits(&p.name, p.protocol.name()));
            targets.extend(ports.map(|p| (p.port, base.to_owned(), ip)));
        }
        _ => {
            for slice in entry.slices.values() {
                for port in slice.ports.iter().filter(|p| !p.name.is_empty() && fits(&p.name, p.protocol.name())) {
                    let up = slice.endpoints.iter().filter(|e| e.ready);
                    targets.extend(up.map(|e| (port.port, format!("{}.{base}", host_name(e)), e.address)));
                }
            }
        }
    }
    targets.truncate(RECORDS_MAX);
    if targets.is_empty() {
        return if wanted.is_some() { Found::Nothing } else { nodata() };
    }
    let weight = u16::try_from(100 / targets.len()).unwrap_or(1).max(1);
    let record = |data, owner| Record { owner, ttl_s: TTL_S, data };
    let extra = targets.iter().map(|(_, target, address)| record(Data::A(*address), Some(target.clone()))).collect();
    let found =
        targets.iter().map(|(port, target, _)| record(Data::Srv { weight, port: *port, target: target.clone() }, None));
    Found::Records(found.collect(), extra)
}

/// `in-addr.arpa` names of cluster IPs and endpoints; all others are not ours.
fn reverse(path: &[&str], query: &Query, services: &Services, zone: &Zone) -> Outcome {
    let [d, c, b, a, "in-addr", "arpa"] = path else { return Outcome::Forward };
    let Ok(address) = format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>() else { return Outcome::Forward };
    let mut names = Vec::new();
    for (namespace, name) in services.by_address(address) {
        let Some((service, entry)) = services.get(&namespace, &name) else { continue };
        let base = format!("{name}.{namespace}.svc.{}", zone.name);
        if service.kind == Kind::Virtual(address) {
            names.push(base);
        } else if let Some(endpoint) = endpoints(entry).find(|e| e.address == address) {
            names.push(format!("{}.{base}", host_name(endpoint)));
        }
    }
    if names.is_empty() {
        return Outcome::Forward;
    }
    let asked = matches!(query.kind, kind::PTR | kind::ANY);
    let authority = if asked { Vec::new() } else { vec![soa(services, zone)] };
    names.retain(|_| asked);
    let answers = names.into_iter().map(|name| Record { owner: None, ttl_s: TTL_S, data: Data::Ptr(name) }).collect();
    Outcome::Reply(reply(Rcode::NoError, answers, authority, Vec::new()))
}

/// Address records. Every client starts with another one.
fn addresses(found: &[Ipv4Addr], query: &Query) -> Found {
    if !matches!(query.kind, kind::A | kind::ANY) {
        return nodata();
    }
    let first = usize::from(query.id).checked_rem(found.len()).unwrap_or(0);
    let turned = found.iter().cycle().skip(first).take(found.len());
    Found::Records(turned.map(|a| Record { owner: None, ttl_s: TTL_S, data: Data::A(*a) }).collect(), Vec::new())
}

fn nodata() -> Found {
    Found::Records(Vec::new(), Vec::new())
}

fn exists(it_does: bool) -> Found {
    if it_does { nodata() } else { Found::Nothing }
}

fn endpoints(entry: &Entry) -> impl Iterator<Item = &Endpoint> {
    entry.slices.values().flat_map(|slice| &slice.endpoints).filter(|e| e.ready)
}

fn ready(entry: &Entry) -> Vec<Ipv4Addr> {
    let mut found: Vec<Ipv4Addr> = endpoints(entry).map(|e| e.address).collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(RECORDS_MAX);
    found
}

/// A pod's name below its Service: its hostname, else its address with dashes.
fn host_name(endpoint: &Endpoint) -> String {
    if endpoint.hostname.is_empty() {
        endpoint.address.to_string().replace('.', "-")
    } else {
        endpoint.hostname.to_ascii_lowercase()
    }
}

fn dashed_address(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

/// Whether a Service's external name can be written into an answer.
fn is_name(text: &str) -> bool {
    text.len() < 250 && text.split('.').all(|label| (1..=63).contains(&label.len()))
}

#[cfg(test)]
mod tests;
