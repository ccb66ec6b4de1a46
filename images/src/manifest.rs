//! Manifests and indexes, OCI's and Docker's: parsed and checked once, so that what follows need not doubt sizes, counts or digests.
//! Fields that nothing here reads (annotations first of all) are not lost: documents are stored, pushed and exported as the bytes that came.

use serde_json::Value;

use crate::digest::Digest;
use crate::limits::{
    DOCUMENT_BYTES_MAX, INDEX_DEPTH_MAX, INDEX_DOCUMENTS_MAX, INDEX_ENTRIES_MAX, LAYER_BLOB_BYTES_MAX, LAYERS_MAX,
};
use crate::platform::Platform;
use crate::{Error, Reference};

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

/// Fetches a document by digest; also what the server says its media type is.
pub type Fetch<'a> = dyn Fn(&Digest) -> Result<(Vec<u8>, String), Error> + 'a;

/// The manifest for a platform below a document: itself, or down through an index and indexes within it. Returns its digest and bytes
/// too. Indexes without a platform of their own are opened only where nothing beside them fits.
pub fn resolve(
    bytes: Vec<u8>,
    media_type: &str,
    want: &Platform,
    reference: &Reference,
    fetch: &Fetch<'_>,
) -> Result<(Digest, Vec<u8>, Manifest), Error> {
    let what = reference.to_string();
    let (mut bytes, mut media_type) = (bytes, media_type.to_owned());
    for _ in 0..=INDEX_DEPTH_MAX {
        let mut offers = match parse(&bytes, &media_type, &what)? {
            Document::Manifest(manifest) => return Ok((Digest::of(&bytes), bytes, manifest)),
            Document::Index(offers) => offers,
        };
        let chosen = match choose(&offers, want, reference) {
            Err(Error::WrongPlatform { .. }) if offers.iter().any(Offer::is_open_index) => {
                offers = opened(offers, &what, fetch)?;
                choose(&offers, want, reference)?
            }
            chosen => chosen?,
        };
        (bytes, media_type) = fetch(&chosen.digest)?;
    }
    Err(Error::refused(what, format!("more than {INDEX_DEPTH_MAX} indexes within each other")))
}

/// The offers of all indexes among these that name no platform, in their place.
fn opened(offers: Vec<Offer>, what: &str, fetch: &Fetch<'_>) -> Result<Vec<Offer>, Error> {
    let mut flat: Vec<Offer> = Vec::new();
    let mut queue: std::collections::VecDeque<Offer> = offers.into();
    let mut documents = 0;
    while let Some(offer) = queue.pop_front() {
        if !offer.is_open_index() {
            flat.push(offer);
            continue;
        }
        documents += 1;
        if documents > INDEX_DOCUMENTS_MAX {
            return Err(Error::refused(what, format!("more than {INDEX_DOCUMENTS_MAX} indexes within an index")));
        }
        let (bytes, media_type) = fetch(&offer.descriptor.digest)?;
        if let Document::Index(inner) = parse(&bytes, &media_type, what)? {
            queue.extend(inner);
        }
        if flat.len() + queue.len() > INDEX_ENTRIES_MAX {
            return Err(Error::refused(what, format!("more than {INDEX_ENTRIES_MAX} manifests in its indexes")));
        }
    }
    Ok(flat)
}

