//! Whose images are taken: containers-policy.json(5), the file that podman, skopeo and CRI-O read. Of its kinds of requirements
//! `insecureAcceptAnything`, `reject` and `sigstoreSigned` with public keys are carried out; any other (GPG's `signedBy`, Fulcio) refuses the
//! images of its scope and says so: a rule that is not understood must not open the door. Pure but for reading the key files, which happens
//! when they are needed.
//!
//! ```json
//! { "default": [{"type": "reject"}],
//!   "transports": { "docker": {
//!     "registry.example": [{"type": "insecureAcceptAnything"}],
//!     "registry.example/team": [{"type": "sigstoreSigned", "keyPath": "/etc/mote/team.pub", "signedIdentity": {"type": "matchRepository"}}] }}}
//! ```

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::key::PublicKey;
use crate::limits::HOST_FILE_BYTES_MAX;
use crate::{Error, Reference};

/// A policy file, read.
#[derive(PartialEq, Debug)]
pub struct Policy {
    default: Vec<Requirement>,
    /// Scope (`""` for all of the transport) and what its images must fulfil, all of it.
    scopes: Vec<(String, Vec<Requirement>)>,
}

/// One thing an image must fulfil.
#[derive(PartialEq, Debug)]
pub enum Requirement {
    Accept,
    Reject,
    /// A cosign signature by one of these keys.
    Signed {
        keys: Vec<KeySource>,
        identity: Identity,
    },
    /// A kind we do not carry out.
    Unknown(String),
}

/// Where a key is.
#[derive(PartialEq, Debug)]
pub enum KeySource {
    Path(PathBuf),
    Pem(Vec<u8>),
}

/// How the name inside a signature must relate to the name that was asked for.
#[derive(PartialEq, Debug)]
pub enum Identity {
    /// The same repository and tag.
    MatchExact,
    /// The same; where the image was asked for by digest, the same repository.
    MatchRepoDigestOrExact,
    /// The same repository (what `cosign sign` writes has no tag).
    MatchRepository,
    ExactReference(String),
    ExactRepository(String),
    /// Below `prefix` as if it stood below `signed`.
    Remap {
        prefix: String,
        signed: String,
    },
}

impl Policy {
    /// Reads a policy; the error says where it is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Policy, String> {
        let root: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let object = root.as_object().ok_or("want an object")?;
        if let Some(other) = object.keys().find(|key| !matches!(key.as_str(), "default" | "transports")) {
            return Err(format!("unknown field {other:?}"));
        }
        let default = requirements(root.get("default").ok_or("default is missing")?, "default")?;
        let mut scopes = Vec::new();
        if let Some(transports) = root.get("transports") {
            let transports = transports.as_object().ok_or("transports is no object")?;
            let docker =
                transports.get("docker").map(|docker| docker.as_object().ok_or("transports.docker is no object"));
            for (scope, list) in docker.transpose()?.into_iter().flatten() {
                scopes.push((scope.clone(), requirements(list, &format!("transports.docker.{scope:?}"))?));
            }
        }
        Ok(Policy { default, scopes })
    }

    /// From a file, which must be there.
    pub fn load(path: &Path) -> Result<Policy, Error> {
        let bad = |why: String| Error::corrupt(format!("image policy {}", path.display()), why);
        let bytes =
            crate::file::read_bounded(path, HOST_FILE_BYTES_MAX)?.ok_or_else(|| bad("does not exist".to_owned()))?;
        Policy::parse(&bytes).map_err(bad)
    }

    /// The scope an image falls under and what is required there; the most specific counts: image, repository, its parents, host,
    /// `*.domain`, `""`, the default.
    pub fn of(&self, reference: &Reference) -> (&str, &[Requirement]) {
        let found =
            candidates(reference).into_iter().find_map(|name| self.scopes.iter().find(|(scope, _)| *scope == name));
        match found {
            Some((scope, list)) if scope.is_empty() => ("docker", list),
            Some((scope, list)) => (scope, list),
            None => ("default", &self.default),
        }
    }
}

