//! The cluster's certificates: one CA, and what it signs. In `<data-dir>/pki`: `ca.crt`, `ca.key`, `admin.crt`, `admin.key`, `join-token`,
//! `sa.key` (signs service-account tokens).
//!
//! The serving certificate is made anew at every start, for the addresses of that start; its key never touches the disk.

pub mod files;
pub mod signer;
pub mod tls;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mote_api::time::Time;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::user::UserInfo;

const DAY: i64 = 86_400;
const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 730;
/// Days before its end at which a kept certificate is replaced.
const RENEW_DAYS: i64 = 180;
/// Seconds that other clocks may be behind ours.
const SKEW_SECONDS: i64 = 86_400;

/// What could not be done with a certificate or its file.
#[derive(thiserror::Error, Debug)]
pub enum PkiError {
    #[error("{0} {1}: {2}")]
    File(&'static str, PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    Certificate(String, String),
}

fn failed(what: &str) -> impl Fn(rcgen::Error) -> PkiError {
    let what = what.to_owned();
    move |e| PkiError::Certificate(what.clone(), e.to_string())
}

/// A certificate (chain of one) and its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
}

/// The cluster's CA.
pub struct Authority {
    pub ca_pem: String,
    /// Lower-case hex of the SHA-256 of the CA certificate's DER: what a join token pins.
    pub pin: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    Client,
    Server,
}

