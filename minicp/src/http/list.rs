//! Lists as a stream: a piece is formed when the client has taken the one before, so that a list of any length costs a piece of memory and no long turn.

use std::rc::Rc;
use std::vec::IntoIter;

use bytes::Bytes;
use mote_api::columns::{self, Include};
use mote_api::kind::Kind;
use mote_api::time::Time;
use mote_api::tree::Value;

use super::answer::{self, Answer, Form};
use super::body::AnswerBody;
use crate::api::object;
use crate::api::read::Listed;
use crate::store::Entry;

/// Bytes of a piece, about.
const PIECE_BYTES: usize = 64 << 10;
/// Rows of a Table in one piece: they cost more than bytes that are passed on.
const PIECE_ROWS: usize = 32;

/// What of a list has not been sent yet.
struct Pieces {
    kind: Rc<Kind>,
    form: Form,
    now: Time,
    meta: Value,
    rest: IntoIter<(Rc<str>, Entry)>,
    begun: bool,
    done: bool,
}

/// The answer to a list. What fits one piece goes out whole.
pub(crate) fn answer(kind: &Rc<Kind>, form: Form, listed: Listed, now: Time) -> Answer {
    let meta = object::list_meta(listed.revision.0, listed.token, listed.remaining);
    let rest = listed.entries.into_iter();
    let mut pieces = Pieces { kind: kind.clone(), form, now, meta, rest, begun: false, done: false };
    let first = pieces.next().unwrap_or_default();
    if pieces.done {
        return answer::bytes(200, "application/json", first);
    }
    let mut answer = answer::bytes(200, "application/json", Bytes::new());
    *answer.body_mut() = AnswerBody::Pieces(Box::new(std::iter::once(first).chain(pieces)));
    answer
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = Vec::with_capacity(PIECE_BYTES.min(512 + self.rest.len() * 512));
        match self.form {
            Form::Table(include) => self.rows(&mut out, include),
            Form::Json | Form::Metadata => self.objects(&mut out),
        }
        if self.rest.len() == 0 {
            out.extend(b"]}\n");
            self.done = true;
        }
        self.begun = true;
        Some(out.into())
    }
}

impl Pieces {
    fn objects(&mut self, out: &mut Vec<u8>) {
        let mut first = !self.begun;
        if first {
            let (version, kind) = match self.form {
                Form::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned()),
                _ => (self.kind.api_version(), self.kind.list_kind()),
            };
            out.extend(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":").bytes());
            object::write(out, &self.meta);
            out.extend(b",\"items\":[");
        }
        while out.len() < PIECE_BYTES {
            let Some((_, entry)) = self.rest.next() else { return };
            if !first {
                out.push(b',');
            }
            first = false;
            match self.form {
                Form::Metadata => object::write(out, &answer::metadata_only(object::decode(&self.kind, &entry))),
                _ => object::serve(out, &self.kind, &entry, false),
            }
        }
    }
    /// A Table is made of the tables of its pieces: the head of the first, the rows of all.
    fn rows(&mut self, out: &mut Vec<u8>, include: Include) {
        let items: Vec<Value> =
            self.rest.by_ref().take(PIECE_ROWS).map(|(_, entry)| object::decode(&self.kind, &entry)).collect();
        let mut table = columns::table(&self.kind, &items, self.meta.clone(), self.now, include);
        let rows = table.as_object_mut().and_then(|t| t.remove("rows"));
        if !self.begun {
            object::write(out, &table);
            // `}`: the rows come before it.
            out.pop();
            out.extend(b",\"rows\":[");
        }
        for (i, row) in rows.as_ref().and_then(Value::as_array).into_iter().flatten().enumerate() {
            if self.begun || i > 0 {
                out.push(b',');
            }
            object::write(out, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;
    use mote_api::kind::Registry;
    use mote_api::tree::json;

    fn listed(count: usize, bytes: usize) -> Listed {
        let entry = |n: usize| {
            let object = json!({"metadata": {"name": format!("m{n}")}, "data": {"a": "x".repeat(bytes)}});
            let value = object::encode(object);
            (
                Rc::from(format!("/registry/core/configmaps/default/m{n}")),
                Entry { value, created: Revision(1), modified: Revision(n as u64) },
            )
        };
        Listed {
            entries: (0..count).map(entry).collect(),
            revision: Revision(9),
            token: Some("t".into()),
            remaining: Some(3),
        }
    }

    fn pieces(form: Form, count: usize, bytes: usize) -> (usize, Value) {
        let registry = Registry::builtin();
        let kind = registry.find("configmaps").unwrap();
        let answer = answer(kind, form, listed(count, bytes), Time::from_unix(0));
        let all: Vec<Bytes> = match answer.into_body() {
            AnswerBody::Whole(bytes) => bytes.into_iter().collect(),
            AnswerBody::Pieces(pieces) => pieces.collect(),
            _ => Vec::new(),
        };
        assert!(all.iter().all(|p| p.len() < PIECE_BYTES + bytes + 1024));
        (all.len(), serde_json::from_slice(&all.concat()).unwrap())
    }

    #[test]
    fn pieces_make_up_the_list() {
        for (form, count, bytes, want) in [
            (Form::Json, 0, 0, 1),
            (Form::Json, 3, 10, 1),
            (Form::Json, 100, 2000, 4),
            (Form::Metadata, 2000, 10, 4),
            (Form::Table(Include::Metadata), 0, 0, 1),
            (Form::Table(Include::Metadata), 32, 10, 1),
            (Form::Table(Include::Metadata), 100, 10, 4),
        ] {
            let (found, list) = pieces(form, count, bytes);
            assert_eq!(list["metadata"], json!({"resourceVersion": "9", "continue": "t", "remainingItemCount": 3}));
            let rows = list.get("items").or(list.get("rows")).unwrap().as_array().unwrap();
            let name = |row: &Value| row.pointer("/metadata/name").or(row.pointer("/object/metadata/name")).cloned();
            let names: Vec<_> = rows.iter().filter_map(name).collect();
            assert_eq!(names, (0..count).map(|n| json!(format!("m{n}"))).collect::<Vec<_>>());
            assert!(if want == 1 { found == 1 } else { found >= want }, "{found} pieces of {count}");
            assert_eq!(list.get("columnDefinitions").is_some(), matches!(form, Form::Table(_)));
        }
    }
}
