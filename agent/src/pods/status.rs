//! What to say about a pod: `status` as the API shows it, made from the same facts as the plan. Pure.

use std::net::IpAddr;

use mote_api::tree::{Map, Value, at, json, list_at, str_at};

use super::model::{Exit, Facts, Instance, Pod, Role, Sandbox, State, Wanted};
use super::plan::{Step, condemned, initialized, outcome, step};
use super::qos;
use crate::clock::{self, Moment};

/// What a status says that is not about the pod alone.
pub struct Around {
    /// The node's address.
    pub host_ip: Option<IpAddr>,
    /// When this node first saw the pod.
    pub started: Option<Moment>,
    /// The API already calls the pod Succeeded or Failed.
    pub ended: bool,
}

/// The status of this moment. `before` is the one said last: transition times are kept from it. Conditions of others are taken over
/// from the pod's object.
pub fn status(pod: &Pod, facts: &Facts, around: &Around, before: &Value, now: Moment) -> Value {
    if around.ended {
        // Its story is told; only the addresses of a sandbox that is gone would change.
        return before.clone();
    }
    let condemned = condemned(pod, around.started, now);
    let phase = phase(pod, facts, condemned.is_some());
    let ended = matches!(phase, "Succeeded" | "Failed");
    let mut out = Map::new();
    out.insert("phase".into(), phase.into());
    if let Some((reason, message)) = condemned {
        out.insert("reason".into(), reason.into());
        out.insert("message".into(), message.into());
    }
    if let Some(ip) = around.host_ip {
        out.insert("hostIP".into(), ip.to_string().into());
        out.insert("hostIPs".into(), json!([{"ip": ip.to_string()}]));
    }
    if let Some(ip) = pod_ip(pod, facts, around) {
        out.insert("podIP".into(), ip.clone().into());
        out.insert("podIPs".into(), json!([{"ip": ip}]));
    }
    if let Some(started) = around.started {
        out.insert("startTime".into(), started.rfc3339().into());
    }
    if let Some(generation) = at(&pod.object, &["metadata", "generation"]).and_then(Value::as_i64) {
        out.insert("observedGeneration".into(), generation.into());
    }
    out.insert("qosClass".into(), qos::class(&pod.object).into());
    let mut inits = Vec::new();
    let mut apps = Vec::new();
    let mut unready = Vec::new();
    let mut blocked = false;
    for wanted in &pod.containers {
        let (entry, ready) = container(pod, wanted, facts, before, blocked, now);
        match wanted.role {
            Role::App => apps.push(entry),
            Role::Init | Role::Sidecar => inits.push(entry),
        }
        if !ready && wanted.role != Role::Init {
            unready.push(wanted.name.clone());
        }
        let apps_began = pod.apps().any(|app| facts.newest(&app.name).is_some());
        blocked |= wanted.role != Role::App && !apps_began && !init_passed(wanted, facts);
    }
    if !inits.is_empty() {
        out.insert("initContainerStatuses".into(), inits.into());
    }
    out.insert("containerStatuses".into(), apps.into());
    out.insert("conditions".into(), conditions(pod, facts, before, phase, ended, &unready, now));
    Value::Object(out)
}

fn init_passed(wanted: &Wanted, facts: &Facts) -> bool {
    facts.newest(&wanted.name).is_some_and(|run| match wanted.role {
        Role::Sidecar => run.running() && facts.probed.get(&run.id).is_none_or(|probed| probed.started),
        _ => run.exit().is_some_and(|exit| exit.code == 0),
    })
}

fn phase(pod: &Pod, facts: &Facts, condemned: bool) -> &'static str {
    let alive = facts.running().any(|(name, _)| pod.container(name).is_none_or(|wanted| wanted.role != Role::Sidecar));
    match outcome(pod, facts) {
        Some(true) if !condemned => return "Succeeded",
        Some(false) => return "Failed",
        _ => {}
    }
    if condemned && !alive {
        return "Failed";
    }
    let all_began = pod.apps().all(|app| facts.newest(&app.name).is_some());
    if all_began && initialized(pod, facts) { "Running" } else { "Pending" }
}

fn pod_ip(pod: &Pod, facts: &Facts, around: &Around) -> Option<String> {
    match &facts.sandbox {
        Sandbox::Ready { ip: Some(ip) } => Some(ip.to_string()),
        Sandbox::Ready { ip: None } if pod.host_network => around.host_ip.map(|ip| ip.to_string()),
        // An ended pod goes on showing the address it had.
        _ => Some(str_at(&pod.object, &["status", "podIP"])).filter(|ip| !ip.is_empty()).map(str::to_owned),
    }
}

