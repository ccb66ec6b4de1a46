//! Scheduler and controllers together: one world under them, one set of tasks; on a shared store only while this server leads.

#[cfg(test)]
pub(crate) mod sim;

use std::rc::Rc;

use tokio::task::JoinSet;

use crate::api::client::Client;
use crate::config::Config;
use crate::controllers::seam::Api;
use crate::controllers::{self, Context, Limits, Settings};
use crate::leader::Candidate;
use crate::scheduler;

/// All tasks of scheduler and controllers; dropping it ends them.
pub struct Running {
    _tasks: JoinSet<()>,
}

/// Scheduler and controllers of a server, until they are ended or dropped.
pub(crate) enum Work {
    /// Nobody else has this store.
    Alone(Running),
    /// When it is this server's turn.
    Elected(Candidate),
}

impl Work {
    /// Starts them on the current `LocalSet`. `me` names this server among all that share its store.
    pub(crate) fn start(client: &Client, config: &Config, me: String) -> Work {
        let limits = Limits {
            node_grace_ms: u64::try_from(config.node_grace_seconds).unwrap_or(40).saturating_mul(1000),
            eviction_seconds: config.unreachable_seconds,
            ..Limits::default()
        };
        let settings = Settings { limits, cluster_cidr: config.cluster_cidr, node_prefix: 24, ca_pem: client.ca_pem() };
        let api: Rc<dyn Api> = Rc::new(client.clone());
        match config.etcd {
            None => Work::Alone(spawn(api, settings)),
            Some(_) => {
                let start = move |api| spawn(api, settings.clone());
                Work::Elected(Candidate::spawn(api, me.into(), config.election, start))
            }
        }
    }
    /// When it returns nothing of them runs, and another server may begin.
    pub(crate) async fn end(self) {
        match self {
            Work::Alone(running) => drop(running),
            Work::Elected(candidate) => candidate.end().await,
        }
    }
}

/// Starts them on any side of the seam, on the current `LocalSet`.
pub fn spawn(api: Rc<dyn Api>, settings: Settings) -> Running {
    let cx = Context::new(api, settings);
    let mut tasks = JoinSet::new();
    controllers::spawn(&cx, &mut tasks);
    scheduler::spawn(&cx, &mut tasks);
    Running { _tasks: tasks }
}
