//! Tokens of ServiceAccounts: given out (`serviceaccounts/token`), and looked at (bearer tokens, TokenReview).

use std::rc::Rc;

use mote_api::field;
use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::{Value, at, i64_at, json, list_at, set, str_at};

use super::request::WriteOptions;
use super::{Api, object};
use crate::auth::UserInfo;
use crate::auth::account::{Bound, Claims, Signer};

/// Seconds a token lives when nothing is said.
const SECONDS: i64 = 3600;
/// The shortest life, in seconds (upstream's).
const SECONDS_MIN: i64 = 600;
/// The longest (upstream's).
const SECONDS_MAX: i64 = 1 << 32;
/// Audiences of one token.
const AUDIENCES_MAX: usize = 64;

/// The account a token is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Account<'a> {
    pub(crate) kind: &'a Rc<Kind>,
    pub(crate) ns: &'a str,
    pub(crate) name: &'a str,
}

impl Api {
    /// Answers a TokenRequest.
    pub(crate) async fn give_token(
        &self,
        signer: &Signer,
        account: Account<'_>,
        mut request: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let Account { kind, ns, name } = account;
        let owner = object::decode(kind, &self.entry(kind, ns, name).await?);
        let seconds = i64_at(&request, &["spec", "expirationSeconds"]).unwrap_or(SECONDS);
        if let Some(error) = unfit(&request, seconds) {
            return Err(Status::invalid(kind, name, &[error]));
        }
        let mut audiences: Vec<String> =
            list_at(&request, &["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        if audiences.is_empty() {
            audiences.push(signer.issuer.clone());
        }
        let bound = self.bound(account, &request, &options.user).await?;
        let now = self.now().unix();
        let claims = Claims {
            ns: ns.into(),
            account: name.into(),
            uid: meta::uid(&owner).into(),
            audiences,
            bound,
            issued: now,
            expires: now.saturating_add(seconds),
            id: self.uuid(),
        };
        let token = signer.sign(&claims).map_err(Status::internal)?;
        set(&mut request, &["apiVersion"], "authentication.k8s.io/v1".into());
        set(&mut request, &["kind"], "TokenRequest".into());
        set(
            &mut request,
            &["metadata"],
            json!({"name": name, "namespace": ns, "creationTimestamp": self.now().to_string()}),
        );
        set(&mut request, &["spec", "audiences"], json!(claims.audiences));
        set(&mut request, &["spec", "expirationSeconds"], json!(seconds));
        let expires = Time::from_unix(claims.expires).to_string();
        set(&mut request, &["status"], json!({"token": token, "expirationTimestamp": expires}));
        Ok(request)
    }

    /// The object the request binds its token to: there, the very one that is meant, and a pod of this account.
    async fn bound(&self, account: Account<'_>, request: &Value, user: &UserInfo) -> Result<Option<Bound>, Status> {
        let Account { kind, ns, name } = account;
        let node = user.is_in("system:nodes").then(|| user.name.strip_prefix("system:node:").unwrap_or_default());
        let forbidden = |why: &str| Err(Status::forbidden(kind, name, why));
        let Some(wanted) = at(request, &["spec", "boundObjectRef"]).filter(|wanted| !wanted.is_null()) else {
            return if node.is_some() { forbidden("node requested token not bound to a pod") } else { Ok(None) };
        };
        let text = |field| str_at(wanted, &[field]).to_owned();
        let mut bound = Bound { kind: text("kind"), name: text("name"), uid: text("uid") };
        if node.is_some() && bound.kind != "Pod" {
            return forbidden("node requested token not bound to a pod");
        }
        let Some(found) = self.bound_object(ns, &bound).await? else {
            return Err(Status::bad_request(format!("cannot bind token to object of type {}", bound.kind)));
        };
        if !bound.uid.is_empty() && bound.uid != meta::uid(&found) {
            let why = format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                bound.uid
            );
            return Err(Status::conflict(kind, name, &why));
        }
        if bound.kind == "Pod" && str_at(&found, &["spec", "serviceAccountName"]) != name {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
            )));
        }
        if node.is_some_and(|node| node != str_at(&found, &["spec", "nodeName"])) {
            return forbidden("node requested token bound to a pod scheduled on a different node");
        }
        bound.uid = meta::uid(&found).into();
        Ok(Some(bound))
    }

    /// `None`: no token is bound to such a kind.
    async fn bound_object(&self, ns: &str, bound: &Bound) -> Result<Option<Value>, Status> {
        let (plural, ns) = match bound.kind.as_str() {
            "Pod" => ("pods", ns),
            "Secret" => ("secrets", ns),
            "Node" => ("nodes", ""),
            _ => return Ok(None),
        };
        self.stored(plural, ns, &bound.name).await.map(Some)
    }

    async fn stored(&self, plural: &str, ns: &str, name: &str) -> Result<Value, Status> {
        let registry = self.registry();
        let kind = registry.find(plural).ok_or_else(Status::no_such_resource)?;
        Ok(object::decode(kind, &self.entry(kind, ns, name).await?))
    }

    /// What a token proves now, to one of these audiences (none: to this API). The error is for the log and for TokenReview.
    pub(crate) async fn account_of(
        &self,
        signer: &Signer,
        token: &str,
        audiences: &[String],
    ) -> Result<Claims, String> {
        let claims = signer.check(token, self.now().unix())?;
        let meant = |audience: &String| {
            if audiences.is_empty() { *audience == signer.issuer } else { audiences.contains(audience) }
        };
        if !claims.audiences.iter().any(meant) {
            return Err(format!("token audiences {:?} is invalid for the target audiences", claims.audiences));
        }
        let lives = |found: Result<Value, Status>, what: &str, uid: &str| match found {
            Ok(object) if meta::uid(&object) == uid => Ok(()),
            Ok(_) => Err(format!("{what} UID ({uid}) does not match claim")),
            Err(status) => Err(status.message),
        };
        let owner = self.stored("serviceaccounts", &claims.ns, &claims.account).await;
        lives(owner, "service account", &claims.uid)?;
        if let Some(bound) = &claims.bound {
            let found = self.bound_object(&claims.ns, bound).await;
            lives(found.map(Option::unwrap_or_default), &bound.kind, &bound.uid)?;
        }
        Ok(claims)
    }

    /// Fills in the status of a TokenReview.
    pub(crate) async fn review_token(&self, signer: &Signer, review: &mut Value) {
        let asked: Vec<String> =
            list_at(review, &["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let status = match self.account_of(signer, str_at(review, &["spec", "token"]), &asked).await {
            Err(why) => json!({"authenticated": false, "user": {}, "error": why}),
            Ok(claims) => {
                let user = claims.user();
                let mut extra = json!({"authentication.kubernetes.io/credential-id": [format!("JTI={}", claims.id)]});
                if let (Some(bound), Some(map)) = (&claims.bound, extra.as_object_mut()) {
                    let key = |part| format!("authentication.kubernetes.io/{}-{part}", bound.kind.to_lowercase());
                    map.insert(key("name"), json!([bound.name]));
                    map.insert(key("uid"), json!([bound.uid]));
                }
                let common: Vec<&String> = if asked.is_empty() {
                    vec![&signer.issuer]
                } else {
                    claims.audiences.iter().filter(|audience| asked.contains(audience)).collect()
                };
                json!({"authenticated": true, "audiences": common,
                    "user": {"username": user.name, "uid": claims.uid, "groups": user.groups, "extra": extra}})
            }
        };
        set(review, &["status"], status);
    }
}

/// What is wrong with a request, if anything.
fn unfit(request: &Value, seconds: i64) -> Option<field::Error> {
    let of_life = |why: &str| Some(field::Error::invalid("spec.expirationSeconds", &json!(seconds), why));
    if seconds < SECONDS_MIN {
        return of_life("may not specify a duration less than 10 minutes");
    }
    if seconds > SECONDS_MAX {
        return of_life("may not specify a duration larger than 2^32 seconds");
    }
    let audiences = list_at(request, &["spec", "audiences"]).len();
    (audiences > AUDIENCES_MAX).then(|| field::Error::too_many("spec.audiences", audiences, AUDIENCES_MAX))
}
