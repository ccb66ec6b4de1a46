//! Encryption at rest: a store around another one that seals the values of some resources (upstream's EncryptionConfiguration).
//!
//! `<data-dir>/encryption.yaml` names resources and keys; providers `aesgcm` and `chacha20poly1305` (32-byte keys, base64) and `identity`. The first
//! key of the first provider seals, every key opens. To rotate: put a new key in front and restart: what was sealed otherwise is sealed anew at the start;
//! then the old key may go. A sealed value is `k8s:enc:<provider>:v1:<key name>:` NONCE CIPHERTEXT TAG, bound to its key in the store, so that one
//! Secret's bytes cannot be put in the place of another's.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mote_api::tree::{Value, list_at, str_at};
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    Change, Class, CommitError, Compacted, Entry, Guard, Op, Pending, Range, Reading, Revision, Store, Txn, Watcher,
};

const MARK: &[u8] = b"k8s:enc:";
/// Keys of one configuration.
const KEYS_MAX: usize = 32;
/// Values sealed anew by one commit.
const BATCH: usize = 64;

/// Whether a value needs a key to be read.
pub(crate) fn is_sealed(value: &[u8]) -> bool {
    value.starts_with(MARK)
}

struct Key {
    /// `k8s:enc:<provider>:v1:<name>:`
    head: Vec<u8>,
    cipher: LessSafeKey,
}

/// What is sealed, and by what.
pub(crate) struct Keys {
    /// `/registry/core/secrets/`
    prefixes: Vec<String>,
    keys: Vec<Key>,
    /// False: the first provider is `identity`, new values are written as they are.
    seals: bool,
    random: SystemRandom,
}

impl Keys {
    /// From a configuration file's text.
    pub(crate) fn parse(text: &str) -> Result<Keys, String> {
        let config = mote_api::yaml::parse_one(text).map_err(|e| e.to_string())?;
        let [entry] = list_at(&config, &["resources"]) else { return Err("want one entry in resources".into()) };
        let resource = |r: &Value| {
            let (plural, group) = r.as_str()?.split_once('.').unwrap_or((r.as_str()?, "core"));
            (!plural.is_empty() && plural != "*").then(|| format!("/registry/{group}/{plural}/"))
        };
        let prefixes: Option<Vec<String>> = list_at(entry, &["resources"]).iter().map(resource).collect();
        let prefixes = prefixes.filter(|p| !p.is_empty()).ok_or("resources: want names such as secrets (no *)")?;
        let (mut keys, mut seals) = (Vec::new(), true);
        for (i, provider) in list_at(entry, &["providers"]).iter().enumerate() {
            let (name, body) = provider.as_object().and_then(|p| p.iter().next()).ok_or("a provider is no map")?;
            let algorithm = match name.as_str() {
                "aesgcm" => &AES_256_GCM,
                "chacha20poly1305" => &CHACHA20_POLY1305,
                "identity" => {
                    seals &= i > 0;
                    continue;
                }
                other => {
                    return Err(format!("provider {other} is not supported: aesgcm, chacha20poly1305 or identity"));
                }
            };
            for key in list_at(body, &["keys"]) {
                let key_name = str_at(key, &["name"]);
                let secret =
                    STANDARD.decode(str_at(key, &["secret"])).map_err(|_| format!("key {key_name}: not base64"))?;
                let cipher =
                    UnboundKey::new(algorithm, &secret).map_err(|_| format!("key {key_name}: want 32 bytes"))?;
                if key_name.is_empty() || key_name.contains(':') || keys.len() >= KEYS_MAX {
                    return Err(format!("key {key_name:?}: no name, or too many keys"));
                }
                let head = [MARK, format!("{name}:v1:{key_name}:").as_bytes()].concat();
                keys.push(Key { head, cipher: LessSafeKey::new(cipher) });
            }
        }
        if keys.is_empty() {
            return Err("no keys".into());
        }
        Ok(Keys { prefixes, keys, seals, random: SystemRandom::new() })
    }
    fn concerns(&self, key: &str) -> bool {
        self.prefixes.iter().any(|p| key.starts_with(p.as_str()))
    }
    fn seal(&self, key: &str, value: &Bytes) -> Bytes {
        let Some(with) = self.keys.first().filter(|_| self.seals && self.concerns(key)) else { return value.clone() };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).expect("the system gives random bytes");
        let mut body = value.to_vec();
        let aad = Aad::from(key.as_bytes());
        let sealed = with.cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut body);
        sealed.expect("an object is shorter than what one key seals at once");
        [with.head.as_slice(), &nonce, &body].concat().into()
    }
    /// None: sealed, and no key of ours opens it.
    fn open(&self, key: &str, value: &Bytes) -> Option<Bytes> {
        if !is_sealed(value) {
            return Some(value.clone());
        }
        let (with, rest) = self.keys.iter().find_map(|k| Some((k, value.strip_prefix(k.head.as_slice())?)))?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let len = with.cipher.open_in_place(nonce, Aad::from(key.as_bytes()), &mut body).ok()?.len();
        body.truncate(len);
        Some(body.into())
    }
    fn is_current(&self, key: &str, value: &Bytes) -> bool {
        match self.keys.first().filter(|_| self.seals && self.concerns(key)) {
            Some(first) => value.starts_with(&first.head),
            None => !is_sealed(value),
        }
    }
    fn opened(&self, key: &str, entry: Entry) -> Entry {
        match self.open(key, &entry.value) {
            Some(value) => Entry { value, ..entry },
            None => {
                log::error!("{key}: no key of encryption.yaml opens it");
                entry
            }
        }
    }
}

