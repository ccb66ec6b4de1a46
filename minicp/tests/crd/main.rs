//! Custom resources as clients meet them: real HTTP over an in-memory connection, a real store in a temporary folder.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod definitions;
mod objects;

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use minicp::{Config, Server, SystemClock, UserInfo};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
const WAIT_SECONDS: u64 = 60;

struct Session {
    server: Server,
    http: SendRequest<Full<Bytes>>,
}

async fn start(dir: &Path, controllers: bool) -> Session {
    let mut config = Config::new(dir.into(), "127.0.0.1:0".parse().unwrap());
    config.controllers = controllers;
    let server = Server::start(config, Rc::new(SystemClock)).await.unwrap_or_else(|e| panic!("{e}"));
    let http = connect(&server).await;
    Session { server, http }
}

async fn connect(server: &Server) -> SendRequest<Full<Bytes>> {
    let (http, connection) = handshake(TokioIo::new(server.connect(UserInfo::admin()))).await.unwrap();
    tokio::task::spawn_local(connection);
    http
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(WAIT_SECONDS), test).await.expect("the test ends in time");
    });
}

impl Session {
    async fn raw(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, HeaderMap, Bytes) {
        let mut request = Request::builder().method(method).uri(path).header("host", "x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = self.http.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes())
    }
    async fn send(&mut self, method: &str, path: &str, ty: &str, body: Value) -> (u16, Value) {
        let headers = [("content-type", ty), ("accept", "application/json")];
        let (code, _, bytes) = self.raw(method, path, &headers, &body).await;
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }
    async fn get(&mut self, path: &str) -> (u16, Value) {
        self.send("GET", path, "", Value::Null).await
    }
    async fn post(&mut self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, "application/json", body).await
    }
    async fn patch(&mut self, path: &str, how: &str, body: Value) -> (u16, Value) {
        self.send("PATCH", path, &format!("application/{how}"), body).await
    }
    async fn delete(&mut self, path: &str) -> (u16, Value) {
        self.send("DELETE", path, "", Value::Null).await
    }
    /// Asks until `is` holds of the answer.
    async fn until(&mut self, path: &str, is: impl Fn(u16, &Value) -> bool) -> Value {
        let mut last = (0, Value::Null);
        for _ in 0..500 {
            last = self.get(path).await;
            if is(last.0, &last.1) {
                return last.1;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{path}: {last:?}");
    }
    async fn define(&mut self, crd: Value) {
        let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
        let (code, told) = self.post(DEFINITIONS, crd).await;
        assert_eq!(code, 201, "{told}");
        self.until(&format!("{DEFINITIONS}/{name}"), |_, c| condition(c, "Established") == "True").await;
    }
}

fn condition<'a>(crd: &'a Value, ty: &str) -> &'a str {
    let conditions = crd["status"]["conditions"].as_array();
    conditions.and_then(|c| c.iter().find(|c| c["type"] == ty)).and_then(|c| c["status"].as_str()).unwrap_or("")
}

fn definition() -> Value {
    let spec = json!({"type": "object", "required": ["cron"], "properties": {
        "cron": {"type": "string", "description": "when", "pattern": "^\\S+$"},
        "replicas": {"type": "integer", "minimum": 1, "default": 1},
        "color": {"type": "string"},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
            "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}},
    }});
    let status =
        json!({"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                    "additionalPrinterColumns": [{"name": "Cron", "type": "string", "jsonPath": ".spec.cron"}, {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"cron": {"type": "string"}}}}}}},
            ],
        },
    })
}

fn tab(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}
