//! Image garbage collection, as the kubelet's: every five minutes (`--image-gc-period`), when the disk under the images is fuller than the high threshold,
//! images go, least recently used first, until it is below the low one. What goes is decided in `mote_images::store::gc`; an image
//! is asked for at its registry before it goes, so that a node without a network keeps what it has.

use std::rc::Rc;
use std::time::Duration;

use mote_images::GcPolicy;
use serde_json::json;

use crate::agent::Agent;
use crate::progress::bytes_text;

/// Between two looks (the kubelet's `ImageGCPeriod`).
pub(crate) const EVERY: Duration = Duration::from_secs(300);

/// Looks as long as the agent runs.
pub(crate) async fn keep(agent: Rc<Agent>, policy: GcPolicy, every: Duration) {
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": agent.config.node_name, "uid": agent.config.node_name}});
    loop {
        tokio::time::sleep(every).await;
        let (store, registries) = (agent.images.clone(), agent.config.pull.registries.clone());
        let swept = tokio::task::spawn_blocking(move || {
            store.sweep_images(&policy, &|reference, digest| {
                mote_images::can_fetch(reference, digest, &registries, &mote_images::Cancel::default())
            })
        });
        let (reason, message) = match swept.await {
            Ok(Ok(swept)) => {
                for image in &swept.images {
                    log::info!("image {image} deleted: the disk is full to {} % or more", policy.high_percent);
                }
                if swept.freed > 0 {
                    log::info!("image garbage collection freed {}", bytes_text(swept.freed));
                }
                if swept.freed >= swept.wanted {
                    continue;
                }
                let message = format!(
                    "Failed to garbage collect required amount of images. Attempted to free {} bytes, but only found {} bytes eligible to free.",
                    swept.wanted, swept.freed
                );
                ("FreeDiskSpaceFailed", message)
            }
            // Someone imports or packs: the next look will do.
            Ok(Err(mote_images::Error::InUse { .. })) => continue,
            Ok(Err(error)) => ("ImageGCFailed", crate::client::chain(&error)),
            Err(error) => ("ImageGCFailed", error.to_string()),
        };
        agent.events.note(&node, "", true, reason, &message);
    }
}
