//! Pull: the registry's answer against what the store has. [`plan`] decides, the rest does: documents first, then the missing layers on
//! a few threads, then the record that makes the image visible.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::layer::hashing::Hashing;
use crate::limits::{DOCUMENT_BYTES_MAX, UNPACK_THREADS_MAX};
use crate::manifest::{self, Descriptor, Manifest};
use crate::platform::Platform;
use crate::registry::blob::Blob;
use crate::registry::client::{Client, header};
use crate::registry::{Credentials, Registries};
use crate::store::layers::Intake;
use crate::store::record::ImageRecord;
use crate::store::{Image, Inner, Store};
use crate::{Cancel, DiffId, Digest, Error, ImageConfig, Observer, Progress, Reference, signature};

/// How to pull.
#[derive(Clone)]
pub struct PullOptions {
    /// For which machine.
    pub platform: Platform,
    /// For the reference's own registry; `None` asks the docker configuration named in `registries`, then goes anonymous.
    pub credentials: Option<Credentials>,
    pub registries: Registries,
    /// Keep the compressed layers beside the unpacked ones (to push or export them unchanged).
    pub keep_blobs: bool,
    /// Wait until everything is on the disk. Without it a power cut before [`Store::settle`] may cost the pulled layers (never their
    /// integrity: they are dropped and fetched again).
    pub durable: bool,
}

impl Default for PullOptions {
    fn default() -> PullOptions {
        PullOptions {
            platform: Platform::machine(),
            credentials: None,
            registries: Registries::default(),
            keep_blobs: false,
            durable: true,
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

pub(crate) fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Image, Error> {
    let inner = &*store.inner;
    let _writing = inner.writing()?;
    let client = Client::new(reference, options.credentials.clone(), &options.registries, cancel)?;
    // Asked on every way out, also for what is here already: the policy may be newer than the image.
    let allowed =
        |digests: &[Digest]| signature::enforce(options.registries.policy.as_deref(), &client, digests, &inner.layout);
    let known = inner.image_record(reference)?.filter(|record| record.platform == options.platform);
    // A digest needs no registry when all it names is here.
    if let Some(record) = known.as_ref().filter(|record| reference.digest() == Some(record.resolved))
        && let Some(image) = inner.image(record)?
    {
        allowed(&[record.resolved, record.manifest])?;
        observer.event(Progress::Done { id: image.id });
        return Ok(image);
    }
    let (bytes, media_type) = document(inner, &client, &reference.manifest_selector())?;
    let resolved = inner.write_blob(&bytes)?;
    if let Some(record) = known.filter(|record| record.resolved == resolved)
        && let Some(image) = inner.image(&record)?
    {
        allowed(&[record.resolved, record.manifest])?;
        observer.event(Progress::Done { id: image.id });
        return Ok(image);
    }
    let what = reference.to_string();
    let fetch = |digest: &Digest| document(inner, &client, &digest.to_string());
    let (manifest_digest, bytes, manifest) =
        manifest::resolve(bytes, &media_type, &options.platform, reference, &fetch)?;
    inner.write_blob(&bytes)?;
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
    inner.write_blob(&config)?;
    let wanted = plan(&manifest, &diff_ids, &what)?;
    let source = |layer: &WantedLayer| -> Result<Box<dyn Read + '_>, Error> {
        Ok(Box::new(Blob::new(&client, &layer.blob.digest, layer.blob.size, layer.index, observer)))
    };
    take_in_all(inner, manifest_digest, &wanted, &source, options.keep_blobs, options.durable, observer, cancel)?;
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
    finish(inner, reference, record, observer)
}

/// Makes an image visible whose documents and layers are in the store.
pub(crate) fn finish(
    inner: &Inner,
    reference: &Reference,
    mut record: ImageRecord,
    observer: &dyn Observer,
) -> Result<Image, Error> {
    record.top = inner.settle_top(&reference.to_string(), &record.layers)?;
    inner.write_image(reference, &record)?;
    let image = inner
        .image(&record)?
        .ok_or_else(|| Error::corrupt(reference.to_string(), "a layer vanished while the image was taken in"))?;
    observer.event(Progress::Done { id: image.id });
    Ok(image)
}

/// Where the bytes of a layer come from.
pub(crate) type Source<'a> = dyn Fn(&WantedLayer) -> Result<Box<dyn Read + 'a>, Error> + Sync + 'a;

/// Takes in every layer that is missing, a few at once. The first failure stops the others.
#[allow(clippy::too_many_arguments)] // one call site per source; a struct would only rename them
pub(crate) fn take_in_all<'a>(
    inner: &Inner,
    manifest: Digest,
    wanted: &[WantedLayer],
    source: &Source<'a>,
    keep_blobs: bool,
    durable: bool,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut missing: Vec<&WantedLayer> = Vec::new();
    for layer in wanted {
        match inner.layer_record(&layer.diff_id)? {
            Some(_) => observer.event(Progress::Present { index: layer.index, diff_id: layer.diff_id }),
            None if missing.iter().any(|other| other.diff_id == layer.diff_id) => {} // twice in one image
            None => missing.push(layer),
        }
    }
    let bytes = missing.iter().map(|layer| layer.blob.size).sum();
    observer.event(Progress::Resolved { manifest, layers: wanted.len(), bytes });
    // Large layers first: the last thread to end then ends soon after the others.
    missing.sort_by_key(|layer| std::cmp::Reverse(layer.blob.size));
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).clamp(2, UNPACK_THREADS_MAX).min(missing.len());
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        while let Some(layer) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let failed = failure.lock().map_or(true, |failure| failure.is_some());
            if failed {
                return;
            }
            observer.event(Progress::Layer { index: layer.index, digest: layer.blob.digest, bytes: layer.blob.size });
            let progress = |done| observer.event(Progress::Bytes { index: layer.index, done });
            let intake = Intake { keep_blob: keep_blobs, durable, progress: &progress, cancel };
            match inner.take_in(&layer.diff_id, &layer.blob, &|| source(layer), &intake) {
                Ok((record, _)) => observer.event(Progress::Extracted {
                    index: layer.index,
                    diff_id: layer.diff_id,
                    bytes: record.file_bytes,
                }),
                Err(e) => {
                    if let Ok(mut first) = failure.lock() {
                        first.get_or_insert(e);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner() {
        Ok(Some(e)) => Err(e),
        _ => Ok(()),
    }
}

/// A manifest or index by tag or digest, from the store if its digest is known and it is here. Verified where it was asked by digest.
fn document(inner: &Inner, client: &Client, selector: &str) -> Result<(Vec<u8>, String), Error> {
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

fn config_bytes(inner: &Inner, client: &Client, want: &Descriptor) -> Result<Vec<u8>, Error> {
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