/// Scopes of an image, the most specific first.
fn candidates(reference: &Reference) -> Vec<String> {
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    let mut names = Vec::new();
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => names.push(format!("{repository}@{digest}")),
        (None, Some(tag)) => names.push(format!("{repository}:{tag}")),
        (None, None) => {}
    }
    let mut rest = repository.as_str();
    names.push(rest.to_owned());
    while let Some((parent, _)) = rest.rsplit_once('/') {
        names.push(parent.to_owned());
        rest = parent;
    }
    let mut domain = rest;
    while let Some((_, parent)) = domain.split_once('.') {
        names.push(format!("*.{parent}"));
        domain = parent;
    }
    names.push(String::new());
    names
}

fn requirements(value: &Value, at: &str) -> Result<Vec<Requirement>, String> {
    let list =
        value.as_array().filter(|list| !list.is_empty()).ok_or_else(|| format!("{at} is no list of requirements"))?;
    list.iter().map(|entry| requirement(entry).map_err(|why| format!("{at}: {why}"))).collect()
}

fn requirement(value: &Value) -> Result<Requirement, String> {
    let kind = value.get("type").and_then(Value::as_str).ok_or("a requirement without a type")?;
    let allowed: &[&str] = match kind {
        "insecureAcceptAnything" | "reject" => &["type"],
        "sigstoreSigned" => &[
            "type",
            "keyPath",
            "keyPaths",
            "keyData",
            "keyDatas",
            "signedIdentity",
            "fulcio",
            "rekorPublicKeyPath",
            "rekorPublicKeyData",
        ],
        other => return Ok(Requirement::Unknown(other.to_owned())),
    };
    if let Some(other) =
        value.as_object().into_iter().flatten().map(|(key, _)| key).find(|key| !allowed.contains(&key.as_str()))
    {
        return Err(format!("unknown field {other:?} of {kind}"));
    }
    match kind {
        "insecureAcceptAnything" => return Ok(Requirement::Accept),
        "reject" => return Ok(Requirement::Reject),
        _ => {}
    }
    if let Some(field) =
        ["fulcio", "rekorPublicKeyPath", "rekorPublicKeyData"].iter().find(|field| value.get(**field).is_some())
    {
        return Ok(Requirement::Unknown(format!("sigstoreSigned with {field}")));
    }
    let mut keys = Vec::new();
    for path in words(value, "keyPath", "keyPaths")? {
        keys.push(KeySource::Path(path.into()));
    }
    for data in words(value, "keyData", "keyDatas")? {
        keys.push(KeySource::Pem(STANDARD.decode(data).map_err(|_| "keyData is no base64")?));
    }
    if keys.is_empty() {
        return Err("sigstoreSigned without keyPath, keyPaths, keyData or keyDatas".to_owned());
    }
    Ok(Requirement::Signed { keys, identity: identity(value.get("signedIdentity"))? })
}

/// The string of one field and the strings of the other's list.
fn words<'a>(value: &'a Value, one: &str, many: &str) -> Result<Vec<&'a str>, String> {
    let mut found = Vec::new();
    if let Some(word) = value.get(one) {
        found.push(word.as_str().ok_or_else(|| format!("{one} is no string"))?);
    }
    if let Some(list) = value.get(many) {
        for word in list.as_array().ok_or_else(|| format!("{many} is no list"))? {
            found.push(word.as_str().ok_or_else(|| format!("{many} is no list of strings"))?);
        }
    }
    Ok(found)
}

fn identity(value: Option<&Value>) -> Result<Identity, String> {
    let Some(value) = value else { return Ok(Identity::MatchRepoDigestOrExact) };
    let text = |name: &str| {
        let text = value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| format!("signedIdentity without {name}"))
    };
    Ok(match text("type")?.as_str() {
        "matchExact" => Identity::MatchExact,
        "matchRepoDigestOrExact" => Identity::MatchRepoDigestOrExact,
        "matchRepository" => Identity::MatchRepository,
        "exactReference" => Identity::ExactReference(text("dockerReference")?),
        "exactRepository" => Identity::ExactRepository(text("dockerRepository")?),
        "remapIdentity" => Identity::Remap { prefix: text("prefix")?, signed: text("signedPrefix")? },
        other => return Err(format!("unknown signedIdentity {other:?}")),
    })
}

