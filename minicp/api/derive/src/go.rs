//! Protobuf numbers, and what Go leaves out of JSON, read from upstream's `types.go` (the tags of struct fields).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One field as Go has it.
struct GoField {
    ty: String,
    json: String,
    /// `omitempty` or `omitzero`.
    omitted_when_empty: bool,
    number: String,
}

/// What the table says about a field: number (a path of numbers if Go embeds the struct it is in), and whether a zero is kept.
pub struct Number {
    pub number: String,
    pub keeps_zero: bool,
}

/// The sources, a folder that holds `api` and `apimachinery`; packages are read when asked for.
pub struct Sources {
    root: PathBuf,
    /// Package -> struct -> fields
    packages: BTreeMap<String, BTreeMap<String, Vec<GoField>>>,
}

impl Sources {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), packages: BTreeMap::new() }
    }

    /// The numbers of `apps/v1.Deployment` by JSON name; none for groups that have no protobuf in these sources.
    pub fn numbers(&mut self, name: &str) -> BTreeMap<String, Number> {
        let mut all = BTreeMap::new();
        let (package, short) = name.rsplit_once('.').expect("a dot");
        if let Some(folder) = folder(package) {
            let path = self.root.join(folder).join("types.go");
            let structs = self.packages.entry(package.into()).or_insert_with(|| {
                structs(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display())))
            });
            collect(structs, short, "", &mut all);
        }
        all
    }
}

/// `rbac.authorization.k8s.io/v1` -> `api/rbac/v1`
fn folder(package: &str) -> Option<String> {
    let (group, version) = package.rsplit_once('/').unwrap_or(("core", package));
    match group {
        "meta" => Some(format!("apimachinery/pkg/apis/meta/{version}")),
        "apiextensions.k8s.io" | "apiregistration.k8s.io" => None,
        _ => Some(format!("api/{}/{version}", group.split('.').next().expect("one part"))),
    }
}

fn structs(text: &str) -> BTreeMap<String, Vec<GoField>> {
    let mut all = BTreeMap::new();
    for part in text.split("\ntype ").skip(1) {
        let Some((name, body)) = part.split_once(" struct {\n") else { continue };
        let Some((body, _)) = body.split_once("\n}") else { continue };
        if name.chars().all(char::is_alphanumeric) {
            all.insert(name.to_string(), body.lines().filter_map(field).collect());
        }
    }
    all
}

/// ``Replicas *int32 `json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"` ``
fn field(line: &str) -> Option<GoField> {
    let line = line.trim();
    if line.starts_with("//") {
        return None;
    }
    let (decl, tags) = line.split_once('`')?;
    let tag = |key: &str| tags.split_once(&format!("{key}:\"")).map(|(_, t)| t.split('"').next().expect("one part"));
    let mut json = tag("json")?.split(',');
    Some(GoField {
        ty: decl.split_ascii_whitespace().last()?.to_string(),
        json: json.next()?.to_string(),
        omitted_when_empty: json.any(|o| o == "omitempty" || o == "omitzero"),
        number: tag("protobuf")?.split(',').nth(1)?.to_string(),
    })
}

fn collect(
    structs: &BTreeMap<String, Vec<GoField>>,
    name: &str,
    above: &str,
    all: &mut BTreeMap<String, Number>,
) {
    for f in structs.get(name).unwrap_or_else(|| panic!("no Go struct {name}")) {
        let number = format!("{above}{}", f.number);
        if f.json.is_empty() {
            collect(structs, &f.ty, &format!("{number}."), all);
            continue;
        }
        // `omitempty` means nothing for a struct, as IntOrString is one.
        let keeps_zero = f.ty.starts_with('*') || !f.omitted_when_empty || f.ty == "intstr.IntOrString";
        all.insert(f.json.clone(), Number { number, keeps_zero });
    }
}
