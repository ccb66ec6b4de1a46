//! Objects, one and many: create, read, update, patch, delete, list, watch.

use super::*;

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
        let (code, made) = s.patch(&format!("{MAPS}/ssa?fieldManager=me"), "apply-patch+yaml", wanted.clone()).await;
        assert_eq!((code, &made["metadata"]["managedFields"][0]["operation"]), (201, &json!("Apply")));
        // What an applier no longer says goes.
        let fewer = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa"}, "data": {"l": "v"}});
        let (_, changed) = s.patch(&format!("{MAPS}/ssa?fieldManager=me"), "apply-patch+yaml", fewer).await;
        assert_eq!(changed["data"], json!({"l": "v"}));
        s.patch(&format!("{MAPS}/ssa?fieldManager=me"), "apply-patch+yaml", wanted.clone()).await;
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
