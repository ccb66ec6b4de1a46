//! Who asks, and whether they may.
//!
//! `tokens` proves identities (beside client certificates, which TLS proves); `impersonate` lets one act as another; `rbac` and `node` decide what may be
//! done; `review` answers questions about both.

pub(crate) mod impersonate;
pub(crate) mod node;
pub(crate) mod rbac;
pub(crate) mod review;
pub mod tokens;

use mote_api::status::Status;

use crate::api::Api;

/// A proven identity: from a client certificate (CN, O), a token, or a connection made inside this process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UserInfo {
    pub name: String,
    pub groups: Vec<String>,
    pub uid: String,
    /// Further facts, as tokens and impersonation carry them (`authentication.kubernetes.io/pod-name`, ...).
    pub extra: Vec<(String, Vec<String>)>,
}

impl UserInfo {
    pub fn new(name: impl Into<String>, groups: &[&str]) -> UserInfo {
        UserInfo { name: name.into(), groups: groups.iter().map(|g| (*g).into()).collect(), ..UserInfo::default() }
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
    /// The name of the node whose agent this is.
    pub fn as_node(&self) -> Option<&str> {
        self.name.strip_prefix("system:node:").filter(|n| !n.is_empty() && self.is_in("system:nodes"))
    }
}

/// The user name of a service account.
pub(crate) fn account_name(ns: &str, name: &str) -> String {
    format!("system:serviceaccount:{ns}:{name}")
}

/// Namespace and name of the service account that a user name stands for.
pub(crate) fn account_of(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':').filter(|(ns, n)| !ns.is_empty() && !n.is_empty())
}

/// What somebody wants to do, in the words of RBAC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    /// "" is the core group
    pub group: &'a str,
    pub resource: &'a str,
    pub sub: &'a str,
    pub ns: &'a str,
    /// Also of a list or watch that selects one name.
    pub name: &'a str,
    /// The URL's path, when it is not a resource's: then nothing but the verb counts beside.
    pub path: &'a str,
    /// `spec.nodeName` that a list or watch selects by its fields.
    pub node: &'a str,
}

impl Api {
    /// Whether `user` may: how come, or why not, in upstream's words ("" when there is nothing to say).
    pub(crate) async fn judge(&self, user: &UserInfo, what: &Attributes<'_>) -> Result<String, String> {
        if user.is_in("system:masters") {
            return Ok(String::new());
        }
        let mut reason = String::new();
        if let Some(name) = user.as_node() {
            match node::judge(self, name, what).await {
                Ok(true) => return Ok(String::new()),
                Ok(false) => {}
                Err(why) => reason = why,
            }
        }
        let index = self.rbac.read(&*self.store).await.map_err(|e| e.message)?;
        index.judge(user, what).map_err(|why| if reason.is_empty() { why } else { reason })
    }
    /// Whether `user` may; if not, what to tell them (upstream's sentence after "is forbidden: ").
    pub(crate) async fn authorize(&self, user: &UserInfo, what: &Attributes<'_>) -> Result<(), String> {
        let Err(reason) = self.judge(user, what).await else { return Ok(()) };
        Err(refusal(user, what, &reason))
    }
    /// The same for a path that is not a resource's.
    pub(crate) async fn authorize_path(&self, user: &UserInfo, verb: &str, path: &str) -> Result<(), Status> {
        let what = Attributes { verb, path, ..Attributes::default() };
        self.authorize(user, &what).await.map_err(|why| {
            let mut status = Status::new(403, "Forbidden", format!("forbidden: {why}"));
            status.details = mote_api::tree::json!({});
            status
        })
    }
}

fn refusal(user: &UserInfo, what: &Attributes<'_>, reason: &str) -> String {
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let Attributes { verb, path, group, .. } = what;
    if !path.is_empty() {
        return format!("User {:?} cannot {verb} path {path:?}{reason}", user.name);
    }
    let slash = if what.sub.is_empty() { "" } else { "/" };
    let resource = format!("{}{slash}{}", what.resource, what.sub);
    let scope = match what.ns {
        "" => "at the cluster scope".into(),
        ns => format!("in the namespace {ns:?}"),
    };
    format!("User {:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}{reason}", user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_upstreams() {
        let (user, what) = (UserInfo::new("x", &[]), Attributes::default());
        for (what, want) in [
            (
                Attributes { verb: "list", resource: "pods", ns: "default", ..what },
                r#"User "x" cannot list resource "pods" in API group "" in the namespace "default""#,
            ),
            (
                Attributes { verb: "get", group: "apps", resource: "deployments", sub: "scale", ..what },
                r#"User "x" cannot get resource "deployments/scale" in API group "apps" at the cluster scope"#,
            ),
            (Attributes { verb: "get", path: "/metrics", ..what }, r#"User "x" cannot get path "/metrics""#),
        ] {
            assert_eq!(refusal(&user, &what, ""), want);
            assert_eq!(refusal(&user, &what, "why"), format!("{want}: why"));
        }
    }

    #[test]
    fn names() {
        assert_eq!(account_of(&account_name("a", "b")), Some(("a", "b")));
        assert_eq!(account_of("system:serviceaccount:a:"), None);
        assert_eq!(UserInfo::node("a").as_node(), Some("a"));
        assert_eq!(UserInfo::new("system:node:a", &[]).as_node(), None);
        assert_eq!(UserInfo::new("system:node:", &["system:nodes"]).as_node(), None);
    }
}
