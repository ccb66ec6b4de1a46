//! Field selectors: equality of a few fields of each kind.

use super::{REQUIREMENTS_MAX, SelectorError, error};
use crate::kind::Kind;
use crate::tree::{Value, at, str_at};

/// `?fieldSelector=`: `metadata.name=x,spec.nodeName!=y`
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct FieldRequirement {
    field: String,
    equal: bool,
    value: String,
}

/// The fields besides metadata.name and metadata.namespace that upstream lets each resource be selected by.
const SELECTABLE: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
    ),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("services", &["spec.clusterIP", "spec.type"]),
    ("replicationcontrollers", &["status.replicas"]),
    ("replicasets.apps", &["status.replicas"]),
    ("jobs.batch", &["status.successful"]),
    ("certificatesigningrequests.certificates.k8s.io", &["spec.signerName"]),
    ("events", EVENT_FIELDS),
    ("events.events.k8s.io", EVENT_FIELDS),
];
const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "reportingController",
];

impl FieldSelector {
    /// Which fields a kind allows: [`FieldSelector::unsupported`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_unescaped(text, ',').into_iter().filter(|t| !t.is_empty()) {
            if requirements.len() >= REQUIREMENTS_MAX {
                return error(format!("more than {REQUIREMENTS_MAX} requirements"));
            }
            let Some(at) = term.find(['=', '!']) else {
                return error(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            let (field, rest) = term.split_at(at);
            let (equal, value) =
                match (rest.strip_prefix("!="), rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))) {
                    (Some(value), _) => (false, value),
                    (_, Some(value)) => (true, value),
                    _ => return error(format!("invalid selector: '{text}'; can't understand '{term}'")),
                };
            requirements.push(FieldRequirement { field: field.to_string(), equal, value: unescape(value)? });
        }
        Ok(Self { requirements })
    }
    /// The first field that the kind cannot be selected by (upstream: 400 `field label not supported: spec.x`).
    pub fn unsupported(&self, kind: &Kind) -> Option<&str> {
        let resource = kind.resource();
        let extra = SELECTABLE.iter().find(|(r, _)| *r == resource).map_or(&[][..], |(_, fields)| fields);
        let custom = kind.custom.as_ref().map_or(&[][..], |c| &c.selectable);
        let known = |f: &str| {
            f == "metadata.name"
                || (f == "metadata.namespace" && kind.namespaced)
                || extra.contains(&f)
                || custom.iter().any(|c| c == f)
        };
        self.requirements.iter().map(|r| r.field.as_str()).find(|f| !known(f))
    }
    /// The value `field` must have, if the selector says one (to turn `metadata.name=x` into a get).
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements.iter().all(|r| (field_text(object, &r.field) == r.value) == r.equal)
    }
}

/// A field as the selector sees it: absent text is empty, absent truth is false, absent counts are 0.
fn field_text(object: &Value, field: &str) -> String {
    let path = match field {
        "source" => &["source", "component"][..],
        "reportingComponent" if object.get("reportingComponent").is_none() => &["source", "component"],
        "status.successful" => &["status", "succeeded"],
        _ => &[],
    };
    let found = if path.is_empty() { at(object, &field.split('.').collect::<Vec<_>>()) } else { at(object, path) };
    match found {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Array(all)) => all.iter().map(|i| str_at(i, &["ip"])).collect::<Vec<_>>().join(","),
        Some(Value::Null) | None => match field {
            "spec.unschedulable" | "spec.hostNetwork" => "false".into(),
            "status.replicas" | "status.successful" => "0".into(),
            _ => String::new(),
        },
        Some(other) => other.to_string(),
    }
}

fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut escaped = false;
    text.split(move |c| {
        let splits = c == separator && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
    .collect()
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    return error(format!(
                        "invalid field selector: invalid escape sequence: \\{}",
                        other.map(String::from).unwrap_or_default()
                    ));
                }
            },
            ',' | '=' => return error(format!("invalid field selector: unescaped '{c}' in value: {value}")),
            c => out.push(c),
        }
    }
    Ok(out)
}
