//! One pod: it runs, it is restarted, it goes without a trace.

use nix::sys::signal::Signal;

use crate::harness::node::{container, pod_ip};
use crate::harness::{Node, Registry, machine};
use crate::{IDLE, shell};

#[test]
fn a_pod_runs_and_its_deletion_leaves_nothing() {
    let registry = Registry::with_images();
    let node = Node::up();
    assert_eq!(node.traces.of_pods(), Vec::<String>::new(), "a fresh node has no pods");
    node.kubectl().apply(&shell("one", &registry, &format!("echo hello; {IDLE}")));
    let pod = node.wait_pod_ready("one", 20);
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(pod_ip(&pod).starts_with(&node.slot.pod_prefix()), "address {}", pod_ip(&pod));
    assert_eq!(container(&pod)["restartCount"], 0);
    assert!(container(&pod)["containerID"].as_str().is_some_and(|id| id.starts_with("mote://")));
    assert!(!node.traces.of_pods().is_empty(), "a running pod is seen by the counting code");
    assert_eq!(node.kubectl().ok(&["logs", "one"]), "hello\n");
    node.kubectl().ok(&["delete", "pod", "one"]);
    assert!(node.kubectl().object("pod", "one").is_none());
    node.wait_no_pods(5);
}

#[test]
fn a_killed_process_is_restarted() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&shell("one", &registry, IDLE));
    let pod = node.wait_pod_ready("one", 20);
    let marker = format!("pod{}", pod["metadata"]["uid"].as_str().expect("uid"));
    let victims: Vec<i32> =
        machine::processes().iter().filter(|p| p.cgroups.contains(&marker)).map(|p| p.pid).collect();
    assert!(!victims.is_empty(), "no process in cgroup {marker}");
    victims.iter().for_each(|pid| {
        machine::signal(*pid, Signal::SIGKILL);
    });
    let pod = node
        .wait_pod("one", "restarted", 30, |pod| container(pod)["restartCount"] == 1 && container(pod)["ready"] == true);
    let last = &container(&pod)["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&137.into(), &"Error".into()), "{last}");
}

#[test]
fn a_container_that_fails_backs_off_and_says_why() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&shell("one", &registry, "echo reason >&2; exit 3"));
    let backing_off = |pod: &serde_json::Value| container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = node.wait_pod("one", "in back-off", 40, backing_off);
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(node.kubectl().ok(&["logs", "one", "--previous"]), "reason\n");
    let events = node.kubectl().ok(&["get", "events"]);
    assert!(events.contains("BackOff"), "{events}");
}

#[test]
fn a_pod_that_ends_well_has_succeeded() {
    let registry = Registry::with_images();
    let node = Node::up();
    let manifest = shell("one", &registry, "echo done").replace("spec:\n", "spec:\n  restartPolicy: Never\n");
    node.kubectl().apply(&manifest);
    let pod = node.wait_pod("one", "Succeeded", 20, |pod| pod["status"]["phase"] == "Succeeded");
    let end = &container(&pod)["state"]["terminated"];
    assert_eq!((&end["exitCode"], &end["reason"]), (&0.into(), &"Completed".into()), "{end}");
}

#[test]
fn deletion_gives_the_grace_it_promises() {
    let registry = Registry::with_images();
    let node = Node::up();
    // Deaf to SIGTERM: only the kill at the end of the two seconds of grace ends it.
    node.kubectl().apply(&shell("deaf", &registry, "trap \"\" TERM; while :; do sleep 1; done"));
    node.wait_pod_ready("deaf", 20);
    let start = std::time::Instant::now();
    node.kubectl().ok(&["delete", "pod", "deaf"]);
    let took = start.elapsed().as_secs_f64();
    assert!((1.9..8.0).contains(&took), "deletion took {took} s with 2 s of grace");
    node.wait_no_pods(5);
}

#[test]
fn init_containers_run_first_and_in_order() {
    let registry = Registry::with_images();
    let node = Node::up();
    let image = registry.image("busybox");
    let step = |name: &str| {
        format!(
            "  - name: {name}\n    image: {image}\n    command: [sh, -c, 'echo {name} >>/work/steps']\n    volumeMounts: [{{name: work, mountPath: /work}}]\n"
        )
    };
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: one}}\nspec:\n  restartPolicy: Never\n  volumes: [{{name: work, emptyDir: {{}}}}]\n  initContainers:\n{}{}  containers:\n  - name: main\n    image: {image}\n    command: [cat, /work/steps]\n    volumeMounts: [{{name: work, mountPath: /work}}]\n",
        step("first"),
        step("second"),
    );
    node.kubectl().apply(&manifest);
    node.wait_pod("one", "Succeeded", 30, |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(node.kubectl().ok(&["logs", "one", "-c", "main"]), "first\nsecond\n");
}

#[test]
fn configuration_reaches_the_container() {
    let registry = Registry::with_images();
    let node = Node::up();
    let image = registry.image("busybox");
    node.kubectl().apply(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{colour: green, file.txt: from a file}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: hidden}}\nstringData: {{password: s3cret}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: one}}\nspec:\n  restartPolicy: Never\n  volumes:\n  - {{name: settings, configMap: {{name: settings}}}}\n\
         \x20 containers:\n  - name: main\n    image: {image}\n    command: [sh, -c, 'echo $COLOUR $PASSWORD $NAME; cat /settings/file.txt']\n    env:\n\
         \x20   - {{name: COLOUR, valueFrom: {{configMapKeyRef: {{name: settings, key: colour}}}}}}\n\
         \x20   - {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: hidden, key: password}}}}}}\n\
         \x20   - {{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}\n\
         \x20   volumeMounts: [{{name: settings, mountPath: /settings}}]\n"
    ));
    node.wait_pod("one", "Succeeded", 20, |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(node.kubectl().ok(&["logs", "one"]), "green s3cret one\nfrom a file");
}
