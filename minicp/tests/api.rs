//! The API as clients meet it: real HTTP over an in-memory connection, a real store in a temporary folder, no controllers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

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

#[test]
fn create_read_update_delete() {
    run(|mut s| async move {
        let (code, made) = s.post(MAPS, map("a")).await;
        assert_eq!(code, 201, "{made}");
        assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
        let (code, status) = s.post(MAPS, map("a")).await;
        assert_eq!(
            (code, status["reason"].as_str(), status["message"].as_str()),
            (409, Some("AlreadyExists"), Some("configmaps \"a\" already exists"))
        );
        let (_, got) = s.get(&format!("{MAPS}/a")).await;
        assert_eq!(got["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
        let mut next = got.clone();
        next["data"]["a"] = "2".into();
        let (code, updated) = s.send("PUT", &format!("{MAPS}/a"), "application/json", next.clone()).await;
        assert_eq!((code, &updated["data"]["a"]), (200, &json!("2")));
        // The version we hold is old by now.
        next["data"]["a"] = "3".into();
        assert_eq!(s.send("PUT", &format!("{MAPS}/a"), "application/json", next.clone()).await.0, 409);
        next["metadata"]["resourceVersion"] = Value::Null;
        assert_eq!(s.send("PUT", &format!("{MAPS}/a"), "application/json", next).await.0, 200);
        let (code, _) = s.delete(&format!("{MAPS}/a"), json!({"preconditions": {"uid": "other"}})).await;
        assert_eq!(code, 409);
        let (code, status) = s.delete(&format!("{MAPS}/a"), Value::Null).await;
        assert_eq!((code, status["status"].as_str()), (200, Some("Success")));
        let (code, status) = s.get(&format!("{MAPS}/a")).await;
        assert_eq!((code, status["message"].as_str()), (404, Some("configmaps \"a\" not found")));
    });
}

#[test]
fn bad_requests_are_told_why() {
    run(|mut s| async move {
        let pods = "/api/v1/namespaces/default/pods";
        let pod = |name: &str, field: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "a", field: "x"}]}});
        for (path, body, code, message) in [
            (MAPS.to_owned(), map("Bad_Name"), 422, "Invalid value"),
            (MAPS.to_owned(), json!([]), 400, "object"),
            (MAPS.to_owned(), json!({"kind": "Pod", "apiVersion": "v1"}), 400, "cannot be handled as a ConfigMap"),
            ("/api/v1/namespaces/nowhere/configmaps".to_owned(), map("a"), 404, "namespaces \"nowhere\" not found"),
            (
                format!("{pods}?fieldValidation=Strict"),
                pod("p", "imagee"),
                400,
                "unknown field \"spec.containers[0].imagee\"",
            ),
            (format!("{MAPS}?dryRun=Some"), map("a"), 400, "dryRun"),
            (
                "/apis/apps/v1/namespaces/default/nonsense".to_owned(),
                map("a"),
                404,
                "could not find the requested resource",
            ),
        ] {
            let (got, status) = s.post(&path, body).await;
            assert_eq!(got, code, "{path}: {status}");
            assert!(status["message"].as_str().unwrap().contains(message), "{path}: {status}");
        }
        assert_eq!(s.raw("POST", MAPS, "text/csv", "*/*", b"a,b".to_vec()).await.0, 415);
        assert_eq!(s.raw("POST", MAPS, "application/json", "*/*", b"{\"a\":".to_vec()).await.0, 400);
        assert_eq!(s.raw("POST", MAPS, "application/json", "*/*", vec![b' '; (3 << 20) + 1]).await.0, 413);
        let warned = s
            .raw(
                "POST",
                &format!("{pods}?fieldValidation=Warn"),
                "application/json",
                "*/*",
                pod("w", "imagee").to_string().into_bytes(),
            )
            .await;
        assert!(warned.0 == 422 || warned.1.contains_key("warning"), "{} {:?}", warned.0, warned.2);
        assert_eq!(s.raw("GET", MAPS, "", "image/png", Vec::new()).await.0, 406);
    });
}

