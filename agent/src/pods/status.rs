//! What to say about a pod: `status` as the API shows it, made from the same facts as the plan. Pure.

mod conditions;
mod container;

use std::net::IpAddr;

use mote_api::tree::{Map, Value, at, json, str_at};

use super::model::{Facts, Pod, Role, Sandbox, Wanted};
use super::plan::{condemned, initialized, outcome};
use super::qos;
use crate::clock::Moment;

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
    let mut ephemerals = Vec::new();
    let mut apps = Vec::new();
    let mut unready = Vec::new();
    let mut blocked = false;
    for wanted in &pod.containers {
        let (entry, ready) = container::container(pod, wanted, facts, before, blocked, now);
        match wanted.role {
            Role::App => apps.push(entry),
            Role::Init | Role::Sidecar => inits.push(entry),
            Role::Ephemeral => ephemerals.push(entry),
        }
        if !ready && !matches!(wanted.role, Role::Init | Role::Ephemeral) {
            unready.push(wanted.name.clone());
        }
        let apps_began = pod.apps().any(|app| facts.newest(&app.name).is_some());
        blocked |= wanted.role.is_init() && !apps_began && !init_passed(wanted, facts);
    }
    if !inits.is_empty() {
        out.insert("initContainerStatuses".into(), inits.into());
    }
    out.insert("containerStatuses".into(), apps.into());
    if !ephemerals.is_empty() {
        out.insert("ephemeralContainerStatuses".into(), ephemerals.into());
    }
    out.insert("conditions".into(), conditions::conditions(pod, facts, before, phase, ended, &unready, now));
    Value::Object(out)
}

fn init_passed(wanted: &Wanted, facts: &Facts) -> bool {
    facts.newest(&wanted.name).is_some_and(|run| match wanted.role {
        Role::Sidecar => run.running() && facts.probed.get(&run.id).is_none_or(|probed| probed.started),
        _ => run.exit().is_some_and(|exit| exit.code == 0),
    })
}

fn phase(pod: &Pod, facts: &Facts, condemned: bool) -> &'static str {
    let alive = facts.running().any(|(name, _)| {
        pod.container(name).is_none_or(|wanted| !matches!(wanted.role, Role::Sidecar | Role::Ephemeral))
    });
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use mote_api::tree::list_at;

    use super::super::model::{Exit, Failure, ImageState, Instance, Probed, Source, State, Volumes};
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
