//! Roles, bindings, reviews, impersonation, and what nodes may.

use super::*;

#[test]
fn roles_open_what_they_name() {
    run(&[], |mut c| async move {
        let said = c.get(&ann(), PODS).await;
        assert_eq!(
            (said.code, said.message()),
            (
                403,
                r#"pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default""#
            )
        );
        assert_eq!((&said.body["reason"], &said.body["details"]["kind"]), (&json!("Forbidden"), &json!("pods")));
        let said = c.get(&ann(), "/api/v1/nodes/a").await;
        assert_eq!(
            said.message(),
            r#"nodes "a" is forbidden: User "ann" cannot get resource "nodes" in API group "" at the cluster scope"#
        );
        // What everybody may.
        assert_eq!(c.get(&ann(), "/api/v1").await.code, 200);
        assert_eq!(c.get(&ann(), "/version").await.code, 200);
        let said = c.get(&ann(), "/metrics").await;
        assert_eq!((said.code, said.message()), (403, r#"forbidden: User "ann" cannot get path "/metrics""#));
        // By group, in one namespace; it holds at once.
        c.role("", "reader", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}])).await;
        c.bind("default", "reader", "Group", "dev").await;
        assert_eq!(c.get(&ann(), PODS).await.code, 200);
        assert_eq!(c.get(&ann(), &format!("{PODS}?watch=1&timeoutSeconds=1")).await.code, 403);
        assert_eq!(c.get(&ann(), "/api/v1/pods").await.code, 403);
        assert_eq!(c.get(&ann(), "/api/v1/namespaces/kube-system/pods").await.code, 403);
        // The subresource is another thing.
        let said = c.get(&ann(), &format!("{PODS}/x/log")).await;
        assert!(said.message().contains(r#"cannot get resource "pods/log""#), "{}", said.message());
        // One name.
        c.make(MAPS, json!({"metadata": {"name": "mine"}})).await;
        c.role("", "one", json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get", "list", "watch"]}])).await;
        c.bind("", "one", "User", "ann").await;
        assert_eq!(c.get(&ann(), &format!("{MAPS}/mine")).await.code, 200);
        assert_eq!(c.get(&ann(), &format!("{MAPS}?fieldSelector=metadata.name%3Dmine")).await.code, 200);
        assert_eq!(c.get(&ann(), MAPS).await.code, 403);
        // Taken away again.
        let role = format!("{RBAC}/clusterroles/reader");
        assert_eq!(c.send(&admin(), "DELETE", &role, &[], Value::Null).await.code, 200);
        let said = c.get(&ann(), PODS).await;
        assert!(
            said.message().ends_with(r#": RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found"#),
            "{}",
            said.message()
        );
    });
}

#[test]
fn aggregated_roles_are_what_their_parts_are() {
    run(&[], |mut c| async move {
        c.bind("default", "view", "User", "ann").await;
        // The sum is made by a task that wakes up for it.
        for _ in 0..200 {
            if c.get(&ann(), PODS).await.code == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(c.get(&ann(), PODS).await.code, 200);
        assert_eq!(c.get(&ann(), "/api/v1/namespaces/default/secrets").await.code, 403);
        let widgets = json!([{"apiGroups": ["batch"], "resources": ["cronjobs/status", "x"], "verbs": ["patch"]}]);
        let labels = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
        c.make(
            &format!("{RBAC}/clusterroles"),
            json!({"metadata": {"name": "more", "labels": labels}, "rules": widgets}),
        )
        .await;
        for _ in 0..200 {
            let admin_role = c.get(&admin(), &format!("{RBAC}/clusterroles/admin")).await.body;
            if admin_role["rules"].as_array().unwrap().contains(&widgets[0]) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("through view and edit to admin");
    });
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    run(&[], |mut c| async move {
        let all = json!(["create", "update", "patch", "get"]);
        c.role(
            "",
            "roles",
            json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": all},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]),
        )
        .await;
        c.bind("", "roles", "User", "ann").await;
        let role = |verb: &str| json!({"metadata": {"name": format!("r-{verb}")}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]});
        let roles = format!("{RBAC}/clusterroles");
        assert_eq!(c.post(&ann(), &roles, role("get")).await.code, 201);
        let said = c.post(&ann(), &roles, role("delete")).await;
        assert_eq!(
            (said.code, said.message()),
            (
                403,
                "clusterroles.rbac.authorization.k8s.io \"r-delete\" is forbidden: user \"ann\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
            )
        );
        // Nor by way of a change, an aggregate or a binding.
        let grown = json!({"rules": role("*")["rules"]});
        assert_eq!(c.patch(&ann(), &format!("{roles}/r-get"), grown).await.code, 403);
        assert_eq!(
            c.patch(&ann(), &format!("{roles}/r-get"), json!({"metadata": {"labels": {"a": "b"}}})).await.code,
            200
        );
        let sum = json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
        assert_eq!(c.post(&ann(), &roles, sum).await.code, 403);
        let binding = |role: &str| json!({"metadata": {"name": role}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}, "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]});
        let bindings = format!("{RBAC}/namespaces/default/rolebindings");
        assert_eq!(c.post(&ann(), &bindings, binding("cluster-admin")).await.code, 403);
        assert_eq!(c.post(&ann(), &bindings, binding("r-get")).await.code, 201);
        assert_eq!(c.post(&ann(), &bindings, binding("nonesuch")).await.code, 404);
        // Who may bind a role by name need not hold it; who may escalate, anything.
        c.role("", "binder", json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["edit"], "verbs": ["bind"]}])).await;
        c.bind("", "binder", "User", "ann").await;
        assert_eq!(c.post(&ann(), &bindings, binding("edit")).await.code, 201);
        assert_eq!(c.post(&ann(), &bindings, binding("admin")).await.code, 403);
        c.role(
            "",
            "escalator",
            json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["escalate"]}]),
        )
        .await;
        c.bind("", "escalator", "User", "ann").await;
        assert_eq!(c.post(&ann(), &roles, role("delete")).await.code, 201);
    });
}

