//! Custom resources as clients meet them: real HTTP over an in-memory connection, a real store in a temporary folder.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

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

#[test]
fn a_custom_resource_is_as_good_as_a_built_in_one() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), false).await;
        assert_eq!(s.get(TABS).await.0, 404);
        s.define(definition()).await;
        let (_, list) = s.get("/apis/stable.example.com/v1").await;
        let names: Vec<&str> =
            list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["crontabs", "crontabs/scale", "crontabs/status"]);
        assert_eq!(s.get("/apis/stable.example.com").await.1["preferredVersion"]["version"], "v1");

        // Defaults, pruning, what is wrong.
        let wide = json!({"cron": "a", "odd": 1, "any": {"x": [1]}, "color": "red"});
        let (code, made) = s.post(TABS, tab("a", wide.clone())).await;
        assert_eq!(
            (code, &made["spec"]),
            (201, &json!({"cron": "a", "any": {"x": [1]}, "replicas": 1, "color": "red"}))
        );
        assert_eq!((&made["metadata"]["generation"], &made["metadata"]["namespace"]), (&json!(1), &json!("default")));
        let (code, told) = s.post(&format!("{TABS}?fieldValidation=Strict"), tab("b", wide)).await;
        assert_eq!(
            (code, told["message"].as_str().unwrap()),
            (
                400,
                "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.odd\""
            )
        );
        let (code, told) = s.post(TABS, tab("b", json!({"cron": 5, "replicas": 0}))).await;
        let message = told["message"].as_str().unwrap();
        assert_eq!(code, 422);
        assert_eq!(
            message,
            "CronTab.stable.example.com \"b\" is invalid: [spec.cron: Invalid value: \"integer\": spec.cron in body must be of type string: \"integer\", spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1]"
        );
        assert_eq!(told["details"]["causes"][0]["reason"], "FieldValueTypeInvalid");

        // Patches.
        let a = format!("{TABS}/a");
        let (_, new) = s.patch(&a, "merge-patch+json", json!({"spec": {"replicas": 3, "color": null}})).await;
        assert_eq!((&new["spec"]["replicas"], &new["metadata"]["generation"]), (&json!(3), &json!(2)));
        let (_, new) =
            s.patch(&a, "json-patch+json", json!([{"op": "add", "path": "/spec/color", "value": "blue"}])).await;
        assert_eq!(new["spec"]["color"], "blue");
        assert_eq!(s.patch(&a, "strategic-merge-patch+json", json!({})).await.0, 415);

        // Selectors.
        assert_eq!(
            s.get(&format!("{TABS}?fieldSelector=spec.color%3Dblue")).await.1["items"].as_array().unwrap().len(),
            1
        );
        assert_eq!(s.get(&format!("{TABS}?fieldSelector=spec.color%3Dred")).await.1["items"], json!([]));
        assert_eq!(s.get(&format!("{TABS}?fieldSelector=spec.cron%3Da")).await.0, 400);

        // Status and scale.
        let mut whole = new;
        whole["status"] = json!({"replicas": 2, "selector": "a=b"});
        whole["spec"]["cron"] = json!("ignored");
        let (_, new) = s.send("PUT", &format!("{a}/status"), "application/json", whole).await;
        assert_eq!(
            (&new["spec"]["cron"], &new["status"]["replicas"], &new["metadata"]["generation"]),
            (&json!("a"), &json!(2), &json!(3))
        );
        let (_, scale) = s.patch(&format!("{a}/scale"), "merge-patch+json", json!({"spec": {"replicas": 7}})).await;
        assert_eq!(
            (&scale["spec"]["replicas"], &scale["status"]),
            (&json!(7), &json!({"replicas": 2, "selector": "a=b"}))
        );
        assert_eq!(s.patch(&format!("{a}/scale"), "merge-patch+json", json!({"spec": {"replicas": 0}})).await.0, 422);

        // The other version shows what it knows, and says that it is old.
        let other = a.replace("/v1/", "/v1beta1/");
        let (_, headers, body) = s.raw("GET", &other, &[], &Value::Null).await;
        let old: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&old["apiVersion"], &old["spec"]), (&json!("stable.example.com/v1beta1"), &json!({"cron": "a"})));
        assert_eq!(headers["warning"], "299 - \"stable.example.com/v1beta1 CronTab is deprecated\"");

        let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let (_, _, body) = s.raw("GET", TABS, &table, &Value::Null).await;
        let table: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            table["columnDefinitions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c["name"].as_str().unwrap())
                .collect::<Vec<_>>(),
            ["Name", "Cron", "Age"]
        );
        assert_eq!(table["rows"][0]["cells"][1], "a");
        assert_eq!(s.delete(TABS).await.0, 200);
        assert_eq!(s.get(TABS).await.1["items"], json!([]));
        s.server.stop().await;
    });
}

