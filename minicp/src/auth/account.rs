//! Tokens of ServiceAccounts: JWTs (RFC 7519) signed with ES256, as the TokenRequest API gives them out. What is proven here is that we
//! signed the claims and that they hold now; whether account and pod still exist is the API's to say.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mote_api::tree::{Value, as_i64, at, json, list_at, str_at};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};

use super::UserInfo;

/// Bytes of a token that is looked at.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Seconds that the clock may have been set back since a token was made.
const SKEW_SECONDS: i64 = 60;

/// An object a token lives and dies with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bound {
    /// `Pod`, `Secret` or `Node`.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What a token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Claims {
    pub(crate) ns: String,
    pub(crate) account: String,
    pub(crate) uid: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) bound: Option<Bound>,
    /// Unix seconds.
    pub(crate) issued: i64,
    /// Unix seconds.
    pub(crate) expires: i64,
    /// Its own name, unique.
    pub(crate) id: String,
}

impl Claims {
    /// Whom it speaks for.
    pub(crate) fn user(&self) -> UserInfo {
        let mine = format!("system:serviceaccounts:{}", self.ns);
        UserInfo::new(
            format!("system:serviceaccount:{}:{}", self.ns, self.account),
            &["system:serviceaccounts", &mine, "system:authenticated"],
        )
    }

    fn to_value(&self, issuer: &str) -> Value {
        let mut of = json!({"namespace": self.ns, "serviceaccount": {"name": self.account, "uid": self.uid}});
        if let (Some(bound), Some(map)) = (&self.bound, of.as_object_mut()) {
            map.insert(bound.kind.to_lowercase(), json!({"name": bound.name, "uid": bound.uid}));
        }
        json!({
            "iss": issuer, "sub": self.user().name, "aud": self.audiences, "jti": self.id,
            "iat": self.issued, "nbf": self.issued, "exp": self.expires, "kubernetes.io": of,
        })
    }

    fn from_value(value: &Value) -> Option<Claims> {
        let of = at(value, &["kubernetes.io"])?;
        let number = |field: &str| at(value, &[field]).and_then(as_i64);
        let bound = ["pod", "secret", "node"].iter().zip(["Pod", "Secret", "Node"]).find_map(|(field, kind)| {
            let object = at(of, &[field])?;
            let text = |field| str_at(object, &[field]).to_owned();
            Some(Bound { kind: kind.into(), name: text("name"), uid: text("uid") })
        });
        Some(Claims {
            ns: str_at(of, &["namespace"]).to_owned(),
            account: str_at(of, &["serviceaccount", "name"]).to_owned(),
            uid: str_at(of, &["serviceaccount", "uid"]).to_owned(),
            audiences: list_at(value, &["aud"]).iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            bound,
            issued: number("nbf")?,
            expires: number("exp")?,
            id: str_at(value, &["jti"]).to_owned(),
        })
    }
}

/// Signs and checks tokens with the cluster's service-account key.
pub(crate) struct Signer {
    key: EcdsaKeyPair,
    /// `kid`: which key signed it.
    id: String,
    /// `https://kubernetes.default.svc.cluster.local`: who gave it out, and the audience that is this API.
    pub(crate) issuer: String,
    random: SystemRandom,
}

impl Signer {
    /// With a P-256 key (PKCS #8, DER); the error says what is wrong with it.
    pub(crate) fn new(pkcs8: &[u8], issuer: String) -> Result<Signer, String> {
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).map_err(|e| e.to_string())?;
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, key.public_key().as_ref()));
        Ok(Signer { key, id, issuer, random })
    }

    /// A token of these claims.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, String> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims.to_value(&self.issuer)));
        let signature = self.key.sign(&self.random, text.as_bytes()).map_err(|_| "sign token: no random numbers")?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What the token says, if we signed it and it holds at `now` (Unix seconds).
    pub(crate) fn check(&self, token: &str, now: i64) -> Result<Claims, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("token is too long");
        }
        let (text, signature) = token.rsplit_once('.').ok_or("not a token")?;
        let (header, claims) = text.split_once('.').ok_or("not a token")?;
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "not base64url");
        // Ours say ES256; what another header asks for is not tried.
        let header: Value = serde_json::from_slice(&bytes(header)?).map_err(|_| "header is not JSON")?;
        if str_at(&header, &["alg"]) != "ES256" || str_at(&header, &["kid"]) != self.id {
            return Err("signed by another key");
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(text.as_bytes(), &bytes(signature)?)
            .map_err(|_| "signature is wrong")?;
        let value: Value = serde_json::from_slice(&bytes(claims)?).map_err(|_| "claims are not JSON")?;
        let claims = Claims::from_value(&value).ok_or("claims are incomplete")?;
        if str_at(&value, &["iss"]) != self.issuer {
            return Err("given out by somebody else");
        }
        if now >= claims.expires {
            return Err("service account token has expired");
        }
        if now.saturating_add(SKEW_SECONDS) < claims.issued {
            return Err("service account token is not valid yet");
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        let key = rcgen::KeyPair::generate().unwrap();
        Signer::new(&key.serialize_der(), "https://issuer".into()).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            ns: "ns".into(),
            account: "sa".into(),
            uid: "u".into(),
            audiences: vec!["https://issuer".into()],
            bound: Some(Bound { kind: "Pod".into(), name: "p".into(), uid: "pu".into() }),
            issued: 1000,
            expires: 1600,
            id: "j".into(),
        }
    }

    #[test]
    fn a_token_is_good_for_its_time() {
        let signer = signer();
        let token = signer.sign(&claims()).unwrap();
        assert_eq!(signer.check(&token, 1599).as_ref(), Ok(&claims()));
        assert_eq!(signer.check(&token, 940).as_ref(), Ok(&claims()), "a clock set back a little");
        assert_eq!(signer.check(&token, 1600), Err("service account token has expired"));
        assert_eq!(signer.check(&token, 939), Err("service account token is not valid yet"));
        assert_eq!(claims().user().name, "system:serviceaccount:ns:sa");
    }

    #[test]
    fn nobody_else_makes_one() {
        let signer = signer();
        let token = signer.sign(&claims()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let other = signer.sign(&Claims { account: "admin".into(), ..claims() }).unwrap();
        let other: Vec<&str> = other.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": signer.id}).to_string());
        for bad in [
            format!("{}.{}.{}", parts[0], other[1], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            String::new(),
            "..".into(),
            "a".repeat(TOKEN_BYTES_MAX + 1),
            self::signer().sign(&claims()).unwrap(),
        ] {
            assert!(signer.check(&bad, 1000).is_err(), "{bad}");
        }
    }
}
