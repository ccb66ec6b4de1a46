//! Pull: the registry's answer against what the store has. [`plan`] decides, the rest does: documents first, then the missing layers on
//! a few threads, then the record that makes the image visible.

use std::io::Read;

use crate::layer::hashing::Hashing;
use crate::limits::{DOCUMENT_BYTES_MAX, ROOMY_DISK_BYTES};
use crate::manifest::{self, Descriptor, Manifest};
use crate::platform::Platform;
use crate::registry::blob::Blob;
use crate::registry::client::Client;
use crate::registry::exchange::header;
use crate::registry::hosts::has_mirrors;
use crate::registry::{Credentials, Registries};
use crate::store::record::ImageRecord;
use crate::store::{Image, Inner, Names, Store};
use crate::{Cancel, DiffId, Digest, Error, ImageConfig, Observer, Progress, Reference, signature};

mod crew;

pub(crate) use crew::{Taking, take_in_all};

/// How to pull.
#[derive(Clone)]
pub struct PullOptions {
    /// For which machine.
    pub platform: Platform,
    /// For the reference's own registry; `None` asks the docker configuration named in `registries`, then goes anonymous.
    pub credentials: Option<Credentials>,
    pub registries: Registries,
    pub blobs: BlobPolicy,
    /// Wait until everything is on the disk, for each layer as soon as it is finished. Without it a power cut before [`Store::settle`] may cost the pulled layers (never their
    /// integrity: they are dropped and fetched again).
    pub durable: bool,
}

impl Default for PullOptions {
    fn default() -> PullOptions {
        PullOptions {
            platform: Platform::machine(),
            credentials: None,
            registries: Registries::default(),
            blobs: BlobPolicy::default(),
            durable: true,
        }
    }
}

/// Whether the compressed layers stay beside the unpacked ones. They serve to push and export unchanged, and to repair without a
/// network; dropped ones are fetched again when they are needed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum BlobPolicy {
    /// Kept on a disk of [`ROOMY_DISK_BYTES`] that is less than half full.
    #[default]
    ByDisk,
    Keep,
    Drop,
}

impl BlobPolicy {
    pub(crate) fn keeps(self, inner: &Inner) -> bool {
        match self {
            BlobPolicy::Keep => true,
            BlobPolicy::Drop => false,
            BlobPolicy::ByDisk => inner
                .layout
                .space()
                .is_ok_and(|space| space.total >= ROOMY_DISK_BYTES && space.available > space.total / 2),
        }
    }
}

/// One layer of an image: its name before and after compression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedLayer {
    pub index: usize,
    pub diff_id: DiffId,
    pub blob: Descriptor,
}

/// Pairs the manifest's layers with the configuration's; they must be as many.
pub fn plan(manifest: &Manifest, diff_ids: &[DiffId], what: &str) -> Result<Vec<WantedLayer>, Error> {
    if manifest.layers.len() != diff_ids.len() {
        return Err(Error::corrupt(
            what,
            format!("{} layers in the manifest, {} in the configuration", manifest.layers.len(), diff_ids.len()),
        ));
    }
    let pairs = manifest.layers.iter().zip(diff_ids).enumerate();
    Ok(pairs.map(|(index, (blob, diff_id))| WantedLayer { index, diff_id: *diff_id, blob: blob.clone() }).collect())
}

impl Store {
    /// Makes the image be here: asks the registry, fetches and unpacks what is missing.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Image, Error> {
        match pull(self, reference, options, observer, cancel) {
            // A mirror that hands out damaged bytes would do so for ever.
            Err(e @ Error::Corrupt { .. }) if has_mirrors(reference, &options.registries) => {
                log::warn!("{reference}: {e}; asking the registry itself");
                let mut options = options.clone();
                options.registries.no_mirrors = true;
                pull(self, reference, &options, observer, cancel)
            }
            done => done,
        }
    }
}

fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Image, Error> {
    let inner = &*store.inner;
    let writing = inner.writing()?;
    let client = Client::new(reference, options.credentials.clone(), &options.registries, cancel)?;
    // Asked on every way out, also for what is here already: the policy may be newer than the image.
    let allowed =
        |digests: &[Digest]| signature::enforce(options.registries.policy.as_deref(), &client, digests, &inner.layout);
    let known = inner.image_record(reference)?.filter(|record| options.platform.covers(&record.platform));
    // A digest needs no registry when all it names is here.
    if let Some(record) = known.as_ref().filter(|record| reference.digest() == Some(record.resolved))
        && let Some(image) = inner.image(record)?
    {
        allowed(&[record.resolved, record.manifest])?;
        observer.event(Progress::Done { id: image.id });
        return Ok(image);
    }
    let (bytes, media_type) = document(inner, &client, &reference.manifest_selector())?;
    let resolved = Digest::of(&bytes);
    if let Some(record) = known.filter(|record| record.resolved == resolved)
        && let Some(image) = inner.image(&record)?
    {
        inner.write_blob(&bytes)?; // it may have been lost
        allowed(&[record.resolved, record.manifest])?;
        observer.event(Progress::Done { id: image.id });
        return Ok(image);
    }
    let what = reference.to_string();
    let fetch = |digest: &Digest| document(inner, &client, &digest.to_string());
    let mut documents = vec![bytes.clone()];
    let (manifest_digest, bytes, manifest) =
        manifest::resolve(bytes, &media_type, &options.platform, reference, &fetch)?;
    allowed(&[resolved, manifest_digest])?;
    let config = config_bytes(inner, &client, &manifest.config)?;
    let (parsed, diff_ids) = ImageConfig::parse(&config, &what)?;
    if options.platform.suits(&parsed.platform).is_none() && !parsed.platform.architecture.is_empty() {
        return Err(Error::WrongPlatform {
            reference: Box::new(reference.clone()),
            want: options.platform.clone(),
            offers: vec![parsed.platform],
        });
    }
    documents.extend([bytes, config]);
    let wanted = plan(&manifest, &diff_ids, &what)?;
    let source = |layer: &WantedLayer, at: u64| -> Result<Box<dyn Read + Send + '_>, Error> {
        let blob = Blob::new(&client, &layer.blob.digest, layer.blob.size, layer.index, observer);
        Ok(Box::new(blob.starting_at(at)))
    };
    let durable = options.durable;
    let how = Taking { keep_blobs: options.blobs.keeps(inner), spool: true, durable, anew: None };
    let record = ImageRecord {
        reference: what.clone(),
        resolved,
        manifest: manifest_digest,
        config: manifest.config.digest,
        platform: options.platform.clone(),
        layers: diff_ids,
        since: crate::store::now(),
        local: false,
        top: None,
    };
    // The layers may take hours: meanwhile the rest of the store can be swept.
    let mut names = Names::of(&record);
    names.blobs.extend(manifest.layers.iter().map(|layer| layer.digest.hex()));
    let _held = inner.hold(&names)?;
    drop(writing);
    take_in_all(inner, manifest_digest, &wanted, &source, &how, observer, cancel)?;
    let _writing = inner.writing()?;
    finish(inner, reference, record, &documents, durable, observer)
}

/// Makes an image visible whose layers are in the store.
pub(crate) fn finish(
    inner: &Inner,
    reference: &Reference,
    mut record: ImageRecord,
    documents: &[Vec<u8>],
    durable: bool,
    observer: &dyn Observer,
) -> Result<Image, Error> {
    record.top = inner.settle_top(&reference.to_string(), &record.layers)?;
    if durable {
        inner.settle_image(reference, &record, documents)?;
    } else {
        documents.iter().try_for_each(|bytes| inner.write_blob(bytes).map(drop))?;
        inner.write_image(reference, &record)?;
    }
    let image = inner
        .image(&record)?
        .ok_or_else(|| Error::corrupt(reference.to_string(), "a layer vanished while the image was taken in"))?;
    observer.event(Progress::Done { id: image.id });
    Ok(image)
}

/// A manifest or index by tag or digest, from the store if its digest is known and it is here. Verified where it was asked by digest.
pub(crate) fn document(inner: &Inner, client: &Client, selector: &str) -> Result<(Vec<u8>, String), Error> {
    let digest: Option<Digest> = selector.parse().ok();
    if let Some(bytes) = digest.map_or(Ok(None), |digest| inner.read_blob(&digest))? {
        return Ok((bytes, String::new()));
    }
    let response = client.get(&format!("manifests/{selector}"), &[("accept", manifest::accept())])?;
    let media_type = header(&response, "content-type").unwrap_or_default();
    let what = client.reference().to_string();
    let bytes = bounded(response.into_body().into_reader(), DOCUMENT_BYTES_MAX, &what)?;
    if let Some(digest) = digest
        && Digest::of(&bytes) != digest
    {
        return Err(Error::corrupt(
            what,
            format!("asked for {digest}, got a document of digest {}", Digest::of(&bytes)),
        ));
    }
    Ok((bytes, media_type))
}

pub(crate) fn config_bytes(inner: &Inner, client: &Client, want: &Descriptor) -> Result<Vec<u8>, Error> {
    if let Some(bytes) = inner.read_blob(&want.digest)? {
        return Ok(bytes);
    }
    let what = format!("{}: configuration {}", client.reference(), want.digest);
    let bytes = bounded(Blob::new(client, &want.digest, want.size, 0, &crate::Silent), DOCUMENT_BYTES_MAX, &what)?;
    if Digest::of(&bytes) != want.digest {
        return Err(Error::corrupt(what, format!("its bytes have the digest {}", Digest::of(&bytes))));
    }
    Ok(bytes)
}

fn bounded(reader: impl Read, max: u64, what: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    Hashing::new(reader, max).read_to_end(&mut bytes).map_err(|e| match e.downcast::<Error>() {
        Ok(own) => own,
        Err(e) => Error::Network { what: what.to_owned(), why: e.to_string(), retryable: true },
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_pair_up_or_are_refused() {
        let blob = |n: u8| Descriptor { media_type: String::new(), digest: Digest::of(&[n]), size: 1 };
        let id = |n: u8| format!("sha256:{}", Digest::of(&[n]).hex()).parse::<DiffId>().unwrap();
        let manifest = Manifest { config: blob(0), layers: vec![blob(1), blob(2)] };
        let wanted = plan(&manifest, &[id(8), id(9)], "x").unwrap();
        assert_eq!((wanted[1].index, wanted[1].diff_id, wanted[1].blob.digest), (1, id(9), Digest::of(&[2])));
        assert!(
            plan(&manifest, &[id(8)], "x")
                .unwrap_err()
                .to_string()
                .contains("2 layers in the manifest, 1 in the configuration")
        );
    }
}
