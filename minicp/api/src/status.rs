//! `meta/v1 Status`: every refusal the API speaks, with upstream's codes, reasons and messages (apimachinery `api/errors`).

use std::fmt;

use crate::field;
use crate::kind::Kind;
use crate::tree::{Value, json, set};

/// A refusal (or, for deletes, a success) as sent to clients.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// HTTP code
    pub code: u16,
    /// `NotFound`, `AlreadyExists`, ... ; "" for none
    pub reason: &'static str,
    pub message: String,
    /// `{name, group, kind, uid, causes, retryAfterSeconds}`, or null
    pub details: Value,
}

impl std::error::Error for Status {}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn details(kind: &Kind, name: &str) -> Value {
    let mut d = json!({"kind": kind.plural});
    if !kind.group.is_empty() {
        set(&mut d, &["group"], json!(kind.group));
    }
    if !name.is_empty() {
        set(&mut d, &["name"], json!(name));
    }
    d
}

impl Status {
    /// Any refusal without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: Value::Null }
    }
    pub fn not_found(kind: &Kind, name: &str) -> Status {
        Status {
            details: details(kind, name),
            ..Self::new(404, "NotFound", format!("{} {name:?} not found", kind.resource()))
        }
    }
    /// A path that names no resource.
    pub fn no_such_resource() -> Status {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }
    pub fn already_exists(kind: &Kind, name: &str) -> Status {
        Status {
            details: details(kind, name),
            ..Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.resource()))
        }
    }
    /// A write that carried an old resourceVersion.
    pub fn modified(kind: &Kind, name: &str) -> Status {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Status {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource());
        Status { details: details(kind, name), ..Self::new(409, "Conflict", message) }
    }
    /// The object breaks the rules of its kind.
    pub fn invalid(kind: &Kind, name: &str, errors: &[field::Error]) -> Status {
        let all = match errors {
            [] => "unknown error".to_string(),
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(field::Error::to_string).collect::<Vec<_>>().join(", ")),
        };
        let causes = errors
            .iter()
            .map(|e| json!({"reason": e.reason.cause(), "message": e.message, "field": e.field}))
            .collect::<Vec<_>>();
        let mut d = json!({"kind": kind.kind, "name": name, "causes": causes});
        if !kind.group.is_empty() {
            set(&mut d, &["group"], json!(kind.group));
        }
        Status { details: d, ..Self::new(422, "Invalid", format!("{} {name:?} is invalid: {all}", kind.group_kind())) }
    }
    pub fn bad_request(message: impl Into<String>) -> Status {
        Self::new(400, "BadRequest", message)
    }
    pub fn unauthorized() -> Status {
        Self::new(401, "Unauthorized", "Unauthorized")
    }
    /// `name` may be empty.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Status {
        let what = if name.is_empty() { kind.resource() } else { format!("{} {name:?}", kind.resource()) };
        Status { details: details(kind, name), ..Self::new(403, "Forbidden", format!("{what} is forbidden: {why}")) }
    }
    pub fn method_not_allowed(kind: &Kind, verb: &str) -> Status {
        let message = format!("{verb} is not supported on resources of kind {:?}", kind.resource());
        Status { details: details(kind, ""), ..Self::new(405, "MethodNotAllowed", message) }
    }
    pub fn not_acceptable(accepted: &[&str]) -> Status {
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {}", accepted.join(", ")))
    }
    pub fn unsupported_media_type(accepted: &[&str]) -> Status {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }
    /// The revision asked for is compacted away: list again.
    pub fn expired(message: impl Into<String>) -> Status {
        Self::new(410, "Expired", message)
    }
    pub fn too_old(wanted: u64, oldest: u64) -> Status {
        Self::expired(format!("too old resource version: {wanted} ({oldest})"))
    }
    pub fn too_large(bytes_max: usize) -> Status {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {bytes_max}"))
    }
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        Status {
            details: json!({"retryAfterSeconds": retry_after_seconds}),
            ..Self::new(429, "TooManyRequests", message)
        }
    }
    pub fn internal(cause: impl fmt::Display) -> Status {
        let details = json!({"causes": [{"message": cause.to_string()}]});
        Status { details, ..Self::new(500, "InternalError", format!("Internal error occurred: {cause}")) }
    }
    pub fn unavailable(message: impl Into<String>) -> Status {
        Self::new(503, "ServiceUnavailable", message)
    }
    pub fn timeout(message: impl Into<String>) -> Status {
        Self::new(504, "Timeout", format!("Timeout: {}", message.into()))
    }
    /// Somebody asks for what is not known to have happened. By the cause clients know to ask for the newest instead.
    pub fn too_large_version(asked: u64, newest: u64) -> Status {
        let mut status = Self::timeout(format!("Too large resource version: {asked}, current: {newest}"));
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        status.details = json!({"causes": [cause], "retryAfterSeconds": 1});
        status
    }
    /// Whether the server said no such object.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }
    /// Somebody wrote meanwhile: read again, decide again.
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }
    /// The watch or list position is gone: list again.
    pub fn is_gone(&self) -> bool {
        self.code == 410
    }
    /// As sent.
    pub fn to_value(&self) -> Value {
        let word = if self.code < 300 { "Success" } else { "Failure" };
        let mut v = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": word, "code": self.code});
        for (key, text) in [("message", self.message.as_str()), ("reason", self.reason)] {
            if !text.is_empty() {
                set(&mut v, &[key], json!(text));
            }
        }
        if !self.details.is_null() {
            set(&mut v, &["details"], self.details.clone());
        }
        v
    }
    /// What a client reads from a server's answer. `code` is the HTTP code, believed when the body says nothing.
    pub fn from_value(code: u16, body: &Value) -> Status {
        const REASONS: &[&str] = &[
            "NotFound",
            "AlreadyExists",
            "Conflict",
            "Invalid",
            "BadRequest",
            "Unauthorized",
            "Forbidden",
            "MethodNotAllowed",
            "NotAcceptable",
            "UnsupportedMediaType",
            "Expired",
            "Gone",
            "RequestEntityTooLarge",
            "TooManyRequests",
            "InternalError",
            "ServiceUnavailable",
            "Timeout",
        ];
        let told = crate::tree::str_at(body, &["reason"]);
        let message = match crate::tree::str_at(body, &["message"]) {
            "" => format!("the server answered {code}"),
            m => m.to_string(),
        };
        let code = crate::tree::i64_at(body, &["code"]).and_then(|c| u16::try_from(c).ok()).unwrap_or(code);
        let reason = REASONS.iter().find(|r| **r == told).copied().unwrap_or("");
        Status { code, reason, message, details: body.get("details").cloned().unwrap_or_default() }
    }
    /// Success of a delete, as upstream answers it.
    pub fn deleted(kind: &Kind, name: &str, uid: &str) -> Status {
        let mut d = details(kind, name);
        set(&mut d, &["uid"], json!(uid));
        Status { code: 200, reason: "", message: String::new(), details: d }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Registry;

    #[test]
    fn speaks_as_upstream() {
        let r = Registry::builtin();
        let (pod, deploy) = (r.find("pods").unwrap(), r.find("deployments.apps").unwrap());
        for (status, code, message) in [
            (Status::not_found(pod, "x"), 404, "pods \"x\" not found"),
            (Status::already_exists(deploy, "x"), 409, "deployments.apps \"x\" already exists"),
            (Status::forbidden(pod, "", "no"), 403, "pods is forbidden: no"),
            (Status::forbidden(pod, "a", "no"), 403, "pods \"a\" is forbidden: no"),
            (
                Status::invalid(deploy, "x", &[field::Error::required("spec.selector", "")]),
                422,
                "Deployment.apps \"x\" is invalid: spec.selector: Required value",
            ),
            (Status::internal("boom"), 500, "Internal error occurred: boom"),
            (Status::method_not_allowed(pod, "create"), 405, "create is not supported on resources of kind \"pods\""),
        ] {
            assert_eq!((status.code, status.message.as_str()), (code, message));
            assert_eq!(Status::from_value(599, &status.to_value()), status);
        }
        let two = Status::invalid(pod, "x", &[field::Error::required("a", ""), field::Error::required("b", "why")]);
        assert_eq!(two.message, "Pod \"x\" is invalid: [a: Required value, b: Required value: why]");
        assert_eq!(two.to_value()["details"]["causes"][1]["field"], "b");
        assert_eq!(Status::deleted(pod, "x", "u").to_value()["status"], "Success");
        assert_eq!(Status::from_value(502, &Value::Null).code, 502);
    }
}
