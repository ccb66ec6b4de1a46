//! Deletion: at once, after a grace period, or when the last finalizer is gone.

use std::rc::Rc;

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, i64_at, json, list_at, set, slot, str_at};

use super::convert;
use super::request::WriteOptions;
use super::words::{DeleteOptions, ListQuery, Propagation, Written};
use super::{Api, WRITE_TRIES_MAX, class_of, object, refused};
use crate::store::{CommitError, Guard, Op, Txn};

/// Upstream's `terminationGracePeriodSeconds` where a pod has none.
const GRACE_DEFAULT: i64 = 30;

/// What a delete leads to.
#[derive(Debug, PartialEq)]
pub(crate) enum Plan {
    /// It goes now.
    Remove,
    /// It is marked, and goes when the node or the finalizers are done.
    Mark(Value),
    /// It is marked already, nothing changes.
    Keep,
}

/// Whether a marked object has nothing left to wait for.
pub(crate) fn may_go(kind: &Kind, object: &Value) -> bool {
    meta::is_deleting(object)
        && meta::finalizers(object).next().is_none()
        && i64_at(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && (!kind.is("", "Namespace") || list_at(object, &["spec", "finalizers"]).is_empty())
}

fn grace(kind: &Kind, object: &Value, options: &DeleteOptions) -> i64 {
    if !kind.is("", "Pod") {
        return 0;
    }
    let finished = matches!(str_at(object, &["status", "phase"]), "Succeeded" | "Failed");
    if str_at(object, &["spec", "nodeName"]).is_empty() || finished {
        return 0;
    }
    let own = i64_at(object, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(GRACE_DEFAULT);
    options.grace_seconds.unwrap_or(own).max(0)
}

/// What deleting `object` now means. Pure.
pub(crate) fn plan(kind: &Kind, object: &Value, options: &DeleteOptions, now: mote_api::time::Time) -> Plan {
    let grace = grace(kind, object, options);
    let mut new = object.clone();
    match options.propagation {
        Some(Propagation::Foreground) => add_finalizer(&mut new, "foregroundDeletion"),
        Some(Propagation::Orphan) => add_finalizer(&mut new, "orphan"),
        _ => {}
    }
    if meta::is_deleting(object) {
        // The time that is left may be shortened, never stretched.
        let left = i64_at(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
        if grace < left {
            set(&mut new, &["metadata", "deletionGracePeriodSeconds"], json!(grace));
            set(&mut new, &["metadata", "deletionTimestamp"], now.plus_seconds(grace).to_string().into());
        }
    } else {
        set(&mut new, &["metadata", "deletionTimestamp"], now.plus_seconds(grace).to_string().into());
        set(&mut new, &["metadata", "deletionGracePeriodSeconds"], json!(grace));
        if kind.is("", "Namespace") {
            set(&mut new, &["status", "phase"], "Terminating".into());
        }
        if kind.is("apiextensions.k8s.io", "CustomResourceDefinition") {
            mote_api::crd::terminating(&mut new, now);
        }
        if meta::generation(&new) > 0 {
            let next = meta::generation(&new) + 1;
            set(&mut new, &["metadata", "generation"], json!(next));
        }
    }
    if may_go(kind, &new) {
        Plan::Remove
    } else if new == *object {
        Plan::Keep
    } else {
        Plan::Mark(new)
    }
}

fn add_finalizer(object: &mut Value, name: &str) {
    let list = slot(object, &["metadata", "finalizers"]);
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|f| f == name)
    {
        list.push(name.into());
    }
}

impl Api {
    /// The object as it was left, or was last.
    pub(crate) async fn delete(
        &self,
        kind: &Rc<Kind>,
        ns: &str,
        name: &str,
        options: &DeleteOptions,
        write: &WriteOptions,
    ) -> Result<(Written, bool), Status> {
        for _ in 0..WRITE_TRIES_MAX {
            let found = self.entry(kind, ns, name).await?;
            let old = object::decode(kind, &found);
            precondition(kind, name, "UID", options.uid.as_deref(), meta::uid(&old))?;
            let version = meta::resource_version(&old);
            precondition(kind, name, "ResourceVersion", options.resource_version.as_deref(), version)?;
            if kind.is("", "Namespace") && ["default", "kube-system", "kube-public"].contains(&name) {
                return Err(Status::forbidden(kind, name, "this namespace may not be deleted"));
            }
            super::admit::node::check_delete(kind, &old, &write.user)?;
            let key: Rc<str> = object::key(kind, ns, name).into();
            let (op, new, gone) = match plan(kind, &old, options, self.now()) {
                Plan::Keep => return Ok((Written { value: old, warnings: Vec::new(), created: false }, false)),
                Plan::Remove => (Op::Delete(key.clone()), None, true),
                Plan::Mark(mut new) => {
                    convert::to_stored(kind, &mut new);
                    let value = object::encode(new);
                    (Op::Put(key.clone(), value.clone()), Some(value), false)
                }
            };
            let shown = |revision| match &new {
                Some(value) => object::decode(kind, &object::entry(value.clone(), revision)),
                None => old.clone(),
            };
            if write.dry_run {
                return Ok((Written { value: shown(found.modified), warnings: Vec::new(), created: false }, gone));
            }
            let txn = Txn { guards: vec![Guard::Unchanged(key, found.modified)], ops: vec![op], class: class_of(kind) };
            match self.store.commit(txn).await {
                Ok(revision) => {
                    return Ok((Written { value: shown(revision), warnings: Vec::new(), created: false }, gone));
                }
                Err(CommitError::Conflict) => {}
                Err(e) => return Err(refused(e)),
            }
        }
        Err(Status::modified(kind, name))
    }

    /// Every object that matches, one by one; what is gone meanwhile does not matter.
    pub(crate) async fn delete_collection(
        &self,
        kind: &Rc<Kind>,
        ns: &str,
        query: &ListQuery,
        options: &DeleteOptions,
        write: &WriteOptions,
    ) -> Result<Vec<Value>, Status> {
        let listed = self.list(kind, ns, query).await?;
        let mut done = Vec::new();
        for (_, found) in listed.entries {
            let object = object::decode(kind, &found);
            match self.delete(kind, meta::namespace(&object), meta::name(&object), options, write).await {
                Ok((written, _)) => done.push(written.value),
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

fn precondition(kind: &Kind, name: &str, what: &str, wanted: Option<&str>, is: &str) -> Result<(), Status> {
    match wanted {
        Some(wanted) if wanted != is => {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}");
            Err(Status::conflict(kind, name, &why))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::kind::Registry;
    use mote_api::time::Time;

    #[test]
    fn plans() {
        let registry = Registry::builtin();
        let (pod, map) = (registry.find("pods").unwrap(), registry.find("configmaps").unwrap());
        let now = Time::from_unix(1_800_000_000);
        let options = |grace| DeleteOptions { grace_seconds: grace, ..DeleteOptions::default() };
        let placed = json!({"metadata":{"name":"a"},"spec":{"nodeName":"n","terminationGracePeriodSeconds":5}});
        let Plan::Mark(marked) = plan(pod, &placed, &options(None), now) else { panic!() };
        assert_eq!(str_at(&marked, &["metadata", "deletionTimestamp"]), now.plus_seconds(5).to_string());
        assert_eq!(plan(pod, &marked, &options(None), now), Plan::Keep);
        assert_eq!(plan(pod, &marked, &options(Some(9)), now), Plan::Keep);
        assert!(matches!(plan(pod, &marked, &options(Some(2)), now), Plan::Mark(_)));
        assert_eq!(plan(pod, &marked, &options(Some(0)), now), Plan::Remove);
        assert_eq!(plan(pod, &json!({"metadata":{},"spec":{}}), &options(None), now), Plan::Remove);
        let done = json!({"metadata":{},"spec":{"nodeName":"n"},"status":{"phase":"Succeeded"}});
        assert_eq!(plan(pod, &done, &options(None), now), Plan::Remove);
        assert_eq!(plan(map, &json!({"metadata":{}}), &options(Some(30)), now), Plan::Remove);
        let kept = json!({"metadata":{"finalizers":["x"]}});
        assert!(matches!(plan(map, &kept, &options(None), now), Plan::Mark(_)));
        let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..options(None) };
        let Plan::Mark(marked) = plan(map, &json!({"metadata":{}}), &foreground, now) else { panic!() };
        assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        let ns = registry.find("namespaces").unwrap();
        let live = json!({"metadata":{},"spec":{"finalizers":["kubernetes"]}});
        let Plan::Mark(marked) = plan(ns, &live, &options(None), now) else { panic!() };
        assert_eq!(str_at(&marked, &["status", "phase"]), "Terminating");
    }
}
