//! The HTTP client below the registry protocol: agents, trust anchors, proxies, errors in words. No protocol decisions here.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy, SendBody};

use super::hosts::ClientPem;
use super::proxy;
use super::url::Url;
use crate::Error;
use crate::dns::Stub;

const CONNECT: Duration = Duration::from_secs(30);
/// A mirror is given up on earlier: there is someone else to ask.
const CONNECT_MIRROR: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);
/// Without a single byte for so long a transfer counts as broken.
const STALL: Duration = Duration::from_secs(60);
const BUFFER_BYTES: usize = 32 << 10;
/// Files of a folder of trust anchors that are read.
const ANCHOR_FILES_MAX: usize = 2048;

/// An answer with its head read and its body not.
pub type Response = ureq::http::Response<Body>;

/// A request body that can be sent again.
pub enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// Opens the content anew for every attempt; the length is known.
    Stream {
        open: &'a dyn Fn() -> Result<Box<dyn Read + 'a>, Error>,
        length: u64,
    },
}

/// How TLS is done with one registry.
#[derive(Default)]
pub struct Trust {
    /// Trust anchors beside the system's, PEM.
    pub ca_pem: Vec<u8>,
    /// The first is used, and shown to the registry's own host only.
    pub client: Vec<ClientPem>,
    /// Certificates are not looked at (only where a `hosts.toml` says so).
    pub skip_verify: bool,
    pub mirror: bool,
}

/// Agents, made when first needed: over TLS or not, through which proxy, with our certificate or without.
pub struct Http {
    agents: Mutex<Vec<(AgentKey, Agent)>>,
    trust: Trust,
}

#[derive(PartialEq, Eq)]
struct AgentKey {
    https: bool,
    proxy: Option<String>,
    own_host: bool,
}

impl Http {
    pub fn new(trust: Trust) -> Http {
        Http { agents: Mutex::default(), trust }
    }

    fn agent(&self, url: &Url, own_host: bool) -> Result<Agent, Error> {
        let proxy = proxy::choose(url, &|name| std::env::var(name).ok());
        let key = AgentKey { https: url.https, proxy, own_host };
        let mut agents = self.agents.lock().map_err(|_| Error::Cancelled)?; // poisoned: another thread of this pull panicked
        if let Some((_, agent)) = agents.iter().find(|(known, _)| *known == key) {
            return Ok(agent.clone());
        }
        let agent = self.build(&key)?;
        agents.push((key, agent.clone()));
        Ok(agent)
    }

    fn build(&self, key: &AgentKey) -> Result<Agent, Error> {
        let (roots, client) = match key.https {
            true => (self.roots(), if key.own_host { self.client()? } else { None }),
            false => (Vec::new(), None),
        };
        let proxy = match &key.proxy {
            // the text may hold a password: it is not repeated
            Some(text) => {
                Some(Proxy::new(text).map_err(|e| Error::refused("proxy of the environment", e.to_string()))?)
            }
            None => None,
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .client_cert(client)
            .disable_verification(self.trust.skip_verify)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .tls_config(tls)
            .user_agent(concat!("mote/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(if self.trust.mirror { CONNECT_MIRROR } else { CONNECT }))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(STALL))
            .timeout_per_write(Some(STALL))
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .build();
        Ok(Agent::with_parts(config, DefaultConnector::default(), Stub))
    }

    fn client(&self) -> Result<Option<ClientCert>, Error> {
        let Some((certificates, key)) = self.trust.client.first() else { return Ok(None) };
        let bad = |why: &str| Error::refused("client certificate", why);
        let chain: Vec<Certificate<'static>> = CertificateDer::pem_slice_iter(certificates)
            .flatten()
            .map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned())
            .collect();
        if chain.is_empty() {
            return Err(bad("its file holds no PEM certificate"));
        }
        let key = PrivateKey::from_pem(key).map_err(|_| bad("its key file holds no PEM private key"))?;
        Ok(Some(ClientCert::new_with_certs(&chain, key)))
    }

    /// The system's trust anchors, and what was configured. Without any, every certificate is refused.
    fn roots(&self) -> Vec<Certificate<'static>> {
        let mut roots = Vec::new();
        for pem in system_anchors().iter().chain([&self.trust.ca_pem]) {
            let certificates = CertificateDer::pem_slice_iter(pem).flatten();
            roots.extend(certificates.map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()));
        }
        if roots.is_empty() && !self.trust.skip_verify {
            log::warn!("no trusted certificates found: set SSL_CERT_FILE or install ca-certificates");
        }
        roots
    }

