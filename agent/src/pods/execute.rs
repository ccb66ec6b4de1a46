//! Doing what the plan says, and remembering what came of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::{Value, at, i64_at, json, list_at, str_at};
use mote_images::{Cancel, Image, Reference};
use mote_runtime::container::{Container, Process, Rootfs};

use super::model::{
    Exit, Failure, ImageState, Instance, Pod, PullPolicy, Sandbox, Source, State, Stopping, Volumes, Wanted,
};
use super::plan::{Action, short};
use super::spec::env::{Refs, Self_, referred};
use super::spec::{self, etc};
use super::worker::{Memory, News, Slot, field_of};
use crate::agent::Agent;
use crate::clock::Moment;
use crate::keeper;
use crate::probes;
use crate::volumes::{self, Content, Tokens};

/// Takes a piece of news into the memory.
pub fn hear(memory: &mut Memory, news: News) {
    match news {
        News::Image { container, result: Ok(image) } => {
            memory.pull_failures.remove(&container);
            memory.images.insert(container.clone(), ImageState::Ready { at: Moment::now() });
            memory.found.insert(container, *image);
        }
        News::Image { container, result: Err((reason, message)) } => {
            let times = memory.pull_failures.entry(container.clone()).or_insert(0);
            *times = times.saturating_add(1);
            let failure = Failure { reason, message, at: Moment::now(), times: *times };
            memory.images.insert(container, ImageState::Failed(failure));
        }
        News::Probed { id, probed } => {
            memory.probed.insert(id, probed);
        }
        News::Network => {
            if matches!(memory.sandbox, Sandbox::Failed(_)) {
                memory.sandbox = Sandbox::None;
            }
        }
    }
}

fn failure(before: Option<&Failure>, reason: &'static str, message: String) -> Failure {
    Failure { reason, message, at: Moment::now(), times: before.map_or(0, |before| before.times).saturating_add(1) }
}

/// Does one action of the plan.
pub async fn execute(agent: &Rc<Agent>, slot: &Rc<Slot>, pod: &Rc<Pod>, memory: &mut Memory, action: Action) {
    match action {
        Action::MakeVolumes => make_volumes(agent, pod, memory).await,
        Action::MakeSandbox => make_sandbox(agent, pod, memory).await,
        Action::Pull { container } => {
            if let Some(wanted) = pod.container(&container) {
                memory.images.insert(container.clone(), ImageState::Pulling);
                tokio::task::spawn_local(pull(
                    agent.clone(),
                    slot.clone(),
                    pod.clone(),
                    container,
                    wanted.image.clone(),
                    wanted.pull,
                ));
            }
        }
        Action::Start { container, attempt, crashes } => start(agent, pod, memory, &container, attempt, crashes).await,
        Action::Stop { container, id, grace, why } => {
            stop(agent, slot, pod, memory, &container, &id, grace, &why).await
        }
        Action::Kill { id } => {
            if let Some(stopping) = memory.stopping.get_mut(&id) {
                stopping.killed = true;
            }
            if let Err(error) = agent.keeper.signal(&id, libc::SIGKILL, true).await {
                log::warn!("kill container {id}: {error}");
            }
        }
        Action::Remove { id, attempt, container } => {
            remove_run(agent, memory, &container, &id).await;
            let log = agent.config.roots.log(pod, &container, attempt);
            remove_logs(&log);
            let _ = std::fs::remove_file(agent.config.roots.termination_log(&pod.uid, &container, attempt));
        }
        Action::RemoveSandbox => remove_sandbox(agent, pod, memory).await,
        Action::RemoveAll => remove_all(agent, pod, memory).await,
    }
}

/// The ConfigMaps and Secrets a pod refers to. An unreachable server is an error, a missing object is not.
async fn fetch(agent: &Agent, pod: &Pod) -> Result<Refs, String> {
    let (config_maps, secrets) = referred(&pod.object);
    let mut refs = Refs::default();
    if config_maps.is_empty() && secrets.is_empty() {
        return Ok(refs);
    }
    let Some(client) = agent.client.as_ref().filter(|_| pod.source == Source::Api) else {
        return Err("ConfigMaps and Secrets are for pods of an API server".into());
    };
    for (resource, names, into) in
        [("configmaps", config_maps, &mut refs.config_maps), ("secrets", secrets, &mut refs.secrets)]
    {
        for name in names {
            let target = crate::client::path::core(&pod.namespace, resource, &name);
            let object = match client.get(&target).await {
                Ok(object) => Some(object),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(format!("get {resource} {}/{name}: {error}", pod.namespace)),
            };
            into.insert(name, object);
        }
    }
    Ok(refs)
}

