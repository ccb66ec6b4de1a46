//! Image references as Docker writes them: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`. The first component is a host when it contains a dot
//! or a colon or is `localhost`; otherwise the image is Docker Hub's, and one without a folder is `library/`'s.
//! Grammar and lengths: distribution/reference and the OCI distribution specification ("Pulling manifests").

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::digest::Digest;

/// Host of references that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const REFERENCE_BYTES_MAX: usize = 1024;
const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// A checked reference. Equal references name the same thing; `nginx` and `docker.io/library/nginx:latest` are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// `host`, `host:port` or `[ipv6]:port`, as written (`docker.io` where nothing was).
    pub fn registry(&self) -> &str {
        &self.registry
    }
    /// The path below the registry, `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }
    /// The tag; `None` only where a digest stands alone.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    /// The digest, if the reference is pinned to one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
    /// What to ask the registry for below `/manifests/`: the digest before the tag.
    pub fn manifest_selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
    /// The same repository at this digest, without a tag.
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }
    /// The shortest way to write it: `nginx:latest` for `docker.io/library/nginx:latest`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => match rest.strip_prefix("library/") {
                // "library/a/b" must keep its prefix only where the short form would mean something else
                Some(name) if !name.split(['@', ':']).next().unwrap_or("").contains('/') => name.to_owned(),
                // and a folder that looks like a registry's name would be taken for one
                _ if rest.split_once('/').is_some_and(|(folder, _)| !looks_like_host(folder)) => rest.to_owned(),
                _ => full,
            },
            None => full,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        let bad = |why| Error::BadReference { text: text.chars().take(200).collect(), why };
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(bad("longer than 1024 bytes"));
        }
        if text.is_empty() {
            return Err(bad("empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse::<Digest>()
                        .map_err(|_| bad("the digest must be sha256: and 64 lower-case hex digits"))?,
                ),
            ),
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if looks_like_host(first) => {
                (normal_host(first).ok_or_else(|| bad("invalid registry host or port"))?, path)
            }
            _ => (DEFAULT_REGISTRY.to_owned(), rest),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag is up to 128 letters, digits, '_', '.', '-', and starts with none of the last two"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad("repository name must be lowercase"));
        }
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if repository.len() > REPOSITORY_BYTES_MAX || !repository.split('/').all(is_path_component) {
            return Err(bad("a repository is lower-case letters and digits, joined by '.', '_', '__', '-' or '/'"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Reference { registry, repository, tag, digest })
    }
}

fn looks_like_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn normal_host(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, after) = rest.split_once(']')?;
            inner.parse::<std::net::Ipv6Addr>().ok()?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':')?),
            };
            (format!("[{inner}]"), port)
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            let label = |l: &str| {
                !l.is_empty()
                    && l.len() <= 63
                    && !l.starts_with('-')
                    && !l.ends_with('-')
                    && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            };
            if host.len() > 253 || !host.split('.').all(label) {
                return None;
            }
            (host.to_owned(), port)
        }
    };
    let host = match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DEFAULT_REGISTRY.to_owned(),
        host => host.to_owned(),
    };
    match port {
        None => Some(host),
        Some(port) if !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) => {
            port.parse::<u16>().ok().filter(|number| *number != 0).map(|_| format!("{host}:{port}"))
        }
        Some(_) => None,
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lower-case letters and digits in runs, joined by one '.', one or two '_', or any number of '-'.
fn is_path_component(part: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().is_some_and(alnum) || !bytes.last().is_some_and(alnum) {
        return false;
    }
    bytes.split(alnum).all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_and_full_forms() {
        let d = format!("sha256:{HEX}");
        for (text, full, familiar) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned(), "nginx:latest".to_owned()),
            ("nginx:1.2", "docker.io/library/nginx:1.2".into(), "nginx:1.2".into()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".into(), "nginx:latest".into()),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest".into(), "nginx:latest".into()),
            ("bitnami/redis", "docker.io/bitnami/redis:latest".into(), "bitnami/redis:latest".into()),
            ("localhost/x", "localhost/x:latest".into(), "localhost/x:latest".into()),
            ("docker.io/a.b/x", "docker.io/a.b/x:latest".into(), "docker.io/a.b/x:latest".into()),
            ("docker.io/localhost/x", "docker.io/localhost/x:latest".into(), "docker.io/localhost/x:latest".into()),
            ("localhost:5000/x/y:t", "localhost:5000/x/y:t".into(), "localhost:5000/x/y:t".into()),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest".into(), "127.0.0.1:5000/x:latest".into()),
            ("[::1]:5000/x:1", "[::1]:5000/x:1".into(), "[::1]:5000/x:1".into()),
            ("Registry.Example/x", "registry.example/x:latest".into(), "registry.example/x:latest".into()),
            ("a.b/c__d/e-f---g.h_i", "a.b/c__d/e-f---g.h_i:latest".into(), "a.b/c__d/e-f---g.h_i:latest".into()),
            (&format!("nginx@{d}"), format!("docker.io/library/nginx@{d}"), format!("nginx@{d}")),
            (&format!("nginx:1@{d}"), format!("docker.io/library/nginx:1@{d}"), format!("nginx:1@{d}")),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(full.parse::<Reference>().unwrap(), reference);
            assert_eq!(familiar.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn a_digest_goes_before_the_tag() {
        let reference: Reference = format!("nginx:1@sha256:{HEX}").parse().unwrap();
        assert_eq!(reference.manifest_selector(), format!("sha256:{HEX}"));
        assert_eq!("nginx:1".parse::<Reference>().unwrap().manifest_selector(), "1");
    }

    #[test]
    fn nonsense_is_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            "/",
            "nginx:",
            "nginx@",
            "Nginx",
            "A/0",
            "library/Nginx",
            "a//b",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "nginx:-x",
            "nginx:.x",
            "nginx:a b",
            "host:70000/x",
            "host:0/x",
            "host:x/y",
            "[::g]:5000/x",
            "[::1]5000/x",
            "[::1]/",
            "ex_ample.com/x",
            "a b",
            "nginx@sha256:12",
            "../etc",
            "a/../b",
            "http://x/y",
            &long,
            "x:80/",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_parses_prints_as_itself(text in "[a-zA-Z0-9._:/@\\[\\]-]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                proptest::prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
                proptest::prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
