use super::*;
use crate::kind::Registry;

fn now() -> Time {
    Time::parse("2026-01-01T01:00:00Z").unwrap()
}

/// The cells of one object by column name.
fn shown(resource: &str, object: &Value) -> Map<String, Value> {
    let registry = Registry::builtin();
    let t = table(registry.find(resource).unwrap(), [object], json!({"resourceVersion": "7"}), now(), Include::None);
    let columns = t["columnDefinitions"].as_array().unwrap();
    let cells = t["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(columns.len(), cells.len(), "{resource}");
    columns.iter().zip(cells).map(|(c, v)| (c["name"].as_str().unwrap().to_string(), v.clone())).collect()
}

#[test]
fn every_kind_has_as_many_cells_as_columns() {
    for kind in Registry::builtin().all() {
        for object in [json!({}), json!({"metadata": {"name": "x"}, "spec": null, "status": 3})] {
            let t = table(kind, [&object], Value::Null, now(), Include::Metadata);
            assert_eq!(
                t["columnDefinitions"].as_array().unwrap().len(),
                t["rows"][0]["cells"].as_array().unwrap().len(),
                "{}",
                kind.kind
            );
            assert_eq!(t["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        }
    }
    for (group, kind, ..) in ROWS {
        assert!(
            Registry::builtin().by_kind(group, if *group == "autoscaling" { "v2" } else { "v1" }, kind).is_some(),
            "{kind}"
        );
    }
}

#[test]
fn definitions() {
    let registry = Registry::builtin();
    let t = table(registry.find("pods").unwrap(), [], json!({"resourceVersion": "7"}), now(), Include::Metadata);
    assert_eq!(
        (&t["kind"], &t["apiVersion"], &t["metadata"]["resourceVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"), &json!("7"))
    );
    assert_eq!(
        t["columnDefinitions"][0],
        json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0})
    );
    assert_eq!(t["columnDefinitions"][7]["name"], "Nominated Node");
    assert_eq!(t["columnDefinitions"][7]["priority"], 1);
}

fn pod(status: Value) -> Value {
    json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:55:00Z"}, "spec": {"nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}],
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}, "status": status})
}

#[test]
fn pod_status() {
    let run = |ready: bool| json!({"name": "a", "ready": ready, "restartCount": 0, "state": {"running": {}}});
    let wait = |why: &str| json!({"name": "b", "ready": false, "restartCount": 2, "state": {"waiting": {"reason": why}}, "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:57:00Z"}}});
    let end = |t: Value| json!({"name": "b", "restartCount": 0, "state": {"terminated": t}});
    let done = json!([{"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "started": true, "ready": true, "restartCount": 0, "state": {"running": {}}}]);
    for (status, ready, reason, restarts) in [
        (json!({"phase": "Pending"}), "0/3", "Pending", "0"),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "0/3",
            "SchedulingGated",
            "0",
        ),
        (
            json!({"phase": "Running", "initContainerStatuses": done, "containerStatuses": [run(true), run(true)]}),
            "3/3",
            "Running",
            "0",
        ),
        (
            json!({"phase": "Running", "initContainerStatuses": done, "containerStatuses": [run(true), wait("CrashLoopBackOff")]}),
            "2/3",
            "CrashLoopBackOff",
            "2 (3m ago)",
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [wait("ContainerCreating")]}),
            "0/3",
            "ContainerCreating",
            "2 (3m ago)",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
            "0/3",
            "Init:0/2",
            "0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            "0/3",
            "Init:CrashLoopBackOff",
            "3",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2}}}]}),
            "0/3",
            "Init:ExitCode:2",
            "0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}]}),
            "0/3",
            "Init:Error",
            "0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "s", "state": {"running": {}}}]}),
            "0/3",
            "Init:1/2",
            "0",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [end(json!({"exitCode": 137, "reason": "OOMKilled"}))]}),
            "0/3",
            "OOMKilled",
            "0",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [end(json!({"exitCode": 137, "signal": 9}))]}),
            "0/3",
            "Signal:9",
            "0",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "0/3", "Evicted", "0"),
        (
            json!({"phase": "Succeeded", "containerStatuses": [end(json!({"exitCode": 0, "reason": "Completed"}))]}),
            "0/3",
            "Completed",
            "0",
        ),
        (
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [end(json!({"exitCode": 0, "reason": "Completed"})), run(true)]}),
            "1/3",
            "Running",
            "0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [end(json!({"exitCode": 0, "reason": "Completed"})), run(true)]}),
            "1/3",
            "NotReady",
            "0",
        ),
    ] {
        let cells = shown("pods", &pod(status.clone()));
        assert_eq!(
            (cells["Ready"].as_str().unwrap(), cells["Status"].as_str().unwrap(), cells["Restarts"].as_str().unwrap()),
            (ready, reason, restarts),
            "{status}"
        );
    }
    let mut p = pod(json!({"phase": "Running"}));
    p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:00Z");
    assert_eq!(shown("pods", &p)["Status"], "Terminating");
    p["status"]["reason"] = json!("NodeLost");
    assert_eq!(shown("pods", &p)["Status"], "Unknown");
    p["status"] = json!({"phase": "Succeeded"});
    assert_eq!(shown("pods", &p)["Status"], "Succeeded");
    let cells = shown("pods", &pod(json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]})));
    assert_eq!(
        ["Age", "IP", "Node", "Nominated Node", "Readiness Gates"].map(|c| cells[c].as_str().unwrap()),
        ["5m", "10.0.0.1", "n", "<none>", "<none>"]
    );
}

