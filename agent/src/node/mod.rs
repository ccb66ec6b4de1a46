//! This node as the API sees it: registered, leased every ten seconds, its status said when it changes (and every five minutes). Also
//! its view of the other nodes: their pod ranges become routes.

mod facts;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mote_api::meta;
use mote_api::tree::{Map, Value, json, list_at, str_at};

pub use facts::{Machine, machine};

use crate::agent::Agent;
use crate::client::reflect::{Change, Reflector};
use crate::client::{Client, Content, Error, path};
use crate::clock::Moment;
use crate::net::{Cidr, NetConfig, Network};

/// Between two renewals of the lease.
const LEASE_EVERY: Duration = Duration::from_secs(10);
/// How long the lease holds.
const LEASE_SECONDS: u64 = 40;
/// A status that did not change is said this often.
const STATUS_EVERY: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_millis(500);
/// Between two statuses, however often they are asked for.
const SAY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What of the node is decided when it starts.
pub struct Settings {
    /// Port of the kubelet API, 0 for none.
    pub kubelet_port: u16,
    /// What the machine and its system are (`status.nodeInfo`): read once.
    pub info: Value,
}

impl Settings {
    /// `version`: what the node says that it is.
    pub fn new(kubelet_port: u16, version: &str) -> Settings {
        Settings { kubelet_port, info: facts::node_info(version) }
    }
}

/// Keeps the node registered for ever; rings `registered` once it is.
pub async fn keep(agent: Rc<Agent>, client: Rc<Client>, settings: Settings, registered: Rc<tokio::sync::Notify>) {
    let mut pause = RETRY;
    while let Err(error) = register(&agent, &client, &settings).await {
        log::warn!("register node {}: {error}; trying on", agent.config.node_name);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
    registered.notify_one();
    let mut said = Value::Null;
    let mut said_at = Moment::default();
    let mut lease = None;
    loop {
        // The lease first: a status that comes before it may look like that of a node that is long gone.
        if let Err(error) = renew(&agent, &client, &mut lease).await {
            log::warn!("renew lease of node {}: {error}", agent.config.node_name);
        }
        let now = Moment::now();
        let network = agent.network.borrow().is_some();
        let status = status(&agent, &settings, network, &said, now);
        if !same(&said, &status) || now.since(said_at) >= STATUS_EVERY {
            match client
                .patch(
                    &format!("{}/status", path::node(&agent.config.node_name)),
                    Content::MergePatch,
                    &json!({"status": status}),
                )
                .await
            {
                Ok(_) => (said, said_at) = (status, now),
                Err(error) if error.is_not_found() => {
                    log::warn!("node {} was deleted: registers again", agent.config.node_name);
                    if let Err(error) = register(&agent, &client, &settings).await {
                        log::warn!("register node {}: {error}", agent.config.node_name);
                    }
                    lease = None;
                }
                Err(error) => log::warn!("patch status of node {}: {error}", agent.config.node_name),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LEASE_EVERY) => {}
            () = agent.say_node.notified() => {
                // Never faster than that, whoever rings.
                tokio::time::sleep(SAY_PAUSE.saturating_sub(Moment::now().since(said_at))).await;
                said_at = Moment::default();
            }
        }
    }
}

fn labels(node_name: &str, arch: &str) -> Value {
    json!({
        "kubernetes.io/hostname": node_name, "kubernetes.io/arch": arch, "kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch, "beta.kubernetes.io/os": "linux",
    })
}

async fn register(agent: &Agent, client: &Client, settings: &Settings) -> Result<(), Error> {
    let name = &agent.config.node_name;
    let labels = labels(name, facts::go_arch());
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {},
        "status": status(agent, settings, false, &Value::Null, Moment::now())});
    match client.create("/api/v1/nodes", &node).await {
        Err(error) if error.is_conflict() => client
            .patch(&path::node(name), Content::MergePatch, &json!({"metadata": {"labels": labels}}))
            .await
            .map(|_| ()),
        other => other.map(|_| ()),
    }
}

