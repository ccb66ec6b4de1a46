//! Which manifest below a document is for a platform.

use super::{DOCKER_LIST, Descriptor, Document, Manifest, OCI_INDEX, Offer, parse};
use crate::digest::Digest;
use crate::limits::{INDEX_DEPTH_MAX, INDEX_DOCUMENTS_MAX, INDEX_ENTRIES_MAX};
use crate::platform::Platform;
use crate::{Error, Reference};

/// Fetches a document by digest; also what the server says its media type is.
pub type Fetch<'a> = dyn Fn(&Digest) -> Result<(Vec<u8>, String), Error> + 'a;

/// The manifest for a platform below a document: itself, or down through an index and indexes within it. Returns its digest and bytes
/// too. Indexes without a platform of their own are opened only where nothing beside them fits.
pub fn resolve(
    bytes: Vec<u8>,
    media_type: &str,
    want: &Platform,
    reference: &Reference,
    fetch: &Fetch<'_>,
) -> Result<(Digest, Vec<u8>, Manifest), Error> {
    let what = reference.to_string();
    let (mut bytes, mut media_type) = (bytes, media_type.to_owned());
    for _ in 0..=INDEX_DEPTH_MAX {
        let mut offers = match parse(&bytes, &media_type, &what)? {
            Document::Manifest(manifest) => return Ok((Digest::of(&bytes), bytes, manifest)),
            Document::Index(offers) => offers,
        };
        let chosen = match choose(&offers, want, reference) {
            Err(Error::WrongPlatform { .. }) if offers.iter().any(Offer::is_open_index) => {
                offers = opened(offers, &what, fetch)?;
                choose(&offers, want, reference)?
            }
            chosen => chosen?,
        };
        (bytes, media_type) = fetch(&chosen.digest)?;
    }
    Err(Error::refused(what, format!("more than {INDEX_DEPTH_MAX} indexes within each other")))
}

/// The offers of all indexes among these that name no platform, in their place.
fn opened(offers: Vec<Offer>, what: &str, fetch: &Fetch<'_>) -> Result<Vec<Offer>, Error> {
    let mut flat: Vec<Offer> = Vec::new();
    let mut queue: std::collections::VecDeque<Offer> = offers.into();
    let mut documents = 0;
    while let Some(offer) = queue.pop_front() {
        if !offer.is_open_index() {
            flat.push(offer);
            continue;
        }
        documents += 1;
        if documents > INDEX_DOCUMENTS_MAX {
            return Err(Error::refused(what, format!("more than {INDEX_DOCUMENTS_MAX} indexes within an index")));
        }
        let (bytes, media_type) = fetch(&offer.descriptor.digest)?;
        if let Document::Index(inner) = parse(&bytes, &media_type, what)? {
            queue.extend(inner);
        }
        if flat.len() + queue.len() > INDEX_ENTRIES_MAX {
            return Err(Error::refused(what, format!("more than {INDEX_ENTRIES_MAX} manifests in its indexes")));
        }
    }
    Ok(flat)
}

