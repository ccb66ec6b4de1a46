//! Who asks, and whether they may.
//!
//! `tokens` proves identities (beside client certificates, which TLS proves); `impersonate` lets one act as another; [`crate::rbac`] and `node` decide what
//! may be done; `review` answers questions about both; `bootstrap` gives every cluster its first roles.

pub(crate) mod bootstrap;
pub(crate) mod impersonate;
pub(crate) mod node;
pub(crate) mod review;
pub mod tokens;

use mote_api::status::Status;

use crate::api::Api;
use crate::user::{Attributes, UserInfo};

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
        let index = self.rbac.read(&*self.store).await.map_err(|e| e.to_string())?;
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
}
