//! What a pull tells while it runs, and how it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::{DiffId, Digest};

/// One fact about a running pull, push or import. `index` counts layers from the base, starting at 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// The manifest is known; so many layers, so many compressed bytes still to fetch.
    Resolved { manifest: Digest, layers: usize, bytes: u64 },
    /// A layer is already in the store.
    Present { index: usize, diff_id: DiffId },
    /// Work on a layer begins; `bytes` compressed.
    Layer { index: usize, digest: Digest, bytes: u64 },
    /// So many compressed bytes of a layer have arrived in all.
    Bytes { index: usize, done: u64 },
    /// A connection broke; the layer goes on at `at` after a pause.
    Resumed { index: usize, at: u64 },
    /// An earlier pull left the first `at` bytes of a layer; the network begins behind them.
    Continued { index: usize, at: u64 },
    /// The registry cannot go on in the middle of a layer: `lost` bytes come once more.
    NoRanges { index: usize, lost: u64 },
    /// A layer is verified and in its place; `bytes` of files.
    Extracted { index: usize, diff_id: DiffId, bytes: u64 },
    /// The registry has a layer of `bytes` compressed: uploaded now, or `present` there already.
    Pushed { index: usize, digest: Digest, bytes: u64, present: bool },
    /// All of it is in place.
    Done { id: Digest },
}

/// Listens to a running operation. Called from several threads; must not block for long.
pub trait Observer: Sync {
    /// One fact.
    fn event(&self, progress: Progress);
}

/// Listens to nothing.
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: Progress) {}
}

/// A flag that ends an operation at its next step (at most one buffer or one network timeout later). Clones share the flag.
#[derive(Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ask for the end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Has it been asked for?
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    pub(crate) fn check(&self) -> Result<(), crate::Error> {
        if self.is_cancelled() { Err(crate::Error::Cancelled) } else { Ok(()) }
    }
}
