//! A watch as a stream of JSON lines.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mote_api::status::Status;
use mote_api::tree::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::App;
use super::answer::{self, Answer, Form};
use super::asked::Asked;
use super::body::AnswerBody;
use crate::api::client::EventType;
use crate::api::object;
use crate::api::read::{ApiWatch, Told, bookmark};
use crate::api::request::Target;
use crate::api::words::ListQuery;
use crate::store::{Ended, Entry, Revision};

/// Chunks on their way to one client; then the store's queue fills ([`crate::store::WATCH_BACKLOG_MAX`]), then the client is cut off.
const CHUNKS_MAX: usize = 4;
/// Events are put together up to this many bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// A watch that says no timeout ends after this, plus up to as much again (upstream's `--min-request-timeout`).
const TIMEOUT_SECONDS: u64 = 1800;

struct Stream {
    app: Rc<App>,
    watch: ApiWatch,
    form: Form,
    bookmarks: bool,
    out: Vec<u8>,
    sender: mpsc::Sender<Bytes>,
}

pub(crate) async fn answer(app: &Rc<App>, asked: &Asked, target: &Target) -> Result<Answer, Status> {
    let form = Form::of(&asked.headers, &asked.query)?;
    let mut query = ListQuery::parse(&asked.query)?;
    if !target.name.is_empty() {
        // The old way to watch one object by its path.
        query.filter.fields = mote_api::selector::FieldSelector::parse(&format!("metadata.name={}", target.name))
            .map_err(|e| Status::bad_request(e.to_string()))?;
    }
    if let Some(field) = query.filter.fields.unsupported(&target.kind) {
        return Err(Status::bad_request(format!("field label not supported: {field}")));
    }
    let asked_seconds = asked.query.number("timeoutSeconds")?.unwrap_or(0);
    let seconds = if asked_seconds > 0 {
        asked_seconds
    } else {
        TIMEOUT_SECONDS + u64::from_le_bytes(app.api.random()) % TIMEOUT_SECONDS
    };
    let version = asked.query.number("resourceVersion")?;
    let send_initial = asked.query.flag("sendInitialEvents");
    let (initial, from) = match version {
        Some(v) if v > 0 && !send_initial => (Vec::new(), Revision(v)),
        // From now: what there is comes first, unless that is expressly not wanted.
        _ if asked.query.has("sendInitialEvents") && !send_initial => (Vec::new(), app.api.store.revision()),
        _ => {
            let all =
                ListQuery { filter: query.filter.clone(), since: Revision(version.unwrap_or(0)), ..ListQuery::all() };
            let listed = app.api.list(&target.kind, &target.ns, &all).await?;
            (listed.entries, listed.revision)
        }
    };
    app.api.store.reach(from).await;
    let watch = app.api.watch(&target.kind, &target.ns, query.filter, from)?;
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let bookmarks = asked.query.flag("allowWatchBookmarks");
    let stream = Stream { app: app.clone(), watch, form, bookmarks, out: Vec::new(), sender };
    let deadline = Instant::now() + Duration::from_secs(seconds.min(86_400));
    tokio::task::spawn_local(async move {
        stream.app.watches.set(stream.app.watches.get() + 1);
        let app = stream.app.clone();
        stream.run(initial, from, send_initial, deadline).await;
        app.watches.set(app.watches.get() - 1);
    });
    let mut answer = answer::bytes(200, "application/json", Bytes::new());
    *answer.body_mut() = AnswerBody::Stream(receiver);
    Ok(answer)
}

impl Stream {
    /// Ends by itself when the client is gone.
    async fn run(mut self, initial: Vec<(Rc<str>, Entry)>, from: Revision, send_initial: bool, deadline: Instant) {
        for (_, entry) in initial {
            self.line("ADDED", |out, s| s.form.write(out, &s.watch.kind, &entry, s.app.api.now()));
            if self.out.len() >= CHUNK_BYTES && !self.flush().await {
                return;
            }
        }
        if send_initial && self.bookmarks {
            self.bookmark(from, true);
        }
        if !self.flush().await {
            return;
        }
        let sender = self.sender.clone();
        let mut defined = self.app.api.defined.subscribe();
        loop {
            let next = tokio::select! {
                next = self.watch.next() => next,
                Ok(()) = defined.changed(), if self.watch.kind.custom.is_some() => {
                    // The kind went with its definition: whoever watches has to ask anew.
                    let kind = &self.watch.kind;
                    if self.app.api.registry().by_resource(&kind.group, &kind.version, &kind.plural).is_none() {
                        return;
                    }
                    continue;
                }
                () = sender.closed() => return,
                () = tokio::time::sleep_until(deadline) => {
                    // The last word: from here a client may go on, though nothing it asked for has happened for long.
                    if self.bookmarks {
                        let revision = self.watch.revision();
                        self.bookmark(revision, false);
                        self.flush().await;
                    }
                    return;
                }
            };
            match next {
                Ok(told) => self.event(&told),
                Err(ended) => return self.end(ended).await,
            }
            while self.out.len() < CHUNK_BYTES {
                match self.watch.try_next() {
                    Some(Ok(told)) => self.event(&told),
                    Some(Err(ended)) => return self.end(ended).await,
                    None => break,
                }
            }
            if !self.flush().await {
                return;
            }
        }
    }
    async fn end(mut self, ended: Ended) {
        if ended == Ended::Lagged {
            let status = Status::expired("too many changes were not read in time, list again").to_value();
            self.line("ERROR", |out, _| object::write(out, &status));
        }
        self.flush().await;
    }
    fn event(&mut self, told: &Told) {
        let ty = match told.ty {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        };
        self.line(ty, |out, s| s.form.write(out, &s.watch.kind, &told.entry, s.app.api.now()));
    }
    fn bookmark(&mut self, revision: Revision, initial_end: bool) {
        let object = bookmark(&self.watch.kind, revision, initial_end);
        let object = match self.form {
            Form::Json => object,
            Form::Metadata => answer::metadata_only(object),
            Form::Table(_) => {
                let row = json!({"cells": [], "object": answer::metadata_only(object.clone())});
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": {"resourceVersion": revision.0.to_string()}, "columnDefinitions": Value::Null, "rows": [row]})
            }
        };
        self.line("BOOKMARK", |out, _| object::write(out, &object));
    }
    fn line(&mut self, ty: &str, write: impl FnOnce(&mut Vec<u8>, &Self)) {
        let mut out = std::mem::take(&mut self.out);
        out.extend(format!("{{\"type\":\"{ty}\",\"object\":").bytes());
        write(&mut out, self);
        out.extend(b"}\n");
        self.out = out;
    }
    async fn flush(&mut self) -> bool {
        if self.out.is_empty() {
            return true;
        }
        self.sender.send(std::mem::take(&mut self.out).into()).await.is_ok()
    }
}