async fn renew(agent: &Agent, client: &Client, lease: &mut Option<Value>) -> Result<(), Error> {
    let name = &agent.config.node_name;
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": Moment::now().rfc3339_micro()});
    if lease.is_some() {
        match client.patch(&path::lease(name), Content::MergePatch, &json!({"spec": spec})).await {
            Err(error) if error.is_not_found() => *lease = None,
            other => return other.map(|_| ()),
        }
    }
    let uid = client.get(&path::node(name)).await.map(|node| meta::uid(&node).to_owned())?;
    let wanted = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]},
        "spec": spec});
    let collection = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    match client.create(collection, &wanted).await {
        Err(error) if error.is_conflict() => {
            client.patch(&path::lease(name), Content::MergePatch, &json!({"spec": spec})).await?;
        }
        other => {
            other?;
        }
    }
    *lease = Some(wanted);
    Ok(())
}

/// The node's status. Transition times are kept from the one said before.
fn status(agent: &Agent, settings: &Settings, network: bool, said: &Value, now: Moment) -> Value {
    let config = &agent.config;
    let machine = machine(&config.roots.data);
    let pressure = facts::pressure(&machine);
    let mut addresses = Vec::new();
    if let Some(ip) = config.host_ip {
        addresses.push(json!({"type": "InternalIP", "address": ip.to_string()}));
    }
    addresses.push(json!({"type": "Hostname", "address": config.node_name}));
    let resources = |memory: u64, disk: u64| {
        json!({"cpu": quantity_milli(config.cpu_milli), "memory": format!("{}Ki", memory / 1024), "pods": "110",
            "ephemeral-storage": format!("{}Ki", disk / 1024)})
    };
    let ready = match network {
        true => (true, "KubeletReady", "mote is posting ready status"),
        false => (false, "KubeletNotReady", "the pod network is not ready: no pod range yet"),
    };
    let conditions = [
        (
            "MemoryPressure",
            pressure.memory,
            pressure_words(
                pressure.memory,
                "KubeletHasInsufficientMemory",
                "KubeletHasSufficientMemory",
                "mote has insufficient memory available",
                "mote has sufficient memory available",
            ),
        ),
        (
            "DiskPressure",
            pressure.disk,
            pressure_words(
                pressure.disk,
                "KubeletHasDiskPressure",
                "KubeletHasNoDiskPressure",
                "mote has disk pressure",
                "mote has no disk pressure",
            ),
        ),
        (
            "PIDPressure",
            pressure.pids,
            pressure_words(
                pressure.pids,
                "KubeletHasInsufficientPID",
                "KubeletHasSufficientPID",
                "mote has insufficient PID available",
                "mote has sufficient PID available",
            ),
        ),
        ("Ready", ready.0, (ready.1, ready.2)),
    ];
    let before = list_at(said, &["conditions"]);
    let conditions: Vec<Value> = conditions
        .into_iter()
        .map(|(kind, yes, (reason, message))| {
            let word = if yes { "True" } else { "False" };
            let same = before.iter().find(|c| str_at(c, &["type"]) == kind && str_at(c, &["status"]) == word);
            let since = same.map_or_else(|| now.rfc3339(), |c| str_at(c, &["lastTransitionTime"]).to_owned());
            json!({"type": kind, "status": word, "reason": reason, "message": message,
                "lastHeartbeatTime": now.rfc3339(), "lastTransitionTime": since})
        })
        .collect();
    let mut status = Map::new();
    status.insert("addresses".into(), addresses.into());
    status.insert("capacity".into(), resources(machine.memory_bytes, machine.disk_bytes));
    status.insert(
        "allocatable".into(),
        resources(machine.memory_bytes.saturating_sub(facts::MEMORY_RESERVED_BYTES), machine.disk_bytes / 10 * 9),
    );
    status.insert("conditions".into(), conditions.into());
    status.insert("daemonEndpoints".into(), json!({"kubeletEndpoint": {"Port": settings.kubelet_port}}));
    status.insert("nodeInfo".into(), settings.info.clone());
    Value::Object(status)
}

fn pressure_words(
    yes: bool,
    bad: &'static str,
    good: &'static str,
    bad_text: &'static str,
    good_text: &'static str,
) -> (&'static str, &'static str) {
    if yes { (bad, bad_text) } else { (good, good_text) }
}

fn quantity_milli(milli: u64) -> String {
    if milli.is_multiple_of(1000) { (milli / 1000).to_string() } else { format!("{milli}m") }
}

