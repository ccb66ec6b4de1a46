//! Who may do what, as clients of several users meet it: real HTTP over in-memory connections, a real store, no controllers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use minicp::{Config, Server, SystemClock, UserInfo};
use serde_json::{Value, json};

/// One cluster, asked by many.
struct Cluster {
    server: Server,
    clients: HashMap<String, SendRequest<Full<Bytes>>>,
}

/// An answer.
struct Said {
    code: u16,
    body: Value,
    #[allow(dead_code)]
    warnings: Vec<String>,
}

impl Said {
    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or("")
    }
}

async fn start(dir: &Path) -> Result<Server, minicp::StartError> {
    let mut config = Config::new(dir.into(), "127.0.0.1:0".parse().unwrap());
    config.controllers = false;
    Server::start(config, Rc::new(SystemClock)).await
}

fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(std::time::Duration::from_secs(60), test).await.expect("the test ends in time");
    });
}

/// `files`: what lies in the data folder before the start.
fn run<F: Future<Output = ()>>(files: &[(&str, &str)], test: impl FnOnce(Cluster) -> F) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    local(async {
        let server = start(dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        test(Cluster { server: server.clone(), clients: HashMap::new() }).await;
        server.stop().await;
    });
}

fn admin() -> UserInfo {
    UserInfo::admin()
}

fn ann() -> UserInfo {
    UserInfo::new("ann", &["dev", "system:authenticated"])
}