/// Files that a folder lacks, with what shall be in them.
type Missing = Vec<(&'static str, String)>;

/// The CA and the other secrets of a data folder, each made on first use.
pub fn open(dir: &Path, now: Time) -> Result<(Authority, Secrets), PkiError> {
    files::make_private_dir(dir).map_err(|e| PkiError::File("make", dir.into(), e))?;
    let mut missing = Missing::new();
    let authority = Authority::load(dir, now, &mut missing)?;
    let secrets = Secrets::load(dir, &mut missing)?;
    if !missing.is_empty() {
        // All at once: each alone would wait for the disk.
        let files: Vec<(&str, &str)> = missing.iter().map(|(name, text)| (*name, text.as_str())).collect();
        files::write_private(dir, &files).map_err(|e| PkiError::File("write keys in", dir.into(), e))?;
    }
    Ok((authority, secrets))
}

impl Authority {
    fn load(dir: &Path, now: Time, missing: &mut Missing) -> Result<Authority, PkiError> {
        let (cert, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        let identity = match (read(&cert)?, read(&key)?) {
            (Some(cert_pem), Some(key_pem)) => Identity { cert_pem, key_pem },
            _ => {
                let made = new_ca(now)?;
                // The key first: a certificate without a key would be of no use.
                missing.extend([("ca.key", made.key_pem.clone()), ("ca.crt", made.cert_pem.clone())]);
                made
            }
        };
        let key = KeyPair::from_pem(&identity.key_pem).map_err(failed("read ca.key"))?;
        let issuer = Issuer::from_ca_cert_pem(&identity.cert_pem, key).map_err(failed("read ca.crt"))?;
        let der = pem_der(&identity.cert_pem)
            .ok_or_else(|| PkiError::Certificate("read ca.crt".into(), "not a PEM certificate".into()))?;
        Ok(Authority { pin: sha256_hex(&der), ca_pem: identity.cert_pem, issuer })
    }
    /// A new key and a certificate for it. `sans`: names and addresses.
    pub fn issue(&self, subject: &UserInfo, sans: &[String], usage: Use, now: Time) -> Result<Identity, PkiError> {
        let key = KeyPair::generate().map_err(failed("generate key"))?;
        let mut params = CertificateParams::new(sans).map_err(failed("names of a certificate"))?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, &*subject.name);
        for group in &subject.groups {
            name.push(DnType::OrganizationName, &**group);
        }
        params.distinguished_name = name;
        leaf(&mut params, usage, now);
        let cert = params.signed_by(&key, &self.issuer).map_err(failed(&subject.name))?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
    /// Signs a request (PEM) for just what the signer is for; who may ask for what is the caller's to decide, see [`signer`].
    pub fn sign(&self, request: &Request, usage: Use, now: Time) -> Result<String, PkiError> {
        let what = "sign request";
        let csr = CertificateSigningRequestParams::from_pem(&request.pem).map_err(failed(what))?;
        let mut params = csr.params;
        leaf(&mut params, usage, now);
        if usage == Use::Client {
            params.subject_alt_names.clear();
        }
        Ok(params.signed_by(&csr.public_key, &self.issuer).map_err(failed(what))?.pem())
    }
    /// The admin's certificate, kept in the data folder and renewed in time.
    pub fn admin(&self, dir: &Path, now: Time) -> Result<Identity, PkiError> {
        let (cert, key) = (dir.join("admin.crt"), dir.join("admin.key"));
        if let (Some(cert_pem), Some(key_pem)) = (read(&cert)?, read(&key)?)
            && good_until(&cert_pem, &key_pem).is_some_and(|end| end > now.unix() + RENEW_DAYS * DAY)
        {
            return Ok(Identity { cert_pem, key_pem });
        }
        let admin = UserInfo::new("kubernetes-admin", &["system:masters"]);
        let made = self.issue(&admin, &[], Use::Client, now)?;
        // What a power cut takes is issued again: an empty file is no certificate.
        for (name, text) in [("admin.key", &made.key_pem), ("admin.crt", &made.cert_pem)] {
            files::write_private_again(dir, name, text).map_err(|e| PkiError::File("write", dir.join(name), e))?;
        }
        Ok(made)
    }
}

/// A certificate signing request, checked: its signature holds and it is of a form that we sign.
pub struct Request {
    pem: String,
    /// CN and O
    pub subject: UserInfo,
    pub has_sans: bool,
}

impl Request {
    pub fn parse(pem: &str) -> Result<Request, PkiError> {
        let csr = CertificateSigningRequestParams::from_pem(pem).map_err(failed("read request"))?;
        if csr.params.is_ca != IsCa::NoCa && csr.params.is_ca != IsCa::ExplicitNoCa {
            return Err(PkiError::Certificate("read request".into(), "asks to be a CA".into()));
        }
        let mut subject = UserInfo::default();
        let der = pem_der(pem).unwrap_or_default();
        if let Ok((_, request)) = X509CertificationRequest::from_der(&der) {
            subject = subject_of(&request.certification_request_info.subject);
        }
        let sans = &csr.params.subject_alt_names;
        let plain = sans.iter().all(|s| matches!(s, SanType::DnsName(_) | SanType::IpAddress(_)));
        if !plain {
            return Err(PkiError::Certificate("read request".into(), "names other than DNS and IP".into()));
        }
        Ok(Request { pem: pem.into(), subject, has_sans: !sans.is_empty() })
    }
}

fn leaf(params: &mut CertificateParams, usage: Use, now: Time) {
    params.is_ca = IsCa::NoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![match usage {
        Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    valid(params, now, LEAF_DAYS);
}

fn valid(params: &mut CertificateParams, now: Time, days: i64) {
    let at =
        |unix: i64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(u64::try_from(unix).unwrap_or(0));
    params.not_before = at(now.unix() - SKEW_SECONDS);
    params.not_after = at(now.unix() + days * DAY);
}

fn new_ca(now: Time) -> Result<Identity, PkiError> {
    let key = KeyPair::generate().map_err(failed("generate key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    valid(&mut params, now, CA_DAYS);
    let cert = params.self_signed(&key).map_err(failed("make CA"))?;
    Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// What a data folder keeps secret beside the CA.
pub struct Secrets {
    /// The join token `<id>.<secret>`.
    pub join_token: String,
    /// The keys (PEM) that sign service-account tokens.
    pub account_keys: String,
}

impl Secrets {
    fn load(dir: &Path, missing: &mut Missing) -> Result<Secrets, PkiError> {
        let join_token = match read(&dir.join("join-token"))?.map(|t| t.trim().to_owned()).filter(|t| t.len() == 23) {
            Some(token) => token,
            None => {
                let mut random = [0; 11];
                let filled = SystemRandom::new().fill(&mut random);
                filled.map_err(|_| PkiError::Certificate("join token".into(), "no random bytes".into()))?;
                let hex: String = random.iter().map(|b| format!("{b:02x}")).collect();
                let (id, secret) = hex.split_at_checked(6).unwrap_or_default();
                let token = format!("{id}.{secret}");
                missing.push(("join-token", token.clone()));
                token
            }
        };
        let account_keys = match read(&dir.join("sa.key"))?.filter(|p| !p.trim().is_empty()) {
            Some(keys) => keys,
            None => {
                let pem = KeyPair::generate().map_err(failed("generate sa.key"))?.serialize_pem();
                missing.push(("sa.key", pem.clone()));
                pem
            }
        };
        Ok(Secrets { join_token, account_keys })
    }
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(PkiError::File("read", path.into(), e)),
    }
}

/// The bytes of the first PEM block.
pub fn pem_der(pem: &str) -> Option<Vec<u8>> {
    let body = pem.split_once("-----BEGIN ")?.1.split_once("-----")?.1;
    let (body, _) = body.split_once("-----END")?;
    STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// When the certificate ends (Unix seconds), if both can be read and belong together.
fn good_until(cert_pem: &str, key_pem: &str) -> Option<i64> {
    let der = pem_der(cert_pem)?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).ok()?;
    let key = KeyPair::from_pem(key_pem).ok()?;
    let same = *cert.public_key().subject_public_key.data == *key.public_key_raw();
    same.then(|| cert.validity().not_after.timestamp())
}

fn subject_of(name: &x509_parser::x509::X509Name<'_>) -> UserInfo {
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
    UserInfo {
        name: name.iter_common_name().next().and_then(text).unwrap_or_default(),
        groups: name.iter_organization().filter_map(text).collect(),
        ..UserInfo::default()
    }
}

/// Who a client certificate (DER, verified by TLS) says its owner is.
pub fn user_of(der: &[u8]) -> Option<UserInfo> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
    let mut user = subject_of(cert.subject());
    user.groups.push("system:authenticated".into());
    Some(user).filter(|u| !u.name.is_empty())
}

/// A kubeconfig with everything inside.
pub fn kubeconfig(server: &str, ca_pem: &str, admin: &Identity) -> String {
    let (ca, cert, key) = (STANDARD.encode(ca_pem), STANDARD.encode(&admin.cert_pem), STANDARD.encode(&admin.key_pem));
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: mote\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
         users:\n- name: kubernetes-admin\n  user:\n    client-certificate-data: {cert}\n    client-key-data: {key}\n\
         contexts:\n- name: mote\n  context:\n    cluster: mote\n    user: kubernetes-admin\ncurrent-context: mote\n"
    )
}
