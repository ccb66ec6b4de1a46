//! What is said to etcd's JSON gateway (`/v3/...`), and what it answers. Pure.
//!
//! Keys and values are base64, 64-bit numbers are strings, and what has its zero value is left out. A stream is one document a line.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mote_api::tree::{Value, at, json, list_at, set, str_at};

use crate::store::{Entry, Guard, Op, Revision, Txn};

/// Under the prefix, for the engines' own use: no object has such a key.
const OWN: &str = "/registry/mote.dev/";
/// Written so that the watch tells something.
pub(super) const MARK: &str = "/registry/mote.dev/mark";
/// Who compacts, and how far.
pub(super) const COMPACTION: &str = "/registry/mote.dev/compaction";
/// Never written: asking for it asks for the newest revision.
pub(super) const NOTHING: &str = "/registry/mote.dev/nothing";

/// Our keys and etcd's: the same but for the prefix.
pub(super) struct Names(pub(super) String);

fn base(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

impl Names {
    pub(super) fn outer(&self, key: &str) -> Vec<u8> {
        [self.0.as_bytes(), key.strip_prefix("/registry").unwrap_or(key).as_bytes()].concat()
    }
    /// None: not one of ours.
    fn inner(&self, encoded: &str) -> Option<Rc<str>> {
        let bytes = STANDARD.decode(encoded).ok()?;
        let key = std::str::from_utf8(&bytes).ok()?.strip_prefix(self.0.as_str())?;
        let key = format!("/registry{key}");
        (!key.starts_with(OWN)).then(|| key.into())
    }
    /// Keys that start with `prefix` and come after `after`; `revision` 0 is now.
    pub(super) fn range(&self, prefix: &str, after: &str, revision: Revision, limit: usize) -> String {
        let first = if after > prefix { [&self.outer(after), b"\0".as_slice()].concat() } else { self.outer(prefix) };
        json!({"key": base(&first), "range_end": base(&end_of(self.outer(prefix))), "revision": revision.0.to_string(), "limit": limit.to_string()})
            .to_string()
    }
    pub(super) fn get(&self, key: &str, revision: Revision) -> String {
        json!({"key": base(&self.outer(key)), "revision": revision.0.to_string()}).to_string()
    }
    pub(super) fn put(&self, key: &str, value: &[u8]) -> String {
        json!({"key": base(&self.outer(key)), "value": base(value)}).to_string()
    }
    /// All changes of ours after `from`.
    pub(super) fn watch(&self, from: Revision) -> String {
        let all = self.outer("/registry/");
        json!({"create_request": {"key": base(&all), "range_end": base(&end_of(all)), "start_revision": (from.0 + 1).to_string(), "progress_notify": true, "fragment": true}})
            .to_string()
    }
    /// `lease`: of the keys that `expires` says.
    pub(super) fn txn(&self, txn: &Txn, lease: Option<&str>, expires: fn(&str) -> bool) -> String {
        let compare = |guard: &Guard| {
            let (key, revision) = match guard {
                Guard::Absent(key) => (key, Revision(0)),
                Guard::Unchanged(key, revision) => (key, *revision),
            };
            json!({"target": "MOD", "result": "EQUAL", "key": base(&self.outer(key)), "mod_revision": revision.0.to_string()})
        };
        let change = |op: &Op| match op {
            Op::Put(key, value) => {
                let mut put = json!({"key": base(&self.outer(key)), "value": base(value)});
                if let Some(lease) = lease.filter(|_| expires(key)) {
                    set(&mut put, &["lease"], lease.into());
                }
                json!({ "request_put": put })
            }
            Op::Delete(key) => json!({"request_delete_range": {"key": base(&self.outer(key))}}),
        };
        let compare: Vec<Value> = txn.guards.iter().map(compare).collect();
        let success: Vec<Value> = txn.ops.iter().map(change).collect();
        json!({"compare": compare, "success": success}).to_string()
    }
    /// If nobody else compacted since version `version` of the key: notes `revision`. Else: what is there.
    pub(super) fn claim_compaction(&self, version: u64, revision: Revision) -> String {
        let key = base(&self.outer(COMPACTION));
        json!({"compare": [{"target": "VERSION", "result": "EQUAL", "key": key, "version": version.to_string()}],
            "success": [{"request_put": {"key": key, "value": base(revision.to_string().as_bytes())}}],
            "failure": [{"request_range": {"key": key}}]})
        .to_string()
    }
    /// The entries of an answer to [`Self::range`] or [`Self::get`], and how many keys there are beyond them.
    pub(super) fn entries(&self, answer: &Value) -> Result<Entries, Bad> {
        let kvs = list_at(answer, &["kvs"]);
        let mut entries = Vec::with_capacity(kvs.len());
        for kv in kvs {
            if let Some(key) = self.inner(str_at(kv, &["key"])) {
                let (created, modified) = (revision(kv, "create_revision"), revision(kv, "mod_revision"));
                entries.push((key, Entry { value: value(kv)?, created, modified }));
            }
        }
        let last = kvs.last().and_then(|kv| STANDARD.decode(str_at(kv, &["key"])).ok());
        let more = number(answer, &["count"]).saturating_sub(kvs.len() as u64);
        Ok(Entries { entries, more, last })
    }
    /// One line of a watch.
    pub(super) fn line(&self, line: &[u8]) -> Result<Line, Bad> {
        let line: Value = serde_json::from_slice(line).map_err(|_| Bad("a watch's line"))?;
        if let Some(error) = at(&line, &["error"]) {
            return Ok(Line::Ended(refusal(error)));
        }
        let result = at(&line, &["result"]).ok_or(Bad("a watch's line"))?;
        let compacted = revision(result, "compact_revision");
        if compacted > Revision(0) {
            return Ok(Line::Compacted(compacted));
        }
        if is_true(result, &["canceled"]) {
            return Ok(Line::Ended(str_at(result, &["cancel_reason"]).into()));
        }
        let events = list_at(result, &["events"]);
        if events.is_empty() {
            return Ok(Line::Nothing);
        }
        let mut changes = Vec::with_capacity(events.len());
        for event in events {
            let kv = at(event, &["kv"]).ok_or(Bad("an event"))?;
            let op = match (self.inner(str_at(kv, &["key"])), str_at(event, &["type"])) {
                (None, _) => None,
                (Some(key), "DELETE") => Some(Op::Delete(key)),
                (Some(key), _) => Some(Op::Put(key, value(kv)?)),
            };
            changes.push((revision(kv, "mod_revision"), op));
        }
        Ok(Line::Changes { changes, fragment: is_true(result, &["fragment"]) })
    }
}

/// An answer that no etcd gives.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not understood: {0}")]
pub(super) struct Bad(&'static str);

/// What a range was answered with.
pub(super) struct Entries {
    pub entries: Vec<(Rc<str>, Entry)>,
    pub more: u64,
    /// etcd's last key.
    pub last: Option<Vec<u8>>,
}

/// What a watch says.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// In order; None: of a key that is not an object. A fragment is followed by the rest of it.
    Changes {
        changes: Vec<(Revision, Option<Op>)>,
        fragment: bool,
    },
    /// A sign of life. (What its revision promises differs between versions of etcd.)
    Nothing,
    /// Revisions before this are gone.
    Compacted(Revision),
    Ended(String),
}

/// The key behind all that start with `prefix`.
fn end_of(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            break;
        }
    }
    prefix
}

