//! What fields a kind has.

use crate::kind::Kind;
use crate::status::Status;
use crate::tree::Value;

/// What to do with fields the kind does not have (`?fieldValidation=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// Strict: refuse
    Error,
    /// Warn: drop, and tell
    Warn,
    /// Ignore: drop
    Drop,
}

/// Checks types against the kind's schema, and drops unknown fields and nulls. `duplicates` are the doubled keys of `tree::parse_json`.
/// Returns warnings (`unknown field "spec.x"`); refuses with 400 and upstream's wording.
pub fn check(kind: &Kind, object: &mut Value, duplicates: &[String], unknown: Unknown) -> Result<Vec<String>, Status> {
    let _ = (kind, object, duplicates, unknown);
    unimplemented!()
}
