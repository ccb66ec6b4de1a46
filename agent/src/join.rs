//! How a machine becomes a node: it proves the server by the pinned CA, shows a token once, and gets certificates of its own.
//!
//! The token is `<id>.<secret>@sha256:<hex of the CA certificate's DER>`. The server sends its CA at the end of its certificate chain;
//! the one whose digest is the pin is the root everything after is verified against. Keys never leave `<data-dir>/agent`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mote_api::tree::{Value, json, list_at, str_at};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::client::{Client, Connector, Endpoint, TlsParts};
use crate::instance::write_secret;
use crate::net::Cidr;

/// How long the server may take to sign.
const SIGNED_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A join token, taken apart.
pub(crate) struct Token {
    bearer: String,
    pin: Vec<u8>,
}

impl std::str::FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Token, &'static str> {
        const FORM: &str = "want ID.SECRET@sha256:HEX, as `mote token` prints it";
        let (bearer, pin) = text.trim().split_once("@sha256:").ok_or(FORM)?;
        let digits = |range: std::ops::Range<usize>| pin.get(range).and_then(|two| u8::from_str_radix(two, 16).ok());
        let pin: Option<Vec<u8>> = (0..pin.len() / 2).map(|at| digits(at * 2..at * 2 + 2)).collect();
        let pin = pin.filter(|pin| pin.len() == 32).ok_or(FORM)?;
        if bearer.split('.').count() != 2 {
            return Err(FORM);
        }
        Ok(Token { bearer: bearer.to_owned(), pin })
    }
}

