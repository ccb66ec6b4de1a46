//! The everyday commands of kubectl 1.20, 1.32 and 1.36.

use crate::harness::kubectl::RELEASES;
use crate::harness::{Kubectl, Node, Registry, eventually, until};

pub(super) fn each_release(test: impl Fn(&Node, &Kubectl, &Registry)) {
    let registry = Registry::with_images();
    let node = Node::up();
    for release in RELEASES {
        let kubectl = Kubectl::new(release, &node.kubeconfig(), node.dir.path());
        eprintln!("kubectl {release}");
        test(&node, &kubectl, &registry);
    }
}

fn talker(registry: &Registry) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: talker\n  labels: {{app: talker}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {}\n    command: [sh, -c, 'i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done']\n",
        registry.image("busybox")
    )
}

#[test]
fn everyday_commands_work() {
    each_release(|node, kubectl, registry| {
        let nodes = kubectl.ok(&["get", "nodes", "-o", "wide"]);
        assert!(nodes.starts_with("NAME ") && nodes.contains(&node.name) && nodes.contains(" Ready "), "{nodes}");
        assert!(kubectl.apply(&talker(registry)).contains("pod/talker created"));
        assert!(kubectl.apply(&talker(registry)).contains("pod/talker unchanged"));
        assert!(
            kubectl.ok(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=30s"]).contains("condition met")
        );
        let pods = kubectl.ok(&["get", "pods", "-o", "wide"]);
        let mut lines = pods.lines();
        let head: Vec<&str> = lines.next().expect("a header").split_whitespace().collect();
        assert_eq!(head[..7], ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"], "{pods}");
        let row: Vec<&str> = lines.next().expect("a row").split_whitespace().collect();
        assert_eq!(row[..4], ["talker", "1/1", "Running", "0"], "{pods}");
        assert!(row[5].starts_with(&node.slot.pod_prefix()) && row[6] == node.name, "{pods}");
        let text = kubectl.ok(&["describe", "pod", "talker"]);
        for part in ["Name:", "talker", "Status:", "Running", "Container ID:", "mote://", "Events:", "Started"] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(kubectl.ok(&["get", "pod", "talker", "-o", "yaml"]).contains("kind: Pod"));
        assert_eq!(kubectl.ok(&["get", "pod", "talker", "-o", "jsonpath={.status.phase}"]), "Running");
        kubectl.ok(&["label", "pod", "talker", "colour=green"]);
        assert!(kubectl.ok(&["get", "pods", "-l", "colour=green"]).contains("talker"));
        assert!(!kubectl.ok(&["get", "pods", "-l", "colour!=green"]).contains("talker"));
        assert!(kubectl.ok(&["get", "pods", "--field-selector", "status.phase=Running"]).contains("talker"));
        kubectl.ok(&["annotate", "pod", "talker", "note=hello"]);
        assert!(kubectl.fails(&["create", "-f", "-"], &talker(registry)).contains("AlreadyExists"));
        assert!(kubectl.ok(&["logs", "talker", "--tail=1"]).starts_with("line "));
        kubectl.answer(&["explain", "pod"], ""); // may be poor, must not crash the server
        assert!(kubectl.ok(&["get", "events"]).contains("Started"));
        assert!(kubectl.ok(&["api-resources"]).contains("deployments"));
        assert!(kubectl.ok(&["version"]).contains("Server Version"));
        assert!(kubectl.ok(&["get", "all", "-A"]).contains("pod/talker"));
        assert!(kubectl.ok(&["delete", "pod", "talker"]).contains("deleted"));
        assert!(kubectl.fails(&["get", "pod", "talker"], "").contains("pods \"talker\" not found"));
    });
}

#[test]
fn followed_logs_and_watches_stream() {
    each_release(|node, kubectl, registry| {
        // A pod that fits nowhere is already there: once the watch shows it, nothing that comes later is missed.
        let marker = "apiVersion: v1\nkind: Pod\nmetadata: {name: marker}\nspec:\n  nodeSelector: {fits: nowhere}\n  containers: [{name: main, image: none}]\n";
        kubectl.apply(marker);
        let watch = kubectl.start(&["get", "pods", "-w"], &node.dir.path().join("watch"));
        until("the watch shows what is there", 10, || watch.so_far().contains("marker").then_some(()));
        kubectl.apply(&talker(registry));
        kubectl.ok(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=30s"]);
        let logs = kubectl.start(&["logs", "-f", "talker"], &node.dir.path().join("logs"));
        let first =
            until("followed logs", 10, || Some(logs.so_far()).filter(|text| text.starts_with("line 0\nline 1\n")));
        until("more of the followed logs", 10, || (logs.so_far().len() > first.len()).then_some(()));
        kubectl.ok(&["delete", "pod", "talker"]);
        let whole = eventually(10, || {
            let text = watch.so_far();
            let shown = |status: &str| text.lines().any(|line| line.starts_with("talker") && line.contains(status));
            ["Pending", "Running", "Terminating"].into_iter().all(shown).then_some(())
        });
        assert!(whole.is_some(), "the watch shows the life of the pod: {}", watch.so_far());
        kubectl.ok(&["delete", "pod", "marker"]);
    });
}

#[test]
fn workloads_are_driven_by_their_commands() {
    each_release(|_, kubectl, registry| {
        let image = registry.image("busybox");
        let command = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]; // a first process that hears SIGTERM
        kubectl.ok(&[&["create", "deployment", "sleeper", "--image", &image, "--"][..], &command].concat());
        kubectl.ok(&["rollout", "status", "deployment/sleeper", "--timeout=40s"]);
        kubectl.ok(&["scale", "deployment/sleeper", "--replicas=2"]);
        kubectl.ok(&["rollout", "status", "deployment/sleeper", "--timeout=40s"]);
        kubectl.ok(&["set", "env", "deployment/sleeper", "CHANGED=yes"]);
        kubectl.ok(&["rollout", "status", "deployment/sleeper", "--timeout=60s"]);
        assert!(kubectl.ok(&["rollout", "history", "deployment/sleeper"]).contains('2'));
        kubectl.ok(&["expose", "deployment/sleeper", "--port=80"]);
        assert!(kubectl.ok(&["get", "service", "sleeper"]).contains("ClusterIP"));
        kubectl.ok(&["create", "configmap", "c", "--from-literal=a=b"]);
        kubectl.ok(&["create", "secret", "generic", "s", "--from-literal=a=b"]);
        kubectl.ok(&["create", "namespace", "other"]);
        kubectl.ok(&["delete", "deployment,service", "sleeper"]);
        kubectl.ok(&["delete", "configmap", "c"]);
        kubectl.ok(&["delete", "secret", "s"]);
        kubectl.ok(&["delete", "namespace", "other"]);
        until("all pods gone", 30, || kubectl.objects("pods", "").is_empty().then_some(()));
    });
}
