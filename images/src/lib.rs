//! Images on a small machine: a reference becomes verified bytes, layers, and folders that overlayfs stacks. Knows no pods.
//!
//! ```text
//! Reference ── registry (auth, redirects, resume) ── manifest (checked) ── pull::plan ── three threads per layer, four layers at most:
//!     network ─ sha256 = Digest ─ inflate ─ sha256 = DiffId ─ tar ─ entry policy ─ openat2 writes in tmp/  ── rename ── layers/
//! ```
//!
//! The API blocks; callers with an event loop use a thread. Start reading at [`Store`], then [`store::layout`] (what lies where on
//! disk), [`store::disk`] (the order of writes that outlives a power cut), [`store::partial`] (how a pull goes on),
//! [`store::gc`] and [`layer`] (one pass from network to disk).
#![deny(unsafe_code)]

mod archive;
mod config;
pub mod digest;
mod dns;
mod error;
mod file;
pub mod layer;
pub mod limits;
mod loan;
pub mod manifest;
pub mod pack;
pub mod platform;
mod progress;
pub mod pull;
mod push;
pub mod reference;
pub mod registry;
mod repair;
pub mod signature;
pub mod store;
mod sys;

pub use archive::ArchiveFormat;
pub use config::ImageConfig;
pub use digest::{DiffId, Digest};
pub use error::{Error, PullError};
pub use loan::Loan;
pub use pack::{Compression, PackLayer, PackSpec};
pub use platform::Platform;
pub use progress::{Cancel, Observer, Progress, Silent};
pub use pull::{BlobPolicy, PullOptions};
pub use reference::Reference;
pub use registry::{Credentials, Registries};
pub use repair::can_fetch;
pub use store::{Damage, GcPolicy, Image, Layer, Part, Space, Store, Swept, Usage};