/// Tokens of projected volumes, by audience. A server without token requests gives none, and the file is left out.
async fn tokens(agent: &Agent, pod: &Pod) -> Tokens {
    let mut out = Tokens::new();
    let Some(client) = agent.client.as_ref().filter(|_| pod.source == Source::Api) else { return out };
    for volume in list_at(&pod.object, &["spec", "volumes"]) {
        for source in list_at(volume, &["projected", "sources"]) {
            let Some(wanted) = at(source, &["serviceAccountToken"]) else { continue };
            let audience = str_at(wanted, &["audience"]);
            let account = match str_at(&pod.object, &["spec", "serviceAccountName"]) {
                "" => "default",
                name => name,
            };
            let target = format!("{}/token", crate::client::path::core(&pod.namespace, "serviceaccounts", account));
            let audiences = if audience.is_empty() { json!([]) } else { json!([audience]) };
            let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
                "audiences": audiences,
                "expirationSeconds": i64_at(wanted, &["expirationSeconds"]).unwrap_or(3600),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid.as_str()}}});
            match client.create(&target, &request).await {
                Ok(answer) => {
                    out.insert(audience.to_owned(), str_at(&answer, &["status", "token"]).to_owned());
                }
                Err(error) => log::debug!("request token for pod {}: {error}", pod.key()),
            }
        }
    }
    out
}

/// Addresses as text, for the downward API.
fn addresses(agent: &Agent, memory: &Memory) -> (String, String) {
    let host = agent.config.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
    let pod = match &memory.sandbox {
        Sandbox::Ready { ip: Some(ip) } => ip.to_string(),
        Sandbox::Ready { ip: None } => host.clone(),
        _ => String::new(),
    };
    (pod, host)
}

fn me<'a>(agent: &'a Agent, pod: &'a Pod, addresses: &'a (String, String)) -> Self_<'a> {
    Self_ {
        pod: &pod.object,
        pod_ip: &addresses.0,
        host_ip: &addresses.1,
        node_name: &agent.config.node_name,
        node_cpu_milli: i64::try_from(agent.config.cpu_milli).unwrap_or(i64::MAX),
        node_memory_bytes: i64::try_from(agent.config.memory_bytes).unwrap_or(i64::MAX),
    }
}

async fn make_volumes(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory) {
    memory.volumes_at = Moment::now();
    let made = async {
        let has_any = !list_at(&pod.object, &["spec", "volumes"]).is_empty();
        if !has_any {
            return Ok(());
        }
        let refs = fetch(agent, pod).await?;
        let tokens = tokens(agent, pod).await;
        let addresses = addresses(agent, memory);
        volumes::make(
            pod,
            &agent.config.roots,
            &Content { refs: &refs, me: &me(agent, pod, &addresses), tokens: &tokens },
        )
    };
    let made: Result<(), String> = made.await;
    memory.volumes = match made {
        Ok(()) => Volumes::Ready,
        Err(why) => {
            let before = match &memory.volumes {
                Volumes::Failed(before) => Some(before),
                _ => None,
            };
            agent.events.note(&pod.object, "", true, "FailedMount", &why);
            Volumes::Failed(failure(before, "ContainerCreating", why))
        }
    };
}

