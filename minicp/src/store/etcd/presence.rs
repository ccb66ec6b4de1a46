//! That this server lives, said to those that share the state: one key under an etcd lease that is kept alive as long as the store is open.
//! A server that dies takes its key with it within [`TTL`]; one that ends orderly gives the lease back, and the key goes at once.

use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::json;
use tokio::time::timeout;

use super::http::CallError;
use super::{Shared, wire};
use crate::store::{Class, Op, Txn};

/// Without a sign of life for so long the lease is over: upstream's for the addresses of its API servers.
const TTL: Duration = Duration::from_secs(15);
/// Between two signs of life: two may be lost.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
/// How long an orderly end waits for the lease to be given back.
const RETURNED_WITHIN: Duration = Duration::from_secs(2);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Until the store is closed (it ends the task).
pub(super) async fn run(shared: Rc<Shared>, present: Op) {
    loop {
        let held = shared.presence.borrow().clone();
        let pause = match step(&shared, held, &present).await {
            Ok(lease) => {
                *shared.presence.borrow_mut() = Some(lease);
                KEEP_ALIVE_EVERY
            }
            Err(why) => {
                log::warn!("etcd: say that this server lives: {why}");
                AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The lease that holds the key by now: the one there was, or a new one if etcd has given that up (it was out of reach for too long).
async fn step(shared: &Shared, held: Option<String>, present: &Op) -> Result<String, CallError> {
    if let Some(lease) = held {
        let answer = shared.cluster.call("/v3/lease/keepalive", json!({ "ID": lease }).to_string(), true).await?;
        if wire::kept_alive(&answer) {
            return Ok(lease);
        }
    }
    let lease = shared.grant(TTL).await?;
    let txn = Txn { guards: Vec::new(), ops: vec![present.clone()], class: Class::Volatile };
    shared.cluster.call("/v3/kv/txn", shared.names.txn(&txn, Some(&lease), |_| true), true).await?;
    Ok(lease)
}

/// An orderly end: the key goes with its lease.
pub(super) async fn end(shared: &Shared) {
    let held = shared.presence.borrow_mut().take();
    let Some(lease) = held else { return };
    let body = json!({ "ID": lease }).to_string();
    let why = match timeout(RETURNED_WITHIN, shared.cluster.call("/v3/lease/revoke", body, true)).await {
        Ok(Ok(_)) => return,
        Ok(Err(why)) => why.to_string(),
        Err(_) => format!("no answer in time; {}", shared.cluster.trouble()),
    };
    log::warn!("etcd: give the lease of this server back: {why}; it ends by itself within {} s", TTL.as_secs());
}
