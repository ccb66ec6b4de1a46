//! One exchange with a registry: what is asked, and what an answer says.

use std::io::Read;

use serde_json::Value;

use super::transport::{Payload, Response};
use super::url::Url;
use crate::limits::ANSWER_BYTES_MAX;

/// What a request is for, in a token's scope.
#[derive(Clone, Copy)]
pub enum Right {
    Pull,
    Push,
}

/// One request.
pub struct Request<'a> {
    pub method: &'a str,
    /// Which of the client's places; its trust and credentials are used.
    pub place: usize,
    pub url: Url,
    pub headers: Vec<(&'a str, String)>,
    pub payload: Payload<'a>,
    pub right: Right,
}

/// A header's text.
pub fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Up to [`ANSWER_BYTES_MAX`] bytes of a body, as far as they come.
pub(super) fn read_all(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let _ = response.into_body().into_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut body); // only to quote from
    body
}

/// What the registry says went wrong: the messages of its error document, else the status (distribution specification, "Error Codes").
pub(super) fn reason(status: u16, body: &[u8]) -> String {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut said: Vec<String> = Vec::new();
    for error in document.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter().take(4)
    {
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = if text("message").is_empty() { text("code") } else { text("message") };
        said.push(message.chars().filter(|c| !c.is_control()).take(200).collect());
    }
    if said.is_empty() {
        let details =
            document.get("details").or_else(|| document.get("message")).and_then(Value::as_str).unwrap_or_default();
        if !details.is_empty() {
            said.push(details.chars().filter(|c| !c.is_control()).take(200).collect());
        }
    }
    let code = ureq::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|code| code.canonical_reason())
        .unwrap_or("unknown status");
    match said.is_empty() {
        true => format!("{status} {code}"),
        false => format!("{} ({status} {code})", said.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_speaks_for_itself() {
        let body =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}},{"code":"DENIED"}]}"#;
        assert_eq!(reason(404, body), "manifest unknown, DENIED (404 Not Found)");
        assert_eq!(
            reason(401, br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password (401 Unauthorized)"
        );
        assert_eq!(reason(502, b"<html>"), "502 Bad Gateway");
        assert_eq!(reason(799, b""), "799 unknown status");
    }
}