fn container(pod: &Pod, wanted: &Wanted, facts: &Facts, before: &Value, blocked: bool, now: Moment) -> (Value, bool) {
    let runs = facts.runs.get(&wanted.name).map(Vec::as_slice).unwrap_or_default();
    let told = told(before, wanted);
    let newest = runs.first();
    let mut ready = false;
    let mut started = false;
    let (state, last) = match newest {
        None => {
            (waiting(pod, wanted, facts, blocked, now), at(told, &["lastState"]).cloned().unwrap_or_else(|| json!({})))
        }
        Some(run) => {
            let earlier = runs.get(1).and_then(terminated);
            match &run.state {
                State::Running => {
                    let probed = facts.probed.get(&run.id).copied();
                    started = probed.is_none_or(|probed| probed.started);
                    ready = started && probed.is_none_or(|probed| probed.ready);
                    (
                        json!({"running": {"startedAt": run.started.rfc3339()}}),
                        earlier.unwrap_or_else(|| kept_last(told)),
                    )
                }
                State::Exited(exit) => {
                    ready = wanted.role == Role::Init && exit.code == 0;
                    let this = terminated(run).unwrap_or_default();
                    match step(pod, wanted, facts, now) {
                        Step::Wait { reason, message, .. }
                            if pod.deleting.is_none() && reason != "ContainerCreating" =>
                        {
                            (waiting_as(reason, &message), this)
                        }
                        _ => (this, earlier.unwrap_or_else(|| kept_last(told))),
                    }
                }
            }
        }
    };
    let mut entry = Map::new();
    entry.insert("name".into(), wanted.name.clone().into());
    entry.insert("image".into(), newest.map_or(wanted.image.as_str(), |run| run.image.as_str()).into());
    entry.insert("imageID".into(), newest.map_or("", |run| run.image_id.as_str()).into());
    if let Some(run) = newest {
        entry.insert("containerID".into(), format!("mote://{}", run.id).into());
    }
    let restarts =
        newest.map_or_else(|| facts.first_attempt.get(&wanted.name).copied().unwrap_or(0), |run| run.attempt);
    entry.insert("restartCount".into(), restarts.into());
    entry.insert("ready".into(), ready.into());
    entry.insert("started".into(), started.into());
    entry.insert("state".into(), state);
    entry.insert("lastState".into(), last);
    (Value::Object(entry), ready)
}

fn told<'a>(before: &'a Value, wanted: &Wanted) -> &'a Value {
    let list = if wanted.role == Role::App { "containerStatuses" } else { "initContainerStatuses" };
    list_at(before, &[list]).iter().find(|entry| str_at(entry, &["name"]) == wanted.name).unwrap_or(&Value::Null)
}

fn kept_last(told: &Value) -> Value {
    at(told, &["lastState"]).cloned().unwrap_or_else(|| json!({}))
}

fn waiting_as(reason: &str, message: &str) -> Value {
    if message.is_empty() {
        json!({"waiting": {"reason": reason}})
    } else {
        json!({"waiting": {"reason": reason, "message": message}})
    }
}

fn waiting(pod: &Pod, wanted: &Wanted, facts: &Facts, blocked: bool, now: Moment) -> Value {
    if blocked {
        return waiting_as("PodInitializing", "");
    }
    match step(pod, wanted, facts, now) {
        Step::Wait { reason, message, .. } => waiting_as(reason, &message),
        _ if wanted.role == Role::App && pod.containers.iter().any(|other| other.role != Role::App) => {
            waiting_as("PodInitializing", "")
        }
        _ => waiting_as("ContainerCreating", ""),
    }
}

fn terminated(run: &Instance) -> Option<Value> {
    let exit = run.exit()?;
    let mut entry = Map::new();
    entry.insert("exitCode".into(), exit.code.into());
    if exit.signal != 0 {
        entry.insert("signal".into(), exit.signal.into());
    }
    entry.insert("reason".into(), reason(exit).into());
    let message = exit.cannot_run.as_deref().unwrap_or(&exit.message);
    if !message.is_empty() {
        entry.insert("message".into(), message.into());
    }
    entry.insert("startedAt".into(), run.started.rfc3339().into());
    entry.insert("finishedAt".into(), exit.finished.rfc3339().into());
    entry.insert("containerID".into(), format!("mote://{}", run.id).into());
    Some(json!({"terminated": Value::Object(entry)}))
}

fn reason(exit: &Exit) -> &'static str {
    match exit {
        Exit { cannot_run: Some(_), .. } => "ContainerCannotRun",
        Exit { oom_killed: true, .. } => "OOMKilled",
        Exit { code: 0, .. } => "Completed",
        _ => "Error",
    }
}

