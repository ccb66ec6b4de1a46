//! Real images of several layers from a real registry.

use crate::harness::node::{pod_ip, wait_http};
use crate::harness::{Node, Registry, until};
use crate::pod;

#[test]
fn nginx_of_debian_packages_answers_and_logs_the_access() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&pod("web", &registry.image("nginx"), "    ports: [{containerPort: 80}]\n"));
    let pod = node.wait_pod_ready("web", 60);
    let page = wait_http(pod_ip(&pod), 80, "/");
    assert!(page.contains("served by nginx in a pod of mote"), "{page}");
    assert_eq!(wait_http(pod_ip(&pod), 80, "/host"), "web\n", "the host name is the pod's name");
    until("the access line in kubectl logs", 5, || {
        node.kubectl().ok(&["logs", "web"]).contains("GET / HTTP/1.0").then_some(())
    });
    let events = node.kubectl().ok(&["get", "events"]);
    for reason in ["Pulled", "Created", "Started"] {
        assert!(events.contains(reason), "no event {reason} in\n{events}");
    }
}

#[test]
fn python_answers_and_its_probe_decides_readiness() {
    let registry = Registry::with_images();
    let node = Node::up();
    let probe = "    readinessProbe: {httpGet: {path: /healthz, port: 8000}, periodSeconds: 1}\n";
    node.kubectl().apply(&pod("app", &registry.image("python"), probe));
    let pod = node.wait_pod_ready("app", 60);
    assert!(wait_http(pod_ip(&pod), 8000, "/").starts_with("app "));
}

#[test]
fn containers_of_one_image_share_layers_but_not_what_they_write() {
    let registry = Registry::with_images();
    let node = Node::up();
    for name in ["a", "b"] {
        node.kubectl().apply(&crate::shell(
            name,
            &registry,
            &format!("echo {name} >>/mine; cat /mine; {}", crate::IDLE),
        ));
    }
    for name in ["a", "b"] {
        node.wait_pod_ready(name, 20);
        assert_eq!(node.kubectl().ok(&["logs", name]), format!("{name}\n"));
    }
}
