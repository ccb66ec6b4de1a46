//! What a signature is once it is read, whichever form it came in: bytes, a signature over them, and what they claim.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::digest::Digest;
use crate::limits::SIGNATURES_MAX;

/// A document and a signature over it; nothing is checked yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evidence {
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
    /// The payload's type where both stood in a DSSE envelope ([`bundle`]).
    pub envelope: Option<String>,
}

/// What a document claims.
#[derive(PartialEq, Eq, Debug)]
pub struct Claim {
    /// Of the images vouched for.
    pub digests: Vec<Digest>,
    /// `critical.identity.docker-reference`; bundles have none.
    pub name: Option<String>,
}

/// Evidence as kept on disk (and its reader, which takes garbage for nothing).
pub fn encode(list: &[Evidence]) -> Vec<u8> {
    let text = |bytes: &[u8]| Value::from(STANDARD.encode(bytes));
    let entries: Vec<Value> = list
        .iter()
        .map(|one| match &one.envelope {
            None => serde_json::json!({ "payload": text(&one.payload), "signature": text(&one.signature) }),
            Some(kind) => {
                serde_json::json!({ "payload": text(&one.payload), "signature": text(&one.signature), "envelope": kind })
            }
        })
        .collect();
    Value::from(entries).to_string().into_bytes()
}

/// The inverse of [`encode`].
pub fn decode(bytes: &[u8]) -> Vec<Evidence> {
    let root: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let entries = root.as_array().map(Vec::as_slice).unwrap_or_default().iter().take(SIGNATURES_MAX);
    let read = |entry: &Value| {
        let field = |name: &str| STANDARD.decode(entry.get(name)?.as_str()?).ok();
        let envelope = entry.get("envelope").and_then(Value::as_str).map(str::to_owned);
        Some(Evidence { payload: field("payload")?, signature: field("signature")?, envelope })
    };
    entries.filter_map(read).collect()
}
