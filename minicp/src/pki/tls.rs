//! rustls configurations: TLS 1.2 and 1.3, client certificates of our own CA.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::{Authority, Identity, PkiError};
use crate::clock::{Clock, SystemClock};

/// Certificates are judged by the clock with a floor, so that a board that woke up in 1970 can talk to itself.
#[derive(Debug)]
struct Floored;

impl TimeProvider for Floored {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(SystemClock.now().unix()).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn failed(e: impl std::fmt::Display) -> PkiError {
    PkiError::Certificate("TLS configuration".into(), e.to_string())
}

fn roots(ca_pem: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(failed)?).map_err(failed)?;
    Ok(roots)
}

fn parts(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let cert = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).map_err(failed)?;
    Ok((vec![cert], PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(failed)?))
}

/// For the API: a client certificate is welcome, not required (tokens).
pub fn server(authority: &Authority, identity: &Identity) -> Result<Arc<ServerConfig>, PkiError> {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&authority.ca_pem)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let (mut certs, key) = parts(identity)?;
    // A node that joins knows the CA by its digest only: it has to see it.
    certs.push(CertificateDer::from_pem_slice(authority.ca_pem.as_bytes()).map_err(failed)?);
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Floored))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certs, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For talking to node agents.
pub fn client(authority: &Authority, identity: &Identity) -> Result<Arc<ClientConfig>, PkiError> {
    outgoing(&authority.ca_pem, Some((&identity.cert_pem, &identity.key_pem)))
}

/// For talking to servers of another authority: certificates and key are PEM.
pub fn outgoing(ca_pem: &str, identity: Option<(&str, &str)>) -> Result<Arc<ClientConfig>, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(failed)?).map_err(failed)?;
    }
    let builder = ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(Floored))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots);
    Ok(Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().map_err(failed)?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(failed)?;
            builder.with_client_auth_cert(chain, key).map_err(failed)?
        }
    }))
}

/// For talking to whatever a pod serves: encrypted, and nothing is known of the other side (as upstream's proxy does it).
pub fn to_anybody() -> Result<Arc<ClientConfig>, PkiError> {
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_details(provider.clone(), Arc::new(Floored))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes any certificate whose key its owner has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
