//! Manifests and indexes, OCI's and Docker's: parsed and checked once, so that what follows need not doubt sizes, counts or digests.
//! Fields that nothing here reads (annotations first of all) are not lost: documents are stored, pushed and exported as the bytes that came.
//!
//! oci-spec's types would do the same for 104 KB more of executable (index, manifest and configuration read, a manifest built; x86-64, size-
//! optimised, LTO), and know neither Docker's media types nor limits. They are what the tests hold these documents against.

mod choice;

pub use choice::{Fetch, choose, resolve};
use serde_json::Value;

use crate::Error;
use crate::digest::Digest;
use crate::limits::{DOCUMENT_BYTES_MAX, INDEX_ENTRIES_MAX, LAYER_BLOB_BYTES_MAX, LAYERS_MAX};
use crate::platform::Platform;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// For the `Accept` header: all we understand.
pub fn accept() -> String {
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ")
}

/// A reference to bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// One image for one platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    pub config: Descriptor,
    /// Base first.
    pub layers: Vec<Descriptor>,
}

/// One line of an index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    pub descriptor: Descriptor,
    /// `None` where the index does not say.
    pub platform: Option<Platform>,
    /// `org.opencontainers.image.ref.name` or containerd's `io.containerd.image.name`; empty without.
    pub name: String,
}

/// What a registry serves below `/manifests/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Document {
    Index(Vec<Offer>),
    Manifest(Manifest),
}

/// Reads a document. `media_type` is the server's word and used only where the document is silent.
pub fn parse(bytes: &[u8], media_type: &str, what: &str) -> Result<Document, Error> {
    let corrupt = |why: String| Error::corrupt(what, why);
    let root: Value = serde_json::from_slice(bytes).map_err(|e| corrupt(format!("manifest is no JSON: {e}")))?;
    let own = root.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    let media_type = if own.is_empty() { media_type.split(';').next().unwrap_or_default().trim() } else { own };
    let version = root.get("schemaVersion").and_then(Value::as_u64);
    if version == Some(1) {
        return Err(Error::refused(
            what,
            "manifest schema version 1 is not supported; push the image again with a current tool",
        ));
    }
    if version != Some(2) {
        return Err(corrupt(format!("manifest schema version {:?}, want 2", version)));
    }
    // A document with both lists could mean one thing to us and another to the next reader (CVE-2021-41190).
    let (has_index, has_layers) =
        (root.get("manifests").is_some(), root.get("layers").is_some() || root.get("config").is_some());
    match media_type {
        OCI_INDEX | DOCKER_LIST if has_layers => return Err(corrupt("an index with layers".to_owned())),
        OCI_MANIFEST | DOCKER_MANIFEST if has_index => {
            return Err(corrupt("an image manifest with a list of manifests".to_owned()));
        }
        _ if has_index && has_layers => return Err(corrupt("both an index and an image manifest".to_owned())),
        _ => {}
    }
    if has_index { index(&root, what).map(Document::Index) } else { manifest(&root, what).map(Document::Manifest) }
}

fn index(root: &Value, what: &str) -> Result<Vec<Offer>, Error> {
    let entries =
        root.get("manifests").and_then(Value::as_array).ok_or_else(|| Error::corrupt(what, "manifests is no list"))?;
    if entries.len() > INDEX_ENTRIES_MAX {
        return Err(Error::refused(
            what,
            format!("index of {} manifests, at most {INDEX_ENTRIES_MAX} are supported", entries.len()),
        ));
    }
    let mut offers = Vec::new();
    for entry in entries {
        let descriptor = descriptor(entry, DOCUMENT_BYTES_MAX, what)?;
        let annotation = |name: &str| entry.get("annotations").and_then(|map| map.get(name)).and_then(Value::as_str);
        let name = annotation("io.containerd.image.name")
            .or_else(|| annotation("org.opencontainers.image.ref.name"))
            .unwrap_or_default()
            .to_owned();
        let word =
            |name: &str| entry.get("platform").and_then(|p| p.get(name)).and_then(Value::as_str).unwrap_or_default();
        let platform = (!word("os").is_empty() && !word("architecture").is_empty())
            .then(|| Platform::new(word("os"), word("architecture"), word("variant")));
        offers.push(Offer { descriptor, platform, name });
    }
    Ok(offers)
}

fn manifest(root: &Value, what: &str) -> Result<Manifest, Error> {
    let config = root.get("config").ok_or_else(|| Error::corrupt(what, "manifest without a config"))?;
    let config = descriptor(config, DOCUMENT_BYTES_MAX, what)?;
    let is_image = matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG | "application/octet-stream" | "");
    if !is_image {
        return Err(Error::refused(
            what,
            format!("not a container image: its configuration is of type {:?}", config.media_type),
        ));
    }
    let entries =
        root.get("layers").and_then(Value::as_array).ok_or_else(|| Error::corrupt(what, "manifest without layers"))?;
    if entries.len() > LAYERS_MAX {
        return Err(Error::refused(what, format!("{} layers, at most {LAYERS_MAX} are supported", entries.len())));
    }
    let mut layers = Vec::with_capacity(entries.len());
    for entry in entries {
        let layer = descriptor(entry, LAYER_BLOB_BYTES_MAX, what)?;
        if layer.media_type.contains("foreign") || layer.media_type.contains("nondistributable") {
            return Err(Error::refused(
                what,
                format!("layer {} is of type {:?}, which may not be distributed", layer.digest, layer.media_type),
            ));
        }
        if layer.media_type.contains("encrypted") {
            return Err(Error::refused(what, format!("layer {} is encrypted", layer.digest)));
        }
        layers.push(layer);
    }
    Ok(Manifest { config, layers })
}