fn conditions(
    pod: &Pod,
    facts: &Facts,
    before: &Value,
    phase: &str,
    ended: bool,
    unready: &[String],
    now: Moment,
) -> Value {
    let completed = phase == "Succeeded";
    let why_unready = |yes: bool| -> (bool, &'static str, String) {
        match (yes, ended) {
            (true, _) => (true, "", String::new()),
            (false, true) => (false, if completed { "PodCompleted" } else { "PodFailed" }, String::new()),
            (false, false) => {
                (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
            }
        }
    };
    let sandbox = matches!(facts.sandbox, Sandbox::Ready { .. });
    let all_init = completed || initialized(pod, facts);
    let not_done: Vec<&str> = pod
        .containers
        .iter()
        .filter(|wanted| wanted.role != Role::App && !init_passed(wanted, facts))
        .map(|wanted| wanted.name.as_str())
        .collect();
    let initialised = match (all_init, completed) {
        (true, true) => (true, "PodCompleted", String::new()),
        (true, false) => (true, "", String::new()),
        (false, _) => {
            (false, "ContainersNotInitialized", format!("containers with incomplete status: [{}]", not_done.join(" ")))
        }
    };
    let containers_ready = !ended && unready.is_empty();
    let closed: Vec<&str> = list_at(&pod.object, &["spec", "readinessGates"])
        .iter()
        .map(|gate| str_at(gate, &["conditionType"]))
        .filter(|gate| {
            !list_at(&pod.object, &["status", "conditions"])
                .iter()
                .any(|c| str_at(c, &["type"]) == *gate && str_at(c, &["status"]) == "True")
        })
        .collect();
    let ready = match (containers_ready, closed.first()) {
        (true, Some(gate)) => (
            false,
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate {gate:?} does not exist."),
        ),
        (yes, _) => why_unready(yes),
    };
    let mine = [
        ("PodReadyToStartContainers", (sandbox, "", String::new())),
        ("Initialized", initialised),
        ("Ready", ready),
        ("ContainersReady", why_unready(containers_ready)),
        ("PodScheduled", (true, "", String::new())),
    ];
    let old = list_at(before, &["conditions"]);
    let mut out = Vec::new();
    for (kind, (yes, reason, message)) in mine {
        let word = if yes { "True" } else { "False" };
        let same = old.iter().find(|c| str_at(c, &["type"]) == kind && str_at(c, &["status"]) == word);
        let since = same.map(|c| str_at(c, &["lastTransitionTime"])).filter(|since| clock::parse(since).is_some());
        let mut entry = Map::new();
        entry.insert("type".into(), kind.into());
        entry.insert("status".into(), word.into());
        entry.insert("lastProbeTime".into(), Value::Null);
        entry.insert("lastTransitionTime".into(), since.map_or_else(|| now.rfc3339(), str::to_owned).into());
        if !reason.is_empty() {
            entry.insert("reason".into(), reason.into());
        }
        if !message.is_empty() {
            entry.insert("message".into(), message.into());
        }
        out.push(Value::Object(entry));
    }
    let foreign = list_at(&pod.object, &["status", "conditions"]).iter().filter(|c| !mine_type(str_at(c, &["type"])));
    out.extend(foreign.cloned());
    Value::Array(out)
}

fn mine_type(kind: &str) -> bool {
    matches!(kind, "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled")
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::model::{Failure, ImageState, Probed, Source, Volumes};
    use super::*;

    fn pod(spec: Value) -> Pod {
        let object = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u1"}, "spec": spec});
        Pod::read(Rc::new(object), Source::Api).unwrap_or_else(|why| panic!("{why}"))
    }

    fn around() -> Around {
        Around { host_ip: "10.0.0.1".parse().ok(), started: Some(Moment::from_seconds(5)), ended: false }
    }

    fn facts(state: Option<State>) -> Facts {
        let mut facts = Facts {
            sandbox: Sandbox::Ready { ip: "10.42.0.2".parse().ok() },
            volumes: Volumes::Ready,
            ..Facts::default()
        };
        if let Some(state) = state {
            let run = Instance {
                id: "c0".into(),
                attempt: 3,
                crashes: 3,
                hash: pod(json!({"containers": [{"name": "a", "image": "i:1"}]})).containers[0].hash.clone(),
                image: "i:1".into(),
                image_id: "i@sha256:1".into(),
                started: Moment::from_seconds(10),
                state,
            };
            facts.runs.insert("a".into(), vec![run]);
        }
        facts
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        list_at(status, &["conditions"]).iter().find(|c| str_at(c, &["type"]) == kind).unwrap_or(&Value::Null)
    }

    #[test]
    fn a_running_pod_is_ready_unless_a_probe_says_no() {
        let pod = pod(json!({"containers": [{"name": "a", "image": "i:1"}]}));
        let mut facts = facts(Some(State::Running));
        let said = status(&pod, &facts, &around(), &Value::Null, Moment::from_seconds(20));
        assert_eq!(str_at(&said, &["phase"]), "Running");
        assert_eq!(str_at(&said, &["podIP"]), "10.42.0.2");
        assert_eq!(str_at(condition(&said, "Ready"), &["status"]), "True");
        assert_eq!(said["containerStatuses"][0]["restartCount"], 3);
        facts.probed.insert("c0".into(), Probed { started: true, ready: false, dead: false });
        let said = status(&pod, &facts, &around(), &Value::Null, Moment::from_seconds(20));
        assert_eq!(str_at(condition(&said, "Ready"), &["reason"]), "ContainersNotReady");
        assert_eq!(str_at(condition(&said, "Ready"), &["message"]), "containers with unready status: [a]");
        assert_eq!(said["containerStatuses"][0]["ready"], false);
        assert_eq!(said["containerStatuses"][0]["started"], true);
    }

    #[test]
    fn ends_have_their_reasons() {
        let never = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i:1"}]}));
        for (exit, phase, reason) in [
            (Exit::default(), "Succeeded", "Completed"),
            (Exit { code: 1, ..Exit::default() }, "Failed", "Error"),
            (Exit { code: 137, oom_killed: true, ..Exit::default() }, "Failed", "OOMKilled"),
            (Exit { code: 128, cannot_run: Some("exec".into()), ..Exit::default() }, "Failed", "ContainerCannotRun"),
        ] {
            let said =
                status(&never, &facts(Some(State::Exited(exit))), &around(), &Value::Null, Moment::from_seconds(20));
            assert_eq!(str_at(&said, &["phase"]), phase);
            assert_eq!(said["containerStatuses"][0]["state"]["terminated"]["reason"], reason);
            assert_eq!(str_at(condition(&said, "Ready"), &["status"]), "False");
        }
    }

    #[test]
    fn crash_loops_show_the_last_end() {
        let pod = pod(json!({"containers": [{"name": "a", "image": "i:1"}]}));
        let exit = Exit { code: 1, finished: Moment::from_seconds(19), ..Exit::default() };
        let said = status(&pod, &facts(Some(State::Exited(exit))), &around(), &Value::Null, Moment::from_seconds(20));
        let entry = &said["containerStatuses"][0];
        assert_eq!(str_at(entry, &["state", "waiting", "reason"]), "CrashLoopBackOff");
        assert_eq!(entry["lastState"]["terminated"]["exitCode"], 1);
        assert_eq!(str_at(&said, &["phase"]), "Running");
    }

    #[test]
    fn waiting_says_why() {
        let pod = pod(json!({"containers": [{"name": "a", "image": "i:1"}]}));
        let mut facts = facts(None);
        let said = status(&pod, &facts, &around(), &Value::Null, Moment::from_seconds(20));
        assert_eq!(str_at(&said["containerStatuses"][0], &["state", "waiting", "reason"]), "ContainerCreating");
        assert_eq!(str_at(&said, &["phase"]), "Pending");
        let failure = Failure { reason: "ErrImagePull", message: "no".into(), at: Moment::from_seconds(19), times: 1 };
        facts.images.insert("a".into(), ImageState::Failed(failure));
        let said = status(&pod, &facts, &around(), &Value::Null, Moment::from_seconds(20));
        assert_eq!(str_at(&said["containerStatuses"][0], &["state", "waiting", "reason"]), "ErrImagePull");
        let said = status(&pod, &facts, &around(), &Value::Null, Moment::from_seconds(25));
        assert_eq!(str_at(&said["containerStatuses"][0], &["state", "waiting", "reason"]), "ImagePullBackOff");
    }

    #[test]
    fn transitions_keep_their_time_and_foreign_conditions_stay() {
        let mut object = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [{"name": "a", "image": "i:1"}]}});
        let pod1 = Pod::read(Rc::new(object.clone()), Source::Api).unwrap_or_else(|why| panic!("{why}"));
        let mut said = status(&pod1, &facts(Some(State::Running)), &around(), &Value::Null, Moment::from_seconds(20));
        if let Some(list) = said["conditions"].as_array_mut() {
            list.push(json!({"type": "Mine", "status": "True"}));
        }
        object["status"] = said.clone();
        let pod2 = Pod::read(Rc::new(object), Source::Api).unwrap_or_else(|why| panic!("{why}"));
        let again = status(&pod2, &facts(Some(State::Running)), &around(), &said, Moment::from_seconds(99));
        assert_eq!(said, again);
    }
}
