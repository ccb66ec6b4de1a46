//! JSON Patch (RFC 6902) with JSON Pointers (RFC 6901).

use super::{PatchError, malformed};
use crate::tree::{JSON_DEPTH_MAX, Value, str_at};

/// Operations of one patch (upstream's limit).
const OPERATIONS_MAX: usize = 10_000;
/// Nodes that `copy` may add in one patch.
const COPIED_MAX: usize = 1 << 20;

/// RFC 6902, all or nothing: on error `target` is unchanged.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = patch else {
        return malformed("a JSON patch must be a list of operations");
    };
    if operations.len() > OPERATIONS_MAX {
        return malformed(format!(
            "the allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        ));
    }
    let mut result = target.clone();
    let mut copied = 0;
    for operation in operations {
        apply(&mut result, operation, &mut copied)?;
    }
    *target = result;
    Ok(())
}

fn apply(root: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), PatchError> {
    let op = str_at(operation, &["op"]);
    let pointer = |field: &str| match operation.get(field) {
        Some(Value::String(text)) => parse_pointer(text),
        _ => malformed(format!("operation {op:?} lacks {field:?}")),
    };
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or_else(|| PatchError::Malformed(format!("operation {op:?} lacks \"value\"")))
    };
    let path = pointer("path")?;
    match op {
        "add" => add(root, &path, value()?),
        "remove" => take(root, &path).map(drop),
        "replace" => {
            *seek(root, &path)? = value()?;
            Ok(())
        }
        "move" => {
            let from = pointer("from")?;
            if path.len() > from.len() && path.starts_with(&from) {
                return malformed("a value cannot be moved into itself");
            }
            let value = take(root, &from)?;
            add(root, &path, value)
        }
        "copy" => {
            let value = seek(root, &pointer("from")?)?.clone();
            *copied += size(&value);
            if *copied > COPIED_MAX {
                return malformed("the patch copies too much");
            }
            add(root, &path, value)
        }
        "test" => {
            let want = value()?;
            let found = seek(root, &path)
                .map(|v| v.clone())
                .or_else(|e| if want.is_null() { Ok(Value::Null) } else { Err(e) })?;
            if found == want { Ok(()) } else { inapplicable(format!("testing value {} failed", written(&path))) }
        }
        other => malformed(format!("unexpected kind: {other:?}")),
    }
}

fn inapplicable<T>(why: String) -> Result<T, PatchError> {
    Err(PatchError::Inapplicable(why))
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn parse_pointer(text: &str) -> Result<Vec<String>, PatchError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = text.strip_prefix('/') else {
        return malformed(format!("path {text:?} does not begin with '/'"));
    };
    let parts: Vec<String> = rest.split('/').map(|p| p.replace("~1", "/").replace("~0", "~")).collect();
    if parts.len() > JSON_DEPTH_MAX {
        return malformed(format!("path deeper than {JSON_DEPTH_MAX} levels"));
    }
    Ok(parts)
}

fn written(path: &[String]) -> String {
    path.iter().map(|p| format!("/{}", p.replace('~', "~0").replace('/', "~1"))).collect()
}

fn index(text: &str, length: usize) -> Option<usize> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|i| canonical && *i < length)
}

fn missing(path: &[String]) -> PatchError {
    PatchError::Inapplicable(format!("the path {} does not exist", written(path)))
}

fn seek<'a>(root: &'a mut Value, path: &[String]) -> Result<&'a mut Value, PatchError> {
    path.iter().try_fold(root, |v, key| match v {
        Value::Object(map) => map.get_mut(key).ok_or_else(|| missing(path)),
        Value::Array(list) => {
            let at = index(key, list.len()).ok_or_else(|| missing(path))?;
            list.get_mut(at).ok_or_else(|| missing(path))
        }
        _ => Err(missing(path)),
    })
}

fn add(root: &mut Value, path: &[String], value: Value) -> Result<(), PatchError> {
    let Some((last, parents)) = path.split_last() else {
        *root = value;
        return Ok(());
    };
    match seek(root, parents)? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
        }
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            let at = index(last, list.len() + 1).ok_or_else(|| missing(path))?;
            list.insert(at, value);
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

fn take(root: &mut Value, path: &[String]) -> Result<Value, PatchError> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(root.take());
    };
    match seek(root, parents)? {
        Value::Object(map) => map.remove(last).ok_or_else(|| missing(path)),
        Value::Array(list) => index(last, list.len()).map(|at| list.remove(at)).ok_or_else(|| missing(path)),
        _ => Err(missing(path)),
    }
}
