//! Who asks, and whether they may.

pub(crate) mod account;
pub mod tokens;

/// A proven identity: from a client certificate (CN, O), a token, or a connection made inside this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserInfo {
    pub name: String,
    pub groups: Vec<String>,
}

impl UserInfo {
    pub fn new(name: impl Into<String>, groups: &[&str]) -> UserInfo {
        UserInfo { name: name.into(), groups: groups.iter().map(|g| (*g).into()).collect() }
    }
    /// `system:node:<name>` in `system:nodes`.
    pub fn node(name: &str) -> UserInfo {
        UserInfo::new(format!("system:node:{name}"), &["system:nodes", "system:authenticated"])
    }
    /// The cluster's owner, as in the admin kubeconfig.
    pub fn admin() -> UserInfo {
        UserInfo::new("kubernetes-admin", &["system:masters", "system:authenticated"])
    }
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What somebody wants to do, in the words of RBAC.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    /// "" is the core group
    pub group: &'a str,
    pub resource: &'a str,
    pub sub: &'a str,
    pub ns: &'a str,
    pub name: &'a str,
}

/// Whether `user` may; the reason if not. Roles of RBAC will be asked here.
pub fn authorize(user: &UserInfo, what: &Attributes<'_>) -> Result<(), String> {
    let reads = matches!(what.verb, "get" | "list" | "watch");
    let allowed = if user.is_in("system:masters") {
        true
    } else if user.is_in("system:nodes") {
        node_may(user.name.strip_prefix("system:node:").unwrap_or_default(), what, reads)
    } else if user.is_in("system:bootstrappers") {
        what.resource == "certificatesigningrequests" && what.sub.is_empty() && (reads || what.verb == "create")
    } else {
        // Everybody may ask who they are and what they may do.
        what.verb == "create" && (what.resource.starts_with("selfsubject"))
    };
    if allowed {
        return Ok(());
    }
    let mut resource = what.resource.to_owned();
    if !what.sub.is_empty() {
        resource = format!("{resource}/{}", what.sub);
    }
    let scope =
        if what.ns.is_empty() { "at the cluster scope".into() } else { format!("in the namespace {:?}", what.ns) };
    Err(format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {scope}",
        user.name, what.verb, what.group
    ))
}

/// What a node agent needs: to read what pods are made of, and to say how its own are doing. (Upstream's node authoriser also follows
/// which Secrets its pods name; that comes with RBAC.)
fn node_may(node: &str, what: &Attributes<'_>, reads: bool) -> bool {
    let own = what.name.is_empty() || what.name == node;
    match (what.group, what.resource, what.sub) {
        (
            "",
            "pods" | "services" | "endpoints" | "configmaps" | "secrets" | "namespaces" | "nodes" | "serviceaccounts",
            "",
        )
        | ("", "persistentvolumes" | "persistentvolumeclaims", "")
        | ("discovery.k8s.io", "endpointslices", "")
        | ("node.k8s.io", "runtimeclasses", "")
            if reads =>
        {
            true
        }
        ("", "nodes", "" | "status") => own && what.verb != "delete",
        // Mirror pods, and the end of a deletion.
        ("", "pods", "") => matches!(what.verb, "create" | "delete"),
        ("", "pods", "status") => matches!(what.verb, "get" | "patch" | "update"),
        ("", "pods", "eviction") => what.verb == "create",
        ("coordination.k8s.io", "leases", "") => own && what.ns == "kube-node-lease",
        ("" | "events.k8s.io", "events", "") => matches!(what.verb, "create" | "patch" | "update"),
        ("", "serviceaccounts", "token") => what.verb == "create",
        ("certificates.k8s.io", "certificatesigningrequests", "") => reads || what.verb == "create",
        ("authentication.k8s.io", "tokenreviews", "") | ("authorization.k8s.io", "subjectaccessreviews", "") => {
            what.verb == "create"
        }
        _ => what.verb == "create" && what.resource.starts_with("selfsubject"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_what() {
        let (admin, node) = (UserInfo::admin(), UserInfo::node("a"));
        let newcomer = UserInfo::new("system:bootstrap:abcdef", &["system:bootstrappers"]);
        let nobody = UserInfo::new("x", &["system:authenticated"]);
        for (user, verb, group, resource, sub, ns, name, want) in [
            (&admin, "delete", "", "nodes", "", "", "a", true),
            (&node, "list", "", "pods", "", "", "", true),
            (&node, "patch", "", "pods", "status", "x", "p", true),
            (&node, "patch", "", "pods", "", "x", "p", false),
            (&node, "patch", "", "nodes", "status", "", "a", true),
            (&node, "patch", "", "nodes", "status", "", "b", false),
            (&node, "delete", "", "nodes", "", "", "a", false),
            (&node, "update", "coordination.k8s.io", "leases", "", "kube-node-lease", "a", true),
            (&node, "update", "coordination.k8s.io", "leases", "", "kube-node-lease", "b", false),
            (&node, "update", "coordination.k8s.io", "leases", "", "default", "a", false),
            (&node, "create", "apps", "deployments", "", "x", "", false),
            (&node, "update", "", "secrets", "", "x", "s", false),
            (&newcomer, "create", "certificates.k8s.io", "certificatesigningrequests", "", "", "", true),
            (&newcomer, "update", "certificates.k8s.io", "certificatesigningrequests", "approval", "", "c", false),
            (&newcomer, "list", "", "secrets", "", "", "", false),
            (&nobody, "get", "", "pods", "", "x", "p", false),
            (&nobody, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", "", "", true),
        ] {
            let what = Attributes { verb, group, resource, sub, ns, name };
            assert_eq!(authorize(user, &what).is_ok(), want, "{} {what:?}", user.name);
        }
    }
}