#[test]
fn reviews_and_impersonation() {
    run(&[], |mut c| async move {
        c.role("", "reader", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}, {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}])).await;
        c.bind("", "reader", "User", "ann").await;
        let me = c.post(&ann(), "/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
        assert_eq!(me.body["status"]["userInfo"]["username"], "ann");
        assert_eq!(me.body["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));
        let ssar = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let can = |verb: &str| json!({"spec": {"resourceAttributes": {"namespace": "default", "resource": "pods", "verb": verb}}});
        let said = c.post(&ann(), ssar, can("list")).await;
        assert_eq!(said.body["status"]["allowed"], true, "{}", said.body);
        assert!(said.body["status"]["reason"].as_str().unwrap().starts_with("RBAC: allowed by ClusterRoleBinding"));
        assert_eq!(c.post(&ann(), ssar, can("get")).await.body["status"]["allowed"], false);
        let path = |path: &str| json!({"spec": {"nonResourceAttributes": {"path": path, "verb": "get"}}});
        assert_eq!(c.post(&ann(), ssar, path("/metrics")).await.body["status"]["allowed"], true);
        assert_eq!(c.post(&ann(), ssar, path("/logs")).await.body["status"]["allowed"], false);
        assert_eq!(c.post(&ann(), ssar, json!({"spec": {}})).await.code, 422);
        let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
        let said = c.post(&ann(), rules, json!({"spec": {"namespace": "default"}})).await;
        let listed = said.body["status"]["resourceRules"].as_array().unwrap();
        assert!(
            listed.contains(&json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]})),
            "{}",
            said.body
        );
        // About others.
        let sar = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let about = json!({"spec": {"user": "ann", "resourceAttributes": {"resource": "pods", "verb": "list"}}});
        assert_eq!(c.post(&ann(), sar, about.clone()).await.code, 403);
        assert_eq!(c.post(&admin(), sar, about.clone()).await.body["status"]["allowed"], true);
        let local = "/apis/authorization.k8s.io/v1/namespaces/kube-system/localsubjectaccessreviews";
        let mut inside = about.clone();
        inside["spec"]["resourceAttributes"]["namespace"] = "kube-system".into();
        assert_eq!(c.post(&admin(), local, inside).await.body["status"]["allowed"], true);
        assert_eq!(c.post(&admin(), local, about).await.code, 422);
        // As another.
        let said = c.send(&admin(), "GET", "/api/v1/secrets", &[("Impersonate-User", "ann")], Value::Null).await;
        assert!(said.message().contains("User \"ann\" cannot list"), "{}", said.message());
        let said = c.send(&ann(), "GET", "/api/v1/secrets", &[("Impersonate-User", "bob")], Value::Null).await;
        assert_eq!(
            said.message(),
            r#"users "bob" is forbidden: User "ann" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        c.role(
            "",
            "as-dev",
            json!([{"apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"], "verbs": ["impersonate"]}]),
        )
        .await;
        c.bind("", "as-dev", "User", "ann").await;
        let as_bob = |group: &'static str| [("Impersonate-User", "bob"), ("Impersonate-Group", group)];
        let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let said = c.send(&ann(), "POST", whoami, &as_bob("")[..1], json!({})).await;
        assert_eq!(said.body["status"]["userInfo"], json!({"username": "bob", "groups": ["system:authenticated"]}));
        let said = c.send(&ann(), "POST", whoami, &as_bob("system:masters"), json!({})).await;
        assert!(said.message().starts_with(r#"groups "system:masters" is forbidden"#), "{}", said.message());
    });
}

