//! What is, as facts: the keeper's book, the worker's memory, and the last words of containers that ended.

use std::io::Read;
use std::rc::Rc;

use mote_api::tree::{Value, bool_at, list_at, str_at};

use super::memory::Memory;
use super::probes::Probing;
use crate::agent::Agent;
use crate::clock::Moment;
use crate::keeper::{self, Listed, label};
use crate::pods::model::{Exit, Facts, Instance, Pod, Probed, State};
use crate::pods::slot::Slot;
use crate::pods::spec;

/// Bytes of a termination message (upstream's limit for one container).
const MESSAGE_BYTES_MAX: u64 = 4096;
/// Bytes of log that stand in for a message.
const LOG_MESSAGE_BYTES_MAX: usize = 2048;

/// Numbers of the first runs: one behind the last log file of each container, so that after a reboot no log is written over.
pub(super) fn first_attempts(agent: &Agent, pod: &Pod) -> std::collections::BTreeMap<String, u32> {
    let folder = agent.config.roots.pod_logs(&pod.namespace, &pod.name, &pod.uid);
    let mut out = std::collections::BTreeMap::new();
    for wanted in &pod.containers {
        let entries = std::fs::read_dir(folder.join(&wanted.name)).into_iter().flatten().flatten();
        let last = entries
            .filter_map(|entry| entry.file_name().to_string_lossy().split('.').next()?.parse::<u32>().ok())
            .max();
        if let Some(last) = last {
            out.insert(wanted.name.clone(), last.saturating_add(1));
        }
    }
    out
}

/// The API may know of later runs than the logs here do (a data folder that was emptied).
pub(super) fn told_attempts(told: &Value, first: &mut std::collections::BTreeMap<String, u32>) {
    let all =
        ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"].map(|list| list_at(told, &[list]));
    for entry in all.into_iter().flatten().filter(|entry| !str_at(entry, &["containerID"]).is_empty()) {
        let count =
            entry.get("restartCount").and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let next = first.entry(str_at(entry, &["name"]).to_owned()).or_insert(0);
        *next = (*next).max(count.saturating_add(1));
    }
}

/// One container of the keeper's book as a run.
fn instance(listed: &Listed) -> Instance {
    let state = match &listed.state {
        keeper::State::Starting | keeper::State::Running => State::Running,
        keeper::State::Exited(exit) => State::Exited(Exit {
            code: exit.code,
            signal: exit.signal.unwrap_or(0),
            oom_killed: exit.oom_killed,
            cannot_run: None,
            finished: Moment(exit.finished_at),
            message: exit.note.clone(),
        }),
    };
    Instance {
        id: listed.id.clone(),
        attempt: label(listed, "attempt").parse().unwrap_or(0),
        crashes: label(listed, "crashes").parse().unwrap_or(0),
        hash: label(listed, "hash").to_owned(),
        image: label(listed, "image").to_owned(),
        image_id: label(listed, "imageID").to_owned(),
        started: Moment(listed.started_at),
        state,
    }
}

/// The facts of this moment.
pub(super) fn facts(agent: &Agent, pod: &Pod, memory: &mut Memory) -> Facts {
    let mut facts = Facts {
        sandbox: memory.sandbox.clone(),
        volumes: memory.volumes.clone(),
        images: memory.images.clone(),
        starts: memory.starts.clone(),
        first_attempt: memory.first_attempt.clone(),
        ..Facts::default()
    };
    for listed in agent.keeper.of_pod(pod.uid.as_str()) {
        let name = label(&listed, "container").to_owned();
        let mut run = instance(&listed);
        if let State::Exited(exit) = &mut run.state {
            let message = memory
                .messages
                .entry(run.id.clone())
                .or_insert_with(|| last_words(agent, pod, &name, run.attempt, exit));
            if !message.is_empty() {
                exit.message.clone_from(message);
            }
            memory.probing.remove(&run.id);
        }
        facts.runs.entry(name).or_default().push(run);
    }
    for (name, runs) in &memory.stillborn {
        facts.runs.entry(name.clone()).or_default().extend(runs.iter().cloned());
    }
    for runs in facts.runs.values_mut() {
        runs.sort_by_key(|run| std::cmp::Reverse(run.attempt));
    }
    facts.probed = memory.probed.clone();
    facts.stopping = memory.stopping.clone();
    facts
}

fn last_words(agent: &Agent, pod: &Pod, container: &str, attempt: u32, exit: &Exit) -> String {
    let path = agent.config.roots.termination_log(&pod.uid, container, attempt);
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(MESSAGE_BYTES_MAX).read_to_end(&mut text);
    }
    let from_log = pod.container(container).is_some_and(spec::message_from_log);
    if text.is_empty() && exit.code != 0 && from_log {
        let log = agent.config.roots.log(pod, container, attempt);
        return crate::server::logs::last_bytes(&log, LOG_MESSAGE_BYTES_MAX);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Starts probes of running containers that have none going (they are new, or the agent is).
pub(super) fn refresh(agent: &Rc<Agent>, slot: &Rc<Slot>, pod: &Rc<Pod>, memory: &mut Memory, said: &Value) {
    if pod.deleting.is_some() {
        memory.probing.clear();
        return;
    }
    for listed in agent.keeper.of_pod(pod.uid.as_str()) {
        if !matches!(listed.state, keeper::State::Running) || memory.probing.contains_key(&listed.id) {
            continue;
        }
        let name = label(&listed, "container");
        let Some(wanted) = pod.container(name) else { continue };
        let has = |field: &str| wanted.has_probe(field);
        if !(has("startupProbe") || has("readinessProbe") || has("livenessProbe")) {
            continue;
        }
        // What the API was told of this very run holds until a probe says otherwise.
        let told = list_at(said, &[wanted.role.statuses()])
            .iter()
            .find(|entry| str_at(entry, &["containerID"]) == format!("mote://{}", listed.id));
        let was = |field: &str| told.is_some_and(|entry| bool_at(entry, &[field]) == Some(true));
        let probed = Probed {
            started: !has("startupProbe") || was("started"),
            ready: !has("readinessProbe") || was("ready"),
            dead: false,
        };
        memory.probed.insert(listed.id.clone(), probed);
        let process = memory.processes.get(&listed.id).cloned();
        let probing = Probing::start(
            agent.clone(),
            slot.clone(),
            pod.clone(),
            name,
            &listed.id,
            probed,
            process,
            Moment(listed.started_at),
        );
        memory.probing.insert(listed.id.clone(), probing);
    }
}
