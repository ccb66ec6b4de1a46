//! A request as its handlers see it, and its body as a tree.

use std::cell::RefCell;
use std::rc::Rc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::upgrade::OnUpgrade;
use hyper::{HeaderMap, Method, Uri};
use mote_api::proto;
use mote_api::status::Status;
use mote_api::tree::{JSON_BYTES_MAX, Value, parse_json};

use super::BODY_TIMEOUT;
use crate::api::request::Query;
use crate::user::UserInfo;

/// What of a request its handlers see.
pub(crate) struct Asked {
    pub method: Method,
    /// Percent-decoded; the query as it was sent is in `uri`.
    pub path: String,
    pub uri: Uri,
    pub query: Query,
    pub headers: HeaderMap,
    pub user: Rc<UserInfo>,
    /// Set where the client wants to go on in another protocol; taken by who agrees.
    pub upgrade: RefCell<Option<OnUpgrade>>,
    /// The body as it was read, when the audit log wants it.
    pub kept: Option<RefCell<Value>>,
}

impl Asked {
    pub(crate) fn header(&self, name: hyper::header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
    pub(crate) fn user_agent(&self) -> &str {
        self.header(USER_AGENT)
    }
    /// Without parameters, lower case.
    pub(crate) fn media_type(&self) -> String {
        self.header(CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase()
    }
}

/// The body's bytes, bounded in size and time.
pub(crate) async fn read_body(body: Incoming) -> Result<bytes::Bytes, Status> {
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, JSON_BYTES_MAX).collect()).await;
    let read = read.map_err(|_| Status::timeout("the request's body did not come in time"))?;
    match read {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(Status::too_large(JSON_BYTES_MAX)),
        Err(e) => Err(Status::bad_request(format!("read the request's body: {e}"))),
    }
}

/// A body as a tree, and keys that came twice. An empty one is null.
pub(crate) async fn read_tree(asked: &Asked, body: Incoming) -> Result<(Value, Vec<String>), Status> {
    let read = parse_body(asked, body).await?;
    if let Some(kept) = &asked.kept {
        *kept.borrow_mut() = read.0.clone();
    }
    Ok(read)
}

async fn parse_body(asked: &Asked, body: Incoming) -> Result<(Value, Vec<String>), Status> {
    let media = asked.media_type();
    let bytes = read_body(body).await?;
    if bytes.is_empty() {
        return Ok((Value::Null, Vec::new()));
    }
    match media.as_str() {
        // kubectl and curl both often say nothing, or something odd, about deletes.
        "" | "application/json" | "application/x-www-form-urlencoded" => tree_of_json(&bytes),
        _ if media.ends_with("+json") => tree_of_json(&bytes),
        proto::MEDIA_TYPE => {
            proto::decode(&bytes).map(|v| (v, Vec::new())).map_err(|e| Status::bad_request(e.to_string()))
        }
        "application/yaml" | "application/apply-patch+yaml" => {
            if bytes.first() == Some(&b'{') {
                return tree_of_json(&bytes);
            }
            let text = std::str::from_utf8(&bytes).map_err(|_| Status::bad_request("yaml: not UTF-8"))?;
            mote_api::yaml::parse_one(text).map(|v| (v, Vec::new())).map_err(|e| Status::bad_request(e.to_string()))
        }
        _ => Err(Status::unsupported_media_type(&["application/json", "application/yaml", proto::MEDIA_TYPE])),
    }
}

fn tree_of_json(bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let parsed = parse_json(bytes, JSON_BYTES_MAX).map_err(|e| Status::bad_request(e.to_string()))?;
    Ok((parsed.value, parsed.duplicates))
}
