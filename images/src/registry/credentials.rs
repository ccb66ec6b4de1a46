//! Who we are: given by the caller, or taken from a docker `config.json` (`auths`; credential helpers are not run).

use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Credentials;
use crate::limits::HOST_FILE_BYTES_MAX;
use crate::{Error, Reference};

impl Credentials {
    /// From the bytes of a docker `config.json` or of a `kubernetes.io/dockerconfigjson` secret, the most specific entry for this
    /// reference: `host/path` before `host`, `https://index.docker.io/v1/` for Docker Hub.
    pub fn from_docker_config(json: &[u8], reference: &Reference) -> Result<Option<Credentials>, Error> {
        let bad = |why: String| Error::corrupt("docker configuration", why);
        let root: Value = serde_json::from_slice(json).map_err(|e| bad(e.to_string()))?;
        // an old `.dockercfg` has the entries at the top
        let Some(auths) = root.get("auths").or(Some(&root)).and_then(Value::as_object) else {
            return Err(bad("auths is no object".to_owned()));
        };
        let mut best: Option<(usize, &Value)> = None;
        for (key, value) in auths {
            if let Some(score) = matches(key, reference)
                && best.is_none_or(|(known, _)| score > known)
            {
                best = Some((score, value));
            }
        }
        best.map_or(Ok(None), |(_, value)| read(value).map_err(bad))
    }

    /// The same from a file; a missing file means no credentials.
    pub fn from_docker_config_file(path: &Path, reference: &Reference) -> Result<Option<Credentials>, Error> {
        let mut json = Vec::new();
        match std::fs::File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", path, e)),
            Ok(file) => {
                file.take(HOST_FILE_BYTES_MAX).read_to_end(&mut json).map_err(|e| Error::io("read", path, e))?
            }
        };
        Credentials::from_docker_config(&json, reference)
    }
}

/// How specific an entry's key is for a reference; `None` where it is for something else.
fn matches(key: &str, reference: &Reference) -> Option<usize> {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let key = key.trim_end_matches("/v1").trim_end_matches("/v2");
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    if !host.eq_ignore_ascii_case(reference.registry()) {
        return None;
    }
    let covered = path.is_empty()
        || reference.repository().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    covered.then_some(1 + path.len())
}

fn read(value: &Value) -> Result<Option<Credentials>, String> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let token = Some(text("identitytoken")).filter(|token| !token.is_empty());
    let mut credentials = Credentials { username: text("username"), password: text("password"), identity_token: token };
    let auth = text("auth");
    if !auth.is_empty() {
        let plain = STANDARD.decode(auth.trim()).map_err(|_| "auth is no base64")?;
        let plain = String::from_utf8(plain).map_err(|_| "auth is no text")?;
        let (user, password) = plain.split_once(':').ok_or("auth is not user:password")?;
        (credentials.username, credentials.password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
    }
    let empty = credentials.username.is_empty() && credentials.identity_token.is_none();
    Ok((!empty).then_some(credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_wins() {
        let json = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"},"r.example":{"username":"host","password":"p"},
            "r.example/team":{"auth":"dGVhbTpwOnE="},"t.example":{"identitytoken":"T"},"e.example":{}}}"#;
        for (reference, want) in [
            ("nginx", Some(("hub", "pw"))),
            ("r.example/x", Some(("host", "p"))),
            ("r.example/team/x", Some(("team", "p:q"))),
            ("r.example/teams/x", Some(("host", "p"))),
            ("r.example:5000/x", None),
            ("e.example/x", None),
            ("t.example/x", Some(("", ""))),
        ] {
            let got = Credentials::from_docker_config(json, &reference.parse().unwrap()).unwrap();
            assert_eq!(got.as_ref().map(|c| (c.username.as_str(), c.password.as_str())), want, "{reference}");
        }
        for bad in ["", "[]", "{\"auths\":{\"a.b\":{\"auth\":\"%\"}}}", "{\"auths\":{\"a.b\":{\"auth\":\"eA==\"}}}"] {
            assert!(Credentials::from_docker_config(bad.as_bytes(), &"a.b/c".parse().unwrap()).is_err(), "{bad}");
        }
    }
}
