//! The objects of a cluster that is not there: nodes with what a node says of itself, and pods that are said to run on them.

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::clients::Fault;
use crate::{Target, ask};

/// Of a node that is well, as it says at `time`.
pub(crate) fn conditions(time: &str) -> Value {
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "KubeletSays", "message": "kubelet has said so",
            "lastHeartbeatTime": time, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    json!([
        condition("Ready", "True"),
        condition("MemoryPressure", "False"),
        condition("DiskPressure", "False"),
        condition("PIDPressure", "False")
    ])
}

/// The patch a node's agent sends about the pod of this number.
pub(crate) fn pod_status(number: usize, restarts: usize, state: Value) -> Value {
    let container = json!([{"name": "main", "ready": state.get("running").is_some(), "restartCount": restarts, "image": "registry.example/team/service:1", "imageID": "x",
        "containerID": format!("mote://{number:064x}"), "started": true, "state": state}]);
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    json!({"status": {"phase": "Running", "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}], "hostIP": "192.0.2.1", "containerStatuses": container,
        "startTime": "2026-01-01T00:00:00Z", "conditions": [condition("Ready"), condition("PodScheduled"), condition("Initialized"), condition("ContainersReady")]}})
}

fn node(name: &str) -> Value {
    let images: Vec<Value> = (0..20)
        .map(|n| json!({"names": [format!("registry.example/team/service-{n}@sha256:{:064x}", n)], "sizeBytes": 12_345_678}))
        .collect();
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]},
        "status": {"capacity": {"cpu": "4", "memory": "4Gi", "pods": "110"}, "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"architecture": "arm64", "kubeletVersion": "v1.36.0", "operatingSystem": "linux", "osImage": "Debian", "kernelVersion": "6.1",
                "containerRuntimeVersion": "mote://0", "machineID": "0", "systemUUID": "0", "bootID": "0", "kubeProxyVersion": ""},
            "images": images,
            "conditions": conditions("2026-01-01T00:00:00Z")}})
}

fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "load", "tier": "back"}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/team/service:1", "ports": [{"containerPort": 8080}],
            "env": [{"name": "MODE", "value": "load"}], "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}}]}})
}

/// `nodes` nodes and ten pods on each, with a status as an agent writes it.
pub(crate) async fn make(target: &Target, nodes: usize) -> Result<Value, Fault> {
    let mut sender = target.connect().await?;
    let pods = "/api/v1/namespaces/default/pods";
    for n in 0..nodes {
        let name = format!("load-{n}");
        ask(&mut sender, "POST", "/api/v1/nodes", node(&name).to_string()).await?.into_body().collect().await?;
        for p in 0..10 {
            let of = format!("load-{n}-{p}");
            ask(&mut sender, "POST", pods, pod(&of, &name).to_string()).await?.into_body().collect().await?;
            let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
            let status = pod_status(n * 10 + p, 0, running);
            ask(&mut sender, "PATCH", &format!("{pods}/{of}/status"), status.to_string())
                .await?
                .into_body()
                .collect()
                .await?;
        }
    }
    Ok(json!({"nodes": nodes, "pods": nodes * 10}))
}