    /// Sends one request, follows nothing. `own_host`: the client certificate may be shown.
    pub fn send(
        &self,
        method: &str,
        url: &Url,
        headers: &[(&str, String)],
        payload: &Payload<'_>,
        own_host: bool,
    ) -> Result<Response, Error> {
        let what = || format!("{method} {}", without_query(url));
        let mut request = ureq::http::Request::builder().method(method).uri(url.to_string());
        for (name, value) in headers {
            request = request.header(*name, value.as_str());
        }
        let built = |e: ureq::http::Error| Error::Network { what: what(), why: e.to_string(), retryable: false };
        let agent = self.agent(url, own_host)?;
        let done = match payload {
            Payload::None => agent.run(request.body(()).map_err(built)?),
            Payload::Bytes(bytes) => agent.run(request.body(*bytes).map_err(built)?),
            Payload::Stream { open, length } => {
                let request = request.header("content-length", length.to_string());
                let mut content = open()?;
                agent.run(request.body(SendBody::from_reader(&mut content)).map_err(built)?)
            }
        };
        done.map_err(|e| network_error(what(), &e))
    }
}

/// PEM files of the system: SSL_CERT_FILE and SSL_CERT_DIR where they are set (and nothing else then), else the distribution's bundle,
/// else the folder of single certificates. The same order as OpenSSL's and Go's.
fn system_anchors() -> Vec<Vec<u8>> {
    const BUNDLES: [&str; 5] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (file, dir) = (named("SSL_CERT_FILE"), named("SSL_CERT_DIR"));
    let mut found = Vec::new();
    match &file {
        Some(path) => match std::fs::read(path) {
            Ok(bytes) => found.push(bytes),
            Err(e) => log::warn!("SSL_CERT_FILE: read {}: {e}", path.display()),
        },
        None if dir.is_none() => found.extend(BUNDLES.iter().find_map(|path| std::fs::read(path).ok())),
        None => {}
    }
    match &dir {
        Some(dirs) => dirs.to_string_lossy().split(':').for_each(|dir| from_folder(Path::new(dir), &mut found)),
        None if found.is_empty() && file.is_none() => from_folder(Path::new("/etc/ssl/certs"), &mut found),
        None => {}
    }
    found
}

fn from_folder(dir: &Path, found: &mut Vec<Vec<u8>>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    found.extend(files.take(ANCHOR_FILES_MAX).filter_map(|path| std::fs::read(path).ok()));
}

/// Queries of redirects carry signatures: they do not belong into messages.
pub fn without_query(url: &Url) -> String {
    let text = url.to_string();
    text.split('?').next().unwrap_or_default().to_owned()
}

fn network_error(what: String, e: &ureq::Error) -> Error {
    use ureq::Error as U;
    let (why, retryable) = match e {
        U::HostNotFound => ("no such host".to_owned(), true),
        U::Timeout(_) => (format!("timed out: {e}"), true),
        U::ConnectionFailed => ("connection failed".to_owned(), true),
        U::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => (tls_words(tls), false),
            None => (io.to_string(), true),
        },
        U::Rustls(tls) => (tls_words(tls), false),
        U::BadUri(_) | U::Http(_) | U::Tls(_) | U::InvalidProxyUrl => (e.to_string(), false),
        other => (other.to_string(), true),
    };
    Error::Network { what, why, retryable }
}

/// What answers is no TLS at all.
pub const NO_TLS: &str = "the registry does not speak TLS";

/// TLS alerts in the words of someone who has to mend it.
fn tls_words(e: &rustls::Error) -> String {
    use rustls::CertificateError as C;
    let hint = match e {
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "the registry's certificate is signed by an unknown authority; give its CA by --ca or a certs.d folder"
        }
        rustls::Error::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => "the registry's certificate is not valid now; is this machine's clock right?",
        rustls::Error::InvalidCertificate(C::Other(why)) if why.to_string().contains("CaUsedAsEndEntity") => {
            "the registry's certificate is an authority's own; have one signed by it, or set skip_verify in a hosts.toml"
        }
        rustls::Error::InvalidMessage(_) => return NO_TLS.to_owned(),
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "the registry's certificate is for another name"
        }
        rustls::Error::AlertReceived(
            rustls::AlertDescription::CertificateRequired | rustls::AlertDescription::BadCertificate,
        ) => "the registry wants a client certificate",
        _ => return format!("TLS: {e}"),
    };
    format!("TLS: {hint} ({e})")
}
