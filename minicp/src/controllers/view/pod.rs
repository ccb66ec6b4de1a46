//! Pods: what scheduling, counting, ranking, endpoints and eviction read of them.

use super::labels::{Labels, Requirement, Selector};
use super::node::{Effect, Taint};
use super::{Meta, time_at};
use mote_api::quantity::Quantity;
use mote_api::time::Time;
use mote_api::tree::{Map, Value, bool_at, i64_at, list_at, map_at, str_at};
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

/// Amounts of what a node has or a pod asks for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Only of nodes.
    pub pods: i64,
    /// Extended resources, sorted by name.
    pub extended: Box<[(Box<str>, i64)]>,
}

impl Resources {
    pub fn parse(map: Option<&Map<String, Value>>) -> Self {
        let mut all = Resources::default();
        let mut extended = Vec::new();
        for (name, value) in map.into_iter().flatten() {
            let Some(quantity) = Quantity::of(value) else { continue };
            match name.as_str() {
                "cpu" => all.cpu_milli = quantity.milli(),
                "memory" => all.memory_bytes = quantity.value(),
                "ephemeral-storage" => all.ephemeral_bytes = quantity.value(),
                "pods" => all.pods = quantity.value(),
                _ => extended.push((name.as_str().into(), quantity.value())),
            }
        }
        all.extended = extended.into();
        all
    }

    pub fn extended(&self, name: &str) -> i64 {
        self.extended.iter().find(|(n, _)| &**n == name).map_or(0, |(_, amount)| *amount)
    }

    /// Adds (`sign` 1) or takes away (`sign` -1).
    pub fn add(&mut self, other: &Resources, sign: i64) {
        self.merge(other, |mine, theirs| mine.saturating_add(theirs.saturating_mul(sign)));
    }

    fn raise(&mut self, other: &Resources) {
        self.merge(other, std::cmp::max);
    }

    fn merge(&mut self, other: &Resources, f: impl Fn(i64, i64) -> i64) {
        self.cpu_milli = f(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = f(self.memory_bytes, other.memory_bytes);
        self.ephemeral_bytes = f(self.ephemeral_bytes, other.ephemeral_bytes);
        if other.extended.iter().all(|(name, _)| self.extended.iter().any(|(mine, _)| mine == name)) {
            for (name, mine) in &mut self.extended {
                *mine = f(*mine, other.extended(name));
            }
            return;
        }
        let mut extended = std::mem::take(&mut self.extended).into_vec();
        extended.iter_mut().for_each(|(name, mine)| *mine = f(*mine, other.extended(name)));
        for (name, theirs) in &other.extended {
            if !extended.iter().any(|(mine, _)| mine == name) {
                extended.push((name.clone(), f(0, *theirs)));
            }
        }
        extended.sort();
        self.extended = extended.into();
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

pub struct Toleration {
    /// Empty with `exists`: every taint.
    pub key: Box<str>,
    pub exists: bool,
    pub value: Box<str>,
    pub effect: Option<Effect>,
    /// For how long a NoExecute taint is borne; `None` is for ever.
    pub seconds: Option<i64>,
}

impl Toleration {
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && if self.exists {
                self.key.is_empty() || self.key == taint.key
            } else {
                self.key == taint.key && self.value == taint.value
            }
    }
}

/// A nodeSelectorTerm: all of it must hold; an empty one matches no node.
pub struct NodeTerm {
    pub labels: Box<[Requirement]>,
    pub fields: Box<[Requirement]>,
}

impl NodeTerm {
    pub fn parse(term: &Value) -> Self {
        let all = |field: &str| list_at(term, &[field]).iter().map(Requirement::parse).collect();
        NodeTerm { labels: all("matchExpressions"), fields: all("matchFields") }
    }

    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        !(self.labels.is_empty() && self.fields.is_empty())
            && self.labels.iter().all(|r| r.matches(labels))
            && self.fields.iter().all(|r| r.matches_name(name))
    }
}

/// One term of pod affinity or anti-affinity.
pub struct PodTerm {
    pub topology_key: Box<str>,
    pub selector: Selector,
    /// Namespaces it looks at; the pod's own is filled in where none is named.
    pub namespaces: Box<[Rc<str>]>,
    /// `namespaceSelector: {}`: every namespace.
    pub everywhere: bool,
    /// Of a preferred term.
    pub weight: i64,
}

impl PodTerm {
    fn parse(term: &Value, weight: i64, own: &Rc<str>) -> Self {
        let mut namespaces: Vec<Rc<str>> =
            list_at(term, &["namespaces"]).iter().filter_map(Value::as_str).map(Into::into).collect();
        let selector = Selector::parse(term.get("namespaceSelector"));
        if namespaces.is_empty() && !selector.is_some() {
            namespaces.push(own.clone());
        }
        PodTerm {
            topology_key: str_at(term, &["topologyKey"]).into(),
            selector: Selector::parse(term.get("labelSelector")),
            namespaces: namespaces.into(),
            everywhere: selector.is_everything(),
            weight,
        }
    }