impl Offer {
    /// An index that does not say for which platform it is.
    fn is_open_index(&self) -> bool {
        self.platform.is_none() && matches!(self.descriptor.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }
}

/// The offer for this platform. One that names no platform is taken only where it is the only one of that kind and nothing else fits (the
/// image's own configuration is compared later).
pub fn choose<'a>(offers: &'a [Offer], want: &Platform, reference: &Reference) -> Result<&'a Descriptor, Error> {
    let named: Vec<(&Offer, &Platform)> = offers
        .iter()
        .filter_map(|offer| Some((offer, offer.platform.as_ref()?)))
        .filter(|(_, platform)| platform.os != "unknown")
        .collect();
    if let Some((offer, _)) =
        want.choose(named.iter().map(|(_, platform)| *platform)).and_then(|index| named.get(index))
    {
        return Ok(&offer.descriptor);
    }
    let mut silent = offers.iter().filter(|offer| offer.platform.is_none() && !offer.is_open_index());
    match (silent.next(), silent.next()) {
        (Some(only), None) => Ok(&only.descriptor),
        _ => {
            let mut list: Vec<Platform> = Vec::new();
            for (_, platform) in named {
                if !list.contains(platform) {
                    list.push(platform.clone());
                }
            }
            Err(Error::WrongPlatform { reference: Box::new(reference.clone()), want: want.clone(), offers: list })
        }
    }
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

    fn d(n: u8) -> String {
        Digest::of(&[n]).to_string()
    }

    fn desc(n: u8, kind: &str) -> Value {
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

    /// Documents by digest, for [`resolve`].
    fn resolved(top: &Value, others: &[Value], want: &str) -> Result<Digest, String> {
        let fetch = |digest: &Digest| {
            let found =
                others.iter().map(|other| other.to_string().into_bytes()).find(|bytes| Digest::of(bytes) == *digest);
            found.map(|bytes| (bytes, String::new())).ok_or_else(|| Error::corrupt("test", "no such document"))
        };
        let (want, reference) = (want.parse().unwrap(), "x".parse().unwrap());
        let done = resolve(top.to_string().into_bytes(), "", &want, &reference, &fetch);
        done.map(|(digest, ..)| digest).map_err(|e| e.to_string())
    }

    fn entry(document: &Value, kind: &str, platform: &str) -> Value {
        let bytes = document.to_string();
        let mut entry = serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes.as_bytes()).to_string(), "size": bytes.len()});
        if let Some((os, architecture)) = platform.split_once('/') {
            entry["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        }
        entry
    }

    fn index(manifests: &[Value]) -> Value {
        serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
    }

    #[test]
    fn indexes_within_indexes() {
        let image = |n: u8| serde_json::json!({"schemaVersion": 2, "config": desc(n, OCI_CONFIG), "layers": []});
        let digest = |document: &Value| Digest::of(document.to_string().as_bytes());
        let (amd64, s390x, silent) = (image(1), image(2), image(3));
        let inner = index(&[entry(&amd64, OCI_MANIFEST, "linux/amd64"), entry(&s390x, OCI_MANIFEST, "linux/s390x")]);
        // an open index is looked into, also two deep; what fits beside it goes first
        let middle = index(&[entry(&inner, OCI_INDEX, "")]);
        let arm = index(&[entry(&image(4), OCI_MANIFEST, "linux/arm64")]);
        let top = index(&[entry(&middle, OCI_INDEX, ""), entry(&arm, OCI_INDEX, "")]);
        let all = [amd64.clone(), s390x.clone(), silent.clone(), inner.clone(), middle.clone(), arm.clone(), image(4)];
        assert_eq!(resolved(&top, &all, "linux/s390x"), Ok(digest(&s390x)));
        assert_eq!(resolved(&top, &all, "linux/arm64"), Ok(digest(&image(4))));
        assert_eq!(
            resolved(&top, &all, "linux/ppc64le"),
            Err("docker.io/library/x:latest: no image for linux/ppc64le, it offers linux/arm64, linux/amd64, linux/s390x".to_owned())
        );
        let beside = index(&[entry(&middle, OCI_INDEX, ""), entry(&silent, OCI_MANIFEST, "linux/amd64")]);
        assert_eq!(resolved(&beside, &all, "linux/amd64"), Ok(digest(&silent)));
        // an index for one platform
        let of_amd64 = index(&[entry(&inner, OCI_INDEX, "linux/amd64")]);
        assert_eq!(resolved(&of_amd64, &all, "linux/amd64"), Ok(digest(&amd64)));
        // the only one that says nothing, beside others that do
        let mixed = index(&[entry(&s390x, OCI_MANIFEST, "linux/s390x"), entry(&silent, OCI_MANIFEST, "")]);
        assert_eq!(resolved(&mixed, &all, "linux/amd64"), Ok(digest(&silent)));
        let two = index(&[entry(&s390x, OCI_MANIFEST, ""), entry(&silent, OCI_MANIFEST, "")]);
        assert!(resolved(&two, &all, "linux/amd64").unwrap_err().ends_with("it offers none"));
        assert_eq!(resolved(&amd64, &[], "linux/s390x"), Ok(digest(&amd64)), "a manifest is what it is");
    }

    #[test]
    fn indexes_without_end_are_refused() {
        // chains: each names the next for the platform, or says nothing
        for (platform, want) in
            [("linux/amd64", "more than 4 indexes within each other"), ("", "more than 16 indexes within an index")]
        {
            let mut documents = vec![index(&[])];
            for _ in 0..20 {
                let last = documents.last().unwrap();
                documents.push(index(&[entry(last, OCI_INDEX, platform)]));
            }
            let error = resolved(documents.last().unwrap(), &documents, "linux/amd64").unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
