//! The Services of the cluster with their endpoints, as proxy and DNS read them: fed object by object from two watches.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use mote_api::tree::Value;
use mote_api::{meta, tree};

/// Limits of upstream's validation, held here too: an object beyond them is cut, not obeyed.
const PORTS_MAX: usize = 250;
const ENDPOINTS_MAX: usize = 1000;
const EXTERNAL_ADDRESSES_MAX: usize = 64;
/// Default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_DEFAULT_S: u32 = 10_800;

/// Services joined with their EndpointSlices. The one truth behind the proxy's table and the DNS answers: the agent keeps
/// it in an `Arc<RefCell<Services>>`, changes it from its watches, then calls `Proxy::apply`; the DNS server reads it as it is.
#[derive(Default)]
pub struct Services {
    entries: BTreeMap<Key, Entry>,
    /// Which Service each slice belongs to, by (namespace, slice name).
    slices: HashMap<Key, String>,
    generation: u64,
    reverse: RefCell<Option<Reverse>>,
}

/// (namespace, name) of a Service or a slice.
pub(crate) type Key = (String, String);
type Reverse = HashMap<Ipv4Addr, Vec<Key>>;

/// A Service, if it is known already, and its slices by name.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) slices: BTreeMap<String, Arc<Slice>>,
}

/// What a Service asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Service {
    pub(crate) kind: Kind,
    pub(crate) ports: Vec<ServicePort>,
    /// External and load balancer addresses.
    pub(crate) external: Vec<Ipv4Addr>,
    /// Only endpoints of the client's own node, for clients inside / outside the cluster.
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    /// Seconds for which a client keeps its endpoint.
    pub(crate) affinity_s: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Cluster IP, NodePort and LoadBalancer.
    Virtual(Ipv4Addr),
    Headless,
    External(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

/// A transport with its IP protocol number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    fn parse(text: &str) -> Option<Protocol> {
        match text {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// As in SRV names and rule names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// An EndpointSlice of IPv4 addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slice {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) ports: Vec<SlicePort>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: Ipv4Addr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) hostname: String,
    pub(crate) node: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SlicePort {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl Services {
    /// A Service was added or changed.
    pub fn set_service(&mut self, service: &Value) {
        let parsed = parse_service(service);
        let key = key(service);
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.service.as_deref() != parsed.as_ref() {
            entry.service = parsed.map(Arc::new);
            self.touched(&key);
        }
    }

    /// A Service is gone.
    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.service.take().is_some()
        {
            self.touched(&key);
        }
    }

    /// An EndpointSlice was added or changed.
    pub fn set_slice(&mut self, slice: &Value) {
        let (namespace, name) = key(slice);
        let owner = meta::label(slice, "kubernetes.io/service-name").to_owned();
        let Some(parsed) = parse_slice(slice).filter(|_| !owner.is_empty()) else {
            return self.remove_slice(&namespace, &name);
        };
        let slice_key = (namespace.clone(), name.clone());
        if self.slices.get(&slice_key).is_some_and(|old| *old != owner) {
            self.remove_slice(&namespace, &name);
        }
        self.slices.insert(slice_key, owner.clone());
        let key = (namespace, owner);
        let slices = &mut self.entries.entry(key.clone()).or_default().slices;
        if slices.get(&name).map(Arc::as_ref) != Some(&parsed) {
            slices.insert(name, Arc::new(parsed));
            self.touched(&key);
        }
    }

    /// An EndpointSlice is gone.
    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        let Some(owner) = self.slices.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        let key = (namespace.to_owned(), owner);
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.slices.remove(name).is_some()
        {
            self.touched(&key);
        }
    }

    /// A relist: makes this exactly what the two lists say.
    pub fn replace<'a>(
        &mut self,
        services: impl IntoIterator<Item = &'a Value>,
        slices: impl IntoIterator<Item = &'a Value>,
    ) {
        let mut fresh = Services::default();
        services.into_iter().for_each(|service| fresh.set_service(service));
        slices.into_iter().for_each(|slice| fresh.set_slice(slice));
        fresh.generation = self.generation.wrapping_add(1);
        *self = fresh;
    }

    /// Changes with every change.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// All Services that are known, in order, with their slices.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Service>, &Entry)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.service.as_ref()?, entry)))
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<(&Service, &Entry)> {
        let entry = self.entries.get(&(namespace.to_owned(), name.to_owned()))?;
        Some((entry.service.as_deref()?, entry))
    }

    /// Whether any Service lives in the namespace.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        let from = (namespace.to_owned(), String::new());
        self.entries.range(from..).take_while(|(k, _)| k.0 == namespace).any(|(_, e)| e.service.is_some())
    }

    /// The Services that have this cluster IP or endpoint address.
    pub(crate) fn by_address(&self, address: Ipv4Addr) -> Vec<Key> {
        let mut reverse = self.reverse.borrow_mut();
        reverse.get_or_insert_with(|| self.index()).get(&address).cloned().unwrap_or_default()
    }

    fn index(&self) -> Reverse {
        let mut index = Reverse::new();
        for (key, service, entry) in self.iter() {
            let own = if let Kind::Virtual(ip) = service.kind { Some(ip) } else { None };
            let endpoints = entry.slices.values().flat_map(|s| s.endpoints.iter().map(|e| e.address));
            for address in own.into_iter().chain(endpoints) {
                let keys = index.entry(address).or_default();
                if keys.last() != Some(key) {
                    keys.push(key.clone());
                }
            }
        }
        index
    }

    fn touched(&mut self, key: &Key) {
        self.generation = self.generation.wrapping_add(1);
        *self.reverse.get_mut() = None;
        if self.entries.get(key).is_some_and(|e| e.service.is_none() && e.slices.is_empty()) {
            self.entries.remove(key);
        }
    }
}

