//! Who is known by a token, and for how long.

use super::*;

/// A pod that runs as `default`, and a token bound to it.
async fn bound_token(c: &mut Cluster) -> (String, String) {
    let made = c.make(PODS, pod("p", json!({}))).await;
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    let request = json!({"spec": {"expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
    let made = c.make("/api/v1/namespaces/default/serviceaccounts/default/token", request).await;
    assert!(made["status"]["expirationTimestamp"].is_string());
    (made["status"]["token"].as_str().unwrap().to_owned(), uid)
}

#[test]
fn account_tokens_live_as_long_as_what_they_are_bound_to() {
    run(&[], |mut c| async move {
        let (token, uid) = bound_token(&mut c).await;
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        let review = |token: &str| json!({"spec": {"token": token}});
        let said = c.post(&admin(), reviews, review(&token)).await.body;
        assert_eq!(said["status"]["user"]["username"], "system:serviceaccount:default:default", "{said}");
        assert_eq!(said["status"]["user"]["extra"]["authentication.kubernetes.io/pod-uid"], json!([uid]));
        let mut for_others = review(&token);
        for_others["spec"]["audiences"] = json!(["vault"]);
        assert_eq!(c.post(&admin(), reviews, for_others).await.body["status"]["authenticated"], false);
        assert_eq!(c.post(&admin(), reviews, review("nonsense")).await.body["status"], json!({"authenticated": false}));
        let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
        for (spec, code) in [
            (json!({"expirationSeconds": 60}), 422),
            (json!({"boundObjectRef": {"kind": "Pod", "name": "none"}}), 404),
            (json!({"boundObjectRef": {"kind": "Pod", "name": "p", "uid": "other"}}), 409),
            (json!({"boundObjectRef": {"kind": "Service", "name": "p"}}), 400),
            (json!({"audiences": ["vault"]}), 201),
        ] {
            assert_eq!(c.post(&admin(), tokens, json!({"spec": spec})).await.code, code, "{spec}");
        }
        // Its keys are published.
        let keys = c.get(&admin(), "/openid/v1/jwks").await.body;
        assert_eq!(keys["keys"][0]["alg"], "ES256");
        let said = c.get(&admin(), "/.well-known/openid-configuration").await.body;
        assert_eq!(said["issuer"], "https://kubernetes.default.svc.cluster.local");
        // Gone with its pod, though its signature still holds.
        c.send(&admin(), "DELETE", &format!("{PODS}/p"), &[], Value::Null).await;
        let said = c.post(&admin(), reviews, review(&token)).await.body;
        assert_eq!(said["status"]["error"], "service account token has been invalidated");
    });
}

#[test]
fn static_and_bootstrap_tokens_are_known() {
    run(&[("token-auth.csv", "fixed-token,bob,7,\"dev,ops\"\n")], |mut c| async move {
        let secret = |more: Value| {
            let mut data = json!({"token-id": "abc123", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:farm,system:masters"});
            data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"metadata": {"name": "bootstrap-token-abc123"}, "type": "bootstrap.kubernetes.io/token", "stringData": data})
        };
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        let review = |token: &str| json!({"spec": {"token": token}});
        let said = c.post(&admin(), reviews, review("fixed-token")).await.body;
        assert_eq!(said["status"]["user"]["username"], "bob", "{said}");
        assert_eq!(said["status"]["user"]["groups"], json!(["dev", "ops", "system:authenticated"]));
        let secrets = "/api/v1/namespaces/kube-system/secrets";
        let token = "abc123.0123456789abcdef";
        for (more, good) in [
            (json!({}), true),
            (json!({"expiration": "2001-01-01T00:00:00Z"}), false),
            (json!({"expiration": "2101-01-01T00:00:00Z"}), true),
            (json!({"expiration": "soon"}), false),
            (json!({"usage-bootstrap-authentication": "false"}), false),
            (json!({"token-secret": "0123456789abcdee"}), false),
        ] {
            c.make(secrets, secret(more.clone())).await;
            let said = c.post(&admin(), reviews, review(token)).await.body;
            assert_eq!(said["status"]["authenticated"], good, "{more}");
            if good {
                // A group of the cluster's own is not a Secret's to give.
                let groups = json!(["system:bootstrappers", "system:authenticated", "system:bootstrappers:farm"]);
                assert_eq!(said["status"]["user"]["groups"], groups);
            }
            c.send(&admin(), "DELETE", &format!("{secrets}/bootstrap-token-abc123"), &[], Value::Null).await;
        }
    });
}
