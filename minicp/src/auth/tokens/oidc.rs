//! Tokens of other issuers (OpenID Connect): `<data-dir>/authentication.yaml`, upstream's AuthenticationConfiguration.
//!
//! Of upstream's form: `jwt[].issuer.{url,audiences,audienceMatchPolicy}`, `claimMappings.{username,groups,uid}.{claim,prefix}`, `claimValidationRules[].{claim,requiredValue}`;
//! no CEL expressions. The issuer's keys are asked of the issuer (`issuer.discoveryURL` and `issuer.certificateAuthority` as upstream's), or are in a file,
//! `issuer.jwksFile` of our own: a board often cannot reach its issuer. They are read again when a token names a key that is not known, and after an hour.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;

use mote_api::tree::{Value, at, list_at, str_at};

use super::issuer_keys::Source;
use super::jwt::{self, Key, Unproven};
use crate::user::UserInfo;

/// Issuers of one configuration.
const ISSUERS_MAX: usize = 64;
/// Seconds between two readings of an issuer's keys, whatever tokens say.
const READ_AGAIN_SECONDS: i64 = 10;
/// Seconds after which they are read again in any case: a key that was taken back is good no longer than that.
const KEEP_SECONDS: i64 = 3600;
/// Groups taken from one token.
const GROUPS_MAX: usize = 256;

/// One issuer that is trusted.
pub(crate) struct Issuer {
    url: String,
    audiences: Vec<String>,
    username: (String, String),
    groups: Option<(String, String)>,
    uid: String,
    required: Vec<(String, String)>,
    source: Arc<Source>,
    keys: RefCell<Vec<Key>>,
    read_at: Cell<i64>,
    /// Held by who reads the keys: the others wait for what it finds.
    reading: tokio::sync::Mutex<()>,
}

