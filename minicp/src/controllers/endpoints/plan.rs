//! Which EndpointSlices and Endpoints a Service should have: pure.

use crate::controllers::view::node::Node;
use crate::controllers::view::pod::Pod;
use crate::controllers::view::service::{MANAGED_BY, MANAGER, SERVICE_NAME, Service, Slice, Target, slice_content};
use mote_api::tree::{Value, json, set};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Where nodes say which zone they are in.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Marks slices and Endpoints of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Addresses in one Endpoints object; more are left out, as upstream does.
const ENDPOINTS_MAX: usize = 1000;

/// A pod behind a Service, and its node where that is known.
pub struct Backend {
    pub pod: Rc<Pod>,
    pub node: Option<Rc<Node>>,
    pub leaving: bool,
}

/// Conditions of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    ready: bool,
    serving: bool,
    terminating: bool,
}

fn state(service: &Service, backend: &Backend) -> State {
    let serving = backend.pod.ready;
    State { ready: service.publish_not_ready || (serving && !backend.leaving), serving, terminating: backend.leaving }
}

/// Which port of the Service, and its number on the pod.
type Ports = Vec<(usize, u16)>;

/// The Service's ports as this pod has them; a port that the pod does not name is left out.
fn ports(service: &Service, pod: &Pod) -> Ports {
    let resolve = |(at, port): (usize, &crate::controllers::view::service::ServicePort)| {
        let number = match &port.target {
            Target::Number(number) => Some(*number),
            Target::Name(name) => {
                pod.ports.iter().find(|p| p.name == *name && p.protocol == port.protocol).map(|p| p.port)
            }
        };
        number.map(|number| (at, number))
    };
    service.ports.iter().enumerate().filter_map(resolve).collect()
}

fn port_values(service: &Service, ports: &[(usize, u16)]) -> Vec<Value> {
    let value = |(at, number): &(usize, u16)| {
        let port = service.ports.get(*at)?;
        let mut value = json!({"name": &*port.name, "port": number, "protocol": &*port.protocol});
        if let Some(app) = &port.app_protocol {
            set(&mut value, &["appProtocol"], json!(&**app));
        }
        Some(value)
    };
    ports.iter().filter_map(value).collect()
}

fn usable(backend: &Backend) -> bool {
    !backend.pod.ended() && !backend.pod.ips.is_empty()
}

fn target(pod: &Pod) -> Value {
    json!({"kind": "Pod", "namespace": &*pod.meta.key.ns, "name": &*pod.meta.key.name, "uid": &*pod.meta.uid})
}

fn hostname<'a>(service: &Service, pod: &'a Pod) -> Option<&'a str> {
    (!pod.hostname.is_empty() && *pod.subdomain == *service.meta.key.name).then_some(&*pod.hostname)
}

fn labels(service: &Service) -> Value {
    let mut labels = json!({});
    for (key, value) in service.meta.labels.iter() {
        set(&mut labels, &[key], json!(value));
    }
    if service.headless {
        set(&mut labels, &[HEADLESS], json!(""));
    }
    labels
}

/// The slices there should be; names are given when they are made.
pub fn slices(service: &Service, backends: &[Backend], endpoints_max: usize) -> Vec<Value> {
    let mut groups: BTreeMap<(bool, Ports), Vec<Value>> = BTreeMap::new();
    let families = [(false, service.ipv4), (true, service.ipv6)];
    for (v6, _) in families.iter().filter(|(_, wanted)| *wanted) {
        for backend in backends.iter().filter(|b| usable(b)) {
            if let Some(ip) = backend.pod.ips.iter().find(|ip| ip.contains(':') == *v6) {
                let group = groups.entry((*v6, ports(service, &backend.pod))).or_default();
                group.push(endpoint(service, backend, ip));
            }
        }
        if !groups.keys().any(|(family, _)| family == v6) {
            groups.insert((*v6, Vec::new()), Vec::new()); // an empty slice says that somebody looked
        }
    }
    let mut out = Vec::new();
    for ((v6, ports), endpoints) in groups {
        let chunks: Vec<&[Value]> =
            if endpoints.is_empty() { vec![&[]] } else { endpoints.chunks(endpoints_max.max(1)).collect() };
        for chunk in chunks {
            let mut all = labels(service);
            set(&mut all, &[SERVICE_NAME], json!(&*service.meta.key.name));
            set(&mut all, &[MANAGED_BY], json!(MANAGER));
            out.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "generateName": format!("{}-", service.meta.key.name), "namespace": &*service.meta.key.ns, "labels": all,
                    "ownerReferences": [{
                        "apiVersion": "v1", "kind": "Service", "name": &*service.meta.key.name, "uid": &*service.meta.uid,
                        "controller": true, "blockOwnerDeletion": true,
                    }],
                },
                "addressType": if v6 { "IPv6" } else { "IPv4" },
                "endpoints": chunk, "ports": port_values(service, &ports),
            }));
        }
    }
    out
}