impl KeySource {
    /// The keys there.
    pub fn keys(&self) -> Result<Vec<PublicKey>, Error> {
        match self {
            KeySource::Pem(pem) => {
                PublicKey::all_from_pem(pem).map_err(|why| Error::corrupt("key of the image policy", why))
            }
            KeySource::Path(path) => {
                let bad = |why: String| Error::corrupt(format!("public key {}", path.display()), why);
                let pem = crate::file::read_bounded(path, HOST_FILE_BYTES_MAX)?
                    .ok_or_else(|| bad("does not exist".to_owned()))?;
                PublicKey::all_from_pem(&pem).map_err(bad)
            }
        }
    }

    /// For messages.
    pub fn name(&self) -> String {
        match self {
            KeySource::Path(path) => path.display().to_string(),
            KeySource::Pem(_) => "the key in the policy".to_owned(),
        }
    }
}

impl Identity {
    /// Whether a signature for the name `signed` is one for `asked`.
    pub fn fits(&self, signed: &str, asked: &Reference) -> bool {
        let exact = |want: &str| signed_as(signed) == signed_as(want);
        let repository = |want: &str| {
            signed_as(signed).map(|(repository, _)| repository) == signed_as(want).map(|(repository, _)| repository)
        };
        let name = format!("{}/{}", asked.registry(), asked.repository());
        let tagged = |name: &str| match (asked.tag(), asked.digest()) {
            (Some(tag), None) => exact(&format!("{name}:{tag}")),
            // by digest there is no tag to compare
            (_, Some(_)) => repository(name),
            (None, None) => false,
        };
        signed_as(signed).is_some()
            && match self {
                Identity::MatchExact => asked.digest().is_none() && tagged(&name),
                Identity::MatchRepoDigestOrExact => tagged(&name),
                Identity::MatchRepository => repository(&name),
                Identity::ExactReference(want) => exact(want),
                Identity::ExactRepository(want) => repository(want),
                Identity::Remap { prefix, signed } => match name.strip_prefix(prefix.as_str()) {
                    Some(rest) if rest.is_empty() || rest.starts_with('/') => tagged(&format!("{signed}{rest}")),
                    _ => tagged(&name),
                },
            }
    }
}

