//! Where etcd is, and how to be let in. The options have the names of kube-apiserver's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

/// Members that may be named.
const SERVERS_MAX: usize = 64;

/// An etcd to keep the state in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdConfig {
    /// `http[s]://HOST:PORT`, in the order they are tried.
    pub servers: Vec<String>,
    /// Certificates (PEM) that members of `https` are judged by.
    pub ca_file: Option<PathBuf>,
    /// What we show them (PEM), if they ask.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Stands in front of every key: `/registry`.
    pub prefix: String,
    /// How long a start waits for the first answer.
    pub patience: Duration,
    /// How long an Event lives.
    pub event_ttl: Duration,
    /// Between two compactions; None: somebody else sees to that.
    pub compact_every: Option<Duration>,
}

impl EtcdConfig {
    pub fn new(servers: Vec<String>) -> EtcdConfig {
        EtcdConfig {
            servers,
            ca_file: None,
            cert_file: None,
            key_file: None,
            prefix: "/registry".into(),
            patience: Duration::from_secs(30),
            event_ttl: Duration::from_secs(3600),
            compact_every: Some(Duration::from_secs(300)),
        }
    }
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Address {
    pub https: bool,
    /// Name or address, without brackets.
    pub host: String,
    pub port: u16,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Address, String> {
        let bad = || format!("{url:?} is no http[s]://HOST:PORT");
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(bad)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bracketed.or((!host.contains(':')).then_some(host)).ok_or_else(bad)?;
        if host.is_empty() || host.contains(['/', '@', '[', ']']) {
            return Err(bad());
        }
        Ok(Address { https, host: host.into(), port: port.parse().map_err(|_| bad())? })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{host}:{}", self.port)
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))
}

/// The members and the TLS to reach them by; checked as far as that can be done without asking.
pub(super) fn check(config: &EtcdConfig) -> Result<(Vec<Address>, Option<Arc<ClientConfig>>), String> {
    let members: Vec<Address> = config.servers.iter().map(|s| Address::parse(s)).collect::<Result<_, _>>()?;
    if members.is_empty() || members.len() > SERVERS_MAX {
        return Err(format!("--etcd-servers: want 1 to {SERVERS_MAX}"));
    }
    let prefix = &config.prefix;
    if !prefix.starts_with('/') || prefix.len() < 2 || prefix.ends_with('/') {
        return Err(format!("--etcd-prefix {prefix:?}: want something like /registry"));
    }
    if !members.iter().any(|m| m.https) {
        return match (&config.ca_file, &config.cert_file, &config.key_file) {
            (None, None, None) => Ok((members, None)),
            _ => Err("--etcd-cafile, --etcd-certfile and --etcd-keyfile are for https://".into()),
        };
    }
    let ca = config.ca_file.as_ref().ok_or("--etcd-cafile is needed for https://")?;
    let identity = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
        (None, None) => None,
        _ => return Err("--etcd-certfile and --etcd-keyfile go together".into()),
    };
    let identity = identity.as_ref().map(|(cert, key)| (cert.as_str(), key.as_str()));
    let tls = crate::pki::tls::outgoing(&read(ca)?, identity).map_err(|e| e.to_string())?;
    Ok((members, Some(tls)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (url, want) in [
            ("http://127.0.0.1:2379", Some("127.0.0.1:2379")),
            ("https://[::1]:2379/", Some("[::1]:2379")),
            ("https://etcd-0.lan:2379", Some("etcd-0.lan:2379")),
            ("127.0.0.1:2379", None),
            ("ftp://a:1", None),
            ("http://a", None),
            ("http://::1:2379", None),
            ("http://a:99999", None),
            ("http://u@a:1", None),
            ("http://:1", None),
        ] {
            assert_eq!(Address::parse(url).ok().map(|a| a.to_string()).as_deref(), want, "{url}");
        }
    }

    #[test]
    fn options_go_together() {
        let plain = EtcdConfig::new(vec!["http://a:1".into()]);
        assert!(check(&plain).is_ok());
        let why = |change: fn(&mut EtcdConfig)| {
            let mut config = plain.clone();
            change(&mut config);
            check(&config).err().unwrap_or_default()
        };
        assert!(why(|c| c.servers.clear()).contains("--etcd-servers"));
        assert!(why(|c| c.prefix = "registry".into()).contains("--etcd-prefix"));
        assert!(why(|c| c.ca_file = Some("x".into())).contains("for https"));
        assert!(why(|c| c.servers = vec!["https://a:1".into()]).contains("--etcd-cafile is needed"));
        let half = |c: &mut EtcdConfig| {
            c.servers = vec!["https://a:1".into()];
            (c.ca_file, c.key_file) = (Some("x".into()), Some("y".into()));
        };
        assert!(why(half).contains("go together"));
    }
}