impl Issuer {
    fn parse(entry: &Value, folder: &Path) -> Result<Issuer, String> {
        let text = |path: &[&str]| str_at(entry, path).to_owned();
        let known = ["issuer", "claimMappings", "claimValidationRules"];
        if let Some(other) =
            entry.as_object().into_iter().flatten().map(|(k, _)| k).find(|k| !known.contains(&k.as_str()))
        {
            return Err(format!("{other} is not supported"));
        }
        let url = text(&["issuer", "url"]);
        if !url.starts_with("https://") {
            return Err("issuer.url is not an https URL".into());
        }
        let words = |path: &[&str]| -> Vec<String> {
            list_at(entry, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let audiences = words(&["issuer", "audiences"]);
        if audiences.is_empty() {
            return Err("issuer.audiences is empty".into());
        }
        let mapping = |name: &str| -> Result<Option<(String, String)>, String> {
            let Some(of) = at(entry, &["claimMappings", name]) else { return Ok(None) };
            match (str_at(of, &["claim"]), of.get("expression")) {
                ("", _) | (_, Some(_)) => {
                    Err(format!("claimMappings.{name} needs a claim (expressions are not supported)"))
                }
                (claim, None) => Ok(Some((claim.into(), str_at(of, &["prefix"]).into()))),
            }
        };
        let rule = |rule: &Value| match str_at(rule, &["claim"]) {
            "" => Err("claimValidationRules need a claim (expressions are not supported)".to_owned()),
            claim => Ok((claim.to_owned(), str_at(rule, &["requiredValue"]).to_owned())),
        };
        let discovery = text(&["issuer", "discoveryURL"]);
        if !discovery.is_empty() && !discovery.starts_with("https://") {
            return Err("issuer.discoveryURL is not an https URL".into());
        }
        let source = match text(&["issuer", "jwksFile"]) {
            file if !file.is_empty() => Source::File(folder.join(file)),
            _ => Source::Issuer { url: url.clone(), discovery, authority: text(&["issuer", "certificateAuthority"]) },
        };
        Ok(Issuer {
            url,
            audiences,
            username: mapping("username")?.ok_or("claimMappings.username is needed")?,
            groups: mapping("groups")?,
            uid: mapping("uid")?.map_or_else(String::new, |m| m.0),
            required: list_at(entry, &["claimValidationRules"]).iter().map(rule).collect::<Result<_, _>>()?,
            source: Arc::new(source),
            keys: RefCell::default(),
            read_at: Cell::new(i64::MIN),
            reading: tokio::sync::Mutex::default(),
        })
    }
    fn wants_keys(&self, token: &Unproven<'_>, now: i64) -> bool {
        let age = now.saturating_sub(self.read_at.get());
        age >= KEEP_SECONDS || (age >= READ_AGAIN_SECONDS && !token.has_key(&self.keys.borrow()))
    }
    /// Reads the keys on a blocking thread.
    async fn read_keys(&self, now: i64) {
        self.read_at.set(now);
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let read = read.unwrap_or_else(|e| Err(e.to_string()));
        match read.and_then(|bytes| Key::set(&bytes)) {
            Ok(keys) => *self.keys.borrow_mut() = keys,
            // Those that are known stay good.
            Err(e) => log::warn!("keys of issuer {}: {e}", self.url),
        }
    }
    async fn prove(&self, token: Unproven<'_>, now: i64) -> Result<Value, String> {
        if self.wants_keys(&token, now) {
            let _reading = self.reading.lock().await;
            // Somebody else may just have done it.
            if self.wants_keys(&token, now) {
                self.read_keys(now).await;
            }
        }
        let claims = token.prove(&self.keys.borrow())?;
        jwt::in_time(&claims, now)?;
        let wanted: Vec<&str> = self.audiences.iter().map(String::as_str).collect();
        if jwt::audiences(&claims, &wanted).is_empty() {
            return Err(format!("token is not for {}", self.audiences.join(", ")));
        }
        Ok(claims)
    }
    /// The user that proven claims stand for.
    fn user(&self, claims: &Value) -> Result<UserInfo, String> {
        for (claim, value) in &self.required {
            if claims.get(claim).and_then(Value::as_str) != Some(value) {
                return Err(format!("claim {claim:?} is not as required"));
            }
        }
        let name = claims.get(&self.username.0).and_then(Value::as_str).filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| format!("claim {:?} is not there", self.username.0))?;
        // As upstream: an address that nobody has verified proves nothing.
        if self.username.0 == "email" && claims.get("email_verified").is_some_and(|v| v != &Value::Bool(true)) {
            return Err("email not verified".into());
        }
        let mut groups = Vec::new();
        if let Some((claim, prefix)) = &self.groups {
            let said = match claims.get(claim) {
                Some(Value::Array(many)) => many.iter().collect(),
                Some(one) => vec![one],
                None => Vec::new(),
            };
            let said = said.into_iter().filter_map(Value::as_str).take(GROUPS_MAX);
            groups.extend(said.map(|g| format!("{prefix}{g}")));
        }
        let user = UserInfo { name: format!("{}{name}", self.username.1), groups, ..UserInfo::default() };
        // Names of the cluster's own are given by the cluster alone.
        if user.name.starts_with("system:") || user.groups.iter().any(|g| g.starts_with("system:")) {
            return Err("an issuer may not give names that begin with system:".into());
        }
        let uid = claims.get(&self.uid).and_then(Value::as_str).unwrap_or_default().into();
        let groups = user.groups.into_iter().chain(["system:authenticated".into()]).collect();
        Ok(UserInfo { uid, groups, ..user })
    }
}

/// Reads a configuration. `folder`: what paths in it are relative to.
pub(crate) fn parse(text: &str, folder: &Path) -> Result<Vec<Issuer>, String> {
    let config = mote_api::yaml::parse_one(text).map_err(|e| e.to_string())?;
    if str_at(&config, &["kind"]) != "AuthenticationConfiguration" {
        return Err("kind is not AuthenticationConfiguration".into());
    }
    let entries = list_at(&config, &["jwt"]);
    if entries.len() > ISSUERS_MAX {
        return Err(format!("more than {ISSUERS_MAX} issuers"));
    }
    let parse = |(i, entry)| Issuer::parse(entry, folder).map_err(|e| format!("jwt[{i}]: {e}"));
    entries.iter().enumerate().map(parse).collect()
}

/// The user of a token and its end; None: no issuer of ours has made it.
pub(crate) async fn user(issuers: &[Issuer], token: Unproven<'_>, now: i64) -> Option<Result<UserInfo, String>> {
    let issuer = issuers.iter().find(|i| i.url == token.issuer())?;
    Some(issuer.prove(token, now).await.and_then(|claims| issuer.user(&claims)))
}

#[cfg(test)]
mod tests {
    use super::super::jwt::Signer;
    use super::*;
    use mote_api::tree::json;