#[test]
fn other_rows() {
    let selector = json!({"matchLabels": {"a": "b"}});
    let template = json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}]}});
    for (resource, object, expect) in [
        (
            "nodes",
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"}}, "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "False"}], "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]}}),
            json!({"Status": "NotReady,SchedulingDisabled", "Roles": "control-plane,x", "Internal-IP": "1.2.3.4", "External-IP": "<none>", "Age": "<unknown>"}),
        ),
        (
            "deployments.apps",
            json!({"spec": {"replicas": 3, "selector": selector, "template": template}, "status": {"readyReplicas": 1, "updatedReplicas": 2}}),
            json!({"Ready": "1/3", "Up-to-date": 2, "Available": 0, "Containers": "a,b", "Images": "i:1,j", "Selector": "a=b"}),
        ),
        (
            "replicationcontrollers",
            json!({"kind": "ReplicationController", "spec": {"replicas": 1, "selector": {"x": "y"}}}),
            json!({"Selector": "x=y", "Desired": 1}),
        ),
        (
            "services",
            json!({"spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            json!({"Cluster-IP": "10.0.0.1", "External-IP": "<none>", "Port(s)": "80:30080/TCP,53/UDP", "Selector": "<none>"}),
        ),
        (
            "services",
            json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}, {"hostname": "h"}]}}}),
            json!({"External-IP": "9.9.9.9,h", "Cluster-IP": "<none>"}),
        ),
        (
            "services",
            json!({"spec": {"type": "LoadBalancer"}}),
            json!({"External-IP": "<pending>", "Port(s)": "<none>"}),
        ),
        (
            "endpoints",
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 1}, {"port": 2}]}]}),
            json!({"Endpoints": "1.1.1.1:1,1.1.1.2:1,1.1.1.1:2 + 1 more..."}),
        ),
        (
            "endpointslices.discovery.k8s.io",
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1.1.1.1"]}]}),
            json!({"Ports": "80", "Endpoints": "1.1.1.1"}),
        ),
        (
            "events",
            json!({"type": "Normal", "reason": "Pulled", "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet", "host": "n"}, "message": "m\n", "lastTimestamp": "2026-01-01T00:59:00Z", "count": 4}),
            json!({"Last Seen": "60s", "Object": "pod/p", "Source": "kubelet, n", "Message": "m", "Count": 4}),
        ),
        (
            "jobs.batch",
            json!({"spec": {"completions": 3}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:50:00Z"}}),
            json!({"Status": "Running", "Completions": "1/3", "Duration": "10m"}),
        ),
        (
            "persistentvolumeclaims",
            json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}),
            json!({"Status": "Bound", "Capacity": "1Gi", "Access Modes": "RWO"}),
        ),
        ("secrets", json!({"type": "Opaque", "data": {"a": "", "b": ""}}), json!({"Data": 2})),
        ("configmaps", json!({"data": {"a": ""}, "binaryData": {"b": ""}}), json!({"Data": 2})),
        (
            "horizontalpodautoscalers.autoscaling",
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]}}),
            json!({"Reference": "Deployment/d", "Targets": "cpu: <unknown>/80%"}),
        ),
        (
            "certificatesigningrequests.certificates.k8s.io",
            json!({"spec": {"signerName": "s", "username": "u"}, "status": {"certificate": "x", "conditions": [{"type": "Approved"}]}}),
            json!({"Condition": "Approved,Issued", "RequestedDuration": "<none>"}),
        ),
        (
            "poddisruptionbudgets.policy",
            json!({"spec": {"minAvailable": "50%"}}),
            json!({"Min Available": "50%", "Max Unavailable": "N/A"}),
        ),
        (
            "controllerrevisions.apps",
            json!({"revision": 2, "metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true}]}}),
            json!({"Controller": "daemonset.apps/d"}),
        ),
        (
            "resourcequotas",
            json!({"status": {"hard": {"pods": "10", "limits.cpu": "2"}, "used": {"pods": "1"}}}),
            json!({"Request": "pods: 1/10", "Limit": "limits.cpu: 0/2"}),
        ),
    ] {
        let cells = shown(resource, &object);
        for (column, value) in expect.as_object().unwrap() {
            assert_eq!(&cells[column], value, "{resource} {column}");
        }
    }
}