impl Cluster {
    async fn send(&mut self, user: &UserInfo, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Said {
        let key = format!("{user:?}");
        if self.clients.get(&key).is_none_or(SendRequest::is_closed) {
            let (http, connection) = handshake(TokioIo::new(self.server.connect(user.clone()))).await.unwrap();
            tokio::task::spawn_local(connection);
            self.clients.insert(key.clone(), http);
        }
        let ty = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder().method(method).uri(path).header("host", "x").header("content-type", ty);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let http = self.clients.get_mut(&key).unwrap();
        let answer = http.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = |v: &hyper::header::HeaderValue| v.to_str().unwrap().to_owned();
        Said {
            code: head.status.as_u16(),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            warnings: head.headers.get_all("warning").iter().map(text).collect(),
        }
    }
    async fn get(&mut self, user: &UserInfo, path: &str) -> Said {
        self.send(user, "GET", path, &[], Value::Null).await
    }
    async fn post(&mut self, user: &UserInfo, path: &str, body: Value) -> Said {
        self.send(user, "POST", path, &[], body).await
    }
    async fn patch(&mut self, user: &UserInfo, path: &str, body: Value) -> Said {
        self.send(user, "PATCH", path, &[], body).await
    }
    /// Made by the admin; must go well.
    async fn make(&mut self, path: &str, body: Value) -> Value {
        let said = self.post(&admin(), path, body).await;
        assert_eq!(said.code, 201, "{path}: {}", said.body);
        said.body
    }
    async fn role(&mut self, ns: &str, name: &str, rules: Value) {
        let path = match ns {
            "" => format!("{RBAC}/clusterroles"),
            ns => format!("{RBAC}/namespaces/{ns}/roles"),
        };
        self.make(&path, json!({"metadata": {"name": name}, "rules": rules})).await;
    }
    async fn bind(&mut self, ns: &str, role: &str, kind: &str, user: &str) {
        let (path, role_kind) = match ns {
            "" => (format!("{RBAC}/clusterrolebindings"), "ClusterRole"),
            ns => (format!("{RBAC}/namespaces/{ns}/rolebindings"), "ClusterRole"),
        };
        let body = json!({"metadata": {"generateName": "b-"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
            "subjects": [{"kind": kind, "name": user, "apiGroup": "rbac.authorization.k8s.io"}]});
        self.make(&path, body).await;
    }
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn roles_open_what_they_name() {
    run(&[], |mut c| async move {
        let said = c.get(&ann(), PODS).await;
        assert_eq!(
            (said.code, said.message()),
            (
                403,
                r#"pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default""#
            )
        );
        assert_eq!((&said.body["reason"], &said.body["details"]["kind"]), (&json!("Forbidden"), &json!("pods")));
        let said = c.get(&ann(), "/api/v1/nodes/a").await;
        assert_eq!(
            said.message(),
            r#"nodes "a" is forbidden: User "ann" cannot get resource "nodes" in API group "" at the cluster scope"#
        );
        // What everybody may.
        assert_eq!(c.get(&ann(), "/api/v1").await.code, 200);
        assert_eq!(c.get(&ann(), "/version").await.code, 200);
        let said = c.get(&ann(), "/metrics").await;
        assert_eq!((said.code, said.message()), (403, r#"forbidden: User "ann" cannot get path "/metrics""#));
        // By group, in one namespace; it holds at once.
        c.role("", "reader", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}])).await;
        c.bind("default", "reader", "Group", "dev").await;
        assert_eq!(c.get(&ann(), PODS).await.code, 200);
        assert_eq!(c.get(&ann(), &format!("{PODS}?watch=1&timeoutSeconds=1")).await.code, 403);
        assert_eq!(c.get(&ann(), "/api/v1/pods").await.code, 403);
        assert_eq!(c.get(&ann(), "/api/v1/namespaces/kube-system/pods").await.code, 403);
        // The subresource is another thing.
        let said = c.get(&ann(), &format!("{PODS}/x/log")).await;
        assert!(said.message().contains(r#"cannot get resource "pods/log""#), "{}", said.message());
        // One name.
        c.make(MAPS, json!({"metadata": {"name": "mine"}})).await;
        c.role("", "one", json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get", "list", "watch"]}])).await;
        c.bind("", "one", "User", "ann").await;
        assert_eq!(c.get(&ann(), &format!("{MAPS}/mine")).await.code, 200);
        assert_eq!(c.get(&ann(), &format!("{MAPS}?fieldSelector=metadata.name%3Dmine")).await.code, 200);
        assert_eq!(c.get(&ann(), MAPS).await.code, 403);
        // Taken away again.
        let role = format!("{RBAC}/clusterroles/reader");
        assert_eq!(c.send(&admin(), "DELETE", &role, &[], Value::Null).await.code, 200);
        let said = c.get(&ann(), PODS).await;
        assert!(
            said.message().ends_with(r#": RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found"#),
            "{}",
            said.message()
        );
    });
}

#[test]
fn aggregated_roles_are_what_their_parts_are() {
    run(&[], |mut c| async move {
        c.bind("default", "view", "User", "ann").await;
        // The sum is made by a task that wakes up for it.
        for _ in 0..200 {
            if c.get(&ann(), PODS).await.code == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(c.get(&ann(), PODS).await.code, 200);
        assert_eq!(c.get(&ann(), "/api/v1/namespaces/default/secrets").await.code, 403);
        let widgets = json!([{"apiGroups": ["batch"], "resources": ["cronjobs/status", "x"], "verbs": ["patch"]}]);
        let labels = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
        c.make(
            &format!("{RBAC}/clusterroles"),
            json!({"metadata": {"name": "more", "labels": labels}, "rules": widgets}),
        )
        .await;
        for _ in 0..200 {
            let admin_role = c.get(&admin(), &format!("{RBAC}/clusterroles/admin")).await.body;
            if admin_role["rules"].as_array().unwrap().contains(&widgets[0]) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("through view and edit to admin");
    });
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    run(&[], |mut c| async move {
        let all = json!(["create", "update", "patch", "get"]);
        c.role(
            "",
            "roles",
            json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": all},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]),
        )
        .await;
        c.bind("", "roles", "User", "ann").await;
        let role = |verb: &str| json!({"metadata": {"name": format!("r-{verb}")}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]});
        let roles = format!("{RBAC}/clusterroles");
        assert_eq!(c.post(&ann(), &roles, role("get")).await.code, 201);
        let said = c.post(&ann(), &roles, role("delete")).await;
        assert_eq!(
            (said.code, said.message()),
            (
                403,
                "clusterroles.rbac.authorization.k8s.io \"r-delete\" is forbidden: user \"ann\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
            )
        );
        // Nor by way of a change, an aggregate or a binding.
        let grown = json!({"rules": role("*")["rules"]});
        assert_eq!(c.patch(&ann(), &format!("{roles}/r-get"), grown).await.code, 403);
        assert_eq!(
            c.patch(&ann(), &format!("{roles}/r-get"), json!({"metadata": {"labels": {"a": "b"}}})).await.code,
            200
        );
        let sum = json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
        assert_eq!(c.post(&ann(), &roles, sum).await.code, 403);
        let binding = |role: &str| json!({"metadata": {"name": role}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]});
        let bindings = format!("{RBAC}/namespaces/default/rolebindings");
        assert_eq!(c.post(&ann(), &bindings, binding("cluster-admin")).await.code, 403);
        assert_eq!(c.post(&ann(), &bindings, binding("r-get")).await.code, 201);
        assert_eq!(c.post(&ann(), &bindings, binding("nonesuch")).await.code, 404);
        // Who may bind a role by name need not hold it; who may escalate, anything.
        c.role("", "binder", json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["edit"], "verbs": ["bind"]}])).await;
        c.bind("", "binder", "User", "ann").await;
        assert_eq!(c.post(&ann(), &bindings, binding("edit")).await.code, 201);
        assert_eq!(c.post(&ann(), &bindings, binding("admin")).await.code, 403);
        c.role(
            "",
            "escalator",
            json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["escalate"]}]),
        )
        .await;
        c.bind("", "escalator", "User", "ann").await;
        assert_eq!(c.post(&ann(), &roles, role("delete")).await.code, 201);
    });
}

