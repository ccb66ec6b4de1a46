//! What names bytes: [`Digest`] for bytes as a registry serves them (manifests, configurations, compressed layers), [`DiffId`]
//! for a layer's uncompressed archive. The two are never interchangeable, so they are two types (OCI image specification,
//! "Descriptor" and "Layer DiffID"). Only sha256 is accepted: the other registered algorithm is not seen in registries.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::Error;

/// `sha256:<64 hex>` of bytes as they are transferred and stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct Digest([u8; 32]);

/// `sha256:<64 hex>` of a layer's archive before compression.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct DiffId([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(bytes).into())
    }
    /// 64 lower-case hex digits, no algorithm.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

impl DiffId {
    /// Of a layer that is not compressed: the archive is what was transferred.
    pub(crate) fn of_plain(blob: Digest) -> DiffId {
        DiffId(blob.0)
    }
    /// 64 lower-case hex digits, no algorithm.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

/// Bytes in, digest out. Layers go through ring: on processors without SHA instructions its assembler is twice as fast as the portable
/// code of `sha2`, which hashes the small documents.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Hasher {
    /// Take more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The digest of transferred bytes.
    pub fn digest(self) -> Digest {
        Digest(self.finish())
    }
    /// The identity of an uncompressed archive.
    pub fn diff_id(self) -> DiffId {
        DiffId(self.finish())
    }
    fn finish(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        bytes
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    let mut text = String::with_capacity(64);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

fn parse(text: &str) -> Result<[u8; 32], Error> {
    let bad = || Error::BadDigest(text.chars().take(100).collect());
    let digits = text.strip_prefix("sha256:").ok_or_else(bad)?.as_bytes();
    if digits.len() != 64 {
        return Err(bad());
    }
    let mut bytes = [0u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(bad()),
            };
            *byte = (*byte << 4) | value;
        }
    }
    Ok(bytes)
}

impl FromStr for Digest {
    type Err = Error;
    fn from_str(text: &str) -> Result<Digest, Error> {
        parse(text).map(Digest)
    }
}

impl FromStr for DiffId {
    type Err = Error;
    fn from_str(text: &str) -> Result<DiffId, Error> {
        parse(text).map(DiffId)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer_and_round_trip() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::of(b""));
        let mut hasher = Hasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.digest(), Digest::of(b"abc"));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let cases = [
            String::new(),
            hex.into(),
            format!("sha512:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{hex}0"),
            "sha256:../../etc".into(),
        ];
        for text in cases {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
