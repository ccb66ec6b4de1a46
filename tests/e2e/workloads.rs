//! What every description of Kubernetes tells: Deployment -> ReplicaSet -> Pods -> scheduler -> agent -> Service and DNS.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::http;
use crate::harness::node::wait_http;
use crate::harness::{Node, Registry, until};
use crate::{IDLE, shell};

/// Three web servers that each answer with their own name, and a Service before them.
fn web(image: &str, version: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 3\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: {image}\n        env: [{{name: VERSION, value: \"{version}\"}}]\n        command: [sh, -c, 'mkdir /tmp/w; echo $VERSION $(hostname) >/tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w']\n        readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

fn ready_replicas(node: &Node) -> i64 {
    node.kubectl().object("deployment", "web").and_then(|d| d["status"]["readyReplicas"].as_i64()).unwrap_or(0)
}

fn wait_replicas(node: &Node, count: i64) {
    until(&format!("{count} ready replicas; mote said {}", node.log()), 60, || {
        (ready_replicas(node) == count).then_some(())
    });
}

fn cluster_ip(node: &Node) -> String {
    node.kubectl().object("service", "web").expect("service")["spec"]["clusterIP"]
        .as_str()
        .expect("cluster IP")
        .to_owned()
}

/// Who answers at the Service, asked `times` times.
fn answers(ip: &str, times: usize) -> BTreeSet<String> {
    (0..times).filter_map(|_| http::get(ip, 80, "/")).collect()
}

#[test]
fn a_deployment_behind_a_service_is_reached_from_the_node_and_by_name_from_a_pod() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&web(&registry.image("busybox"), "v1"));
    wait_replicas(&node, 3);
    assert_eq!(node.kubectl().objects("replicasets", "app=web").len(), 1);
    let ip = cluster_ip(&node);
    assert!(ip.starts_with(&node.slot.service_prefix()));
    wait_http(&ip, 80, "/");
    until("all three pods to answer at the Service", 20, || (answers(&ip, 30).len() == 3).then_some(()));
    let script = format!(
        "for n in web web.default web.default.svc.cluster.local; do timeout 5 wget -q -O - http://$n/ || echo failed $n; done; {IDLE}"
    );
    node.kubectl().apply(&shell("client", &registry, &script));
    node.wait_pod_ready("client", 20);
    let said = until("three answers by name", 20, || {
        let text = node.kubectl().ok(&["logs", "client"]);
        (text.lines().count() == 3).then_some(text)
    });
    assert!(said.lines().all(|line| line.starts_with("v1 web-")), "{said}");
}

#[test]
fn scaling_changes_the_number_of_pods_and_of_those_who_answer() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&web(&registry.image("busybox"), "v1"));
    wait_replicas(&node, 3);
    node.kubectl().ok(&["scale", "deployment", "web", "--replicas=5"]);
    wait_replicas(&node, 5);
    node.kubectl().ok(&["scale", "deployment", "web", "--replicas=1"]);
    until("one pod left", 30, || (node.kubectl().objects("pods", "app=web").len() == 1).then_some(()));
    let ip = cluster_ip(&node);
    until("one answers", 10, || (answers(&ip, 10).len() == 1).then_some(()));
}

#[test]
fn an_update_rolls_without_a_gap_and_can_be_undone() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&web(&registry.image("busybox"), "v1"));
    wait_replicas(&node, 3);
    let ip = cluster_ip(&node);
    wait_http(&ip, 80, "/");
    node.kubectl().apply(&web(&registry.image("busybox"), "v2"));
    let rollout = node.kubectl().ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(rollout.contains("successfully rolled out"), "{rollout}");
    until("only the new version answers", 15, || {
        let all = answers(&ip, 20);
        (!all.is_empty() && all.iter().all(|a| a.starts_with("v2 "))).then_some(())
    });
    node.kubectl().ok(&["rollout", "undo", "deployment/web"]);
    node.kubectl().ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    until("only the old version answers again", 15, || {
        let all = answers(&ip, 20);
        (!all.is_empty() && all.iter().all(|a| a.starts_with("v1 "))).then_some(())
    });
}

#[test]
fn a_deleted_pod_of_a_deployment_is_replaced_and_deleting_the_deployment_deletes_all() {
    let registry = Registry::with_images();
    let node = Node::up();
    node.kubectl().apply(&web(&registry.image("busybox"), "v1"));
    wait_replicas(&node, 3);
    let names = |pods: Vec<Value>| -> BTreeSet<String> {
        pods.iter().filter_map(|p| p["metadata"]["name"].as_str().map(str::to_owned)).collect()
    };
    let before = names(node.kubectl().objects("pods", "app=web"));
    let victim = before.first().expect("a pod");
    node.kubectl().ok(&["delete", "pod", victim]);
    until("a new third pod", 30, || {
        let now = names(node.kubectl().objects("pods", "app=web"));
        (now.len() == 3 && !now.contains(victim)).then_some(())
    });
    wait_replicas(&node, 3);
    node.kubectl().ok(&["delete", "deployment,service", "web"]);
    until("no pod left", 30, || node.kubectl().objects("pods", "app=web").is_empty().then_some(()));
    assert!(node.kubectl().objects("replicasets", "app=web").is_empty());
    node.wait_no_pods(10);
}

#[test]
fn a_pod_that_fits_nowhere_stays_pending_and_says_why() {
    let registry = Registry::with_images();
    let node = Node::up();
    let manifest = shell("huge", &registry, IDLE) + "    resources: {requests: {memory: 4Ti}}\n";
    node.kubectl().apply(&manifest);
    let unscheduled = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions
            .is_some_and(|list| list.iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "Unschedulable"))
    };
    let pod = node.wait_pod("huge", "unschedulable", 15, unscheduled);
    assert_eq!(pod["status"]["phase"], "Pending");
    let text = node.kubectl().ok(&["describe", "pod", "huge"]);
    assert!(text.contains("Insufficient memory"), "{text}");
}
