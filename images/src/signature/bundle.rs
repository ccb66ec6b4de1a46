//! cosign 3's form of a signature: a sigstore bundle (docs.sigstore.dev, "Sigstore Bundle Format") that holds a DSSE envelope
//! (secure-systems-lab/dsse, protocol.md) around an in-toto statement about a digest. Of a bundle only the envelope is used: who signed is told
//! by the configured key, not by the certificate or log entry beside it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::evidence::{Claim, Evidence};
use crate::digest::Digest;
use crate::limits::SIGNATURES_MAX;

/// Media and artifact types of bundles begin so; the version follows.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const STATEMENT: &str = "application/vnd.in-toto+json";
/// What `cosign sign` states. Attestations (a bill of materials, a scan that found holes) are signed too and vouch for nothing here.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// The envelope of a bundle, as evidence: one for each of its signatures.
pub fn read(bundle: &[u8]) -> Result<Vec<Evidence>, String> {
    let root: Value = serde_json::from_slice(bundle).map_err(|e| format!("bundle: no JSON: {e}"))?;
    let envelope = root.get("dsseEnvelope").ok_or("bundle without a dsseEnvelope")?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let decoded = |text: String| STANDARD.decode(text).map_err(|_| "bundle: no base64".to_owned());
    let payload = decoded(text(envelope, "payload"))?;
    let kind = text(envelope, "payloadType");
    let signatures = envelope.get("signatures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let signatures = signatures.iter().take(SIGNATURES_MAX);
    signatures
        .map(|one| {
            Ok(Evidence {
                payload: payload.clone(),
                signature: decoded(text(one, "sig"))?,
                envelope: Some(kind.clone()),
            })
        })
        .collect()
}

/// What is really signed: type and content with their lengths ("pre-authentication encoding").
pub fn signed_bytes(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads a statement. It names no repository.
pub fn claim(kind: &str, payload: &[u8]) -> Result<Claim, String> {
    if kind != STATEMENT {
        return Err(format!(
            "what was signed is of type {:?}, not {STATEMENT:?}",
            kind.chars().take(100).collect::<String>()
        ));
    }
    let root: Value = serde_json::from_slice(payload).map_err(|e| format!("what was signed is no JSON: {e}"))?;
    let text = |name: &str| root.get(name).and_then(Value::as_str).unwrap_or_default();
    if !matches!(text("_type"), "https://in-toto.io/Statement/v1" | "https://in-toto.io/Statement/v0.1") {
        return Err("what was signed is no in-toto statement".to_owned());
    }
    if text("predicateType") != PREDICATE {
        let said: String = text("predicateType").chars().take(100).collect();
        return Err(format!("what was signed is an attestation ({said:?}), not a signature"));
    }
    let subjects = root.get("subject").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let digest =
        |subject: &Value| format!("sha256:{}", subject.pointer("/digest/sha256")?.as_str()?).parse::<Digest>().ok();
    Ok(Claim { digests: subjects.iter().filter_map(digest).take(SIGNATURES_MAX).collect(), name: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read() {
        // the specification's own example of the encoding
        assert_eq!(
            signed_bytes("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        let digest = Digest::of(b"m");
        let statement = format!(
            "{{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[{{\"digest\":{{\"sha256\":\"{}\"}}}},{{}}],\"predicateType\":\"{PREDICATE}\",\"predicate\":{{}}}}",
            digest.hex()
        );
        assert_eq!(claim(STATEMENT, statement.as_bytes()), Ok(Claim { digests: vec![digest], name: None }));
        for (kind, payload, want) in [
            ("application/json", statement.clone(), "of type \"application/json\""),
            (STATEMENT, "x".to_owned(), "no JSON"),
            (STATEMENT, statement.replace("Statement/v1", "Link/v1"), "no in-toto"),
            (STATEMENT, statement.replace("cosign/sign", "spdx"), "is an attestation"),
        ] {
            assert!(claim(kind, payload.as_bytes()).unwrap_err().contains(want));
        }
        let bundle = |payload: &str| {
            format!(
                "{{\"dsseEnvelope\":{{\"payload\":\"{payload}\",\"payloadType\":\"t\",\"signatures\":[{{\"sig\":\"QQ==\"}},{{\"sig\":\"Qg==\"}}]}}}}"
            )
        };
        let found = read(bundle("QUI=").as_bytes()).unwrap();
        assert_eq!(
            (found.len(), found[1].clone()),
            (2, Evidence { payload: b"AB".to_vec(), signature: b"B".to_vec(), envelope: Some("t".into()) })
        );
        for (bad, want) in
            [("x".to_owned(), "no JSON"), ("{}".to_owned(), "without a dsse"), (bundle("%"), "no base64")]
        {
            assert!(read(bad.as_bytes()).unwrap_err().contains(want));
        }
    }
}
