//! What clients do with custom resources: all they do with built-in ones.

use serde_json::{Value, json};

use crate::*;

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
        assert_eq!(told["message"], "Apply failed with 1 conflict: conflict with \"one\": .spec.cron");
        let two = tab("x", json!({"ports": [{"port": 81}]}));
        let (_, both) = s.patch(&apply("two"), "apply-patch+yaml", two).await;
        assert_eq!(both["spec"]["ports"], json!([{"port": 80, "name": "web"}, {"port": 81}]));
        let (_, less) = s.patch(&apply("one"), "apply-patch+yaml", tab("x", json!({"cron": "a"}))).await;
        assert_eq!(less["spec"]["ports"], json!([{"port": 81}]));
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

#[test]
fn rules_of_the_author_are_enforced() {
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let mut s = start(dir.path(), false).await;
        let mut crd = definition();
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        *crd.pointer_mut(spec).unwrap() = json!({"type": "object", "x-kubernetes-validations": [
                {"rule": "self.replicas <= self.most", "messageExpression": "'no more than ' + string(self.most)"}, {"rule": "self.color == oldSelf.color"}],
            "properties": {"replicas": {"type": "integer", "default": 1}, "most": {"type": "integer", "default": 5}, "color": {"type": "string", "default": "red"}}});
        let mut bad = crd.clone();
        bad.pointer_mut(spec).unwrap()["x-kubernetes-validations"][0]["rule"] =
            json!("self.replicas <= semver('1.0.0')");
        let (code, told) = s.post(DEFINITIONS, bad).await;
        let message = told["message"].as_str().unwrap();
        assert!(code == 422 && message.contains("function 'semver' is not supported by this server"), "{told}");
        s.define(crd).await;
        let (code, told) = s.post(TABS, tab("a", json!({"replicas": 6}))).await;
        assert_eq!(
            (code, told["message"].as_str().unwrap()),
            (422, "CronTab.stable.example.com \"a\" is invalid: spec: Invalid value: \"object\": no more than 5")
        );
        assert_eq!(s.post(TABS, tab("a", json!({}))).await.0, 201);
        let a = format!("{TABS}/a");
        let (code, told) = s.patch(&a, "merge-patch+json", json!({"spec": {"color": "blue"}})).await;
        assert_eq!((code, &told["details"]["causes"][0]["field"]), (422, &json!("spec")), "{told}");
        assert!(told["message"].as_str().unwrap().ends_with("failed rule: self.color == oldSelf.color"));
        assert_eq!(s.patch(&a, "merge-patch+json", json!({"spec": {"replicas": 5}})).await.0, 200);
        let scale = json!({"spec": {"replicas": 6}});
        assert_eq!(
            s.patch(&format!("{a}/scale"), "merge-patch+json", scale).await.0,
            422,
            "also through a subresource"
        );
        s.server.stop().await;
    });
}
