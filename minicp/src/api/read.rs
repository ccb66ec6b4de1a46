//! get, list and watch.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mote_api::kind::Kind;
use mote_api::status::Status;
use mote_api::tree::{Value, json, set};

use super::request::Filter;
use super::words::{EventType, ListQuery};
use super::{Api, object};
use crate::store::{Change, Ended, Entry, ReadError, Revision, Watcher};

/// Parsed objects kept for watchers that are about to ask for the same change.
const PARSED_MAX: usize = 16;
/// An object of a key as it was written by a revision.
type Parsed = (Revision, Rc<str>, Rc<Value>);

/// What the last changes look like as trees, shared by all who watch.
#[derive(Default)]
pub(crate) struct ParsedCache(RefCell<VecDeque<Parsed>>);

impl ParsedCache {
    fn get(&self, kind: &Kind, key: &Rc<str>, entry: &Entry) -> Rc<Value> {
        let mut cache = self.0.borrow_mut();
        if let Some((.., value)) = cache.iter().find(|(r, k, v)| {
            *r == entry.modified && k == key && mote_api::tree::str_at(v, &["apiVersion"]) == kind.api_version()
        }) {
            return value.clone();
        }
        let value = Rc::new(object::decode(kind, entry));
        if cache.len() >= PARSED_MAX {
            cache.pop_front();
        }
        cache.push_back((entry.modified, key.clone(), value.clone()));
        value
    }
}

/// A page of objects.
pub(crate) struct Listed {
    pub entries: Vec<(Rc<str>, Entry)>,
    pub revision: Revision,
    /// `continue`, when there is more.
    pub token: Option<String>,
    /// Unknown when a selector was given.
    pub remaining: Option<u64>,
}

impl Api {
    pub(crate) async fn entry(&self, kind: &Kind, ns: &str, name: &str) -> Result<Entry, Status> {
        let found = self.store.get(&object::key(kind, ns, name), None).await?;
        found.ok_or_else(|| Status::not_found(kind, name))
    }
    /// Refused when nothing so new is known.
    pub(crate) async fn reaches(&self, revision: Revision) -> Result<(), Status> {
        if revision > self.store.revision() {
            self.store.reach(revision).await;
        }
        let newest = self.store.revision();
        if revision > newest { Err(Status::too_large_version(revision.0, newest.0)) } else { Ok(()) }
    }
    /// A page; `ns` "" for all.
    pub(crate) async fn list(&self, kind: &Kind, ns: &str, query: &ListQuery) -> Result<Listed, Status> {
        let unsupported = query.filter.fields.unsupported(kind);
        if let Some(field) = unsupported {
            return Err(Status::bad_request(format!(
                "Unable to find {:?} that match label selector \"\", field selector: field label not supported: {field}",
                kind.api_version()
            )));
        }
        self.reaches(query.at.unwrap_or(query.since)).await?;
        let prefix = object::prefix(kind, ns);
        let all = query.filter.is_everything();
        let mut out = Listed { entries: Vec::new(), revision: Revision(0), token: None, remaining: None };
        let (mut after, mut at) = (query.after.clone(), query.at);
        // With a selector: chunk by chunk until the page is full.
        loop {
            let wanted = if query.limit == 0 { 0 } else { query.limit - out.entries.len() };
            let range = self.store.range(&prefix, &after, at, wanted).await.map_err(|e| match (at, &e) {
                (Some(_), ReadError::Compacted(_)) if !query.after.is_empty() => Status::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter."),
                _ => e.into(),
            })?;
            out.revision = range.revision;
            at = Some(range.revision);
            let last = range.entries.last().map(|(k, _)| k.to_string());
            if all {
                out.entries.extend(range.entries);
            } else {
                let matching = |(_, e): &(Rc<str>, Entry)| query.filter.matches(&object::decode(kind, e));
                out.entries.extend(range.entries.into_iter().filter(matching));
            }
            let Some(last) = last.filter(|_| range.more > 0) else { return Ok(out) };
            if query.limit != 0 && out.entries.len() >= query.limit {
                out.token = Some(URL_SAFE_NO_PAD.encode(format!("{} {last}", range.revision)));
                out.remaining = all.then_some(range.more);
                return Ok(out);
            }
            after = last;
        }
    }
    pub(crate) fn watch(
        self: &Rc<Self>,
        kind: &Rc<Kind>,
        ns: &str,
        filter: Filter,
        from: Revision,
    ) -> Result<ApiWatch, Status> {
        if from > self.store.revision() {
            // A revision of the future: of another life of this store. List again.
            return Err(Status::expired(format!("too large resource version: {from}")));
        }
        let watcher = self.store.watch(&object::prefix(kind, ns), from)?;
        Ok(ApiWatch { api: self.clone(), kind: kind.clone(), filter, watcher })
    }
}

/// Changes of a kind's objects, as the filter shows them: an object that begins to match was added, one that ceases to was deleted.
pub(crate) struct ApiWatch {
    api: Rc<Api>,
    pub kind: Rc<Kind>,
    filter: Filter,
    watcher: Watcher,
}

/// What to tell a client.
pub(crate) struct Told {
    pub ty: EventType,
    pub change: Rc<Change>,
    /// The object; of a deleted one the last state, with the revision of the deletion.
    pub entry: Entry,
}

impl ApiWatch {
    pub(crate) async fn next(&mut self) -> Result<Told, Ended> {
        loop {
            let change = self.watcher.next().await?;
            if let Some(told) = self.tell(change) {
                return Ok(told);
            }
        }
    }
    pub(crate) fn try_next(&mut self) -> Option<Result<Told, Ended>> {
        loop {
            match self.watcher.try_next()? {
                Ok(change) => {
                    if let Some(told) = self.tell(change) {
                        return Some(Ok(told));
                    }
                }
                Err(e) => return Some(Err(e)),
            }
        }
    }
    fn tell(&self, change: Rc<Change>) -> Option<Told> {
        let matches = |e: &Option<Entry>| {
            e.as_ref().is_some_and(|e| {
                self.filter.is_everything() || self.filter.matches(&self.api.parsed.get(&self.kind, &change.key, e))
            })
        };
        let (before, after) = (matches(&change.previous), matches(&change.value));
        let (ty, entry) = match (before, after) {
            (false, false) => return None,
            (false, true) => (EventType::Added, change.value.clone()?),
            (true, true) => (EventType::Modified, change.value.clone()?),
            (true, false) => {
                let last = change.value.clone().or_else(|| change.previous.clone())?;
                (EventType::Deleted, Entry { modified: change.revision, ..last })
            }
        };
        Some(Told { ty, change, entry })
    }
    /// As a tree, shared with other watchers.
    pub(crate) fn value(&self, told: &Told) -> Rc<Value> {
        self.api.parsed.get(&self.kind, &told.change.key, &told.entry)
    }
    /// True of all that was told so far.
    pub(crate) fn revision(&self) -> Revision {
        self.api.store.revision()
    }
}

/// The object that a bookmark carries.
pub(crate) fn bookmark(kind: &Kind, revision: Revision, initial_end: bool) -> Value {
    let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"resourceVersion": revision.0.to_string()}});
    if initial_end {
        let mark = json!({"k8s.io/initial-events-end": "true"});
        set(&mut object, &["metadata", "annotations"], mark);
    }
    object
}
