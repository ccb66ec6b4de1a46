//! Records of the store on disk: magic, version, postcard payload, CRC-32 of all before it (little-endian). Fields are never added to
//! a version; a new one gets its own struct and its own arm in `decode`. Golden bytes of every version: `tests/golden/`.

use serde::{Deserialize, Serialize};

use crate::{DiffId, Digest, Platform};

const MAGIC: &[u8; 4] = b"mimg";

/// What an image record says (version 1).
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct ImageRecord {
    pub reference: String,
    /// Digest of what the registry served for the reference: an index, or the manifest itself.
    pub resolved: Digest,
    pub manifest: Digest,
    pub config: Digest,
    pub platform: Platform,
    pub layers: Vec<DiffId>,
    /// Seconds since 1970, by this machine's clock.
    pub since: u64,
    /// Not from a registry: cannot be fetched again.
    pub local: bool,
    /// Folder attributes the layers leave open are settled by a layer of our own, on top (`super::top`).
    pub top: Option<DiffId>,
}

/// What a layer record says (version 1).
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct LayerRecord {
    pub diff_id: DiffId,
    pub blob: Digest,
    pub blob_bytes: u64,
    pub file_bytes: u64,
    pub entries: u64,
    /// Folders the archive has something in but does not describe; empty since they stand in the file `open`.
    pub implicit: Vec<Vec<u8>>,
    /// Empty: known to be on the disk. Else the boot during which it was written without waiting for the disk.
    pub volatile_since: String,
}

/// Kind of record, second part of the magic.
pub trait Record: Serialize + for<'a> Deserialize<'a> {
    const KIND: u8;
    const VERSION: u8;
}

impl Record for ImageRecord {
    const KIND: u8 = b'I';
    const VERSION: u8 = 1;
}

impl Record for LayerRecord {
    const KIND: u8 = b'L';
    const VERSION: u8 = 1;
}

/// The bytes of a record.
pub fn encode<R: Record>(record: &R) -> Result<Vec<u8>, String> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([R::KIND, R::VERSION]);
    let mut bytes = postcard::to_extend(record, bytes).map_err(|e| e.to_string())?;
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    Ok(bytes)
}

/// A record from its bytes, or why they are none.
pub fn decode<R: Record>(bytes: &[u8]) -> Result<R, String> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("record is too short")?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return Err("record checksum does not match".to_owned());
    }
    let payload = body.strip_prefix(MAGIC).ok_or("not a record of an image store")?;
    match payload {
        [kind, version, payload @ ..] if (*kind, *version) == (R::KIND, R::VERSION) => {
            let (record, rest) = postcard::take_from_bytes(payload).map_err(|e| e.to_string())?;
            if rest.is_empty() { Ok(record) } else { Err("record has a tail".to_owned()) }
        }
        [_, version, ..] => Err(format!("record of an unknown kind or version {version}: written by a newer mote?")),
        _ => Err("record is too short".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageRecord {
        ImageRecord {
            reference: "docker.io/library/x:1".into(),
            resolved: Digest::of(b"1"),
            manifest: Digest::of(b"2"),
            config: Digest::of(b"3"),
            platform: Platform::new("linux", "arm", "v6"),
            layers: vec![format!("sha256:{}", "ab".repeat(32)).parse().unwrap()],
            since: 1_700_000_000,
            local: true,
            top: None,
        }
    }

    fn layer() -> LayerRecord {
        LayerRecord {
            diff_id: format!("sha256:{}", "cd".repeat(32)).parse().unwrap(),
            blob: Digest::of(b"4"),
            blob_bytes: 5,
            file_bytes: 600,
            entries: 70_000,
            implicit: vec![b"".to_vec(), b"a/b".to_vec()],
            volatile_since: "boot".into(),
        }
    }

    #[test]
    fn golden_bytes_of_version_1() {
        for (bytes, golden) in [
            (encode(&image()).unwrap(), &include_bytes!("../../tests/golden/image-v1")[..]),
            (encode(&layer()).unwrap(), &include_bytes!("../../tests/golden/layer-v1")[..]),
        ] {
            assert_eq!(bytes, golden);
        }
        assert_eq!(decode::<ImageRecord>(include_bytes!("../../tests/golden/image-v1")).unwrap(), image());
        assert_eq!(decode::<LayerRecord>(include_bytes!("../../tests/golden/layer-v1")).unwrap(), layer());
    }

    #[test]
    fn any_damage_is_noticed() {
        let bytes = encode(&layer()).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode::<LayerRecord>(&bad).is_err(), "flip at {at}");
            assert!(decode::<LayerRecord>(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(decode::<ImageRecord>(&bytes).is_err());
    }
}
