//! Reviews: questions about identities and permissions, in the form of objects. Answered, never stored.

use mote_api::field;
use mote_api::kind::Kind;
use mote_api::status::Status;
use mote_api::tree::{Value, at, json, list_at, map_at, set, str_at};

use super::tokens::Tokens;
use crate::api::Api;
use crate::rbac::rule::Rule;
use crate::user::{Attributes, UserInfo};

/// As TokenReview and SelfSubjectReview show a user.
fn shown(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        set(&mut value, &["uid"], user.uid.as_str().into());
    }
    for (key, values) in &user.extra {
        set(&mut value, &["extra", key], json!(values));
    }
    value
}

/// Whom a SubjectAccessReview is about.
fn subject(spec: &Value) -> UserInfo {
    let words = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    UserInfo {
        name: str_at(spec, &["user"]).into(),
        uid: str_at(spec, &["uid"]).into(),
        groups: list_at(spec, &["groups"]).iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        extra: map_at(spec, &["extra"]).into_iter().flatten().map(|(k, v)| (k.clone(), words(v))).collect(),
    }
}

pub(crate) async fn answer(
    api: &Api,
    tokens: &Tokens,
    kind: &Kind,
    ns: &str,
    mut review: Value,
    user: &UserInfo,
) -> Result<Value, Status> {
    let spec = review.get("spec").cloned().unwrap_or_default();
    let status = match &*kind.kind {
        "SelfSubjectReview" => json!({"userInfo": shown(user)}),
        "SelfSubjectAccessReview" => access(api, kind, ns, &spec, user).await?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let about = subject(&spec);
            if about.name.is_empty() && about.groups.is_empty() {
                let error =
                    field::Error::invalid_str("spec.user", "", "at least one of user or group must be specified");
                return Err(Status::invalid(kind, "", &[error]));
            }
            access(api, kind, ns, &spec, &about).await?
        }
        "SelfSubjectRulesReview" => rules(api, &spec, user).await?,
        "TokenReview" => token(api, tokens, kind, &spec).await?,
        _ => return Err(Status::method_not_allowed(kind, "create")),
    };
    set(&mut review, &["status"], status);
    Ok(review)
}

async fn access(api: &Api, kind: &Kind, ns: &str, spec: &Value, user: &UserInfo) -> Result<Value, Status> {
    let of_resource = |field| str_at(spec, &["resourceAttributes", field]);
    let of_path = |field| str_at(spec, &["nonResourceAttributes", field]);
    let what = match (at(spec, &["resourceAttributes"]), at(spec, &["nonResourceAttributes"])) {
        (Some(_), None) => Attributes {
            verb: of_resource("verb"),
            group: of_resource("group"),
            resource: of_resource("resource"),
            sub: of_resource("subresource"),
            ns: of_resource("namespace"),
            name: of_resource("name"),
            ..Attributes::default()
        },
        (None, Some(_)) => Attributes { verb: of_path("verb"), path: of_path("path"), ..Attributes::default() },
        _ => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let error = field::Error::invalid_str("spec.resourceAttributes", "", why);
            return Err(Status::invalid(kind, "", &[error]));
        }
    };
    if !ns.is_empty() && what.ns != ns {
        let why = format!("must match metadata.namespace: {ns}");
        let error = field::Error::invalid_str("spec.resourceAttributes.namespace", what.ns, &why);
        return Err(Status::invalid(kind, "", &[error]));
    }
    let verdict = api.judge(user, &what).await;
    let mut status = json!({"allowed": verdict.is_ok()});
    let (Ok(reason) | Err(reason)) = verdict;
    if !reason.is_empty() {
        set(&mut status, &["reason"], reason.into());
    }
    Ok(status)
}

/// What `kubectl auth can-i --list` shows.
async fn rules(api: &Api, spec: &Value, user: &UserInfo) -> Result<Value, Status> {
    let ns = str_at(spec, &["namespace"]);
    if ns.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let mut all = match api.rbac.read(&*api.store).await {
        Ok(index) => index.rules(user, ns),
        Err(e) => return Err(e.into()),
    };
    if user.as_node().is_some() {
        all.extend(api.node_rules.iter().cloned());
    }
    let (urls, resources): (Vec<&Rule>, Vec<&Rule>) = all.iter().partition(|r| !r.urls.is_empty());
    let values = |rules: Vec<&Rule>| rules.into_iter().map(Rule::to_value).collect::<Vec<_>>();
    // What a node may besides depends on its pods.
    let incomplete = user.as_node().is_some();
    let mut status =
        json!({"resourceRules": values(resources), "nonResourceRules": values(urls), "incomplete": incomplete});
    if incomplete {
        set(&mut status, &["evaluationError"], "node authorizer does not support user rule resolution".into());
    }
    Ok(status)
}

async fn token(api: &Api, tokens: &Tokens, kind: &Kind, spec: &Value) -> Result<Value, Status> {
    let token = str_at(spec, &["token"]);
    if token.is_empty() {
        return Err(Status::bad_request(format!("token is required for {} in authentication", kind.kind)));
    }
    let audiences: Vec<&str> = list_at(spec, &["audiences"]).iter().filter_map(Value::as_str).collect();
    Ok(match tokens.prove(api, token, &audiences).await {
        Ok(Some(proven)) => {
            json!({"authenticated": true, "user": shown(&proven.user), "audiences": proven.audiences})
        }
        Ok(None) => json!({"authenticated": false}),
        Err(why) => json!({"authenticated": false, "error": why}),
    })
}
