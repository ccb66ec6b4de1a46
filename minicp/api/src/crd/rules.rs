//! What is wrong with a definition, in upstream's words (apiextensions `validation`).

use super::names::condition_is_true;
use super::structure;
use crate::field::{Error, Path};
use crate::jsonpath::JsonPath;
use crate::meta;
use crate::rules::Rules;
use crate::structural::Node;
use crate::tree::{Value, at, bool_at, json, list_at, str_at};

/// Served or not.
const VERSIONS_MAX: usize = 32;
const SELECTABLE_MAX: usize = 8;
const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// All that is wrong; with `old` also what may not change.
pub fn validate(crd: &Value, old: Option<&Value>) -> Vec<Error> {
    let mut errors = Vec::new();
    let spec = Path::Root.f("spec");
    let name = format!("{}.{}", str_at(crd, &["spec", "names", "plural"]), str_at(crd, &["spec", "group"]));
    if meta::name(crd) != name {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(Error::invalid_str(Path::Root.f("metadata").f("name"), meta::name(crd), why));
    }
    group(&mut errors, crd, spec);
    names(&mut errors, crd, spec.f("names"));
    match str_at(crd, &["spec", "scope"]) {
        "" => errors.push(Error::required(spec.f("scope"), "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(Error::not_supported(spec.f("scope"), &json!(other), &["Cluster", "Namespaced"])),
    }
    if bool_at(crd, &["spec", "preserveUnknownFields"]) == Some(true) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(Error::invalid(spec.f("preserveUnknownFields"), &json!(true), why));
    }
    if !matches!(str_at(crd, &["spec", "conversion", "strategy"]), "" | "None") {
        let given = json!(str_at(crd, &["spec", "conversion", "strategy"]));
        errors.push(Error::not_supported(spec.f("conversion").f("strategy"), &given, &["None"]));
    }
    versions(&mut errors, crd, spec.f("versions"));
    if let Some(old) = old {
        immutable(&mut errors, crd, old);
        stored(&mut errors, crd);
    }
    errors
}

fn group(errors: &mut Vec<Error>, crd: &Value, spec: Path<'_>) {
    let group = str_at(crd, &["spec", "group"]);
    if group.is_empty() {
        return errors.push(Error::required(spec.f("group"), ""));
    }
    match meta::dns_subdomain(group) {
        Err(why) => errors.push(Error::invalid_str(spec.f("group"), group, &why)),
        Ok(()) if !group.contains('.') => {
            errors.push(Error::invalid_str(spec.f("group"), group, "should be a domain with at least one dot"))
        }
        Ok(()) => {}
    }
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|p| group.strip_suffix(p).is_some_and(|head| head.is_empty() || head.ends_with('.')));
    let approval = str_at(crd, &["metadata", "annotations", "api-approved.kubernetes.io"]);
    if protected && approval.is_empty() {
        let at = "metadata.annotations[api-approved.kubernetes.io]";
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
        errors.push(Error::required(at, why));
    }
}

fn names(errors: &mut Vec<Error>, crd: &Value, at: Path<'_>) {
    let get = |field: &str| str_at(crd, &["spec", "names", field]);
    let mut label = |field: &str, text: &str, mixed: bool| {
        if text.is_empty() {
            return errors.push(Error::required(at.f(field), ""));
        }
        let checked = if mixed { text.to_lowercase() } else { text.to_owned() };
        if let Err(why) = meta::dns1035_label(&checked) {
            let why = if mixed { format!("may have mixed case, but should otherwise match: {why}") } else { why };
            errors.push(Error::invalid_str(at.f(field), text, &why));
        }
    };
    label("plural", get("plural"), false);
    label("singular", get("singular"), false);
    label("kind", get("kind"), true);
    label("listKind", get("listKind"), true);
    for field in ["shortNames", "categories"] {
        for (i, word) in list_at(crd, &["spec", "names", field]).iter().filter_map(Value::as_str).enumerate() {
            if let Err(why) = meta::dns1035_label(word) {
                errors.push(Error::invalid_str(at.f(field).i(i), word, &why));
            }
        }
    }
    if !get("kind").is_empty() && get("kind") == get("listKind") {
        errors.push(Error::invalid_str(at.f("listKind"), get("listKind"), "kind and listKind may not be the same"));
    }
}

