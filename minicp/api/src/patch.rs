//! The three ways to change an object in part: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), strategic merge patch.

mod json;
mod strategic;

use crate::tree::{JSON_DEPTH_MAX, Map, Value};

pub use json::json_patch;
pub(crate) use strategic::order_by;
pub use strategic::strategic_merge_patch;

/// Why a patch could not be done. Each has its own HTTP code upstream: [`PatchError::code`].
#[derive(thiserror::Error, Debug, PartialEq, Eq)]
pub enum PatchError {
    /// The patch itself makes no sense: 400.
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object (a path that is not there, a `test` that fails): 422.
    #[error("{0}")]
    Inapplicable(String),
}

impl PatchError {
    /// The HTTP code upstream answers with.
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Inapplicable(_) => 422,
        }
    }
}

fn malformed<T>(why: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Malformed(why.into()))
}

/// RFC 7386: maps are merged, null removes, the rest replaces.
pub fn merge_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return malformed("a merge patch of an object must be an object");
    }
    merge(target, patch, 0)
}

fn merge(target: &mut Value, patch: &Value, depth: usize) -> Result<(), PatchError> {
    if depth > JSON_DEPTH_MAX {
        return malformed(format!("nested deeper than {JSON_DEPTH_MAX} levels"));
    }
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    let map = crate::tree::as_map(target);
    for (key, change) in changes {
        if change.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.as_str()).or_insert(Value::Null), change, depth + 1)?;
        }
    }
    Ok(())
}

/// The merge patch that turns `from` into `to`; an empty map when they are equal. (Lists are replaced whole; nulls in `to` cannot be said.)
pub fn diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(a), Value::Object(b)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for key in a.keys().filter(|k| !b.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, want) in b {
        match a.get(key) {
            Some(have) if have == want => {}
            Some(have) if have.is_object() && want.is_object() => {
                patch.insert(key.clone(), diff(have, want));
            }
            _ => {
                patch.insert(key.clone(), want.clone());
            }
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests;
