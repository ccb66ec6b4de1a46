//! Public keys in PEM (`-----BEGIN PUBLIC KEY-----`, RFC 5280 SubjectPublicKeyInfo) and signatures over bytes, by ring.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

/// A key that signatures are checked against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey {
    kind: Kind,
    /// As ring takes it: a point, 32 bytes, or an RSAPublicKey.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

// Contents of the AlgorithmIdentifier up to where it may differ (RFC 5480, 8410, 3279).
const EC_P256: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const EC_P384: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 5, 0x2b, 0x81, 4, 0, 0x22];
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

impl PublicKey {
    /// Every public key of a PEM text; an error where there is none, or one we cannot use.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<PublicKey>, String> {
        let mut keys = Vec::new();
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let der = der.map_err(|e| format!("no valid PEM: {e}"))?;
            keys.push(
                PublicKey::from_der(&der).ok_or("a public key that is neither ECDSA P-256, P-384, Ed25519 nor RSA")?,
            );
        }
        if keys.is_empty() { Err("no PEM public key in it".to_owned()) } else { Ok(keys) }
    }

    fn from_der(der: &[u8]) -> Option<PublicKey> {
        let (info, rest) = element(der, SEQUENCE)?;
        let (algorithm, info) = element(info, SEQUENCE)?;
        let (bits, end) = element(info, BIT_STRING)?;
        let (unused, bytes) = bits.split_first()?;
        if !rest.is_empty() || !end.is_empty() || *unused != 0 {
            return None;
        }
        let kind = match algorithm {
            EC_P256 => Kind::P256,
            EC_P384 => Kind::P384,
            ED25519 => Kind::Ed25519,
            RSA => Kind::Rsa,
            _ => return None,
        };
        Some(PublicKey { kind, bytes: bytes.to_vec() })
    }

    /// Whether `signature` over `message` was made with this key. Hashes are SHA-256, for P-384 also SHA-384, as cosign makes them.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithms: &[&'static dyn VerificationAlgorithm] = match self.kind {
            Kind::P256 => &[&signature::ECDSA_P256_SHA256_ASN1],
            Kind::P384 => &[&signature::ECDSA_P384_SHA256_ASN1, &signature::ECDSA_P384_SHA384_ASN1],
            Kind::Ed25519 => &[&signature::ED25519],
            Kind::Rsa => &[&signature::RSA_PKCS1_2048_8192_SHA256],
        };
        algorithms
            .iter()
            .any(|algorithm| UnparsedPublicKey::new(*algorithm, &self.bytes).verify(message, signature).is_ok())
    }
}

/// The content of the first DER element, which must have this tag, and what follows it (X.690, definite lengths).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    if *first == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn openssl(dir: &std::path::Path, args: &str) {
        let words = args.split(' ');
        let done = Command::new("openssl").args(words).current_dir(dir).stderr(Stdio::null()).status();
        assert!(done.expect("apt-get install openssl").success(), "{args}");
    }

    #[test]
    fn keys_and_signatures_of_openssl() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m"), b"message").unwrap();
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        let mut keys = Vec::new();
        for (kind, sign) in [
            ("EC -pkeyopt ec_paramgen_curve:P-256", "dgst -sha256 -sign KEY -out s m"),
            ("EC -pkeyopt ec_paramgen_curve:P-384", "dgst -sha256 -sign KEY -out s m"),
            ("EC -pkeyopt ec_paramgen_curve:P-384", "dgst -sha384 -sign KEY -out s m"),
            ("ED25519", "pkeyutl -sign -inkey KEY -rawin -in m -out s"),
            ("RSA -pkeyopt rsa_keygen_bits:2048", "dgst -sha256 -sign KEY -out s m"),
        ] {
            openssl(dir.path(), &format!("genpkey -algorithm {kind} -out k"));
            openssl(dir.path(), "pkey -in k -pubout -out p");
            openssl(dir.path(), &sign.replace("KEY", "k"));
            let [key] = PublicKey::all_from_pem(&read("p")).unwrap().try_into().unwrap();
            let mut signature = read("s");
            assert!(key.verifies(b"message", &signature), "{kind}");
            assert!(!key.verifies(b"massage", &signature), "{kind}");
            signature[10] ^= 1;
            assert!(!key.verifies(b"message", &signature) && !key.verifies(b"message", b""), "{kind}");
            keys.push(key);
        }
        openssl(dir.path(), "dgst -sha256 -sign k -out s m");
        assert!(keys[..4].iter().all(|other| !other.verifies(b"message", &read("s"))), "another's key");
        // what is no key of ours is said to be none
        openssl(dir.path(), "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out k");
        openssl(dir.path(), "pkey -in k -pubout -out p");
        assert!(PublicKey::all_from_pem(&read("p")).unwrap_err().contains("neither ECDSA"));
        assert!(PublicKey::all_from_pem(&read("k")).unwrap_err().contains("no PEM public key"));
        assert!(PublicKey::all_from_pem(b"").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_der_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let _ = PublicKey::from_der(&bytes);
            let _ = element(&[&[SEQUENCE, 0x82][..], &bytes].concat(), SEQUENCE);
        }
    }
}
