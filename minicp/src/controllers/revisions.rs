//! ControllerRevisions: every template that a DaemonSet or StatefulSet ever had, for `kubectl rollout history` and `undo`.
//!
//! Looked after when the owner's generation is new, that is when its template may be; what a revision holds never changes, so that nothing
//! else has to be watched.

use super::pods::PodOwner;
use super::seam::Deletion;
use super::{Context, REVISION_HASH};
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, at, i64_at, json, set, str_at};
use std::rc::Rc;

const RESOURCE: &str = "controllerrevisions.apps";
/// Upstream's `revisionHistoryLimit` where the owner names none.
const HISTORY_DEFAULT: i64 = 10;

/// What is to be done about the revisions of one owner.
#[derive(Debug, PartialEq, Default)]
struct Plan {
    /// There is none for the template: make one with this number.
    create: Option<i64>,
    /// This one is the newest again, with this number.
    renumber: Option<(String, i64)>,
    /// Too old.
    delete: Vec<String>,
}

/// What a revision of this owner holds: a strategic patch that brings its template back.
fn data(owner: &Value) -> Value {
    let mut template = at(owner, &["spec", "template"]).cloned().unwrap_or_else(|| json!({}));
    set(&mut template, &["$patch"], "replace".into());
    json!({"spec": {"template": template}})
}

/// Pure. `used`: hashes that pods bear.
fn plan(owner: &Value, mine: &[Rc<Value>], used: &[String]) -> Plan {
    let number = |r: &Value| i64_at(r, &["revision"]).unwrap_or(0);
    let wanted = data(owner);
    let newest = mine.iter().map(|r| number(r)).max().unwrap_or(0);
    let current = mine.iter().find(|r| r.get("data") == Some(&wanted));
    let mut plan = Plan::default();
    match current {
        None => plan.create = Some(newest.saturating_add(1)),
        Some(r) if number(r) < newest => {
            plan.renumber = Some((meta::name(r).to_owned(), newest.saturating_add(1)));
        }
        Some(_) => {}
    }
    let keep = i64_at(owner, &["spec", "revisionHistoryLimit"]).unwrap_or(HISTORY_DEFAULT).max(0);
    let is_current = |r: &Rc<Value>| current.is_some_and(|c| Rc::ptr_eq(c, r));
    let is_used = |r: &Rc<Value>| used.iter().any(|hash| hash == meta::label(r, REVISION_HASH));
    let mut old: Vec<&Rc<Value>> = mine.iter().filter(|r| !is_current(r) && !is_used(r)).collect();
    old.sort_by_key(|r| number(r));
    let surplus = old.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    plan.delete = old.iter().take(surplus).map(|r| meta::name(r).to_owned()).collect();
    plan
}

/// Keeps the history of `object`. `hash` is what pods of its template bear, `used` what its pods bear.
pub(super) async fn keep(
    cx: &Context,
    owner: &PodOwner,
    object: &Value,
    hash: &str,
    used: &[String],
) -> Result<(), Status> {
    if i64_at(object, &["status", "observedGeneration"]) == Some(meta::generation(object)) {
        return Ok(());
    }
    let ns = &*owner.about.key.ns;
    let (all, _) = cx.api.list(RESOURCE, Some(ns)).await?;
    let is_mine = |r: &Rc<Value>| meta::controller_of(r).is_some_and(|c| *c.uid == *owner.about.uid);
    let mine: Vec<Rc<Value>> = all.into_iter().filter(is_mine).collect();
    let plan = plan(object, &mine, used);
    if let Some(number) = plan.create {
        let new = revision(owner, object, hash, number);
        match cx.api.create(RESOURCE, ns, new).await {
            Err(status) if !status.is_already_exists() => return Err(status),
            _ => {}
        }
    }
    if let Some((name, number)) = &plan.renumber {
        settled(cx.api.merge_patch(RESOURCE, ns, name, None, json!({"revision": number})).await.map(drop))?;
    }
    for name in &plan.delete {
        settled(cx.api.delete(RESOURCE, ns, name, Deletion::default()).await)?;
    }
    Ok(())
}

/// What is gone or changed meanwhile is looked at when the owner's generation is new again.
fn settled(done: Result<(), Status>) -> Result<(), Status> {
    match done {
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        done => done,
    }
}

fn revision(owner: &PodOwner, object: &Value, hash: &str, number: i64) -> Value {
    let mut labels = at(object, &["spec", "template", "metadata", "labels"]).cloned().unwrap_or_else(|| json!({}));
    set(&mut labels, &[REVISION_HASH], hash.into());
    let mut new = json!({
        "metadata": {
            "name": format!("{}-{hash}", owner.about.key.name), "namespace": &*owner.about.key.ns,
            "labels": labels, "ownerReferences": [owner.reference()],
        },
        "revision": number, "data": data(object),
    });
    let cause = str_at(object, &["metadata", "annotations", "kubernetes.io/change-cause"]);
    if !cause.is_empty() {
        set(&mut new, &["metadata", "annotations", "kubernetes.io/change-cause"], cause.into());
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(image: &str, keep: i64) -> Value {
        json!({"spec": {"revisionHistoryLimit": keep, "template": {"spec": {"containers": [{"image": image}]}}}})
    }

    fn kept(image: &str, number: i64) -> Rc<Value> {
        let labels = json!({REVISION_HASH: image});
        Rc::new(
            json!({"metadata": {"name": image, "labels": labels}, "revision": number, "data": data(&owner(image, 0))}),
        )
    }

    #[test]
    fn templates_are_numbered_and_the_oldest_go() {
        let create = |number| Plan { create: Some(number), ..Plan::default() };
        assert_eq!(plan(&owner("a", 10), &[], &[]), create(1));
        assert_eq!(plan(&owner("b", 10), &[kept("a", 1)], &[]), create(2));
        assert_eq!(plan(&owner("b", 10), &[kept("a", 1), kept("b", 2)], &[]), Plan::default());
        let back = Plan { renumber: Some(("a".into(), 3)), ..Plan::default() };
        assert_eq!(plan(&owner("a", 10), &[kept("a", 1), kept("b", 2)], &[]), back);
        let many = [kept("a", 4), kept("b", 2), kept("c", 1), kept("d", 3)];
        let gone = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(plan(&owner("a", 1), &many, &[]).delete, gone(&["c", "b"]));
        assert_eq!(plan(&owner("a", 1), &many, &["c".into()]).delete, gone(&["b"]), "a pod of it is there");
        assert_eq!(plan(&owner("a", 0), &many, &[]).delete, gone(&["c", "b", "d"]), "the current one stays");
    }
}
