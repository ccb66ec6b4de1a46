//! Keeps the roles and bindings every cluster begins with ([`crate::rbac::table`]), and what is aggregated of them.
//!
//! Made true at every start, as upstream does: what is missing is made, permissions that were taken out are given back, unless the object says
//! `rbac.authorization.kubernetes.io/autoupdate: "false"`.

use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, list_at, set};

use crate::api::client::Client;
use crate::rbac::rule::{Rule, uncovered};
use crate::rbac::table::{AUTOUPDATE, GROUP, rows};

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

/// Makes the table true in the store: one list per resource, and a write only for what is missing. `local`: what lives in namespaces, else all other.
pub(crate) async fn seed(client: &Client, local: bool) -> Result<(), Status> {
    let mut found = Vec::new();
    for resource in if local { ["roles", "rolebindings"] } else { ["clusterroles", "clusterrolebindings"] } {
        let (list, _) = client.list(&format!("{resource}.{GROUP}"), None).await?;
        found.push((resource, list));
    }
    let mut writes = tokio::task::JoinSet::new();
    for row in rows().into_iter().filter(|r| r.ns.is_empty() != local) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::json;

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
