//! The API as clients meet it: real HTTP over an in-memory connection, a real store in a temporary folder, no controllers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod kinds;
mod objects;
mod subresources;
mod wire;

use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use minicp::{Config, Server, SystemClock, UserInfo};
use serde_json::{Value, json};

struct Session {
    server: Server,
    http: SendRequest<Full<Bytes>>,
}

async fn connect(server: &Server, user: UserInfo) -> SendRequest<Full<Bytes>> {
    let (http, connection) = handshake(TokioIo::new(server.connect(user))).await.unwrap();
    tokio::task::spawn_local(connection);
    http
}

async fn start(dir: &std::path::Path) -> Server {
    let mut config = Config::new(dir.into(), "127.0.0.1:0".parse().unwrap());
    config.controllers = false;
    Server::start(config, Rc::new(SystemClock)).await.unwrap_or_else(|e| panic!("{e}"))
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Session) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let server = start(dir.path()).await;
        let http = connect(&server, UserInfo::admin()).await;
        let bounded =
            tokio::time::timeout(std::time::Duration::from_secs(60), test(Session { server: server.clone(), http }))
                .await;
        bounded.expect("the test ends in time");
        server.stop().await;
    });
}

impl Session {
    async fn raw(
        &mut self,
        method: &str,
        path: &str,
        ty: &str,
        accept: &str,
        body: Vec<u8>,
    ) -> (u16, hyper::HeaderMap, Bytes) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", ty)
            .header("accept", accept)
            .header("host", "x");
        let answer = self.http.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes())
    }
    async fn send(&mut self, method: &str, path: &str, ty: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (code, _, bytes) = self.raw(method, path, ty, "application/json", body).await;
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into())))
    }
    async fn get(&mut self, path: &str) -> (u16, Value) {
        self.send("GET", path, "application/json", Value::Null).await
    }
    async fn post(&mut self, path: &str, body: Value) -> (u16, Value) {
        self.send("POST", path, "application/json", body).await
    }
    async fn patch(&mut self, path: &str, how: &str, body: Value) -> (u16, Value) {
        self.send("PATCH", path, &format!("application/{how}"), body).await
    }
    async fn delete(&mut self, path: &str, body: Value) -> (u16, Value) {
        self.send("DELETE", path, "application/json", body).await
    }
    /// The next `n` events of a watch.
    async fn watch(&self, path: &str, n: usize) -> Vec<(String, Value)> {
        let mut http = connect(&self.server, UserInfo::admin()).await;
        let request = Request::builder().uri(path).header("host", "x").body(Full::new(Bytes::new())).unwrap();
        let mut body = http.send_request(request).await.unwrap().into_body();
        let (mut text, mut events) = (Vec::new(), Vec::new());
        while events.len() < n {
            let Some(frame) = body.frame().await else { break };
            text.extend(frame.unwrap().into_data().unwrap());
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                events.push((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
            }
        }
        events
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"n": name}}, "data": {"a": "1"}})
}
