//! Those who take an image's missing layers in: a few threads unpack, one gives what is finished its place. It waits for the disk, they
//! do not: while the disk takes one layer in they are at the next, and layers that are finished meanwhile share the next wait.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::WantedLayer;
use crate::limits::UNPACK_THREADS_MAX;
use crate::store::Inner;
use crate::store::layers::{Intake, Taken};
use crate::store::settle::Finished;
use crate::{Cancel, DiffId, Digest, Error, Observer, Progress};

/// How layers are taken in.
#[derive(Clone, Copy)]
pub(crate) struct Taking<'a> {
    pub keep_blobs: bool,
    pub spool: bool,
    /// Waited for, each as soon as it is finished: a power cut costs no more than what is under way.
    pub durable: bool,
    /// Layers to replace even if they are here.
    pub anew: Option<&'a BTreeSet<DiffId>>,
}

/// Where the bytes of a layer come from, behind so many that are here already.
pub(crate) type Source<'a> = dyn Fn(&WantedLayer, u64) -> Result<Box<dyn Read + Send + 'a>, Error> + Sync + 'a;

/// What they share.
struct Crew<'a> {
    inner: &'a Inner,
    how: &'a Taking<'a>,
    missing: Vec<&'a WantedLayer>,
    next: AtomicUsize,
    failure: Mutex<Option<Error>>,
    observer: &'a dyn Observer,
    cancel: &'a Cancel,
}

/// Takes in every layer that is missing, a few at once. The first failure stops the others; what is finished is kept.
pub(crate) fn take_in_all<'a>(
    inner: &Inner,
    manifest: Digest,
    wanted: &[WantedLayer],
    source: &Source<'a>,
    how: &Taking<'_>,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut missing: Vec<&WantedLayer> = Vec::new();
    for layer in wanted {
        let anew = how.anew.is_some_and(|anew| anew.contains(&layer.diff_id));
        match inner.layer_record(&layer.diff_id)? {
            Some(_) if !anew => observer.event(Progress::Present { index: layer.index, diff_id: layer.diff_id }),
            _ if missing.iter().any(|other| other.diff_id == layer.diff_id) => {} // twice in one image
            _ => missing.push(layer),
        }
    }
    let bytes = missing.iter().map(|layer| layer.blob.size).sum();
    observer.event(Progress::Resolved { manifest, layers: wanted.len(), bytes });
    // Large layers first: the last thread to end then ends soon after the others.
    missing.sort_by_key(|layer| std::cmp::Reverse(layer.blob.size));
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).clamp(2, UNPACK_THREADS_MAX).min(missing.len());
    let crew = Crew { inner, how, missing, next: AtomicUsize::new(0), failure: Mutex::new(None), observer, cancel };
    std::thread::scope(|scope| {
        let (finished, waiting) = channel();
        for _ in 0..threads {
            let finished = finished.clone();
            scope.spawn(|| crew.unpack(source, finished));
        }
        drop(finished); // the last of them ends the loop
        crew.settle(waiting);
    });
    match crew.failure.into_inner() {
        Ok(Some(e)) => Err(e),
        _ => Ok(()),
    }
}

impl<'a> Crew<'a> {
    fn failed(&self, e: Error) {
        if let Ok(mut first) = self.failure.lock() {
            first.get_or_insert(e);
        }
    }

    fn unpack(&self, source: &Source<'_>, finished: Sender<(usize, Finished<'a>)>) {
        while let Some(layer) = self.missing.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let failed = self.failure.lock().map_or(true, |failure| failure.is_some());
            if failed {
                return;
            }
            let (index, observer, cancel) = (layer.index, self.observer, self.cancel);
            observer.event(Progress::Layer { index, digest: layer.blob.digest, bytes: layer.blob.size });
            let Taking { keep_blobs: keep_blob, spool, anew, .. } = *self.how;
            let anew = anew.is_some_and(|anew| anew.contains(&layer.diff_id));
            let intake = Intake { keep_blob, spool, anew, index, observer, cancel };
            match self.inner.take_in(&layer.diff_id, &layer.blob, &|at| source(layer, at), &intake) {
                Ok(Taken::Here(record)) => self.extracted(index, record.diff_id, record.file_bytes),
                Ok(Taken::Finished(layer)) => drop(finished.send((index, layer))), // it listens until all of us are gone
                Err(e) => self.failed(e),
            }
        }
    }

    /// Also after a failure: what is finished is not fetched again.
    fn settle(&self, waiting: Receiver<(usize, Finished<'a>)>) {
        while let Ok(first) = waiting.recv() {
            let (numbers, layers): (Vec<_>, Vec<_>) = std::iter::once(first)
                .chain(waiting.try_iter())
                .map(|(index, layer)| ((index, layer.record.diff_id, layer.record.file_bytes), layer))
                .unzip();
            match self.inner.place_all(layers, self.how.durable) {
                Ok(()) => numbers.into_iter().for_each(|(index, diff_id, bytes)| self.extracted(index, diff_id, bytes)),
                Err(e) => self.failed(e),
            }
        }
    }

    fn extracted(&self, index: usize, diff_id: DiffId, bytes: u64) {
        self.observer.event(Progress::Extracted { index, diff_id, bytes });
    }
}
