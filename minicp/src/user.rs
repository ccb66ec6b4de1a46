//! Who somebody is, and what they want to do: the words in which all others speak of users.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(account_of(&account_name("a", "b")), Some(("a", "b")));
        assert_eq!(account_of("system:serviceaccount:a:"), None);
        assert_eq!(UserInfo::node("a").as_node(), Some("a"));
        assert_eq!(UserInfo::new("system:node:a", &[]).as_node(), None);
        assert_eq!(UserInfo::new("system:node:", &["system:nodes"]).as_node(), None);
    }
}
