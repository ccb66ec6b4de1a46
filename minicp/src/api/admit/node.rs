//! What a node may write: itself, and the pods it runs (upstream's NodeRestriction). The authoriser has seen the names; here are the objects.

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, at, list_at, map_at, str_at};

use crate::api::{Api, object};
use crate::user::UserInfo;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels that say where a node may be used, for those who must be able to trust them.
const RESTRICTED: &str = "node-restriction.kubernetes.io/";

fn forbidden(kind: &Kind, name: &str, why: &str) -> Status {
    Status::forbidden(kind, name, why)
}

/// Whether `user`, if it is a node, may make `new` or change `old` to it through `sub`.
pub(crate) fn check(kind: &Kind, sub: &str, old: Option<&Value>, new: &Value, user: &UserInfo) -> Result<(), Status> {
    let Some(node) = user.as_node() else { return Ok(()) };
    let name = meta::name(new);
    let refuse = |why: &str| Err(forbidden(kind, name, why));
    match (&*kind.group, &*kind.plural, old) {
        ("", "pods", None) => mirror_pod(node, new).or_else(|why| refuse(&why)),
        ("", "pods", Some(old)) => {
            if str_at(old, &["spec", "nodeName"]) != node {
                return refuse(&format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            if sub == "status" && meta::labels(old) != meta::labels(new) {
                return refuse(&format!("node {node:?} cannot update labels through pod status"));
            }
            Ok(())
        }
        ("", "nodes", _) if name != node => refuse(&format!("node {node:?} is not allowed to modify node {name:?}")),
        ("", "nodes", old) => own_node(node, old, new).or_else(|why| refuse(&why)),
        ("coordination.k8s.io", "leases", _) if name != node => {
            refuse("can only access node lease with the same name as the requesting node")
        }
        ("storage.k8s.io", "csinodes", _) if name != node => {
            refuse("can only access CSINode with the same name as the requesting node")
        }
        _ => Ok(()),
    }
}

/// A pod that a node makes shows what it runs by itself, and reaches nothing of the cluster.
fn mirror_pod(node: &str, pod: &Value) -> Result<(), String> {
    if meta::annotation(pod, MIRROR).is_empty() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if str_at(pod, &["spec", "nodeName"]) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    if meta::owners(pod).any(|o| o.kind != "Node" || o.name != node) {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if !str_at(pod, &["spec", "serviceAccountName"]).is_empty() {
        return Err(format!("node {node:?} can not create pods that reference a service account"));
    }
    let volumes = list_at(pod, &["spec", "volumes"]).iter();
    for volume in volumes.flat_map(|v| std::iter::once(v).chain(list_at(v, &["projected", "sources"]))) {
        for (field, what) in [
            ("secret", "secrets"),
            ("configMap", "configmaps"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("serviceAccountToken", "a service account token"),
        ] {
            if volume.get(field).is_some_and(|v| !v.is_null()) {
                return Err(format!("node {node:?} can not create pods that reference {what}"));
            }
        }
    }
    Ok(())
}

fn own_node(node: &str, old: Option<&Value>, new: &Value) -> Result<(), String> {
    let guarded = |object: &Value| {
        let labels = map_at(object, &["metadata", "labels"]).into_iter().flatten();
        labels
            .filter(|(k, _)| {
                k.split('/').next().is_some_and(|domain| format!(".{domain}/").ends_with(&format!(".{RESTRICTED}")))
            })
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Vec<_>>()
    };
    let before = old.map(guarded).unwrap_or_default();
    let now = guarded(new);
    if before != now {
        let names = now.iter().chain(&before).map(|(k, _)| k.as_str()).collect::<std::collections::BTreeSet<_>>();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let what = if old.is_some() { "modify" } else { "set" };
        return Err(format!("is not allowed to {what} the following labels: {names}"));
    }
    if let Some(old) = old {
        let taints = |o: &Value| at(o, &["spec", "taints"]).filter(|t| !t.is_null()).cloned();
        let empty = |t: &Option<Value>| t.as_ref().is_none_or(|t| t.as_array().is_some_and(Vec::is_empty));
        let (was, is) = (taints(old), taints(new));
        if was != is && !(empty(&was) && empty(&is)) {
            return Err(format!("node {node:?} is not allowed to modify taints"));
        }
    }
    Ok(())
}

/// Whether a node may delete, or evict, what is there.
pub(crate) fn check_delete(kind: &Kind, old: &Value, user: &UserInfo) -> Result<(), Status> {
    let Some(node) = user.as_node() else { return Ok(()) };
    if kind.is("", "Pod") && str_at(old, &["spec", "nodeName"]) != node {
        let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
        return Err(forbidden(kind, meta::name(old), &why));
    }
    if kind.is("", "Node") && meta::name(old) != node {
        let why = format!("node {node:?} is not allowed to modify node {:?}", meta::name(old));
        return Err(forbidden(kind, meta::name(old), &why));
    }
    Ok(())
}

/// A node asks for tokens of its own pods only.
pub(crate) async fn token(api: &Api, ns: &str, account: &str, request: &Value, user: &UserInfo) -> Result<(), Status> {
    let Some(node) = user.as_node() else { return Ok(()) };
    let registry = api.registry();
    let (Some(accounts), Some(pods)) = (registry.find("serviceaccounts"), registry.find("pods")) else { return Ok(()) };
    let refuse = |why: &str| Err(forbidden(accounts, account, why));
    let of = |field| str_at(request, &["spec", "boundObjectRef", field]);
    if of("kind") != "Pod" || of("name").is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    if of("uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pod = object::decode(pods, &api.entry(pods, ns, of("name")).await?);
    if meta::uid(&pod) != of("uid") {
        return refuse(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record",
            of("uid")
        ));
    }
    if str_at(&pod, &["spec", "nodeName"]) != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::kind::Registry;
    use mote_api::tree::json;

    #[test]
    fn nodes_write_what_is_theirs() {
        let registry = Registry::builtin();
        let node = UserInfo::node("n");
        let pod = |on: &str, more: Value| {
            let mut pod = json!({"metadata": {"name": "p", "annotations": {MIRROR: "x"}}, "spec": {"nodeName": on}});
            mote_api::patch::merge_patch(&mut pod, &more).unwrap();
            pod
        };
        let labelled = |label: &str| json!({"metadata": {"name": "n", "labels": {label: "x"}}});
        let tainted = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a"}]}});
        let me = json!({"metadata": {"name": "n"}});
        for (resource, sub, old, new, want) in [
            ("pods", "", None, pod("n", json!({})), ""),
            ("pods", "", None, pod("m", json!({})), "spec.nodeName set to itself"),
            ("pods", "", None, pod("n", json!({"metadata": {"annotations": null}})), "mirror pods"),
            ("pods", "", None, pod("n", json!({"spec": {"serviceAccountName": "a"}})), "service account"),
            ("pods", "", None, pod("n", json!({"spec": {"volumes": [{"secret": {"secretName": "s"}}]}})), "secrets"),
            ("pods", "status", Some(pod("n", json!({}))), pod("n", json!({"status": {"phase": "Running"}})), ""),
            ("pods", "status", Some(pod("m", json!({}))), pod("m", json!({})), "set to itself"),
            (
                "pods",
                "status",
                Some(pod("n", json!({}))),
                pod("n", json!({"metadata": {"labels": {"a": "b"}}})),
                "labels",
            ),
            ("nodes", "", None, me.clone(), ""),
            ("nodes", "", None, json!({"metadata": {"name": "m"}}), "not allowed to modify node \"m\""),
            ("nodes", "", None, tainted.clone(), ""),
            ("nodes", "", Some(me.clone()), tainted, "taints"),
            ("nodes", "", Some(me.clone()), labelled("kubernetes.io/arch"), ""),
            ("nodes", "", Some(me.clone()), labelled("node-restriction.kubernetes.io/x"), "labels: node-restriction"),
            ("nodes", "", Some(labelled("a.node-restriction.kubernetes.io/x")), me, "labels: a.node-restriction"),
            ("leases.coordination.k8s.io", "", None, json!({"metadata": {"name": "m"}}), "same name"),
        ] {
            let kind = registry.find(resource).unwrap();
            let said = check(kind, sub, old.as_ref(), &new, &node).err().map_or(String::new(), |s| s.message);
            assert!(if want.is_empty() { said.is_empty() } else { said.contains(want) }, "{resource} {new}: {said:?}");
            assert!(check(kind, sub, old.as_ref(), &new, &UserInfo::admin()).is_ok());
        }
        let pods = registry.find("pods").unwrap();
        assert!(check_delete(pods, &pod("m", json!({})), &node).is_err());
        assert!(check_delete(pods, &pod("n", json!({})), &node).is_ok());
    }
}
