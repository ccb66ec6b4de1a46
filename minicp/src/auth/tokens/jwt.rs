//! JSON Web Tokens (RFC 7515, 7517, 7518, 7519): ES256 made, ES256, ES384, RS256, RS384 and RS512 checked. No `none`, no HMAC: those are not here to be chosen.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mote_api::tree::{Value, json, list_at, parse_json, str_at};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair, RsaPublicKeyComponents, UnparsedPublicKey};

use crate::pki::sha256_hex;

/// Bytes of a token.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Bytes of a key set.
pub(crate) const KEYS_BYTES_MAX: usize = 256 << 10;
/// Keys of one set.
const KEYS_MAX: usize = 64;

/// A public key that tokens are checked with.
pub(crate) struct Key {
    /// "": the set names none
    pub id: String,
    body: Body,
}

enum Body {
    /// The uncompressed point, and the curve's length in bytes.
    Ec(Vec<u8>, usize),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

impl Key {
    /// One JWK; None for what cannot sign tokens that we check.
    fn parse(jwk: &Value) -> Option<Key> {
        let text = |field| str_at(jwk, &[field]);
        if !matches!(text("use"), "" | "sig") {
            return None;
        }
        let body = match text("kty") {
            "EC" => {
                let len = match text("crv") {
                    "P-256" => 32,
                    "P-384" => 48,
                    _ => return None,
                };
                let point = [vec![4], decode(text("x"))?, decode(text("y"))?].concat();
                (point.len() == 1 + 2 * len).then_some(Body::Ec(point, len))?
            }
            "RSA" => Body::Rsa { n: decode(text("n"))?, e: decode(text("e"))? },
            _ => return None,
        };
        Some(Key { id: text("kid").into(), body })
    }
    /// The keys of a JWKS document that can be used.
    pub(crate) fn set(bytes: &[u8]) -> Result<Vec<Key>, String> {
        let set = parse_json(bytes, KEYS_BYTES_MAX).map_err(|e| format!("read JSON web keys: {e}"))?.value;
        let keys: Vec<Key> = list_at(&set, &["keys"]).iter().take(KEYS_MAX).filter_map(Key::parse).collect();
        if keys.is_empty() { Err("read JSON web keys: no usable key".into()) } else { Ok(keys) }
    }
    fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match (&self.body, algorithm) {
            (Body::Ec(point, 32), "ES256") => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            (Body::Ec(point, 48), "ES384") => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(message, signature).is_ok()
            }
            (Body::Rsa { n, e }, _) => {
                let how = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// A token taken apart; nothing in it is proven yet.
pub(crate) struct Unproven<'a> {
    algorithm: String,
    key_id: String,
    message: &'a str,
    signature: Vec<u8>,
    claims: Value,
}

impl<'a> Unproven<'a> {
    /// None: no JSON web token.
    pub(crate) fn parse(token: &'a str) -> Option<Unproven<'a>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let json = |part: &str| Some(parse_json(&decode(part)?, TOKEN_BYTES_MAX).ok()?.value).filter(Value::is_object);
        let header = json(header)?;
        // Extensions that must be understood are not (RFC 7515, 4.1.11).
        if header.get("crit").is_some() {
            return None;
        }
        Some(Unproven {
            algorithm: str_at(&header, &["alg"]).into(),
            key_id: str_at(&header, &["kid"]).into(),
            message,
            signature: decode(signature)?,
            claims: json(claims)?,
        })
    }
    /// Who it says has issued it.
    pub(crate) fn issuer(&self) -> &str {
        str_at(&self.claims, &["iss"])
    }
    /// Whether a key of that name is in the set.
    pub(crate) fn has_key(&self, keys: &[Key]) -> bool {
        keys.iter().any(|k| k.id.is_empty() || self.key_id.is_empty() || k.id == self.key_id)
    }
    /// Its claims, if one of the keys has signed them.
    pub(crate) fn prove(self, keys: &[Key]) -> Result<Value, String> {
        let named = |k: &&Key| k.id.is_empty() || self.key_id.is_empty() || k.id == self.key_id;
        let good =
            keys.iter().filter(named).any(|k| k.verifies(&self.algorithm, self.message.as_bytes(), &self.signature));
        if good { Ok(self.claims) } else { Err("failed to verify signature: no key of the issuer has made it".into()) }
    }
}

/// Checks `exp` and `nbf` (seconds since 1970), each with a minute for clocks that differ.
pub(crate) fn in_time(claims: &Value, now: i64) -> Result<(), String> {
    const LEEWAY: i64 = 60;
    let at = |claim| claims.get(claim).and_then(Value::as_f64).map(|s| s as i64);
    match (at("exp"), at("nbf")) {
        (None, _) => Err("token has no expiry".into()),
        (Some(exp), _) if exp.saturating_add(LEEWAY) <= now => Err("token has expired".into()),
        (_, Some(nbf)) if nbf.saturating_sub(LEEWAY) > now => Err("token is not valid yet".into()),
        _ => Ok(()),
    }
}

/// The audiences of a token (`aud`: one or a list) that are among `wanted`.
pub(crate) fn audiences(claims: &Value, wanted: &[&str]) -> Vec<String> {
    let said: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    said.into_iter().filter(|a| wanted.contains(a)).map(str::to_owned).collect()
}

/// A private key that signs tokens (P-256).
pub(crate) struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    /// From PKCS #8 DER.
    pub(crate) fn new(pkcs8: &[u8]) -> Result<Signer, String> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random);
        Ok(Signer { pair: pair.map_err(|e| e.to_string())?, random })
    }
    fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
    pub(crate) fn key_id(&self) -> String {
        sha256_hex(self.point()).get(..40).unwrap_or_default().into()
    }
    /// The public half, as a JWK.
    pub(crate) fn jwk(&self) -> Value {
        let part = |range| URL_SAFE_NO_PAD.encode(self.point().get(range).unwrap_or_default());
        json!({"use": "sig", "kty": "EC", "kid": self.key_id(), "crv": "P-256", "alg": "ES256", "x": part(1..33), "y": part(33..65)})
    }
    pub(crate) fn key(&self) -> Key {
        Key { id: self.key_id(), body: Body::Ec(self.point().to_vec(), 32) }
    }
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.key_id()});
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&self.random, message.as_bytes()).expect("the system gives random bytes");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new(&rcgen::KeyPair::generate().unwrap().serialize_der()).unwrap()
    }

    #[test]
    fn what_was_signed_is_proven_and_nothing_else() {
        let (mine, other) = (signer(), signer());
        let token = mine.sign(&json!({"sub": "a"}));
        let prove = |token: &str, keys: &[Key]| Unproven::parse(token).unwrap().prove(keys);
        assert_eq!(prove(&token, &[other.key(), mine.key()]).unwrap(), json!({"sub": "a"}));
        assert!(prove(&token, &[other.key()]).is_err());
        assert!(prove(&token, &[]).is_err());
        // By way of its published form.
        let set = Key::set(json!({"keys": [{"kty": "oct"}, mine.jwk()]}).to_string().as_bytes()).unwrap();
        assert!(prove(&token, &set).is_ok());
        let parts: Vec<&str> = token.split('.').collect();
        let forged = |header: Value| {
            let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"b"}"#);
            format!("{}.{claims}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), parts[2])
        };
        assert!(prove(&forged(json!({"alg": "ES256", "kid": mine.key_id()})), &[mine.key()]).is_err());
        assert!(prove(&forged(json!({"alg": "none"})), &[mine.key()]).is_err());
        let empty = format!("{}.{}.", parts[0], parts[1]);
        assert!(prove(&empty, &[mine.key()]).is_err());
        assert!(Unproven::parse(&forged(json!({"alg": "ES256", "crit": ["x"]}))).is_none());
        for bad in ["", "..", "a.b.c", "a.b", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert!(Unproven::parse(bad).is_none(), "{bad}");
        }
        assert!(Key::set(b"{}").is_err() && Key::set(b"[").is_err());
    }

    #[test]
    fn times_and_audiences() {
        assert!(in_time(&json!({"exp": 1000}), 1000).is_ok());
        assert!(in_time(&json!({"exp": 1000}), 1060).is_err());
        assert!(in_time(&json!({"exp": 1000, "nbf": 900}), 800).is_err());
        assert!(in_time(&json!({"exp": i64::MAX, "nbf": i64::MIN}), 800).is_ok());
        assert!(in_time(&json!({}), 0).is_err());
        assert_eq!(audiences(&json!({"aud": "a"}), &["a", "b"]), ["a"]);
        assert_eq!(audiences(&json!({"aud": ["a", "c"]}), &["a", "b"]), ["a"]);
        assert!(audiences(&json!({}), &["a"]).is_empty());
    }

    /// Made by `openssl dgst -sha256 -sign`.
    #[test]
    fn rs256_of_openssl() {
        let n = "pSW8X4gGWNugEyXVOM-XIq-7UdQ5lF2unRFcwcjg5H5GKEUD_h733Z4QcQNMQph9CTxlKIjkZWHvGMOrWzi4GRRrGu7VImeFk9eRQ2IekeyEyU_-Rj1Ne02JlaqbzQSc2WAi_y0LvwmYFEb_MUoStLRog_pGgU0mFlxjPrCZLJUbbkvq6B3GTnWTgnvh4l96QHNWbNLJMulxyIuQ62lptlNJMasEkkaJvPa6Nt1EEuvsk5yNQZcbX_NCxSNODSjppSvC-Ba5hPl_DCIjcI-4eJ9odmdnQnPS69GuKDvF8AUh3qKEnUvpWdvhju9Dfkn7UMP3IV15XJlUE-zCAxUycw";
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UifQ.gyg4FJIZ_xf08zh1S-9ThCO_rURoZZUL-N6RtejaQXHKmerIsyNivU_3yJY0ac5JIHCUFwOG9BTu8P6kvbt9GpF7gdK60TDLSbSQYjP4XTmgAancX-RRNBhmEr3ye8WxKmHwCzrRkl6pJUV4oD2noDxYaVV54JDtdsBd2XBJU_zG8RR_aa7tWxiCsRfMoQ02YozZ5QijCz8J6WdjCvf-AROL6x_EuyyOp-u_HrsgbjOde5YB2Fh5r2mP599Qn3VSbEeUsDu6om2iPtF_hcIakGzg_zBO7AamqDnaEd9B9ldjI9MwwaI52RzRO2UF277_ImXLa7GAPRjOeD-fd5mfPA";
        let set = Key::set(json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]}).to_string().as_bytes()).unwrap();
        assert_eq!(Unproven::parse(token).unwrap().prove(&set).unwrap()["iss"], "joe");
        let forged =
            token.replacen(&URL_SAFE_NO_PAD.encode(r#"{"iss":"joe"}"#), &URL_SAFE_NO_PAD.encode(r#"{"iss":"moe"}"#), 1);
        assert!(Unproven::parse(&forged).unwrap().prove(&set).is_err());
    }
}
