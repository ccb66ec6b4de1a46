//! The agent's side of the Kubernetes API: HTTP/1.1 over an in-memory stream (`mote up`) or TLS. Objects are trees.
//!
//! One kept connection serves requests one after the other; each watch has its own.

mod connect;
pub mod reflect;

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request};
use mote_api::tree::{Value, at, str_at};

pub use connect::{Connector, Endpoint, TlsParts};

/// The whole answer to a request has to be here by then.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Largest answer that is read (a list of everything a node may have to know).
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Kept connections.
const IDLE_CONNECTIONS_MAX: usize = 2;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server said no, in Kubernetes' words.
    #[error("{message}")]
    Api {
        /// HTTP status code.
        code: u16,
        /// The machine-readable reason, e.g. `NotFound`.
        reason: String,
        /// The sentence for people.
        message: String,
    },
    /// There is no connection to be had, or it broke.
    #[error("reach API server {server}: {cause}")]
    Transport {
        /// Whom.
        server: String,
        /// Why.
        cause: String,
    },
    /// The answer was no JSON.
    #[error("read answer of {path}: {cause}")]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong.
        cause: String,
    },
}

impl Error {
    /// The HTTP status, 0 when none came.
    pub fn code(&self) -> u16 {
        match self {
            Error::Api { code, .. } => *code,
            _ => 0,
        }
    }

    /// There is no such object.
    pub fn is_not_found(&self) -> bool {
        self.code() == 404
    }

    /// The object exists already, or has changed since it was read.
    pub fn is_conflict(&self) -> bool {
        self.code() == 409
    }

    /// The history asked for is gone: list again.
    pub fn is_expired(&self) -> bool {
        self.code() == 410
    }

    /// Asking again later may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Api { code, .. } => matches!(code, 408 | 429 | 500..=599),
            Error::Transport { .. } | Error::Answer { .. } => true,
        }
    }
}

/// A client of one API server. Cheap to share by `Rc`.
pub struct Client {
    connector: Connector,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
}

/// What the body of a request is.
#[derive(Clone, Copy)]
pub enum Content {
    /// An object.
    Json,
    /// RFC 7386.
    MergePatch,
    /// A server-side apply.
    ApplyPatch,
}

impl Content {
    fn mime(self) -> &'static str {
        match self {
            Content::Json => "application/json",
            Content::MergePatch => "application/merge-patch+json",
            Content::ApplyPatch => "application/apply-patch+yaml",
        }
    }
}

impl Client {
    /// A client that connects by `connector` when it has something to ask.
    pub fn new(connector: Connector) -> Client {
        Client { connector, idle: RefCell::new(Vec::new()) }
    }

    /// Whom it talks to, for messages.
    pub fn server(&self) -> String {
        self.connector.server()
    }

