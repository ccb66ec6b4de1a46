//! The watch that feeds the index: one stream, begun anew where it was when it breaks.

use std::rc::Rc;
use std::time::Duration;

use super::http::Lines;
use super::wire::Line;
use super::{Shared, wire};
use crate::store::{Op, Revision};

/// Between two attempts when no member lets us watch.
const PAUSE: Duration = Duration::from_millis(200);
/// A stream that has been silent so long is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(30);

/// Why a stream came to its end.
enum Ended {
    /// From here on it can be had again.
    Broken(String),
    /// What we have not seen is gone.
    Compacted,
}

/// Until the store is closed (it ends the task).
pub(super) async fn run(shared: Rc<Shared>) {
    loop {
        let from = shared.revision();
        let (member, opened) = shared.cluster.stream("/v3/watch", shared.names.watch(from)).await;
        let ended = match opened {
            Ok(lines) => read(&shared, lines).await,
            Err(e) => Ended::Broken(e.to_string()),
        };
        match ended {
            Ended::Broken(why) => {
                log::warn!("etcd: watch: {why}; going on from revision {}", shared.revision());
                shared.cluster.leave(member);
                if shared.revision() == from {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ended::Compacted => begin_anew(&shared).await,
        }
    }
}

/// Lists everything again; every watcher is told that it missed something.
async fn begin_anew(shared: &Shared) {
    match shared.list().await {
        Ok(index) => {
            log::warn!("etcd: what happened since revision {} was compacted: all is listed anew", shared.revision());
            shared.feeds.cut();
            *shared.index.borrow_mut() = index;
            shared.moved.notify_waiters();
        }
        Err(e) => {
            log::warn!("etcd: list: {e}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn read(shared: &Shared, mut lines: Lines) -> Ended {
    let mut held: Vec<(Revision, Option<Op>)> = Vec::new();
    loop {
        let line = tokio::select! {
            line = tokio::time::timeout(SILENCE, lines.next()) => line,
            () = shared.kick.notified() => return Ended::Broken("nothing came for too long".into()),
        };
        let line = match line {
            Ok(Ok(line)) => line,
            Ok(Err(why)) => return Ended::Broken(why),
            // An idle cluster, or a connection that is dead.
            Err(_) => match sign_of_life(shared, &mut lines).await {
                Ok(Some(line)) => line,
                Ok(None) => continue,
                Err(why) => return Ended::Broken(why),
            },
        };
        match shared.names.line(&line) {
            Ok(Line::Nothing) => {}
            Ok(Line::Changes { changes, fragment }) => {
                held.extend(changes);
                if !fragment {
                    apply(shared, std::mem::take(&mut held));
                }
            }
            Ok(Line::Compacted(_)) => return Ended::Compacted,
            Ok(Line::Ended(why)) if why.contains("compacted") => return Ended::Compacted,
            Ok(Line::Ended(why)) => return Ended::Broken(why),
            Err(e) => return Ended::Broken(e.to_string()),
        }
    }
}

/// Nothing, if nothing has happened that was not told; else the next line, which is due.
async fn sign_of_life(shared: &Shared, lines: &mut Lines) -> Result<Option<Vec<u8>>, String> {
    let newest = shared.cluster.call("/v3/kv/range", shared.names.get(wire::NOTHING, Revision(0)), true).await;
    if wire::header(&newest.map_err(|e| e.to_string())?) <= shared.revision() {
        return Ok(None);
    }
    // It may have happened under another prefix: then this is what is told.
    let mark = shared.cluster.call("/v3/kv/put", shared.names.put(wire::MARK, b"{}"), true).await;
    mark.map_err(|e| e.to_string())?;
    let waited = tokio::time::timeout(super::BEHIND_MAX, lines.next()).await;
    waited.unwrap_or_else(|_| Err("it is silent, though something has happened".into())).map(Some)
}

/// Events of one revision belong together.
fn apply(shared: &Shared, changes: Vec<(Revision, Option<Op>)>) {
    let mut changes = changes.into_iter().peekable();
    while let Some((revision, first)) = changes.next() {
        let mut ops: Vec<Op> = first.into_iter().collect();
        while let Some((_, op)) = changes.next_if(|(r, _)| *r == revision) {
            ops.extend(op);
        }
        shared.publish(revision, &ops);
    }
}
