//! Who may do what, as clients of several users meet it: real HTTP over in-memory connections, a real store, no controllers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod admission;
mod keeping;
mod rbac;
mod tokens;

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

fn pod(name: &str, container: Value) -> Value {
    let mut container = container;
    container["name"] = "c".into();
    container["image"] = "i".into();
    json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
}
