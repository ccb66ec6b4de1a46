//! Certificate signing requests: which are approved without a person, and signing those that are approved.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mote_api::meta;
use mote_api::time::Time;
use mote_api::tree::{Value, json, list_at, slot, str_at};

use super::{Authority, Request, Use};
use crate::api::client::Client;

const RESOURCE: &str = "certificatesigningrequests.certificates.k8s.io";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// What to do with a request. Pure.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Approve,
    Deny(String),
    Sign(Use),
}

fn has(csr: &Value, condition: &str) -> bool {
    list_at(csr, &["status", "conditions"]).iter().any(|c| str_at(c, &["type"]) == condition)
}

/// `taken`: the node the request names is there already, and lives.
fn plan(csr: &Value, request: &Result<Request, String>, taken: bool) -> Plan {
    let usage = match str_at(csr, &["spec", "signerName"]) {
        KUBELET_CLIENT | CLIENT => Use::Client,
        KUBELET_SERVING => Use::Server,
        _ => return Plan::Nothing,
    };
    if has(csr, "Denied") || has(csr, "Failed") || !str_at(csr, &["status", "certificate"]).is_empty() {
        return Plan::Nothing;
    }
    let request = match request {
        Ok(request) => request,
        Err(why) => return Plan::Deny(why.clone()),
    };
    if str_at(csr, &["spec", "signerName"]) == CLIENT && request.subject.is_in("system:masters") {
        // Approving is not being the cluster's owner, and must not lead there (upstream's CertificateSubjectRestriction).
        return Plan::Deny(format!("use of {CLIENT} signer with system:masters group is not allowed"));
    }
    if str_at(csr, &["spec", "signerName"]) != CLIENT {
        let node = request.subject.name.strip_prefix("system:node:").unwrap_or_default();
        if node.is_empty() || request.subject.groups != ["system:nodes"] {
            return Plan::Deny("the subject is not CN=system:node:NAME, O=system:nodes".into());
        }
        if usage == Use::Server && !request.has_sans {
            return Plan::Deny("a serving certificate needs a name or an address".into());
        }
    }
    if has(csr, "Approved") {
        return Plan::Sign(usage);
    }
    // A newcomer with a join token, or a node about itself.
    let joins = list_at(csr, &["spec", "groups"]).iter().any(|g| g == "system:bootstrappers");
    let itself = str_at(csr, &["spec", "username"]) == request.subject.name;
    let kubelet = str_at(csr, &["spec", "signerName"]) != CLIENT;
    if kubelet && joins && taken {
        return Plan::Deny(format!(
            "{} is in the cluster and Ready: another machine has that name",
            request.subject.name
        ));
    }
    if kubelet && (joins || itself) { Plan::Approve } else { Plan::Nothing }
}

