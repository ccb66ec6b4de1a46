//! The HTTP client below the registry protocol: agents, trust anchors, proxies, errors in words. No protocol decisions here.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy, SendBody};

use super::url::{Url, is_loopback};
use crate::Error;
use crate::dns::Stub;

const CONNECT: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(60);
/// Without a single byte for so long a transfer counts as broken.
const STALL: Duration = Duration::from_secs(60);
const BUFFER_BYTES: usize = 32 << 10;

/// An answer with its head read and its body not.
pub type Response = ureq::http::Response<Body>;

/// A request body that can be sent again.
pub enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// Opens the content anew for every attempt; the length is known.
    Stream {
        open: &'a dyn Fn() -> Result<Box<dyn Read>, Error>,
        length: u64,
    },
}

/// Agents, made when first needed: over TLS or not, through the environment's proxy or not.
pub struct Http {
    agents: [OnceLock<Agent>; 4],
    ca_pem: Vec<u8>,
}

impl Http {
    /// `ca_pem`: trust anchors beside the system's.
    pub fn new(ca_pem: Vec<u8>) -> Http {
        Http { agents: Default::default(), ca_pem }
    }

    fn agent(&self, url: &Url) -> &Agent {
        let direct = is_loopback(&url.authority);
        let index = usize::from(url.https) + 2 * usize::from(direct);
        let slot = self.agents.get(index).unwrap_or(&self.agents[0]);
        slot.get_or_init(|| {
            let roots = if url.https { self.roots() } else { Vec::new() };
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::Specific(Arc::new(roots)))
                .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .build();
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(if direct { None } else { Proxy::try_from_env() })
                .tls_config(tls)
                .user_agent(concat!("mote/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(ANSWER))
                .timeout_per_read(Some(STALL))
                .timeout_per_write(Some(STALL))
                .input_buffer_size(BUFFER_BYTES)
                .output_buffer_size(BUFFER_BYTES)
                .build();
            Agent::with_parts(config, DefaultConnector::default(), Stub)
        })
    }

    /// SSL_CERT_FILE or the distribution's bundle, and what was configured. Without any, every certificate is refused.
    fn roots(&self) -> Vec<Certificate<'static>> {
        const BUNDLES: [&str; 5] = [
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/ca-bundle.pem",
            "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            "/etc/ssl/cert.pem",
        ];
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let bundle = named.into_iter().chain(BUNDLES.map(PathBuf::from)).find_map(|path| std::fs::read(path).ok());
        let mut roots = Vec::new();
        for pem in [bundle.as_deref().unwrap_or_default(), &self.ca_pem] {
            let certificates = CertificateDer::pem_slice_iter(pem).flatten();
            roots.extend(certificates.map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()));
        }
        if roots.is_empty() {
            log::warn!("no trusted certificates found: set SSL_CERT_FILE or install ca-certificates");
        }
        roots
    }

    /// Sends one request, follows nothing.
    pub fn send(
        &self,
        method: &str,
        url: &Url,
        headers: &[(&str, String)],
        payload: &Payload<'_>,
    ) -> Result<Response, Error> {
        let what = || format!("{method} {}", without_query(url));
        let mut request = ureq::http::Request::builder().method(method).uri(url.to_string());
        for (name, value) in headers {
            request = request.header(*name, value.as_str());
        }
        let built = |e: ureq::http::Error| Error::Network { what: what(), why: e.to_string(), retryable: false };
        let agent = self.agent(url);
        let done = match payload {
            Payload::None => agent.run(request.body(()).map_err(built)?),
            Payload::Bytes(bytes) => agent.run(request.body(*bytes).map_err(built)?),
            Payload::Stream { open, length } => {
                let request = request.header("content-length", length.to_string());
                agent.run(request.body(SendBody::from_owned_reader(open()?)).map_err(built)?)
            }
        };
        done.map_err(|e| network_error(what(), &e))
    }
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
        U::Io(io) => (io.to_string(), true),
        U::Rustls(tls) => (format!("TLS: {tls}"), false),
        U::BadUri(_) | U::Http(_) | U::Tls(_) | U::InvalidProxyUrl => (e.to_string(), false),
        other => (other.to_string(), true),
    };
    Error::Network { what, why, retryable }
}
