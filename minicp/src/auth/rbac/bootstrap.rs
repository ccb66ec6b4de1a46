//! The roles and bindings every cluster begins with (`bootstrap.txt`), as objects.
//!
//! Made true at every start, as upstream does: what is missing is made, permissions that were taken out are given back, unless the object says
//! `rbac.authorization.kubernetes.io/autoupdate: "false"`.

use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, json, list_at, set, str_at};

use super::rule::{Rule, uncovered};
use crate::api::client::Client;

const TEXT: &str = include_str!("bootstrap.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// One object of the table.
struct Row {
    resource: &'static str,
    ns: &'static str,
    object: Value,
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

/// The table as objects; `only`: just the one of this name.
fn rows() -> Vec<Row> {
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
pub(crate) fn rules_of(role: &str) -> Vec<Rule> {
    rows().iter().filter(|r| meta::name(&r.object) == role).flat_map(|r| Rule::all(&r.object)).collect()
}

/// What `old` lacks of `wanted`, put into it; None: nothing. Pure.
fn reconciled(old: &Value, wanted: &Value) -> Option<Value> {
    if meta::annotation(old, AUTOUPDATE) == "false" || wanted.get("aggregationRule").is_some() {
        return None;
    }
    let mut new = old.clone();
    for (field, missing) in [
        ("rules", uncovered(&Rule::all(old), &Rule::all(wanted)).iter().map(Rule::to_value).collect::<Vec<_>>()),
        ("subjects", {
            let old = list_at(old, &["subjects"]);
            list_at(wanted, &["subjects"]).iter().filter(|s| !old.contains(s)).cloned().collect()
        }),
    ] {
        if !missing.is_empty() {
            let all = list_at(old, &[field]).iter().cloned().chain(missing).collect::<Vec<_>>();
            set(&mut new, &[field], all.into());
        }
    }
    (new != *old).then_some(new)
}

/// Makes the table true in the store: one list per resource, and a write only for what is missing.
pub(crate) async fn seed(client: &Client) -> Result<(), Status> {
    let mut found = Vec::new();
    for resource in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
        let (list, _) = client.list(&format!("{resource}.{GROUP}"), None).await?;
        found.push((resource, list));
    }
    let mut writes = tokio::task::JoinSet::new();
    for row in rows() {
        let list = found.iter().find(|(r, _)| row.resource.split_once('.').is_some_and(|(n, _)| n == *r));
        let old = list.and_then(|(_, list)| {
            list.iter().find(|o| meta::name(o) == meta::name(&row.object) && meta::namespace(o) == row.ns)
        });
        let client = client.clone();
        match old {
            // All at once: what waits for the disk together goes to the disk together.
            None => drop(writes.spawn_local(async move { client.create(row.resource, row.ns, row.object).await })),
            Some(old) => {
                if let Some(new) = reconciled(old, &row.object) {
                    log::info!("{} {:?}: permissions of the bootstrap policy put back", row.resource, meta::name(&new));
                    writes.spawn_local(async move { client.update(row.resource, new).await });
                }
            }
        }
    }
    while let Some(done) = writes.join_next().await {
        match done {
            Ok(Err(e)) if !e.is_already_exists() && !e.is_conflict() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The rules an aggregated role should have: those of all that its selectors choose, each once.
fn union(role: &Value, all: &[std::rc::Rc<Value>]) -> Option<Vec<Value>> {
    let selectors = role.get("aggregationRule")?.get("clusterRoleSelectors")?.as_array()?;
    let selectors: Vec<_> =
        selectors.iter().filter_map(|s| mote_api::selector::LabelSelector::from_object(s).ok()).collect();
    let mut out: Vec<Value> = Vec::new();
    for other in all.iter().filter(|o| meta::name(o) != meta::name(role)) {
        if selectors.iter().any(|s| s.matches(other)) {
            for rule in list_at(other, &["rules"]) {
                if !out.contains(rule) {
                    out.push(rule.clone());
                }
            }
        }
    }
    Some(out)
}

/// Keeps aggregated cluster roles what their parts are; wakes up only when a cluster role changes.
pub(crate) async fn aggregate(client: Client) {
    const RESOURCE: &str = "clusterroles.rbac.authorization.k8s.io";
    loop {
        let Ok((list, revision)) = client.list(RESOURCE, None).await else { return };
        let Ok(mut watch) = client.watch(RESOURCE, revision) else { continue };
        let mut wrote = false;
        for role in &list {
            let Some(rules) = union(role, &list).filter(|r| r.as_slice() != list_at(role, &["rules"])) else {
                continue;
            };
            let mut new = Value::clone(role);
            set(&mut new, &["rules"], rules.into());
            match client.update(RESOURCE, new).await {
                Err(e) if !e.is_conflict() && !e.is_not_found() => {
                    log::warn!("aggregate cluster role {:?}: {}", meta::name(role), e.message);
                }
                // A union may be a part of another one: look again.
                _ => wrote = true,
            }
        }
        if !wrote && watch.next().await.is_none() {
            // The server stops, or too much happened at once; do not spin.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        while watch.try_next().is_some() {}
    }
}

/// The role that a binding names: (is a ClusterRole, name).
pub(super) fn role_ref(binding: &Value) -> (bool, &str) {
    (str_at(binding, &["roleRef", "kind"]) == "ClusterRole", str_at(binding, &["roleRef", "name"]))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn unions_and_reconciling() {
        let role = |name: &str, label: &str, verb: &str| {
            std::rc::Rc::new(
                json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]}),
            )
        };
        let all = [role("a", "x", "get"), role("b", "x", "get"), role("c", "x", "list"), role("d", "y", "watch")];
        let sum = json!({"metadata": {"name": "s"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "true"}}]}});
        let verbs: Vec<_> = union(&sum, &all).unwrap().iter().map(|r| r["verbs"][0].clone()).collect();
        assert_eq!(verbs, ["get", "list"]);
        assert_eq!(union(&all[0], &all), None);
        let wanted = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]});
        assert_eq!(reconciled(&all[0], &wanted).unwrap()["rules"][1]["verbs"], json!(["list"]));
        assert_eq!(reconciled(&wanted, &wanted), None);
        let mut kept = Value::clone(&all[0]);
        kept["metadata"]["annotations"] = json!({AUTOUPDATE: "false"});
        assert_eq!(reconciled(&kept, &wanted), None);
    }
}
