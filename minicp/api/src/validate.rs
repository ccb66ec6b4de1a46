//! The rules of each kind beyond types: upstream's field paths and messages.

use crate::field::Error;
use crate::kind::Kind;
use crate::tree::Value;

/// All that is wrong with an object about to be made (after defaults; `metadata.name` filled).
pub fn create(kind: &Kind, object: &Value) -> Vec<Error> {
    let _ = (kind, object);
    unimplemented!()
}
/// All that is wrong with `new` as the successor of `old`, immutable fields included. `subresource`: "" or `status`, ...
pub fn update(kind: &Kind, new: &Value, old: &Value, subresource: &str) -> Vec<Error> {
    let _ = (kind, new, old, subresource);
    unimplemented!()
}
