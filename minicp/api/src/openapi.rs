//! OpenAPI schemas, made from the table of types and from definitions when somebody asks. Nothing is kept.
//!
//! One tree per type serves both editions: v3 as JSON, v2 as protobuf ([`v2`]).

pub mod v2;

use std::collections::BTreeSet;

use crate::kind::{Kind, split_api_version};
use crate::schema::{self, ListRules, Shape, Type};
use crate::tree::{Value, bool_at, json, list_at, map_at, set, str_at};

/// Differs between builds that say different things of the built-in kinds.
pub fn fingerprint() -> u64 {
    use std::hash::{Hash, Hasher};
    static MADE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *MADE.get_or_init(|| {
        let mut hasher = std::hash::DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), WORDS, schema::TYPES).hash(&mut hasher);
        hasher.finish()
    })
}

/// Where schemas refer to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edition {
    V2,
    V3,
}

impl Edition {
    fn refer(self, id: &str) -> Value {
        let home = match self {
            Edition::V2 => "#/definitions/",
            Edition::V3 => "#/components/schemas/",
        };
        json!({"$ref": format!("{home}{id}")})
    }
    fn reference(self, type_name: &str) -> Value {
        self.refer(&type_id(type_name))
    }
}

/// What types and fields are for, in few words: `type words`, then ` field words`.
const WORDS: &str = include_str!("openapi/words.txt");

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// What schemas refer to and the table does not have as types.
pub fn basics(edition: Edition) -> [(&'static str, Value); 3] {
    let (quantity, either) = match edition {
        Edition::V2 => (json!({"type": "string"}), json!({"type": "string", "format": "int-or-string"})),
        Edition::V3 => (
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}),
        ),
    };
    let list = json!({"type": "object", "properties": {
        "continue": {"type": "string"}, "remainingItemCount": {"type": "integer", "format": "int64"},
        "resourceVersion": {"type": "string"}, "selfLink": {"type": "string"},
    }});
    [(QUANTITY, quantity), (INT_OR_STRING, either), (LIST_META, list)]
}

/// `apps/v1.Deployment` -> `io.k8s.api.apps.v1.Deployment`: upstream's names of the types of the table.
pub fn type_id(type_name: &str) -> String {
    let (home, name) = type_name.rsplit_once('.').unwrap_or(("", type_name));
    let (group, version) = split_api_version(home);
    match group {
        "meta" => format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{name}"),
        "apiextensions.k8s.io" => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{name}")
        }
        "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{name}"),
        "" => format!("io.k8s.api.core.{version}.{name}"),
        group => format!("io.k8s.api.{}.{version}.{name}", group.split('.').next().unwrap_or(group)),
    }
}

/// The name of a kind's schema; of custom ones the group is turned around: `com.example.stable.v1.CronTab`.
pub fn kind_id(kind: &Kind) -> String {
    if kind.custom.is_none() {
        return type_id(&kind.type_name);
    }
    let group: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), kind.version, kind.kind)
}

pub fn gvk(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// The schema of a type of the table. `kind`: the kind that it is the whole object of.
pub fn of_type(ty: Type<'_>, kind: Option<&Kind>, edition: Edition) -> Value {
    let mut properties = json!({});
    let mut required = Vec::new();
    let words = words_of(ty.name);
    for field in ty.fields() {
        let mut of = of_shape(field.shape, edition);
        if let Some(told) = words.clone().find_map(|l| l.strip_prefix(' ')?.strip_prefix(field.name)?.strip_prefix(' '))
        {
            of = described(of, told, edition);
        }
        if ty.retains_keys(field.name) && matches!(field.shape, Shape::Struct(..)) {
            set(&mut of, &["x-kubernetes-patch-strategy"], "retainKeys".into());
        }
        set(&mut properties, &[field.name], of);
        if field.required {
            required.push(field.name);
        }
    }
    let mut schema = json!({"type": "object"});
    if let Some(told) = words.clone().next().and_then(|l| l.strip_prefix(ty.name)) {
        set(&mut schema, &["description"], told.trim_start().into());
    }
    if properties.as_object().is_some_and(|p| !p.is_empty()) {
        set(&mut schema, &["properties"], properties);
    }
    if !required.is_empty() {
        set(&mut schema, &["required"], json!(required));
    }
    if let Some(kind) = kind {
        set(&mut schema, &["x-kubernetes-group-version-kind"], json!([gvk(kind)]));
    }
    schema
}

/// The lines about a type: its own first, then one per field.
fn words_of(type_name: &str) -> impl Iterator<Item = &'static str> + Clone {
    let is = |line: &&str| line.strip_prefix(type_name).is_some_and(|rest| rest.starts_with(' '));
    let at = WORDS.lines().position(|l| is(&l)).unwrap_or(usize::MAX);
    WORDS.lines().skip(at).enumerate().take_while(|(i, l)| *i == 0 || l.starts_with(' ')).map(|(_, l)| l)
}

