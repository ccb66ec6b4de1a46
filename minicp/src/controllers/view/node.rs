//! Nodes and their leases.

use super::labels::Labels;
use super::resources::Resources;
use super::taints::{Effect, Taint};
use super::{Meta, time_at};
use mote_api::time::Time;
use mote_api::tree::{Value, bool_at, list_at, map_at, str_at};
use std::rc::Rc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub fn parse(text: &str) -> Self {
        match text {
            "True" => Truth::True,
            "False" => Truth::False,
            _ => Truth::Unknown,
        }
    }
}

pub struct Node {
    pub meta: Meta,
    pub unschedulable: bool,
    pub taints: Box<[Taint]>,
    pub allocatable: Resources,
    /// Condition Ready; absent reads as `None`.
    pub ready: Option<Truth>,
    /// When the node last wrote its status, by its own clock: only good for telling that it did.
    pub heartbeat: Option<Time>,
    /// Conditions MemoryPressure, DiskPressure, PIDPressure, NetworkUnavailable that are true.
    pub pressures: Box<[&'static str]>,
    pub pod_cidrs: Box<[Box<str>]>,
    /// Bytes of the images it has, by name: for the score of image locality.
    pub images: Box<[(Box<str>, i64)]>,
}

/// Conditions that taint a node while they are true, and their taints.
pub const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

impl Node {
    pub fn parse(object: &Value) -> Self {
        let conditions = list_at(object, &["status", "conditions"]);
        let condition = |name: &str| {
            conditions.iter().find(|c| str_at(c, &["type"]) == name).map(|c| Truth::parse(str_at(c, &["status"])))
        };
        let ready = conditions.iter().find(|c| str_at(c, &["type"]) == "Ready");
        let heartbeat = ready.and_then(|ready| time_at(ready, &["lastHeartbeatTime"]));
        let taints = list_at(object, &["spec", "taints"]).iter().filter_map(|taint| {
            Some(Taint {
                key: str_at(taint, &["key"]).into(),
                value: str_at(taint, &["value"]).into(),
                effect: Effect::parse(str_at(taint, &["effect"]))?,
                added: time_at(taint, &["timeAdded"]),
            })
        });
        let mut pod_cidrs: Vec<Box<str>> =
            list_at(object, &["spec", "podCIDRs"]).iter().filter_map(Value::as_str).map(Into::into).collect();
        let first = str_at(object, &["spec", "podCIDR"]);
        if pod_cidrs.is_empty() && !first.is_empty() {
            pod_cidrs.push(first.into());
        }
        let images = list_at(object, &["status", "images"]).iter().flat_map(|image| {
            let size = mote_api::tree::i64_at(image, &["sizeBytes"]).unwrap_or(0);
            list_at(image, &["names"]).iter().filter_map(move |name| Some((name.as_str()?.into(), size)))
        });
        Node {
            meta: Meta::parse(object),
            unschedulable: bool_at(object, &["spec", "unschedulable"]).unwrap_or(false),
            taints: taints.collect(),
            allocatable: Resources::parse(
                map_at(object, &["status", "allocatable"]).or_else(|| map_at(object, &["status", "capacity"])),
            ),
            ready: condition("Ready"),
            heartbeat,
            pressures: PRESSURES.iter().map(|(name, _)| *name).filter(|n| condition(n) == Some(Truth::True)).collect(),
            pod_cidrs: pod_cidrs.into(),
            images: images.collect(),
        }
    }

    pub fn name(&self) -> &Rc<str> {
        &self.meta.key.name
    }

    pub fn labels(&self) -> &Labels {
        &self.meta.labels
    }

    pub fn has_taint(&self, key: &str, effect: Effect) -> bool {
        self.taints.iter().any(|t| &*t.key == key && t.effect == effect)
    }
}

/// A node's heartbeat in namespace kube-node-lease. Its time is not compared with our clock: a board's clock may be years off.
pub struct Lease {
    pub meta: Meta,
    pub renewed: Option<Time>,
}

impl Lease {
    pub fn parse(object: &Value) -> Self {
        Lease { meta: Meta::parse(object), renewed: time_at(object, &["spec", "renewTime"]) }
    }
}