fn is_true(value: &Value, path: &[&str]) -> bool {
    at(value, path) == Some(&Value::Bool(true))
}

fn number(value: &Value, path: &[&str]) -> u64 {
    match at(value, path) {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(number) => number.as_u64().unwrap_or(0),
        None => 0,
    }
}

fn revision(value: &Value, field: &str) -> Revision {
    Revision(number(value, &[field]))
}

fn value(kv: &Value) -> Result<Bytes, Bad> {
    STANDARD.decode(str_at(kv, &["value"])).map(Bytes::from).map_err(|_| Bad("a value"))
}

/// The revision an answer is true of.
pub(super) fn header(answer: &Value) -> Revision {
    Revision(number(answer, &["header", "revision"]))
}

/// Whether a transaction's guards held.
pub(super) fn succeeded(answer: &Value) -> bool {
    is_true(answer, &["succeeded"])
}

/// Of an answer to [`Names::claim_compaction`] that was too late: the key's version and the revision noted there.
pub(super) fn compaction(answer: &Value) -> (u64, Revision) {
    let kv = list_at(answer, &["responses"]).first().and_then(|r| list_at(r, &["response_range", "kvs"]).first());
    let Some(kv) = kv else { return (0, Revision(0)) };
    let noted = value(kv).ok().and_then(|v| std::str::from_utf8(&v).ok()?.parse().ok());
    (number(kv, &["version"]), Revision(noted.unwrap_or(0)))
}