/// Approves and signs for ever; wakes up only when a request changes.
pub(crate) async fn run(client: Client, authority: Arc<Authority>) {
    loop {
        let Ok((list, revision)) = client.list(RESOURCE, None).await else { return };
        let Ok(mut watch) = client.watch(RESOURCE, revision) else { continue };
        for csr in list {
            handle(&client, &authority, &csr).await;
        }
        while let Some(event) = watch.next().await {
            handle(&client, &authority, &event.object).await;
        }
        // Too far behind, or the server stops; the list of a closed store still works, so do not spin.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

/// Whether the node it is about lives: a newcomer of that name would fight with it for its pods.
async fn is_taken(client: &Client, request: &Request) -> bool {
    let name = request.subject.name.strip_prefix("system:node:").unwrap_or_default();
    let Ok(node) = client.get("nodes", "", name).await else { return false };
    let mut conditions = list_at(&node, &["status", "conditions"]).iter();
    conditions.any(|c| str_at(c, &["type"]) == "Ready" && str_at(c, &["status"]) == "True")
}

async fn handle(client: &Client, authority: &Authority, csr: &Value) {
    let bytes = STANDARD.decode(str_at(csr, &["spec", "request"])).unwrap_or_default();
    let request = Request::parse(&String::from_utf8_lossy(&bytes)).map_err(|e| e.to_string());
    let now = client.now();
    let taken = match &request {
        Ok(request) => is_taken(client, request).await,
        Err(_) => false,
    };
    let (sub, next) = match plan(csr, &request, taken) {
        Plan::Nothing => return,
        Plan::Approve => ("approval", condition(csr, "Approved", "AutoApproved", "a node joins or renews", now)),
        Plan::Deny(why) => ("approval", condition(csr, "Denied", "NotSignable", &why, now)),
        Plan::Sign(usage) => {
            let Ok(request) = &request else { return };
            match authority.sign(request, usage, now) {
                Ok(pem) => {
                    let mut next = csr.clone();
                    *slot(&mut next, &["status", "certificate"]) = STANDARD.encode(pem).into();
                    ("status", next)
                }
                Err(e) => ("status", condition(csr, "Failed", "SigningFailed", &e.to_string(), now)),
            }
        }
    };
    match client.update_sub(RESOURCE, sub, next).await {
        Ok(_) => log::info!("certificate signing request {}: {}", meta::name(csr), sub),
        Err(e) if e.is_conflict() || e.is_not_found() => {}
        Err(e) => log::warn!("certificate signing request {}: write {sub}: {}", meta::name(csr), e.message),
    }
}

fn condition(csr: &Value, ty: &str, reason: &str, message: &str, now: Time) -> Value {
    let mut next = csr.clone();
    let list = slot(&mut next, &["status", "conditions"]);
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        let now = now.to_string();
        list.push(json!({"type": ty, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now, "lastTransitionTime": now}));
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::UserInfo;

    #[test]
    fn plans() {
        let request = |name: &str, group: &str, has_sans| {
            Ok(Request { pem: String::new(), subject: UserInfo::new(name, &[group]), has_sans })
        };
        let node = request("system:node:a", "system:nodes", true);
        let csr = |signer: &str, user: &str, group: &str, conditions: Value| json!({"spec": {"signerName": signer, "username": user, "groups": [group]}, "status": {"conditions": conditions}});
        let fresh = |signer, user, group| csr(signer, user, group, json!([]));
        assert_eq!(plan(&fresh(KUBELET_CLIENT, "x", "system:bootstrappers"), &node, false), Plan::Approve);
        assert_eq!(plan(&fresh(KUBELET_SERVING, "system:node:a", "system:nodes"), &node, false), Plan::Approve);
        assert_eq!(plan(&fresh(KUBELET_SERVING, "system:node:b", "system:nodes"), &node, false), Plan::Nothing);
        assert_eq!(plan(&fresh(CLIENT, "x", "system:bootstrappers"), &node, false), Plan::Nothing);
        assert_eq!(plan(&fresh("example.com/x", "x", "system:bootstrappers"), &node, false), Plan::Nothing);
        let admin = request("me", "system:masters", false);
        assert!(matches!(plan(&fresh(KUBELET_CLIENT, "x", "system:bootstrappers"), &admin, false), Plan::Deny(_)));
        assert!(matches!(plan(&csr(CLIENT, "x", "y", json!([{"type": "Approved"}])), &admin, false), Plan::Deny(_)));
        let nameless = request("system:node:a", "system:nodes", false);
        assert!(matches!(plan(&fresh(KUBELET_SERVING, "x", "system:bootstrappers"), &nameless, false), Plan::Deny(_)));
        let approved = csr(KUBELET_SERVING, "x", "y", json!([{"type": "Approved"}]));
        assert_eq!(plan(&approved, &node, false), Plan::Sign(Use::Server));
        let newcomer = fresh(KUBELET_CLIENT, "x", "system:bootstrappers");
        assert!(matches!(plan(&newcomer, &node, true), Plan::Deny(why) if why.contains("system:node:a")));
        let renewal = fresh(KUBELET_CLIENT, "system:node:a", "system:nodes");
        assert_eq!(plan(&renewal, &node, true), Plan::Approve);
        let denied = csr(KUBELET_CLIENT, "x", "system:bootstrappers", json!([{"type": "Denied"}]));
        assert_eq!(plan(&denied, &node, false), Plan::Nothing);
    }
}
