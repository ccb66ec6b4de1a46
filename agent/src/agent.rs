//! What all tasks of the node agent share, and the table of its workers.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use mote_api::tree::{Value, list_at, str_at};
use tokio::sync::Notify;

use crate::client::Client;
use crate::events::Events;
use crate::keeper::Keeper;
use crate::net::Network;
use crate::objects::Objects;
use crate::pods::dirs::Roots;
use crate::pods::model::{Pod, PodUid, Source};
use crate::pods::slot::{News, Slot};
use crate::proxy::Services;

/// What an operator chose, and what the machine is.
pub struct Config {
    /// The node's name.
    pub node_name: String,
    /// Where things lie.
    pub roots: Roots,
    /// Parent of all pods' control groups, relative to each hierarchy.
    pub cgroup_parent: String,
    /// `cluster.local`
    pub domain: String,
    /// The cluster's DNS address.
    pub dns: Option<Ipv4Addr>,
    /// The node's address.
    pub host_ip: Option<IpAddr>,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// How images are pulled.
    pub pull: mote_images::PullOptions,
}

/// Environment variables by namespace and name of their Service.
pub type ServiceVariables = BTreeMap<(String, String), Vec<(String, String)>>;

/// Begins the worker of a new pod. Given from outside: workers know the agent, it knows their letter boxes only.
pub type Begin = fn(Rc<Agent>, Rc<Slot>);

/// The agent of one node.
pub struct Agent {
    /// What does not change.
    pub config: Config,
    /// The API server; none on a node of its own.
    pub client: Option<Rc<Client>>,
    /// Who holds the containers.
    pub keeper: Rc<Keeper>,
    /// The images.
    pub images: mote_images::Store,
    /// The pod network, once the node knows its range.
    pub network: RefCell<Option<Arc<Network>>>,
    /// Where events go.
    pub events: Events,
    /// ConfigMaps and Secrets.
    pub objects: Objects,
    /// Services and endpoints, as the proxy and the DNS server read them.
    pub services: Rc<RefCell<Services>>,
    /// `NAME_SERVICE_HOST` and the like, by namespace and service.
    pub service_env: RefCell<ServiceVariables>,
    workers: RefCell<BTreeMap<PodUid, Rc<Slot>>>,
    begin: Begin,
    /// Rung when a worker has ended.
    pub ended: Notify,
    /// The last status said of each pod, for `/pods`.
    pub said: RefCell<BTreeMap<PodUid, Rc<Value>>>,
    /// Hashes of the mirror pods the API server has, by namespace and name.
    pub mirrors: RefCell<BTreeMap<(String, String), String>>,
    /// Rung when the node's status has to be said at once: it changed, or the control plane holds us for lost.
    pub say_node: Notify,
    /// The manifest folder has been read (or there is none).
    pub statics_known: Cell<bool>,
    /// No new work: the agent is going down.
    pub closing: Cell<bool>,
}

impl Agent {
    /// Puts the parts together; starts nothing but listens to the keeper.
    pub fn new(
        config: Config,
        client: Option<Rc<Client>>,
        keeper: Rc<Keeper>,
        images: mote_images::Store,
        begin: Begin,
    ) -> Rc<Agent> {
        let events = Events::new(&config.node_name, client.clone());
        let agent = Rc::new(Agent {
            config,
            client,
            keeper,
            images,
            network: RefCell::new(None),
            events,
            objects: Objects::default(),
            services: Rc::default(),
            service_env: RefCell::default(),
            workers: RefCell::default(),
            begin,
            ended: Notify::new(),
            said: RefCell::default(),
            mirrors: RefCell::default(),
            say_node: Notify::new(),
            statics_known: Cell::new(false),
            closing: Cell::new(false),
        });
        let weak = Rc::downgrade(&agent);
        agent.keeper.listen(Rc::new(move |uid| {
            if let Some(agent) = weak.upgrade() {
                match uid {
                    Some(uid) => agent.wake(uid),
                    None => agent.wake_all(),
                }
            }
        }));
        agent
    }

    /// Looks again at one pod.
    pub fn wake(&self, uid: &str) {
        if let Some(slot) = PodUid::new(uid).and_then(|uid| self.workers.borrow().get(&uid).cloned()) {
            slot.wake();
        }
    }

    /// Looks again at every pod.
    pub fn wake_all(&self) {
        for slot in self.workers.borrow().values() {
            slot.wake();
        }
    }

    /// The pod network opened: pods that waited for it go on.
    pub fn set_network(&self, network: Arc<Network>) {
        *self.network.borrow_mut() = Some(network);
        self.say_node.notify_one();
        for slot in self.workers.borrow().values() {
            slot.tell(News::Network);
        }
    }

