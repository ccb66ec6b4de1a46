//! OpenAPI, as much of it as clients read: for every kind a PATCH with its group-version-kind and the `fieldValidation` parameter (by which
//! kubectl learns that the server validates), and the fields of the kind from the schema table for `explain`.

use mote_api::kind::{Kind, Registry};
use mote_api::status::Status;
use mote_api::tree::{Value, json, set};

use super::answer::{self, Answer};
use super::discovery::groups;

/// `/openapi/v2` is only ever read as protobuf: a gnostic Document with swagger (1), info (2) and empty paths (8). Without definitions old clients
/// skip their own validation.
pub(super) fn v2() -> Answer {
    const DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.0\x42\x00";
    answer::bytes(200, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", DOCUMENT)
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

pub(super) fn index(registry: &Registry) -> Value {
    let mut paths = json!({});
    for (group, versions) in groups(registry) {
        for version in versions {
            let path = path_of(group, version);
            let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
            set(&mut paths, &[&path], json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

pub(super) fn group_version(registry: &Registry, path: &str) -> Result<Answer, Status> {
    let mut parts = path.split('/');
    let (group, version) = match (parts.next(), parts.next(), parts.next()) {
        (Some("api"), Some(version), None) => ("", version),
        (Some("apis"), Some(group), Some(version)) => (group, version),
        _ => return Err(Status::no_such_resource()),
    };
    let kinds: Vec<_> = registry.all().iter().filter(|k| k.group == group && k.version == version).collect();
    if kinds.is_empty() {
        return Err(Status::no_such_resource());
    }
    let (mut paths, mut schemas) = (json!({}), json!({}));
    for kind in kinds {
        let scope = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let base = format!("/{}/{scope}{}", path_of(group, version), kind.plural);
        let name = schema_name(kind);
        let body = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}});
        let operation = |action: &str| json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(kind), "parameters": parameters(), "responses": {"200": {"description": "OK", "content": body}}});
        set(&mut paths, &[&base], json!({"get": operation("list"), "post": operation("post")}));
        let one = json!({"get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete")});
        set(&mut paths, &[&format!("{base}/{{name}}")], one);
        set(&mut schemas, &[&name], json!({"type": "object", "x-kubernetes-group-version-kind": [gvk(kind)]}));
    }
    let document = json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": paths, "components": {"schemas": schemas}});
    Ok(answer::value(200, &document))
}

fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn schema_name(kind: &Kind) -> String {
    let group = kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    format!("io.k8s.api.{group}.{}.{}", kind.version, kind.kind)
}

fn parameters() -> Value {
    let one = |name: &str, ty: &str| json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}});
    json!([
        one("dryRun", "string"),
        one("fieldManager", "string"),
        one("fieldValidation", "string"),
        one("force", "boolean")
    ])
}
