use super::*;
use crate::kind::Registry;
use crate::tree::{remove, set};

fn defaulted(resource: &str, mut object: Value) -> (std::rc::Rc<Kind>, Value) {
    let kind = Registry::builtin().find(resource).unwrap().clone();
    if kind.namespaced {
        crate::tree::set_default(&mut object, &["metadata", "namespace"], json!("default"));
    }
    crate::tree::set_default(&mut object, &["metadata", "name"], json!("x"));
    crate::defaults::apply(&kind, &mut object);
    (kind, object)
}

fn errors(resource: &str, object: Value) -> Vec<String> {
    let (kind, object) = defaulted(resource, object);
    create(&kind, &object).iter().map(Error::to_string).collect()
}

fn pod() -> Value {
    json!({"spec": {"containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v"}]}})
}

fn deployment() -> Value {
    json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}}})
}

#[test]
fn good_objects_pass() {
    for (resource, object) in [
        ("pods", pod()),
        ("deployments.apps", deployment()),
        ("replicasets.apps", deployment()),
        ("daemonsets.apps", deployment()),
        ("services", json!({"spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})),
        ("services", json!({"spec": {"clusterIP": "None"}})),
        ("namespaces", json!({})),
        ("configmaps", json!({"data": {"a.b": "c"}})),
        ("secrets", json!({"data": {"a": "aGk="}})),
        ("nodes", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}})),
        ("leases.coordination.k8s.io", json!({"spec": {"leaseDurationSeconds": 40}})),
        ("events", json!({"involvedObject": {"namespace": "default", "name": "x"}})),
        ("events", json!({"involvedObject": {"kind": "Node", "name": "x"}})),
        ("clusterroles.rbac.authorization.k8s.io", json!({"metadata": {"name": "system:node"}})),
        ("pods", json!({"metadata": {"name": "", "generateName": "a-"}, "spec": pod()["spec"]})),
    ] {
        assert_eq!(errors(resource, object), [] as [String; 0], "{resource}");
    }
}

