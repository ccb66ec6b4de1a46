//! Where a pod wants to be: terms of node affinity, of affinity to pods and against them, and spread.

use super::Meta;
use super::labels::{Labels, Requirement, Selector};
use mote_api::tree::{Value, i64_at, list_at, str_at};
use std::rc::Rc;

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

    /// Whether it means this pod.
    pub fn matches(&self, pod: &Meta) -> bool {
        (self.everywhere || self.namespaces.contains(&pod.key.ns)) && self.selector.matches(&pod.labels)
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
    pub(super) fn parse(affinity: &Value, ns: &Rc<str>) -> Self {
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
    pub(super) fn parse(spread: &Value, labels: &Labels) -> Self {
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