#[test]
fn appliers_share_a_list_that_is_a_map() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), false).await;
        s.define(definition()).await;
        let apply = |who: &str| format!("{TABS}/x?fieldManager={who}");
        let one = tab("x", json!({"cron": "a", "ports": [{"port": 80, "name": "web"}]}));
        let (code, made) = s.patch(&apply("one"), "apply-patch+yaml", one.clone()).await;
        assert_eq!((code, &made["metadata"]["managedFields"][0]["operation"]), (201, &json!("Apply")));
        let owned = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
        assert!(
            owned["f:ports"]["k:{\"port\":80}"]["f:name"].is_object() && owned.get("f:replicas").is_none(),
            "{owned}"
        );
        let two = tab("x", json!({"cron": "b", "ports": [{"port": 81}]}));
        let (code, told) = s.patch(&apply("two"), "apply-patch+yaml", two).await;
        assert_eq!(code, 409);
        assert_eq!(
            told["message"],
            "Apply failed with 1 conflict: conflict with \"one\" using stable.example.com/v1: .spec.cron"
        );
        let two = tab("x", json!({"ports": [{"port": 81}]}));
        let (_, both) = s.patch(&apply("two"), "apply-patch+yaml", two).await;
        assert_eq!(both["spec"]["ports"], json!([{"port": 80, "name": "web"}, {"port": 81}]));
        let (_, less) = s.patch(&apply("one"), "apply-patch+yaml", tab("x", json!({"cron": "a"}))).await;
        assert_eq!(less["spec"]["ports"], json!([{"port": 81}]));
        s.server.stop().await;
    });
}

#[test]
fn a_definition_goes_after_its_objects_and_watches_end_with_it() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), false).await;
        s.define(definition()).await;
        let mut held = tab("held", json!({"cron": "a"}));
        held["metadata"]["finalizers"] = json!(["example.com/mine"]);
        s.post(TABS, held).await;
        s.post(TABS, tab("free", json!({"cron": "a"}))).await;
        let mut watcher = connect(&s.server).await;
        let request = Request::get(format!("{TABS}?watch=1&resourceVersion=0")).header("host", "x");
        let watch = watcher.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();

        let one = format!("{DEFINITIONS}/crontabs.stable.example.com");
        let (_, going) = s.delete(&one).await;
        assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
        assert_eq!(condition(&going, "Terminating"), "True");
        s.until(&format!("{TABS}/free"), |code, _| code == 404).await;
        assert_eq!(s.get(&one).await.0, 200, "one is held");
        let (code, told) = s.post(TABS, tab("late", json!({"cron": "a"}))).await;
        assert_eq!(
            (code, told["message"].as_str().unwrap()),
            (405, "create not allowed while custom resource definition is terminating")
        );
        s.patch(&format!("{TABS}/held"), "merge-patch+json", json!({"metadata": {"finalizers": null}})).await;
        s.until(&one, |code, _| code == 404).await;
        assert_eq!(s.get(TABS).await.0, 404);
        assert_eq!(s.get("/apis/stable.example.com/v1").await.0, 404);
        watch.into_body().collect().await.expect("the watch ends");
        // It may come again, and begins empty.
        s.define(definition()).await;
        assert_eq!(s.get(TABS).await.1["items"], json!([]));
        s.server.stop().await;
    });
}

