//! Service-account tokens: made on request, bound to a pod, Secret or Node, and good for as long as that is there.
//!
//! `<data-dir>/pki/sa.key` has the keys (PEM, PKCS #8, P-256): the first one signs, all are good. To rotate: put a new one in front, restart, and take
//! the old one away when its tokens have ended.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mote_api::field;
use mote_api::kind::Kind;
use mote_api::meta;
use mote_api::status::Status;
use mote_api::time::Time;
use mote_api::tree::{Value, at, i64_at, json, list_at, set, str_at};

use super::jwt::{self, Key, Signer, Unproven};
use crate::api::{Api, object};
use crate::user::{UserInfo, account_name, account_of};

const SECONDS_MIN: i64 = 600;
const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MAX: i64 = 1 << 32;
/// What the token volume of every pod asks for; upstream gives those a year, for clients that never read the file again.
const POD_SECONDS: i64 = 3607;
const POD_SECONDS_GIVEN: i64 = 365 * 86_400;
/// Seconds that tokens of a deleted pod are still good (its grace period is over by then).
const AFTER_DELETION: i64 = 60;

/// Kinds that a token may be bound to, and their words in claims and in `extra`.
const BINDABLE: [(&str, &str, &str); 3] =
    [("Pod", "pod", "pods"), ("Secret", "secret", "secrets"), ("Node", "node", "nodes")];

/// The issuer of this cluster.
pub(crate) struct Accounts {
    signers: Vec<Signer>,
    keys: Vec<Key>,
    /// `https://kubernetes.default.svc.<domain>`: also the audience of who names none
    pub issuer: String,
}

impl Accounts {
    pub(crate) fn new(pem: &str, domain: &str) -> Result<Accounts, String> {
        let mut signers = Vec::new();
        for block in pem.split("-----BEGIN ").skip(1) {
            let der = crate::pki::pem_der(&format!("-----BEGIN {block}")).ok_or("read sa.key: not PEM")?;
            signers.push(Signer::new(&der).map_err(|e| format!("read sa.key: {e}"))?);
        }
        if signers.is_empty() {
            return Err("read sa.key: no key".into());
        }
        let keys = signers.iter().map(Signer::key).collect();
        Ok(Accounts { signers, keys, issuer: format!("https://kubernetes.default.svc.{domain}") })
    }
    /// `/openid/v1/jwks`
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": self.signers.iter().map(Signer::jwk).collect::<Vec<_>>()})
    }
    /// `/.well-known/openid-configuration`
    pub(crate) fn configuration(&self, url: &str) -> Value {
        json!({
            "issuer": self.issuer, "jwks_uri": format!("{url}/openid/v1/jwks"), "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
    /// The claims of a token of ours; None: it is somebody else's.
    pub(crate) fn open(&self, token: Unproven<'_>) -> Option<Result<Value, String>> {
        (token.issuer() == self.issuer).then(|| token.prove(&self.keys))
    }

    /// `serviceaccounts/token`: the request with its status filled in.
    pub(crate) async fn issue(&self, api: &Api, ns: &str, name: &str, mut request: Value) -> Result<Value, Status> {
        let account = find(api, "serviceaccounts", ns, name).await?;
        let spec = request.get("spec").cloned().unwrap_or_default();
        let asked = i64_at(&spec, &["expirationSeconds"]).unwrap_or(SECONDS_DEFAULT);
        let why = match asked {
            _ if asked < SECONDS_MIN => "may not specify a duration less than 10 minutes",
            _ if asked > SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
            _ => "",
        };
        if !why.is_empty() {
            let error = field::Error::invalid("spec.expirationSeconds", &json!(asked), why);
            let kind = mote_api::schema::kind_of_body("authentication.k8s.io/v1.TokenRequest")
                .ok_or_else(Status::no_such_resource)?;
            return Err(Status::invalid(&kind, name, &[error]));
        }
        let mut private = json!({"namespace": ns, "serviceaccount": {"name": name, "uid": meta::uid(&account)}});
        let bound = at(&spec, &["boundObjectRef"]).filter(|b| !b.is_null());
        if let Some(bound) = bound {
            bind(api, ns, name, bound, &mut private).await?;
        }
        let (now, mut seconds) = (api.now().unix(), asked);
        if asked == POD_SECONDS && private.get("pod").is_some() {
            seconds = POD_SECONDS_GIVEN;
            set(&mut private, &["warnafter"], json!(now + POD_SECONDS));
        }
        let mut audiences: Vec<&str> = list_at(&spec, &["audiences"]).iter().filter_map(Value::as_str).collect();
        if audiences.is_empty() {
            audiences.push(&self.issuer);
        }
        let claims = json!({
            "iss": self.issuer, "sub": account_name(ns, name), "aud": audiences, "iat": now, "nbf": now, "exp": now + seconds,
            "jti": api.uuid(), "kubernetes.io": private,
        });
        let signer = self.signers.first().ok_or_else(|| Status::internal("no key signs tokens"))?;
        let ends = Time::from_unix(now + seconds).to_string();
        set(&mut request, &["status"], json!({"token": signer.sign(&claims), "expirationTimestamp": ends}));
        set(&mut request, &["spec", "audiences"], json!(audiences));
        set(&mut request, &["spec", "expirationSeconds"], json!(asked));
        set(&mut request, &["metadata", "name"], name.into());
        set(&mut request, &["metadata", "namespace"], ns.into());
        set(&mut request, &["metadata", "creationTimestamp"], api.now().to_string().into());
        Ok(request)
    }

    /// The user that proven claims stand for, if all they are bound to is there still.
    pub(crate) async fn user(&self, api: &Api, claims: &Value) -> Result<UserInfo, String> {
        let invalid = |_| "service account token has been invalidated".to_owned();
        let (ns, name) = account_of(str_at(claims, &["sub"])).ok_or("token is of no service account")?;
        let of = |path: &[&str]| at(claims, &["kubernetes.io"]).map_or("", |p| str_at(p, path));
        if of(&["namespace"]) != ns || of(&["serviceaccount", "name"]) != name {
            return Err("token contradicts itself".into());
        }
        let account = find(api, "serviceaccounts", ns, name).await.map_err(invalid)?;
        if meta::uid(&account) != of(&["serviceaccount", "uid"]) || meta::is_deleting(&account) {
            return Err(invalid(Status::unauthorized()));
        }
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{ns}"), "system:authenticated"];
        let mut user = UserInfo { uid: meta::uid(&account).into(), ..UserInfo::new(account_name(ns, name), &groups) };
        let mut note = |key: &str, value: &str| {
            user.extra.push((format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]));
        };
        note("credential-id", &format!("JTI={}", str_at(claims, &["jti"])));
        for (_, word, resource) in BINDABLE {
            let (name, uid) = (of(&[word, "name"]), of(&[word, "uid"]));
            // A pod's token also says on which node, for information.
            let binds = !name.is_empty() && (word != "node" || of(&["pod", "name"]).is_empty());
            if binds {
                let ns = if word == "node" { "" } else { ns };
                let found = find(api, resource, ns, name).await.map_err(invalid)?;
                let gone = meta::deletion_timestamp(&found).and_then(Time::parse);
                let late = gone.is_some_and(|at| api.now().seconds_since(at) > AFTER_DELETION);
                if meta::uid(&found) != uid || late {
                    return Err(invalid(Status::unauthorized()));
                }
            }
            if !name.is_empty() && word != "secret" {
                note(&format!("{word}-name"), name);
                note(&format!("{word}-uid"), uid);
            }
        }
        Ok(user)
    }
}

async fn find(api: &Api, resource: &str, ns: &str, name: &str) -> Result<Value, Status> {
    let registry = api.registry();
    let kind: &Rc<Kind> = registry.find(resource).ok_or_else(Status::no_such_resource)?;
    Ok(object::decode(kind, &api.entry(kind, ns, name).await?))
}

/// Writes what the token is bound to into its claims.
async fn bind(api: &Api, ns: &str, account: &str, bound: &Value, claims: &mut Value) -> Result<(), Status> {
    let (kind, name, uid) = (str_at(bound, &["kind"]), str_at(bound, &["name"]), str_at(bound, &["uid"]));
    let Some((_, word, resource)) = BINDABLE.iter().find(|(k, ..)| *k == kind) else {
        let version = str_at(bound, &["apiVersion"]);
        return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
    };
    let found = find(api, resource, if kind == "Node" { "" } else { ns }, name).await?;
    if !uid.is_empty() && uid != meta::uid(&found) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        let registry = api.registry();
        let kind = registry.find(resource).ok_or_else(Status::no_such_resource)?;
        return Err(Status::conflict(kind, name, &why));
    }
    set(claims, &[word], json!({"name": name, "uid": meta::uid(&found)}));
    if kind == "Pod" {
        let runs_as = str_at(&found, &["spec", "serviceAccountName"]);
        if runs_as != account {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
            )));
        }
        let node = str_at(&found, &["spec", "nodeName"]);
        if !node.is_empty()
            && let Ok(object) = find(api, "nodes", "", node).await
        {
            set(claims, &["node"], json!({"name": node, "uid": meta::uid(&object)}));
        }
    }
    Ok(())
}