#[test]
fn reviews_and_impersonation() {
    run(&[], |mut c| async move {
        c.role("", "reader", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}, {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}])).await;
        c.bind("", "reader", "User", "ann").await;
        let me = c.post(&ann(), "/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
        assert_eq!(me.body["status"]["userInfo"]["username"], "ann");
        assert_eq!(me.body["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));
        let ssar = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let can = |verb: &str| json!({"spec": {"resourceAttributes": {"namespace": "default", "resource": "pods", "verb": verb}}});
        let said = c.post(&ann(), ssar, can("list")).await;
        assert_eq!(said.body["status"]["allowed"], true, "{}", said.body);
        assert!(said.body["status"]["reason"].as_str().unwrap().starts_with("RBAC: allowed by ClusterRoleBinding"));
        assert_eq!(c.post(&ann(), ssar, can("get")).await.body["status"]["allowed"], false);
        let path = |path: &str| json!({"spec": {"nonResourceAttributes": {"path": path, "verb": "get"}}});
        assert_eq!(c.post(&ann(), ssar, path("/metrics")).await.body["status"]["allowed"], true);
        assert_eq!(c.post(&ann(), ssar, path("/logs")).await.body["status"]["allowed"], false);
        assert_eq!(c.post(&ann(), ssar, json!({"spec": {}})).await.code, 422);
        let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
        let said = c.post(&ann(), rules, json!({"spec": {"namespace": "default"}})).await;
        let listed = said.body["status"]["resourceRules"].as_array().unwrap();
        assert!(
            listed.contains(&json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]})),
            "{}",
            said.body
        );
        // About others.
        let sar = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let about = json!({"spec": {"user": "ann", "resourceAttributes": {"resource": "pods", "verb": "list"}}});
        assert_eq!(c.post(&ann(), sar, about.clone()).await.code, 403);
        assert_eq!(c.post(&admin(), sar, about.clone()).await.body["status"]["allowed"], true);
        let local = "/apis/authorization.k8s.io/v1/namespaces/kube-system/localsubjectaccessreviews";
        let mut inside = about.clone();
        inside["spec"]["resourceAttributes"]["namespace"] = "kube-system".into();
        assert_eq!(c.post(&admin(), local, inside).await.body["status"]["allowed"], true);
        assert_eq!(c.post(&admin(), local, about).await.code, 422);
        // As another.
        let said = c.send(&admin(), "GET", "/api/v1/secrets", &[("Impersonate-User", "ann")], Value::Null).await;
        assert!(said.message().contains("User \"ann\" cannot list"), "{}", said.message());
        let said = c.send(&ann(), "GET", "/api/v1/secrets", &[("Impersonate-User", "bob")], Value::Null).await;
        assert_eq!(
            said.message(),
            r#"users "bob" is forbidden: User "ann" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        c.role(
            "",
            "as-dev",
            json!([{"apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"], "verbs": ["impersonate"]}]),
        )
        .await;
        c.bind("", "as-dev", "User", "ann").await;
        let as_bob = |group: &'static str| [("Impersonate-User", "bob"), ("Impersonate-Group", group)];
        let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let said = c.send(&ann(), "POST", whoami, &as_bob("")[..1], json!({})).await;
        assert_eq!(said.body["status"]["userInfo"], json!({"username": "bob", "groups": ["system:authenticated"]}));
        let said = c.send(&ann(), "POST", whoami, &as_bob("system:masters"), json!({})).await;
        assert!(said.message().starts_with(r#"groups "system:masters" is forbidden"#), "{}", said.message());
    });
}

