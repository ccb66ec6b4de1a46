//! Pods: what scheduling, counting, ranking, endpoints and eviction read of them.

use super::affinity::{Affinity, Spread};
use super::labels::Labels;
use super::resources::{Resources, requests};
use super::taints::Toleration;
use super::{Meta, time_at};
use mote_api::time::Time;
use mote_api::tree::{Value, bool_at, i64_at, list_at, map_at, str_at};
use std::rc::Rc;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl Phase {
    fn parse(text: &str) -> Self {
        match text {
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            "Unknown" => Phase::Unknown,
            _ => Phase::Pending,
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct HostPort {
    pub ip: Box<str>,
    pub protocol: Box<str>,
    pub port: u16,
}

impl HostPort {
    /// Both cannot be bound on one machine.
    pub fn clashes(&self, other: &HostPort) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A named container port.
pub struct NamedPort {
    pub name: Box<str>,
    pub protocol: Box<str>,
    pub port: u16,
}

pub struct Pod {
    pub meta: Meta,
    pub node: Option<Rc<str>>,
    pub phase: Phase,
    pub ready: bool,
    /// When condition Ready last turned.
    pub ready_since: Option<Time>,
    pub started: Option<Time>,
    pub restarts: i64,
    pub deletion_cost: i64,
    pub scheduler: Box<str>,
    pub gated: bool,
    pub priority: i64,
    pub requests: Resources,
    pub host_ports: Box<[HostPort]>,
    pub tolerations: Box<[Toleration]>,
    pub node_selector: Labels,
    pub affinity: Option<Box<Affinity>>,
    pub spread: Box<[Spread]>,
    pub images: Box<[Box<str>]>,
    pub ips: Box<[Box<str>]>,
    pub host_network: bool,
    pub hostname: Box<str>,
    pub subdomain: Box<str>,
    pub ports: Box<[NamedPort]>,
    /// Condition PodScheduled is False with this message.
    pub unscheduled_message: Option<Box<str>>,
    /// Made by an agent from a file: not ours to delete.
    pub mirror: bool,
    /// `batch.kubernetes.io/job-completion-index`
    pub completion_index: Option<u32>,
    /// Carries the finalizer by which a Job counts it.
    pub job_tracked: bool,
    /// Last time one of its containers ended, as RFC 3339 seconds.
    pub finished: Option<Time>,
}

impl Pod {
    pub fn parse(object: &Value) -> Self {
        let meta = Meta::parse(object);
        let null = Value::Null;
        let spec = object.get("spec").unwrap_or(&null);
        let status = object.get("status").unwrap_or(&null);
        let condition = |name: &str| list_at(status, &["conditions"]).iter().find(|c| str_at(c, &["type"]) == name);
        let ready = condition("Ready");
        let statuses = list_at(status, &["containerStatuses"]);
        let annotation = |key: &str| str_at(object, &["metadata", "annotations", key]);
        let scheduled = condition("PodScheduled").filter(|c| str_at(c, &["status"]) == "False");
        let mut ips: Vec<Box<str>> = list_at(status, &["podIPs"]).iter().map(|ip| str_at(ip, &["ip"]).into()).collect();
        if ips.is_empty() && !str_at(status, &["podIP"]).is_empty() {
            ips.push(str_at(status, &["podIP"]).into());
        }
        Pod {
            node: Some(str_at(spec, &["nodeName"])).filter(|n| !n.is_empty()).map(Into::into),
            phase: Phase::parse(str_at(status, &["phase"])),
            ready: ready.is_some_and(|c| str_at(c, &["status"]) == "True"),
            ready_since: ready.and_then(|c| time_at(c, &["lastTransitionTime"])),
            started: time_at(status, &["startTime"]),
            restarts: statuses.iter().filter_map(|c| i64_at(c, &["restartCount"])).max().unwrap_or(0),
            deletion_cost: annotation("controller.kubernetes.io/pod-deletion-cost").parse().unwrap_or(0),
            scheduler: str_at(spec, &["schedulerName"]).into(),
            gated: !list_at(spec, &["schedulingGates"]).is_empty(),
            priority: i64_at(spec, &["priority"]).unwrap_or(0),
            requests: requests(spec),
            host_ports: host_ports(spec),
            tolerations: list_at(spec, &["tolerations"]).iter().map(Toleration::parse).collect(),
            node_selector: Labels::parse(spec.get("nodeSelector")),
            affinity: map_at(spec, &["affinity"])
                .filter(|a| !a.is_empty())
                .and(spec.get("affinity"))
                .map(|a| Box::new(Affinity::parse(a, &meta.key.ns))),
            spread: list_at(spec, &["topologySpreadConstraints"])
                .iter()
                .map(|s| Spread::parse(s, &meta.labels))
                .collect(),
            images: containers(spec).map(|c| str_at(c, &["image"]).into()).collect(),
            ips: ips.into(),
            host_network: bool_at(spec, &["hostNetwork"]).unwrap_or(false),
            hostname: str_at(spec, &["hostname"]).into(),
            subdomain: str_at(spec, &["subdomain"]).into(),
            ports: named_ports(spec),
            unscheduled_message: scheduled.map(|c| str_at(c, &["message"]).into()),
            mirror: !annotation("kubernetes.io/config.mirror").is_empty(),
            completion_index: annotation("batch.kubernetes.io/job-completion-index").parse().ok(),
            job_tracked: mote_api::meta::finalizers(object).any(|f| f == "batch.kubernetes.io/job-tracking"),
            finished: statuses.iter().filter_map(|c| time_at(c, &["state", "terminated", "finishedAt"])).max(),
            meta,
        }
    }

    /// The one node it may go to, as a DaemonSet pins it, or the one it is on.
    pub fn meant_for(&self) -> Option<&str> {
        let pinned = || {
            let terms = self.affinity.as_ref()?.node_required.as_ref()?;
            terms.first()?.fields.iter().find_map(|field| field.only_name())
        };
        self.node.as_deref().or_else(pinned)
    }

    /// It has ended and will not start again.
    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Ready for at least `min_ready_seconds`.
    pub fn available(&self, min_ready_seconds: i64, now: Time) -> bool {
        self.ready
            && (min_ready_seconds == 0
                || self.ready_since.is_some_and(|since| now.seconds_since(since) >= min_ready_seconds))
    }

    /// Milliseconds until it becomes available, if it is ready but not yet long enough.
    pub fn available_in_ms(&self, min_ready_seconds: i64, now: Time) -> Option<u64> {
        let since = self.ready_since.filter(|_| self.ready && !self.available(min_ready_seconds, now))?;
        let left = min_ready_seconds.saturating_sub(now.seconds_since(since)).max(1);
        Some(u64::try_from(left).unwrap_or(1).saturating_mul(1000))
    }
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    list_at(spec, &["containers"]).iter()
}

fn host_ports(spec: &Value) -> Box<[HostPort]> {
    let sidecars = list_at(spec, &["initContainers"]).iter().filter(|c| str_at(c, &["restartPolicy"]) == "Always");
    containers(spec)
        .chain(sidecars)
        .flat_map(|c| list_at(c, &["ports"]))
        .filter_map(|port| {
            let number = i64_at(port, &["hostPort"]).and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)?;
            Some(HostPort { ip: str_at(port, &["hostIP"]).into(), protocol: protocol(port), port: number })
        })
        .collect()
}

fn named_ports(spec: &Value) -> Box<[NamedPort]> {
    let sidecars = list_at(spec, &["initContainers"]).iter().filter(|c| str_at(c, &["restartPolicy"]) == "Always");
    containers(spec)
        .chain(sidecars)
        .flat_map(|c| list_at(c, &["ports"]))
        .filter(|port| !str_at(port, &["name"]).is_empty())
        .filter_map(|port| {
            let number = i64_at(port, &["containerPort"]).and_then(|p| u16::try_from(p).ok())?;
            Some(NamedPort { name: str_at(port, &["name"]).into(), protocol: protocol(port), port: number })
        })
        .collect()
}

/// Of a port of a container or a Service; TCP unless said otherwise.
pub fn protocol(port: &Value) -> Box<str> {
    match str_at(port, &["protocol"]) {
        "" => "TCP".into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_clash_by_address_and_protocol() {
        let port = |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        assert!(port("", "TCP", 80).clashes(&port("10.0.0.1", "TCP", 80)));
        assert!(!port("10.0.0.2", "TCP", 80).clashes(&port("10.0.0.1", "TCP", 80)));
        assert!(!port("", "TCP", 80).clashes(&port("", "UDP", 80)));
        assert!(!port("", "TCP", 80).clashes(&port("", "TCP", 81)));
    }
}
