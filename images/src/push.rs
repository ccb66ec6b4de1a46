//! Push: an image of the store goes to a registry as it is: the same documents, the same compressed layers.

use std::io::Read;

use crate::manifest::{self, Descriptor, Document, Manifest, OCI_MANIFEST};
use crate::pack::open;
use crate::registry::client::Client;
use crate::store::{Inner, Store};
use crate::{Cancel, Credentials, Digest, Error, Observer, Progress, Reference, Registries};

impl Store {
    /// Uploads an image of the store; the manifest's digest. Needs the compressed layers (packed images have them; pulled ones with
    /// `keep_blobs`).
    pub fn push(
        &self,
        from: &Reference,
        to: &Reference,
        credentials: Option<Credentials>,
        registries: &Registries,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Digest, Error> {
        let inner = &*self.inner;
        let _writing = inner.writing()?;
        let whole = Whole::of(inner, from)?;
        let client = Client::new(to, credentials, registries, cancel)?;
        let bytes = whole.manifest.layers.iter().map(|layer| layer.size).sum();
        observer.event(Progress::Resolved { manifest: whole.digest, layers: whole.manifest.layers.len(), bytes });
        for (index, blob) in whole.manifest.layers.iter().chain([&whole.manifest.config]).enumerate() {
            observer.event(Progress::Layer { index, digest: blob.digest, bytes: blob.size });
            let path = inner.layout.blob(&blob.digest);
            client.push_blob(&blob.digest, blob.size, &|| Ok(Box::new(open(&path)?) as Box<dyn Read>))?;
            observer.event(Progress::Bytes { index, done: blob.size });
        }
        client.push_manifest(to, &whole.media_type, &whole.bytes)?;
        observer.event(Progress::Done { id: whole.manifest.config.digest });
        Ok(whole.digest)
    }
}

/// An image whose documents and compressed layers are all here.
pub(crate) struct Whole {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub manifest: Manifest,
}

impl Whole {
    pub(crate) fn of(inner: &Inner, reference: &Reference) -> Result<Whole, Error> {
        let what = reference.to_string();
        let absent = |reason: &str| Error::NotFound { what: what.clone(), reason: reason.to_owned() };
        let record = inner.image_record(reference)?.ok_or_else(|| absent("no such image in the store"))?;
        let bytes = inner.read_blob(&record.manifest)?.ok_or_else(|| absent("its manifest is missing"))?;
        let Document::Manifest(manifest) = manifest::parse(&bytes, "", &what)? else {
            return Err(Error::corrupt(what, "its manifest is an index"));
        };
        let lost = |blob: &&Descriptor| {
            inner.layout.blob(&blob.digest).metadata().map_or(true, |meta| meta.len() != blob.size)
        };
        if let Some(blob) = manifest.layers.iter().find(lost) {
            return Err(absent(&format!(
                "its compressed layer {} was not kept; pull it again with --keep-blobs",
                blob.digest
            )));
        }
        let root: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let media_type = root.get("mediaType").and_then(serde_json::Value::as_str).unwrap_or(OCI_MANIFEST).to_owned();
        Ok(Whole { digest: record.manifest, bytes, media_type, manifest })
    }
}
