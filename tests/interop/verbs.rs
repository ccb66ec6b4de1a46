//! kubectl's verbs one by one, of three releases: what each says when it did what it should, and when it must not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::harness::{Kubectl, Node, Registry, eventually, need, run, until};
use crate::kubectl::each_release;

/// Whether this is the release that knows neither server dry run without a schema nor tokens and whoami.
fn is_old(kubectl: &Kubectl) -> bool {
    kubectl.program().to_string_lossy().contains("1.20")
}

fn map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: \"{value}\"}}\n")
}

fn deployment(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      containers: [{{name: main, image: {image}, command: [sleep, '1000']}}]\n"
    )
}

/// `words`: a line of arguments without quotes.
fn said(kubectl: &Kubectl, words: &str, part: &str) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let out = kubectl.ok(&words);
    assert!(out.contains(part), "kubectl {words:?}: no {part:?} in {out}");
}

fn refused(kubectl: &Kubectl, words: &str, input: &str, part: &str) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let out = kubectl.fails(&words, input);
    assert!(out.contains(part), "kubectl {words:?}: no {part:?} in {out}");
}

#[test]
fn objects_are_applied_compared_edited_and_patched() {
    each_release(|node, kubectl, _| {
        let applied = |more: &[&str], value: &str| {
            kubectl.ok_with(&[&["apply", "--server-side", "-f", "-"], more].concat(), &map("m", value))
        };
        assert!(applied(&[], "1").contains("serverside-applied"));
        refused(kubectl, "apply --server-side --field-manager=other -f -", &map("m", "2"), "conflict with \"kubectl\"");
        applied(&["--field-manager=other", "--force-conflicts"], "2");
        assert_eq!(kubectl.ok(&["get", "cm", "m", "-o", "jsonpath={.data.a}"]), "2");
        assert!(kubectl.apply(&map("c", "1")).contains("created"));
        let answer = kubectl.answer(&["diff", "-f", "-"], &map("c", "2"));
        assert!(!answer.ok && answer.stdout.contains("+  a: \"2\""), "{}{}", answer.stdout, answer.stderr);
        let answer = kubectl.answer(&["diff", "-f", "-"], &map("c", "1"));
        assert!(answer.ok && answer.stdout.is_empty(), "{}{}", answer.stdout, answer.stderr);
        edit(node, kubectl);
        for (how, patch) in [
            ("strategic", r#"{"data":{"s":"1"}}"#),
            ("merge", r#"{"data":{"s":null,"m":"1"}}"#),
            ("json", r#"[{"op":"add","path":"/data/j","value":"1"}]"#),
        ] {
            assert!(kubectl.ok(&["patch", "cm", "c", "--type", how, "-p", patch]).contains("patched"));
        }
        let data = kubectl.object("cm", "c").expect("c")["data"].clone();
        assert_eq!(data, serde_json::json!({"a": "edited", "m": "1", "j": "1"}));
        refused(kubectl, "patch cm none -p {}", "", "not found");
        for (what, again) in [("label", "already has a value"), ("annotate", "already has a value")] {
            kubectl.ok(&[what, "cm", "c", "x=1"]);
            assert!(kubectl.answer(&[what, "cm", "c", "x=2"], "").stderr.contains(again));
            kubectl.ok(&[what, "cm", "c", "x=2", "--overwrite"]);
            kubectl.ok(&[what, "cm", "c", "x-"]);
        }
        said(kubectl, "get cm --field-selector metadata.name=c", "c ");
        refused(kubectl, "get pods --field-selector spec.nonsense=1", "", "field label not supported");
        said(kubectl, "get cm --sort-by=.metadata.name -o custom-columns=NAME:.metadata.name,A:.data.a", "edited");
        said(kubectl, "get cm -o jsonpath={.items[?(@.metadata.name==\"c\")].data.j}", "1");
        said(kubectl, "get cm --chunk-size=1", "kube-root-ca.crt");
        said(kubectl, "get --raw /api/v1/namespaces/default/configmaps/c", "\"edited\"");
        assert!(kubectl.ok_with(&["replace", "-f", "-"], &map("c", "9")).contains("replaced"));
        said(kubectl, "delete --raw /api/v1/namespaces/default/configmaps/c", "Success");
        kubectl.ok(&["delete", "cm", "m"]);
    });
}

/// `kubectl edit` with an editor that changes one value.
fn edit(node: &Node, kubectl: &Kubectl) {
    let editor = node.dir.path().join("editor");
    fs::write(&editor, "#!/bin/sh\nexec sed -i 's/  a: .*/  a: edited/' \"$1\"\n").expect("editor");
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).expect("editor");
    let mut command = Command::new(kubectl.program());
    command.env("KUBECONFIG", node.kubeconfig()).env("HOME", node.dir.path()).env("EDITOR", &editor);
    let out = command.args(["edit", "cm", "c"]).output().expect("kubectl edit");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(kubectl.ok(&["get", "cm", "c", "-o", "jsonpath={.data.a}"]), "edited");
}

#[test]
fn deployments_are_rolled_out_back_and_away() {
    each_release(|_, kubectl, registry| {
        let image = registry.image("busybox");
        let rolled = || said(kubectl, "rollout status deployment/d --timeout=120s", "successfully rolled out");
        kubectl.apply(&deployment("d", &image, 1));
        rolled();
        said(kubectl, "set env deployment/d A=b", "env updated");
        rolled();
        said(kubectl, "rollout history deployment/d --revision=2", "Pod Template");
        said(kubectl, "rollout undo deployment/d", "rolled back");
        rolled();
        assert_eq!(
            kubectl.ok(&["get", "deployment", "d", "-o", "jsonpath={.spec.template.spec.containers[0].env}"]),
            ""
        );
        said(kubectl, "rollout undo deployment/d --to-revision=2", "rolled back");
        said(kubectl, "rollout pause deployment/d", "paused");
        refused(kubectl, "rollout restart deployment/d", "", "paused");
        said(kubectl, "rollout resume deployment/d", "resumed");
        said(kubectl, "rollout restart deployment/d", "restarted");
        rolled();
        said(kubectl, "set image deployment/d main=none.test/x:1", "image updated");
        said(kubectl, "rollout undo deployment/d", "rolled back");
        said(kubectl, "scale deployment/d --current-replicas=1 --replicas=2", "scaled");
        refused(kubectl, "scale deployment/d --current-replicas=7 --replicas=1", "", "xpected replicas");
        said(kubectl, "wait --for=condition=Available deployment/d --timeout=120s", "condition met");
        said(kubectl, "expose deployment/d --port=80 --target-port=8080", "exposed");
        // Nothing scales by it yet; it must not break anything either.
        kubectl.answer(&["autoscale", "deployment", "d", "--min=1", "--max=3"], "");
        said(kubectl, "describe deployment d", "Pod Template");
        kubectl.ok(&["delete", "service", "d"]);
        kubectl.answer(&["delete", "hpa", "d"], "");
        kubectl.ok(&["delete", "deployment", "d"]);
        for (how, left) in [("background", false), ("foreground", false), ("orphan", true)] {
            kubectl.apply(&deployment(how, &image, 0));
            let selector = format!("app={how}");
            until("its ReplicaSet", 20, || (!kubectl.objects("rs", &selector).is_empty()).then_some(()));
            kubectl.ok(&["delete", "deployment", how, &format!("--cascade={how}")]);
            if left {
                let sets = kubectl.objects("rs", &selector);
                assert!(sets.len() == 1 && sets[0]["metadata"]["ownerReferences"].is_null(), "{sets:?}");
                kubectl.ok(&["delete", "rs", "-l", &selector]);
            }
            until("no ReplicaSet", 20, || kubectl.objects("rs", &selector).is_empty().then_some(()));
        }
        until("all pods gone", 30, || kubectl.objects("pods", "").is_empty().then_some(()));
    });
}

const ROLE: &str = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r, namespace: default}\nrules: [{apiGroups: [''], resources: [pods], verbs: [list]}]\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: r, namespace: default}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}\nsubjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: ann}]\n";

