//! Tables of moments: facts in, actions out.

use std::rc::Rc;

use mote_api::tree::{Value, json};

use super::super::model::{Probed, Source, Stopping};
use super::*;
use crate::pods::model::{Exit, Failure, ImageState, State};

fn pod(spec: Value) -> Pod {
    let object = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u1"}, "spec": spec});
    Pod::read(Rc::new(object), Source::Api).unwrap_or_else(|why| panic!("{why}"))
}

fn one(restart: &str) -> Pod {
    pod(json!({"restartPolicy": restart, "containers": [{"name": "a", "image": "i:1"}]}))
}

fn at(seconds: i64) -> Moment {
    Moment::from_seconds(seconds)
}

fn run(pod: &Pod, name: &str, attempt: u32, crashes: u32, state: State) -> Instance {
    Instance {
        id: format!("{name}-{attempt}"),
        attempt,
        crashes,
        hash: pod.container(name).map(|wanted| wanted.hash.clone()).unwrap_or_default(),
        image: "i:1".into(),
        image_id: "sha256:0".into(),
        started: at(100),
        state,
    }
}

fn exited(code: i32, finished: i64) -> State {
    State::Exited(Exit { code, finished: at(finished), ..Exit::default() })
}

fn ready() -> Facts {
    Facts { sandbox: Sandbox::Ready { ip: None }, volumes: Volumes::Ready, ..Facts::default() }
}

fn with(pod: &Pod, runs: &[(&str, u32, u32, State)]) -> Facts {
    let mut facts = ready();
    for (name, attempt, crashes, state) in runs {
        facts.runs.entry((*name).into()).or_default().insert(0, run(pod, name, *attempt, *crashes, state.clone()));
    }
    for wanted in &pod.containers {
        facts.images.insert(wanted.name.clone(), ImageState::Ready { at: at(0) });
    }
    facts
}

fn say(plan: &Plan) -> String {
    let words: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::MakeVolumes => "volumes".into(),
            Action::MakeSandbox => "sandbox".into(),
            Action::Pull { container } => format!("pull {container}"),
            Action::Start { container, attempt, crashes } => format!("start {container} {attempt} {crashes}"),
            Action::Stop { id, grace, .. } => format!("stop {id} {}", grace.as_secs()),
            Action::Kill { id } => format!("kill {id}"),
            Action::Remove { id, .. } => format!("remove {id}"),
            Action::RemoveSandbox => "remove sandbox".into(),
            Action::RemoveAll => "remove all".into(),
        })
        .collect();
    let mut text = words.join(", ");
    if let Some(moment) = plan.look_again {
        text.push_str(&format!(" @{}", moment.seconds()));
    }
    if plan.gone {
        text.push_str(" gone");
    }
    text
}

#[test]
fn a_new_pod_is_built_bottom_up() {
    let pod = one("Always");
    let mut facts = Facts::default();
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "volumes, pull a");
    facts.volumes = Volumes::Ready;
    facts.images.insert("a".into(), ImageState::Pulling);
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "sandbox");
    facts.images.insert("a".into(), ImageState::Ready { at: at(100) });
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "sandbox");
    facts.sandbox = Sandbox::Ready { ip: None };
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "start a 0 0");
    let facts = with(&pod, &[("a", 0, 0, State::Running)]);
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "");
}

#[test]
fn ephemeral_containers_run_once_beside_the_others() {
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i:1"}],
        "ephemeralContainers": [{"name": "e", "image": "i:1"}]}));
    let mut facts = with(&pod, &[]);
    facts.images.insert("a".into(), ImageState::Ready { at: at(100) });
    facts.images.insert("e".into(), ImageState::Ready { at: at(100) });
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "start a 0 0");
    let mut facts = with(&pod, &[("a", 0, 0, State::Running)]);
    facts.images.insert("e".into(), ImageState::Ready { at: at(100) });
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "start e 0 0");
    let ended = State::Exited(Exit { code: 1, finished: at(99), ..Exit::default() });
    let facts = with(&pod, &[("a", 0, 0, State::Running), ("e", 0, 0, ended)]);
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "");
    assert_eq!(outcome(&pod, &facts), None);
}