/// Stands before a store; see the module.
pub(crate) struct Sealed {
    inner: Rc<dyn Store>,
    keys: Rc<Keys>,
}

/// `store` as the configuration wants it. Everything stored must be readable: a lost key is found at the start, not by the first who reads.
pub(crate) async fn open(store: Rc<dyn Store>, config: Option<&str>) -> Result<Rc<dyn Store>, String> {
    let keys = config.map(Keys::parse).transpose().map_err(|e| format!("encryption.yaml: {e}"))?;
    let all = store.range("/registry/", "", None, 0).await.map_err(|e| e.to_string())?;
    let Some(keys) = keys else {
        return match all.entries.iter().find(|(_, e)| is_sealed(&e.value)) {
            None => Ok(store),
            Some((key, _)) => Err(format!("{key} is encrypted, and there is no encryption.yaml with its key")),
        };
    };
    let mut stale = Vec::new();
    for (key, entry) in all.entries {
        let value = keys.open(&key, &entry.value);
        let value = value.ok_or_else(|| format!("{key} is encrypted, and no key of encryption.yaml opens it"))?;
        if !keys.is_current(&key, &entry.value) {
            stale.push((key, entry.modified, value));
        }
    }
    let sealed = Sealed { inner: store, keys: Rc::new(keys) };
    if !stale.is_empty() {
        log::info!("encryption at rest: {} values are written anew with the first key", stale.len());
    }
    for batch in stale.chunks(BATCH) {
        let txn = Txn {
            guards: batch.iter().map(|(key, at, _)| Guard::Unchanged(key.clone(), *at)).collect(),
            ops: batch.iter().map(|(key, _, value)| Op::Put(key.clone(), value.clone())).collect(),
            class: Class::Durable,
        };
        sealed.commit(txn).await.map_err(|e| format!("encrypt anew: {e}"))?;
    }
    Ok(Rc::new(sealed))
}

