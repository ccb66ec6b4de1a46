//! Answers: objects and lists as JSON, as Tables or as metadata only; refusals as Status.

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Response, StatusCode};
use mote_api::columns::{self, Include};
use mote_api::kind::Kind;
use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::{Value, json};

use super::body::AnswerBody;
use crate::api::object;
use crate::api::request::Query;
use crate::store::Entry;

pub(crate) type Answer = Response<AnswerBody>;

/// Warnings sent with one answer.
const WARNINGS_MAX: usize = 32;

pub(crate) fn bytes(code: u16, content_type: &str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(Some(bytes.into())));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("text/plain")));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

pub(crate) fn text(code: u16, text: impl Into<String>) -> Answer {
    bytes(code, "text/plain; charset=utf-8", text.into())
}

pub(crate) fn value(code: u16, value: &Value) -> Answer {
    let mut out = Vec::new();
    object::write(&mut out, value);
    out.push(b'\n');
    bytes(code, "application/json", out)
}

pub(crate) fn status(status: &Status) -> Answer {
    let mut answer = value(status.code, &status.to_value());
    if let Some(seconds) = mote_api::tree::i64_at(&status.details, &["retryAfterSeconds"]) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status.code == 401 {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// RFC 7234 warnings, as upstream sends them.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(WARNING, header);
        }
    }
}

/// What form of an object the client wants, by Accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Json,
    Table(Include),
    Metadata,
}

impl Form {
    /// The first acceptable one of the Accept header.
    pub(crate) fn of(headers: &HeaderMap, query: &Query) -> Result<Form, Status> {
        let accept = headers.get(hyper::header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or("*/*");
        for wish in accept.split(',') {
            let mut parts = wish.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !matches!(media, "application/json" | "application/*" | "*/*" | "application/yaml" | "") {
                continue;
            }
            let of = |name: &str| wish.split(';').map(str::trim).find_map(|p| p.strip_prefix(name)).unwrap_or("");
            match (of("as="), of("g=")) {
                ("Table", "meta.k8s.io") => {
                    let include = match query.get("includeObject") {
                        "Object" => Include::Object,
                        "None" => Include::None,
                        _ => Include::Metadata,
                    };
                    return Ok(Form::Table(include));
                }
                ("PartialObjectMetadata" | "PartialObjectMetadataList", _) => return Ok(Form::Metadata),
                ("", _) => return Ok(Form::Json),
                _ => {}
            }
        }
        Err(Status::not_acceptable(&["application/json"]))
    }
    /// Appends one object, in this form.
    pub(crate) fn write(self, out: &mut Vec<u8>, kind: &Kind, entry: &Entry, now: Time) {
        match self {
            Form::Json => object::serve(out, kind, entry, true),
            Form::Metadata => object::write(out, &metadata_only(object::decode(kind, entry))),
            Form::Table(include) => {
                let object = object::decode(kind, entry);
                let meta = json!({"resourceVersion": entry.modified.0.to_string()});
                object::write(out, &columns::table(kind, [&object], meta, now, include));
            }
        }
    }
}

pub(crate) fn metadata_only(mut object: Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object.get_mut("metadata").map(Value::take)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept() {
        let of = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(hyper::header::ACCEPT, HeaderValue::from_static(accept));
            Form::of(&headers, &Query::default()).map_err(|s| s.code)
        };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl), Ok(Form::Table(Include::Metadata)));
        assert_eq!(of("application/json"), Ok(Form::Json));
        assert_eq!(of("*/*"), Ok(Form::Json));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::Json));
        assert_eq!(of("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(of("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Ok(Form::Metadata));
    }
}
