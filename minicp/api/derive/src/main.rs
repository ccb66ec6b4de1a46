//! Derives the schema table `minicp/api/src/schema/types.txt` from the sources of k8s-openapi (read as text: field types, required marks and the
//! list strategies of its DeepMerge implementations) and of Kubernetes' Go packages (protobuf numbers, pointers; see `go`).
//!
//! Run in this folder, with the folder that holds Go's `k8s.io/api` and `k8s.io/apimachinery` of the same version. Debian has them:
//!
//! ```text
//! apt-get download golang-k8s-api-dev golang-k8s-apimachinery-dev     # 0.36
//! for deb in golang-k8s-*.deb; do dpkg-deb -x $deb /tmp/go; done
//! cargo run -- /tmp/go/usr/share/gocode/src/k8s.io > types.new && mv types.new ../src/schema/types.txt
//! ```
//!
//! Only types reachable from the kinds of `kind/builtin.txt` are written. The format is described in `minicp/api/src/schema.rs`.

mod go;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = "v1_36";

/// Upstream's list map keys where k8s-openapi kept only the patch merge key.
const MAP_KEYS: &[(&str, &str, &[&str])] = &[
    ("v1.Container", "ports", &["containerPort", "protocol"]),
    ("v1.EphemeralContainer", "ports", &["containerPort", "protocol"]),
    ("v1.ServiceSpec", "ports", &["port", "protocol"]),
    ("v1.PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
];
/// Lists by key for server-side apply that a strategic merge patch replaces whole (no patchStrategy upstream).
const NO_PATCH: &[(&str, &str)] = &[
    ("v1.ResourceRequirements", "claims"),
    ("certificates.k8s.io/v1.CertificateSigningRequestStatus", "conditions"),
    ("apiextensions.k8s.io/v1.CustomResourceDefinitionStatus", "conditions"),
];
/// Lists of plain values that a strategic merge patch adds to.
const PATCH_SETS: &[(&str, &str)] = &[("meta/v1.ObjectMeta", "finalizers"), ("v1.NodeSpec", "podCIDRs")];
/// Where `$retainKeys` is upstream's strategy.
const RETAIN_KEYS: &[(&str, &str)] =
    &[("v1.PodSpec", "volumes"), ("v1.PodSpec", "resourceClaims"), ("apps/v1.DeploymentSpec", "strategy")];
/// Structs owned as one value (`x-kubernetes-map-type: atomic`).
const ATOMIC: &[&str] = &[
    "meta/v1.LabelSelector",
    "v1.ConfigMapKeySelector",
    "v1.FileKeySelector",
    "v1.LocalObjectReference",
    "v1.NodeSelector",
    "v1.NodeSelectorTerm",
    "v1.ObjectFieldSelector",
    "v1.ObjectReference",
    "v1.ResourceFieldSelector",
    "v1.ScopeSelector",
    "v1.SecretKeySelector",
    "v1.SecretReference",
    "v1.TopologySelectorTerm",
    "v1.TypedLocalObjectReference",
    "rbac.authorization.k8s.io/v1.RoleRef",
    "rbac.authorization.k8s.io/v1.Subject",
    "networking.k8s.io/v1.ServiceBackendPort",
];

struct Field {
    json: String,
    rust_type: String,
    required: bool,
    list: Option<List>,
    atomic_map: bool,
}
enum List {
    Set,
    Map(Vec<String>),
}

fn main() {
    let go = std::env::args_os().nth(1).expect("usage: derive-schema <folder of Go's k8s.io/api and k8s.io/apimachinery>");
    let mut go = go::Sources::new(Path::new(&go));
    let root = source().join("src").join(VERSION);
    let kinds = std::fs::read_to_string("../src/kind/builtin.txt").expect("run me in minicp/api/derive");
    let mut files = Vec::new();
    walk(&root, &mut files);
    // Every struct by its table name.
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("readable source");
        let module: Vec<String> = file
            .strip_prefix(&root)
            .expect("below")
            .parent()
            .expect("has one")
            .iter()
            .map(|p| p.to_string_lossy().into_owned())
            .collect();
        let Some(name) = text
            .lines()
            .find_map(|l| l.strip_prefix("pub struct "))
            .map(|l| l.split(|c: char| !c.is_alphanumeric()).next().expect("name").to_string())
        else {
            continue;
        };
        if let Some(prefix) = prefix(&module) {
            texts.insert(format!("{prefix}.{name}"), text);
        }
    }
    let mut wanted: Vec<String> = kinds
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(|l| {
            let c: Vec<&str> = l.split_ascii_whitespace().collect();
            if c[0] == "-" { format!("{}.{}", c[1], c[2]) } else { format!("{}/{}.{}", c[0], c[1], c[2]) }
        })
        .collect();
    wanted.extend(
        [
            "autoscaling/v1.Scale",
            "policy/v1.Eviction",
            "authentication.k8s.io/v1.TokenRequest",
            "meta/v1.DeleteOptions",
        ]
        .map(String::from),
    );
    let mut done: BTreeMap<String, String> = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let text = texts.get(&name).unwrap_or_else(|| panic!("no type {name}"));
        let here = name.rsplit_once('.').expect("prefix").0.to_string();
        let mut line = name.clone();
        let mut fields = fields(text);
        if text.contains("impl crate::Resource for ") {
            for json in ["apiVersion", "kind"] {
                if !fields.iter().any(|f| f.json == json) {
                    fields.push(Field {
                        json: json.into(),
                        rust_type: "std::string::String".into(),
                        required: false,
                        list: None,
                        atomic_map: false,
                    });
                }
            }
        }
        fields.sort_by(|a, b| a.json.cmp(&b.json));
        let numbers = go.numbers(&name);
        for f in &fields {
            let mut refs = Vec::new();
            let mut shape = shape(&f.rust_type, &here, &mut refs);
            if f.atomic_map {
                shape.push('=');
            }
            let is = |table: &[(&str, &str)]| table.contains(&(name.as_str(), f.json.as_str()));
            match &f.list {
                Some(List::Set) => shape.push('='),
                Some(List::Map(keys)) => {
                    // Keys are Rust names of the element's fields.
                    let element = refs.last().expect("list of structs");
                    let names = self::fields(&texts[element]);
                    let json: Vec<String> = keys
                        .iter()
                        .map(|k| {
                            names
                                .iter()
                                .find(|n| rust_name_of(&texts[element], &n.json) == *k)
                                .unwrap_or_else(|| panic!("no key {k} in {element} of {name}"))
                                .json
                                .clone()
                        })
                        .collect();
                    let all = MAP_KEYS
                        .iter()
                        .find(|(t, n, _)| *t == name && *n == f.json)
                        .map_or_else(|| json.join(","), |(_, _, k)| k.join(","));
                    shape += &format!("#{all}");
                    if !is(NO_PATCH) {
                        shape += &format!("^{}", json[0]);
                    }
                }
                None => {}
            }
            if is(PATCH_SETS) {
                shape.push('^');
            }
            if is(RETAIN_KEYS) {
                shape.push('~');
            }
            let number = numbers.get(&f.json).map_or(String::new(), |n| {
                let scalar = !shape.contains(['.', '[', '{']) && !matches!(shape.as_str(), "t" | "m" | "q" | "r");
                format!("{}{}", if n.keeps_zero && scalar { '*' } else { '#' }, n.number)
            });
            if number.is_empty() && !numbers.is_empty() && !matches!(f.json.as_str(), "apiVersion" | "kind") {
                panic!("no protobuf number of {name} {}", f.json);
            }
            line += &format!(" {}{}{number}:{shape}", f.json, if f.required { "!" } else { "" });
            wanted.extend(refs);
        }
        done.insert(name, line);
    }
    for line in done.values() {
        println!("{line}");
    }
}

