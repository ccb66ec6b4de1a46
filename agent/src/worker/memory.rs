//! What a worker remembers between two looks.

use std::collections::BTreeMap;

use mote_images::Image;
use mote_runtime::container::Process;

use super::probes::Probing;
use crate::clock::Moment;
use crate::pods::model::{Failure, ImageState, Instance, Probed, Sandbox, Stopping, Volumes};

/// A service-account token of the pod.
pub(super) struct Token {
    pub(super) text: String,
    /// When a new one is due.
    pub(super) renew_at: Moment,
}

/// What only the worker knows: everything else is read anew from the keeper.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) volumes: Volumes,
    /// When content of volumes has to be looked at again.
    pub(super) refresh_at: Option<Moment>,
    /// By audience (empty = the API server's own).
    pub(super) tokens: BTreeMap<String, Token>,
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
