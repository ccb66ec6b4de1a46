//! Registries that want a password, that stand for others, and images that nobody signed; what an image costs when the disk is full.

use serde_json::Value;

use crate::harness::node::container;
use crate::harness::{Kubectl, Node, Registry, mote, run, until};
use crate::{IDLE, pod};

fn idle() -> String {
    format!("    command: [sh, -c, '{IDLE}']\n")
}

fn message(pod: &Value) -> &str {
    container(pod)["state"]["waiting"]["message"].as_str().unwrap_or("")
}

fn make_secret(kubectl: &Kubectl, name: &str, registry: &Registry, password: &str) {
    let server = format!("--docker-server={}", registry.address());
    let password = format!("--docker-password={password}");
    kubectl.ok(&["create", "secret", "docker-registry", name, &server, "--docker-username=me", &password]);
}

#[test]
fn private_images_come_with_the_secrets_of_pod_or_account() {
    let registry = Registry::private();
    let node = Node::up();
    let kubectl = node.kubectl();
    kubectl.apply(&pod("stranger", &registry.image("busybox"), &idle()));
    node.wait_pod("stranger", "refused", 20, |pod| {
        message(pod).contains("the registry wants a user name and password")
    });
    let events = kubectl.ok(&["get", "events"]);
    assert!(events.contains("Failed to pull image") && events.contains("ErrImagePull"), "{events}");
    // The wrong password first: the right one of the next secret is tried.
    make_secret(kubectl, "wrong", &registry, "guess");
    make_secret(kubectl, "right", &registry, "secret");
    let named = pod("friend", &registry.image("busybox"), &idle())
        .replace("spec:\n", "spec:\n  imagePullSecrets: [{name: absent}, {name: wrong}, {name: right}]\n");
    kubectl.apply(&named);
    node.wait_pod_ready("friend", 30);
    // What the service account has, its pods have. Another image, since this one is here now.
    kubectl.ok(&["patch", "serviceaccount", "default", "-p", "{\"imagePullSecrets\": [{\"name\": \"right\"}]}"]);
    kubectl.apply(&pod("member", &registry.image("debian"), &idle()));
    node.wait_pod_ready("member", 60);
}

#[test]
fn a_mirror_stands_for_a_registry_that_is_not_there() {
    let registry = Registry::with_images();
    let node = Node::prepared(&[]);
    let folder = node.data_dir().join("hosts").join("registry.test");
    std::fs::create_dir_all(&folder).expect("hosts folder");
    let text = format!("[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", registry.address());
    std::fs::write(folder.join("hosts.toml"), text).expect("hosts.toml");
    let hosts = node.data_dir().join("hosts");
    let node = node.started_with(&["--hosts-dir", hosts.to_str().expect("UTF-8 path")]);
    node.kubectl().apply(&pod("mirrored", "registry.test/busybox:1", &idle()));
    let pod = node.wait_pod_ready("mirrored", 30);
    assert_eq!(container(&pod)["image"], "registry.test/busybox:1", "it keeps the name it was asked for by");
}

#[test]
fn what_the_policy_refuses_does_not_run_and_says_so() {
    let registry = Registry::with_images();
    let node = Node::prepared(&[]);
    let policy = serde_json::json!({"default": [{"type": "reject"}],
        "transports": {"docker": {format!("{}/debian", registry.address()): [{"type": "insecureAcceptAnything"}]}}});
    let file = node.data_dir().join("mine.json");
    std::fs::write(&file, policy.to_string()).expect("policy");
    let node = node.started_with(&["--image-policy", file.to_str().expect("UTF-8 path")]);
    node.kubectl().apply(&pod("shut", &registry.image("busybox"), &idle()));
    node.kubectl().apply(&pod("open", &registry.image("debian"), &idle()));
    node.wait_pod_ready("open", 60);
    node.wait_pod("shut", "refused by the policy", 20, |pod| message(pod).contains("policy"));
    let events = node.kubectl().ok(&["get", "events"]);
    assert!(events.contains("policy"), "{events}");
}

#[test]
fn a_full_disk_takes_unused_images_and_says_when_that_is_too_little() {
    let registry = Registry::with_images();
    let node = Node::prepared(&[]);
    let data = node.data_dir().to_str().expect("UTF-8 path").to_owned();
    let program = mote();
    let program = program.to_str().expect("UTF-8 path").to_owned();
    let arguments = crate::harness::registry::pack_arguments("busybox");
    let mut pack = vec!["image", "pack", "--data-dir", &data];
    pack.extend(arguments.iter().map(String::as_str));
    pack.push("localhost/kept:1");
    run(&program, &pack);
    let node = node.started_with(&[
        "--image-gc-high-threshold",
        "2",
        "--image-gc-low-threshold",
        "1",
        "--image-gc-period",
        "1",
        "--image-gc-minimum-age",
        "0",
    ]);
    node.kubectl().apply(&pod("user", &registry.image("busybox"), &idle()));
    node.kubectl().apply(&pod("guest", &registry.image("debian"), &idle()));
    node.wait_pod_ready("user", 60);
    node.wait_pod_ready("guest", 60);
    node.kubectl().ok(&["delete", "pod", "guest"]);
    let images = || run(&program, &["image", "ls", "--data-dir", &data]);
    let left = until("the unused image to go", 30, || Some(images()).filter(|left| !left.contains("/debian")));
    assert!(left.contains("/busybox"), "in use: {left}");
    assert!(left.contains("localhost/kept"), "in no registry: {left}");
    let events = until("the event about the disk", 20, || {
        Some(node.kubectl().ok(&["get", "events"])).filter(|events| events.contains("FreeDiskSpaceFailed"))
    });
    assert!(events.contains("eligible to free"), "{events}");
    assert_eq!(container(&node.wait_pod_ready("user", 5))["restartCount"], 0, "the pod that runs noticed nothing");
    node.kubectl().apply(&pod("guest", &registry.image("debian"), &idle()));
    node.wait_pod_ready("guest", 60);
}