/// Where cargo keeps the source of k8s-openapi.
fn source() -> PathBuf {
    let out = Command::new("cargo").args(["metadata", "--format-version", "1"]).output().expect("cargo metadata runs");
    let tree: serde_json::Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let package = tree["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .find(|p| p["name"] == "k8s-openapi")
        .expect("a dependency")
        .clone();
    Path::new(package["manifest_path"].as_str().expect("a path")).parent().expect("a folder").to_path_buf()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("readable folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}

/// `[api, apps, v1]` -> `apps/v1`
fn prefix(module: &[String]) -> Option<String> {
    let m: Vec<&str> = module.iter().map(String::as_str).collect();
    Some(match m[..] {
        ["api", "core", v] => v.to_string(),
        ["api", g @ ("apps" | "batch" | "autoscaling" | "policy"), v] => format!("{g}/{v}"),
        ["api", "rbac", v] => format!("rbac.authorization.k8s.io/{v}"),
        ["api", g, v] => format!("{g}.k8s.io/{v}"),
        ["apimachinery", "pkg", "apis", "meta", v] => format!("meta/{v}"),
        ["apiextensions_apiserver", "pkg", "apis", "apiextensions", v] => format!("apiextensions.k8s.io/{v}"),
        ["kube_aggregator", "pkg", "apis", "apiregistration", v] => format!("apiregistration.k8s.io/{v}"),
        _ => return None,
    })
}

/// The JSON names are in the deserialiser: `"hostIPC" => Field::Key_host_ipc`.
fn rust_name_of(text: &str, json: &str) -> String {
    let mark = format!("\"{json}\" => Field::Key_");
    let at = text.find(&mark).unwrap_or_else(|| panic!("no field {json}"));
    text[at + mark.len()..].split(',').next().expect("name").to_string()
}

fn fields(text: &str) -> Vec<Field> {
    let mut json_of: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        if let Some((json, key)) = line.trim().split_once(" => Field::Key_") {
            json_of.insert(key.trim_end_matches(','), json.trim_matches('"'));
        }
    }
    let body = text.split("pub struct ").nth(1).expect("a struct").split("\n}").next().expect("its end");
    let mut all = Vec::new();
    for line in body.lines() {
        let Some((name, ty)) = line.trim().strip_prefix("pub ").and_then(|l| l.split_once(": ")) else { continue };
        let ty = ty.trim_end_matches(',');
        let inner = ty.strip_prefix("Option<").and_then(|t| t.strip_suffix('>'));
        let required = inner.is_none() && name != "metadata";
        let key = name.trim_start_matches("r#").trim_end_matches('_');
        let json = json_of.get(name).or_else(|| json_of.get(key)).unwrap_or_else(|| panic!("no JSON name of {name}"));
        let merge = |kind: &str| {
            text.split(&format!("merge_strategies::{kind}("))
                .skip(1)
                .find(|t| t.trim_start().starts_with(&format!("&mut self.{name},")))
        };
        let list = if merge("list::set").is_some() {
            Some(List::Set)
        } else {
            merge("list::map")
                .map(|t| {
                    let keys = t.split("&[").nth(1).expect("keys").split(']').next().expect("end");
                    keys.split("lhs.")
                        .skip(1)
                        .map(|k| k.split([' ', ')']).next().expect("key").to_string())
                        .collect::<Vec<_>>()
                })
                // volumeClaimTemplates, "by metadata.name": atomic upstream.
                .filter(|keys| keys.iter().all(|k| !k.contains('.')))
                .map(List::Map)
        };
        let atomic_map = merge("map::atomic").is_some();
        all.push(Field {
            json: (*json).to_string(),
            rust_type: inner.unwrap_or(ty).to_string(),
            required,
            list,
            atomic_map,
        });
    }
    all
}

/// The table's word for a Rust type; named types are added to `refs`.
fn shape(ty: &str, here: &str, refs: &mut Vec<String>) -> String {
    let inside = |head: &str| ty.strip_prefix(head).and_then(|t| t.strip_suffix('>'));
    if let Some(t) = inside("std::vec::Vec<") {
        return format!("[{}]", shape(t, here, refs));
    }
    if let Some(t) = inside("std::boxed::Box<") {
        return shape(t, here, refs);
    }
    if let Some(t) = inside("std::collections::BTreeMap<std::string::String, ") {
        return format!("{{{}}}", shape(t, here, refs));
    }
    let plain = match ty {
        "std::string::String" => "s",
        "i32" => "i",
        "i64" => "l",
        "bool" => "b",
        "f64" => "f",
        "crate::ByteString" => "y",
        _ => "",
    };
    if !plain.is_empty() {
        return plain.into();
    }
    let parts: Vec<String> =
        ty.strip_prefix("crate::").unwrap_or_else(|| panic!("type {ty}")).split("::").map(String::from).collect();
    let (name, module) = parts.split_last().expect("path");
    match name.as_str() {
        "Time" => return "t".into(),
        "MicroTime" => return "m".into(),
        "Quantity" => return "q".into(),
        "IntOrString" => return "o".into(),
        "RawExtension"
        | "JSON"
        | "FieldsV1"
        | "JSONSchemaPropsOrArray"
        | "JSONSchemaPropsOrBool"
        | "JSONSchemaPropsOrStringArray" => return "r".into(),
        _ => {}
    }
    let prefix = prefix(module).unwrap_or_else(|| panic!("type {ty}"));
    let full = format!("{prefix}.{name}");
    let atomic = if ATOMIC.contains(&full.as_str()) { "=" } else { "" };
    refs.push(full.clone());
    if prefix == here { format!(".{name}{atomic}") } else { format!("{full}{atomic}") }
}