pub(super) fn lease_id(answer: &Value) -> Option<String> {
    let id = str_at(answer, &["ID"]);
    (!id.is_empty()).then(|| id.to_owned())
}

/// Of an answer to a sign of life: etcd knows the lease, and has prolonged it.
pub(super) fn kept_alive(answer: &Value) -> bool {
    number(answer, &["result", "TTL"]) > 0
}

/// The words of a refusal.
pub(super) fn refusal(error: &Value) -> String {
    let words = [str_at(error, &["message"]), str_at(error, &["error"]), error.as_str().unwrap_or_default()];
    words.into_iter().find(|w| !w.is_empty()).unwrap_or("refused").into()
}

/// Reads `bytes` by everything that reads what etcd says: the objects found in them. For whoever feeds it with anything (tests/fuzz).
pub fn objects_in(bytes: &[u8]) -> Vec<Rc<str>> {
    let names = Names("/registry".into());
    let mut found = Vec::new();
    if let Ok(Line::Changes { changes, .. }) = names.line(bytes) {
        found.extend(changes.into_iter().filter_map(|(_, op)| match op? {
            Op::Put(key, _) | Op::Delete(key) => Some(key),
        }));
    }
    if let Ok(answer) = serde_json::from_slice::<Value>(bytes) {
        if let Ok(Entries { entries, .. }) = names.entries(&answer) {
            found.extend(entries.into_iter().map(|(key, _)| key));
        }
        let _ = (header(&answer), succeeded(&answer), compaction(&answer), lease_id(&answer), refusal(&answer));
        let _ = kept_alive(&answer);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Class;

    fn names() -> Names {
        Names("/mine".into())
    }

    #[test]
    fn what_etcd_says_of_a_watch() {
        // As etcd 3.4 writes them.
        let head = r#""header":{"cluster_id":"1","member_id":"2","revision":"4","raft_term":"2"}"#;
        for (line, want) in [
            (format!(r#"{{"result":{{{head},"created":true}}}}"#), Line::Nothing),
            (format!(r#"{{"result":{{{head}}}}}"#), Line::Nothing),
            (
                format!(r#"{{"result":{{{head},"canceled":true,"compact_revision":"3"}}}}"#),
                Line::Compacted(Revision(3)),
            ),
            (format!(r#"{{"result":{{{head},"canceled":true,"cancel_reason":"x"}}}}"#), Line::Ended("x".into())),
            (r#"{"error":{"grpc_code":14,"message":"gone"}}"#.into(), Line::Ended("gone".into())),
            (
                format!(
                    r#"{{"result":{{{head},"fragment":true,"events":[
                    {{"kv":{{"key":"L21pbmUvYQ==","create_revision":"2","mod_revision":"3","version":"1","value":"e30="}}}},
                    {{"type":"DELETE","kv":{{"key":"L21pbmUvYQ==","mod_revision":"4"}}}},
                    {{"kv":{{"key":"L21pbmUvbW90ZS5kZXYvbWFyaw==","mod_revision":"5"}}}}]}}}}"#
                ),
                Line::Changes {
                    changes: vec![
                        (Revision(3), Some(Op::Put("/registry/a".into(), "{}".into()))),
                        (Revision(4), Some(Op::Delete("/registry/a".into()))),
                        (Revision(5), None),
                    ],
                    fragment: true,
                },
            ),
        ] {
            assert_eq!(names().line(line.as_bytes()), Ok(want), "{line}");
        }
        for bad in [
            "",
            "{}",
            "x",
            r#"{"result":{"events":[{}]}}"#,
            r#"{"result":{"events":[{"kv":{"key":"L21pbmUvYQ==","value":"?"}}]}}"#,
        ] {
            assert!(names().line(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn transactions() {
        let txn = Txn {
            guards: vec![Guard::Absent("/registry/a".into()), Guard::Unchanged("/registry/b".into(), Revision(7))],
            ops: vec![Op::Put("/registry/a".into(), "{}".into()), Op::Delete("/registry/b".into())],
            class: Class::Durable,
        };
        let said: Value = serde_json::from_str(&names().txn(&txn, Some("9"), |key| key.ends_with('a'))).unwrap();
        assert_eq!(
            said,
            json!({
                "compare": [
                    {"target": "MOD", "result": "EQUAL", "key": "L21pbmUvYQ==", "mod_revision": "0"},
                    {"target": "MOD", "result": "EQUAL", "key": "L21pbmUvYg==", "mod_revision": "7"}],
                "success": [
                    {"request_put": {"key": "L21pbmUvYQ==", "value": "e30=", "lease": "9"}},
                    {"request_delete_range": {"key": "L21pbmUvYg=="}}]})
        );
        assert!(!names().txn(&txn, None, |_| true).contains("lease"));
    }

    #[test]
    fn ranges_begin_and_end_where_they_should() {
        let of = |after| {
            let said: Value = serde_json::from_str(&names().range("/registry/a/", after, Revision(3), 5)).unwrap();
            let text = |field| String::from_utf8(STANDARD.decode(str_at(&said, &[field])).unwrap()).unwrap();
            (text("key"), text("range_end"))
        };
        assert_eq!(of(""), ("/mine/a/".into(), "/mine/a0".into()));
        assert_eq!(of("/registry/a/x"), ("/mine/a/x\0".into(), "/mine/a0".into()));
        assert_eq!(end_of(vec![1, 255, 255]), [2]);
        assert!(end_of(vec![255]).is_empty());
        let answer = json!({"count": "5", "kvs": [{"key": "L21pbmUvYQ==", "value": "e30=", "mod_revision": "3", "create_revision": "2"}]});
        let got = names().entries(&answer).unwrap();
        assert_eq!((got.entries.len(), got.more, got.last), (1, 4, Some(b"/mine/a".to_vec())));
    }

    #[test]
    fn a_lease_that_is_kept_and_one_that_is_gone() {
        // As etcd 3.4 writes them.
        assert!(kept_alive(&json!({"result": {"header": {"revision": "4"}, "ID": "7587", "TTL": "15"}})));
        assert!(!kept_alive(&json!({"result": {"header": {"revision": "4"}, "ID": "7587"}})));
        assert!(!kept_alive(&json!({"error": {"grpc_code": 14, "message": "x"}})));
    }

    #[test]
    fn who_was_too_late_with_a_compaction() {
        let answer = json!({"responses": [{"response_range": {"kvs": [{"version": "4", "value": "MTIz"}]}}]});
        assert_eq!(compaction(&answer), (4, Revision(123)));
        assert_eq!(compaction(&json!({})), (0, Revision(0)));
    }
}