/// Beside a `$ref` nothing else counts: in v3 it is wrapped.
fn described(mut schema: Value, told: &str, edition: Edition) -> Value {
    if edition == Edition::V3 && schema.get("$ref").is_some() {
        schema = json!({"allOf": [schema]});
    }
    set(&mut schema, &["description"], told.into());
    schema
}

fn of_shape(shape: Shape<'_>, edition: Edition) -> Value {
    match shape {
        Shape::String => json!({"type": "string"}),
        Shape::Int32 => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Float => json!({"type": "number", "format": "double"}),
        Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
        Shape::Quantity => edition.refer(QUANTITY),
        Shape::IntOrString => edition.refer(INT_OR_STRING),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        // Clients stumble over an empty schema in v3, and hold objects to a type in v2.
        Shape::Raw if edition == Edition::V3 => json!({"description": "Any JSON value."}),
        Shape::Raw => json!({}),
        Shape::List(inner, rules) => {
            let mut list = json!({"type": "array", "items": of_shape(inner.shape(), edition)});
            merging(&mut list, rules);
            list
        }
        Shape::Map(inner, _) => json!({"type": "object", "additionalProperties": of_shape(inner.shape(), edition)}),
        Shape::Struct(ty, _) => edition.reference(ty.name),
    }
}

/// How a list is merged, as clients that merge themselves read it.
fn merging(list: &mut Value, rules: ListRules<'_>) {
    let keys: Vec<&str> = rules.map_keys.split(',').filter(|k| !k.is_empty()).collect();
    let kind = match (rules.set, keys.is_empty()) {
        (true, _) => "set",
        (_, false) => "map",
        _ => "atomic",
    };
    set(list, &["x-kubernetes-list-type"], kind.into());
    if !keys.is_empty() {
        set(list, &["x-kubernetes-list-map-keys"], json!(keys));
    }
    if let Some(key) = rules.patch_key {
        let strategy = if rules.retain_keys { "merge,retainKeys" } else { "merge" };
        set(list, &["x-kubernetes-patch-strategy"], strategy.into());
        if !key.is_empty() {
            set(list, &["x-kubernetes-patch-merge-key"], key.into());
        }
    }
}

/// The schema of a list of a kind, and its name.
pub fn list_of(kind: &Kind, edition: Edition) -> (String, Value) {
    let id = kind_id(kind);
    let gvk = json!([{"group": kind.group, "version": kind.version, "kind": kind.list_kind()}]);
    let schema = json!({
        "type": "object", "required": ["items"], "x-kubernetes-group-version-kind": gvk,
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": edition.refer(LIST_META), "items": {"type": "array", "items": edition.refer(&id)},
        },
    });
    (format!("{id}List"), schema)
}

/// All types that a type leads to, itself first among them.
pub fn reachable(from: &str, found: &mut BTreeSet<&'static str>) {
    let mut todo: Vec<&'static str> = schema::find(from).map(|t| t.name).into_iter().collect();
    while let Some(name) = todo.pop() {
        if !found.insert(name) {
            continue;
        }
        for field in schema::find(name).iter().flat_map(|t| t.fields()) {
            let mut shape = field.shape;
            while let Shape::List(inner, _) | Shape::Map(inner, _) = shape {
                shape = inner.shape();
            }
            if let Shape::Struct(ty, _) = shape {
                todo.extend(schema::find(ty.name).map(|t| t.name));
            }
        }
    }
}

/// The schema of a custom kind, from its stored definition, with the fields that every object has.
pub fn of_definition(crd: &Value, kind: &Kind, edition: Edition) -> Value {
    let version = list_at(crd, &["spec", "versions"]).iter().find(|v| str_at(v, &["name"]) == kind.version);
    let schema = version.and_then(|v| crate::tree::at(v, &["schema", "openAPIV3Schema"]));
    let mut schema = match (schema, edition) {
        (Some(schema), Edition::V3) => schema.clone(),
        (Some(schema), Edition::V2) => plainer(schema),
        (None, _) => json!({"type": "object"}),
    };
    for field in ["apiVersion", "kind"] {
        if crate::tree::at(&schema, &["properties", field]).is_none() {
            set(&mut schema, &["properties", field], json!({"type": "string"}));
        }
    }
    set(&mut schema, &["properties", "metadata"], edition.reference("meta/v1.ObjectMeta"));
    set(&mut schema, &["x-kubernetes-group-version-kind"], json!([gvk(kind)]));
    schema
}

