//! What is on the wire: descriptions, other body formats, refusals.

use super::*;

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