/// Repository and tag of a name in a signature; a missing tag stays missing (a [`Reference`] would make it `latest`).
fn signed_as(text: &str) -> Option<(String, Option<String>)> {
    let reference: Reference = text.parse().ok()?;
    let last = text.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let tag = reference.tag().filter(|_| last.contains(':')).map(str::to_owned);
    Some((format!("{}/{}", reference.registry(), reference.repository()), tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_scope_wins() {
        let scopes = [
            "r.example/team/app:1",
            "r.example/team/app",
            "r.example/team",
            "r.example",
            "*.example",
            "docker.io/library",
            "",
            "r.example:5000",
        ];
        let list: Vec<String> = scopes.iter().map(|scope| format!("\"{scope}\":[{{\"type\":\"reject\"}}]")).collect();
        let text = format!(
            "{{\"default\":[{{\"type\":\"reject\"}}],\"transports\":{{\"docker\":{{{}}},\"dir\":{{}}}}}}",
            list.join(",")
        );
        let policy = Policy::parse(text.as_bytes()).unwrap();
        for (reference, want) in [
            ("r.example/team/app:1", "r.example/team/app:1"),
            ("r.example/team/app:2", "r.example/team/app"),
            ("r.example/team/app/sub", "r.example/team/app"),
            ("r.example/team/apple", "r.example/team"),
            ("r.example/teams/app", "r.example"),
            ("s.example/x", "*.example"),
            ("a.s.example/x", "*.example"),
            ("r.example:5000/team/app:1", "r.example:5000"),
            ("nginx", "docker.io/library"),
            ("other/x", "docker"),
        ] {
            assert_eq!(policy.of(&reference.parse().unwrap()).0, want, "{reference}");
        }
        let pinned = format!("r.example/team/app:1@sha256:{}", "0".repeat(64));
        assert_eq!(
            policy.of(&pinned.parse().unwrap()).0,
            "r.example/team/app",
            "a digest is another image than the tag"
        );
        let bare = Policy::parse(br#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        assert_eq!(bare.of(&"x".parse().unwrap()), ("default", &[Requirement::Accept][..]));
    }

    #[test]
    fn requirements_are_read() {
        let one = |json: &str| requirement(&serde_json::from_str(json).unwrap());
        assert_eq!(
            one(
                r#"{"type":"sigstoreSigned","keyPath":"/k","keyPaths":["/l"],"keyData":"QQ==","signedIdentity":{"type":"remapIdentity","prefix":"a/b","signedPrefix":"c"}}"#
            ),
            Ok(Requirement::Signed {
                keys: vec![KeySource::Path("/k".into()), KeySource::Path("/l".into()), KeySource::Pem(b"A".to_vec())],
                identity: Identity::Remap { prefix: "a/b".into(), signed: "c".into() }
            })
        );
        assert_eq!(
            one(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#),
            Ok(Requirement::Unknown("signedBy".into()))
        );
        assert_eq!(
            one(r#"{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r"}"#),
            Ok(Requirement::Unknown("sigstoreSigned with rekorPublicKeyPath".into()))
        );
        for (json, want) in [
            ("{}", "without a type"),
            (r#"{"type":"reject","x":1}"#, "unknown field \"x\""),
            (r#"{"type":"sigstoreSigned"}"#, "without keyPath"),
            (r#"{"type":"sigstoreSigned","keyPath":1}"#, "keyPath is no string"),
            (r#"{"type":"sigstoreSigned","keyPaths":[1]}"#, "list of strings"),
            (r#"{"type":"sigstoreSigned","keyData":"%"}"#, "no base64"),
            (r#"{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"guess"}}"#, "unknown signedIdentity"),
            (
                r#"{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"exactReference"}}"#,
                "without dockerReference",
            ),
        ] {
            assert!(one(json).unwrap_err().contains(want), "{json}: {:?}", one(json));
        }
        for (json, want) in [
            ("[]", "want an object"),
            ("{}", "default is missing"),
            (r#"{"default":[]}"#, "default is no list"),
            (r#"{"default":[{"type":"reject"}],"x":1}"#, "unknown field \"x\""),
            (r#"{"default":[{"type":"reject"}],"transports":{"docker":[]}}"#, "is no object"),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{}]}}}"#,
                "transports.docker.\"a\": a requirement without",
            ),
        ] {
            assert!(Policy::parse(json.as_bytes()).unwrap_err().contains(want), "{json}");
        }
    }

    #[test]
    fn names_in_signatures() {
        use Identity as I;
        let digest = format!("r.example/app@sha256:{}", "0".repeat(64));
        let remap = || I::Remap { prefix: "mirror.example/r".into(), signed: "r.example".into() };
        for (identity, signed, asked, fits) in [
            (I::MatchExact, "r.example/app:1", "r.example/app:1", true),
            (I::MatchExact, "r.example/app:2", "r.example/app:1", false),
            (I::MatchExact, "r.example/app", "r.example/app:latest", false),
            (I::MatchExact, "r.example/app:1", &digest, false),
            (I::MatchRepoDigestOrExact, "r.example/app:1", "r.example/app:1", true),
            (I::MatchRepoDigestOrExact, "r.example/app", "r.example/app:1", false),
            (I::MatchRepoDigestOrExact, "r.example/app:7", &digest, true),
            (I::MatchRepoDigestOrExact, "r.example/other:7", &digest, false),
            (I::MatchRepository, "r.example/app", "r.example/app:1", true),
            (I::MatchRepository, "r.example:80/app", "r.example/app:1", false),
            (I::MatchRepository, "r.example/apple", "r.example/app:1", false),
            (I::MatchRepository, "index.docker.io/library/nginx", "nginx", true),
            (I::ExactReference("r.example/app:1".into()), "r.example/app:1", "x.example/y:2", true),
            (I::ExactReference("r.example/app:1".into()), "r.example/app:2", "r.example/app:2", false),
            (I::ExactRepository("r.example/app".into()), "r.example/app:9", "x.example/y:2", true),
            (I::ExactRepository("r.example/app".into()), "r.example/app2:9", "x.example/y:2", false),
            (remap(), "r.example/team/x:1", "mirror.example/r/team/x:1", true),
            (remap(), "r.example/team/x:1", "mirror.example/rr/team/x:1", false),
            (remap(), "r.example/team/x:1", "r.example/team/x:1", true),
            (I::MatchRepository, "not a name", "r.example/app:1", false),
        ] {
            assert_eq!(identity.fits(signed, &asked.parse().unwrap()), fits, "{identity:?} {signed} {asked}");
        }
    }
}
