//! The runtime's description of a container, out of everything its pod refers to.

use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::{Value, at, str_at};
use mote_images::{Image, Reference};
use mote_runtime::container::{Container, Process};

use crate::agent::Agent;
use crate::keeper::{State, label};
use crate::objects::{Kind, ROOT_CA, ROOT_CA_AGE_MAX};
use crate::pods::model::{Pod, Role, Sandbox, Source, Wanted};
use crate::pods::spec;
use crate::pods::spec::env::{Refs, Self_, referred};

/// Named ConfigMaps and Secrets of the pod's namespace, not older than `age_max`. An unreachable server is an error, a missing object is
/// not.
pub(super) async fn refs(
    agent: &Agent,
    pod: &Pod,
    (config_maps, secrets): (Vec<String>, Vec<String>),
    age_max: Duration,
) -> Result<Refs, String> {
    let mut refs = Refs::default();
    if config_maps.is_empty() && secrets.is_empty() {
        return Ok(refs);
    }
    let Some(client) = agent.client.as_ref().filter(|_| pod.source == Source::Api) else {
        return Err("ConfigMaps and Secrets are for pods of an API server".into());
    };
    for (kind, names, into) in
        [(Kind::ConfigMap, config_maps, &mut refs.config_maps), (Kind::Secret, secrets, &mut refs.secrets)]
    {
        for name in names {
            let root = kind == Kind::ConfigMap && name == ROOT_CA;
            let age_max = if root { ROOT_CA_AGE_MAX } else { age_max };
            let object = agent.objects.get(client, kind, &pod.namespace, &name, age_max).await?;
            into.insert(name, object);
        }
    }
    Ok(refs)
}

/// Addresses as text, for the downward API.
pub(super) fn addresses(agent: &Agent, sandbox: &Sandbox) -> (String, String) {
    let host = agent.config.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
    let pod = match sandbox {
        Sandbox::Ready { ip: Some(ip) } => ip.to_string(),
        Sandbox::Ready { ip: None } => host.clone(),
        _ => String::new(),
    };
    (pod, host)
}

/// The pod as the downward API shows it.
pub(super) fn me<'a>(agent: &'a Agent, pod: &'a Pod, addresses: &'a (String, String)) -> Self_<'a> {
    Self_ {
        pod: &pod.object,
        pod_ip: &addresses.0,
        host_ip: &addresses.1,
        node_name: &agent.config.node_name,
        node_cpu_milli: i64::try_from(agent.config.cpu_milli).unwrap_or(i64::MAX),
        node_memory_bytes: i64::try_from(agent.config.memory_bytes).unwrap_or(i64::MAX),
    }
}

/// The runtime's description of a container, with everything it refers to.
pub(super) async fn describe(
    agent: &Rc<Agent>,
    pod: &Pod,
    sandbox: &Sandbox,
    wanted: &Wanted,
    image: &Image,
    attempt: u32,
    crashes: u32,
) -> Result<Container, String> {
    let target_pid = target_of(agent, pod, wanted)?;
    let refs = refs(agent, pod, referred(&wanted.spec), Duration::ZERO).await?;
    let addresses = addresses(agent, sandbox);
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
        target_pid,
    })
}

/// The first process of the container that `kubectl debug --target` names.
fn target_of(agent: &Agent, pod: &Pod, wanted: &Wanted) -> Result<Option<i32>, String> {
    let name = str_at(&wanted.spec, &["targetContainerName"]);
    if name.is_empty() || wanted.role != Role::Ephemeral {
        return Ok(None);
    }
    let of_pod = agent.keeper.of_pod(pod.uid.as_str()).into_iter();
    of_pod
        .filter(|listed| label(listed, "container") == name && listed.state == State::Running)
        .find_map(|listed| Some(listed.pid).filter(|pid| *pid > 0))
        .map(Some)
        .ok_or_else(|| format!("target container {name:?} is not running"))
}

/// The process of a running container as its image and pod want it: for exec, and for probes and hooks after the agent was replaced.
pub(crate) async fn process_of(agent: &Rc<Agent>, pod: &Pod, name: &str) -> Result<Process, String> {
    let wanted = pod.container(name).ok_or("no such container")?;
    let reference: Reference = wanted.image.parse().map_err(|e| format!("{e}"))?;
    let store = agent.images.clone();
    let image = tokio::task::spawn_blocking(move || store.find(&reference))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
    let image = image.ok_or_else(|| format!("image {} is gone", wanted.image))?;
    Ok(describe(agent, pod, &Sandbox::None, wanted, &image, 0, 0).await?.process)
}
