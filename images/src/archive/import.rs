//! Import. An OCI layout (folder or tar) is read by its `index.json`, a docker-archive by its `manifest.json`.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::source::{Section, Source};
use crate::layer::Codec;
use crate::manifest::{self, Descriptor, Document, Manifest, OCI_CONFIG, OCI_LAYER};
use crate::pull::{Taking, WantedLayer, finish, plan, take_in_all};
use crate::store::record::ImageRecord;
use crate::store::{Image, Inner, Store};
use crate::{BlobPolicy, Cancel, Digest, Error, ImageConfig, Observer, Platform, Reference};

impl Store {
    /// Imports every image for this platform from a docker-archive, an oci-archive or an OCI layout folder. `name` is for an image the
    /// archive does not name, or to choose another name where it holds only one.
    pub fn import(
        &self,
        path: &Path,
        name: Option<&Reference>,
        platform: &Platform,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Vec<Image>, Error> {
        self.import_with(path, name, platform, BlobPolicy::default(), observer, cancel)
    }

    /// The same, with a word on the compressed layers: without them an imported image runs, but cannot be pushed or exported.
    pub fn import_with(
        &self,
        path: &Path,
        name: Option<&Reference>,
        platform: &Platform,
        blobs: BlobPolicy,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Vec<Image>, Error> {
        let inner = &*self.inner;
        let _writing = inner.writing()?;
        let source = Source::open(inner, path)?;
        let what = path.display().to_string();
        let found = match (source.document("index.json")?, source.document("manifest.json")?) {
            (Some(index), _) => layout(&source, &index, name, platform, &what)?,
            (None, Some(manifest)) => docker(&source, &manifest, name, &what)?,
            (None, None) => {
                return Err(Error::refused(
                    what,
                    "neither an OCI layout (no index.json) nor a docker-archive (no manifest.json)",
                ));
            }
        };
        if found.is_empty() {
            return Err(Error::NotFound {
                what,
                reason: "the archive holds no named image; give it a name".to_owned(),
            });
        }
        let keep = blobs.keeps(inner);
        found.into_iter().map(|image| take_in(inner, image, platform, keep, observer, cancel)).collect()
    }
}

/// An image in an archive.
struct Found {
    reference: Reference,
    manifest: Vec<u8>,
    config: Vec<u8>,
    parsed: Manifest,
    layers: HashMap<Digest, Section>,
}

fn take_in(
    inner: &Inner,
    found: Found,
    platform: &Platform,
    keep_blobs: bool,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Image, Error> {
    let what = found.reference.to_string();
    let (config, diff_ids) = ImageConfig::parse(&found.config, &what)?;
    if platform.suits(&config.platform).is_none() {
        return Err(Error::WrongPlatform {
            reference: Box::new(found.reference),
            want: platform.clone(),
            offers: vec![config.platform],
        });
    }
    if Digest::of(&found.config) != found.parsed.config.digest {
        return Err(Error::corrupt(what, "its configuration has another digest than the manifest says"));
    }
    let wanted = plan(&found.parsed, &diff_ids, &what)?;
    let open = |layer: &WantedLayer, at: u64| -> Result<Box<dyn Read + Send>, Error> {
        let section = found
            .layers
            .get(&layer.blob.digest)
            .ok_or_else(|| Error::corrupt("archive", format!("layer {} is missing", layer.blob.digest)))?;
        Ok(Box::new(section.from(at)))
    };
    let (config_digest, manifest) = (found.parsed.config.digest, Digest::of(&found.manifest));
    take_in_all(
        inner,
        manifest,
        &wanted,
        &open,
        &Taking { keep_blobs, spool: false, durable: true, anew: None },
        observer,
        cancel,
    )?;
    let record = ImageRecord {
        reference: what,
        resolved: manifest,
        manifest,
        config: config_digest,
        platform: platform.clone(),
        layers: diff_ids,
        since: crate::store::now(),
        local: true,
        top: None,
    };
    finish(inner, &found.reference, record, &[found.manifest, found.config], true, observer)
}

fn layout(
    source: &Source,
    index: &[u8],
    name: Option<&Reference>,
    platform: &Platform,
    what: &str,
) -> Result<Vec<Found>, Error> {
    let Document::Index(offers) = manifest::parse(index, manifest::OCI_INDEX, what)? else {
        return Err(Error::corrupt(what, "index.json is no index"));
    };
    let single = offers.len() == 1;
    let mut found = Vec::new();
    for offer in &offers {
        let given = name.filter(|_| single).cloned();
        // A bare tag ("1.2") is what skopeo writes where no name was given: it names no repository.
        let own = || {
            offer.name.parse::<Reference>().ok().filter(|_| {
                offer.name.contains(['/', ':', '.']) && offer.name.contains(|c: char| c.is_ascii_alphabetic())
            })
        };
        let Some(reference) = given.or_else(own) else { continue };
        let mut bytes = blob(source, &offer.descriptor, what)?;
        if let Document::Index(inner) = manifest::parse(&bytes, "", what)? {
            bytes = blob(source, manifest::choose(&inner, platform, &reference)?, what)?;
        }
        let Document::Manifest(parsed) = manifest::parse(&bytes, "", what)? else {
            return Err(Error::refused(what, "an index within an index"));
        };
        let config = blob(source, &parsed.config, what)?;
        let mut layers = HashMap::new();
        for layer in &parsed.layers {
            // One that is missing here may be in the store already.
            if let Some(section) = source.file(&blob_name(&layer.digest))? {
                layers.insert(layer.digest, section);
            }
        }
        found.push(Found { reference, manifest: bytes, config, parsed, layers });
    }
    Ok(found)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(source: &Source, want: &Descriptor, what: &str) -> Result<Vec<u8>, Error> {
    let bytes = source
        .document(&blob_name(&want.digest))?
        .ok_or_else(|| Error::corrupt(what, format!("{} is missing", want.digest)))?;
    if Digest::of(&bytes) == want.digest {
        Ok(bytes)
    } else {
        Err(Error::corrupt(what, format!("{} has another digest", want.digest)))
    }
}

/// `docker save`: a list of images, each with the names of its configuration and its layers in the archive.
fn docker(source: &Source, manifest: &[u8], name: Option<&Reference>, what: &str) -> Result<Vec<Found>, Error> {
    let corrupt = |why: &str| Error::corrupt(what, why.to_owned());
    let root: Value = serde_json::from_slice(manifest).map_err(|e| corrupt(&format!("manifest.json: {e}")))?;
    let images = root.as_array().ok_or_else(|| corrupt("manifest.json is no list"))?;
    let mut found = Vec::new();
    for image in images {
        let config = image
            .get("Config")
            .and_then(Value::as_str)
            .ok_or_else(|| corrupt("manifest.json names no configuration"))?;
        let config = source.document(config)?.ok_or_else(|| corrupt("the configuration is missing"))?;
        let (mut layers, mut sections) = (Vec::new(), HashMap::new());
        for layer in image.get("Layers").and_then(Value::as_array).into_iter().flatten() {
            let path = layer.as_str().unwrap_or_default();
            let section = source.file(path)?.ok_or_else(|| corrupt(&format!("layer {path:?} is missing")))?;
            let digest = section.digest().map_err(|e| Error::io("read", path, e))?;
            let mut head = [0u8; 4];
            let n = section.clone().read(&mut head).map_err(|e| Error::io("read", path, e))?;
            let media_type = match Codec::of(head.get(..n).unwrap_or_default()) {
                Codec::Plain => OCI_LAYER.to_owned(),
                Codec::Gzip => format!("{OCI_LAYER}+gzip"),
                Codec::Zstd => format!("{OCI_LAYER}+zstd"),
            };
            layers.push(Descriptor { media_type, digest, size: section.len() });
            sections.insert(digest, section);
        }
        let parsed = Manifest {
            config: Descriptor {
                media_type: OCI_CONFIG.to_owned(),
                digest: Digest::of(&config),
                size: config.len() as u64,
            },
            layers,
        };
        let tags = image.get("RepoTags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let names: Vec<Reference> = match name.filter(|_| images.len() == 1) {
            Some(name) => vec![name.clone()],
            None => tags.map(str::parse).collect::<Result<_, _>>()?,
        };
        for reference in names {
            found.push(Found {
                reference,
                manifest: parsed.document(),
                config: config.clone(),
                parsed: parsed.clone(),
                layers: sections.clone(),
            });
        }
    }
    Ok(found)
}
