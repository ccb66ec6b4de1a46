//! What a node agent may: upstream's node authoriser.
//!
//! A node reads what its pods are made of, and nothing of other nodes' pods. Which Secrets, ConfigMaps, claims and accounts those are is looked up
//! in the pods themselves when a node asks (a search through the stored bytes, then a parse of the few that match): no graph is kept in memory. Beyond
//! upstream's kubelet our agent is the service proxy too: it has the rules of `system:node-proxier`.

use mote_api::tree::{Value, list_at, str_at};

use crate::api::{Api, object};
use crate::user::Attributes;

/// True: yes. False: nothing to say. Err: no, and why.
pub(crate) async fn judge(api: &Api, node: &str, what: &Attributes<'_>) -> Result<bool, String> {
    let reads = matches!(what.verb, "get" | "list" | "watch");
    if !what.path.is_empty() {
        return Ok(false);
    }
    let unrelated = || Err(format!("no relationship found between node '{node}' and this object"));
    let of_own_pod = match (what.group, what.resource, what.sub) {
        ("", "secrets" | "configmaps" | "persistentvolumeclaims", "") if reads => true,
        ("", "serviceaccounts", "") if reads => true,
        ("", "serviceaccounts", "token") if what.verb == "create" => true,
        ("", "persistentvolumes", "") if what.verb == "get" => {
            let volume = what.name;
            return if has_volume(api, node, volume).await { Ok(true) } else { unrelated() };
        }
        ("", "pods", "") if reads => {
            let own = match what.verb {
                "get" => pod_is_on(api, what.ns, what.name, node).await,
                _ => what.node == node,
            };
            return match own {
                true => Ok(true),
                false if what.verb == "get" => unrelated(),
                false => Err("can only list/watch pods with spec.nodeName field selector".into()),
            };
        }
        ("coordination.k8s.io", "leases", "") => {
            return match () {
                () if what.ns != "kube-node-lease" => {
                    Err("can only access leases in the \"kube-node-lease\" system namespace".into())
                }
                // Its name is in the body of a create: admission looks there.
                () if what.name != node && !(what.verb == "create" && what.name.is_empty()) => {
                    Err("can only access node lease with the same name as the requesting node".into())
                }
                () => Ok(may(api, what)),
            };
        }
        ("", "nodes", _) if !reads && !what.name.is_empty() && what.name != node => {
            return Err(format!("node {node:?} is not allowed to modify node {:?}", what.name));
        }
        ("storage.k8s.io", "csinodes", "") if what.name != node && what.verb != "create" => {
            return Err("can only access CSINode with the same name as the requesting node".into());
        }
        _ => false,
    };
    if !of_own_pod {
        return Ok(may(api, what));
    }
    if what.name.is_empty() {
        return Err("No Object name found".into());
    }
    if refers(api, node, what).await { Ok(true) } else { unrelated() }
}

fn may(api: &Api, what: &Attributes<'_>) -> bool {
    api.node_rules.iter().any(|r| r.allows(what))
}

