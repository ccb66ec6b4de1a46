//! Strategic merge patch: a merge patch that knows which lists are maps in disguise (apimachinery `strategicpatch`).
//!
//! Directives: `$patch: delete|replace|merge` in a map or list item, `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`, `$retainKeys`.

use super::{PatchError, malformed};
use crate::kind::Kind;
use crate::schema::{self, ListRules, Shape};
use crate::tree::{JSON_DEPTH_MAX, Map, Value, as_map};

const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";

/// Merges `patch` into `target` by the merge keys of the kind's schema. Kinds without schema merge like JSON Merge Patch (upstream answers
/// 415 for them: the caller's part).
pub fn strategic_merge_patch(kind: &Kind, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(changes) = patch else {
        return malformed("a strategic merge patch of an object must be an object");
    };
    merge_map(target, changes, schema::of(kind), 0)
}

/// The text of the `$patch` directive.
fn directive(changes: &Map<String, Value>) -> Result<Option<&str>, PatchError> {
    match changes.get(PATCH) {
        None => Ok(None),
        Some(Value::String(word)) if matches!(word.as_str(), "delete" | "replace" | "merge") => Ok(Some(word)),
        Some(other) => malformed(format!("unknown patch type: {other}")),
    }
}

/// A patch put where nothing was: without its directives and nulls.
fn plain(patch: &Value, depth: usize) -> Result<Value, PatchError> {
    if depth > JSON_DEPTH_MAX {
        return malformed(format!("nested deeper than {JSON_DEPTH_MAX} levels"));
    }
    Ok(match patch {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
            Value::Object(
                kept.map(|(key, value)| Ok((key.clone(), plain(value, depth + 1)?)))
                    .collect::<Result<_, PatchError>>()?,
            )
        }
        Value::Array(list) => {
            let deletes = |item: &&Value| item.get(PATCH).and_then(Value::as_str) != Some("delete");
            let marker = |item: &&Value| !item.as_object().is_some_and(|m| m.len() == 1 && m.contains_key(PATCH));
            Value::Array(
                list.iter()
                    .filter(deletes)
                    .filter(marker)
                    .map(|item| plain(item, depth + 1))
                    .collect::<Result<_, _>>()?,
            )
        }
        other => other.clone(),
    })
}

fn merge_map(
    target: &mut Value,
    changes: &Map<String, Value>,
    shape: Shape<'_>,
    depth: usize,
) -> Result<(), PatchError> {
    if depth > JSON_DEPTH_MAX {
        return malformed(format!("nested deeper than {JSON_DEPTH_MAX} levels"));
    }
    match directive(changes)? {
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("replace") => {
            *target = plain(&Value::Object(changes.clone()), depth)?;
            return Ok(());
        }
        _ => {}
    }
    let map = as_map(target);
    if let Some(retained) = changes.get(RETAIN_KEYS) {
        retain_keys(map, retained, changes)?;
    }
    for (key, change) in changes {
        if key == PATCH || key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_from(map, field, change)?;
        } else if change.is_null() {
            map.remove(key);
        } else {
            merge_field(map, key, change, shape, depth)?;
        }
    }
    // An order may come without a change of the list itself.
    for (key, order) in changes {
        if let Some(field) = key.strip_prefix(ELEMENT_ORDER)
            && let Some(Value::Array(list)) = map.get_mut(field)
        {
            set_order(list, order, merge_key(shape.child(field)), changes.get(field))?;
        }
    }
    Ok(())
}

fn merge_key(shape: Option<Shape<'_>>) -> Option<&str> {
    match shape {
        Some(Shape::List(_, rules)) => rules.patch_key,
        _ => None,
    }
}

fn merge_field(
    map: &mut Map<String, Value>,
    key: &str,
    change: &Value,
    shape: Shape<'_>,
    depth: usize,
) -> Result<(), PatchError> {
    let child = shape.child(key);
    match (change, child) {
        (Value::Object(inner), _) => {
            if directive(inner)? == Some("delete") && !matches!(child, Some(Shape::Map(..))) {
                map.remove(key);
                return Ok(());
            }
            match map.get_mut(key) {
                Some(have @ Value::Object(_)) => merge_map(have, inner, child.unwrap_or(Shape::Raw), depth + 1),
                _ => {
                    map.insert(key.to_string(), plain(change, depth)?);
                    Ok(())
                }
            }
        }
        (Value::Array(items), Some(Shape::List(inner, ListRules { patch_key: Some(by), .. }))) => {
            let have = map.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            if !have.is_array() {
                *have = Value::Array(Vec::new());
            }
            let Value::Array(list) = have else { return Ok(()) };
            if by.is_empty() {
                merge_primitives(list, items);
                Ok(())
            } else {
                merge_list(list, items, by, inner.shape(), depth + 1)
            }
        }
        (_, _) => {
            map.insert(key.to_string(), plain(change, depth)?);
            Ok(())
        }
    }
}