    /// Reads `path` (with query).
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.ask(Method::GET, path, None).await
    }

    /// Creates an object in the collection `path`.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.ask(Method::POST, path, Some((Content::Json, object))).await
    }

    /// Replaces the object at `path`.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.ask(Method::PUT, path, Some((Content::Json, object))).await
    }

    /// Changes the object at `path`.
    pub async fn patch(&self, path: &str, content: Content, patch: &Value) -> Result<Value, Error> {
        self.ask(Method::PATCH, path, Some((content, patch))).await
    }

    /// Deletes the object at `path`, with DeleteOptions.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value, Error> {
        self.ask(Method::DELETE, path, Some((Content::Json, options))).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<(Content, &Value)>) -> Result<Value, Error> {
        let (status, bytes) =
            tokio::time::timeout(ANSWER_WITHIN, self.send(&method, path, body)).await.map_err(|_| {
                self.transport(format!("no answer to {method} {path} within {} s", ANSWER_WITHIN.as_secs()))
            })??;
        read_answer(status, path, &bytes)
    }

    fn transport(&self, cause: String) -> Error {
        Error::Transport { server: self.connector.server(), cause }
    }

    async fn send(&self, method: &Method, path: &str, body: Option<(Content, &Value)>) -> Result<(u16, Bytes), Error> {
        let bytes = match &body {
            Some((_, value)) => Bytes::from(serde_json::to_vec(value).map_err(|e| self.transport(e.to_string()))?),
            None => Bytes::new(),
        };
        loop {
            let kept = self.idle.borrow_mut().pop();
            let fresh = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connector.connect().await.map_err(|cause| self.transport(cause))?,
            };
            let request = self.request(method, path, body.map(|(content, _)| content), bytes.clone())?;
            if sender.ready().await.is_err() && !fresh {
                continue; // the kept connection has ended meanwhile; nothing was sent on it
            }
            let response = match sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut failed) => {
                    if !fresh && failed.take_message().is_some() {
                        continue;
                    }
                    return Err(self.transport(chain(failed.error())));
                }
            };
            let status = response.status().as_u16();
            let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|e| self.transport(e.to_string()))?
                .to_bytes();
            let mut idle = self.idle.borrow_mut();
            if idle.len() < IDLE_CONNECTIONS_MAX && !sender.is_closed() {
                idle.push(sender);
            }
            return Ok((status, bytes));
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        content: Option<Content>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.connector.host())
            .header("user-agent", concat!("mote/", env!("CARGO_PKG_VERSION")))
            .header("accept", "application/json");
        if let Some(content) = content {
            request = request.header("content-type", content.mime());
        }
        if let Some(token) = self.connector.bearer() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(Full::new(body)).map_err(|e| self.transport(e.to_string()))
    }

    /// Opens a watch and gives back its body, to be read line by line.
    async fn stream(&self, path: &str) -> Result<hyper::body::Incoming, Error> {
        let mut sender = self.connector.connect().await.map_err(|cause| self.transport(cause))?;
        let request = self.request(&Method::GET, path, None, Bytes::new())?;
        let response = tokio::time::timeout(ANSWER_WITHIN, sender.send_request(request))
            .await
            .map_err(|_| self.transport(format!("no answer to watch {path}")))?
            .map_err(|e| self.transport(chain(&e)))?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response.into_body());
        }
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = bytes.map_err(|e| self.transport(e.to_string()))?.to_bytes();
        Err(read_answer(status, path, &bytes)
            .err()
            .unwrap_or_else(|| self.transport(format!("watch answered {status}"))))
    }
}

/// Who set which field is nothing an agent asks, and half of a pod's tree.
pub(crate) fn drop_managers(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// An error with its causes, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn read_answer(status: u16, path: &str, bytes: &[u8]) -> Result<Value, Error> {
    let value: Result<Value, _> = serde_json::from_slice(bytes);
    if (200..300).contains(&status) {
        return value.map_err(|e| Error::Answer { path: path.to_owned(), cause: e.to_string() });
    }
    let value = value.unwrap_or(Value::Null);
    Err(status_error(status, &value, bytes))
}

/// A Status object as an error.
fn status_error(status: u16, value: &Value, bytes: &[u8]) -> Error {
    let code = at(value, &["code"]).and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()).unwrap_or(status);
    let mut message = str_at(value, &["message"]).to_owned();
    if message.is_empty() {
        message = format!(
            "server answered {status}: {}",
            String::from_utf8_lossy(bytes.get(..200.min(bytes.len())).unwrap_or_default())
        );
    }
    Error::Api { code, reason: str_at(value, &["reason"]).to_owned(), message }
}

/// Paths of the resources the agent itself uses.
pub mod path {
    /// `/api/v1/namespaces/NS/RESOURCE/NAME`.
    pub fn core(namespace: &str, resource: &str, name: &str) -> String {
        format!("/api/v1/namespaces/{namespace}/{resource}/{name}")
    }

    /// `/api/v1/nodes/NAME`.
    pub fn node(name: &str) -> String {
        format!("/api/v1/nodes/{name}")
    }

    /// The lease of a node.
    pub fn lease(name: &str) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
    }
}
