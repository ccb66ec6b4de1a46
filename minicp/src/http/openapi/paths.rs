//! The operations of a kind, as v3 documents list them.

use mote_api::kind::{Kind, Verbs};
use mote_api::openapi::v2::PARAMETERS;
use mote_api::openapi::{gvk, kind_id};
use mote_api::tree::{Value, json, set};

use super::path_of;

fn collection(kind: &Kind) -> String {
    let scope = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
    format!("/{}/{scope}{}", path_of(&kind.group, &kind.version), kind.plural)
}

/// The path of one object.
pub(super) fn one(kind: &Kind) -> String {
    format!("{}/{{name}}", collection(kind))
}

pub(super) fn add(paths: &mut Value, kind: &Kind) {
    let id = kind_id(kind);
    let reference = |id: &str| json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{id}")}}});
    let operation = |action: &str, id: &str, writes: bool| {
        let mut operation = json!({
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(kind),
            "responses": {"200": {"description": "OK", "content": reference(id)}},
        });
        if writes {
            set(&mut operation, &["parameters"], parameters());
        }
        operation
    };
    let mut all = json!({"post": operation("post", &id, true)});
    if kind.verbs == Verbs::All {
        set(&mut all, &["get"], operation("list", &format!("{id}List"), false));
        let one_object = json!({
            "get": operation("get", &id, false), "put": operation("put", &id, true),
            "patch": operation("patch", &id, true), "delete": operation("delete", "", true),
        });
        set(paths, &[&one(kind)], one_object);
        // What a delete answers is either.
        set(paths, &[&one(kind), "delete", "responses"], json!({"200": {"description": "OK"}}));
    }
    set(paths, &[&collection(kind)], all);
}

fn parameters() -> Value {
    let one =
        |(name, ty): &(&str, &str)| json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}});
    json!(PARAMETERS.iter().map(one).collect::<Vec<_>>())
}
