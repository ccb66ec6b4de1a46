//! What `mote image` prints: tables for people, JSON for scripts.

use std::collections::BTreeMap;

use mote_images::{Error, Image, Store};
use mote_runtime::show;
use serde_json::json;

use crate::progress::bytes_text;

/// What the store takes on the disk, and what could go.
pub(super) fn disk(store: &Store, as_json: bool) -> Result<(), Error> {
    let (usage, space) = (store.usage()?, store.space()?);
    let rows = [
        ("layers", usage.layers),
        ("blobs", usage.blobs),
        ("partial", usage.partial),
        ("unused", usage.unused),
        ("disk", space.total),
        ("available", space.available),
    ];
    if as_json {
        show!("{}", json!(rows.iter().map(|(name, bytes)| (*name, *bytes)).collect::<BTreeMap<_, _>>()));
        return Ok(());
    }
    for ((name, bytes), what) in rows.iter().zip([
        "unpacked, shared ones once",
        "documents and kept compressed layers",
        "begun transfers",
        "of that could go with `mote image prune`",
        "the file system under it",
        "",
    ]) {
        show!("{}", format!("{name:9}  {:>9}  {what}", bytes_text(*bytes)).trim_end());
    }
    Ok(())
}

/// One line for an image.
pub(super) fn images(images: &[Image], as_json: bool) {
    if as_json {
        let list: Vec<_> = images
            .iter()
            .map(|image| {
                let layers: Vec<_> = image.layers.iter().map(|layer| json!({ "diffID": layer.diff_id.to_string(), "path": layer.path })).collect();
                json!({ "reference": image.reference.to_string(), "id": image.id.to_string(), "digest": image.resolved.to_string(),
                    "platform": image.config.platform.to_string(), "size": image.size, "layers": layers })
            })
            .collect();
        show!("{}", json!({ "images": list }));
        return;
    }
    let width = images.iter().map(|image| image.reference.familiar().len()).max().unwrap_or(0).max(9);
    show!("{:width$}  {:12}  {:14}  {:>6}  {:>9}", "REFERENCE", "ID", "PLATFORM", "LAYERS", "SIZE");
    for image in images {
        let id: String = image.id.hex().chars().take(12).collect();
        let platform = image.config.platform.to_string();
        show!(
            "{:width$}  {id:12}  {platform:14}  {:>6}  {:>9}",
            image.reference.familiar(),
            image.layers.len(),
            bytes_text(image.size)
        );
    }
}
