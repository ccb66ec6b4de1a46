//! Pods, Services and nodes behind the API server: `kubectl get --raw` and `kubectl proxy`.

use std::process::{Command, Stdio};

use crate::harness::node::pod_ip;
use crate::harness::{Node, Registry, http, until};

const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: IMAGE
    ports: [{name: http, containerPort: 8080}]
    command: [sh, -c, 'mkdir -p /pages/sub; echo front > /pages/index.html; echo below > /pages/sub/index.html; exec httpd -f -p 8080 -h /pages']
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: www, port: 80, targetPort: http}]
"#;

#[test]
fn pods_services_and_nodes_answer_through_the_server() {
    let (registry, node) = (Registry::with_images(), Node::up());
    let kubectl = node.kubectl();
    kubectl.apply(&WEB.replace("IMAGE", &registry.image("busybox")));
    let pod = node.wait_pod_ready("web", 30);
    until("the pod's page", 10, || http::get(pod_ip(&pod), 8080, "/"));
    until("the Service's endpoint", 10, || {
        let endpoints = kubectl.object("endpoints", "web")?;
        endpoints["subsets"][0]["addresses"][0]["ip"].is_string().then_some(())
    });
    let base = "/api/v1/namespaces/default";
    for (path, want) in [
        ("pods/web/proxy/", "front\n"),
        ("pods/web:8080/proxy/index.html", "front\n"),
        ("pods/http:web:8080/proxy/sub/?x=1", "below\n"),
        ("services/web/proxy/", ""),
        ("services/web:80/proxy/sub/", "below\n"),
        ("services/web:www/proxy/", "front\n"),
        ("services/http:web:www/proxy/sub/index.html", "below\n"),
    ] {
        let path = format!("{base}/{path}");
        if want.is_empty() {
            // Of a named port the name has to be said, as upstream wants it.
            assert!(kubectl.fails(&["get", "--raw", &path], "").contains("no endpoints available"), "{path}");
            continue;
        }
        assert_eq!(kubectl.ok(&["get", "--raw", &path]), want, "{path}");
    }
    let missing = kubectl.fails(&["get", "--raw", &format!("{base}/pods/web/proxy/none")], "");
    assert!(missing.contains("NotFound") || missing.contains("not find"), "{missing}");
    assert!(kubectl.fails(&["get", "--raw", &format!("{base}/pods/web:1/proxy/")], "").contains("refused"));
    assert_eq!(kubectl.ok(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/healthz", node.name)]), "ok");
    // A folder without its slash is sent to where its relative links are right, below the server's path.
    let port = node.slot.port(7);
    let mut proxy = Command::new(kubectl.program())
        .env("KUBECONFIG", node.kubeconfig())
        .args(["proxy", "--port", &port.to_string()])
        .stdout(Stdio::null())
        .spawn()
        .expect("kubectl proxy");
    let page = std::panic::catch_unwind(|| {
        let front =
            until("kubectl proxy", 15, || http::get("127.0.0.1", port, &format!("{base}/services/web:www/proxy/")));
        let out = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "--noproxy", "*"])
            .arg(format!("http://127.0.0.1:{port}{base}/pods/web/proxy/sub"))
            .output()
            .expect("curl");
        (front, String::from_utf8_lossy(&out.stdout).into_owned())
    });
    let _ = proxy.kill();
    let _ = proxy.wait();
    let (front, moved) = page.expect("kubectl proxy");
    assert_eq!(front, "front\n");
    assert!(moved.starts_with("30") && moved.contains("/api/v1/namespaces/default/pods/web/proxy/sub/"), "{moved}");
    kubectl.ok(&["delete", "pod,service", "web"]);
}
