//! PATCH: four ways to say what should be different.

use mote_api::apply::{self, Writer};
use mote_api::patch::{self, PatchError};
use mote_api::schema;
use mote_api::status::Status;
use mote_api::tree::Value;

use super::request::WriteOptions;
use super::words::{PatchType, Place, Written};
use super::{Api, admit, object};

/// Does a patch to a tree.
pub(crate) fn patched(place: Place<'_>, ty: PatchType, target: &mut Value, patch: &Value) -> Result<(), Status> {
    let done = match ty {
        PatchType::Json => patch::json_patch(target, patch),
        PatchType::Merge => patch::merge_patch(target, patch),
        PatchType::Strategic | PatchType::Apply => patch::strategic_merge_patch(place.kind, target, patch),
    };
    done.map_err(|e| match e {
        PatchError::Malformed(text) => Status::bad_request(text),
        PatchError::Inapplicable(_) => Status::new(e.code(), "Invalid", e.to_string()),
    })
}

impl Api {
    pub(crate) async fn patch(
        &self,
        place: Place<'_>,
        ty: PatchType,
        patch: &Value,
        duplicates: &[String],
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        if ty == PatchType::Apply {
            return self.apply(place, patch, duplicates, options).await;
        }
        self.change(place, options, |old| {
            let mut new = old;
            patched(place, ty, &mut new, patch)?;
            admit::identity(place.kind, place.ns, place.name, &mut new)?;
            let warnings = schema::check(place.kind, &mut new, duplicates, options.unknown)?;
            Ok((new, warnings))
        })
        .await
    }

    /// Server-side apply: makes the object if it is not there.
    async fn apply(
        &self,
        place: Place<'_>,
        wanted: &Value,
        duplicates: &[String],
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let options = &WriteOptions { applied: true, ..options.clone() };
        let mut wanted = wanted.clone();
        admit::identity(place.kind, place.ns, place.name, &mut wanted)?;
        let warnings = schema::check(place.kind, &mut wanted, duplicates, options.unknown)?;
        let writer = Writer { manager: &options.manager, subresource: place.sub, now: self.now() };
        let exists = self.store.get(&object::key(place.kind, place.ns, place.name), None).await?;
        let mut written = if exists.is_none() && place.sub.is_empty() {
            let new = apply::apply(place.kind, None, &wanted, &writer, options.force)?;
            match self.create(place.kind, place.ns, new, &[], options).await {
                Err(e) if e.is_already_exists() => {
                    self.change(place, options, |old| apply_to(place, &old, &wanted, &writer, options.force)).await?
                }
                done => done?,
            }
        } else {
            self.change(place, options, |old| apply_to(place, &old, &wanted, &writer, options.force)).await?
        };
        written.warnings.splice(0..0, warnings);
        Ok(written)
    }
}

fn apply_to(
    place: Place<'_>,
    old: &Value,
    wanted: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Vec<String>), Status> {
    Ok((apply::apply(place.kind, Some(old), wanted, writer, force)?, Vec::new()))
}