/// Whether two statuses say the same but for the heartbeat (and free space that moved a little).
fn same(a: &Value, b: &Value) -> bool {
    let essence = |status: &Value| {
        let mut status = status.clone();
        for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(map) = condition.as_object_mut() {
                map.remove("lastHeartbeatTime");
            }
        }
        status
    };
    essence(a) == essence(b)
}

/// What the pod network of this node needs to know beside its range.
#[derive(Clone)]
pub struct NetSettings {
    /// Names everything the instance makes.
    pub tag: crate::net::Tag,
    /// All pods.
    pub cluster_cidr: Cidr,
    /// All cluster IPs.
    pub service_cidr: Cidr,
    /// The cluster's DNS address.
    pub dns: Option<Ipv4Addr>,
    /// Where the range is remembered, so that pods come up while the API server is away.
    pub memory: PathBuf,
}

/// Opens the pod network with this range, if it is not open yet.
pub fn open_network(agent: &Agent, settings: &NetSettings, node_cidr: Cidr) -> Result<Arc<Network>, String> {
    if let Some(network) = agent.network.borrow().as_ref() {
        return Ok(network.clone());
    }
    let config = NetConfig {
        tag: settings.tag,
        node_cidr,
        cluster_cidr: settings.cluster_cidr,
        service_cidr: settings.service_cidr,
        dns: settings.dns,
        mtu: None,
        masquerade: true,
    };
    let network = Arc::new(Network::open(config).map_err(|e| format!("open pod network {node_cidr}: {e}"))?);
    if let Some(folder) = settings.memory.parent() {
        let _ = std::fs::create_dir_all(folder);
    }
    if let Err(error) = std::fs::write(&settings.memory, format!("{node_cidr}\n")) {
        log::warn!("remember pod range in {}: {error}", settings.memory.display());
    }
    agent.set_network(network.clone());
    Ok(network)
}

/// The range of the last run, if one is remembered.
pub fn remembered(settings: &NetSettings) -> Option<Cidr> {
    std::fs::read_to_string(&settings.memory).ok()?.trim().parse().ok()
}

/// Follows all nodes for ever: this one's pod range opens the network, the others' become routes.
pub async fn follow(agent: Rc<Agent>, client: Rc<Client>, settings: NetSettings, opened: Rc<dyn Fn(Cidr)>) {
    let mut reflector = Reflector::new(client, "/api/v1/nodes", "");
    let mut others: BTreeMap<String, (Cidr, Ipv4Addr)> = BTreeMap::new();
    let mut routes = Vec::new();
    loop {
        let nodes = match reflector.next().await {
            Change::All(nodes) => {
                others.clear();
                nodes
            }
            Change::Put(node) => vec![node],
            Change::Gone(node) => {
                others.remove(meta::name(&node));
                Vec::new()
            }
        };
        for node in &nodes {
            let cidr: Option<Cidr> = str_at(node, &["spec", "podCIDR"]).parse().ok();
            let Some(cidr) = cidr else { continue };
            if meta::name(node) == agent.config.node_name {
                match open_network(&agent, &settings, cidr) {
                    Ok(_) => opened(cidr),
                    Err(why) => log::error!("{why}"),
                }
                let mut conditions = list_at(node, &["status", "conditions"]).iter();
                if conditions.any(|c| str_at(c, &["type"]) == "Ready" && str_at(c, &["status"]) == "Unknown") {
                    agent.say_node.notify_one();
                }
            } else if let Some(address) = address_of(node) {
                others.insert(meta::name(node).to_owned(), (cidr, address));
            }
        }
        let wanted: Vec<(Cidr, Ipv4Addr)> = others.values().copied().collect();
        let network = agent.network.borrow().clone();
        if let Some(network) = network.filter(|_| wanted != routes) {
            match network.set_routes(&wanted) {
                Ok(()) => routes = wanted,
                Err(error) => log::error!("set routes to other nodes: {error}"),
            }
        }
    }
}

fn address_of(node: &Value) -> Option<Ipv4Addr> {
    let addresses = list_at(node, &["status", "addresses"]);
    addresses
        .iter()
        .find(|entry| str_at(entry, &["type"]) == "InternalIP")
        .and_then(|entry| str_at(entry, &["address"]).parse().ok())
}