async fn pod_is_on(api: &Api, ns: &str, name: &str, node: &str) -> bool {
    let registry = api.registry();
    let Some(pods) = registry.find("pods") else { return false };
    let Ok(entry) = api.entry(pods, ns, name).await else { return false };
    str_at(&object::decode(pods, &entry), &["spec", "nodeName"]) == node
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    let Some(first) = word.first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| b == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(word) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Whether a pod of the node in that namespace names the object.
async fn refers(api: &Api, node: &str, what: &Attributes<'_>) -> bool {
    let prefix = format!("/registry/core/pods/{}/", what.ns);
    let Ok(range) = api.store.range(&prefix, "", None, 0).await else { return false };
    let (node_word, name_word) = (format!("\"nodeName\":{node:?}"), format!("{:?}", what.name));
    range.entries.iter().any(|(_, entry)| {
        if !contains(&entry.value, node_word.as_bytes()) || !contains(&entry.value, name_word.as_bytes()) {
            return false;
        }
        let pod: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
        str_at(&pod, &["spec", "nodeName"]) == node && names(&pod, what.resource, what.name)
    })
}

/// Whether the pod names an object of the resource. Mirror pods name nothing: their node made them.
fn names(pod: &Value, resource: &str, name: &str) -> bool {
    if !mote_api::meta::annotation(pod, "kubernetes.io/config.mirror").is_empty() {
        return false;
    }
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let (of_volume, of_env, plain): (&[&[&str]], &str, &str) = match resource {
        "serviceaccounts" => return str_at(spec, &["serviceAccountName"]) == name,
        "persistentvolumeclaims" => (&[&["persistentVolumeClaim", "claimName"]], "", ""),
        "configmaps" => (&[&["configMap", "name"]], "configMapKeyRef", "configMapRef"),
        _ => (
            &[
                &["secret", "secretName"],
                &["secret", "name"],
                &["csi", "nodePublishSecretRef", "name"],
                &["cephfs", "secretRef", "name"],
                &["flexVolume", "secretRef", "name"],
                &["iscsi", "secretRef", "name"],
                &["azureFile", "secretName"],
            ],
            "secretKeyRef",
            "secretRef",
        ),
    };
    let in_volume = |v: &Value| of_volume.iter().any(|path| str_at(v, path) == name);
    let volumes = list_at(spec, &["volumes"]).iter();
    let mut volumes = volumes.flat_map(|v| std::iter::once(v).chain(list_at(v, &["projected", "sources"])));
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let mut containers = lists.iter().flat_map(|l| list_at(spec, &[l]));
    let pulls =
        resource == "secrets" && list_at(spec, &["imagePullSecrets"]).iter().any(|s| str_at(s, &["name"]) == name);
    let claims = resource == "persistentvolumeclaims"
        && list_at(spec, &["volumes"]).iter().any(|v| {
            v.get("ephemeral").is_some() && format!("{}-{}", mote_api::meta::name(pod), str_at(v, &["name"])) == name
        });
    pulls
        || claims
        || volumes.any(in_volume)
        || (!of_env.is_empty()
            && containers.any(|c| {
                list_at(c, &["env"]).iter().any(|e| str_at(e, &["valueFrom", of_env, "name"]) == name)
                    || list_at(c, &["envFrom"]).iter().any(|e| str_at(e, &[plain, "name"]) == name)
            }))
}

/// Whether a claim of the node's pods is bound to the volume.
async fn has_volume(api: &Api, node: &str, volume: &str) -> bool {
    let registry = api.registry();
    let Some(volumes) = registry.find("persistentvolumes") else { return false };
    let Ok(entry) = api.entry(volumes, "", volume).await else { return false };
    let object = object::decode(volumes, &entry);
    let of = |field| str_at(&object, &["spec", "claimRef", field]);
    let what = Attributes {
        resource: "persistentvolumeclaims",
        ns: of("namespace"),
        name: of("name"),
        ..Attributes::default()
    };
    !what.name.is_empty() && refers(api, node, &what).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::json;

    #[test]
    fn references_of_a_pod() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "acc", "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"name": "a", "secret": {"secretName": "s1"}}, {"name": "b", "configMap": {"name": "c1"}},
                {"name": "c", "projected": {"sources": [{"secret": {"name": "s2"}}, {"configMap": {"name": "c2"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "v"}}, {"name": "e", "ephemeral": {}}],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s3"}}}]}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "c3"}}, {"secretRef": {"name": "s4"}}]}]}});
        for (resource, yes, no) in [
            ("secrets", &["s1", "s2", "s3", "s4", "pull"][..], &["c1", "acc", "v", "x"][..]),
            ("configmaps", &["c1", "c2", "c3"], &["s1", "s4"]),
            ("persistentvolumeclaims", &["v", "p-e"], &["s1", "e"]),
            ("serviceaccounts", &["acc"], &["default"]),
        ] {
            assert!(yes.iter().all(|n| names(&pod, resource, n)), "{resource}");
            assert!(!no.iter().any(|n| names(&pod, resource, n)), "{resource}");
        }
        let mut mirror = pod;
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        assert!(!names(&mirror, "secrets", "s1"));
    }

    #[test]
    fn bytes_are_found() {
        assert!(contains(b"abababc", b"abc") && contains(b"x", b"") && !contains(b"ababab", b"abc"));
        assert!(!contains(b"", b"a"));
    }
}