fn key(object: &Value) -> Key {
    (meta::namespace(object).to_owned(), meta::name(object).to_owned())
}

fn parse_service(object: &Value) -> Option<Service> {
    let spec = |field: &str| tree::str_at(object, &["spec", field]);
    let kind = match (spec("type"), spec("clusterIP")) {
        ("ExternalName", _) => Kind::External(spec("externalName").trim_end_matches('.').to_owned()),
        (_, "None") => Kind::Headless,
        // IPv6 only, or not yet given an address.
        (_, ip) => Kind::Virtual(ip.parse().ok()?),
    };
    let ports = tree::list_at(object, &["spec", "ports"]).iter().take(PORTS_MAX).filter_map(|port| {
        Some(ServicePort {
            name: tree::str_at(port, &["name"]).to_owned(),
            protocol: Protocol::parse(tree::str_at(port, &["protocol"]))?,
            port: port_at(port, "port")?,
            node_port: port_at(port, "nodePort"),
        })
    });
    let listed = tree::list_at(object, &["spec", "externalIPs"]).iter().filter_map(Value::as_str);
    let ingress = tree::list_at(object, &["status", "loadBalancer", "ingress"]).iter();
    let balanced = ingress.filter(|i| tree::str_at(i, &["ipMode"]) != "Proxy").map(|i| tree::str_at(i, &["ip"]));
    let seconds = tree::i64_at(object, &["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
    let seconds = seconds.and_then(|s| u32::try_from(s).ok()).filter(|s| *s > 0).unwrap_or(AFFINITY_DEFAULT_S);
    Some(Service {
        kind,
        ports: ports.collect(),
        external: listed.chain(balanced).filter_map(|ip| ip.parse().ok()).take(EXTERNAL_ADDRESSES_MAX).collect(),
        internal_local: spec("internalTrafficPolicy") == "Local",
        external_local: spec("externalTrafficPolicy") == "Local",
        affinity_s: (spec("sessionAffinity") == "ClientIP").then_some(seconds),
    })
}

fn parse_slice(object: &Value) -> Option<Slice> {
    if tree::str_at(object, &["addressType"]) != "IPv4" {
        return None;
    }
    let endpoints = tree::list_at(object, &["endpoints"]).iter().take(ENDPOINTS_MAX).filter_map(|endpoint| {
        let condition = |name: &str| tree::bool_at(endpoint, &["conditions", name]);
        // Absent conditions: ready and serving count as true, terminating as false (discovery.k8s.io/v1).
        let ready = condition("ready").unwrap_or(true);
        Some(Endpoint {
            address: tree::list_at(endpoint, &["addresses"]).first()?.as_str()?.parse().ok()?,
            ready,
            serving: condition("serving").unwrap_or(ready),
            terminating: condition("terminating").unwrap_or(false),
            hostname: tree::str_at(endpoint, &["hostname"]).to_owned(),
            node: tree::str_at(endpoint, &["nodeName"]).to_owned(),
        })
    });
    let ports = tree::list_at(object, &["ports"]).iter().take(PORTS_MAX).filter_map(|port| {
        Some(SlicePort {
            name: tree::str_at(port, &["name"]).to_owned(),
            protocol: Protocol::parse(tree::str_at(port, &["protocol"]))?,
            port: port_at(port, "port")?,
        })
    });
    Some(Slice { endpoints: endpoints.collect(), ports: ports.collect() })
}

fn port_at(value: &Value, field: &str) -> Option<u16> {
    tree::i64_at(value, &[field]).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(ip: &str) -> Value {
        json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}})
    }

    fn slice(name: &str, owner: &str, addresses: &[&str]) -> Value {
        let endpoints: Vec<_> = addresses.iter().map(|a| json!({"addresses": [a]})).collect();
        json!({"metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": owner}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}]})
    }

    #[test]
    fn joins_in_any_order_and_counts_changes() {
        let mut s = Services::default();
        s.set_slice(&slice("web-1", "web", &["10.0.0.1"]));
        assert!(s.get("ns", "web").is_none() && !s.has_namespace("ns"));
        s.set_service(&service("10.43.0.5"));
        let before = s.generation();
        s.set_service(&service("10.43.0.5"));
        s.set_slice(&slice("web-1", "web", &["10.0.0.1"]));
        assert_eq!(s.generation(), before, "the same again is no change");
        assert_eq!(s.get("ns", "web").unwrap().1.slices.len(), 1);
        assert!(s.has_namespace("ns") && !s.has_namespace("n") && !s.has_namespace("nsx"));
        assert_eq!(s.by_address([10, 0, 0, 1].into()), s.by_address([10, 43, 0, 5].into()));

        s.set_slice(&slice("web-1", "other", &["10.0.0.1"]));
        assert!(s.get("ns", "web").unwrap().1.slices.is_empty(), "a relabelled slice moves");
        assert!(s.by_address([10, 0, 0, 1].into()).is_empty());
        s.remove_slice("ns", "web-1");
        s.remove_service("ns", "web");
        s.remove_service("ns", "web");
        assert!(s.entries.is_empty() && s.slices.is_empty());
    }

    #[test]
    fn a_relist_forgets_what_it_does_not_name() {
        let mut s = Services::default();
        s.set_service(&service("10.43.0.5"));
        let before = s.generation();
        let slice = slice("web-1", "web", &["10.0.0.1", "bad", "fe80::1"]);
        s.replace([], [&slice]);
        assert!(s.get("ns", "web").is_none());
        assert_ne!(s.generation(), before);
        s.replace([&service("10.43.0.6")], [&slice]);
        let (found, entry) = s.get("ns", "web").unwrap();
        assert_eq!(found.kind, Kind::Virtual([10, 43, 0, 6].into()));
        assert_eq!(entry.slices["web-1"].endpoints.len(), 1, "only what is an IPv4 address");
    }

    #[test]
    fn reads_every_field_with_its_default() {
        let got = |spec: Value| parse_service(&json!({"metadata": {}, "spec": spec}));
        assert_eq!(got(json!({"clusterIP": "fd00::1"})), None);
        assert_eq!(got(json!({})), None);
        assert_eq!(got(json!({"clusterIP": "None"})).unwrap().kind, Kind::Headless);
        let external = got(json!({"type": "ExternalName", "externalName": "a.example."})).unwrap();
        assert_eq!(external.kind, Kind::External("a.example".into()));
        let full = got(json!({"clusterIP": "10.43.0.1", "externalIPs": ["192.0.2.7"], "sessionAffinity": "ClientIP",
            "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
            "ports": [{"name": "d", "port": 53, "protocol": "UDP", "nodePort": 30053}, {"port": 0}, {"port": 70000}]}));
        let full = full.unwrap();
        assert_eq!((full.internal_local, full.external_local, full.affinity_s), (true, true, Some(10_800)));
        assert_eq!(full.external, [Ipv4Addr::new(192, 0, 2, 7)]);
        let port = ServicePort { name: "d".into(), protocol: Protocol::Udp, port: 53, node_port: Some(30053) };
        assert_eq!(full.ports, [port]);
        let conditions = |c: Value| {
            let e = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": c}]});
            let e = parse_slice(&e).unwrap().endpoints.remove(0);
            (e.ready, e.serving, e.terminating)
        };
        assert_eq!(conditions(json!({})), (true, true, false));
        assert_eq!(conditions(json!({"ready": false})), (false, false, false));
        assert_eq!(conditions(json!({"ready": false, "serving": true, "terminating": true})), (false, true, true));
    }
}