#[test]
fn nodes_see_what_their_pods_name() {
    run(&[], |mut c| async move {
        let (node, other) = (UserInfo::node("n"), UserInfo::node("m"));
        let secrets = "/api/v1/namespaces/default/secrets";
        for name in ["used", "unused"] {
            c.make(secrets, json!({"metadata": {"name": name}, "data": {"a": "YQ=="}})).await;
        }
        c.make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        assert_eq!(c.post(&node, "/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.code, 201);
        let said = c.post(&node, "/api/v1/nodes", json!({"metadata": {"name": "m"}})).await;
        assert_eq!(said.message(), r#"nodes "m" is forbidden: node "n" is not allowed to modify node "m""#);
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "used"}}]}]}});
        let pod = c.make(PODS, pod).await;
        assert_eq!(c.get(&node, &format!("{secrets}/used")).await.code, 200);
        for (user, path) in
            [(&node, format!("{secrets}/unused")), (&other, format!("{secrets}/used")), (&node, secrets.to_owned())]
        {
            assert_eq!(c.get(user, &path).await.code, 403, "{path}");
        }
        let said = c.get(&other, &format!("{secrets}/used")).await;
        assert!(
            said.message().ends_with("no relationship found between node 'm' and this object"),
            "{}",
            said.message()
        );
        assert_eq!(c.get(&node, &format!("{PODS}/p")).await.code, 200);
        assert_eq!(c.get(&other, &format!("{PODS}/p")).await.code, 403);
        assert_eq!(c.get(&node, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn").await.code, 200);
        assert_eq!(c.get(&node, "/api/v1/pods?fieldSelector=spec.nodeName%3Dm").await.code, 403);
        assert_eq!(c.get(&node, "/api/v1/pods").await.code, 403);
        assert_eq!(c.get(&node, "/apis/discovery.k8s.io/v1/endpointslices").await.code, 200);
        let status = json!({"status": {"phase": "Running"}});
        assert_eq!(c.patch(&node, &format!("{PODS}/p/status"), status.clone()).await.code, 200);
        let said = c.patch(&other, &format!("{PODS}/p/status"), status).await;
        assert!(
            said.message().contains("can only update pod status for pods with spec.nodeName set to itself"),
            "{}",
            said.message()
        );
        assert_eq!(c.send(&other, "DELETE", &format!("{PODS}/p"), &[], Value::Null).await.code, 403);
        assert_eq!(
            c.patch(
                &node,
                "/api/v1/nodes/n",
                json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}})
            )
            .await
            .code,
            403
        );
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        assert_eq!(c.post(&node, leases, json!({"metadata": {"name": "n"}})).await.code, 201);
        assert_eq!(c.post(&node, leases, json!({"metadata": {"name": "m"}})).await.code, 403);
        // Tokens of its own pods.
        let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
        let bound = |uid: &Value| json!({"spec": {"audiences": [], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
        assert_eq!(c.post(&node, tokens, bound(&pod["metadata"]["uid"])).await.code, 201);
        assert_eq!(c.post(&other, tokens, bound(&pod["metadata"]["uid"])).await.code, 403);
        assert_eq!(c.post(&node, tokens, bound(&json!("other"))).await.code, 403);
        assert_eq!(c.post(&node, tokens, json!({"spec": {"audiences": []}})).await.code, 403);
    });
}

#[test]
fn proxies_are_for_who_may_and_reach_no_further_than_objects_say() {
    run(&[], |mut c| async move {
        c.make(PODS, pod("p", json!({}))).await;
        let status = |ip: &str| json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
        let proxy = format!("{PODS}/p:80/proxy/");
        let refused = c.get(&ann(), &proxy).await;
        assert_eq!(
            (refused.code, refused.message().contains(r#"resource "pods/proxy""#)),
            (403, true),
            "{}",
            refused.body
        );
        // Reading pods is not enough, nor is `get` for what is sent as POST.
        c.role("", "reader", json!([{"apiGroups": [""], "resources": ["pods", "pods/proxy"], "verbs": ["get"]}])).await;
        c.bind("", "reader", "User", "ann").await;
        assert_eq!(c.get(&ann(), &proxy).await.code, 503);
        assert_eq!(c.post(&ann(), &proxy, json!({})).await.code, 403);
        for ip in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "nonsense"] {
            let told = c.patch(&admin(), &format!("{PODS}/p/status"), status(ip)).await;
            if told.code == 200 {
                let said = c.get(&ann(), &proxy).await;
                assert_eq!((said.code, said.message()), (400, "address not allowed"), "{ip}");
            }
        }
        // Endpoints that somebody wrote by hand are nobody's pod.
        c.make(
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
        )
        .await;
        let by_hand = json!([{"ip": "10.9.9.9", "targetRef": {"kind": "Pod", "name": "p"}}, {"ip": "10.9.9.8"}]);
        let subsets = json!([{"addresses": by_hand, "ports": [{"port": 80}]}]);
        c.make("/api/v1/namespaces/default/endpoints", json!({"metadata": {"name": "s"}, "subsets": subsets})).await;
        for (name, code) in [("s", 503), ("s:80", 503), ("s:81", 503), ("ftp:s:80", 400), ("none", 404)] {
            let said = c.get(&admin(), &format!("/api/v1/namespaces/default/services/{name}/proxy/x")).await;
            assert_eq!(said.code, code, "{name}: {}", said.body);
        }
        // Relative links need the folder.
        assert_eq!(c.get(&admin(), &format!("{PODS}/p/proxy")).await.code, 301);
        assert_eq!(c.get(&admin(), "/api/v1/nodes/none/proxy/healthz").await.code, 404);
        assert_eq!(c.get(&ann(), "/api/v1/nodes/none/proxy/healthz").await.code, 403);
    });
}
