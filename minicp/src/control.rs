//! Scheduler and controllers together: one world under them, one set of tasks.

#[cfg(test)]
mod sim;

use std::rc::Rc;

use tokio::task::JoinSet;

use crate::api::client::Client;
use crate::config::Config;
use crate::controllers::seam::Api;
use crate::controllers::{self, Context, Limits, Settings};
use crate::scheduler;

/// All tasks of scheduler and controllers; dropping it ends them.
pub struct Running {
    _tasks: JoinSet<()>,
}

/// Starts scheduler and controllers on the current `LocalSet`.
pub fn spawn_all(client: &Client, config: &Config) -> Running {
    let limits = Limits {
        node_grace_ms: u64::try_from(config.node_grace_seconds).unwrap_or(40).saturating_mul(1000),
        eviction_seconds: config.unreachable_seconds,
        ..Limits::default()
    };
    let settings = Settings { limits, cluster_cidr: config.cluster_cidr, node_prefix: 24, ca_pem: client.ca_pem() };
    spawn(Rc::new(client.clone()), settings)
}

/// The same on any side of the seam.
pub fn spawn(api: Rc<dyn Api>, settings: Settings) -> Running {
    let cx = Context::new(api, settings);
    let mut tasks = JoinSet::new();
    controllers::spawn(&cx, &mut tasks);
    scheduler::spawn(&cx, &mut tasks);
    Running { _tasks: tasks }
}
