//! Definitions come, change, collide and go.

use crate::*;

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
