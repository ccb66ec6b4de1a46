//! What a pod's containers share: namespaces, the network link, the files of `/etc`.

use std::net::IpAddr;
use std::rc::Rc;

use super::failure;
use crate::agent::Agent;
use crate::pods::model::{Pod, Sandbox};
use crate::pods::spec::{self, etc};
use crate::worker::memory::Memory;

/// Makes the sandbox; `/etc` is written when the address is known.
pub(super) async fn make(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory) {
    let made = sandbox(agent, pod).await;
    memory.sandbox = match made {
        Ok(ip) => Sandbox::Ready { ip },
        Err(why) => {
            let before = match &memory.sandbox {
                Sandbox::Failed(before) => Some(before),
                _ => None,
            };
            let failed = failure(before, "ContainerCreating", why);
            // The network being late is no failure worth an event; the pod goes on when it comes.
            if failed.message != NETWORK_LATE {
                agent.events.note(&pod.object, "", true, "FailedCreatePodSandBox", &failed.message);
            }
            Sandbox::Failed(failed)
        }
    };
}

const NETWORK_LATE: &str = "pod network is not ready: the node has no pod range yet";

async fn sandbox(agent: &Rc<Agent>, pod: &Rc<Pod>) -> Result<Option<IpAddr>, String> {
    let mut wanted = spec::sandbox_kinds(pod);
    if wanted.uts {
        wanted.hostname = etc::host_name(pod, &agent.config.node_name);
    }
    let network = agent.network.borrow().clone();
    if wanted.net && network.is_none() {
        return Err(NETWORK_LATE.into());
    }
    let (id, own_net) = (wanted.id.clone(), wanted.net);
    agent.keeper.sandbox(wanted).await.map_err(|e| format!("make sandbox of pod {}: {e}", pod.key()))?;
    let mut ip = agent.config.host_ip;
    if let (true, Some(network)) = (own_net, network) {
        let netns = agent.keeper.dir().namespace(&id, "net");
        let attached = tokio::task::spawn_blocking(move || network.attach(&id, &netns)).await;
        let address = attached
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("attach pod {} to the network: {e}", pod.key()))?;
        ip = Some(IpAddr::V4(address));
    }
    let config = &agent.config;
    let cluster =
        etc::Cluster { dns: config.dns.map(IpAddr::V4), domain: &config.domain, node_name: &config.node_name };
    etc::write(&config.roots, pod, ip, &cluster)?;
    Ok(if own_net { ip } else { None })
}

/// Takes the pod off the network and ends its namespaces.
pub(super) async fn remove(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory) {
    memory.sandbox = Sandbox::None;
    let id = pod.uid.as_str().to_owned();
    let network = agent.network.borrow().clone();
    if let Some(network) = network {
        let of = id.clone();
        let detached = tokio::task::spawn_blocking(move || network.detach(&of)).await;
        if let Ok(Err(error)) = detached {
            log::warn!("take pod {} off the network: {error}", pod.key());
        }
    }
    if let Err(error) = agent.keeper.remove_sandbox(&id).await {
        log::warn!("remove sandbox of pod {}: {error}", pod.key());
    }
}