fn descriptor(value: &Value, size_max: u64, what: &str) -> Result<Descriptor, Error> {
    let digest: Digest = value
        .get("digest")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .parse()
        .map_err(|e: Error| Error::corrupt(what, e.to_string()))?;
    let size = value
        .get("size")
        .and_then(Value::as_u64)
        .ok_or_else(|| Error::corrupt(what, format!("{digest} without a size")))?;
    if size > size_max {
        return Err(Error::refused(what, format!("{digest} of {size} bytes, at most {size_max} are supported")));
    }
    let media_type = value.get("mediaType").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Descriptor { media_type, digest, size })
}

impl Manifest {
    /// The document of an image of our own making.
    pub fn document(&self) -> Vec<u8> {
        let layers: Vec<Value> = self.layers.iter().map(Descriptor::value).collect();
        serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": self.config.value(), "layers": layers }).to_string().into_bytes()
    }
}

impl Descriptor {
    /// As JSON.
    pub fn value(&self) -> Value {
        serde_json::json!({ "mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reference;

    fn d(n: u8) -> String {
        Digest::of(&[n]).to_string()
    }

    pub(super) fn desc(n: u8, kind: &str) -> Value {
        serde_json::json!({"mediaType": kind, "digest": d(n), "size": 5})
    }

    #[test]
    fn both_dialects_are_read() {
        let reference: Reference = "x".parse().unwrap();
        for (list, item) in [(OCI_INDEX, OCI_MANIFEST), (DOCKER_LIST, DOCKER_MANIFEST)] {
            let entry = |n: u8, os: &str, architecture: &str| {
                let mut entry = desc(n, item);
                entry["platform"] = serde_json::json!({"os": os, "architecture": architecture});
                entry
            };
            let index = serde_json::json!({"schemaVersion": 2, "mediaType": list, "manifests": [entry(1, "unknown", "unknown"), entry(2, "linux", "s390x"), entry(3, "linux", "amd64")]});
            let Document::Index(offers) = parse(index.to_string().as_bytes(), "", "x").unwrap() else {
                panic!("index")
            };
            let amd64: Platform = "linux/amd64".parse().unwrap();
            assert_eq!(choose(&offers, &amd64, &reference).unwrap().digest.to_string(), d(3));
            let error = choose(&offers, &"linux/ppc64le".parse().unwrap(), &reference).unwrap_err().to_string();
            assert_eq!(
                error,
                "docker.io/library/x:latest: no image for linux/ppc64le, it offers linux/s390x, linux/amd64"
            );
        }
        let manifest = serde_json::json!({"schemaVersion": 2, "config": desc(1, DOCKER_CONFIG), "layers": [desc(2, "application/vnd.docker.image.rootfs.diff.tar.gzip")]});
        let Document::Manifest(manifest) = parse(manifest.to_string().as_bytes(), DOCKER_MANIFEST, "x").unwrap() else {
            panic!("manifest")
        };
        assert_eq!((manifest.layers.len(), manifest.config.size), (1, 5));
        assert_eq!(parse(&manifest.document(), "", "x").unwrap(), Document::Manifest(manifest.clone()));
        let theirs = oci_spec::image::ImageManifest::from_reader(manifest.document().as_slice()).unwrap();
        assert_eq!(theirs.layers()[0].digest().to_string(), d(2));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let config = desc(1, OCI_CONFIG);
        let layer = desc(2, OCI_LAYER);
        let table = [
            (serde_json::json!({"schemaVersion": 1}), "version 1 is not supported"),
            (serde_json::json!({}), "want 2"),
            (serde_json::json!({"schemaVersion": 2}), "without a config"),
            (serde_json::json!({"schemaVersion": 2, "config": config}), "without layers"),
            (serde_json::json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}), "both an index"),
            (
                serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "config": config, "layers": []}),
                "an index with layers",
            ),
            (
                serde_json::json!({"schemaVersion": 2, "config": desc(1, "application/vnd.cncf.helm.config.v1+json"), "layers": []}),
                "not a container image",
            ),
            (
                serde_json::json!({"schemaVersion": 2, "config": config, "layers": vec![layer.clone(); 128]}),
                "128 layers",
            ),
            (
                serde_json::json!({"schemaVersion": 2, "config": config, "layers": [desc(2, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]}),
                "may not be distributed",
            ),
            (
                serde_json::json!({"schemaVersion": 2, "config": config, "layers": [{"digest": "sha256:0", "size": 1}]}),
                "invalid digest",
            ),
            (
                serde_json::json!({"schemaVersion": 2, "config": config, "layers": [{"digest": d(1), "size": -1}]}),
                "without a size",
            ),
            (
                serde_json::json!({"schemaVersion": 2, "config": {"digest": d(1), "size": 1u64 << 40}, "layers": []}),
                "at most",
            ),
            (serde_json::json!({"schemaVersion": 2, "manifests": vec![layer; 1025]}), "index of 1025"),
        ];
        for (document, want) in table {
            let error = parse(document.to_string().as_bytes(), "", "x").unwrap_err().to_string();
            assert!(error.contains(want), "want {want:?}, got {error:?}");
        }
    }
}