async fn make_sandbox(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory) {
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

/// Finds or pulls an image, then tells the worker.
async fn pull(agent: Rc<Agent>, slot: Rc<Slot>, pod: Rc<Pod>, container: String, image: String, policy: PullPolicy) {
    let result = pulled(&agent, &pod, &container, &image, policy).await;
    slot.tell(News::Image { container, result: result.map(Box::new) });
}

async fn pulled(
    agent: &Rc<Agent>,
    pod: &Rc<Pod>,
    container: &str,
    text: &str,
    policy: PullPolicy,
) -> Result<Image, (&'static str, String)> {
    let field = field_of(pod, container);
    let reference: Reference = match text.parse() {
        Ok(reference) => reference,
        Err(error) => {
            let message =
                format!("Failed to apply default image tag {text:?}: couldn't parse image name {text:?}: {error}");
            agent.events.note(&pod.object, &field, true, "InspectFailed", &message);
            return Err(("InvalidImageName", message));
        }
    };
    if policy != PullPolicy::Always || reference.registry() == LOCAL_REGISTRY {
        let (store, wanted) = (agent.images.clone(), reference.clone());
        let found = tokio::task::spawn_blocking(move || store.find(&wanted)).await;
        match found {
            Ok(Ok(Some(image))) => {
                let message = format!("Container image {text:?} already present on machine");
                agent.events.note(&pod.object, &field, false, "Pulled", &message);
                return Ok(image);
            }
            Ok(Err(error)) => log::warn!("look for image {text}: {error}"),
            _ => {}
        }
    }
    if policy == PullPolicy::Never || reference.registry() == LOCAL_REGISTRY {
        let message = format!("Container image {text:?} is not present with pull policy of Never");
        agent.events.note(&pod.object, &field, true, "ErrImageNeverPull", &message);
        return Err(("ErrImageNeverPull", message));
    }
    agent.events.note(&pod.object, &field, false, "Pulling", &format!("Pulling image {text:?}"));
    let began = Moment::now();
    let mut options = agent.config.pull.clone();
    options.credentials = credentials(agent, pod, &reference).await;
    let store = agent.images.clone();
    let shown = crate::progress::Shown::new(text);
    let result =
        tokio::task::spawn_blocking(move || store.pull(&reference, &options, &shown, &Cancel::default())).await;
    match result {
        Ok(Ok(image)) => {
            let took = Moment::now().since(began);
            let message = format!(
                "Successfully pulled image {text:?} in {}.{:03}s. Image size: {} bytes.",
                took.as_secs(),
                took.subsec_millis(),
                image.size
            );
            agent.events.note(&pod.object, &field, false, "Pulled", &message);
            Ok(image)
        }
        other => {
            let why = match other {
                Ok(Err(error)) => crate::client::chain(&error),
                Err(error) => error.to_string(),
                Ok(Ok(_)) => String::new(),
            };
            agent.events.note(&pod.object, &field, true, "Failed", &format!("Failed to pull image {text:?}: {why}"));
            agent.events.note(&pod.object, &field, true, "Failed", "Error: ErrImagePull");
            Err(("ErrImagePull", why))
        }
    }
}

/// Images packed on this machine live under this name and are in no registry.
pub const LOCAL_REGISTRY: &str = "localhost";

/// Credentials out of the pod's `imagePullSecrets`, if one names the registry.
async fn credentials(agent: &Rc<Agent>, pod: &Rc<Pod>, reference: &Reference) -> Option<mote_images::Credentials> {
    let client = agent.client.as_ref()?;
    for entry in list_at(&pod.object, &["spec", "imagePullSecrets"]) {
        let target = crate::client::path::core(&pod.namespace, "secrets", str_at(entry, &["name"]));
        let Ok(secret) = client.get(&target).await else { continue };
        let data = spec::env::bytes(&secret, true);
        let document = data.get(".dockerconfigjson").and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
        let Some(auths) = document.as_ref().and_then(|d| d.get("auths")).and_then(Value::as_object) else { continue };
        for (server, auth) in auths {
            let host = server
                .trim_start_matches("https://")
                .trim_start_matches("http://")
                .split('/')
                .next()
                .unwrap_or_default();
            let hub = reference.registry() == "docker.io" && host.ends_with("docker.io");
            if host != reference.registry() && !hub {
                continue;
            }
            let (mut user, mut password) =
                (str_at(auth, &["username"]).to_owned(), str_at(auth, &["password"]).to_owned());
            if user.is_empty() {
                use base64::Engine as _;
                let both =
                    base64::engine::general_purpose::STANDARD.decode(str_at(auth, &["auth"])).unwrap_or_default();
                let both = String::from_utf8_lossy(&both).into_owned();
                let (u, p) = both.split_once(':').unwrap_or_default();
                (user, password) = (u.to_owned(), p.to_owned());
            }
            return Some(probes::basic_credentials(user, password));
        }
    }
    None
}

/// The runtime's description of a container, with everything it refers to.
async fn describe(
    agent: &Rc<Agent>,
    pod: &Pod,
    memory: &Memory,
    wanted: &Wanted,
    image: &Image,
    attempt: u32,
    crashes: u32,
) -> Result<Container, String> {
    let refs = fetch(agent, pod).await?;
    let addresses = addresses(agent, memory);
    let links = at(&pod.object, &["spec", "enableServiceLinks"]).and_then(Value::as_bool) != Some(false);
    let services = agent.service_variables(&pod.namespace, links);
    spec::build(&spec::Making {
        pod,
        wanted,
        attempt,
        crashes,
        image,
        refs: &refs,
        me: &me(agent, pod, &addresses),
        services: &services,
        roots: &agent.config.roots,
        run: agent.keeper.dir(),
        cgroup_parent: &agent.config.cgroup_parent,
        node_memory_bytes: agent.config.memory_bytes,
    })
}

/// The process of a running container, for exec probes and hooks after the agent was replaced.
pub async fn process_of(agent: &Rc<Agent>, pod: &Pod, name: &str) -> Result<Process, String> {
    let wanted = pod.container(name).ok_or("no such container")?;
    let reference: Reference = wanted.image.parse().map_err(|e| format!("{e}"))?;
    let store = agent.images.clone();
    let image = tokio::task::spawn_blocking(move || store.find(&reference))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
    let image = image.ok_or_else(|| format!("image {} is gone", wanted.image))?;
    Ok(describe(agent, pod, &Memory::default(), wanted, &image, 0, 0).await?.process)
}

async fn start(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory, name: &str, attempt: u32, crashes: u32) {
    let Some((wanted, image)) = pod.container(name).zip(memory.found.get(name).cloned()) else { return };
    let field = field_of(pod, name);
    let container = match describe(agent, pod, memory, wanted, &image, attempt, crashes).await {
        Ok(container) => container,
        Err(why) => {
            agent.events.note(&pod.object, &field, true, "Failed", &format!("Error: {why}"));
            let failed = failure(memory.starts.get(name), "CreateContainerConfigError", why);
            memory.starts.insert(name.to_owned(), failed);
            return;
        }
    };
    let id = container.id.clone();
    if let Err(why) = make_folders(agent, pod, &container, &image, name, attempt) {
        agent.events.note(&pod.object, &field, true, "Failed", &format!("Error: {why}"));
        let failed = failure(memory.starts.get(name), "CreateContainerError", why);
        memory.starts.insert(name.to_owned(), failed);
        return;
    }
    agent.events.note(&pod.object, &field, false, "Created", &format!("Container created: {name}"));
    let process = container.process.clone();
    match agent.keeper.start(container).await {
        Ok(started) => {
            for warning in &started.warnings {
                log::debug!("container {id}: {warning}");
            }
            agent.events.note(&pod.object, &field, false, "Started", &format!("Container started: {name}"));
            memory.starts.remove(name);
            memory.images.remove(name);
            if at(&wanted.spec, &["lifecycle", "postStart"]).is_some() {
                tokio::task::spawn_local(probes::hook::post_start(
                    agent.clone(),
                    pod.clone(),
                    name.to_owned(),
                    id.clone(),
                    process.clone(),
                ));
            }
            memory.processes.insert(id, process);
        }
        Err(keeper::Error::Refused(refused)) => {
            let why = format!("failed to start container {name}: {refused}");
            agent.events.note(&pod.object, &field, true, "Failed", &format!("Error: {why}"));
            memory.images.remove(name);
            let now = Moment::now();
            let exit = Exit { code: 128, cannot_run: Some(why), finished: now, ..Exit::default() };
            let runs = memory.stillborn.entry(name.to_owned()).or_default();
            runs.push(Instance {
                id: id.clone(),
                attempt,
                crashes,
                hash: wanted.hash.clone(),
                image: wanted.image.clone(),
                image_id: spec::image_id(&image),
                started: now,
                state: State::Exited(exit),
            });
            clear_folder(agent, &id);
        }
        Err(error) => {
            let failed = failure(memory.starts.get(name), "RunContainerError", error.to_string());
            memory.starts.insert(name.to_owned(), failed);
            clear_folder(agent, &id);
        }
    }
}

fn make_folders(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    image: &Image,
    name: &str,
    attempt: u32,
) -> Result<(), String> {
    let roots = &agent.config.roots;
    agent.images.lease(&container.id, image).map_err(|e| e.to_string())?;
    if let Rootfs::Overlay { upper, work, .. } = &container.rootfs {
        super::dirs::make(upper)?;
        super::dirs::make(work)?;
    }
    for file in [roots.log(pod, name, attempt), roots.termination_log(&pod.uid, name, attempt)] {
        if let Some(parent) = file.parent() {
            super::dirs::make(parent)?;
        }
    }
    let last_words = roots.termination_log(&pod.uid, name, attempt);
    super::dirs::write(&last_words, b"")?;
    // Whoever the container runs as may write its last words.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&last_words, std::fs::Permissions::from_mode(0o666))
        .map_err(|e| format!("set mode of {}: {e}", last_words.display()))
}

/// The writable layer of a container and its hold on the image.
fn clear_folder(agent: &Agent, id: &str) {
    if let Err(error) = super::dirs::remove_tree(&agent.config.roots.container(id)) {
        log::warn!("{error}");
    }
    if let Err(error) = agent.images.release(id) {
        log::warn!("release image of container {id}: {error}");
    }
}

async fn remove_run(agent: &Rc<Agent>, memory: &mut Memory, container: &str, id: &str) {
    if let Err(error) = agent.keeper.remove(id).await
        && error.kind() != Some(mote_runtime::keeper::protocol::FailureKind::NotFound)
    {
        log::warn!("remove container {id}: {error}");
    }
    if let Some(runs) = memory.stillborn.get_mut(container) {
        runs.retain(|run| run.id != id);
    }
    clear_folder(agent, id);
    memory.probed.remove(id);
    memory.probing.remove(id);
    memory.stopping.remove(id);
    memory.messages.remove(id);
    memory.processes.remove(id);
}

/// A log file and what rotation made of it.
fn remove_logs(log: &std::path::Path) {
    let Some((folder, name)) = log.parent().zip(log.file_name()) else { return };
    let name = name.to_string_lossy();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&*name) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[allow(clippy::too_many_arguments)] // an action's own fields, behind what every action gets
async fn stop(
    agent: &Rc<Agent>,
    slot: &Rc<Slot>,
    pod: &Rc<Pod>,
    memory: &mut Memory,
    container: &str,
    id: &str,
    grace: Duration,
    why: &str,
) {
    let now = Moment::now();
    let deadline = now.plus(grace);
    if let Some(stopping) = memory.stopping.get_mut(id) {
        stopping.deadline = stopping.deadline.min(deadline);
        return;
    }
    memory.stopping.insert(id.to_owned(), Stopping { deadline, killed: false });
    memory.probing.remove(id);
    if pod.source != Source::Nobody {
        agent.events.note(&pod.object, &field_of(pod, container), false, "Killing", why);
    }
    log::debug!("stop container {id}: {} until SIGKILL", short(grace));
    let stop = agent.keeper.of_pod(pod.uid.as_str()).into_iter().find(|listed| listed.id == id);
    let signal = stop.and_then(|listed| keeper::label(&listed, "stop").parse().ok()).unwrap_or(libc::SIGTERM);
    let hook = pod.container(container).and_then(|wanted| at(&wanted.spec, &["lifecycle", "preStop"])).is_some();
    if hook && !grace.is_zero() {
        let process = memory.processes.get(id).cloned();
        let hook = probes::hook::pre_stop(
            agent.clone(),
            pod.clone(),
            container.to_owned(),
            id.to_owned(),
            process,
            grace,
            signal,
        );
        let slot = slot.clone();
        tokio::task::spawn_local(async move {
            hook.await;
            slot.wake();
        });
    } else if let Err(error) = agent.keeper.signal(id, signal, false).await {
        log::warn!("stop container {id}: {error}");
    }
}

async fn remove_sandbox(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory) {
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

async fn remove_all(agent: &Rc<Agent>, pod: &Rc<Pod>, memory: &mut Memory) {
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for listed in agent.keeper.of_pod(pod.uid.as_str()) {
        ids.insert(listed.id.clone(), keeper::label(&listed, "container").to_owned());
    }
    for (name, runs) in &memory.stillborn {
        ids.extend(runs.iter().map(|run| (run.id.clone(), name.clone())));
    }
    for (id, container) in ids {
        remove_run(agent, memory, &container, &id).await;
    }
    remove_sandbox(agent, pod, memory).await;
    let (roots, uid) = (agent.config.roots.clone(), pod.uid.clone());
    let logs = roots.pod_logs(&pod.namespace, &pod.name, &pod.uid);
    let group = spec::pod_cgroup(&agent.config.cgroup_parent, pod.uid.as_str());
    let removed = tokio::task::spawn_blocking(move || {
        let volumes = volumes::remove(&roots, &uid).and_then(|()| super::dirs::remove_tree(&logs));
        let group =
            mote_runtime::cgroup::remove(&mote_runtime::cgroup::Layout::discover(), &group).map_err(|e| e.to_string());
        (volumes, group)
    });
    match removed.await {
        Ok((volumes, group)) => {
            if let Err(error) = volumes {
                log::warn!("{error}");
            }
            if let Err(error) = group {
                log::warn!("{error}");
            }
        }
        Err(error) => log::warn!("clean up after pod {}: {error}", pod.key()),
    }
}