    /// A pod is wanted, or wanted differently. The error says why it cannot be read.
    pub fn want(self: &Rc<Self>, object: Rc<Value>, source: Source) -> Result<(), String> {
        self.want_pod(Pod::read(object, source)?);
        Ok(())
    }

    fn want_pod(self: &Rc<Self>, pod: Pod) {
        if self.closing.get() {
            return;
        }
        let uid = pod.uid.clone();
        let known = self.workers.borrow().get(&uid).cloned();
        match known {
            Some(slot) => slot.want(pod),
            None => {
                let slot = Slot::new(pod);
                self.workers.borrow_mut().insert(uid, slot.clone());
                (self.begin)(self.clone(), slot);
            }
        }
    }

    /// Nobody wants the pod any more.
    pub fn unwant(&self, uid: &str) {
        if let Some(slot) = PodUid::new(uid).and_then(|uid| self.workers.borrow().get(&uid).cloned()) {
            slot.vanish();
        }
    }

    /// All of one source: those of it that are not in `objects` are no longer wanted.
    pub fn want_all(self: &Rc<Self>, objects: Vec<Value>, source: Source) {
        let wanted: BTreeSet<String> =
            objects.iter().map(|object| str_at(object, &["metadata", "uid"]).to_owned()).collect();
        let known: Vec<(PodUid, Rc<Slot>)> =
            self.workers.borrow().iter().map(|(uid, slot)| (uid.clone(), slot.clone())).collect();
        for (uid, slot) in known {
            if slot.source() == source && !wanted.contains(uid.as_str()) {
                slot.vanish();
            }
        }
        for object in objects {
            let name =
                format!("{}/{}", str_at(&object, &["metadata", "namespace"]), str_at(&object, &["metadata", "name"]));
            if let Err(why) = self.want(Rc::new(object), source) {
                log::error!("read pod {name}: {why}");
            }
        }
    }

    /// What the keeper holds and the disk keeps of pods that nobody wants goes away. Only to be called when all sources have spoken.
    pub fn sweep(self: &Rc<Self>) {
        let known: BTreeSet<String> = self.workers.borrow().keys().map(|uid| uid.as_str().to_owned()).collect();
        let orphan = |uid: &str| !known.contains(uid);
        let containers = self.keeper.containers();
        for uid in self.keeper.pods().into_iter().filter(|uid| orphan(uid)) {
            let of_pod = containers.iter().find(|listed| crate::keeper::label(listed, crate::keeper::LABEL_UID) == uid);
            let label = |name: &str| of_pod.map_or("", |listed| crate::keeper::label(listed, name)).to_owned();
            let names: Vec<Value> = containers
                .iter()
                .filter(|listed| crate::keeper::label(listed, crate::keeper::LABEL_UID) == uid)
                .map(|listed| crate::keeper::label(listed, "container"))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .map(|name| serde_json::json!({"name": name, "image": "gone"}))
                .collect();
            let object = serde_json::json!({
                "metadata": {"name": label("pod"), "namespace": label("namespace"), "uid": uid},
                "spec": {"containers": names, "terminationGracePeriodSeconds": label("grace").parse().unwrap_or(30u64)}});
            match Pod::read(Rc::new(object), Source::Nobody) {
                Ok(mut pod) => {
                    log::info!("pod {} is no longer wanted: ends", pod.key());
                    pod.deleting = Some(pod.grace);
                    self.want_pod(pod);
                }
                Err(why) => log::error!("end pod {uid} that nobody wants: {why}"),
            }
        }
        let roots = &self.config.roots;
        for folder in [roots.data.join("pods"), roots.run.join("pods")] {
            for name in names_in(&folder).into_iter().filter(|name| orphan(name) && !self.keeper.pods().contains(name))
            {
                if let Some(Err(error)) = PodUid::new(&name).map(|uid| crate::pods::volumes::remove(roots, &uid)) {
                    log::warn!("{error}");
                }
            }
        }
        for name in names_in(&roots.data.join("logs")) {
            let uid = name.rsplit('_').next().unwrap_or_default();
            if orphan(uid) && !self.keeper.pods().contains(uid) {
                let _ = crate::pods::dirs::remove_tree(&roots.data.join("logs").join(&name));
            }
        }
        let held: BTreeSet<String> = containers.into_iter().map(|listed| listed.id).collect();
        for id in names_in(&roots.data.join("containers")).into_iter().filter(|id| !held.contains(id)) {
            let _ = crate::pods::dirs::remove_tree(&roots.container(&id));
        }
        for owner in self.images.leases().unwrap_or_default() {
            if !held.contains(&owner) {
                let _ = self.images.release(&owner);
            }
        }
        if let Some(network) = self.network.borrow().as_ref() {
            for (id, _) in network.attached().unwrap_or_default() {
                if orphan(&id) && !self.keeper.has_sandbox(&id) {
                    let _ = network.detach(&id);
                }
            }
        }
    }

