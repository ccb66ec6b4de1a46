//! The three ways to change an object in part: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), strategic merge patch.

use crate::kind::Kind;
use crate::tree::Value;

/// Why a patch could not be done. Each has its own HTTP code upstream, see [`PatchError::code`].
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
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Inapplicable(_) => 422,
        }
    }
}

/// RFC 6902. On error `target` is unchanged.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let _ = (target, patch);
    unimplemented!()
}
/// RFC 7386.
pub fn merge_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let _ = (target, patch);
    unimplemented!()
}
/// Upstream's strategic merge patch, with the merge keys of the kind's schema. Kinds without schema are refused (415 is for the caller to say).
pub fn strategic_merge_patch(kind: &Kind, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let _ = (kind, target, patch);
    unimplemented!()
}
