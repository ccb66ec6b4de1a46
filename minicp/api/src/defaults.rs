//! The defaults of each kind, as upstream's (`pkg/apis/*/v1/defaults.go`): what the writer left out is written down when the object is stored.

mod pod;
mod workload;

use crate::kind::Kind;
use crate::tree::{Value, i64_at, json, list_mut, set_default, slot, str_at};

/// Fills in what the writer left out. Idempotent, and harmless on updates and patches.
pub fn apply(kind: &Kind, object: &mut Value) {
    if let Some(custom) = &kind.custom {
        return crate::structural::fill(&custom.schema, object);
    }
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => pod::pod(object),
        ("", "PodTemplate") => pod::template(slot(object, &["template"])),
        ("", "ReplicationController") => workload::replication_controller(object),
        ("", "Service") => service(object),
        ("", "Namespace") => namespace(object),
        ("", "Secret") => set_default(object, &["type"], json!("Opaque")),
        ("", "Node") => node(object),
        ("", "Endpoints") => endpoints(object),
        ("", "PersistentVolume") => {
            set_default(object, &["spec", "persistentVolumeReclaimPolicy"], json!("Retain"));
            set_default(object, &["spec", "volumeMode"], json!("Filesystem"));
            set_default(object, &["status", "phase"], json!("Pending"));
        }
        ("", "PersistentVolumeClaim") => pod::claim(object),
        ("apps", "Deployment") => workload::deployment(object),
        ("apps", "ReplicaSet") => workload::replica_set(object),
        ("apps", "DaemonSet") => workload::daemon_set(object),
        ("apps", "StatefulSet") => workload::stateful_set(object),
        ("batch", "Job") => workload::job(object),
        ("batch", "CronJob") => workload::cron_job(object),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler(object),
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice(object),
        ("networking.k8s.io", "NetworkPolicy") => network_policy(object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => role_binding(object),
        ("storage.k8s.io", "StorageClass") => {
            set_default(object, &["reclaimPolicy"], json!("Delete"));
            set_default(object, &["volumeBindingMode"], json!("Immediate"));
        }
        ("scheduling.k8s.io", "PriorityClass") => {
            set_default(object, &["preemptionPolicy"], json!("PreemptLowerPriority"))
        }
        ("admissionregistration.k8s.io", _) => webhooks(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom_resource_definition(object),
        _ => {}
    }
}

/// Somebody who names no metric means the processor.
fn autoscaler(object: &mut Value) {
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
    fill(object, &[(&["spec", "minReplicas"], json!(1)), (&["spec", "metrics"], json!([cpu]))]);
}

/// Puts each of `values` where nothing is.
fn fill(object: &mut Value, values: &[(&[&str], Value)]) {
    for (path, value) in values {
        set_default(object, path, value.clone());
    }
}

fn service(object: &mut Value) {
    fill(object, &[(&["spec", "sessionAffinity"], json!("None")), (&["spec", "type"], json!("ClusterIP"))]);
    if str_at(object, &["spec", "sessionAffinity"]) == "ClientIP" {
        set_default(object, &["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"], json!(10_800));
    }
    for port in list_mut(object, &["spec", "ports"]) {
        set_default(port, &["protocol"], json!("TCP"));
        let target = port.get("targetPort");
        if target.is_none_or(|t| t.is_null() || *t == json!(0) || *t == json!(""))
            && let Some(number) = i64_at(port, &["port"])
        {
            crate::tree::set(port, &["targetPort"], json!(number));
        }
    }
    let kind = str_at(object, &["spec", "type"]).to_string();
    if kind == "NodePort" || kind == "LoadBalancer" {
        set_default(object, &["spec", "externalTrafficPolicy"], json!("Cluster"));
    }
    if kind != "ExternalName" {
        set_default(object, &["spec", "internalTrafficPolicy"], json!("Cluster"));
        service_families(object);
    }
    if kind == "LoadBalancer" {
        set_default(object, &["spec", "allocateLoadBalancerNodePorts"], json!(true));
    }
}

/// One address family, IPv4 unless the given clusterIP says otherwise; clusterIPs follows clusterIP. (Which address is the API server's part.)
fn service_families(object: &mut Value) {
    let ip = str_at(object, &["spec", "clusterIP"]).to_string();
    if !ip.is_empty() {
        set_default(object, &["spec", "clusterIPs"], json!([ip]));
    }
    fill(
        object,
        &[
            (&["spec", "ipFamilies"], json!([if ip.contains(':') { "IPv6" } else { "IPv4" }])),
            (&["spec", "ipFamilyPolicy"], json!("SingleStack")),
        ],
    );
}

fn namespace(object: &mut Value) {
    // The namespace controller ends a namespace by taking the finalizer away: it must not come back.
    if !crate::meta::is_deleting(object) {
        fill(object, &[(&["spec", "finalizers"], json!(["kubernetes"])), (&["status", "phase"], json!("Active"))]);
    }
    let name = crate::meta::name(object).to_string();
    if !name.is_empty() {
        crate::tree::set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], json!(name));
    }
}

