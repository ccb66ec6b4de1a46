//! Push: an image of the store goes to a registry as it is: the same documents, the same compressed layers. The registry is asked first
//! what it has; only what it lacks is fetched (where it was dropped after unpacking) and uploaded.

use std::io::{Read, Seek, SeekFrom};

use crate::loan::Lender;
use crate::manifest::{self, Descriptor, Document, Manifest, OCI_MANIFEST};
use crate::pack::open;
use crate::pull::PullOptions;
use crate::registry::client::Client;
use crate::registry::upload::Parcel;
use crate::store::{Inner, Store};
use crate::{Cancel, Credentials, Digest, Error, Observer, Progress, Reference};

impl Store {
    /// Uploads an image of the store; the manifest's digest. `credentials` are for the registry it goes to; `fetch` says how those layers
    /// come that are neither there nor here, and how registries are reached.
    pub fn push(
        &self,
        from: &Reference,
        to: &Reference,
        credentials: Option<Credentials>,
        fetch: &PullOptions,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Digest, Error> {
        let inner = &*self.inner;
        let _writing = inner.writing()?;
        let whole = Whole::of(inner, from)?;
        let Manifest { layers, config } = &whole.manifest;
        let record = inner.image_record(from)?.ok_or_else(|| absent(from, "no such image in the store"))?;
        let mut lender = Lender::of(self, &record, fetch, observer, cancel)?;
        let mut client = Client::new(to, credentials, &fetch.registries, cancel)?;
        let elsewhere = from.registry() == to.registry() && from.repository() != to.repository();
        if elsewhere {
            client = client.taking_from(from.repository());
        }
        let is_there = |blob: &Descriptor| -> Result<bool, Error> {
            Ok(client.has_blob(&blob.digest)? || (elsewhere && client.mount_blob(&blob.digest, from)))
        };
        let upload = |index: usize, blob: &Descriptor, observer: &dyn Observer| -> Result<(), Error> {
            let path = inner.layout.blob(&blob.digest);
            let content = |at: u64| -> Result<Box<dyn Read>, Error> {
                let mut file = open(&path)?;
                file.seek(SeekFrom::Start(at)).map_err(|e| Error::io("read", &path, e))?;
                Ok(Box::new(file))
            };
            let parcel = Parcel { digest: blob.digest, size: blob.size, content: &content, index, observer };
            client.push_blob(&parcel)
        };
        let bytes = layers.iter().map(|layer| layer.size).sum();
        observer.event(Progress::Resolved { manifest: whole.digest, layers: layers.len(), bytes });
        for (index, blob) in layers.iter().enumerate() {
            let present = is_there(blob)?;
            if !present {
                let _loan = lender.lend(index, blob)?;
                observer.event(Progress::Layer { index, digest: blob.digest, bytes: blob.size });
                upload(index, blob, observer)?;
            }
            observer.event(Progress::Pushed { index, digest: blob.digest, bytes: blob.size, present });
        }
        if !is_there(config)? {
            upload(layers.len(), config, &crate::Silent)?; // no layer: nothing to show
        }
        client.push_manifest(to, &whole.media_type, &whole.bytes)?;
        observer.event(Progress::Done { id: config.digest });
        Ok(whole.digest)
    }
}

/// The documents of an image, all of them here.
pub(crate) struct Whole {
    pub digest: Digest,
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub manifest: Manifest,
}

fn absent(reference: &Reference, reason: &str) -> Error {
    Error::NotFound { what: reference.to_string(), reason: reason.to_owned() }
}

impl Whole {
    pub(crate) fn of(inner: &Inner, reference: &Reference) -> Result<Whole, Error> {
        let what = reference.to_string();
        let record = inner.image_record(reference)?.ok_or_else(|| absent(reference, "no such image in the store"))?;
        let bytes = inner.read_blob(&record.manifest)?.ok_or_else(|| absent(reference, "its manifest is missing"))?;
        let Document::Manifest(manifest) = manifest::parse(&bytes, "", &what)? else {
            return Err(Error::corrupt(what, "its manifest is an index"));
        };
        let root: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let media_type = root.get("mediaType").and_then(serde_json::Value::as_str).unwrap_or(OCI_MANIFEST).to_owned();
        Ok(Whole { digest: record.manifest, bytes, media_type, manifest })
    }

    /// As [`Whole::of`], and every compressed layer is here too.
    pub(crate) fn with_layers(inner: &Inner, reference: &Reference) -> Result<Whole, Error> {
        let whole = Whole::of(inner, reference)?;
        let lost = |blob: &&Descriptor| {
            inner.layout.blob(&blob.digest).metadata().map_or(true, |meta| meta.len() != blob.size)
        };
        match whole.manifest.layers.iter().find(lost) {
            None => Ok(whole),
            Some(blob) => {
                let why = format!("its compressed layer {} was not kept; pull it again with --keep-blobs", blob.digest);
                Err(absent(reference, &why))
            }
        }
    }
}