#[test]
fn lists_page_through_one_revision() {
    run(|mut s| async move {
        for n in 0..5 {
            s.post(MAPS, map(&format!("m{n}"))).await;
        }
        let (_, first) = s.get(&format!("{MAPS}?limit=2")).await;
        assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
        assert_eq!(first["metadata"]["remainingItemCount"], 3);
        s.delete(&format!("{MAPS}/m3"), Value::Null).await;
        let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
        let (_, rest) = s.get(&format!("{MAPS}?limit=10&continue={token}")).await;
        let names: Vec<_> =
            rest["items"].as_array().unwrap().iter().map(|m| m["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["m2", "m3", "m4"], "as it was when the list began");
        assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        let (_, some) = s.get(&format!("{MAPS}?labelSelector=n%20in%20(m1,m4)&limit=1")).await;
        assert_eq!(some["items"][0]["metadata"]["name"], "m1");
        let (_, one) = s.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm4")).await;
        assert_eq!(one["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(s.get(&format!("{MAPS}?continue=%21%21")).await.0, 400);
        let (_, gone) = s.delete(&format!("{MAPS}?labelSelector=n%3Dm1"), Value::Null).await;
        assert_eq!(gone["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(s.get(MAPS).await.1["items"].as_array().map(Vec::len), Some(3));
    });
}

#[test]
fn patches_and_scale() {
    run(|mut s| async move {
        let path = "/apis/apps/v1/namespaces/default/deployments";
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:1"}]}});
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
        let (code, made) = s.post(path, deployment).await;
        assert_eq!((code, &made["metadata"]["generation"]), (201, &json!(1)), "{made}");
        let one = format!("{path}/d");
        let (_, new) = s
            .patch(
                &one,
                "strategic-merge-patch+json",
                json!({"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "j:2"}]}}}}),
            )
            .await;
        assert_eq!(new["spec"]["template"]["spec"]["containers"][0]["image"], "i:1");
        assert_eq!(new["spec"]["template"]["spec"]["containers"][1]["image"], "j:2");
        assert_eq!(new["metadata"]["generation"], 2);
        let (_, new) = s.patch(&one, "merge-patch+json", json!({"metadata": {"labels": {"x": "y"}}})).await;
        assert_eq!((&new["metadata"]["labels"]["x"], &new["metadata"]["generation"]), (&json!("y"), &json!(2)));
        let (code, _) =
            s.patch(&one, "json-patch+json", json!([{"op": "test", "path": "/spec/replicas", "value": 9}])).await;
        assert_eq!(code, 422);
        let (code, scale) =
            s.patch(&format!("{one}/scale"), "merge-patch+json", json!({"spec": {"replicas": 4}})).await;
        assert_eq!((code, &scale["kind"], &scale["spec"]["replicas"]), (200, &json!("Scale"), &json!(4)));
        // Status has its own door, both ways.
        let (_, new) = s.patch(&one, "merge-patch+json", json!({"status": {"replicas": 7}})).await;
        assert_eq!(new["status"]["replicas"], Value::Null);
        let (_, new) = s
            .patch(
                &format!("{one}/status"),
                "merge-patch+json",
                json!({"spec": {"replicas": 9}, "status": {"replicas": 7}}),
            )
            .await;
        assert_eq!(
            (&new["spec"]["replicas"], &new["status"]["replicas"], &new["metadata"]["generation"]),
            (&json!(4), &json!(7), &json!(3))
        );
        let (_, dry) =
            s.patch(&format!("{one}?dryRun=All"), "merge-patch+json", json!({"spec": {"replicas": 8}})).await;
        assert_eq!(dry["spec"]["replicas"], 8);
        assert_eq!(s.get(&one).await.1["spec"]["replicas"], 4);
        let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "data": {"k": "v"}});
        let (code, _) = s.patch(&format!("{MAPS}/ssa?fieldManager=me"), "apply-patch+yaml", wanted.clone()).await;
        assert_eq!(code, 201);
        let mut other = wanted;
        other["data"]["k"] = "w".into();
        assert_eq!(s.patch(&format!("{MAPS}/ssa?fieldManager=you"), "apply-patch+yaml", other.clone()).await.0, 409);
        assert_eq!(s.patch(&format!("{MAPS}/ssa?fieldManager=you&force=true"), "apply-patch+yaml", other).await.0, 200);
    });
}

#[test]
fn watches_begin_resume_and_end() {
    run(|mut s| async move {
        s.post(MAPS, map("a")).await;
        let (_, list) = s.get(MAPS).await;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        s.patch(&format!("{MAPS}/a"), "merge-patch+json", json!({"metadata": {"labels": {"n": "z"}}})).await;
        s.delete(&format!("{MAPS}/a"), Value::Null).await;
        let types = |events: Vec<(String, Value)>| events.into_iter().map(|e| e.0).collect::<Vec<_>>();
        let resumed = s.watch(&format!("{MAPS}?watch=1&resourceVersion={version}"), 2).await;
        assert_eq!(types(resumed), ["MODIFIED", "DELETED"]);
        // To who looks for n=a it went when its label did.
        let selected =
            s.watch(&format!("{MAPS}?watch=1&resourceVersion={version}&labelSelector=n%3Da&timeoutSeconds=1"), 9).await;
        assert_eq!(types(selected), ["DELETED"]);
        s.post(MAPS, map("b")).await;
        let initial = s
            .watch(
                &format!(
                    "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
                ),
                2,
            )
            .await;
        assert_eq!(initial[1].1["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        assert_eq!(types(initial), ["ADDED", "BOOKMARK"]);
        let quiet = s.watch(&format!("{MAPS}?watch=1&resourceVersion={version}&fieldSelector=metadata.name%3Dx&allowWatchBookmarks=1&timeoutSeconds=1"), 9).await;
        assert_eq!(types(quiet), ["BOOKMARK"]);
        assert_eq!(s.get(&format!("{MAPS}?watch=1&resourceVersion=999999999")).await.0, 410);
    });
}

#[test]
fn pods_are_bound_once_and_deleted_with_grace() {
    run(|mut s| async move {
        let pods = "/api/v1/namespaces/default/pods";
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
        let (code, made) = s.post(pods, pod).await;
        assert_eq!((code, &made["status"]), (201, &json!({"phase": "Pending", "qosClass": "BestEffort"})), "{made}");
        let name = made["metadata"]["name"].as_str().unwrap();
        let one = format!("{pods}/{name}");
        let bind = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
        assert_eq!(s.post(&format!("{one}/binding"), bind("n1")).await.0, 201);
        assert_eq!(s.post(&format!("{one}/binding"), bind("n2")).await.0, 409);
        let (_, marked) = s.delete(&one, json!({"gracePeriodSeconds": 7})).await;
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 7);
        assert_eq!(s.get(&one).await.0, 200);
        let (code, _) = s.delete(&format!("{one}?gracePeriodSeconds=0"), Value::Null).await;
        assert_eq!((code, s.get(&one).await.0), (200, 404));
    });
}

#[test]
fn services_get_addresses_once() {
    run(|mut s| async move {
        let services = "/api/v1/namespaces/default/services";
        let service = |name: &str, spec: Value| {
            let mut v = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
            v["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            v
        };
        let (code, made) = s.post(services, service("a", json!({"type": "NodePort"}))).await;
        assert_eq!(code, 201, "{made}");
        let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
        assert!(ip.starts_with("10.43.") && made["spec"]["ports"][0]["nodePort"].as_u64().unwrap() >= 30000);
        let (code, status) = s.post(services, service("b", json!({"clusterIP": ip}))).await;
        assert_eq!(code, 422);
        assert!(status["message"].as_str().unwrap().contains("already allocated"), "{status}");
        assert_eq!(s.post(services, service("b", json!({"clusterIP": "1.2.3.4"}))).await.0, 422);
        assert_eq!(
            s.post(services, service("b", json!({"clusterIP": "None"}))).await.1["spec"]["clusterIPs"],
            json!(["None"])
        );
        let (_, kept) =
            s.patch(&format!("{services}/a"), "merge-patch+json", json!({"spec": {"selector": {"a": "c"}}})).await;
        assert_eq!(kept["spec"]["clusterIP"], made["spec"]["clusterIP"]);
        assert_eq!(kept["spec"]["ports"][0]["nodePort"], made["spec"]["ports"][0]["nodePort"]);
    });
}

#[test]
fn finalizers_and_namespaces_hold_deletion() {
    run(|mut s| async move {
        let mut held = map("held");
        held["metadata"]["finalizers"] = json!(["example.com/x"]);
        s.post(MAPS, held).await;
        let one = format!("{MAPS}/held");
        s.delete(&one, Value::Null).await;
        assert!(s.get(&one).await.1["metadata"]["deletionTimestamp"].is_string());
        s.patch(&one, "merge-patch+json", json!({"metadata": {"finalizers": null}})).await;
        assert_eq!(s.get(&one).await.0, 404);
        s.post("/api/v1/namespaces", json!({"metadata": {"name": "t"}})).await;
        s.delete("/api/v1/namespaces/t", Value::Null).await;
        let (_, ns) = s.get("/api/v1/namespaces/t").await;
        assert_eq!(ns["status"]["phase"], "Terminating");
        assert_eq!(s.post("/api/v1/namespaces/t/configmaps", map("a")).await.0, 403);
        let mut done = ns;
        done["spec"]["finalizers"] = json!([]);
        s.send("PUT", "/api/v1/namespaces/t/finalize", "application/json", done).await;
        assert_eq!(s.get("/api/v1/namespaces/t").await.0, 404);
    });
}

#[test]
fn only_who_may_may() {
    run(|mut s| async move {
        s.http = connect(&s.server, UserInfo::node("n1")).await;
        let (code, status) = s.post(MAPS, map("a")).await;
        assert_eq!(code, 403, "{status}");
        let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        assert_eq!(s.post("/api/v1/nodes", node("n1")).await.0, 201);
        assert_eq!(s.patch("/api/v1/nodes/other/status", "merge-patch+json", json!({})).await.0, 403);
        s.http = connect(&s.server, UserInfo::new("nobody", &[])).await;
        assert_eq!(s.get("/api/v1/secrets").await.0, 403);
        assert_eq!(s.get("/healthz").await.0, 200);
    });
}

#[test]
fn what_is_served_is_described() {
    run(|mut s| async move {
        let (_, groups) = s.get("/apis").await;
        assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "apps"));
        let (_, core) = s.get("/api/v1").await;
        assert!(core["resources"].as_array().unwrap().iter().any(|r| r["name"] == "pods/log"));
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let (_, headers, body) = s.raw("GET", "/apis", "", accept, Vec::new()).await;
        assert!(headers["content-type"].to_str().unwrap().contains("as=APIGroupDiscoveryList"));
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["kind"], "APIGroupDiscoveryList");
        let (_, openapi) = s.get("/openapi/v3/apis/apps/v1").await;
        let patch = &openapi["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let (_, _, body) = s.raw("GET", "/api/v1/namespaces", "", table, Vec::new()).await;
        let table: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&table["kind"], &table["rows"][0]["cells"][1]), (&json!("Table"), &json!("Active")));
    });
}

#[test]
fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let server = start(dir.path()).await;
        let (ca, token) = (server.ca_pem().to_owned(), server.join_token());
        let made = server.client().create("configmaps", "default", map("kept")).await.unwrap();
        let second = Config::new(dir.path().into(), "127.0.0.1:0".parse().unwrap());
        let refused = Server::start(second, Rc::new(SystemClock)).await.err().unwrap();
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        server.stop().await;
        let server = start(dir.path()).await;
        assert_eq!((server.ca_pem(), server.join_token()), (ca.as_str(), token));
        assert_eq!(*server.client().get("configmaps", "default", "kept").await.unwrap(), made);
        server.stop().await;
    });
}

/// A body in Kubernetes' protobuf; every part is shorter than 128 bytes.
fn protobuf(kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [tagged(1, b"v1"), tagged(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), tagged(1, &meta), tagged(2, raw)].concat()
}

fn tagged(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

#[test]
fn bodies_in_protobuf_are_read_and_answers_are_json() {
    const TYPE: &str = "application/vnd.kubernetes.protobuf";
    const BOTH: &str = "application/vnd.kubernetes.protobuf,application/json";
    run(|mut s| async move {
        let map = |value: &str| {
            let entry = [tagged(1, b"k"), tagged(2, value.as_bytes())].concat();
            protobuf("ConfigMap", &[tagged(1, &[tagged(1, b"p"), tagged(8, b"")].concat()), tagged(2, &entry)].concat())
        };
        let one = format!("{MAPS}/p");
        // Who takes nothing but protobuf is told so before anything is written.
        for (method, path) in [("POST", MAPS), ("GET", MAPS)] {
            let (code, _, body) = s.raw(method, path, TYPE, TYPE, map("1")).await;
            let told: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((code, &told["reason"]), (406, &json!("NotAcceptable")), "{method}");
        }
        assert_eq!(s.get(&one).await.0, 404);
        let (code, headers, body) = s.raw("POST", MAPS, TYPE, BOTH, map("1")).await;
        assert_eq!((code, headers["content-type"].to_str().unwrap()), (201, "application/json"));
        let made: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&made["kind"], &made["data"]), (&json!("ConfigMap"), &json!({"k": "1"})));
        assert!(made["metadata"]["creationTimestamp"].is_string());
        assert_eq!(s.raw("PUT", &one, TYPE, BOTH, map("2")).await.0, 200);
        assert_eq!(s.get(&one).await.1["data"], json!({"k": "2"}));
        let (code, _, body) = s.raw("POST", MAPS, TYPE, BOTH, protobuf("ConfigMap", &[0x0a, 9])).await;
        assert_eq!(code, 400, "{body:?}");
        assert_eq!(s.raw("POST", MAPS, TYPE, BOTH, b"{}".to_vec()).await.0, 400);
        // Options: another uid is not this object.
        let options = protobuf("DeleteOptions", &tagged(2, &tagged(1, b"other")));
        assert_eq!(s.raw("DELETE", &one, TYPE, BOTH, options).await.0, 409);
        assert_eq!(s.raw("DELETE", &one, TYPE, BOTH, protobuf("DeleteOptions", &[8, 0])).await.0, 200);
        assert_eq!(s.get(&one).await.0, 404);
    });
}

