//! Who we are: given by the caller, or taken from a docker `config.json` (`credHelpers`, `credsStore`, `auths`), or from the bytes of a
//! `kubernetes.io/dockerconfigjson` secret (`auths` only: a secret must not name programs). Which entry is for which image follows the
//! kubelet (kubernetes.io, "Images", "Interpretation of config.json"): hosts with `*` per label, ports, path prefixes; several may fit.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Credentials, helper};
use crate::limits::HOST_FILE_BYTES_MAX;
use crate::reference::DEFAULT_REGISTRY;
use crate::{Error, Reference};

/// Docker's name of Docker Hub in configurations and to helpers.
const HUB: &str = "https://index.docker.io/v1/";

impl Credentials {
    /// From the bytes of a docker `config.json`, of a `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg` secret: all entries
    /// for this reference, the most specific first. A puller tries one after the other, as the kubelet does.
    pub fn all_from_docker_config(json: &[u8], reference: &Reference) -> Result<Vec<Credentials>, Error> {
        from_auths(&document(json)?, reference.registry(), reference.repository())
    }

    /// The most specific of [`Credentials::all_from_docker_config`].
    pub fn from_docker_config(json: &[u8], reference: &Reference) -> Result<Option<Credentials>, Error> {
        Ok(Credentials::all_from_docker_config(json, reference)?.into_iter().next())
    }

    /// From a docker configuration file, credential helpers included; a missing file means no credentials. `host` as in a reference.
    pub(super) fn from_docker_config_file(
        path: &Path,
        host: &str,
        repository: &str,
    ) -> Result<Option<Credentials>, Error> {
        let mut json = Vec::new();
        match std::fs::File::open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", path, e)),
            Ok(file) => {
                file.take(HOST_FILE_BYTES_MAX).read_to_end(&mut json).map_err(|e| Error::io("read", path, e))?
            }
        };
        let root = document(&json)?;
        if let Some(name) = helper_for(&root, host) {
            let server = if host == DEFAULT_REGISTRY { HUB } else { host };
            match helper::get(name, server) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                // A desktop's helper in a server's configuration must not keep public images away.
                Err(why) => log::warn!("credential helper docker-credential-{name}: {why}; going on without"),
            }
        }
        Ok(from_auths(&root, host, repository)?.into_iter().next())
    }
}

/// `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; whether it exists is seen when it is needed.
pub(super) fn of_user(env: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))?;
    Some(folder.join("config.json"))
}

fn document(json: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(json).map_err(|e| Error::corrupt("docker configuration", e.to_string()))
}

/// The helper of this host: its own, else the one for all.
fn helper_for<'a>(root: &'a Value, host: &str) -> Option<&'a str> {
    let own = root
        .get("credHelpers")
        .and_then(Value::as_object)
        .and_then(|helpers| helpers.iter().find(|(key, _)| fit(key, host, "").is_some()).map(|(_, name)| name));
    own.or_else(|| root.get("credsStore")).and_then(Value::as_str).filter(|name| !name.is_empty())
}

fn from_auths(root: &Value, host: &str, repository: &str) -> Result<Vec<Credentials>, Error> {
    let bad = |why: String| Error::corrupt("docker configuration", why);
    // an old `.dockercfg` has the entries at the top
    let Some(auths) = root.get("auths").or(Some(root)).and_then(Value::as_object) else {
        return Err(bad("auths is no object".to_owned()));
    };
    let mut fitting: Vec<(Fit, &Value)> =
        auths.iter().rev().filter_map(|(key, value)| Some((fit(key, host, repository)?, value))).collect();
    fitting.sort_by_key(|(fit, _)| Reverse(*fit)); // of equals the last by name, as the kubelet
    let mut found: Vec<Credentials> = Vec::new();
    for (_, value) in fitting {
        match read(value).map_err(bad)? {
            Some(credentials) if !found.contains(&credentials) => found.push(credentials),
            _ => {}
        }
    }
    Ok(found)
}

/// How specific an entry is: no wildcard, a path that ends with a component, the path's length.
type Fit = (bool, bool, usize);