fn versions(errors: &mut Vec<Error>, crd: &Value, at_versions: Path<'_>) {
    let versions = list_at(crd, &["spec", "versions"]);
    let mut seen = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let (here, name) = (at_versions.i(i), str_at(version, &["name"]));
        if let Err(why) = meta::dns1035_label(name) {
            errors.push(Error::invalid_str(here.f("name"), name, &why));
        }
        seen.push(name);
        one_version(errors, version, here);
    }
    let all = json!(seen);
    if versions.len() > VERSIONS_MAX {
        errors.push(Error::too_many(at_versions, versions.len(), VERSIONS_MAX));
    }
    let storage = versions.iter().filter(|v| bool_at(v, &["storage"]) == Some(true)).count();
    if storage != 1 {
        errors.push(Error::invalid(at_versions, &all, "must have exactly one version marked as storage version"));
    }
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != versions.len() {
        errors.push(Error::invalid(at_versions, &all, "must contain unique version names"));
    }
}

fn one_version(errors: &mut Vec<Error>, version: &Value, here: Path<'_>) {
    let at_schema = here.f("schema");
    let at_schema = at_schema.f("openAPIV3Schema");
    match at(version, &["schema", "openAPIV3Schema"]) {
        None => errors.push(Error::required(at_schema, "schemas are required")),
        Some(schema) => {
            let wrong = structure::check(schema, at_schema);
            match Node::of_schema(schema) {
                _ if !wrong.is_empty() => errors.extend(wrong),
                Err(e) => errors.push(Error::forbidden(at_schema, &e.to_string())),
                Ok(node) => {
                    let rules = Rules::read(schema, &node);
                    errors.extend(rules.iter().flat_map(|rules| structure::rules(&node, rules, at_schema, None)));
                    errors.extend(structure::defaults(&node, rules.as_ref(), at_schema));
                }
            }
        }
    }
    if bool_at(version, &["deprecated"]) != Some(true) && !str_at(version, &["deprecationWarning"]).is_empty() {
        let told = str_at(version, &["deprecationWarning"]);
        errors.push(Error::invalid_str(here.f("deprecationWarning"), told, "can only be set for deprecated versions"));
    }
    columns(errors, version, here.f("additionalPrinterColumns"));
    selectable(errors, version, here.f("selectableFields"));
    if let Some(scale) = at(version, &["subresources", "scale"]) {
        let subresources = here.f("subresources");
        scale_paths(errors, scale, subresources.f("scale"));
    }
}

fn columns(errors: &mut Vec<Error>, version: &Value, at: Path<'_>) {
    for (i, column) in list_at(version, &["additionalPrinterColumns"]).iter().enumerate() {
        let (here, get) = (at.i(i), |field: &str| str_at(column, &[field]));
        if get("name").is_empty() {
            errors.push(Error::required(here.f("name"), ""));
        }
        match get("type") {
            "" => errors.push(Error::required(here.f("type"), "must be one of boolean,date,integer,number,string")),
            ty if !COLUMN_TYPES.contains(&ty) => {
                errors.push(Error::invalid_str(here.f("type"), ty, "must be one of boolean,date,integer,number,string"))
            }
            _ => {}
        }
        if !get("format").is_empty() && !COLUMN_FORMATS.contains(&get("format")) {
            let why = "must be one of byte,date,date-time,double,float,int32,int64,password";
            errors.push(Error::invalid_str(here.f("format"), get("format"), why));
        }
        match get("jsonPath") {
            "" => errors.push(Error::required(here.f("jsonPath"), "")),
            path => {
                if let Err(why) = JsonPath::parse(path) {
                    errors.push(Error::invalid_str(here.f("jsonPath"), path, &why.to_string()));
                }
            }
        }
    }
}