    /// A worker has ended: its pod is gone from this node.
    pub fn forget(&self, uid: &PodUid) {
        self.workers.borrow_mut().remove(uid);
        self.said.borrow_mut().remove(uid);
        self.ended.notify_waiters();
        self.ended.notify_one();
    }

    /// How many pods have a worker.
    pub fn pods(&self) -> usize {
        self.workers.borrow().len()
    }

    /// The wanted pod of this namespace and name (the one that is not ending, if two follow each other).
    pub fn find(&self, namespace: &str, name: &str) -> Option<Rc<Pod>> {
        let workers = self.workers.borrow();
        let mut found: Vec<Rc<Pod>> = workers
            .values()
            .map(|slot| slot.pod())
            .filter(|pod| pod.namespace == namespace && pod.name == name)
            .collect();
        found.sort_by_key(|pod| pod.deleting.is_some());
        found.into_iter().next()
    }

    /// The pods of one source.
    pub fn of_source(&self, source: Source) -> Vec<Rc<Pod>> {
        self.workers.borrow().values().filter(|slot| slot.source() == source).map(|slot| slot.pod()).collect()
    }

    /// Every pod with its last status.
    pub fn list(&self) -> Vec<Value> {
        let said = self.said.borrow();
        self.workers
            .borrow()
            .iter()
            .map(|(uid, slot)| {
                let mut object = (*slot.pod().object).clone();
                if let (Some(map), Some(status)) = (object.as_object_mut(), said.get(uid)) {
                    map.insert("status".into(), (**status).clone());
                }
                object
            })
            .collect()
    }

    /// Service variables of a namespace (with those of `default/kubernetes`, which every pod gets).
    pub fn service_variables(&self, namespace: &str, all: bool) -> Vec<(String, String)> {
        let env = self.service_env.borrow();
        let mut out = Vec::new();
        for ((of, name), variables) in env.iter() {
            if (of == "default" && name == "kubernetes") || (all && of == namespace) {
                out.extend(variables.iter().cloned());
            }
        }
        out
    }
}

/// The variables of one Service, Docker-link style, as the kubelet makes them.
pub fn variables_of(service: &Value) -> Vec<(String, String)> {
    let ip = str_at(service, &["spec", "clusterIP"]);
    let ports = list_at(service, &["spec", "ports"]);
    let Some(first) = ports.first().filter(|_| !ip.is_empty() && ip != "None") else { return Vec::new() };
    let name = str_at(service, &["metadata", "name"]).to_uppercase().replace('-', "_");
    let number = |port: &Value| port.get("port").and_then(Value::as_i64).unwrap_or(0).to_string();
    let mut out =
        vec![(format!("{name}_SERVICE_HOST"), ip.to_owned()), (format!("{name}_SERVICE_PORT"), number(first))];
    for port in ports {
        let port_name = str_at(port, &["name"]).to_uppercase().replace('-', "_");
        if !port_name.is_empty() {
            out.push((format!("{name}_SERVICE_PORT_{port_name}"), number(port)));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = match str_at(port, &["protocol"]) {
            "" => "TCP",
            protocol => protocol,
        };
        let (n, low) = (number(port), protocol.to_lowercase());
        let url = format!("{low}://{ip}:{n}");
        if index == 0 {
            out.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{n}_{protocol}");
        out.push((prefix.clone(), url));
        out.push((format!("{prefix}_PROTO"), low));
        out.push((format!("{prefix}_PORT"), n));
        out.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    out
}

fn names_in(folder: &std::path::Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_variables_are_the_kubelets() {
        let service = serde_json::json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": "10.43.0.9",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}});
        let text: Vec<String> = variables_of(&service).into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text.join(" "),
            "MY_DB_SERVICE_HOST=10.43.0.9 MY_DB_SERVICE_PORT=5432 MY_DB_SERVICE_PORT_SQL=5432 MY_DB_PORT=tcp://10.43.0.9:5432 \
             MY_DB_PORT_5432_TCP=tcp://10.43.0.9:5432 MY_DB_PORT_5432_TCP_PROTO=tcp MY_DB_PORT_5432_TCP_PORT=5432 \
             MY_DB_PORT_5432_TCP_ADDR=10.43.0.9"
        );
        let headless =
            serde_json::json!({"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}});
        assert!(variables_of(&headless).is_empty());
    }
}
