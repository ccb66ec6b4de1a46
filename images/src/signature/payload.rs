//! What a signature says: the "simple signing" document that cosign signs (containers/image docs/atomic-signature.md;
//! sigstore/cosign specs/SIGNATURE_SPEC.md), and the manifest beside an image that lists its signatures.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::bundle;
use super::evidence::{Claim, Evidence};
use crate::digest::Digest;
use crate::limits::{SIGNATURE_BYTES_MAX, SIGNATURES_MAX};

/// Media type of a signed document as a layer.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation of that layer: the signature over its bytes, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// `critical.type` of a signed document.
const TYPE: &str = "cosign container image signature";

impl Evidence {
    /// The bytes that the signature is over.
    pub fn signed_bytes(&self) -> Cow<'_, [u8]> {
        match &self.envelope {
            None => Cow::Borrowed(&self.payload),
            Some(kind) => Cow::Owned(bundle::signed_bytes(kind, &self.payload)),
        }
    }

    /// What it says, once its signature was found good.
    pub fn claim(&self) -> Result<Claim, String> {
        match &self.envelope {
            None => claim(&self.payload),
            Some(kind) => bundle::claim(kind, &self.payload),
        }
    }
}

/// A layer of a signature manifest.
#[derive(PartialEq, Eq, Debug)]
pub struct Listed {
    pub blob: Digest,
    pub size: u64,
    /// The signature over the blob; `None` where the blob is a bundle with its signatures inside.
    pub signature: Option<Vec<u8>>,
}

/// The signatures that a manifest lists; layers of other kinds are passed over.
pub fn listed(manifest: &[u8]) -> Result<Vec<Listed>, String> {
    let root: Value = serde_json::from_slice(manifest).map_err(|e| format!("no JSON: {e}"))?;
    let layers = root.get("layers").and_then(Value::as_array).ok_or("no image manifest")?;
    let mut list = Vec::new();
    for layer in layers {
        let text = |name: &str| layer.get(name).and_then(Value::as_str).unwrap_or_default();
        let signature = layer.get("annotations").and_then(|map| map.get(SIGNATURE)).and_then(Value::as_str);
        let signature = match (text("mediaType"), signature) {
            (SIMPLE_SIGNING, Some(signature)) => {
                Some(STANDARD.decode(signature).map_err(|_| "a signature is no base64")?)
            }
            (kind, _) if kind.starts_with(bundle::BUNDLE) => None,
            _ => continue,
        };
        if list.len() == SIGNATURES_MAX {
            return Err(format!("more than {SIGNATURES_MAX} signatures"));
        }
        let size = layer.get("size").and_then(Value::as_u64).unwrap_or(u64::MAX);
        let blob = text("digest").parse().map_err(|e: crate::Error| e.to_string())?;
        if size > SIGNATURE_BYTES_MAX {
            return Err(format!("a signed document of {size} bytes, at most {SIGNATURE_BYTES_MAX} are supported"));
        }
        list.push(Listed { blob, size, signature });
    }
    Ok(list)
}

/// Reads a signed document. Only after its signature was verified does its word count.
pub fn claim(payload: &[u8]) -> Result<Claim, String> {
    let root: Value = serde_json::from_slice(payload).map_err(|e| format!("what was signed is no JSON: {e}"))?;
    let text = |path: &str| root.pointer(path).and_then(Value::as_str).unwrap_or_default();
    // Another type may give the other fields another meaning.
    if text("/critical/type") != TYPE {
        return Err(format!(
            "what was signed is {:?}, not {TYPE:?}",
            text("/critical/type").chars().take(100).collect::<String>()
        ));
    }
    let digest = text("/critical/image/docker-manifest-digest")
        .parse()
        .map_err(|e: crate::Error| format!("what was signed: {e}"))?;
    Ok(Claim { digests: vec![digest], name: Some(text("/critical/identity/docker-reference").to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::super::evidence::{decode, encode};
    use super::*;

    #[test]
    fn documents_and_lists_are_read() {
        let digest = Digest::of(b"m");
        let good = format!(
            "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"r/x\"}},\"image\":{{\"docker-manifest-digest\":\"{digest}\"}},\"type\":\"{TYPE}\"}},\"optional\":null}}"
        );
        assert_eq!(claim(good.as_bytes()), Ok(Claim { digests: vec![digest], name: Some("r/x".into()) }));
        for (bad, want) in [
            ("x".to_owned(), "no JSON"),
            (good.replace("cosign container", "atomic container"), "not \"cosign"),
            (good.replace("sha256", "sha1"), "invalid digest"),
        ] {
            assert!(claim(bad.as_bytes()).unwrap_err().contains(want));
        }
        let layer = |kind: &str, signature: &str, size: u64| serde_json::json!({"mediaType": kind, "digest": digest.to_string(), "size": size, "annotations": {SIGNATURE: signature}});
        let manifest = |layers: Vec<Value>| serde_json::json!({"layers": layers}).to_string().into_bytes();
        let one = manifest(vec![
            layer("other", "%", 1),
            layer(SIMPLE_SIGNING, "QUI=", 7),
            layer("application/vnd.dev.sigstore.bundle.v0.3+json", "", 3),
            serde_json::json!({"mediaType": SIMPLE_SIGNING}),
        ]);
        assert_eq!(
            listed(&one),
            Ok(vec![
                Listed { blob: digest, size: 7, signature: Some(b"AB".to_vec()) },
                Listed { blob: digest, size: 3, signature: None }
            ])
        );
        for (bad, want) in [
            (b"{}".to_vec(), "no image manifest"),
            (manifest(vec![layer(SIMPLE_SIGNING, "%", 1)]), "no base64"),
            (manifest(vec![layer(SIMPLE_SIGNING, "", 1 << 20)]), "at most"),
            (manifest(vec![layer(SIMPLE_SIGNING, "", 1); 65]), "more than 64"),
        ] {
            assert!(listed(&bad).unwrap_err().contains(want));
        }
        let evidence = [None, Some("t".to_owned())].map(|envelope| Evidence {
            payload: b"p".to_vec(),
            signature: vec![0, 255],
            envelope,
        });
        assert_eq!(decode(&encode(&evidence)), evidence);
        assert_eq!(evidence[0].signed_bytes().as_ref(), b"p");
        assert_eq!(evidence[1].signed_bytes().as_ref(), b"DSSEv1 1 t 1 p");
        assert!(decode(b"garbage").is_empty() && decode(b"[{}]").is_empty());
    }
}
