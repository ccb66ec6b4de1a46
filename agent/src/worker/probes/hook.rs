//! Lifecycle hooks: postStart beside a new container, preStop before its stop signal.

use std::rc::Rc;
use std::time::Duration;

use mote_api::tree::{Value, at, i64_at, list_at};
use mote_runtime::container::Process;

use crate::agent::Agent;
use crate::pods::model::Pod;
use crate::worker::describe::process_of;

/// A postStart hook may take this long.
const POST_START_MAX: Duration = Duration::from_secs(120);

async fn run(
    agent: &Rc<Agent>,
    pod: &Pod,
    container: &str,
    id: &str,
    process: Option<Process>,
    hook: &str,
    limit: Duration,
) -> Result<(), String> {
    let Some(action) = pod.container(container).and_then(|wanted| at(&wanted.spec, &["lifecycle", hook])) else {
        return Ok(());
    };
    if let Some(seconds) = i64_at(action, &["sleep", "seconds"]) {
        tokio::time::sleep(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(limit)).await;
        return Ok(());
    }
    let args: Vec<String> =
        list_at(action, &["exec", "command"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if args.is_empty() {
        return Err("only exec and sleep hooks are supported".into());
    }
    let mut process = match process {
        Some(process) => process,
        None => process_of(agent, pod, container).await?,
    };
    process.args = args;
    let result = agent.keeper.exec(id, process, limit, 1024).await.map_err(|e| e.to_string())?;
    if result.code == 0 {
        Ok(())
    } else {
        Err(format!("command exited with {}: {}", result.code, String::from_utf8_lossy(&result.output)))
    }
}

/// Runs the postStart hook; a container whose hook fails is killed.
pub(in crate::worker) async fn post_start(
    agent: Rc<Agent>,
    pod: Rc<Pod>,
    container: String,
    id: String,
    process: Process,
) {
    if let Err(why) = run(&agent, &pod, &container, &id, Some(process), "postStart", POST_START_MAX).await {
        agent.events.note(
            &pod.object,
            &pod.field_of(&container),
            true,
            "FailedPostStartHook",
            &format!("PostStartHook failed: {why}"),
        );
        if let Err(error) = agent.keeper.signal(&id, libc::SIGKILL, true).await {
            log::warn!("kill container {id}: {error}");
        }
    }
}

/// Runs the preStop hook within the grace period, then sends the stop signal.
pub(in crate::worker) async fn pre_stop(
    agent: Rc<Agent>,
    pod: Rc<Pod>,
    container: String,
    id: String,
    process: Option<Process>,
    grace: Duration,
    signal: i32,
) {
    let hook = run(&agent, &pod, &container, &id, process, "preStop", grace);
    if let Ok(Err(why)) = tokio::time::timeout(grace, hook).await {
        agent.events.note(
            &pod.object,
            &pod.field_of(&container),
            true,
            "FailedPreStopHook",
            &format!("PreStopHook failed: {why}"),
        );
    }
    if let Err(error) = agent.keeper.signal(&id, signal, false).await {
        log::warn!("stop container {id}: {error}");
    }
}
