//! Server-side apply: who owns which field (`metadata.managedFields`), and merging what an applier wants (structured-merge-diff's rules).
//!
//! An applier owns the fields it says. What it no longer says goes, if nobody else owns it. A field that another manager owns with another value is a
//! conflict, unless forced. Any other write takes the fields it changes from their owners: [`track`].

mod fields;
mod managers;

use crate::kind::Kind;
use crate::meta;
use crate::schema::{self, Shape};
use crate::status::Status;
use crate::time::Time;
use crate::tree::{Value, as_map, at, json, remove, set};

use fields::{Fields, changed, key_of, prune};
use managers::{Managers, Operation};

/// Who writes, where, when.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// Field manager: `?fieldManager=`, else the user agent up to the first `/`.
    pub manager: &'a str,
    /// "" or `status`, `scale`.
    pub subresource: &'a str,
    pub now: Time,
}

/// Merges what the applier wants into the live object (none: a create). Returns the new object (the live one itself when nothing changes), or 409
/// with a cause per field that another manager owns with another value, unless `force`.
pub fn apply(
    kind: &Kind,
    live: Option<&Value>,
    wanted: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Status> {
    if at(wanted, &["metadata", "managedFields"]).is_some_and(|m| m.as_array().is_none_or(|l| !l.is_empty())) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let shape = schema::of(kind);
    let wanted = &own_part(kind, wanted, writer.subresource);
    let owned = Fields::of_object(wanted, shape);
    let mut managers = live.map_or_else(Managers::default, Managers::of);
    if let Some(live) = live.filter(|_| managers.is_empty()) {
        managers.before_first_apply(kind, Fields::of_object(live, shape));
    }
    let last = managers.take_applier(writer);
    let mut merged = live.cloned().unwrap_or_else(|| json!({}));
    merge(&mut merged, wanted, shape);
    if let Some(last) = &last {
        let mut keep: Vec<&Fields> = managers.sets().collect();
        keep.push(&owned);
        prune(&mut merged, shape, &last.fields, &keep);
    }
    let null = Value::Null;
    let (before, after) = (live.unwrap_or(&null), &merged);
    let (all_before, all_after) = (Fields::of_object(before, shape), Fields::of_object(after, shape));
    let altered = changed(&all_after, Some(before), after);
    let conflicts = managers.conflicts(&altered);
    if !force && !conflicts.is_empty() {
        return Err(managers::conflict_status(kind, meta::name(wanted), &conflicts));
    }
    managers.lose(&altered);
    managers.lose(&all_before.minus(&all_after));
    if let (Some(live), Some(last)) = (live, &last)
        && last.fields == owned
        && same_but_managers(live, &merged)
        && conflicts.is_empty()
    {
        return Ok(live.clone());
    }
    managers.add(kind, writer, Operation::Apply, owned);
    set(&mut merged, &["metadata", "managedFields"], managers.to_value());
    Ok(merged)
}

/// Notes in `new.metadata.managedFields` what any other write (create, update, patch) changed against `live`. What the client sent there is ignored, except
/// that an empty list forgets all owners.
pub fn track(kind: &Kind, live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let shape = schema::of(kind);
    let sent = remove(new, &["metadata", "managedFields"]);
    if sent.is_some_and(|s| {
        s.as_array().is_some_and(|l| l.is_empty() || l.iter().all(|e| e.as_object().is_some_and(|m| m.is_empty())))
    }) && live.is_some()
    {
        return;
    }
    let mut managers = live.map_or_else(Managers::default, Managers::of);
    let null = Value::Null;
    let before = live.unwrap_or(&null);
    let (all_before, all_after) = (Fields::of_object(before, shape), Fields::of_object(new, shape));
    let altered = changed(&all_after, Some(before), new);
    let gone = all_before.minus(&all_after);
    if !altered.is_empty() || !gone.is_empty() {
        let own = managers.take_updater(kind, writer);
        managers.lose(&altered);
        managers.lose(&gone);
        let mut fields = own.map_or_else(Fields::default, |o| o.fields.minus(&gone));
        fields.join(&altered);
        if !fields.is_empty() {
            managers.add(kind, writer, Operation::Update, fields);
        }
    }
    if !managers.is_empty() {
        set(new, &["metadata", "managedFields"], managers.to_value());
    }
}

/// The part of an object that may be applied through an endpoint: the status by its own, the rest by the main one.
fn own_part(kind: &Kind, wanted: &Value, subresource: &str) -> Value {
    let mut part = wanted.clone();
    remove(&mut part, &["metadata", "managedFields"]);
    match subresource {
        "" if kind.status() => {
            remove(&mut part, &["status"]);
        }
        "status" => {
            as_map(&mut part).retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
        }
        _ => {}
    }
    part
}

fn same_but_managers(a: &Value, b: &Value) -> bool {
    let bare = |v: &Value| {
        let mut v = v.clone();
        remove(&mut v, &["metadata", "managedFields"]);
        v
    };
    bare(a) == bare(b)
}

/// What `wanted` says wins; maps and keyed lists are merged, the rest is replaced.
fn merge(target: &mut Value, wanted: &Value, shape: Shape<'_>) {
    match (wanted, shape) {
        (Value::Object(map), Shape::Struct(_, false) | Shape::Map(_, false) | Shape::Raw) if target.is_object() => {
            let have = as_map(target);
            for (key, value) in map {
                match have.get_mut(key) {
                    Some(place) => merge(place, value, shape.child(key).unwrap_or(Shape::Raw)),
                    None => {
                        have.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(items), Shape::List(inner, rules)) if rules.set || !rules.map_keys.is_empty() => {
            let Value::Array(have) = target else {
                *target = wanted.clone();
                return;
            };
            let places: Vec<String> = items.iter().map(|item| key_of(item, rules)).collect();
            for (item, place) in items.iter().zip(&places) {
                match have.iter_mut().find(|h| key_of(h, rules) == *place) {
                    Some(h) => merge(h, item, inner.shape()),
                    None => have.push(item.clone()),
                }
            }
            crate::patch::order_by(have, &places, |item| Some(key_of(item, rules)));
        }
        _ => *target = wanted.clone(),
    }
}

#[cfg(test)]
mod tests;