fn endpoint(service: &Service, backend: &Backend, ip: &str) -> Value {
    let State { ready, serving, terminating } = state(service, backend);
    let pod = &backend.pod;
    let mut endpoint = json!({
        "addresses": [ip], "targetRef": target(pod),
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
    });
    if let Some(node) = &pod.node {
        set(&mut endpoint, &["nodeName"], json!(&**node));
    }
    if let Some(zone) = backend.node.as_ref().and_then(|node| node.labels().get(ZONE)) {
        set(&mut endpoint, &["zone"], json!(zone));
    }
    if let Some(hostname) = hostname(service, pod) {
        set(&mut endpoint, &["hostname"], json!(hostname));
    }
    endpoint
}

/// The Endpoints object of old clients: one subset per set of ports.
pub fn endpoints(service: &Service, backends: &[Backend]) -> Value {
    let mut groups: BTreeMap<Ports, [Vec<Value>; 2]> = BTreeMap::new();
    let usable = backends.iter().filter(|b| usable(b) && (!b.leaving || service.publish_not_ready));
    for backend in usable.take(ENDPOINTS_MAX) {
        let pod = &backend.pod;
        let Some(ip) = pod.ips.iter().find(|ip| ip.contains(':') != service.ipv4) else { continue };
        let mut address = json!({"ip": &**ip, "targetRef": target(pod)});
        if let Some(node) = &pod.node {
            set(&mut address, &["nodeName"], json!(&**node));
        }
        if let Some(hostname) = hostname(service, pod) {
            set(&mut address, &["hostname"], json!(hostname));
        }
        let [ready, not_ready] = groups.entry(ports(service, pod)).or_default();
        if state(service, backend).ready { ready.push(address) } else { not_ready.push(address) }
    }
    let subsets: Vec<Value> = groups
        .into_iter()
        .map(|(ports, [ready, not_ready])| {
            let mut subset = json!({});
            for (field, list) in
                [("addresses", ready), ("notReadyAddresses", not_ready), ("ports", port_values(service, &ports))]
            {
                if !list.is_empty() {
                    set(&mut subset, &[field], json!(list));
                }
            }
            subset
        })
        .collect();
    let mut all = labels(service);
    set(&mut all, &["endpoints.kubernetes.io/managed-by"], json!("endpoint-controller"));
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": &*service.meta.key.name, "namespace": &*service.meta.key.ns, "labels": all},
        "subsets": subsets,
    })
}

/// Writes that turn what there is into what there should be.
#[derive(Default)]
pub struct Diff {
    pub create: Vec<Value>,
    pub update: Vec<(Rc<Slice>, Value)>,
    pub delete: Vec<Rc<Slice>>,
}

/// Slices that already say the right thing are not touched; the others are rewritten before any is made or deleted.
pub fn diff(wanted: Vec<Value>, existing: &[Rc<Slice>]) -> Diff {
    let mut spare: Vec<Rc<Slice>> = existing.to_vec();
    let mut missing = Vec::new();
    for slice in wanted {
        let content = slice_content(&slice);
        match spare.iter().position(|s| s.content == content) {
            Some(at) => drop(spare.swap_remove(at)),
            None => missing.push(slice),
        }
    }
    let mut diff = Diff::default();
    for slice in missing {
        // addressType is immutable: a slice is only ever rewritten within its family
        match spare.iter().position(|s| s.v6 == (mote_api::tree::str_at(&slice, &["addressType"]) == "IPv6")) {
            Some(at) => diff.update.push((spare.swap_remove(at), slice)),
            None => diff.create.push(slice),
        }
    }
    diff.delete = spare;
    diff
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