fn retain_keys(map: &mut Map<String, Value>, retained: &Value, changes: &Map<String, Value>) -> Result<(), PatchError> {
    let Value::Array(names) = retained else {
        return malformed("invalid patch format of $retainKeys: a list is expected");
    };
    for key in changes.keys().filter(|k| !k.starts_with('$')) {
        if changes.get(key).is_some_and(|v| !v.is_null()) && !names.iter().any(|n| n.as_str() == Some(key)) {
            return malformed(format!("$retainKeys lacks the key {key:?} that the patch sets"));
        }
    }
    map.retain(|key, _| names.iter().any(|n| n.as_str() == Some(key)));
    Ok(())
}

fn delete_from(map: &mut Map<String, Value>, field: &str, values: &Value) -> Result<(), PatchError> {
    let Value::Array(gone) = values else {
        return malformed(format!("invalid patch format of {DELETE_FROM}{field}: a list is expected"));
    };
    if let Some(Value::Array(list)) = map.get_mut(field) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_primitives(list: &mut Vec<Value>, items: &[Value]) {
    for item in items {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// What was there keeps its place, what is new stands at the end: `$setElementOrder` comes after.
fn merge_list(
    list: &mut Vec<Value>,
    items: &[Value],
    by: &str,
    shape: Shape<'_>,
    depth: usize,
) -> Result<(), PatchError> {
    // `[{$patch: replace}, ...]` replaces the list.
    let replaces = |item: &Value| {
        item.as_object().is_some_and(|m| m.len() == 1 && m.get(PATCH).and_then(Value::as_str) == Some("replace"))
    };
    if items.iter().any(replaces) {
        if let Value::Array(new) = plain(&Value::Array(items.to_vec()), depth)? {
            *list = new;
        }
        return Ok(());
    }
    for item in items {
        let Value::Object(change) = item else {
            return malformed(format!("expected a map in a list that is merged by {by:?}"));
        };
        let Some(id) = change.get(by) else {
            return malformed(format!("map: {item} does not contain declared merge key: {by}"));
        };
        let found = list.iter().position(|have| have.get(by) == Some(id));
        match (directive(change)?, found) {
            (Some("delete"), _) => list.retain(|have| have.get(by) != Some(id)),
            (Some("replace"), Some(at)) => {
                let new = plain(item, depth)?;
                if let Some(place) = list.get_mut(at) {
                    *place = new;
                }
            }
            (_, Some(at)) => {
                if let Some(have) = list.get_mut(at) {
                    merge_map(have, change, shape, depth + 1)?;
                }
            }
            (_, None) => list.push(plain(item, depth)?),
        }
    }
    Ok(())
}

/// `$setElementOrder`: see [`order_by`].
fn set_order(
    list: &mut Vec<Value>,
    order: &Value,
    by: Option<&str>,
    patched: Option<&Value>,
) -> Result<(), PatchError> {
    let Value::Array(order) = order else {
        return malformed("invalid patch format of $setElementOrder: a list is expected");
    };
    let id = |item: &Value| match by {
        Some(key) if !key.is_empty() => item.get(key).cloned(),
        _ => Some(item.clone()),
    };
    let places: Vec<Value> = order.iter().filter_map(&id).collect();
    if let Some(Value::Array(items)) = patched {
        let deletes = |item: &Value| item.get(PATCH).is_some();
        if let Some(lost) = items.iter().filter(|i| !deletes(i)).filter_map(&id).find(|i| !places.contains(i)) {
            return malformed(format!(
                "The order in patch list:\n{lost}\n doesn't match $setElementOrder list:\n{order:?}"
            ));
        }
    }
    order_by(list, &places, id);
    Ok(())
}

/// Puts the items whose identity is among `places` in that order; an item without a place travels with the one it stood after.
pub(crate) fn order_by<I: PartialEq>(list: &mut Vec<Value>, places: &[I], id: impl Fn(&Value) -> Option<I>) {
    let place = |item: &Value| id(item).and_then(|i| places.iter().position(|p| *p == i));
    let mut groups: Vec<(usize, Vec<Value>)> = Vec::new();
    let mut leading = Vec::new();
    for item in std::mem::take(list) {
        match (place(&item), groups.last_mut()) {
            (Some(at), _) => groups.push((at, vec![item])),
            (None, Some((_, group))) => group.push(item),
            (None, None) => leading.push(item),
        }
    }
    groups.sort_by_key(|(at, _)| *at);
    list.extend(leading);
    list.extend(groups.into_iter().flat_map(|(_, group)| group));
}