#[test]
fn a_restart_keeps_definitions_and_a_new_schema_reads_old_objects() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), false).await;
        s.define(definition()).await;
        s.post(TABS, tab("a", json!({"cron": "a", "color": "red"}))).await;
        s.server.stop().await;

        let mut s = start(dir.path(), false).await;
        assert_eq!(s.get(&format!("{TABS}/a")).await.1["spec"]["color"], "red", "served from the first moment");
        // The field goes, another comes with a default.
        let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let change = json!([
            {"op": "remove", "path": format!("{schema}/color")}, {"op": "remove", "path": "/spec/versions/0/selectableFields"},
            {"op": "add", "path": format!("{schema}/taste"), "value": {"type": "string", "default": "sweet"}},
        ]);
        let (code, told) =
            s.patch(&format!("{DEFINITIONS}/crontabs.stable.example.com"), "json-patch+json", change).await;
        assert_eq!((code, &told["metadata"]["generation"]), (200, &json!(2)), "{told}");
        let new = s.until(&format!("{TABS}/a"), |_, o| o["spec"].get("taste").is_some()).await;
        assert_eq!(new["spec"], json!({"cron": "a", "replicas": 1, "taste": "sweet"}));
        assert_eq!(s.get(TABS).await.1["items"][0]["spec"], new["spec"]);
        s.server.stop().await;
    });
}

#[test]
fn names_are_not_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), false).await;
        s.define(definition()).await;
        let mut second = definition();
        second["metadata"]["name"] = json!("others.stable.example.com");
        second["spec"]["names"] = json!({"plural": "others", "kind": "Other", "shortNames": ["ct"]});
        assert_eq!(s.post(DEFINITIONS, second).await.0, 201);
        let path = format!("{DEFINITIONS}/others.stable.example.com");
        let told = s.until(&path, |_, c| condition(c, "NamesAccepted") == "False").await;
        assert_eq!(told["status"]["conditions"][0]["message"], "\"ct\" is already in use");
        assert_eq!(s.get("/apis/stable.example.com/v1/others").await.0, 404);
        // The name is free when the other gives it up.
        s.patch(
            &format!("{DEFINITIONS}/crontabs.stable.example.com"),
            "merge-patch+json",
            json!({"spec": {"names": {"shortNames": null}}}),
        )
        .await;
        s.until("/apis/stable.example.com/v1/others", |code, _| code == 200).await;
        s.server.stop().await;
    });
}

#[test]
fn documents_tell_of_them() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), false).await;
        let (_, before, _) = s.raw("GET", "/openapi/v2", &[], &Value::Null).await;
        s.define(definition()).await;
        let (_, index) = s.get("/openapi/v3").await;
        let url = index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
        let (_, headers, body) = s.raw("GET", &url, &[], &Value::Null).await;
        assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
        let document: Value = serde_json::from_slice(&body).unwrap();
        let schema = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
        assert_eq!(schema["properties"]["spec"]["properties"]["cron"]["description"], "when");
        assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
        let (_, headers, _) = s.raw("GET", "/openapi/v3/apis/stable.example.com/v1?hash=old", &[], &Value::Null).await;
        assert_ne!(headers["cache-control"], "public, max-age=31536000, immutable");

        let (_, headers, body) = s.raw("GET", "/openapi/v2", &[], &Value::Null).await;
        assert!(body.windows(29).any(|w| w == b"com.example.stable.v1.CronTab"));
        assert_ne!(headers["etag"], before["etag"]);
        let tag = headers["etag"].to_str().unwrap().to_owned();
        assert_eq!(s.raw("GET", "/openapi/v2", &[("if-none-match", &tag)], &Value::Null).await.0, 304);
        let (_, plain) = s.get("/openapi/v2").await;
        assert_eq!(plain["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["nodeName"]["type"], "string");
        s.server.stop().await;
    });
}

