//! The service account of a pod: it is there, and its token, the cluster's CA and the namespace are mounted where every client looks for them
//! (upstream's ServiceAccount admission).

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::{Value, at, bool_at, json, list_at, list_mut, set, set_default, slot, str_at};

use crate::api::request::WriteOptions;
use crate::api::{Api, object};

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_SECONDS: i64 = 3607;

pub(crate) async fn admit(api: &Api, kind: &Kind, ns: &str, pod: &mut Value) -> Result<(), Status> {
    if !meta::annotation(pod, "kubernetes.io/config.mirror").is_empty() {
        return Ok(());
    }
    if str_at(pod, &["spec", "serviceAccountName"]).is_empty() {
        let old_name = str_at(pod, &["spec", "serviceAccount"]);
        let name = if old_name.is_empty() { "default" } else { old_name }.to_owned();
        set(pod, &["spec", "serviceAccountName"], name.into());
    }
    let name = str_at(pod, &["spec", "serviceAccountName"]).to_owned();
    set(pod, &["spec", "serviceAccount"], name.as_str().into());
    let account = match find(api, ns, &name).await {
        Ok(account) => account,
        Err(e) if !e.is_not_found() => return Err(e),
        // The controller that makes it may not have come round yet.
        Err(_) if name == "default" => make_default(api, ns).await?,
        Err(_) => {
            let why = format!("error looking up service account {ns}/{name}: serviceaccount {name:?} not found");
            return Err(Status::forbidden(kind, meta::name(pod), &why));
        }
    };
    let pulls = list_at(&account, &["imagePullSecrets"]);
    if list_at(pod, &["spec", "imagePullSecrets"]).is_empty() && !pulls.is_empty() {
        set(pod, &["spec", "imagePullSecrets"], pulls.to_vec().into());
    }
    let own = bool_at(pod, &["spec", "automountServiceAccountToken"]);
    if own.or(bool_at(&account, &["automountServiceAccountToken"])).unwrap_or(true) {
        mount(api, pod);
    }
    Ok(())
}

async fn find(api: &Api, ns: &str, name: &str) -> Result<Value, Status> {
    let registry = api.registry();
    let kind = registry.find("serviceaccounts").ok_or_else(Status::no_such_resource)?;
    Ok(object::decode(kind, &api.entry(kind, ns, name).await?))
}

async fn make_default(api: &Api, ns: &str) -> Result<Value, Status> {
    let registry = api.registry();
    let kind = registry.find("serviceaccounts").ok_or_else(Status::no_such_resource)?;
    let options = WriteOptions::internal("kube-controller-manager");
    // Boxed: a create within a create.
    let made = Box::pin(api.create(kind, ns, json!({"metadata": {"name": "default"}}), &[], &options)).await;
    match made {
        Err(e) if !e.is_already_exists() => Err(e),
        _ => find(api, ns, "default").await,
    }
}

/// Gives every container that mounts nothing of its own there the token volume.
fn mount(api: &Api, pod: &mut Value) {
    let lists = ["initContainers", "containers"];
    let lacks = |c: &Value| !list_at(c, &["volumeMounts"]).iter().any(|m| str_at(m, &["mountPath"]) == MOUNT);
    if !lists.iter().flat_map(|l| list_at(pod, &["spec", l])).any(lacks) {
        return;
    }
    let prefix = "kube-api-access-";
    let known = list_at(pod, &["spec", "volumes"]).iter().map(|v| str_at(v, &["name"]));
    let name = known
        .clone()
        .find(|n| n.starts_with(prefix))
        .map_or_else(|| format!("{prefix}{}", api.name_suffix()), str::to_owned);
    let there = known.clone().any(|n| n == name);
    for list in lists {
        for container in list_mut(pod, &["spec", list]) {
            if lacks(container) {
                let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT});
                set_default(container, &["volumeMounts"], json!([]));
                if let Some(mounts) = slot(container, &["volumeMounts"]).as_array_mut() {
                    mounts.push(mount);
                }
            }
        }
    }
    if there {
        return;
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    if !at(pod, &["spec", "volumes"]).is_some_and(Value::is_array) {
        set(pod, &["spec", "volumes"], json!([]));
    }
    if let Some(volumes) = slot(pod, &["spec", "volumes"]).as_array_mut() {
        volumes.push(volume);
    }
}
