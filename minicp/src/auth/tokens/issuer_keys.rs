//! Where an issuer's keys come from: a file, or the issuer itself (OpenID Connect Discovery 1.0, section 4). Waits for disk or network: for a blocking thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mote_api::tree::{Value, str_at};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::jwt::KEYS_BYTES_MAX;

/// For one document, from the first byte sent to the last one read.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Redirects that are followed, to https alone.
const REDIRECTS_MAX: u32 = 3;

/// Where to ask.
pub(crate) enum Source {
    File(PathBuf),
    Issuer {
        url: String,
        /// "": the well-known path below the issuer's URL
        discovery: String,
        /// PEM; "": what this machine trusts
        authority: String,
    },
}

impl Source {
    /// The document with the keys.
    pub(crate) fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => {
                let failed = |e: std::io::Error| format!("read {}: {e}", path.display());
                if std::fs::metadata(path).map_err(failed)?.len() > KEYS_BYTES_MAX as u64 {
                    return Err(format!("read {}: more than {KEYS_BYTES_MAX} bytes", path.display()));
                }
                std::fs::read(path).map_err(failed)
            }
            Self::Issuer { url, discovery, authority } => {
                let agent = agent(authority)?;
                let well_known = format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'));
                let document = get(&agent, if discovery.is_empty() { &well_known } else { discovery })?;
                get(&agent, &keys_url(&document, url)?)
            }
        }
    }
}

/// What a discovery document says of its keys, if it is this issuer's. Pure.
fn keys_url(document: &[u8], issuer: &str) -> Result<String, String> {
    let document: Value = serde_json::from_slice(document).map_err(|e| format!("discovery document: {e}"))?;
    let said = str_at(&document, &["issuer"]);
    if said != issuer {
        return Err(format!("discovery document is of issuer {said:?}"));
    }
    match str_at(&document, &["jwks_uri"]) {
        keys if keys.starts_with("https://") => Ok(keys.to_owned()),
        other => Err(format!("discovery document: jwks_uri {other:?} is not an https URL")),
    }
}

fn agent(authority: &str) -> Result<Agent, String> {
    let pem = match authority {
        "" => system_anchors()?,
        pem => pem.as_bytes().to_vec(),
    };
    let roots: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).flatten().map(|c| Certificate::from_der(c.as_ref()).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .https_only(true)
        .max_redirects(REDIRECTS_MAX)
        .proxy(None)
        .tls_config(tls)
        .timeout_global(Some(FETCH_TIMEOUT))
        .build();
    Ok(config.new_agent())
}

/// The bundle of this machine: SSL_CERT_FILE, or where distributions keep it.
fn system_anchors() -> Result<Vec<u8>, String> {
    const BUNDLES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let named = std::env::var_os("SSL_CERT_FILE").filter(|v| !v.is_empty()).map(PathBuf::from);
    let mut all = named.into_iter().chain(BUNDLES.map(PathBuf::from));
    all.find_map(|path| std::fs::read(path).ok()).ok_or_else(|| {
        "no trusted certificates found: say issuer.certificateAuthority, or set SSL_CERT_FILE".to_owned()
    })
}

fn get(agent: &Agent, url: &str) -> Result<Vec<u8>, String> {
    let failed = |e: ureq::Error| format!("get {url}: {e}");
    let mut answer = agent.get(url).call().map_err(failed)?;
    answer.body_mut().with_config().limit(KEYS_BYTES_MAX as u64).read_to_vec().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A TLS server that answers each path of the list once; its address and CA.
    fn issuer(pages: impl Fn(&str) -> Vec<(String, String)>) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let pages = pages(&url);
        std::thread::spawn(move || {
            for (path, page) in pages {
                let Ok((tcp, _)) = listener.accept() else { return };
                let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), tcp);
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && tls.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                }
                let asked = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
                let status = if asked == path { "200 OK" } else { "404 Not Found" };
                let _ = write!(
                    tls,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                    page.len()
                );
                let _ = tls.flush();
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        });
        (url, cert.pem())
    }

    #[test]
    fn keys_are_found_from_the_issuers_url() {
        let document = |url: &str| format!("{{\"issuer\": \"{url}\", \"jwks_uri\": \"{url}/keys\"}}");
        let pages = |url: &str| {
            vec![("/.well-known/openid-configuration".into(), document(url)), ("/keys".into(), "{\"keys\": []}".into())]
        };
        let (url, ca) = issuer(pages);
        let source = |url: &str, authority: &str| Source::Issuer {
            url: url.into(),
            discovery: String::new(),
            authority: authority.into(),
        };
        assert_eq!(source(&url, &ca).read().unwrap(), b"{\"keys\": []}");
        // Somebody else's certificate proves nothing.
        let (url, _) = issuer(pages);
        assert!(source(&url, &ca).read().unwrap_err().contains("get https://"));
        // More than is read.
        let (url, ca) = issuer(|url| {
            vec![
                ("/.well-known/openid-configuration".into(), document(url)),
                ("/keys".into(), "x".repeat(KEYS_BYTES_MAX + 1)),
            ]
        });
        assert!(source(&url, &ca).read().is_err());
        let (url, ca) = issuer(|url| vec![("/elsewhere".into(), document(url))]);
        assert!(source(&url, &ca).read().unwrap_err().contains("404"));
    }

    #[test]
    fn documents() {
        for (document, want) in [
            (r#"{"issuer": "https://a", "jwks_uri": "https://a/k"}"#, Some("https://a/k")),
            (r#"{"issuer": "https://b", "jwks_uri": "https://a/k"}"#, None),
            (r#"{"issuer": "https://a", "jwks_uri": "http://a/k"}"#, None),
            (r#"{"issuer": "https://a"}"#, None),
            ("<html>", None),
        ] {
            assert_eq!(keys_url(document.as_bytes(), "https://a").ok().as_deref(), want, "{document}");
        }
    }
}