#[test]
fn owners_and_namespaces_take_custom_resources_with_them() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), true).await;
        s.define(definition()).await;
        let maps = "/api/v1/namespaces/default/configmaps";
        let (_, owner) = s.post(maps, json!({"metadata": {"name": "owner"}})).await;
        let mut owned = tab("owned", json!({"cron": "a"}));
        owned["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
        let (_, owned) = s.post(TABS, owned).await;
        // A custom resource owns too.
        let child = json!({"metadata": {"name": "child", "ownerReferences": [{"apiVersion": "stable.example.com/v1", "kind": "CronTab", "name": "owned", "uid": owned["metadata"]["uid"]}]}});
        s.post(maps, child).await;
        s.delete(&format!("{maps}/owner")).await;
        s.until(&format!("{TABS}/owned"), |code, _| code == 404).await;
        s.until(&format!("{maps}/child"), |code, _| code == 404).await;

        s.post("/api/v1/namespaces", json!({"metadata": {"name": "short"}})).await;
        let there = TABS.replace("/default/", "/short/");
        assert_eq!(s.post(&there, tab("x", json!({"cron": "a"}))).await.0, 201);
        s.delete("/api/v1/namespaces/short").await;
        s.until("/api/v1/namespaces/short", |code, _| code == 404).await;
        assert_eq!(s.get(&there).await.1["items"], json!([]));
        s.server.stop().await;
    });
}

/// Not a custom resource, but likewise one object in two versions.
#[test]
fn autoscalers_are_served_in_two_versions() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), false).await;
        let all = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let old = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}});
        let (code, made) = s.post(&all("v1"), old).await;
        assert_eq!(
            (code, &made["apiVersion"], &made["spec"]["targetCPUUtilizationPercentage"]),
            (201, &json!("autoscaling/v1"), &json!(50))
        );
        let one = |version: &str| format!("{}/a", all(version));
        let utilization = "/spec/metrics/0/resource/target/averageUtilization";
        let (_, new) = s.get(&one("v2")).await;
        assert_eq!((new.pointer(utilization), &new["spec"]["minReplicas"]), (Some(&json!(50)), &json!(1)));
        s.patch(&one("v1"), "merge-patch+json", json!({"spec": {"targetCPUUtilizationPercentage": 70}})).await;
        assert_eq!(s.get(&one("v2")).await.1.pointer(utilization), Some(&json!(70)));
        assert_eq!(s.get(&all("v1")).await.1["items"][0]["spec"]["targetCPUUtilizationPercentage"], 70);
        // Who names no metric means the processor.
        let (_, plain) = s
            .post(&all("v2"), json!({"metadata": {"name": "b"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target}}))
            .await;
        assert_eq!(plain.pointer(utilization), Some(&json!(80)));
        s.server.stop().await;
    });
}

#[test]
fn quota_and_rights_know_them() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), true).await;
        s.define(definition()).await;
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/crontabs.stable.example.com": "1"}}});
        s.post("/api/v1/namespaces/default/resourcequotas", quota).await;
        assert_eq!(s.post(TABS, tab("a", json!({"cron": "a"}))).await.0, 201);
        let (code, told) = s.post(TABS, tab("b", json!({"cron": "a"}))).await;
        assert_eq!(code, 403, "{told}");
        let ask = |user: &str| json!({"spec": {"user": user, "resourceAttributes": {"namespace": "default", "verb": "get", "group": "stable.example.com", "resource": "crontabs"}}});
        let review = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        assert_eq!(s.post(review, ask("ann")).await.1["status"]["allowed"], false);
        let role = json!({"metadata": {"name": "tabs"}, "rules": [{"apiGroups": ["stable.example.com"], "resources": ["crontabs"], "verbs": ["get"]}]});
        let rights = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
        s.post(&format!("{rights}/roles"), role).await;
        let binding = json!({"metadata": {"name": "ann"}, "roleRef": {"kind": "Role", "name": "tabs", "apiGroup": "rbac.authorization.k8s.io"}, "subjects": [{"kind": "User", "name": "ann"}]});
        s.post(&format!("{rights}/rolebindings"), binding).await;
        assert_eq!(s.post(review, ask("ann")).await.1["status"]["allowed"], true);
        s.server.stop().await;
    });
}