    pub fn matches(&self, pod: &Pod) -> bool {
        (self.everywhere || self.namespaces.contains(&pod.meta.key.ns)) && self.selector.matches(&pod.meta.labels)
    }
}

#[derive(Default)]
pub struct Affinity {
    /// Any of these, if there are any.
    pub node_required: Option<Box<[NodeTerm]>>,
    pub node_preferred: Box<[(i64, NodeTerm)]>,
    pub with_required: Box<[PodTerm]>,
    pub with_preferred: Box<[PodTerm]>,
    pub without_required: Box<[PodTerm]>,
    pub without_preferred: Box<[PodTerm]>,
}

impl Affinity {
    fn parse(affinity: &Value, ns: &Rc<str>) -> Self {
        let required = |which: &str| {
            list_at(affinity, &[which, "requiredDuringSchedulingIgnoredDuringExecution"])
                .iter()
                .map(|term| PodTerm::parse(term, 0, ns))
                .collect()
        };
        let preferred = |which: &str| {
            list_at(affinity, &[which, "preferredDuringSchedulingIgnoredDuringExecution"])
                .iter()
                .filter_map(|p| {
                    Some(PodTerm::parse(p.get("podAffinityTerm")?, i64_at(p, &["weight"]).unwrap_or(0), ns))
                })
                .collect()
        };
        let node = affinity.get("nodeAffinity");
        Affinity {
            node_required: node
                .and_then(|n| n.get("requiredDuringSchedulingIgnoredDuringExecution"))
                .filter(|r| r.is_object())
                .map(|r| list_at(r, &["nodeSelectorTerms"]).iter().map(NodeTerm::parse).collect()),
            node_preferred: list_at(affinity, &["nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"])
                .iter()
                .filter_map(|p| Some((i64_at(p, &["weight"]).unwrap_or(0), NodeTerm::parse(p.get("preference")?))))
                .collect(),
            with_required: required("podAffinity"),
            with_preferred: preferred("podAffinity"),
            without_required: required("podAntiAffinity"),
            without_preferred: preferred("podAntiAffinity"),
        }
    }
}

pub struct Spread {
    pub topology_key: Box<str>,
    pub max_skew: i64,
    pub hard: bool,
    pub selector: Selector,
    pub min_domains: i64,
    /// `nodeAffinityPolicy: Honor` (the default): nodes the pod cannot select do not count as domains.
    pub honor_affinity: bool,
    /// `nodeTaintsPolicy: Honor`; the default is to ignore taints.
    pub honor_taints: bool,
}

impl Spread {
    fn parse(spread: &Value, labels: &Labels) -> Self {
        let mut selector = Selector::parse(spread.get("labelSelector"));
        for key in list_at(spread, &["matchLabelKeys"]).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                selector = selector.and(key, value);
            }
        }
        Spread {
            topology_key: str_at(spread, &["topologyKey"]).into(),
            max_skew: i64_at(spread, &["maxSkew"]).unwrap_or(1),
            hard: str_at(spread, &["whenUnsatisfiable"]) != "ScheduleAnyway",
            selector,
            min_domains: i64_at(spread, &["minDomains"]).unwrap_or(1),
            honor_affinity: str_at(spread, &["nodeAffinityPolicy"]) != "Ignore",
            honor_taints: str_at(spread, &["nodeTaintsPolicy"]) == "Honor",
        }
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
            tolerations: list_at(spec, &["tolerations"]).iter().map(toleration).collect(),
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

fn toleration(t: &Value) -> Toleration {
    Toleration {
        key: str_at(t, &["key"]).into(),
        exists: str_at(t, &["operator"]) == "Exists",
        value: str_at(t, &["value"]).into(),
        effect: Effect::parse(str_at(t, &["effect"])),
        seconds: i64_at(t, &["tolerationSeconds"]),
    }
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

/// What the scheduler sets aside (KEP-753): containers and sidecars run together; an init container runs beside the sidecars
/// started before it; plus the overhead.
fn requests(spec: &Value) -> Resources {
    let of = |c: &Value| Resources::parse(map_at(c, &["resources", "requests"]));
    let mut running = Resources::default();
    containers(spec).for_each(|c| running.add(&of(c), 1));
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for init in list_at(spec, &["initContainers"]) {
        let mut at_once = of(init);
        if str_at(init, &["restartPolicy"]) == "Always" {
            running.add(&at_once, 1);
            sidecars.add(&at_once, 1);
            peak.raise(&sidecars);
        } else {
            at_once.add(&sidecars, 1);
            peak.raise(&at_once);
        }
    }
    running.raise(&peak);
    let whole = Resources::parse(map_at(spec, &["resources", "requests"]));
    if whole.cpu_milli != 0 {
        running.cpu_milli = whole.cpu_milli;
    }
    if whole.memory_bytes != 0 {
        running.memory_bytes = whole.memory_bytes;
    }
    running.add(&Resources::parse(map_at(spec, &["overhead"])), 1);
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::json;

    fn c(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn requests_of_init_containers_and_sidecars() {
        let mut side = c("100m");
        side["restartPolicy"] = json!("Always");
        let rows = [
            (json!({"containers": [c("1"), c("500m")]}), 1500),
            (json!({"containers": [c("1")], "initContainers": [c("3")]}), 3000),
            (json!({"containers": [c("1")], "initContainers": [side, c("3")]}), 3100),
            (json!({"containers": [c("1")], "initContainers": [c("3"), side]}), 3000),
            (json!({"containers": [c("1")], "initContainers": [side]}), 1100),
            (json!({"containers": [c("1")], "overhead": {"cpu": "10m"}}), 1010),
        ];
        for (spec, want) in rows {
            assert_eq!(requests(&spec).cpu_milli, want, "{spec}");
        }
    }

    #[test]
    fn extended_resources_add_and_subtract() {
        let parse = |v: Value| Resources::parse(v.as_object());
        let mut sum = parse(json!({"a/x": "1"}));
        sum.add(&parse(json!({"b/y": "2", "a/x": "3"})), 1);
        assert_eq!((sum.extended("a/x"), sum.extended("b/y"), sum.extended("c/z")), (4, 2, 0));
        sum.add(&parse(json!({"b/y": "2"})), -1);
        assert_eq!((sum.extended("a/x"), sum.extended("b/y")), (4, 0));
    }

    #[test]
    fn host_ports_clash_by_address_and_protocol() {
        let port = |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        assert!(port("", "TCP", 80).clashes(&port("10.0.0.1", "TCP", 80)));
        assert!(!port("10.0.0.2", "TCP", 80).clashes(&port("10.0.0.1", "TCP", 80)));
        assert!(!port("", "TCP", 80).clashes(&port("", "UDP", 80)));
        assert!(!port("", "TCP", 80).clashes(&port("", "TCP", 81)));
    }
}
