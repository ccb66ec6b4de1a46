//! Services, and of EndpointSlices and Endpoints just enough to see whether they still say what they should.

use super::labels::Selector;
use super::pod::protocol;
use super::{Meta, fingerprint};
use mote_api::tree::{Value, bool_at, i64_at, json, list_at, str_at};
use std::rc::Rc;

/// Names the Service of an EndpointSlice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who keeps an EndpointSlice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our name there, as upstream's, so that a change of control plane changes nothing.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    Number(u16),
    Name(Box<str>),
}

pub struct ServicePort {
    pub name: Box<str>,
    pub protocol: Box<str>,
    pub app_protocol: Option<Box<str>>,
    pub target: Target,
}

pub struct Service {
    pub meta: Meta,
    pub selector: Selector,
    pub external_name: bool,
    pub headless: bool,
    pub publish_not_ready: bool,
    pub ports: Box<[ServicePort]>,
    /// IPv6 is among the Service's families.
    pub ipv6: bool,
    /// IPv4 is, or nothing is said.
    pub ipv4: bool,
}

impl Service {
    pub fn parse(object: &Value) -> Self {
        let ports = list_at(object, &["spec", "ports"]).iter().map(|port| {
            let own = i64_at(port, &["port"]).and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
            let target = match port.get("targetPort") {
                Some(Value::String(name)) => name.parse().map_or(Target::Name(name.as_str().into()), Target::Number),
                Some(Value::Number(n)) => {
                    Target::Number(n.as_i64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(own))
                }
                _ => Target::Number(own),
            };
            ServicePort {
                name: str_at(port, &["name"]).into(),
                protocol: protocol(port),
                app_protocol: port.get("appProtocol").and_then(Value::as_str).map(Into::into),
                target,
            }
        });
        let family = |name: &str| list_at(object, &["spec", "ipFamilies"]).iter().any(|f| f.as_str() == Some(name));
        Service {
            meta: Meta::parse(object),
            selector: Selector::parse_map(object.pointer("/spec/selector")),
            external_name: str_at(object, &["spec", "type"]) == "ExternalName",
            headless: str_at(object, &["spec", "clusterIP"]) == "None",
            publish_not_ready: bool_at(object, &["spec", "publishNotReadyAddresses"]).unwrap_or(false),
            ports: ports.collect(),
            ipv6: family("IPv6"),
            ipv4: family("IPv4") || !family("IPv6"),
        }
    }
}

/// An EndpointSlice, or an Endpoints object (whose Service has its own name).
pub struct Slice {
    pub meta: Meta,
    pub service: Rc<str>,
    pub managed: bool,
    pub v6: bool,
    /// Of all that its controller writes.
    pub content: u64,
}

impl Slice {
    pub fn parse(object: &Value) -> Self {
        let meta = Meta::parse(object);
        Slice {
            service: meta.labels.get(SERVICE_NAME).unwrap_or_default().into(),
            managed: meta.labels.get(MANAGED_BY) == Some(MANAGER),
            v6: str_at(object, &["addressType"]) == "IPv6",
            content: slice_content(object),
            meta,
        }
    }

    pub fn parse_endpoints(object: &Value) -> Self {
        let meta = Meta::parse(object);
        Slice { service: meta.key.name.clone(), managed: true, v6: false, content: endpoints_content(object), meta }
    }
}

/// Fingerprint of what the EndpointSlice controller writes.
pub fn slice_content(object: &Value) -> u64 {
    let part = |field: &str| object.get(field).cloned().unwrap_or_default();
    fingerprint(&json!([part("addressType"), part("endpoints"), part("ports"), labels(object)]))
}

/// Fingerprint of what the Endpoints controller writes.
pub fn endpoints_content(object: &Value) -> u64 {
    fingerprint(&json!([object.get("subsets").cloned().unwrap_or_default(), labels(object)]))
}

fn labels(object: &Value) -> Value {
    object.pointer("/metadata/labels").cloned().unwrap_or_default()
}