impl Store for Sealed {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }
    fn reach(&self, revision: Revision) -> Pending<'_, ()> {
        self.inner.reach(revision)
    }
    fn get<'a>(&'a self, key: &'a str, at: Option<Revision>) -> Reading<'a, Option<Entry>> {
        if !self.keys.concerns(key) {
            return self.inner.get(key, at);
        }
        Box::pin(async move { Ok(self.inner.get(key, at).await?.map(|e| self.keys.opened(key, e))) })
    }
    fn range<'a>(&'a self, prefix: &'a str, after: &'a str, at: Option<Revision>, limit: usize) -> Reading<'a, Range> {
        Box::pin(async move {
            let mut range = self.inner.range(prefix, after, at, limit).await?;
            for (key, entry) in &mut range.entries {
                if is_sealed(&entry.value) {
                    *entry = self.keys.opened(key, entry.clone());
                }
            }
            Ok(range)
        })
    }
    fn commit(&self, mut txn: Txn) -> Pending<'_, Result<Revision, CommitError>> {
        for op in &mut txn.ops {
            if let Op::Put(key, value) = op {
                *value = self.keys.seal(key, value);
            }
        }
        self.inner.commit(txn)
    }
    fn watch(&self, prefix: &str, from: Revision) -> Result<Watcher, Compacted> {
        let keys = self.keys.clone();
        let open = move |change: Rc<Change>| {
            if !keys.concerns(&change.key) {
                return change;
            }
            let opened = |e: &Option<Entry>| e.clone().map(|e| keys.opened(&change.key, e));
            let (value, previous) = (opened(&change.value), opened(&change.previous));
            Rc::new(Change { key: change.key.clone(), revision: change.revision, value, previous })
        };
        Ok(self.inner.watch(prefix, from)?.through(Rc::new(open)))
    }
    fn announce(&self, key: &str, value: Bytes) -> bool {
        self.inner.announce(key, value)
    }
    fn compact(&self, revision: Revision) {
        self.inner.compact(revision);
    }
    fn close(&self) -> Pending<'_, ()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(providers: &str) -> String {
        format!("kind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{providers}")
    }
    fn provider(kind: &str, name: &str, byte: u8) -> String {
        format!("  - {kind}: {{keys: [{{name: {name}, secret: {}}}]}}\n", STANDARD.encode([byte; 32]))
    }

    #[test]
    fn sealed_values_are_bound_to_their_key() {
        let value = Bytes::from_static(b"{\"metadata\":{}}");
        for kind in ["aesgcm", "chacha20poly1305"] {
            let keys = Keys::parse(&config(&provider(kind, "a", 1))).unwrap();
            let sealed = keys.seal("/registry/core/secrets/d/s", &value);
            assert!(sealed.starts_with(format!("k8s:enc:{kind}:v1:a:").as_bytes()));
            assert!(!sealed.windows(8).any(|w| w == b"metadata"));
            assert_ne!(sealed, keys.seal("/registry/core/secrets/d/s", &value), "a new nonce each time");
            assert_eq!(keys.open("/registry/core/secrets/d/s", &sealed).unwrap(), value);
            assert_eq!(keys.open("/registry/core/secrets/d/t", &sealed), None, "moved to another name");
            let mut bent = sealed.to_vec();
            *bent.last_mut().unwrap() ^= 1;
            assert_eq!(keys.open("/registry/core/secrets/d/s", &bent.into()), None);
            assert_eq!(keys.open("/registry/core/secrets/d/s", &sealed.slice(..30)), None);
            assert_eq!(keys.seal("/registry/core/configmaps/d/s", &value), value);
            let other = Keys::parse(&config(&provider(kind, "b", 1))).unwrap();
            assert_eq!(other.open("/registry/core/secrets/d/s", &sealed), None, "by name");
        }
    }

    #[test]
    fn configurations() {
        let good = provider("aesgcm", "a", 1);
        assert!(!Keys::parse(&config(&format!("  - identity: {{}}\n{good}"))).unwrap().seals);
        assert!(Keys::parse(&config(&format!("{good}  - identity: {{}}\n"))).unwrap().seals);
        for bad in [
            config("  - identity: {}\n"),
            config("  - aescbc: {}\n"),
            config(&good).replace("secrets", "'*'"),
            config(&provider("aesgcm", "a:b", 1)),
            "x".into(),
        ] {
            assert!(Keys::parse(&bad).is_err(), "{bad}");
        }
        let short = config(&good).replace(&STANDARD.encode([1; 32]), &STANDARD.encode([1; 16]));
        assert!(Keys::parse(&short).is_err_and(|e| e.contains("32 bytes")));
    }
}