#[test]
fn stale_content_holds_nothing_back() {
    let pod = one("Always");
    let mut facts = with(&pod, &[]);
    facts.volumes = Volumes::Stale;
    facts.images.insert("a".into(), ImageState::Ready { at: at(100) });
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "volumes, start a 0 0");
}

#[test]
fn restart_policies() {
    for (policy, code, expected) in [
        ("Always", 0, "start a 1 1"),
        ("Always", 1, "start a 1 1"),
        ("OnFailure", 1, "start a 1 1"),
        ("OnFailure", 0, "remove sandbox"),
        ("Never", 0, "remove sandbox"),
        ("Never", 1, "remove sandbox"),
    ] {
        let pod = one(policy);
        let facts = with(&pod, &[("a", 0, 0, exited(code, 101))]);
        assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), expected, "{policy} {code}");
    }
}

#[test]
fn crash_back_off_doubles_and_is_forgiven() {
    let pod = one("Always");
    for (crashes, finished, now, expected) in [
        (0, 101, 101, "start a 6 1"),
        (1, 101, 101, " @111"),
        (1, 101, 111, "start a 6 2"),
        (2, 101, 120, " @121"),
        (5, 101, 110, " @261"),
        (6, 101, 110, " @401"),
        (u32::MAX, 101, 110, " @401"),
        // 10 minutes of work forgive
        (5, 700, 700, "start a 6 0"),
        // the clock was set back: never wait longer than the pause itself
        (1, 5000, 101, "start a 6 0"),
        (1, 105, 103, " @113"),
    ] {
        let facts = with(&pod, &[("a", 5, crashes, exited(1, finished))]);
        assert_eq!(say(&plan(&pod, &facts, None, false, at(now))), expected, "{crashes} {finished} {now}");
    }
}

#[test]
fn failed_pulls_back_off() {
    let pod = one("Always");
    let mut facts = ready();
    for (times, now, expected) in
        [(1, 101, " @102"), (1, 103, " @110"), (1, 110, "pull a"), (2, 110, " @120"), (40, 110, " @400")]
    {
        let failure = Failure { reason: "ErrImagePull", message: "manifest unknown".into(), at: at(100), times };
        facts.images.insert("a".into(), ImageState::Failed(failure));
        assert_eq!(say(&plan(&pod, &facts, None, false, at(now))), expected, "{times} {now}");
    }
    let Step::Wait { reason, message, .. } = step(&pod, &pod.containers[0], &facts, at(103)) else { panic!("no wait") };
    assert_eq!(reason, "ImagePullBackOff");
    assert_eq!(message, "Back-off pulling image \"i:1\": ErrImagePull: manifest unknown");
}

#[test]
fn init_containers_go_in_order_and_sidecars_stay() {
    let pod = pod(json!({"initContainers": [
        {"name": "i1", "image": "i:1"}, {"name": "s", "image": "i:1", "restartPolicy": "Always"}, {"name": "i2", "image": "i:1"}],
        "containers": [{"name": "a", "image": "i:1"}]}));
    let done = || exited(0, 101);
    for (runs, expected) in [
        (vec![], "start i1 0 0"),
        (vec![("i1", 0, 0, State::Running)], ""),
        (vec![("i1", 0, 0, exited(1, 101))], "start i1 1 1"),
        (vec![("i1", 0, 0, done())], "start s 0 0"),
        (vec![("i1", 0, 0, done()), ("s", 0, 0, State::Running)], "start i2 0 0"),
        (vec![("i1", 0, 0, done()), ("s", 0, 0, State::Running), ("i2", 0, 0, done())], "start a 0 0"),
        // the sidecar comes back although the apps run
        (
            vec![("i1", 0, 0, done()), ("s", 0, 0, exited(0, 101)), ("i2", 0, 0, done()), ("a", 0, 0, State::Running)],
            "start s 1 1",
        ),
        // records of ended init containers are lost: they do not run again
        (vec![("s", 0, 0, State::Running), ("a", 0, 0, State::Running)], ""),
    ] {
        assert_eq!(say(&plan(&pod, &with(&pod, &runs), None, false, at(101))), expected);
    }
}