#[derive(Debug)]
struct Pinned {
    pin: Vec<u8>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
    /// The server showed certificates, but not the pinned one.
    other: AtomicBool,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let matches =
            |cert: &&CertificateDer<'_>| ring::digest::digest(&ring::digest::SHA256, cert).as_ref() == self.pin;
        let Some(root) = intermediates.iter().find(matches) else {
            self.other.store(true, Ordering::Relaxed);
            return Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(root.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The files of a node that has joined.
pub(crate) struct Files {
    folder: PathBuf,
}

/// A certificate chain and its key.
pub(crate) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Files {
    /// Below the data folder.
    pub(crate) fn new(data: &Path) -> Files {
        Files { folder: data.join("agent") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The cluster's CA.
    pub(crate) fn ca(&self) -> Result<CertificateDer<'static>, String> {
        let path = self.path("ca.crt");
        CertificateDer::from_pem_file(&path).map_err(|e| format!("read {}: {e}", path.display()))
    }

    /// A certificate and key by name (`client`, `kubelet`).
    pub(crate) fn identity(&self, name: &str) -> Result<Identity, String> {
        let (certs, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&certs).and_then(Iterator::collect);
        let chain = chain.map_err(|e| format!("read {}: {e}", certs.display()))?;
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|e| format!("read {}: {e}", key.display()))?;
        Ok((chain, key))
    }
}

/// The ranges of pods and of Services, as the control plane has them; remembered, so that a node comes up while the server is away.
pub(crate) async fn ranges(data: &Path, client: &Client) -> (Cidr, Cidr) {
    let memory = Files::new(data).path("ranges.json");
    let known = std::fs::read(&memory).ok().and_then(|bytes| read_ranges(&serde_json::from_slice(&bytes).ok()?));
    if let Some(known) = known {
        return known;
    }
    let mut pause = PAUSE;
    loop {
        let why = match client.get("/api/v1/namespaces/kube-system/configmaps/mote-network").await {
            Ok(said) => match read_ranges(&said) {
                Some(ranges) => {
                    if let Err(why) = write_secret(&memory, &json!({"data": said.get("data")}).to_string()) {
                        log::warn!("{why}");
                    }
                    return ranges;
                }
                None => "ConfigMap kube-system/mote-network says no ranges".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        log::warn!("ask for the cluster's address ranges: {why}; trying on");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn read_ranges(said: &Value) -> Option<(Cidr, Cidr)> {
    let range = |name| str_at(said, &["data", name]).parse().ok();
    Some((range("clusterCIDR")?, range("serviceCIDR")?))
}

/// The way to the server with this node's certificate; joins first if it has none.
pub(crate) async fn connector(
    data: &Path,
    server: &str,
    token: Option<&Token>,
    node_name: &str,
    node_ip: &str,
) -> Result<Connector, String> {
    let endpoint = Endpoint::parse(server)?;
    let files = Files::new(data);
    if files.identity("client").is_err() || files.identity("kubelet").is_err() || files.ca().is_err() {
        let token =
            token.ok_or("this node has not joined yet: --token is needed (`mote token` on the server prints it)")?;
        join(&files, &endpoint, token, node_name, node_ip).await?;
    }
    let config = TlsParts { ca: files.ca()?, identity: Some(files.identity("client")?) }.config()?;
    Ok(Connector::Tls { endpoint, config, bearer: None })
}

async fn join(files: &Files, endpoint: &Endpoint, token: &Token, node_name: &str, node_ip: &str) -> Result<(), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Arc::new(Pinned {
        pin: token.pin.clone(),
        provider: provider.clone(),
        found: Mutex::new(None),
        other: AtomicBool::new(false),
    });
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("set up TLS: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(pinned.clone())
        .with_no_client_auth();
    let client = Client::new(Connector::Tls {
        endpoint: endpoint.clone(),
        config: Arc::new(config),
        bearer: Some(token.bearer.clone()),
    });
    std::fs::create_dir_all(&files.folder).map_err(|e| format!("make folder {}: {e}", files.folder.display()))?;
    let first =
        sign(&client, files, "client", "kubernetes.io/kube-apiserver-client-kubelet", node_name, &[], "client auth");
    first.await.map_err(|why| match pinned.other.load(Ordering::Relaxed) {
        true => "the server's CA certificate is not the one whose sha256 the token names: wrong token, or wrong server"
            .into(),
        false => why,
    })?;
    let names = [node_name.to_owned(), node_ip.to_owned()];
    sign(&client, files, "kubelet", "kubernetes.io/kubelet-serving", node_name, &names, "server auth").await?;
    let ca = pinned
        .found
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
        .ok_or("the server showed no CA certificate")?;
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let text = STANDARD.encode(&ca);
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    write_secret(&files.path("ca.crt"), &pem)
}

/// Makes a key, asks for a certificate and waits until it is signed.
async fn sign(
    client: &Client,
    files: &Files,
    name: &str,
    signer: &str,
    node_name: &str,
    sans: &[String],
    usage: &str,
) -> Result<(), String> {
    let failed = |e: rcgen::Error| format!("make certificate request: {e}");
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let mut params = rcgen::CertificateParams::new(sans.to_vec()).map_err(failed)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{node_name}"));
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
    let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": format!("{node_name}-{name}-")},
        "spec": {"request": STANDARD.encode(request), "signerName": signer, "usages": ["digital signature", usage]}});
    let collection = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let made = client.create(collection, &object).await.map_err(|e| match e.code() {
        401 => "the server does not know this token (`mote token` there prints the right one)".to_owned(),
        _ => format!("ask for a certificate: {e}"),
    })?;
    let target = format!("{collection}/{}", str_at(&made, &["metadata", "name"]));
    let end = tokio::time::Instant::now() + SIGNED_WITHIN;
    loop {
        let csr = client.get(&target).await.map_err(|e| format!("wait for the certificate: {e}"))?;
        let certificate = str_at(&csr, &["status", "certificate"]);
        if !certificate.is_empty() {
            let pem = STANDARD.decode(certificate).map_err(|e| format!("read certificate: {e}"))?;
            write_secret(&files.path(&format!("{name}.key")), &key.serialize_pem())?;
            return write_secret(&files.path(&format!("{name}.crt")), &String::from_utf8_lossy(&pem));
        }
        let refused = list_at(&csr, &["status", "conditions"])
            .iter()
            .find(|c| matches!(str_at(c, &["type"]), "Denied" | "Failed"));
        if let Some(refused) = refused {
            return Err(format!("the server refused the certificate: {}", str_at(refused, &["message"])));
        }
        if tokio::time::Instant::now() >= end {
            return Err(format!("the certificate was not signed within {} s", SIGNED_WITHIN.as_secs()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let pin = "ab".repeat(32);
        assert!(
            format!("abcdef.0123456789abcdef@sha256:{pin}").parse::<Token>().is_ok_and(|token| token.pin == [0xab; 32])
        );
        for bad in [
            "",
            "abcdef.0123456789abcdef",
            "a.b@sha256:abcd",
            &format!("nodot@sha256:{pin}"),
            &format!("a.b@sha256:{}", "zz".repeat(32)),
        ] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }
}