#[test]
fn users_certificates_and_nodes_are_looked_after() {
    need("openssl", "openssl");
    each_release(|node, kubectl, registry| {
        for kind in ["deployments", "pods", "nodes", "customresourcedefinitions"] {
            said(kubectl, "api-resources", kind);
        }
        said(kubectl, "api-versions", "apps/v1");
        said(kubectl, "auth can-i create pods", "yes");
        said(kubectl, "auth can-i --list", "*.*");
        assert!(kubectl.answer(&["auth", "can-i", "list", "pods", "--as", "ann"], "").stdout.contains("no"));
        let role = node.dir.path().join("role.yaml");
        fs::write(&role, ROLE).expect("role");
        let role = role.to_str().expect("UTF-8");
        for _ in 0..2 {
            assert!(kubectl.ok(&["auth", "reconcile", "-f", role]).contains("reconciled"));
        }
        said(kubectl, "auth can-i list pods --as ann", "yes");
        refused(kubectl, "get cm --as ann", "", "forbidden");
        kubectl.ok(&["delete", "-f", role]);
        if !is_old(kubectl) {
            said(kubectl, "auth whoami", "kubernetes-admin");
            let token = kubectl.ok(&["create", "token", "default", "--duration=10m"]);
            assert_eq!(token.trim().split('.').count(), 3, "{token}");
        }
        // Nobody measures here: a clear word, no crash.
        refused(kubectl, "top nodes", "", "etrics");
        certificates(node.dir.path(), kubectl);
        nodes(node, kubectl, registry);
    });
}

