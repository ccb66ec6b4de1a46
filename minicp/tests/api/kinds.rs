//! What single kinds want.

use super::*;

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
