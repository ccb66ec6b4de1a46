use super::*;
use crate::kind::Registry;

fn filled(resource: &str, mut object: Value) -> Value {
    let registry = Registry::builtin();
    let kind = registry.find(resource).unwrap();
    apply(kind, &mut object);
    let once = object.clone();
    apply(kind, &mut object);
    assert_eq!(object, once, "defaults of {resource} are idempotent");
    crate::schema::check(kind, &mut object, &[], crate::schema::Unknown::Error).expect("defaults fit the schema");
    object
}

#[test]
fn pods() {
    let p = filled(
        "pods",
        json!({"spec": {
        "containers": [{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "readinessProbe": {"httpGet": {"port": 80}}, "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}],
        "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}], "serviceAccountName": "sa"}}),
    );
    let spec = &p["spec"];
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
        ("serviceAccount", json!("sa")),
        (
            "volumes",
            json!([{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}}]),
        ),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    let c = &spec["containers"][0];
    assert_eq!(c["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(c["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
    assert_eq!(
        c["readinessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(c["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(
        (&c["terminationMessagePath"], &c["terminationMessagePolicy"]),
        (&json!("/dev/termination-log"), &json!("File"))
    );
    let host = filled(
        "pods",
        json!({"spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 80}]}]}}),
    );
    assert_eq!(host["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
}

#[test]
fn pull_policy_by_tag() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.2", "IfNotPresent"),
        ("r:5000/nginx", "Always"),
        ("r:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
        ("nginx:latest@sha256:00", "Always"),
        ("r:5000/a/b@sha256:00", "IfNotPresent"),
        ("", "Always"),
    ] {
        let p = filled("pods", json!({"spec": {"containers": [{"name": "a", "image": image}]}}));
        assert_eq!(p["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn services() {
    let s = filled(
        "services",
        json!({"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "http", "protocol": "UDP"}]}}),
    );
    assert_eq!(
        s["spec"],
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}, {"port": 81, "targetPort": "http", "protocol": "UDP"}]})
    );
    let s = filled("services", json!({"spec": {"type": "ExternalName", "externalName": "x"}}));
    assert_eq!(s["spec"], json!({"type": "ExternalName", "externalName": "x", "sessionAffinity": "None"}));
    let s =
        filled("services", json!({"spec": {"type": "NodePort", "clusterIP": "None", "sessionAffinity": "ClientIP"}}));
    assert_eq!(s["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(s["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(s["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
}

#[test]
fn workloads() {
    let template =
        || json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b:1"}]}});
    let d = filled("deployments.apps", json!({"spec": {"template": template()}}));
    assert_eq!(
        d["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(
        (&d["spec"]["replicas"], &d["spec"]["revisionHistoryLimit"], &d["spec"]["progressDeadlineSeconds"]),
        (&json!(1), &json!(10), &json!(600))
    );
    assert_eq!(d["spec"]["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(d["spec"]["template"]["spec"].get("enableServiceLinks"), None);
    let d = filled(
        "deployments.apps",
        json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}, "template": template()}}),
    );
    assert_eq!((&d["spec"]["replicas"], &d["spec"]["strategy"]), (&json!(0), &json!({"type": "Recreate"})));
    let rc = filled("replicationcontrollers", json!({"spec": {"template": template()}}));
    assert_eq!((&rc["spec"]["selector"], &rc["metadata"]["labels"]), (&json!({"a": "b"}), &json!({"a": "b"})));
    let j = filled("jobs.batch", json!({"spec": {"template": template()}}));
    assert_eq!(
        (&j["spec"]["completions"], &j["spec"]["parallelism"], &j["spec"]["backoffLimit"]),
        (&json!(1), &json!(1), &json!(6))
    );
    let j = filled("jobs.batch", json!({"spec": {"parallelism": 3, "template": template()}}));
    assert_eq!(j["spec"].get("completions"), None);
    for resource in ["daemonsets.apps", "statefulsets.apps", "replicasets.apps"] {
        filled(resource, json!({"spec": {"template": template()}}));
    }
    let c = filled("cronjobs.batch", json!({"spec": {"jobTemplate": {"spec": {"template": template()}}}}));
    assert_eq!((&c["spec"]["concurrencyPolicy"], &c["spec"]["failedJobsHistoryLimit"]), (&json!("Allow"), &json!(1)));
}

#[test]
fn small_kinds() {
    assert_eq!(filled("secrets", json!({}))["type"], "Opaque");
    let ending = filled(
        "namespaces",
        json!({"metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}}),
    );
    assert_eq!(ending["spec"], json!({}));
    let ns = filled("namespaces", json!({"metadata": {"name": "x"}}));
    assert_eq!(
        (&ns["spec"]["finalizers"], &ns["metadata"]["labels"]["kubernetes.io/metadata.name"], &ns["status"]["phase"]),
        (&json!(["kubernetes"]), &json!("x"), &json!("Active"))
    );
    assert_eq!(
        filled("networkpolicies.networking.k8s.io", json!({"spec": {"podSelector": {}, "egress": []}}))["spec"]["policyTypes"],
        json!(["Ingress", "Egress"])
    );
    assert_eq!(
        filled(
            "rolebindings.rbac.authorization.k8s.io",
            json!({"roleRef": {"kind": "Role", "name": "x"}, "subjects": [{"kind": "User", "name": "u"}]})
        )["subjects"][0]["apiGroup"],
        "rbac.authorization.k8s.io"
    );
    assert_eq!(filled("configmaps", json!({"data": {}})), json!({"data": {}}));
}
