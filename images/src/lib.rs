//! Images on a small machine: a reference becomes verified bytes, layers, and folders that overlayfs stacks. Knows no pods.
//!
//! ```text
//! Reference ── registry (auth, redirects, resume) ── manifest (checked) ── pull::plan ── one thread per layer, at most four:
//!     network ─ sha256 = Digest ─ inflate ─ sha256 = DiffId ─ tar ─ entry policy ─ openat2 writes in tmp/  ── rename ── layers/
//! ```
//!
//! The API blocks; callers with an event loop use a thread. Start reading at [`Store`], then [`store::layout`] (what lies where on
//! disk) and [`layer`] (one pass from network to disk).
#![deny(unsafe_code)]

mod archive;
mod config;
pub mod digest;
mod dns;
mod error;
pub mod layer;
pub mod limits;
pub mod manifest;
pub mod pack;
pub mod platform;
mod progress;
pub mod pull;
mod push;
pub mod reference;
pub mod registry;
pub mod signature;
pub mod store;
mod sys;

pub use config::ImageConfig;
pub use digest::{DiffId, Digest};
pub use error::{Error, PullError};
pub use pack::{Compression, PackLayer, PackSpec};
pub use platform::Platform;
pub use progress::{Cancel, Observer, Progress, Silent};
pub use pull::PullOptions;
pub use reference::Reference;
pub use registry::{Credentials, Registries};
pub use store::{Damage, Image, Layer, Store, Usage};
