//! Compressed layers that were dropped after unpacking come back for a while when someone needs them (push, export).

use std::io::Read;

use crate::digest::Hasher;
use crate::layer::hashing::Hashing;
use crate::manifest::Descriptor;
use crate::pull::{BlobPolicy, PullOptions};
use crate::registry::blob::Blob;
use crate::registry::client::Client;
use crate::store::partial::Spooled;
use crate::store::record::ImageRecord;
use crate::store::{Inner, Store};
use crate::{Cancel, Error, Observer, Progress, Reference};

/// Compressed layers that are in the store for a while; those that were fetched for it go when this is dropped.
pub struct Loan {
    store: Store,
    fetched: Vec<Descriptor>,
}

impl Drop for Loan {
    fn drop(&mut self) {
        for blob in &self.fetched {
            let _ = self.store.inner.layout.disk.unlink(&self.store.inner.layout.blob(&blob.digest)); // a sweep takes it
        }
    }
}

impl Store {
    /// Makes every compressed layer of an image be here, fetching those that were dropped.
    pub fn borrow_blobs(
        &self,
        reference: &Reference,
        options: &PullOptions,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<Loan, Error> {
        let inner = &*self.inner;
        let absent = |reason: &str| Error::NotFound { what: reference.to_string(), reason: reason.to_owned() };
        let record = inner.image_record(reference)?.ok_or_else(|| absent("no such image in the store"))?;
        let manifest = inner.manifest(&record)?.ok_or_else(|| absent("its manifest is missing"))?;
        let mut lender = Lender::of(self, &record, options, observer, cancel)?;
        let missing: Vec<(usize, &Descriptor)> =
            manifest.layers.iter().enumerate().filter(|(_, blob)| inner.kept_blob(blob).is_none()).collect();
        if !missing.is_empty() {
            let bytes = missing.iter().map(|(_, blob)| blob.size).sum();
            observer.event(Progress::Resolved { manifest: record.manifest, layers: manifest.layers.len(), bytes });
        }
        let mut all = Loan { store: self.clone(), fetched: Vec::new() };
        for (index, blob) in missing {
            let mut loan = lender.lend(index, blob)?;
            all.fetched.append(&mut loan.fetched);
        }
        Ok(all)
    }
}

/// Fetches the compressed layers of one image, those that are not here.
pub(crate) struct Lender<'a> {
    store: &'a Store,
    reference: Reference,
    /// No registry has the image.
    local: bool,
    options: &'a PullOptions,
    /// Made for the first that is missing.
    client: Option<Client>,
    observer: &'a dyn Observer,
    cancel: &'a Cancel,
}

impl<'a> Lender<'a> {
    pub(crate) fn of(
        store: &'a Store,
        record: &ImageRecord,
        options: &'a PullOptions,
        observer: &'a dyn Observer,
        cancel: &'a Cancel,
    ) -> Result<Lender<'a>, Error> {
        let reference = record.reference.parse()?;
        Ok(Lender { store, reference, local: record.local, options, client: None, observer, cancel })
    }

    /// Makes a compressed layer be here.
    pub(crate) fn lend(&mut self, index: usize, blob: &Descriptor) -> Result<Loan, Error> {
        let inner = &*self.store.inner;
        let mut loan = Loan { store: self.store.clone(), fetched: Vec::new() };
        if inner.kept_blob(blob).is_some() {
            return Ok(loan);
        }
        if self.local {
            let reason = format!(
                "its compressed layer {} was not kept, and it is in no registry; import it with --keep-blobs",
                blob.digest
            );
            return Err(Error::NotFound { what: self.reference.to_string(), reason });
        }
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let PullOptions { credentials, registries, .. } = self.options;
                Client::new(&self.reference, credentials.clone(), registries, self.cancel)?
            }
        };
        let client = self.client.insert(client);
        self.observer.event(Progress::Layer { index, digest: blob.digest, bytes: blob.size });
        inner.fetch_blob(client, blob, index, self.observer, self.cancel)?;
        if self.options.blobs == BlobPolicy::Drop || !self.options.blobs.keeps(inner) {
            loan.fetched.push(blob.clone());
        }
        Ok(loan)
    }
}

impl Inner {
    /// Fetches a compressed layer into `blobs/`, on from where an earlier attempt stopped.
    fn fetch_blob(
        &self,
        client: &Client,
        want: &Descriptor,
        index: usize,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let what = format!("layer {}", want.digest);
        let _writing = self.writing()?;
        loop {
            let by = "another process, which fetches it".to_owned();
            let partial = self.partial(&want.digest)?.ok_or_else(|| Error::InUse { what: what.clone(), by })?;
            let from = partial.length();
            let blob = Blob::new(client, &want.digest, want.size, index, observer).starting_at(from);
            let mut hashing = Hashing::new(Spooled::new(Some(partial), true, want.size, blob), want.size);
            let done = drain(&mut hashing, cancel, |done| observer.event(Progress::Bytes { index, done }));
            let (hasher, _, spooled) = hashing.finish();
            let partial = spooled.into_partial();
            done.map_err(|e| match e.downcast::<Error>() {
                Ok(own) => own,
                Err(e) => Error::corrupt(what.clone(), e.to_string()),
            })?;
            let digest = hasher.map(Hasher::digest).ok_or_else(|| Error::corrupt(what.clone(), "was not hashed"))?;
            match partial {
                Some(partial) if digest == want.digest => return partial.keep(&self.layout.blob(&want.digest)),
                Some(partial) => partial.discard(),
                None => {}
            }
            if from == 0 {
                return Err(Error::corrupt(what, format!("its bytes have the digest {digest}")));
            }
        }
    }
}

fn drain<R: Read>(from: &mut Hashing<R>, cancel: &Cancel, told: impl Fn(u64)) -> std::io::Result<()> {
    use std::io::BufRead;
    loop {
        cancel.check().map_err(std::io::Error::other)?;
        let n = from.fill_buf()?.len();
        if n == 0 {
            return Ok(());
        }
        from.consume(n);
        told(from.total());
    }
}
