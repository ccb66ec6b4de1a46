//! The roles and bindings every cluster begins with (`bootstrap.txt`), as objects. Pure.

use mote_api::meta;
use mote_api::tree::{Value, json, set};

use super::rule::Rule;

const TEXT: &str = include_str!("bootstrap.txt");
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
pub(crate) const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// One object of the table.
pub(crate) struct Row {
    pub resource: &'static str,
    pub ns: &'static str,
    pub object: Value,
}

impl Row {
    fn new(resource: &'static str, ns: &'static str, name: &str) -> Row {
        let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        let meta = json!({"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}});
        Row { resource, ns, object: json!({"metadata": meta}) }
    }
    fn role(mut words: std::str::SplitAsciiWhitespace<'_>, union: bool) -> Option<Row> {
        let name = words.next()?;
        let mut row = Row::new("clusterroles.rbac.authorization.k8s.io", "", name);
        if words.next() == Some("to") {
            let label = format!("{GROUP}/aggregate-to-{}", words.next()?);
            set(&mut row.object, &["metadata", "labels", &label], "true".into());
        }
        if union {
            let label = format!("{GROUP}/aggregate-to-{name}");
            let rule = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
            set(&mut row.object, &["aggregationRule"], rule);
        }
        set(&mut row.object, &["rules"], json!([]));
        Some(row)
    }
    fn binding(
        mut words: std::str::SplitAsciiWhitespace<'static>,
        resource: &'static str,
        ns: &'static str,
    ) -> Option<Row> {
        let mut row = Row::new(resource, ns, words.next()?);
        let kind = if ns.is_empty() { "ClusterRole" } else { "Role" };
        set(&mut row.object, &["roleRef"], json!({"apiGroup": GROUP, "kind": kind, "name": words.next()?}));
        let subject = |word: &str| {
            let (kind, name) = word.split_once(':')?;
            Some(match kind {
                "user" => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
                "group" => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
                _ => {
                    let (ns, name) = name.split_once('/')?;
                    json!({"kind": "ServiceAccount", "namespace": ns, "name": name})
                }
            })
        };
        set(&mut row.object, &["subjects"], words.map(subject).collect::<Option<Vec<_>>>()?.into());
        Some(row)
    }
}

fn rule(line: &str) -> Option<Value> {
    let list = |text: &str| {
        let word = |w: &'_ str| match w {
            "-" => vec![""],
            "R" => vec!["get", "list", "watch"],
            "W" => vec!["create", "delete", "deletecollection", "patch", "update"],
            _ => Vec::new(),
        };
        let mut out: Vec<String> = Vec::new();
        for w in text.split(',') {
            match word(w) {
                known if known.is_empty() => out.push(w.into()),
                known => out.extend(known.into_iter().map(Into::into)),
            }
        }
        out
    };
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    if first == "url" {
        let urls = list(words.next()?);
        return Some(json!({"nonResourceURLs": urls, "verbs": list(words.next()?)}));
    }
    let resources = list(words.next()?);
    let mut rule = json!({"apiGroups": list(first), "resources": resources, "verbs": list(words.next()?)});
    if let Some(names) = words.next() {
        set(&mut rule, &["resourceNames"], list(names).into());
    }
    Some(rule)
}

/// The table as objects.
pub(crate) fn rows() -> Vec<Row> {
    let mut out: Vec<Row> = Vec::new();
    for line in TEXT.lines().filter(|l| !l.starts_with('#')) {
        let row = if line.starts_with(' ') {
            let rules = out.last_mut().and_then(|r| r.object.get_mut("rules")).and_then(Value::as_array_mut);
            rules.zip(rule(line)).map(|(rules, rule)| rules.push(rule)).map(|()| None)
        } else {
            let mut words = line.split_ascii_whitespace();
            let row = match words.next() {
                Some("role") => Row::role(words, false),
                Some("union") => Row::role(words, true),
                Some("bind") => Row::binding(words, "clusterrolebindings.rbac.authorization.k8s.io", ""),
                Some("bindin") => {
                    let ns = words.next().unwrap_or_default();
                    Row::binding(words, "rolebindings.rbac.authorization.k8s.io", ns)
                }
                _ => words.next().zip(words.next()).map(|(ns, name)| {
                    let mut row = Row::new("roles.rbac.authorization.k8s.io", ns, name);
                    set(&mut row.object, &["rules"], json!([]));
                    row
                }),
            };
            row.map(Some)
        };
        out.extend(row.expect("bootstrap.txt: every line has its words (tested)"));
    }
    out
}

/// What a bootstrap role allows.
fn rules_of(role: &str) -> Vec<Rule> {
    rows().iter().filter(|r| meta::name(&r.object) == role).flat_map(|r| Rule::all(&r.object)).collect()
}

/// Rules that hold for every node, before its relations are looked at.
pub(crate) fn node_rules() -> Vec<Rule> {
    let mut rules = rules_of("system:node");
    rules.extend(rules_of("system:node-proxier"));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::role_ref;
    use mote_api::tree::list_at;

    #[test]
    fn the_table_is_sound() {
        let rows = rows();
        assert!(rows.len() > 35);
        let registry = mote_api::kind::Registry::builtin();
        let roles: Vec<_> = rows.iter().filter(|r| r.object.get("rules").is_some()).collect();
        for row in &rows {
            assert!(registry.find(row.resource).is_some(), "{}", row.resource);
            let (cluster, name) = role_ref(&row.object);
            if row.object.get("roleRef").is_some() {
                let found = roles.iter().any(|r| meta::name(&r.object) == name && r.ns.is_empty() == cluster);
                assert!(found, "{name}");
                assert!(!list_at(&row.object, &["subjects"]).is_empty());
            } else if row.object.get("aggregationRule").is_none() {
                assert!(!list_at(&row.object, &["rules"]).is_empty(), "{}", meta::name(&row.object));
            }
        }
        let admin = rules_of("cluster-admin");
        assert_eq!(admin[1].words(), r#"{NonResourceURLs:["*"], Verbs:["*"]}"#);
    }
}