fn certificates(dir: &Path, kubectl: &Kubectl) {
    let (key, csr) = (dir.join("key"), dir.join("csr"));
    let (key, csr) = (key.to_str().expect("UTF-8"), csr.to_str().expect("UTF-8"));
    let new =
        ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=ann"];
    run("openssl", &[&new[..], &["-keyout", key, "-out", csr]].concat());
    let request = run("base64", &["-w0", csr]);
    for name in ["good", "bad"] {
        kubectl.apply(&format!("apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec: {{request: {request}, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}}\n"));
    }
    said(kubectl, "certificate approve good", "approved");
    said(kubectl, "certificate deny bad", "denied");
    let issued = eventually(10, || {
        let certificate = kubectl.ok(&["get", "csr", "good", "-o", "jsonpath={.status.certificate}"]);
        certificate.starts_with("LS0t").then_some(())
    });
    assert!(issued.is_some(), "{}", kubectl.ok(&["get", "csr"]));
    said(kubectl, "get csr", "Approved,Issued");
    kubectl.ok(&["delete", "csr", "good", "bad"]);
}

fn nodes(node: &Node, kubectl: &Kubectl, registry: &Registry) {
    let name = &node.name;
    kubectl.apply(&deployment("drained", &registry.image("busybox"), 1));
    said(kubectl, "rollout status deployment/drained --timeout=60s", "successfully rolled out");
    said(kubectl, &format!("taint nodes {name} k=v:PreferNoSchedule"), "tainted");
    refused(kubectl, &format!("taint nodes {name} k=w:PreferNoSchedule"), "", "overwrite");
    said(kubectl, &format!("taint nodes {name} k=w:PreferNoSchedule --overwrite"), "modified");
    said(kubectl, &format!("taint nodes {name} k-"), "untainted");
    let empty = if is_old(kubectl) { "--delete-local-data" } else { "--delete-emptydir-data" };
    kubectl.ok(&["drain", name, "--ignore-daemonsets", "--force", empty, "--timeout=60s"]);
    said(kubectl, "get nodes", "SchedulingDisabled");
    let waiting = || kubectl.objects("pods", "app=drained").iter().all(|p| p["spec"]["nodeName"].is_null());
    assert!(waiting(), "a drained node gets no pods");
    said(kubectl, &format!("uncordon {name}"), "uncordoned");
    said(kubectl, "rollout status deployment/drained --timeout=60s", "successfully rolled out");
    said(kubectl, &format!("describe node {name}"), "Allocated resources");
    kubectl.ok(&["delete", "deployment", "drained"]);
    until("all pods gone", 30, || kubectl.objects("pods", "").is_empty().then_some(()));
}
