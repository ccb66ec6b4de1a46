//! Starting the agent: the parts are made, then its tasks go.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use mote_runtime::keeper::RunDir;
use tokio::sync::Notify;

use crate::agent::{Agent, Config};
use crate::client::Client;
use crate::desired;
use crate::dns;
use crate::instance::Instance;
use crate::keeper::Keeper;
use crate::net::{self, Cidr};
use crate::node::{self, NetSettings};
use crate::proxy::{Proxy, ProxyConfig};

/// What an operator chose.
pub(crate) struct Start<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) node_name: String,
    pub(crate) cgroup_parent: String,
    pub(crate) cluster_cidr: Cidr,
    pub(crate) service_cidr: Cidr,
    pub(crate) domain: String,
    pub(crate) client: Option<Rc<Client>>,
    pub(crate) manifests: Option<PathBuf>,
    pub(crate) node_ip: Option<Ipv4Addr>,
    pub(crate) kubelet_port: u16,
    pub(crate) image_gc: mote_images::GcPolicy,
    pub(crate) image_gc_every: std::time::Duration,
    pub(crate) registries: mote_images::Registries,
}

/// The agent at work.
pub(crate) struct Running {
    pub(crate) agent: Rc<Agent>,
    /// Rung once the node is registered.
    #[cfg_attr(not(feature = "minicp"), allow(dead_code))] // only `up` has something to do then
    pub(crate) registered: Rc<Notify>,
}

/// The version the node reports: the Kubernetes it speaks, then our own.
pub(crate) fn version() -> String {
    format!("v1.36.0-mote.{}", env!("CARGO_PKG_VERSION"))
}

/// Starts everything of a node; returns as soon as it is going.
pub(crate) async fn start(start: Start<'_>) -> Result<Running, String> {
    let instance = start.instance;
    instance.make_run()?;
    instance.remember(&start.cgroup_parent)?;
    let exe = std::env::current_exe().map_err(|e| format!("find our own executable: {e}"))?;
    let keeper = Keeper::open(exe, RunDir::new(&instance.run)).await.map_err(|e| format!("start keeper: {e}"))?;
    let store = instance.data.join("images");
    let images = mote_images::Store::open(&store).map_err(|e| format!("open image store {}: {e}", store.display()))?;
    let node_ip = match start.node_ip {
        Some(ip) => Some(ip),
        None => net::node_address().map_err(|e| format!("find the node's address: {e}"))?,
    };
    let dns_ip = start.service_cidr.nth(10);
    let machine = node::machine(&instance.data);
    let pull = mote_images::PullOptions { registries: start.registries, ..Default::default() };
    let config = Config {
        node_name: start.node_name.clone(),
        roots: instance.roots(),
        cgroup_parent: start.cgroup_parent,
        domain: start.domain.clone(),
        dns: dns_ip,
        host_ip: Some(IpAddr::V4(node_ip.unwrap_or(Ipv4Addr::LOCALHOST))),
        cpu_milli: machine.cpu_milli,
        memory_bytes: machine.memory_bytes,
        pull,
    };
    let agent = Agent::new(config, start.client.clone(), keeper, images, crate::worker::begin);
    let settings = NetSettings {
        tag: instance.tag,
        cluster_cidr: start.cluster_cidr,
        service_cidr: start.service_cidr,
        dns: dns_ip,
        memory: instance.data.join("agent").join("pod-cidr"),
    };
    let opened = on_network(&agent, &start.domain, &settings, start.client.clone());
    let registered = Rc::new(Notify::new());
    let heard = Rc::new(Notify::new());
    match (node::remembered(&settings), &start.client) {
        (Some(cidr), _) => {
            node::open_network(&agent, &settings, cidr)?;
            opened(cidr);
        }
        (None, None) => {
            let cidr = Cidr::new(start.cluster_cidr.base(), start.cluster_cidr.prefix_len().max(24));
            node::open_network(&agent, &settings, cidr)?;
            opened(cidr);
        }
        (None, Some(_)) => {}
    }
    if let Some(client) = &start.client {
        let of_node = node::Settings::new(start.kubelet_port, &version());
        tokio::task::spawn_local(node::keep(agent.clone(), client.clone(), of_node, registered.clone()));
        tokio::task::spawn_local(node::follow(agent.clone(), client.clone(), settings, opened));
        tokio::task::spawn_local(desired::api::follow(agent.clone(), client.clone(), heard.clone()));
    } else {
        heard.notify_one();
        registered.notify_one();
    }
    match start.manifests {
        Some(folder) => {
            tokio::task::spawn_local(desired::manifests::follow(agent.clone(), folder));
        }
        None => agent.statics_known.set(true),
    }
    tokio::task::spawn_local(sweep(agent.clone(), heard));
    tokio::task::spawn_local(crate::image_gc::keep(agent.clone(), start.image_gc, start.image_gc_every));
    Ok(Running { agent, registered })
}

/// Once every source has spoken, what nobody wants goes.
async fn sweep(agent: Rc<Agent>, heard: Rc<Notify>) {
    heard.notified().await;
    // The manifest folder is read by a task that has been spawned before; let it run.
    for _ in 0..1000 {
        if agent.statics_known.get() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    agent.sweep();
}

/// What begins when the pod network opens: the service proxy and the cluster DNS. The returned function may be called again and again.
fn on_network(agent: &Rc<Agent>, domain: &str, settings: &NetSettings, client: Option<Rc<Client>>) -> Rc<dyn Fn(Cidr)> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    if let Some(client) = client {
        tokio::task::spawn_local(crate::services::follow(agent.clone(), client, receiver));
    }
    let (agent, domain, settings) = (agent.clone(), domain.to_owned(), settings.clone());
    let done = std::cell::Cell::new(false);
    Rc::new(move |node_cidr| {
        let network = agent.network.borrow().clone();
        let Some(network) = network.filter(|_| !done.replace(true)) else { return };
        let proxy = Proxy::new(ProxyConfig {
            tag: settings.tag,
            node_name: agent.config.node_name.clone(),
            node_cidr,
            gateway: network.gateway(),
            cluster_cidr: settings.cluster_cidr,
            service_cidr: settings.service_cidr,
        });
        let _ = sender.try_send(proxy); // without a control plane nobody takes it
        let listen = settings.dns.map(|ip| SocketAddr::new(IpAddr::V4(ip), 53)).into_iter().collect();
        let config = dns::DnsConfig { listen, domain: domain.clone(), upstreams: Vec::new() };
        let services = agent.services.clone();
        tokio::task::spawn_local(async move {
            match dns::Server::start(config, services).await {
                Ok(_server) => std::future::pending().await,
                Err(error) => log::error!("{error}; pods have no cluster DNS"),
            }
        });
    })
}
