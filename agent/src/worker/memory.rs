//! What a worker remembers between two looks.

use std::collections::BTreeMap;

use mote_images::Image;
use mote_runtime::container::Process;

use super::probes::Probing;
use super::tokens::TokenCache;
use crate::clock::Moment;
use crate::pods::model::{Failure, ImageState, Instance, Probed, Sandbox, Stopping, Volumes};

/// What only the worker knows: everything else is read anew from the keeper.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) volumes: Volumes,
    pub(super) volumes_at: Moment,
    pub(super) tokens: TokenCache,
    pub(super) sandbox: Sandbox,
    pub(super) images: BTreeMap<String, ImageState>,
    pub(super) found: BTreeMap<String, Image>,
    pub(super) pull_failures: BTreeMap<String, u32>,
    pub(super) starts: BTreeMap<String, Failure>,
    pub(super) stopping: BTreeMap<String, Stopping>,
    pub(super) probed: BTreeMap<String, Probed>,
    pub(super) probing: BTreeMap<String, Probing>,
    /// Runs that never came to be, by container.
    pub(super) stillborn: BTreeMap<String, Vec<Instance>>,
    /// Last words by container id.
    pub(super) messages: BTreeMap<String, String>,
    /// Processes by container id, for exec probes and hooks.
    pub(super) processes: BTreeMap<String, Process>,
    pub(super) first_attempt: BTreeMap<String, u32>,
    /// Waiting reasons already told as events, by container.
    pub(super) backing_off: BTreeMap<String, String>,
}
