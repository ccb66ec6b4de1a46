//! The pod network.

use std::process::Command;

use crate::harness::node::{pod_ip, wait_http};
use crate::harness::{Node, Registry, machine, until};
use crate::{IDLE, shell};

const SERVER: &str = "exec httpd -f -p 8080 -h /www";

#[test]
fn every_pod_has_its_own_address_and_reaches_the_others_and_the_host() {
    let registry = Registry::with_images();
    let node = Node::up();
    for name in ["a", "b"] {
        node.kubectl().apply(&shell(name, &registry, SERVER)); // the same port twice: two network namespaces
    }
    let (a, b) = (node.wait_pod_ready("a", 20), node.wait_pod_ready("b", 20));
    assert_ne!(pod_ip(&a), pod_ip(&b));
    for pod in [&a, &b] {
        assert!(wait_http(pod_ip(pod), 8080, "/").contains("busybox"));
    }
    let script = format!("timeout 5 wget -q -O - http://{}:8080/ && ip -4 -o addr | wc -l; {IDLE}", pod_ip(&b));
    node.kubectl().apply(&shell("client", &registry, &script));
    node.wait_pod_ready("client", 20);
    let mut said = String::new();
    crate::harness::eventually(15, || {
        said = node.kubectl().ok(&["logs", "client"]);
        (said.lines().count() == 2).then_some(())
    });
    assert_eq!(said, "<h1>busybox</h1>\n2\n", "pod to pod, then its links: lo and eth0");
}

#[test]
fn a_pod_of_the_host_network_has_the_hosts_addresses() {
    let registry = Registry::with_images();
    let node = Node::up();
    let manifest = shell("host", &registry, &format!("ls /sys/class/net; {IDLE}"))
        .replace("spec:\n", "spec:\n  hostNetwork: true\n");
    node.kubectl().apply(&manifest);
    let pod = node.wait_pod_ready("host", 20);
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"]);
}

#[test]
fn pods_find_each_other_by_their_own_names_and_resolvers() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&shell("one", &registry, &format!("hostname; cat /etc/hosts /etc/resolv.conf; {IDLE}")));
    let pod = node.wait_pod_ready("one", 20);
    let said = node.kubectl().ok(&["logs", "one"]);
    assert!(said.starts_with("one\n"), "{said}");
    assert!(said.contains(pod_ip(&pod)), "/etc/hosts names the pod: {said}");
    assert!(said.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{said}");
    assert!(said.contains("ndots:5"), "{said}");
}

#[test]
fn a_pod_reaches_the_kubernetes_service_and_its_certificate_is_valid_for_that_address() {
    let registry = Registry::with_images();
    let mut node = Node::up();
    node.kubectl().apply(&shell("client", &registry, IDLE));
    node.wait_pod_ready("client", 20);
    let service = node.kubectl().object("service", "kubernetes").expect("seeded")["spec"]["clusterIP"].clone();
    let url = format!("https://{}/healthz", service.as_str().expect("cluster IP"));
    let ca = node.data_dir().join("pki/ca.crt");
    for run in ["first", "second"] {
        let marker = format!("/{}/pod", node.traces.cgroup_parent);
        let inside = machine::processes().into_iter().find(|p| p.cgroups.contains(&marker)).expect("the pod's process");
        until(&format!("{url} from the pod, {run} start"), 15, || {
            let out = Command::new("nsenter")
                .args(["-n", "-t", &inside.pid.to_string(), "curl", "-s", "--noproxy", "*", "-m", "3", "--cacert"])
                .arg(&ca)
                .arg(&url)
                .output()
                .expect("curl");
            (String::from_utf8_lossy(&out.stdout) == "ok").then_some(())
        });
        let slice = node.kubectl().object("endpointslice", "kubernetes").expect("published");
        let address = slice["endpoints"][0]["addresses"][0].as_str().expect("address").to_owned();
        assert!(address.starts_with(&node.slot.pod_prefix()) && address.ends_with(".1"), "the gateway, not {address}");
        node.stop(nix::sys::signal::Signal::SIGKILL);
        node.start();
        node.wait_ready();
    }
}
