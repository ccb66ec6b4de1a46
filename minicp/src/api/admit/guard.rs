//! Nobody grants what they do not hold: upstream's escalation check of roles and bind check of bindings.

use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::tree::Value;

use crate::api::Api;
use crate::rbac::role_ref;
use crate::rbac::rule::{Rule, uncovered};
use crate::user::{Attributes, UserInfo};

/// Whether `user` may write this role or binding. `old`: what is there now.
pub(crate) async fn check(
    api: &Api,
    kind: &Kind,
    old: Option<&Value>,
    new: &Value,
    user: &UserInfo,
) -> Result<(), Status> {
    if kind.group != "rbac.authorization.k8s.io" || user.is_in("system:masters") {
        return Ok(());
    }
    let (ns, name) = (meta::namespace(new), meta::name(new));
    let field = if kind.kind.ends_with("Binding") { "subjects" } else { "rules" };
    let same = |f: &str| old.is_some_and(|old| old.get(f) == new.get(f));
    if same(field) && same("aggregationRule") && same("roleRef") {
        return Ok(());
    }
    let what = Attributes { group: &kind.group, resource: &kind.plural, ns, name, ..Attributes::default() };
    let wanted = if field == "rules" {
        if api.authorize(user, &Attributes { verb: "escalate", ..what }).await.is_ok() {
            return Ok(());
        }
        if new.get("aggregationRule").is_some_and(|r| !r.is_null()) { vec![everything()] } else { Rule::all(new) }
    } else {
        let (cluster, role) = role_ref(new);
        let resource = if cluster { "clusterroles" } else { "roles" };
        let bind = Attributes { verb: "bind", resource, name: role, ns: if cluster { "" } else { ns }, ..what };
        // `bind` on a ClusterRole may have been given in this namespace alone.
        if api.authorize(user, &Attributes { ns, ..bind }).await.is_ok() {
            return Ok(());
        }
        let index = api.rbac.read(&*api.store).await?;
        let Some(rules) = index.role(cluster, ns, role) else {
            return Err(Status::new(404, "NotFound", format!("{resource}.{} {role:?} not found", kind.group)));
        };
        rules.to_vec()
    };
    let index = api.rbac.read(&*api.store).await?;
    let missing = uncovered(&index.rules(user, ns), &wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let words: Vec<_> = missing.iter().map(Rule::words).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        user.groups.iter().map(|g| format!("{g:?}")).collect::<Vec<_>>().join(" "),
        words.join("\n")
    );
    Err(Status::forbidden(kind, name, &why))
}

/// What an aggregated role may come to hold.
fn everything() -> Rule {
    let all = || -> Box<[Box<str>]> { Box::new(["*".into()]) };
    Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() }
}