fn selectable(errors: &mut Vec<Error>, version: &Value, here: Path<'_>) {
    let fields = list_at(version, &["selectableFields"]);
    if fields.len() > SELECTABLE_MAX {
        errors.push(Error::too_many(here, fields.len(), SELECTABLE_MAX));
    }
    for (i, field) in fields.iter().enumerate() {
        let (path, item) = (str_at(field, &["jsonPath"]), here.i(i));
        if path.is_empty() {
            errors.push(Error::required(item.f("jsonPath"), ""));
            continue;
        }
        let names = JsonPath::parse(path).ok();
        let names = names.as_ref().and_then(JsonPath::names);
        let mut schema = at(version, &["schema", "openAPIV3Schema"]);
        for name in names.iter().flatten() {
            schema = schema.and_then(|s| at(s, &["properties", name]));
        }
        let ty = schema.map_or("", |s| str_at(s, &["type"]));
        if names.is_none_or(|n| n.is_empty() || n.first() == Some(&"metadata")) {
            errors.push(Error::invalid_str(
                item.f("jsonPath"),
                path,
                "is an invalid path: must be a simple path outside metadata",
            ));
        } else if !matches!(ty, "string" | "boolean" | "integer") {
            let why = "is an invalid path: must point to a field of type string, boolean or integer";
            errors.push(Error::invalid_str(item.f("jsonPath"), path, why));
        }
        if fields.iter().take(i).any(|f| str_at(f, &["jsonPath"]) == path) {
            errors.push(Error::duplicate(item.f("jsonPath"), &json!(path)));
        }
    }
}

fn scale_paths(errors: &mut Vec<Error>, scale: &Value, here: Path<'_>) {
    let rules = [
        ("specReplicasPath", &["spec"][..], true, "should be a json path under .spec"),
        ("statusReplicasPath", &["status"][..], true, "should be a json path under .status"),
        ("labelSelectorPath", &["spec", "status"][..], false, "should be a json path under either .status or .spec"),
    ];
    for (field, roots, required, why) in rules {
        let path = str_at(scale, &[field]);
        if path.is_empty() {
            if required {
                errors.push(Error::required(here.f(field), ""));
            }
            continue;
        }
        let parsed = JsonPath::parse(path).ok();
        let names = parsed.as_ref().and_then(JsonPath::names).unwrap_or_default();
        if names.len() < 2 || !roots.iter().any(|r| names.first() == Some(r)) {
            errors.push(Error::invalid_str(here.f(field), path, why));
        }
    }
}

/// What may not change once objects may exist.
fn immutable(errors: &mut Vec<Error>, crd: &Value, old: &Value) {
    const FIXED: [&[&str]; 3] = [&["spec", "group"], &["spec", "names", "plural"], &["spec", "scope"]];
    const ESTABLISHED: [&[&str]; 1] = [&["spec", "names", "kind"]];
    let established = condition_is_true(old, "Established");
    for path in FIXED.iter().chain(ESTABLISHED.iter().filter(|_| established)) {
        if at(crd, path) != at(old, path) {
            errors.push(Error::invalid(path.join("."), at(crd, path).unwrap_or(&Value::Null), "field is immutable"));
        }
    }
}

/// Objects may still be stored in every version that was ever the storage version.
fn stored(errors: &mut Vec<Error>, crd: &Value) {
    let known: Vec<&str> = list_at(crd, &["spec", "versions"]).iter().map(|v| str_at(v, &["name"])).collect();
    for (i, name) in list_at(crd, &["status", "storedVersions"]).iter().filter_map(Value::as_str).enumerate() {
        if !known.contains(&name) {
            let status = Path::Root.f("status");
            let at = status.f("storedVersions");
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(Error::invalid_str(at.i(i), name, &why));
        }
    }
}
