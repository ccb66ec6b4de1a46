//! Server-side apply: who owns which field (`metadata.managedFields`, FieldsV1), and merging what an applier wants.

use crate::kind::Kind;
use crate::status::Status;
use crate::time::Time;
use crate::tree::Value;

/// Who writes, where.
pub struct Writer<'a> {
    /// Field manager: `?fieldManager=`, else the user agent up to the first `/`.
    pub manager: &'a str,
    /// "" or `status`, `scale`.
    pub subresource: &'a str,
    pub now: Time,
}

/// Merges what the applier wants into the live object (none: a create). Returns the new object, or 409 with a cause per field that another
/// manager owns with another value, unless `force`.
pub fn apply(
    kind: &Kind,
    live: Option<&Value>,
    wanted: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Status> {
    let _ = (kind, live, wanted, writer, force);
    unimplemented!()
}
/// Notes in `new.metadata.managedFields` what any other write (create, update, patch) changed against `live`.
pub fn track(kind: &Kind, live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let _ = (kind, live, new, writer);
}
