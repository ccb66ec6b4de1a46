//! How a connection to the API server comes about.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Host and port out of `https://HOST:PORT`.
#[derive(Clone)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// Reads `https://HOST[:PORT][/]`.
    pub fn parse(url: &str) -> Result<Endpoint, String> {
        let bad = || format!("{url:?} is no https://HOST:PORT");
        let rest = url.strip_prefix("https://").ok_or_else(bad)?.trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, tail)) => (host, tail.strip_prefix(':')),
            None => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(6443), str::parse).map_err(|_| bad())?;
        if host.is_empty() || host.contains('/') {
            return Err(bad());
        }
        Ok(Endpoint { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How to recognise the server, and to be recognised.
pub struct TlsParts {
    /// The cluster's CA certificate.
    pub ca: CertificateDer<'static>,
    /// Our certificate chain and key, once we have them.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl TlsParts {
    /// The rustls configuration of these parts.
    pub fn config(self) -> Result<Arc<rustls::ClientConfig>, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca).map_err(|e| format!("use CA certificate: {e}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("set up TLS: {e}"))?
            .with_root_certificates(roots);
        let config = match self.identity {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).map_err(|e| format!("use client certificate: {e}"))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

/// The way to the API server.
#[derive(Clone)]
pub enum Connector {
    /// Same process: an already authenticated in-memory stream.
    Memory(Rc<dyn Fn() -> DuplexStream>),
    /// TLS.
    Tls {
        /// Where.
        endpoint: Endpoint,
        /// Who we are and whom we trust.
        config: Arc<rustls::ClientConfig>,
        /// Bootstrap token, before there is a certificate.
        bearer: Option<String>,
    },
}

impl Connector {
    /// For messages.
    pub fn server(&self) -> String {
        match self {
            Connector::Memory(_) => "in this process".into(),
            Connector::Tls { endpoint, .. } => format!("https://{endpoint}"),
        }
    }

    /// The Host header.
    pub fn host(&self) -> String {
        match self {
            Connector::Memory(_) => "localhost".into(),
            Connector::Tls { endpoint, .. } => endpoint.to_string(),
        }
    }

    /// The token to show, if any.
    pub fn bearer(&self) -> Option<&str> {
        match self {
            Connector::Tls { bearer, .. } => bearer.as_deref(),
            Connector::Memory(_) => None,
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        match self {
            Connector::Memory(dial) => handshake(dial()).await,
            Connector::Tls { endpoint, config, .. } => {
                let both = async {
                    let tcp = dial_tcp(endpoint).await?;
                    let name = ServerName::try_from(endpoint.host.clone())
                        .map_err(|e| format!("server name {:?}: {e}", endpoint.host))?;
                    let tls = tokio_rustls::TlsConnector::from(config.clone());
                    tls.connect(name, tcp).await.map_err(|e| format!("TLS handshake: {e}"))
                };
                let stream =
                    tokio::time::timeout(CONNECT_WITHIN, both).await.map_err(|_| "connect: timed out".to_owned())??;
                handshake(stream).await
            }
        }
    }
}

async fn dial_tcp(endpoint: &Endpoint) -> Result<TcpStream, String> {
    let port = endpoint.port;
    let tcp = match endpoint.host.parse::<std::net::IpAddr>() {
        Ok(address) => TcpStream::connect((address, port)).await,
        Err(_) => TcpStream::connect((endpoint.host.as_str(), port)).await,
    };
    let tcp = tcp.map_err(|e| format!("connect: {e}"))?;
    tcp.set_nodelay(true).map_err(|e| format!("set TCP_NODELAY: {e}"))?;
    keep_alive(&tcp);
    Ok(tcp)
}

/// A dead server must be noticed although a watch never writes. Failing to ask for it only delays that.
fn keep_alive(tcp: &TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt};
    let _ = setsockopt(tcp, sockopt::KeepAlive, &true);
    let _ = setsockopt(tcp, sockopt::TcpKeepIdle, &30);
    let _ = setsockopt(tcp, sockopt::TcpKeepInterval, &10);
    let _ = setsockopt(tcp, sockopt::TcpKeepCount, &3);
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| format!("HTTP handshake: {e}"))?;
    tokio::task::spawn_local(async move {
        // Its error reaches whoever waits on the sender.
        let _ = connection.await;
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (url, shown) in [
            ("https://10.0.0.1:6443", Some("10.0.0.1:6443")),
            ("https://host/", Some("host:6443")),
            ("https://[::1]:7", Some("[::1]:7")),
            ("http://host", None),
            ("https://", None),
            ("https://host:x", None),
            ("https://host:1/path", None),
        ] {
            assert_eq!(Endpoint::parse(url).ok().map(|e| e.to_string()).as_deref(), shown, "{url}");
        }
    }
}