#[test]
fn metadata_rules() {
    for (resource, path, value, error) in [
        (
            "pods",
            &["metadata", "name"][..],
            json!("Bad_Name"),
            "metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            "namespaces",
            &["metadata", "name"],
            json!("a.b"),
            "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of",
        ),
        (
            "services",
            &["metadata", "name"],
            json!("0a"),
            "metadata.name: Invalid value: \"0a\": a DNS-1035 label must consist of",
        ),
        ("pods", &["metadata", "name"], json!(""), "metadata.name: Required value: name or generateName is required"),
        ("pods", &["metadata", "namespace"], json!(""), "metadata.namespace: Required value"),
        ("nodes", &["metadata", "namespace"], json!("x"), "metadata.namespace: Forbidden: not allowed on this type"),
        (
            "pods",
            &["metadata", "labels"],
            json!({"a b": "c"}),
            "metadata.labels: Invalid value: \"a b\": name part must consist of",
        ),
        (
            "pods",
            &["metadata", "labels"],
            json!({"a": "c d"}),
            "metadata.labels: Invalid value: \"c d\": a valid label must be",
        ),
        (
            "pods",
            &["metadata", "annotations"],
            json!({"a": "x".repeat(300 << 10)}),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        ("pods", &["metadata", "finalizers"], json!(["a b"]), "metadata.finalizers: Invalid value: \"a b\""),
        (
            "pods",
            &["metadata", "ownerReferences"],
            json!([{"apiVersion": "v1", "kind": "Node", "name": "n"}]),
            "metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty",
        ),
    ] {
        let (kind, mut object) = defaulted(
            resource,
            if resource == "services" {
                json!({"spec": {"clusterIP": "None"}})
            } else if resource == "pods" {
                pod()
            } else {
                json!({})
            },
        );
        set(&mut object, path, value);
        let found = create(&kind, &object);
        assert!(found.len() == 1 && found[0].to_string().starts_with(error), "{error}: {found:?}");
    }
}

#[test]
fn pod_rules() {
    let container = |field: &str, value: Value| {
        let mut p = pod();
        p["spec"]["containers"][0][field] = value;
        p
    };
    let spec = |field: &str, value: Value| {
        let mut p = pod();
        p["spec"][field] = value;
        p
    };
    for (object, error) in [
        (spec("containers", json!([])), "spec.containers: Required value"),
        (container("name", json!("A")), "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label"),
        (container("name", json!("")), "spec.containers[0].name: Required value"),
        (container("image", json!("")), "spec.containers[0].image: Required value"),
        (
            container("image", json!(" a")),
            "spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace",
        ),
        (
            container("imagePullPolicy", json!("x")),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"x\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            container("ports", json!([{"containerPort": 70000}])),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            container("ports", json!([{"containerPort": 1, "protocol": "X"}])),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            container("ports", json!([{"containerPort": 1, "hostPort": 2}, {"containerPort": 3, "hostPort": 2}])),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//2\"",
        ),
        (
            container("env", json!([{"name": "a=b"}])),
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name",
        ),
        (
            container(
                "env",
                json!([{"name": "a", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            ),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            container("volumeMounts", json!([{"name": "w", "mountPath": "/"}])),
            "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
        ),
        (
            container("volumeMounts", json!([{"name": "v", "mountPath": "/"}, {"name": "v", "mountPath": "/"}])),
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/\": must be unique",
        ),
        (
            container("volumeMounts", json!([{"name": "v", "mountPath": "/", "subPath": "../x"}])),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            container("resources", json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            container("resources", json!({"requests": {"cpu": "-1"}})),
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            container("resources", json!({"requests": {"foo": "1"}})),
            "spec.containers[0].resources.requests[foo]: Invalid value: \"foo\": must be a standard resource for containers",
        ),
        (
            container("livenessProbe", json!({})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            container("livenessProbe", json!({"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}})),
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (
            container("livenessProbe", json!({"exec": {"command": ["x"]}, "successThreshold": 2})),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            container("readinessProbe", json!({"tcpSocket": {"port": 0}})),
            "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            container("securityContext", json!({"runAsUser": -1})),
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            container("securityContext", json!({"privileged": true, "allowPrivilegeEscalation": false})),
            "spec.containers[0].securityContext: Invalid value",
        ),
        (
            spec("initContainers", json!([{"name": "a", "image": "i"}])),
            "spec.initContainers[0].name: Duplicate value: \"a\"",
        ),
        (
            spec("initContainers", json!([{"name": "b", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}])),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers",
        ),
        (
            spec("ephemeralContainers", json!([{"name": "b", "image": "i"}])),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            spec("restartPolicy", json!("x")),
            "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        (
            spec("dnsPolicy", json!("None")),
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver",
        ),
        (
            spec("terminationGracePeriodSeconds", json!(-1)),
            "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            spec("activeDeadlineSeconds", json!(0)),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and",
        ),
        (spec("hostname", json!("a.b")), "spec.hostname: Invalid value: \"a.b\""),
        (spec("nodeSelector", json!({"a": "b c"})), "spec.nodeSelector: Invalid value: \"b c\""),
        (
            spec("tolerations", json!([{"operator": "Equal"}])),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
        ),
        (
            spec("tolerations", json!([{"key": "a", "operator": "Exists", "effect": "x"}])),
            "spec.tolerations[0].effect: Unsupported value: \"x\"",
        ),
        (
            spec("volumes", json!([{"name": "v", "hostPath": {"path": "/"}, "emptyDir": {}}])),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            spec("volumes", json!([{"name": "v", "hostPath": {"path": ""}}])),
            "spec.volumes[0].hostPath.path: Required value",
        ),
        (spec("volumes", json!([{"name": "v"}, {"name": "v"}])), "spec.volumes[1].name: Duplicate value: \"v\""),
        (
            spec(
                "volumes",
                json!([{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]),
            ),
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            spec("topologySpreadConstraints", json!([{"maxSkew": 0, "topologyKey": "k"}])),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            spec(
                "affinity",
                json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
            ),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value",
        ),
    ] {
        let found = errors("pods", object);
        assert!(found.len() == 1 && found[0].starts_with(error), "{error}\n{found:?}");
    }
}

#[test]
fn workload_and_service_rules() {
    let with = |mut object: Value, path: &[&str], value: Value| {
        if value.is_null() {
            remove(&mut object, path);
        } else {
            set(&mut object, path, value);
        }
        object
    };
    let service = || json!({"spec": {"ports": [{"port": 80}]}});
    for (resource, object, error) in [
        ("deployments.apps", with(deployment(), &["spec", "selector"], Value::Null), "spec.selector: Required value"),
        (
            "deployments.apps",
            with(deployment(), &["spec", "selector"], json!({})),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            "deployments.apps",
            with(deployment(), &["spec", "selector", "matchLabels", "a"], json!("c")),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ),
        (
            "deployments.apps",
            with(deployment(), &["spec", "replicas"], json!(-1)),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "deployments.apps",
            with(deployment(), &["spec", "template", "spec", "restartPolicy"], json!("Never")),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            "deployments.apps",
            with(deployment(), &["spec", "strategy"], json!({"type": "Recreate", "rollingUpdate": {}})),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "deployments.apps",
            with(
                deployment(),
                &["spec", "strategy"],
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
            ),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ),
        (
            "deployments.apps",
            with(deployment(), &["spec", "strategy"], json!({"rollingUpdate": {"maxSurge": "x"}})),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string",
        ),
        (
            "deployments.apps",
            with(deployment(), &["spec", "minReadySeconds"], json!(600)),
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
        (
            "jobs.batch",
            with(deployment(), &["spec", "template", "spec", "restartPolicy"], json!("Always")),
            "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"Never\", \"OnFailure\"",
        ),
        ("services", json!({"spec": {}}), "spec.ports: Required value"),
        (
            "services",
            json!({"spec": {"type": "X", "ports": [{"port": 1}]}}),
            "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            "services",
            json!({"spec": {"ports": [{"port": 0, "targetPort": 1}]}}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "services",
            json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2}]}}),
            "spec.ports[1].name: Required value",
        ),
        (
            "services",
            json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}}),
            "spec.ports[1]: Duplicate value",
        ),
        (
            "services",
            with(service(), &["spec", "clusterIP"], json!("x")),
            "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address",
        ),
        (
            "services",
            with(service(), &["spec", "sessionAffinity"], json!("x")),
            "spec.sessionAffinity: Unsupported value: \"x\": supported values: \"ClientIP\", \"None\"",
        ),
        ("services", json!({"spec": {"type": "ExternalName"}}), "spec.externalName: Required value"),
        (
            "configmaps",
            json!({"data": {"a b": ""}}),
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of",
        ),
        ("secrets", json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), "data[tls.key]: Required value"),
        (
            "leases.coordination.k8s.io",
            json!({"spec": {"leaseDurationSeconds": 0}}),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "events",
            json!({"involvedObject": {"namespace": "other"}}),
            "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace",
        ),
        (
            "nodes",
            json!({"spec": {"taints": [{"key": "k", "effect": "x"}]}}),
            "spec.taints[0].effect: Unsupported value: \"x\"",
        ),
    ] {
        let found = errors(resource, object);
        assert!(found.len() == 1 && found[0].starts_with(error), "{error}\n{found:?}");
    }
}

#[test]
fn updates() {
    for (resource, object, path, value, error) in [
        (
            "pods",
            pod(),
            &["spec", "nodeName"][..],
            json!("n"),
            Some("spec: Forbidden: pod updates may not change fields other than"),
        ),
        ("pods", pod(), &["spec", "activeDeadlineSeconds"], json!(5), None),
        ("pods", pod(), &["spec", "tolerations"], json!([{"key": "a", "operator": "Exists"}]), None),
        ("pods", pod(), &["metadata", "labels"], json!({"a": "b"}), None),
        (
            "pods",
            pod(),
            &["metadata", "uid"],
            json!("u"),
            Some("metadata.uid: Invalid value: \"u\": field is immutable"),
        ),
        (
            "pods",
            pod(),
            &["spec", "schedulingGates"],
            json!([{"name": "g"}]),
            Some("spec.schedulingGates: Forbidden: only deletion is allowed"),
        ),
        ("deployments.apps", deployment(), &["spec", "replicas"], json!(4), None),
        (
            "deployments.apps",
            deployment(),
            &["spec", "selector", "matchExpressions"],
            json!([{"key": "a", "operator": "Exists"}]),
            Some("spec.selector: Invalid value: {"),
        ),
        (
            "statefulsets.apps",
            deployment(),
            &["spec", "serviceName"],
            json!("s"),
            Some("spec: Forbidden: updates to statefulset spec"),
        ),
        ("secrets", json!({}), &["type"], json!("a/b"), Some("type: Invalid value: \"a/b\": field is immutable")),
        (
            "configmaps",
            json!({"immutable": true, "data": {"a": "b"}}),
            &["data", "a"],
            json!("c"),
            Some("data: Forbidden: field is immutable when `immutable` is set"),
        ),
        (
            "services",
            json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 1}]}}),
            &["spec", "ports"],
            json!([{"port": 2, "protocol": "TCP"}]),
            None,
        ),
    ] {
        let (kind, old) = defaulted(resource, object);
        let mut new = old.clone();
        set(&mut new, path, value);
        let found: Vec<String> = update(&kind, &new, &old, "").iter().map(Error::to_string).collect();
        match error {
            None => assert_eq!(found, [] as [String; 0], "{resource} {path:?}"),
            Some(e) => assert!(found.len() == 1 && found[0].starts_with(e), "{e}\n{found:?}"),
        }
    }
    let (kind, old) = defaulted("pods", pod());
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("j");
    assert!(update(&kind, &new, &old, "").is_empty());
    new["spec"]["containers"][0]["args"] = json!(["j"]);
    assert_eq!(update(&kind, &new, &old, "").len(), 1);
    assert!(update(&kind, &new, &old, "status").is_empty(), "a status update does not look at the spec");
    let mut deleting = old.clone();
    set(&mut deleting, &["metadata", "deletionTimestamp"], json!("2026-01-01T00:00:00Z"));
    let mut more = deleting.clone();
    set(&mut more, &["metadata", "finalizers"], json!(["a/b"]));
    assert!(
        update(&kind, &more, &deleting, "")[0]
            .to_string()
            .starts_with("metadata.finalizers: Forbidden: no new finalizers")
    );
}
