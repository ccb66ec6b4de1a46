//! etcd keeps every past value until it is told to forget. One of the API servers does that, like kube-apiserver: what is older than one
//! interval goes. Who is first to note it in a key of ours does it for all.

use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::json;

use super::{Shared, wire};
use crate::store::Revision;

/// What is known of the key: how often it was written, and what was the newest revision then.
#[derive(Clone, Copy, Default)]
pub(super) struct Noted {
    version: u64,
    revision: Revision,
}

/// Until the store is closed (it ends the task).
pub(super) async fn run(shared: Rc<Shared>, every: Option<Duration>) {
    let Some(every) = every else { return };
    let mut noted = Noted::default();
    loop {
        tokio::time::sleep(every).await;
        noted = match step(&shared, noted).await {
            Ok(noted) => noted,
            Err(why) => {
                log::warn!("etcd: compact: {why}");
                noted
            }
        };
    }
}

/// One turn: if nobody else had it since the last one, what was the newest revision then is the oldest from now on.
pub(super) async fn step(shared: &Shared, noted: Noted) -> Result<Noted, String> {
    let claim = shared.names.claim_compaction(noted.version, shared.revision());
    let answer = shared.cluster.call("/v3/kv/txn", claim, false).await.map_err(|e| e.to_string())?;
    if !wire::succeeded(&answer) {
        let (version, revision) = wire::compaction(&answer);
        return Ok(Noted { version, revision });
    }
    if noted.revision > Revision(0) {
        let body = json!({"revision": noted.revision.to_string()}).to_string();
        match shared.cluster.call("/v3/kv/compaction", body, true).await {
            // Somebody's own hand was faster.
            Err(e) if e.to_string().contains("compacted") => {}
            done => drop(done.map_err(|e| e.to_string())?),
        }
    }
    Ok(Noted { version: noted.version + 1, revision: wire::header(&answer) })
}