#[test]
fn tokens_of_service_accounts_prove_who_they_were_given_to() {
    run(|mut s| async move {
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        let request =
            |spec: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let review = |token: &Value, audiences: Value| {
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "spec": {"token": token, "audiences": audiences}})
        };
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        for name in ["a", "b"] {
            let (code, body) = s.post(accounts, json!({"metadata": {"name": name}})).await;
            assert_eq!(code, 201, "{body}");
        }
        let (code, given) = s.post(&format!("{accounts}/a/token"), request(json!({}))).await;
        assert_eq!((code, &given["spec"]["expirationSeconds"]), (201, &json!(3600)), "{given}");
        let token = &given["status"]["token"];
        let (_, seen) = s.post(reviews, review(token, json!([]))).await;
        assert_eq!(seen["status"]["user"]["username"], "system:serviceaccount:default:a", "{seen}");
        let (_, seen) = s.post(reviews, review(token, json!(["vault"]))).await;
        assert_eq!(seen["status"]["authenticated"], json!(false), "another audience: {seen}");

        // Bound to a pod: of this account, this very one, as long as it lives.
        let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "a", "containers": [{"name": "c", "image": "i"}]}});
        let (code, pod) = s.post("/api/v1/namespaces/default/pods", pod).await;
        assert_eq!(code, 201, "{pod}");
        let bound =
            |uid: &Value| json!({"audiences": ["vault"], "boundObjectRef": {"kind": "Pod", "name": "p", "uid": uid}});
        let (code, _) = s.post(&format!("{accounts}/b/token"), request(bound(&pod["metadata"]["uid"]))).await;
        assert_eq!(code, 400, "a pod of another account");
        let (code, _) = s.post(&format!("{accounts}/a/token"), request(bound(&json!("old")))).await;
        assert_eq!(code, 409, "a pod that was made again");
        let (code, given) = s.post(&format!("{accounts}/a/token"), request(bound(&pod["metadata"]["uid"]))).await;
        assert_eq!(code, 201, "{given}");
        let token = &given["status"]["token"];
        let (_, seen) = s.post(reviews, review(token, json!(["vault", "x"]))).await;
        assert_eq!(seen["status"]["audiences"], json!(["vault"]), "{seen}");
        assert_eq!(seen["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]), "{seen}");
        let (code, _) = s.delete("/api/v1/namespaces/default/pods/p", Value::Null).await;
        assert_eq!(code, 200);
        let (_, seen) = s.post(reviews, review(token, json!(["vault"]))).await;
        assert_eq!(seen["status"]["authenticated"], json!(false), "its pod is gone: {seen}");

        for (spec, why) in [
            (json!({"expirationSeconds": 599}), "a life too short"),
            (json!({"expirationSeconds": (1i64 << 32) + 1}), "a life too long"),
        ] {
            let (code, body) = s.post(&format!("{accounts}/a/token"), request(spec)).await;
            assert_eq!(code, 422, "{why}: {body}");
        }
        let (code, _) = s.post(&format!("{accounts}/nobody/token"), request(json!({}))).await;
        assert_eq!(code, 404);
    });
}