#[test]
fn nodes_see_what_their_pods_name() {
    run(&[], |mut c| async move {
        let (node, other) = (UserInfo::node("n"), UserInfo::node("m"));
        let secrets = "/api/v1/namespaces/default/secrets";
        for name in ["used", "unused"] {
            c.make(secrets, json!({"metadata": {"name": name}, "data": {"a": "YQ=="}})).await;
        }
        c.make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        assert_eq!(c.post(&node, "/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.code, 201);
        let said = c.post(&node, "/api/v1/nodes", json!({"metadata": {"name": "m"}})).await;
        assert_eq!(said.message(), r#"nodes "m" is forbidden: node "n" is not allowed to modify node "m""#);
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "used"}}]}]}});
        let pod = c.make(PODS, pod).await;
        assert_eq!(c.get(&node, &format!("{secrets}/used")).await.code, 200);
        for (user, path) in
            [(&node, format!("{secrets}/unused")), (&other, format!("{secrets}/used")), (&node, secrets.to_owned())]
        {
            assert_eq!(c.get(user, &path).await.code, 403, "{path}");
        }
        let said = c.get(&other, &format!("{secrets}/used")).await;
        assert!(
            said.message().ends_with("no relationship found between node 'm' and this object"),
            "{}",
            said.message()
        );
        assert_eq!(c.get(&node, &format!("{PODS}/p")).await.code, 200);
        assert_eq!(c.get(&other, &format!("{PODS}/p")).await.code, 403);
        assert_eq!(c.get(&node, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn").await.code, 200);
        assert_eq!(c.get(&node, "/api/v1/pods?fieldSelector=spec.nodeName%3Dm").await.code, 403);
        assert_eq!(c.get(&node, "/api/v1/pods").await.code, 403);
        assert_eq!(c.get(&node, "/apis/discovery.k8s.io/v1/endpointslices").await.code, 200);
        let status = json!({"status": {"phase": "Running"}});
        assert_eq!(c.patch(&node, &format!("{PODS}/p/status"), status.clone()).await.code, 200);
        let said = c.patch(&other, &format!("{PODS}/p/status"), status).await;
        assert!(
            said.message().contains("can only update pod status for pods with spec.nodeName set to itself"),
            "{}",
            said.message()
        );
        assert_eq!(c.send(&other, "DELETE", &format!("{PODS}/p"), &[], Value::Null).await.code, 403);
        assert_eq!(
            c.patch(
                &node,
                "/api/v1/nodes/n",
                json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}})
            )
            .await
            .code,
            403
        );
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        assert_eq!(c.post(&node, leases, json!({"metadata": {"name": "n"}})).await.code, 201);
        assert_eq!(c.post(&node, leases, json!({"metadata": {"name": "m"}})).await.code, 403);
        // Tokens of its own pods.
        let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
        let bound = |uid: &Value| json!({"spec": {"audiences": [], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
        assert_eq!(c.post(&node, tokens, bound(&pod["metadata"]["uid"])).await.code, 201);
        assert_eq!(c.post(&other, tokens, bound(&pod["metadata"]["uid"])).await.code, 403);
        assert_eq!(c.post(&node, tokens, bound(&json!("other"))).await.code, 403);
        assert_eq!(c.post(&node, tokens, json!({"spec": {"audiences": []}})).await.code, 403);
    });
}

fn pod(name: &str, container: Value) -> Value {
    let mut container = container;
    container["name"] = "c".into();
    container["image"] = "i".into();
    json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
}