    const CONFIG: &str = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: https://idp.example\n    audiences: [mote]\n    jwksFile: keys.json\n  claimValidationRules:\n  - {claim: hd, requiredValue: example}\n  claimMappings:\n    username: {claim: sub, prefix: 'idp:'}\n    groups: {claim: groups, prefix: 'idp:'}\n";

    #[test]
    fn tokens_of_an_issuer() {
        let folder = tempfile::tempdir().unwrap();
        let signer = || Signer::new(&rcgen::KeyPair::generate().unwrap().serialize_der()).unwrap();
        let (first, second) = (signer(), signer());
        let publish = |s: &Signer| {
            std::fs::write(folder.path().join("keys.json"), json!({"keys": [s.jwk()]}).to_string()).unwrap()
        };
        let issuers = parse(CONFIG, folder.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ask = |token: &str, now| runtime.block_on(user(&issuers, Unproven::parse(token).unwrap(), now));
        let claims = |field: &str, value: Value| {
            let mut claims = json!({"iss": "https://idp.example", "aud": "mote", "exp": 5000, "sub": "ann", "hd": "example", "groups": ["dev", 3]});
            claims[field] = value;
            claims
        };
        let good = claims("x", json!(1));
        assert!(ask(&first.sign(&good), 1000).unwrap().is_err(), "no key file yet");
        publish(&first);
        assert!(ask(&first.sign(&good), 1001).unwrap().is_err(), "not read at every request");
        let ann = ask(&first.sign(&good), 1010).unwrap().unwrap();
        assert_eq!((ann.name.as_str(), ann.groups.join(" ").as_str()), ("idp:ann", "idp:dev system:authenticated"));
        for (field, value) in
            [("aud", json!("other")), ("exp", json!(900)), ("hd", json!("else")), ("sub", json!("")), ("sub", json!(7))]
        {
            assert!(ask(&first.sign(&claims(field, value)), 1011).unwrap().is_err(), "{field}");
        }
        assert!(ask(&first.sign(&claims("iss", json!("https://x"))), 1011).is_none());
        publish(&second);
        assert!(ask(&second.sign(&good), 1030).unwrap().is_ok(), "a new key is found");
        assert!(ask(&first.sign(&good), 1030).unwrap().is_err(), "the old one is no more");
        // Without a prefix nobody becomes the cluster's own.
        let bare = parse(&CONFIG.replace("idp:", ""), folder.path()).unwrap();
        let token = second.sign(&claims("groups", json!("system:masters")));
        assert!(runtime.block_on(user(&bare, Unproven::parse(&token).unwrap(), 1030)).unwrap().is_err());
        // What was taken back is good for an hour at most.
        publish(&first);
        assert!(ask(&second.sign(&claims("exp", json!(9000))), 1030 + KEEP_SECONDS - 1).unwrap().is_ok());
        assert!(ask(&second.sign(&claims("exp", json!(9000))), 1030 + KEEP_SECONDS).unwrap().is_err());
    }

    #[test]
    fn configurations() {
        for (from, to, why) in [
            ("AuthenticationConfiguration", "Other", "kind"),
            ("https://", "http://", "https"),
            ("[mote]", "[]", "audiences"),
            ("{claim: sub", "{expression: sub", "expression"),
            ("jwksFile: keys.json", "discoveryURL: 'http://x'", "discoveryURL"),
            ("  claimMappings", "  userValidationRules: []\n  claimMappings", "userValidationRules"),
        ] {
            let error = parse(&CONFIG.replace(from, to), Path::new("/")).err().unwrap_or_default();
            assert!(error.contains(why), "{to}: {error}");
        }
    }
}
