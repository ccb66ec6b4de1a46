//! What is served, for clients that ask: legacy (`/api`, `/apis/...`) and aggregated discovery.

use mote_api::kind::{Kind, Registry};
use mote_api::status::Status;
use mote_api::tree::{Value, json, set};

use super::App;
use super::answer::{self, Answer};
use super::asked::Asked;

/// Groups in registry order, each with its versions, the preferred one first.
pub(super) fn groups(registry: &Registry) -> Vec<(&str, Vec<&str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for kind in registry.all() {
        match groups.iter_mut().find(|(g, _)| *g == kind.group) {
            Some((_, versions)) if versions.contains(&&*kind.version) => {}
            Some((_, versions)) => versions.push(&kind.version),
            None => groups.push((&kind.group, vec![&kind.version])),
        }
    }
    groups
}

pub(super) fn answer(app: &App, asked: &Asked, registry: &Registry, path: &str) -> Result<Answer, Status> {
    let accept = asked.header(hyper::header::ACCEPT);
    let aggregated = accept
        .split(',')
        .find(|a| a.contains("as=APIGroupDiscoveryList"))
        .map(|a| if a.contains("v=v2beta1") { "v2beta1" } else { "v2" });
    let mut parts = path.trim_start_matches('/').split('/');
    let wanted = (parts.next(), parts.next(), parts.next(), parts.next());
    if let (Some(version), (Some("api" | "apis"), None, ..)) = (aggregated, wanted) {
        let core = wanted.0 == Some("api");
        let mut answer = answer::value(200, &aggregate(registry, version, core));
        let ty = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        if let Ok(value) = ty.parse() {
            answer.headers_mut().insert(hyper::header::CONTENT_TYPE, value);
        }
        return Ok(answer);
    }
    let value = match wanted {
        (Some("api"), None, ..) => {
            let address = app.api.config.advertise;
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": format!("{address}:{}", app.api.config.listen.port())}]})
        }
        (Some("apis"), None, ..) => {
            let groups = groups(registry).into_iter().filter(|(g, _)| !g.is_empty()).map(|(g, v)| group(g, &v));
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>()})
        }
        (Some("apis"), Some(name), None, _) => {
            let groups = groups(registry);
            let (name, versions) = groups.into_iter().find(|(g, _)| *g == name).ok_or_else(Status::no_such_resource)?;
            let mut value = group(name, &versions);
            set(&mut value, &["kind"], "APIGroup".into());
            set(&mut value, &["apiVersion"], "v1".into());
            value
        }
        (Some("api"), Some(version), None, _) => resources(registry, "", version)?,
        (Some("apis"), Some(group), Some(version), None) => resources(registry, group, version)?,
        _ => return Err(Status::no_such_resource()),
    };
    Ok(answer::value(200, &value))
}

fn group(name: &str, versions: &[&str]) -> Value {
    let version = |v: &&str| json!({"groupVersion": format!("{name}/{v}"), "version": v});
    json!({"name": name, "versions": versions.iter().map(version).collect::<Vec<_>>(), "preferredVersion": versions.first().map(version)})
}

/// Verbs and kind of a subresource: (group, version, kind, verbs).
fn subresource(kind: &Kind, sub: &str) -> (String, String, String, &'static [&'static str]) {
    type Verbs = &'static [&'static str];
    const FIXED: [(&str, &str, &str, &str, Verbs); 4] = [
        ("scale", "autoscaling", "v1", "Scale", &["get", "patch", "update"]),
        ("binding", "", "v1", "Binding", &["create"]),
        ("eviction", "policy", "v1", "Eviction", &["create"]),
        ("token", "authentication.k8s.io", "v1", "TokenRequest", &["create"]),
    ];
    if let Some((_, group, version, name, verbs)) = FIXED.iter().find(|f| f.0 == sub) {
        return ((*group).into(), (*version).into(), (*name).into(), verbs);
    }
    let (name, verbs): (String, Verbs) = match sub {
        "log" => (kind.kind.to_string(), &["get"]),
        "exec" | "attach" | "portforward" => (format!("{}{}Options", kind.kind, title(sub)), &["create", "get"]),
        "finalize" => (kind.kind.to_string(), &["update"]),
        _ => (kind.kind.to_string(), &["get", "patch", "update"]),
    };
    (kind.group.to_string(), kind.version.to_string(), name, verbs)
}

fn title(sub: &str) -> &str {
    match sub {
        "exec" => "Exec",
        "attach" => "Attach",
        _ => "PortForward",
    }
}

fn resources(registry: &Registry, group: &str, version: &str) -> Result<Value, Status> {
    let mut list = Vec::new();
    for kind in registry.all().iter().filter(|k| k.group == group && k.version == version) {
        let mut row = json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind, "verbs": kind.verbs.names()});
        if !kind.short_names.is_empty() {
            set(&mut row, &["shortNames"], json!(kind.short_names));
        }
        if !kind.categories.is_empty() {
            set(&mut row, &["categories"], json!(kind.categories));
        }
        list.push(row);
        for sub in &kind.subresources {
            let (g, v, k, verbs) = subresource(kind, sub);
            let mut row = json!({"name": format!("{}/{sub}", kind.plural), "singularName": "", "namespaced": kind.namespaced, "kind": k, "verbs": verbs});
            if g != group || v != version {
                set(&mut row, &["group"], g.into());
                set(&mut row, &["version"], v.into());
            }
            list.push(row);
        }
    }
    if list.is_empty() {
        return Err(Status::no_such_resource());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}

fn aggregate(registry: &Registry, version: &str, core: bool) -> Value {
    let groups = groups(registry).into_iter().filter(|(g, _)| g.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions.iter().map(|v| aggregate_version(registry, group, v)).collect();
            let meta = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": meta, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items})
}

fn aggregate_version(registry: &Registry, group: &str, version: &str) -> Value {
    let kinds = registry.all().iter().filter(|k| k.group == group && k.version == version);
    let resources: Vec<Value> = kinds
        .map(|kind| {
            let scope = if kind.namespaced { "Namespaced" } else { "Cluster" };
            let subs: Vec<Value> = kind.subresources.iter().map(|sub| {
                let (g, v, k, verbs) = subresource(kind, sub);
                json!({"subresource": sub, "responseKind": {"group": g, "version": v, "kind": k}, "verbs": verbs})
            }).collect();
            let mut row = json!({
                "resource": kind.plural, "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
                "scope": scope, "singularResource": kind.singular, "verbs": kind.verbs.names(),
            });
            for (name, list) in [("shortNames", json!(kind.short_names)), ("categories", json!(kind.categories)), ("subresources", json!(subs))] {
                if list.as_array().is_some_and(|l| !l.is_empty()) {
                    set(&mut row, &[name], list);
                }
            }
            row
        })
        .collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}
