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

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
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
    bytes(code, JSON, out)
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

/// Whether YAML is the first of the forms in the Accept header that there are.
pub(crate) fn wants_yaml(headers: &HeaderMap) -> bool {
    let accept = headers.get(hyper::header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or("");
    let media = accept.split(',').map(|wish| wish.split(';').next().unwrap_or_default().trim());
    let mut known = media.filter(|m| matches!(*m, JSON | YAML | "application/*" | "*/*"));
    known.next() == Some(YAML)
}

/// A JSON answer as YAML. A list of more than one piece stays as it is: JSON is YAML, and nothing of it is held.
pub(crate) fn in_yaml(mut answer: Answer) -> Answer {
    let is_json = answer.headers().get(CONTENT_TYPE).is_some_and(|media| media == JSON);
    match answer.body_mut() {
        AnswerBody::Whole(Some(bytes)) if is_json => match serde_json::from_slice(bytes) {
            Ok(value) => *bytes = mote_api::yaml::to_yaml(&value).into(),
            Err(_) => return answer,
        },
        AnswerBody::Pieces(_) if is_json => {}
        _ => return answer,
    }
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(YAML));
    answer
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
            if !matches!(media, JSON | YAML | "application/*" | "*/*" | "") {
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
        Err(Status::not_acceptable(&[JSON, YAML]))
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

    #[test]
    fn yaml_for_who_asks_for_it() {
        for (accept, want) in [
            ("application/yaml", true),
            ("application/yaml;q=0.9, application/json", true),
            ("text/html, application/yaml", true),
            ("application/json, application/yaml", false),
            ("*/*", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(hyper::header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_yaml(&headers), want, "{accept}");
        }
        let of = |answer: Answer| {
            let media = answer.headers().get(CONTENT_TYPE).unwrap().to_str().unwrap().to_owned();
            let body = match answer.into_body() {
                AnswerBody::Whole(Some(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
                _ => "pieces".to_owned(),
            };
            (media, body)
        };
        let object = json!({"a": "1", "b": [1, {"c": null}]});
        assert_eq!(of(in_yaml(value(200, &object))), (YAML.into(), "a: \"1\"\nb:\n- 1\n- c: null\n".into()));
        assert_eq!(of(in_yaml(text(200, "ok"))), ("text/plain; charset=utf-8".into(), "ok".into()));
        let mut list = bytes(200, JSON, Bytes::new());
        *list.body_mut() = AnswerBody::Pieces(Box::new(std::iter::empty()));
        assert_eq!(of(in_yaml(list)), (YAML.into(), "pieces".into()));
    }
}
