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

/// What a layer record says (version 2).
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct LayerRecord {
    pub diff_id: DiffId,
    pub blob: Digest,
    pub blob_bytes: u64,
    pub file_bytes: u64,
    pub entries: u64,
    /// The layer leaves something open: then the file `open` lies beside it. Records of version 1 do not say so.
    pub open: bool,
    /// Empty: known to be on the disk. Else the boot during which it was written without waiting for the disk.
    pub volatile_since: String,
}

/// Version 1. `implicit` was empty in every record that was ever written: those folders stand in the file `open`.
#[derive(Deserialize)]
struct LayerRecord1 {
    diff_id: DiffId,
    blob: Digest,
    blob_bytes: u64,
    file_bytes: u64,
    entries: u64,
    #[allow(dead_code)]
    implicit: Vec<Vec<u8>>,
    volatile_since: String,
}

/// Kind of record, second part of the magic.
pub trait Record: Serialize + for<'a> Deserialize<'a> {
    const KIND: u8;
    const VERSION: u8;
    /// Reads the payload of an older version; `None` if there is no such version.
    fn older(_version: u8, _payload: &[u8]) -> Option<Result<Self, String>> {
        None
    }
}

impl Record for ImageRecord {
    const KIND: u8 = b'I';
    const VERSION: u8 = 1;
}

impl Record for LayerRecord {
    const KIND: u8 = b'L';
    const VERSION: u8 = 2;
    fn older(version: u8, payload: &[u8]) -> Option<Result<LayerRecord, String>> {
        let first = (version == 1).then(|| all_of::<LayerRecord1>(payload))?;
        Some(first.map(|LayerRecord1 { diff_id, blob, blob_bytes, file_bytes, entries, volatile_since, .. }| {
            LayerRecord { diff_id, blob, blob_bytes, file_bytes, entries, open: false, volatile_since }
        }))
    }
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
        [kind, version, payload @ ..] if (*kind, *version) == (R::KIND, R::VERSION) => all_of(payload),
        [kind, version, payload @ ..] if *kind == R::KIND && *version < R::VERSION => {
            R::older(*version, payload).unwrap_or_else(|| Err(format!("record of version {version}, which never was")))
        }
        [_, version, ..] => Err(format!("record of an unknown kind or version {version}: written by a newer mote?")),
        _ => Err("record is too short".to_owned()),
    }
}

fn all_of<T: for<'a> Deserialize<'a>>(payload: &[u8]) -> Result<T, String> {
    let (record, rest) = postcard::take_from_bytes(payload).map_err(|e| e.to_string())?;
    if rest.is_empty() { Ok(record) } else { Err("record has a tail".to_owned()) }
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
            open: true,
            volatile_since: "boot".into(),
        }
    }

    #[test]
    fn golden_bytes_of_every_version() {
        let (image_1, layer_1, layer_2) = (
            &include_bytes!("../../tests/golden/image-v1")[..],
            &include_bytes!("../../tests/golden/layer-v1")[..],
            &include_bytes!("../../tests/golden/layer-v2")[..],
        );
        assert_eq!((encode(&image()).unwrap(), encode(&layer()).unwrap()), (image_1.to_vec(), layer_2.to_vec()));
        assert_eq!(decode::<ImageRecord>(image_1).unwrap(), image());
        assert_eq!(decode::<LayerRecord>(layer_2).unwrap(), layer());
        assert_eq!(decode::<LayerRecord>(layer_1).unwrap(), LayerRecord { open: false, ..layer() });
    }

    #[test]
    fn versions_that_are_not_known_are_named() {
        let versioned = |bytes: &[u8], version: u8| {
            let mut body = bytes[..bytes.len() - 4].to_vec();
            body[5] = version;
            let crc = crc32fast::hash(&body);
            [body, crc.to_le_bytes().to_vec()].concat()
        };
        let (image, layer) = (encode(&image()).unwrap(), encode(&layer()).unwrap());
        assert!(decode::<LayerRecord>(&versioned(&layer, 3)).unwrap_err().contains("unknown kind or version 3"));
        assert!(decode::<LayerRecord>(&versioned(&layer, 0)).unwrap_err().contains("version 0, which never was"));
        assert!(decode::<ImageRecord>(&versioned(&image, 0)).unwrap_err().contains("version 0, which never was"));
        assert!(decode::<ImageRecord>(&layer).unwrap_err().contains("unknown kind or version 2"));
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
