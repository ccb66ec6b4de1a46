//! Who asks, and whether they may.

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
