//! The kubelet port: TLS with a certificate of the cluster's CA, for the API server alone.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::agent::Agent;
use crate::join::Identity;

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Binds the port, or any free one if it is taken; the port it is.
pub(crate) async fn bind(port: u16) -> Result<(TcpListener, u16), String> {
    let listener = match TcpListener::bind(("0.0.0.0", port)).await {
        Ok(listener) => listener,
        Err(first) => TcpListener::bind(("0.0.0.0", 0)).await.map_err(|_| format!("listen on port {port}: {first}"))?,
    };
    let port = listener.local_addr().map_err(|e| format!("read port: {e}"))?.port();
    Ok((listener, port))
}

/// The TLS side: our certificate, and the CA that clients must come from.
pub(crate) fn acceptor(ca: CertificateDer<'static>, identity: Identity) -> Result<TlsAcceptor, String> {
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|e| format!("use CA certificate: {e}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let verifier = verifier.map_err(|e| format!("set up client verification: {e}"))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("set up TLS: {e}"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.0, identity.1)
        .map_err(|e| format!("use serving certificate: {e}"))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves for ever.
pub(crate) async fn serve(agent: Rc<Agent>, listener: TcpListener, acceptor: TlsAcceptor) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("accept kubelet connection: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let (agent, acceptor) = (agent.clone(), acceptor.clone());
        tokio::task::spawn_local(async move {
            let _slot = slot;
            let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(tcp)).await else { return };
            let certificate = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
            if certificate.is_some_and(|certificate| allowed(&certificate, peer)) {
                super::serve(agent, tls).await;
            }
        });
    }
}

/// The API server's kubelet client, or the cluster's owner. (That the CA signed it is proven already.)
fn allowed(certificate: &CertificateDer<'_>, peer: SocketAddr) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let subject = parsed.subject();
    let name = subject
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .any(|name| matches!(name, "kube-apiserver-kubelet-client" | "kube-apiserver"));
    let owner =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).any(|group| group == "system:masters");
    if !(name || owner) {
        log::warn!("kubelet connection from {peer}: {subject} may not");
    }
    name || owner
}
