//! What is refused or filled in before it is stored: quotas, ranges, pod security, accounts, priorities.

use super::*;

#[test]
fn quotas_hold_against_many_at_once() {
    run(&[], |mut c| async move {
        let quotas = "/api/v1/namespaces/default/resourcequotas";
        c.make(quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "3", "count/configmaps": "2"}}}))
            .await;
        let mut posts = tokio::task::JoinSet::new();
        for n in 0..12 {
            let server = c.server.clone();
            posts.spawn_local(async move {
                let mut one = Cluster { server, clients: HashMap::new() };
                one.post(&admin(), PODS, pod(&format!("p{n}"), json!({}))).await.code
            });
        }
        let mut codes = Vec::new();
        while let Some(code) = posts.join_next().await {
            codes.push(code.unwrap());
        }
        codes.sort_unstable();
        assert_eq!(codes, [[201; 3].as_slice(), &[403; 9]].concat());
        let said = c.post(&admin(), PODS, pod("late", json!({}))).await;
        assert_eq!(
            said.message(),
            "pods \"late\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"
        );
        assert_eq!(c.post(&admin(), &format!("{PODS}?dryRun=All"), pod("late", json!({}))).await.code, 403);
        assert_eq!(c.get(&admin(), &format!("{quotas}/q")).await.body["status"]["used"]["pods"], "3");
        // What goes makes room, a moment later.
        let pods = c.get(&admin(), PODS).await.body;
        let name = pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(c.send(&admin(), "DELETE", &format!("{PODS}/{name}"), &[], Value::Null).await.code, 200);
        for _ in 0..200 {
            if c.get(&admin(), &format!("{quotas}/q")).await.body["status"]["used"]["pods"] == "2" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(c.post(&admin(), PODS, pod("late", json!({}))).await.code, 201);
        // Other kinds, and what must be said.
        for (n, code) in [(1, 201), (2, 201), (3, 403)] {
            assert_eq!(c.post(&admin(), MAPS, json!({"metadata": {"name": format!("m{n}")}})).await.code, code, "{n}");
        }
        c.make("/api/v1/namespaces", json!({"metadata": {"name": "b"}})).await;
        c.make(
            "/api/v1/namespaces/b/resourcequotas",
            json!({"metadata": {"name": "cpu"}, "spec": {"hard": {"requests.cpu": "1"}}}),
        )
        .await;
        let said = c.post(&admin(), "/api/v1/namespaces/b/pods", pod("p", json!({}))).await;
        assert_eq!(said.message(), "pods \"p\" is forbidden: failed quota: cpu: must specify requests.cpu for: c");
        let big = json!({"resources": {"requests": {"cpu": "1500m"}}});
        let said = c.post(&admin(), "/api/v1/namespaces/b/pods", pod("p", big)).await;
        assert_eq!(
            said.message(),
            "pods \"p\" is forbidden: exceeded quota: cpu, requested: requests.cpu=1500m, used: requests.cpu=0, limited: requests.cpu=1"
        );
    });
}

#[test]
fn limit_ranges_fill_and_refuse() {
    run(&[], |mut c| async move {
        let item = json!({"type": "Container", "default": {"cpu": "200m"}, "defaultRequest": {"memory": "16Mi"}, "max": {"cpu": "1"}});
        c.make(
            "/api/v1/namespaces/default/limitranges",
            json!({"metadata": {"name": "l"}, "spec": {"limits": [item]}}),
        )
        .await;
        let made = c.make(PODS, pod("p", json!({}))).await;
        assert_eq!(
            made["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "200m", "memory": "16Mi"}})
        );
        assert_eq!(made["status"]["qosClass"], "Burstable");
        let said = c.post(&admin(), PODS, pod("q", json!({"resources": {"limits": {"cpu": "2"}}}))).await;
        assert_eq!(
            said.message(),
            "pods \"q\" is forbidden: [maximum cpu usage per Container is 1, but limit is 2]".replace(['[', ']'], "")
        );
    });
}

#[test]
fn pod_security_enforces_and_warns() {
    run(&[], |mut c| async move {
        let labels = |mode: &str, level: &str| json!({"metadata": {"labels": {format!("pod-security.kubernetes.io/{mode}"): level}}});
        let ns = "/api/v1/namespaces/default";
        c.make(PODS, pod("old", json!({"securityContext": {"privileged": true}}))).await;
        let said = c.patch(&admin(), ns, labels("enforce", "baseline")).await;
        assert_eq!(said.code, 200);
        let warned = said.warnings.join("\n");
        assert!(warned.contains("existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\""), "{warned}");
        assert!(warned.contains("old: privileged"), "{warned}");
        let said = c.post(&admin(), PODS, pod("p", json!({"securityContext": {"privileged": true}}))).await;
        assert_eq!(
            said.message(),
            r#"pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)"#
        );
        c.patch(&admin(), ns, labels("warn", "restricted")).await;
        let said = c.post(&admin(), PODS, pod("p", json!({}))).await;
        assert_eq!(said.code, 201, "{}", said.body);
        assert!(said.warnings[0].contains("would violate PodSecurity"), "{:?}", said.warnings);
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("x", json!({"securityContext": {"privileged": true}}))["spec"]});
        let deployment =
            json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
        let said = c.post(&admin(), "/apis/apps/v1/namespaces/default/deployments", deployment).await;
        assert_eq!((said.code, said.warnings.len()), (201, 1), "{}", said.body);
        let said = c.patch(&admin(), ns, labels("enforce", "strict")).await;
        assert_eq!(said.code, 422);
        assert!(said.message().contains("must be one of privileged, baseline, restricted"), "{}", said.message());
    });
}

#[test]
fn pods_get_their_account_and_priority() {
    run(&[], |mut c| async move {
        let made = c.make(PODS, pod("p", json!({}))).await;
        assert_eq!(made["spec"]["serviceAccountName"], "default");
        let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
        assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
        assert_eq!(made["spec"]["volumes"][0]["name"], mount["name"]);
        let mut other = pod("q", json!({}));
        other["spec"]["serviceAccountName"] = "robot".into();
        let said = c.post(&admin(), PODS, other.clone()).await;
        assert_eq!(
            said.message(),
            "pods \"q\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
        );
        let account = json!({"metadata": {"name": "robot"}, "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "pull"}]});
        c.make("/api/v1/namespaces/default/serviceaccounts", account).await;
        let made = c.make(PODS, other).await;
        assert_eq!(
            (&made["spec"]["volumes"], &made["spec"]["imagePullSecrets"][0]["name"]),
            (&Value::Null, &json!("pull"))
        );
        let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
        let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"});
        c.make(classes, class("usual", 7, true)).await;
        assert_eq!(c.post(&admin(), classes, class("usual2", 8, true)).await.code, 403);
        let made = c.make(PODS, pod("r", json!({}))).await;
        assert_eq!(
            (&made["spec"]["priority"], &made["spec"]["priorityClassName"], &made["spec"]["preemptionPolicy"]),
            (&json!(7), &json!("usual"), &json!("Never"))
        );
        let mut odd = pod("s", json!({}));
        odd["spec"]["priorityClassName"] = "nonesuch".into();
        let said = c.post(&admin(), PODS, odd).await;
        assert_eq!(said.message(), "pods \"s\" is forbidden: no PriorityClass with name nonesuch was found");
    });
}