/// How well an entry's key fits an image; `None` where it is for something else.
fn fit(key: &str, host: &str, repository: &str) -> Option<Fit> {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let (of, path) = key.split_once('/').unwrap_or((key, ""));
    let path = ["v1", "v2"]
        .iter()
        .find_map(|version| path.strip_prefix(version).filter(|rest| rest.is_empty() || rest.starts_with('/')))
        .unwrap_or(path);
    let path = path.trim_matches('/');
    let of = match of {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        of => of,
    };
    let (of, host) = (of.to_ascii_lowercase(), host.to_ascii_lowercase());
    if of.is_empty() || !host_fits(&of, &host) {
        return None;
    }
    let rest = repository.strip_prefix(path)?;
    Some((of == host, path.is_empty() || rest.is_empty() || rest.starts_with('/'), path.len()))
}

/// Label by label, `*` and `?` within one; ports must be equal.
fn host_fits(pattern: &str, host: &str) -> bool {
    if pattern == host {
        return true;
    }
    let port = |text: &str| text.rsplit_once(':').map_or("", |(_, port)| port).to_owned();
    let labels =
        |text: &str| text.split(':').next().unwrap_or_default().split('.').map(str::to_owned).collect::<Vec<_>>();
    let (patterns, names) = (labels(pattern), labels(host));
    port(pattern) == port(host)
        && !host.starts_with('[')
        && patterns.len() == names.len()
        && patterns.iter().zip(&names).all(|(pattern, name)| glob(pattern.as_bytes(), name.as_bytes()))
}

fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| glob(rest, name.get(skip..).unwrap_or_default())),
        (Some((b'?', rest)), Some((_, name))) => glob(rest, name),
        (Some((p, rest)), Some((n, name))) => p == n && glob(rest, name),
        _ => false,
    }
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

    #[test]
    fn all_that_fit_come_in_the_kubelets_order() {
        let entry = |name: &str| format!("{{\"username\":\"{name}\",\"password\":\"x\"}}");
        let keys = [
            "*.example",
            "r.example",
            "r.example/team",
            "https://r.example/v2/team/app",
            "r.example:5000",
            "*.*.example",
            "r?.example",
            "other",
        ];
        let auths: Vec<String> = keys.iter().map(|key| format!("\"{key}\":{}", entry(key))).collect();
        for json in [format!("{{\"auths\":{{{}}}}}", auths.join(",")), format!("{{{}}}", auths.join(","))] {
            let names = |reference: &str| -> Vec<String> {
                let all = Credentials::all_from_docker_config(json.as_bytes(), &reference.parse().unwrap()).unwrap();
                all.into_iter().map(|credentials| credentials.username).collect()
            };
            assert_eq!(
                names("r.example/team/app:1"),
                ["https://r.example/v2/team/app", "r.example/team", "r.example", "*.example"]
            );
            assert_eq!(names("r.example/teams/x"), ["r.example", "r.example/team", "*.example"]);
            assert_eq!(names("r.example:5000/x"), ["r.example:5000"]);
            assert_eq!(names("r1.example/x"), ["r?.example", "*.example"]);
            assert_eq!(names("a.b.example/x"), ["*.*.example"]);
            assert!(
                names("a.b.c.example/x").is_empty() && names("[::1]:5000/x").is_empty() && names("nginx").is_empty()
            );
        }
    }

    #[test]
    fn the_helper_of_the_host_goes_before_the_one_for_all() {
        let root = serde_json::json!({"credHelpers": {"r.example": "own", "https://index.docker.io/v1/": "hub"}, "credsStore": "all"});
        for (host, want) in [("r.example", "own"), ("docker.io", "hub"), ("x.example", "all")] {
            assert_eq!(helper_for(&root, host), Some(want), "{host}");
        }
        assert_eq!(helper_for(&serde_json::json!({"credsStore": ""}), "x"), None);
    }

    #[test]
    fn the_users_configuration_is_found() {
        for (env, want) in [
            (vec![("DOCKER_CONFIG", "/d"), ("HOME", "/h")], Some("/d/config.json")),
            (vec![("DOCKER_CONFIG", ""), ("HOME", "/h")], Some("/h/.docker/config.json")),
            (vec![], None),
        ] {
            let get = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(*value));
            assert_eq!(of_user(&get), want.map(PathBuf::from));
        }
    }
}