/// Allocatable is what there is, unless the node says less.
fn node(object: &mut Value) {
    if let Some(capacity) = crate::tree::at(object, &["status", "capacity"]).cloned() {
        set_default(object, &["status", "allocatable"], capacity);
    }
}

fn endpoints(object: &mut Value) {
    for subset in list_mut(object, &["subsets"]) {
        for port in list_mut(subset, &["ports"]) {
            set_default(port, &["protocol"], json!("TCP"));
        }
    }
}

fn endpoint_slice(object: &mut Value) {
    for port in list_mut(object, &["ports"]) {
        fill(port, &[(&["name"], json!("")), (&["protocol"], json!("TCP"))]);
    }
}

fn network_policy(object: &mut Value) {
    let egress = crate::tree::at(object, &["spec", "egress"]).is_some();
    set_default(
        object,
        &["spec", "policyTypes"],
        if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) },
    );
    for side in ["ingress", "egress"] {
        for rule in list_mut(object, &["spec", side]) {
            for port in list_mut(rule, &["ports"]) {
                set_default(port, &["protocol"], json!("TCP"));
            }
        }
    }
}

fn role_binding(object: &mut Value) {
    set_default(object, &["roleRef", "apiGroup"], json!("rbac.authorization.k8s.io"));
    for subject in list_mut(object, &["subjects"]) {
        if matches!(str_at(subject, &["kind"]), "User" | "Group") {
            set_default(subject, &["apiGroup"], json!("rbac.authorization.k8s.io"));
        }
    }
}

fn webhooks(object: &mut Value) {
    for hook in list_mut(object, &["webhooks"]) {
        fill(
            hook,
            &[
                (&["failurePolicy"], json!("Fail")),
                (&["matchPolicy"], json!("Equivalent")),
                (&["namespaceSelector"], json!({})),
                (&["objectSelector"], json!({})),
                (&["timeoutSeconds"], json!(10)),
            ],
        );
    }
}

fn custom_resource_definition(object: &mut Value) {
    let kind = str_at(object, &["spec", "names", "kind"]).to_string();
    fill(
        object,
        &[
            (&["spec", "names", "singular"], json!(kind.to_lowercase())),
            (&["spec", "names", "listKind"], json!(format!("{kind}List"))),
            (&["spec", "conversion", "strategy"], json!("None")),
        ],
    );
    // What was ever the storage version stays noted until somebody says that nothing of it is left.
    let stored =
        crate::tree::list_at(object, &["spec", "versions"]).iter().find(|v| v.get("storage") == Some(&json!(true)));
    let stored = stored.map(|v| str_at(v, &["name"]).to_string());
    set_default(object, &["status", "storedVersions"], json!([]));
    if let (Some(name), Some(list)) = (stored, slot(object, &["status", "storedVersions"]).as_array_mut())
        && !list.iter().any(|v| *v == name)
    {
        list.push(name.into());
    }
}

#[cfg(test)]
mod tests;