impl Offer {
    /// An index that does not say for which platform it is.
    fn is_open_index(&self) -> bool {
        self.platform.is_none() && matches!(self.descriptor.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }
}

/// The offer for this platform. One that names no platform is taken only where it is the only one of that kind and nothing else fits (the
/// image's own configuration is compared later).
pub fn choose<'a>(offers: &'a [Offer], want: &Platform, reference: &Reference) -> Result<&'a Descriptor, Error> {
    let named: Vec<(&Offer, &Platform)> = offers
        .iter()
        .filter_map(|offer| Some((offer, offer.platform.as_ref()?)))
        .filter(|(_, platform)| platform.os != "unknown")
        .collect();
    if let Some((offer, _)) =
        want.choose(named.iter().map(|(_, platform)| *platform)).and_then(|index| named.get(index))
    {
        return Ok(&offer.descriptor);
    }
    let mut silent = offers.iter().filter(|offer| offer.platform.is_none() && !offer.is_open_index());
    match (silent.next(), silent.next()) {
        (Some(only), None) => Ok(&only.descriptor),
        _ => {
            let mut list: Vec<Platform> = Vec::new();
            for (_, platform) in named {
                if !list.contains(platform) {
                    list.push(platform.clone());
                }
            }
            Err(Error::WrongPlatform { reference: Box::new(reference.clone()), want: want.clone(), offers: list })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::manifest::tests::desc;
    use crate::manifest::{OCI_CONFIG, OCI_MANIFEST};

    /// Documents by digest, for [`resolve`].
    fn resolved(top: &Value, others: &[Value], want: &str) -> Result<Digest, String> {
        let fetch = |digest: &Digest| {
            let found =
                others.iter().map(|other| other.to_string().into_bytes()).find(|bytes| Digest::of(bytes) == *digest);
            found.map(|bytes| (bytes, String::new())).ok_or_else(|| Error::corrupt("test", "no such document"))
        };
        let (want, reference) = (want.parse().unwrap(), "x".parse().unwrap());
        let done = resolve(top.to_string().into_bytes(), "", &want, &reference, &fetch);
        done.map(|(digest, ..)| digest).map_err(|e| e.to_string())
    }

    fn entry(document: &Value, kind: &str, platform: &str) -> Value {
        let bytes = document.to_string();
        let mut entry = serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes.as_bytes()).to_string(), "size": bytes.len()});
        if let Some((os, architecture)) = platform.split_once('/') {
            entry["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        }
        entry
    }

    fn index(manifests: &[Value]) -> Value {
        serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
    }

    #[test]
    fn indexes_within_indexes() {
        let image = |n: u8| serde_json::json!({"schemaVersion": 2, "config": desc(n, OCI_CONFIG), "layers": []});
        let digest = |document: &Value| Digest::of(document.to_string().as_bytes());
        let (amd64, s390x, silent) = (image(1), image(2), image(3));
        let inner = index(&[entry(&amd64, OCI_MANIFEST, "linux/amd64"), entry(&s390x, OCI_MANIFEST, "linux/s390x")]);
        // an open index is looked into, also two deep; what fits beside it goes first
        let middle = index(&[entry(&inner, OCI_INDEX, "")]);
        let arm = index(&[entry(&image(4), OCI_MANIFEST, "linux/arm64")]);
        let top = index(&[entry(&middle, OCI_INDEX, ""), entry(&arm, OCI_INDEX, "")]);
        let all = [amd64.clone(), s390x.clone(), silent.clone(), inner.clone(), middle.clone(), arm.clone(), image(4)];
        assert_eq!(resolved(&top, &all, "linux/s390x"), Ok(digest(&s390x)));
        assert_eq!(resolved(&top, &all, "linux/arm64"), Ok(digest(&image(4))));
        assert_eq!(
            resolved(&top, &all, "linux/ppc64le"),
            Err("docker.io/library/x:latest: no image for linux/ppc64le, it offers linux/arm64, linux/amd64, linux/s390x".to_owned())
        );
        let beside = index(&[entry(&middle, OCI_INDEX, ""), entry(&silent, OCI_MANIFEST, "linux/amd64")]);
        assert_eq!(resolved(&beside, &all, "linux/amd64"), Ok(digest(&silent)));
        // an index for one platform
        let of_amd64 = index(&[entry(&inner, OCI_INDEX, "linux/amd64")]);
        assert_eq!(resolved(&of_amd64, &all, "linux/amd64"), Ok(digest(&amd64)));
        // the only one that says nothing, beside others that do
        let mixed = index(&[entry(&s390x, OCI_MANIFEST, "linux/s390x"), entry(&silent, OCI_MANIFEST, "")]);
        assert_eq!(resolved(&mixed, &all, "linux/amd64"), Ok(digest(&silent)));
        let two = index(&[entry(&s390x, OCI_MANIFEST, ""), entry(&silent, OCI_MANIFEST, "")]);
        assert!(resolved(&two, &all, "linux/amd64").unwrap_err().ends_with("it offers none"));
        assert_eq!(resolved(&amd64, &[], "linux/s390x"), Ok(digest(&amd64)), "a manifest is what it is");
    }

    #[test]
    fn indexes_without_end_are_refused() {
        // chains: each names the next for the platform, or says nothing
        for (platform, want) in
            [("linux/amd64", "more than 4 indexes within each other"), ("", "more than 16 indexes within an index")]
        {
            let mut documents = vec![index(&[])];
            for _ in 0..20 {
                let last = documents.last().unwrap();
                documents.push(index(&[entry(last, OCI_INDEX, platform)]));
            }
            let error = resolved(documents.last().unwrap(), &documents, "linux/amd64").unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