#[test]
fn generations_count_what_is_wanted() {
    run(|mut s| async move {
        // Upstream's strategies count for these kinds; for Namespaces and Services they do not.
        for (path, body, generation) in [
            ("/api/v1/namespaces", json!({"metadata": {"name": "n"}}), None),
            (
                "/api/v1/namespaces/default/services",
                json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
                None,
            ),
            (
                "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
                json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}}}),
                Some(1),
            ),
        ] {
            let (code, made) = s.post(path, body).await;
            assert_eq!(code, 201, "{made}");
            assert_eq!(made["metadata"]["generation"].as_i64(), generation, "{made}");
        }
    });
}

#[test]
fn a_gated_pod_says_so_from_the_start() {
    run(|mut s| async move {
        let pod = json!({"metadata": {"name": "g"}, "spec": {"schedulingGates": [{"name": "example.com/x"}],
            "containers": [{"name": "c", "image": "i"}]}});
        let (code, made) = s.post("/api/v1/namespaces/default/pods", pod).await;
        assert_eq!(code, 201, "{made}");
        let condition = &made["status"]["conditions"][0];
        assert_eq!((&condition["type"], &condition["status"]), (&json!("PodScheduled"), &json!("False")), "{made}");
        assert_eq!(condition["reason"], "SchedulingGated");
    });
}