/// As much of a schema as v2 has words for; where it would say less than the truth, nothing (as upstream's conversion).
fn plainer(schema: &Value) -> Value {
    const KEPT: &[&str] = &["type", "format", "description", "title", "required", "enum", "pattern"];
    let flag = |name: &str| bool_at(schema, &[name]) == Some(true);
    let mut out = json!({});
    for (key, value) in map_at(schema, &[]).into_iter().flatten() {
        if KEPT.contains(&key.as_str()) || key.starts_with("x-kubernetes-") && key != "x-kubernetes-validations" {
            set(&mut out, &[key], value.clone());
        }
    }
    let open = flag("x-kubernetes-preserve-unknown-fields");
    if flag("x-kubernetes-int-or-string") || flag("nullable") || open {
        crate::tree::remove(&mut out, &["type"]);
    }
    if open || flag("nullable") {
        return out;
    }
    for (name, below) in map_at(schema, &["properties"]).into_iter().flatten() {
        set(&mut out, &["properties", name], plainer(below));
    }
    for field in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(field).filter(|b| b.is_object()) {
            set(&mut out, &[field], plainer(below));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Registry;

    #[test]
    fn types_have_upstreams_names() {
        for (name, id) in [
            ("v1.Pod", "io.k8s.api.core.v1.Pod"),
            ("meta/v1.ObjectMeta", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"),
            ("rbac.authorization.k8s.io/v1.Role", "io.k8s.api.rbac.v1.Role"),
            ("apps/v1.Deployment", "io.k8s.api.apps.v1.Deployment"),
        ] {
            assert_eq!(type_id(name), id);
        }
    }

    /// Every `$ref` in a tree.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|v| references(v, found));
            }
            Value::Array(list) => list.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }

    #[test]
    fn nothing_refers_to_what_is_not_there() {
        for edition in [Edition::V2, Edition::V3] {
            let mut ids: Vec<String> = schema::all().map(|t| type_id(t.name)).collect();
            ids.extend(basics(edition).map(|(id, _)| id.to_owned()));
            let mut found = Vec::new();
            schema::all().for_each(|t| references(&of_type(t, None, edition), &mut found));
            Registry::builtin().all().iter().for_each(|k| references(&list_of(k, edition).1, &mut found));
            assert!(found.len() > 500, "{}", found.len());
            for reference in found {
                assert!(ids.iter().any(|id| reference.ends_with(&format!("/{id}"))), "{reference}");
            }
        }
    }

    #[test]
    fn words_are_of_types_and_fields_that_are() {
        let mut ty = None;
        for line in WORDS.lines() {
            let (name, told) = line.trim_start().split_once(' ').unwrap();
            match line.starts_with(' ') {
                true => assert!(ty.and_then(|t: Type<'_>| t.field(name)).is_some(), "{line}"),
                false => ty = Some(schema::find(name).unwrap_or_else(|| panic!("{line}"))),
            }
            assert!(told.ends_with('.'), "{line}");
        }
        let pod = of_type(schema::find("v1.PodSpec").unwrap(), None, Edition::V3);
        assert_eq!(pod["properties"]["containers"]["description"], "The containers; at least one.");
        assert!(pod["properties"]["affinity"]["allOf"][0]["$ref"].is_string());
        assert!(pod["properties"]["overhead"].get("description").is_none());
    }

    #[test]
    fn a_type_says_its_fields() {
        let registry = Registry::builtin();
        let pod = of_type(schema::find("v1.Pod").unwrap(), registry.find("pods").map(|k| &**k), Edition::V3);
        assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
        assert_eq!(pod["properties"]["spec"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.PodSpec");
        let spec = of_type(schema::find("v1.PodSpec").unwrap(), None, Edition::V2);
        let containers = &spec["properties"]["containers"];
        assert_eq!(containers["items"]["$ref"], "#/definitions/io.k8s.api.core.v1.Container");
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["required"], json!(["containers"]));
        assert_eq!(spec["properties"]["hostNetwork"]["type"], "boolean");
    }

    #[test]
    fn every_type_is_reached_by_the_kind_that_needs_it() {
        let mut found = BTreeSet::new();
        reachable("apps/v1.Deployment", &mut found);
        for name in ["apps/v1.Deployment", "v1.Container", "meta/v1.LabelSelector", "v1.EnvVarSource"] {
            assert!(found.contains(name), "{name}");
        }
        assert!(!found.contains("v1.Node"));
    }

    #[test]
    fn definitions_are_published_whole_in_v3_and_plainer_in_v2() {
        let crd = json!({"metadata": {"uid": "u"}, "spec": {"group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "a": {"type": "string", "description": "an a", "minLength": 1}, "b": {"x-kubernetes-int-or-string": true}, "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}}}]}});
        let (kinds, _) = crate::crd::kinds(&crd, 1);
        assert_eq!(kind_id(&kinds[0]), "com.example.stable.v1.CronTab");
        let v3 = of_definition(&crd, &kinds[0], Edition::V3);
        assert_eq!(v3["properties"]["spec"]["properties"]["a"]["minLength"], 1);
        assert!(v3["properties"]["metadata"]["$ref"].as_str().unwrap().ends_with("ObjectMeta"));
        let v2 = of_definition(&crd, &kinds[0], Edition::V2);
        let spec = &v2["properties"]["spec"]["properties"];
        assert_eq!(spec["a"], json!({"type": "string", "description": "an a"}));
        assert!(spec["c"].get("type").is_none());
    }
}