#[test]
fn quotas_hold_against_many_at_once() {
    run(&[], |mut c| async move {
        let quotas = "/api/v1/namespaces/default/resourcequotas";
        c.make(quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "3", "count/configmaps": "2"}}}))
            .await;
        let mut posts = tokio::task::JoinSet::new();
        for n in 0..12 {
            let server = c.server.clone();
            posts.spawn_local(async move {
                let mut one = Cluster { server, clients: HashMap::new() };
                one.post(&admin(), PODS, pod(&format!("p{n}"), json!({}))).await.code
            });
        }
        let mut codes = Vec::new();
        while let Some(code) = posts.join_next().await {
            codes.push(code.unwrap());
        }
        codes.sort_unstable();
        assert_eq!(codes, [[201; 3].as_slice(), &[403; 9]].concat());
        let said = c.post(&admin(), PODS, pod("late", json!({}))).await;
        assert_eq!(
            said.message(),
            "pods \"late\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"
        );
        assert_eq!(c.post(&admin(), &format!("{PODS}?dryRun=All"), pod("late", json!({}))).await.code, 403);
        assert_eq!(c.get(&admin(), &format!("{quotas}/q")).await.body["status"]["used"]["pods"], "3");
        // What goes makes room, a moment later.
        let pods = c.get(&admin(), PODS).await.body;
        let name = pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(c.send(&admin(), "DELETE", &format!("{PODS}/{name}"), &[], Value::Null).await.code, 200);
        for _ in 0..200 {
            if c.get(&admin(), &format!("{quotas}/q")).await.body["status"]["used"]["pods"] == "2" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(c.post(&admin(), PODS, pod("late", json!({}))).await.code, 201);
        // Other kinds, and what must be said.
        for (n, code) in [(1, 201), (2, 201), (3, 403)] {
            assert_eq!(c.post(&admin(), MAPS, json!({"metadata": {"name": format!("m{n}")}})).await.code, code, "{n}");
        }
        c.make("/api/v1/namespaces", json!({"metadata": {"name": "b"}})).await;
        c.make(
            "/api/v1/namespaces/b/resourcequotas",
            json!({"metadata": {"name": "cpu"}, "spec": {"hard": {"requests.cpu": "1"}}}),
        )
        .await;
        let said = c.post(&admin(), "/api/v1/namespaces/b/pods", pod("p", json!({}))).await;
        assert_eq!(said.message(), "pods \"p\" is forbidden: failed quota: cpu: must specify requests.cpu for: c");
        let big = json!({"resources": {"requests": {"cpu": "1500m"}}});
        let said = c.post(&admin(), "/api/v1/namespaces/b/pods", pod("p", big)).await;
        assert_eq!(
            said.message(),
            "pods \"p\" is forbidden: exceeded quota: cpu, requested: requests.cpu=1500m, used: requests.cpu=0, limited: requests.cpu=1"
        );
    });
}

#[test]
fn limit_ranges_fill_and_refuse() {
    run(&[], |mut c| async move {
        let item = json!({"type": "Container", "default": {"cpu": "200m"}, "defaultRequest": {"memory": "16Mi"}, "max": {"cpu": "1"}});
        c.make(
            "/api/v1/namespaces/default/limitranges",
            json!({"metadata": {"name": "l"}, "spec": {"limits": [item]}}),
        )
        .await;
        let made = c.make(PODS, pod("p", json!({}))).await;
        assert_eq!(
            made["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "200m", "memory": "16Mi"}})
        );
        assert_eq!(made["status"]["qosClass"], "Burstable");
        let said = c.post(&admin(), PODS, pod("q", json!({"resources": {"limits": {"cpu": "2"}}}))).await;
        assert_eq!(
            said.message(),
            "pods \"q\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2]".replace(['[', ']'], "")
        );
    });
}

#[test]
fn pod_security_enforces_and_warns() {
    run(&[], |mut c| async move {
        let labels = |mode: &str, level: &str| json!({"metadata": {"labels": {format!("pod-security.kubernetes.io/{mode}"): level}}});
        let ns = "/api/v1/namespaces/default";
        c.make(PODS, pod("old", json!({"securityContext": {"privileged": true}}))).await;
        let said = c.patch(&admin(), ns, labels("enforce", "baseline")).await;
        assert_eq!(said.code, 200);
        let warned = said.warnings.join("\n");
        assert!(warned.contains("existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\""), "{warned}");
        assert!(warned.contains("old: privileged"), "{warned}");
        let said = c.post(&admin(), PODS, pod("p", json!({"securityContext": {"privileged": true}}))).await;
        assert_eq!(
            said.message(),
            r#"pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)"#
        );
        c.patch(&admin(), ns, labels("warn", "restricted")).await;
        let said = c.post(&admin(), PODS, pod("p", json!({}))).await;
        assert_eq!(said.code, 201, "{}", said.body);
        assert!(said.warnings[0].contains("would violate PodSecurity"), "{:?}", said.warnings);
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("x", json!({"securityContext": {"privileged": true}}))["spec"]});
        let deployment =
            json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
        let said = c.post(&admin(), "/apis/apps/v1/namespaces/default/deployments", deployment).await;
        assert_eq!((said.code, said.warnings.len()), (201, 1), "{}", said.body);
        let said = c.patch(&admin(), ns, labels("enforce", "strict")).await;
        assert_eq!(said.code, 422);
        assert!(said.message().contains("must be one of privileged, baseline, restricted"), "{}", said.message());
    });
}