/// The user of a bootstrap token: a Secret `bootstrap-token-<id>` of kube-system (upstream's bootstrap token authenticator). None: no such token.
pub(crate) async fn bootstrap(api: &Api, token: &str) -> Option<UserInfo> {
    let (id, secret) = token.split_once('.')?;
    let lower = |t: &str| t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if id.len() != 6 || secret.len() != 16 || !lower(id) || !lower(secret) {
        return None;
    }
    let found = find(api, "secrets", "kube-system", &format!("bootstrap-token-{id}")).await.ok()?;
    let data = |key: &str| {
        let bytes = STANDARD.decode(str_at(&found, &["data", key])).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let ends = data("expiration");
    let ended = !ends.is_empty() && Time::parse(&ends).is_none_or(|at| at <= api.now());
    if str_at(&found, &["type"]) != "bootstrap.kubernetes.io/token"
        || meta::is_deleting(&found)
        || data("token-id") != id
        || !super::same(data("token-secret").as_bytes(), secret.as_bytes())
        || data("usage-bootstrap-authentication") != "true"
        || ended
    {
        return None;
    }
    let mut user = UserInfo::new(format!("system:bootstrap:{id}"), &["system:bootstrappers", "system:authenticated"]);
    let extra = data("auth-extra-groups");
    user.groups.extend(extra.split(',').filter(|g| g.starts_with("system:bootstrappers:")).map(str::to_owned));
    Some(user)
}

/// The audiences that a token of ours is good for, of those wanted (none: the API's own).
pub(super) fn good_for(accounts: &Accounts, claims: &Value, wanted: &[&str]) -> Vec<String> {
    let own = [accounts.issuer.as_str()];
    jwt::audiences(claims, if wanted.is_empty() { &own } else { wanted })
}
