//! Pull: the registry's answer against what the store has.

use crate::platform::Platform;
use crate::registry::{Credentials, Registries};

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
    /// Wait until everything is on the disk. Without it a power cut soon after may cost the pulled layers (never their integrity).
    pub durable: bool,
}

impl Default for PullOptions {
    fn default() -> PullOptions {
        PullOptions {
            platform: Platform::host(),
            credentials: None,
            registries: Registries::default(),
            keep_blobs: false,
            durable: true,
        }
    }
}