#[test]
fn pods_get_their_account_and_priority() {
    run(&[], |mut c| async move {
        let made = c.make(PODS, pod("p", json!({}))).await;
        assert_eq!(made["spec"]["serviceAccountName"], "default");
        let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
        assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
        assert_eq!(made["spec"]["volumes"][0]["name"], mount["name"]);
        let mut other = pod("q", json!({}));
        other["spec"]["serviceAccountName"] = "robot".into();
        let said = c.post(&admin(), PODS, other.clone()).await;
        assert_eq!(
            said.message(),
            "pods \"q\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
        );
        let account = json!({"metadata": {"name": "robot"}, "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "pull"}]});
        c.make("/api/v1/namespaces/default/serviceaccounts", account).await;
        let made = c.make(PODS, other).await;
        assert_eq!(
            (&made["spec"]["volumes"], &made["spec"]["imagePullSecrets"][0]["name"]),
            (&Value::Null, &json!("pull"))
        );
        let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
        let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"});
        c.make(classes, class("usual", 7, true)).await;
        assert_eq!(c.post(&admin(), classes, class("usual2", 8, true)).await.code, 403);
        let made = c.make(PODS, pod("r", json!({}))).await;
        assert_eq!(
            (&made["spec"]["priority"], &made["spec"]["priorityClassName"], &made["spec"]["preemptionPolicy"]),
            (&json!(7), &json!("usual"), &json!("Never"))
        );
        let mut odd = pod("s", json!({}));
        odd["spec"]["priorityClassName"] = "nonesuch".into();
        let said = c.post(&admin(), PODS, odd).await;
        assert_eq!(said.message(), "pods \"s\" is forbidden: no PriorityClass with name nonesuch was found");
    });
}

/// A pod that runs as `default`, and a token bound to it.
async fn bound_token(c: &mut Cluster) -> (String, String) {
    let made = c.make(PODS, pod("p", json!({}))).await;
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    let request = json!({"spec": {"expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
    let made = c.make("/api/v1/namespaces/default/serviceaccounts/default/token", request).await;
    assert!(made["status"]["expirationTimestamp"].is_string());
    (made["status"]["token"].as_str().unwrap().to_owned(), uid)
}

#[test]
fn account_tokens_live_as_long_as_what_they_are_bound_to() {
    run(&[], |mut c| async move {
        let (token, uid) = bound_token(&mut c).await;
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        let review = |token: &str| json!({"spec": {"token": token}});
        let said = c.post(&admin(), reviews, review(&token)).await.body;
        assert_eq!(said["status"]["user"]["username"], "system:serviceaccount:default:default", "{said}");
        assert_eq!(said["status"]["user"]["extra"]["authentication.kubernetes.io/pod-uid"], json!([uid]));
        let mut for_others = review(&token);
        for_others["spec"]["audiences"] = json!(["vault"]);
        assert_eq!(c.post(&admin(), reviews, for_others).await.body["status"]["authenticated"], false);
        assert_eq!(c.post(&admin(), reviews, review("nonsense")).await.body["status"], json!({"authenticated": false}));
        let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
        for (spec, code) in [
            (json!({"expirationSeconds": 60}), 422),
            (json!({"boundObjectRef": {"kind": "Pod", "name": "none"}}), 404),
            (json!({"boundObjectRef": {"kind": "Pod", "name": "p", "uid": "other"}}), 409),
            (json!({"boundObjectRef": {"kind": "Service", "name": "p"}}), 400),
            (json!({"audiences": ["vault"]}), 201),
        ] {
            assert_eq!(c.post(&admin(), tokens, json!({"spec": spec})).await.code, code, "{spec}");
        }
        // Its keys are published.
        let keys = c.get(&admin(), "/openid/v1/jwks").await.body;
        assert_eq!(keys["keys"][0]["alg"], "ES256");
        let said = c.get(&admin(), "/.well-known/openid-configuration").await.body;
        assert_eq!(said["issuer"], "https://kubernetes.default.svc.cluster.local");
        // Gone with its pod, though its signature still holds.
        c.send(&admin(), "DELETE", &format!("{PODS}/p"), &[], Value::Null).await;
        let said = c.post(&admin(), reviews, review(&token)).await.body;
        assert_eq!(said["status"]["error"], "service account token has been invalidated");
    });
}

#[test]
fn what_was_done_is_on_record() {
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n  resources: [{group: '', resources: [secrets]}]\n- level: Request\n  verbs: [create]\n  resources: [{group: '', resources: [configmaps]}]\n";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("audit-policy.yaml"), policy).unwrap();
    local(async {
        let server = start(dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        let mut c = Cluster { server: server.clone(), clients: HashMap::new() };
        c.make("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}, "stringData": {"p": "hush"}}))
            .await;
        c.make(MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await;
        c.get(&admin(), MAPS).await;
        c.send(&admin(), "GET", "/api/v1/namespaces/default/secrets/s", &[("Impersonate-User", "ann")], Value::Null)
            .await;
        let path = dir.path().join("audit.log");
        let mut events: Vec<Value> = Vec::new();
        for _ in 0..200 {
            let text = std::fs::read_to_string(&path).unwrap();
            events = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            if events.len() >= 3 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(events.len(), 3, "{events:?}");
        assert!(!events[0].to_string().contains("hush") && events[0].get("requestObject").is_none());
        assert_eq!((&events[1]["level"], &events[1]["requestObject"]["data"]["a"]), (&json!("Request"), &json!("1")));
        assert_eq!((&events[1]["verb"], &events[1]["objectRef"]["resource"]), (&json!("create"), &json!("configmaps")));
        assert_eq!(
            (&events[2]["user"]["username"], &events[2]["impersonatedUser"]["username"]),
            (&json!("kubernetes-admin"), &json!("ann"))
        );
        assert_eq!(events[2]["responseStatus"]["code"], 403);
        server.stop().await;
    });
}

#[test]
fn secrets_are_sealed_on_disk_and_keys_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let config = |providers: &str| {
        let text =
            format!("kind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{providers}");
        std::fs::write(dir.path().join("encryption.yaml"), text).unwrap();
    };
    let key = |name: &str, letter: &str| {
        format!("  - aesgcm: {{keys: [{{name: {name}, secret: {}A=}}]}}\n", letter.repeat(42))
    };
    let secret = "/api/v1/namespaces/default/secrets/s";
    let on_disk = |word: &[u8]| {
        let files =
            std::fs::read_dir(dir.path().join("store")).unwrap().map(|f| std::fs::read(f.unwrap().path()).unwrap());
        files.filter(|bytes| bytes.windows(word.len()).any(|w| w == word)).count() > 0
    };
    local(async {
        // base64 of "hush-hush"
        let plain = "aHVzaC1odXNo";
        config(&key("a", "A"));
        let server = start(dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        let mut c = Cluster { server: server.clone(), clients: HashMap::new() };
        c.make("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}, "data": {"p": plain}})).await;
        c.make(MAPS, json!({"metadata": {"name": "m"}, "data": {"p": "in-the-open"}})).await;
        assert_eq!(c.get(&admin(), secret).await.body["data"]["p"], plain);
        let listed = c.get(&admin(), "/api/v1/secrets").await.body;
        assert_eq!(listed["items"][0]["data"]["p"], plain);
        c.patch(&admin(), secret, json!({"metadata": {"labels": {"a": "b"}}})).await;
        server.stop().await;
        assert!(!on_disk(plain.as_bytes()) && on_disk(b"in-the-open") && on_disk(b"k8s:enc:aesgcm:v1:a:"));
        // Another key in front: everything is sealed with it at the start, and the old one may go.
        config(&(key("b", "B") + &key("a", "A")));
        start(dir.path()).await.unwrap_or_else(|e| panic!("{e}")).stop().await;
        config(&key("b", "B"));
        let server = start(dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        let mut c = Cluster { server: server.clone(), clients: HashMap::new() };
        let got = c.get(&admin(), secret).await.body;
        assert_eq!((&got["data"]["p"], &got["metadata"]["labels"]["a"]), (&json!(plain), &json!("b")));
        server.stop().await;
        // A lost key is said at the start.
        config(&key("c", "C"));
        let error = start(dir.path()).await.err().unwrap().to_string();
        assert!(error.contains("/registry/core/secrets/default/s is encrypted"), "{error}");
        std::fs::remove_file(dir.path().join("encryption.yaml")).unwrap();
        let error = start(dir.path()).await.err().unwrap().to_string();
        assert!(error.contains("there is no encryption.yaml"), "{error}");
    });
}

#[test]
fn a_crowd_of_one_user_does_not_starve_a_node() {
    run(&[], |mut c| async move {
        let values: String = "x".repeat(20_000);
        for n in 0..100 {
            c.make(MAPS, json!({"metadata": {"name": format!("m{n}")}, "data": {"a": values}})).await;
        }
        c.role("", "reader", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}])).await;
        c.bind("", "reader", "User", "ann").await;
        let done = Rc::new(std::cell::Cell::new(0));
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (server, done) = (c.server.clone(), done.clone());
            crowd.spawn_local(async move {
                let mut one = Cluster { server, clients: HashMap::new() };
                // A selector makes the server look into every object.
                assert_eq!(one.get(&ann(), &format!("{MAPS}?labelSelector=x%3Dy")).await.code, 200);
                done.set(done.get() + 1);
            });
        }
        // All of them have asked; then the node does.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let node = UserInfo::node("n");
        assert_eq!(c.get(&node, "/api/v1/nodes").await.code, 200);
        assert!(done.get() < 150, "the node was served after {} of 200", done.get());
        while let Some(one) = crowd.join_next().await {
            one.unwrap();
        }
    });
}

#[test]
fn static_and_bootstrap_tokens_are_known() {
    run(&[("token-auth.csv", "fixed-token,bob,7,\"dev,ops\"\n")], |mut c| async move {
        let secret = |more: Value| {
            let mut data = json!({"token-id": "abc123", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:farm,system:masters"});
            data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"metadata": {"name": "bootstrap-token-abc123"}, "type": "bootstrap.kubernetes.io/token", "stringData": data})
        };
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        let review = |token: &str| json!({"spec": {"token": token}});
        let said = c.post(&admin(), reviews, review("fixed-token")).await.body;
        assert_eq!(said["status"]["user"]["username"], "bob", "{said}");
        assert_eq!(said["status"]["user"]["groups"], json!(["dev", "ops", "system:authenticated"]));
        let secrets = "/api/v1/namespaces/kube-system/secrets";
        let token = "abc123.0123456789abcdef";
        for (more, good) in [
            (json!({}), true),
            (json!({"expiration": "2001-01-01T00:00:00Z"}), false),
            (json!({"expiration": "2101-01-01T00:00:00Z"}), true),
            (json!({"expiration": "soon"}), false),
            (json!({"usage-bootstrap-authentication": "false"}), false),
            (json!({"token-secret": "0123456789abcdee"}), false),
        ] {
            c.make(secrets, secret(more.clone())).await;
            let said = c.post(&admin(), reviews, review(token)).await.body;
            assert_eq!(said["status"]["authenticated"], good, "{more}");
            if good {
                // A group of the cluster's own is not a Secret's to give.
                let groups = json!(["system:bootstrappers", "system:authenticated", "system:bootstrappers:farm"]);
                assert_eq!(said["status"]["user"]["groups"], groups);
            }
            c.send(&admin(), "DELETE", &format!("{secrets}/bootstrap-token-abc123"), &[], Value::Null).await;
        }
    });
}