#[test]
fn a_failed_init_container_of_a_never_pod_fails_it() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "i:1"}],
        "containers": [{"name": "a", "image": "i:1"}]}));
    let facts = with(&pod, &[("i", 0, 0, exited(3, 101))]);
    assert_eq!(outcome(&pod, &facts), Some(false));
    assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), "remove sandbox");
}

#[test]
fn a_deleted_pod_gets_its_grace_and_not_more() {
    let mut pod = one("Always");
    pod.deleting = Some(Duration::from_secs(30));
    let mut facts = with(&pod, &[("a", 0, 0, State::Running)]);
    assert_eq!(say(&plan(&pod, &facts, None, false, at(100))), "stop a-0 30");
    facts.stopping.insert("a-0".into(), Stopping { deadline: at(130), killed: false });
    assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), " @130");
    assert_eq!(say(&plan(&pod, &facts, None, false, at(130))), "kill a-0");
    // moved nearer
    pod.deleting = Some(Duration::from_secs(1));
    assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), "stop a-0 1");
    facts.stopping.insert("a-0".into(), Stopping { deadline: at(130), killed: true });
    assert_eq!(say(&plan(&pod, &facts, None, false, at(131))), "");
    let facts = with(&pod, &[("a", 0, 0, exited(137, 131))]);
    assert_eq!(say(&plan(&pod, &facts, None, false, at(131))), "remove sandbox, remove all gone");
}

#[test]
fn sidecars_end_after_the_apps_last_one_first() {
    let mut pod = pod(json!({"initContainers": [
        {"name": "s1", "image": "i:1", "restartPolicy": "Always"}, {"name": "s2", "image": "i:1", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "image": "i:1"}]}));
    pod.deleting = Some(Duration::from_secs(5));
    let run = State::Running;
    let facts = with(&pod, &[("s1", 0, 0, run.clone()), ("s2", 0, 0, run.clone()), ("a", 0, 0, run.clone())]);
    assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), "stop a-0 5");
    let facts = with(&pod, &[("s1", 0, 0, run.clone()), ("s2", 0, 0, run.clone()), ("a", 0, 0, exited(0, 101))]);
    assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), "stop s2-0 5");
    let facts = with(&pod, &[("s1", 0, 0, run), ("s2", 0, 0, exited(0, 101)), ("a", 0, 0, exited(0, 101))]);
    assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), "stop s1-0 5");
}

#[test]
fn probes_and_changes_restart() {
    let pod = one("Always");
    let mut facts = with(&pod, &[("a", 0, 0, State::Running)]);
    facts.probed.insert("a-0".into(), Probed { started: true, ready: true, dead: true });
    assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), "stop a-0 30");
    let mut facts = with(&pod, &[("a", 0, 0, State::Running)]);
    facts.runs.get_mut("a").unwrap()[0].hash = "other".into();
    assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), "stop a-0 30");
    let mut facts = with(&pod, &[("a", 0, 0, exited(0, 101))]);
    facts.runs.get_mut("a").unwrap()[0].hash = "other".into();
    assert_eq!(say(&plan(&one("Never"), &facts, None, false, at(101))), "start a 1 1");
}

#[test]
fn old_runs_and_deadlines() {
    let pod = one("Always");
    let gone = exited(1, 101);
    let facts = with(&pod, &[("a", 0, 0, gone.clone()), ("a", 1, 0, gone), ("a", 2, 0, State::Running)]);
    assert_eq!(say(&plan(&pod, &facts, None, false, at(101))), "remove a-0");
    let pod = super::tests::pod(json!({"activeDeadlineSeconds": 50, "containers": [{"name": "a", "image": "i:1"}]}));
    let facts = with(&pod, &[("a", 0, 0, State::Running)]);
    assert_eq!(say(&plan(&pod, &facts, Some(at(100)), false, at(120))), " @150");
    assert_eq!(say(&plan(&pod, &facts, Some(at(100)), false, at(150))), "stop a-0 30");
    // what the API calls ended is not started again after a reboot
    assert_eq!(say(&plan(&one("Always"), &Facts::default(), None, true, at(150))), "");
}
