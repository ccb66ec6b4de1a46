//! Who vouches for an image: [`policy`] says what is wanted of which names, [`payload`] and [`key`] judge what is there, [`enforce`]
//! fetches it. Signatures are cosign's: beside the image under the tag `sha256-<hex>.sig`, or among its referrers (OCI 1.1), there also as
//! cosign 3's [`bundle`]s. Checking needs no one
//! but the public key; what was found good is kept in the store, so that an image that is here is checked again without the registry.

pub mod bundle;
pub mod evidence;
pub mod key;
pub mod payload;
pub mod policy;

use std::path::Path;

use evidence::Evidence;
use key::PublicKey;
use payload::listed;
use policy::{Identity, Policy, Requirement};
use serde_json::Value;

use crate::digest::Digest;
use crate::layer::hashing::Hashing;
use crate::limits::{DOCUMENT_BYTES_MAX, RECORD_BYTES_MAX, SIGNATURES_MAX};
use crate::manifest;
use crate::registry::blob::Blob;
use crate::registry::client::Client;
use crate::store::layout::Layout;
use crate::{Error, Reference};

/// Artifact types among referrers that may hold signatures; some registries and pushers leave the type out or name the empty configuration's.
const ARTIFACTS: [&str; 3] =
    ["application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.oci.empty.v1+json", ""];

/// Refuses the image unless the policy at `file` takes it. `digests`: what the reference resolved to, and the manifest below it; a
/// signature over either is good.
pub(crate) fn enforce(file: Option<&Path>, client: &Client, digests: &[Digest], layout: &Layout) -> Result<(), Error> {
    let Some(file) = file else { return Ok(()) };
    let policy = Policy::load(file)?;
    let reference = client.reference();
    let (scope, requirements) = policy.of(reference);
    let refuse = |why: String| Error::refused(reference.to_string(), format!("image policy for {scope:?}: {why}"));
    for requirement in requirements {
        match requirement {
            Requirement::Accept => {}
            Requirement::Reject => return Err(refuse("images of it are not taken".to_owned())),
            Requirement::Unknown(kind) => {
                return Err(refuse(format!("it wants {kind:?}, which this program cannot check")));
            }
            Requirement::Signed { keys, identity } => {
                let names: Vec<String> = keys.iter().map(policy::KeySource::name).collect();
                let mut all = Vec::new();
                for source in keys {
                    all.extend(source.keys()?);
                }
                let wanted = Wanted { keys: all, identity, reference, digests };
                signed(&wanted, client, layout)?
                    .map_err(|why| refuse(format!("{why} (wanted: {})", names.join(" or "))))?;
            }
        }
    }
    Ok(())
}

/// What a signature must be.
struct Wanted<'a> {
    keys: Vec<PublicKey>,
    identity: &'a Identity,
    reference: &'a Reference,
    digests: &'a [Digest],
}

impl Wanted<'_> {
    /// Whether this is it, or why not.
    fn judge(&self, evidence: &Evidence) -> Result<(), String> {
        if !self.keys.iter().any(|key| key.verifies(&evidence.signed_bytes(), &evidence.signature)) {
            return Err("signed by another key".to_owned());
        }
        let claim = evidence.claim()?;
        if !claim.digests.iter().any(|digest| self.digests.contains(digest)) {
            let others: Vec<String> = claim.digests.iter().take(3).map(Digest::to_string).collect();
            return Err(format!("its signature is over another image, {}", others.join(", ")));
        }
        match claim.name {
            Some(name) if self.identity.fits(&name, self.reference) => Ok(()),
            Some(name) => Err(format!("its signature is for the name {name:?} (see signedIdentity in the policy)")),
            // A bundle vouches for a digest only. Rules about tags cannot be met by it; that of the repository is as weak as cosign's own.
            None if *self.identity == Identity::MatchRepository => Ok(()),
            None => {
                Err("its signature names no image (a bundle); only signedIdentity matchRepository takes such"
                    .to_owned())
            }
        }
    }
}

/// Looks into the store first, then asks the registry. The inner error says why no signature is good enough.
fn signed(wanted: &Wanted<'_>, client: &Client, layout: &Layout) -> Result<Result<(), String>, Error> {
    let Some(first) = wanted.digests.first() else { return Ok(Err("no digest".to_owned())) };
    let kept = layout.signatures(first);
    let known =
        crate::file::read_bounded(&kept, RECORD_BYTES_MAX)?.map(|bytes| evidence::decode(&bytes)).unwrap_or_default();
    if known.iter().any(|evidence| wanted.judge(evidence).is_ok()) {
        return Ok(Ok(()));
    }
    let mut reasons: Vec<String> = Vec::new();
    for digest in wanted.digests {
        for evidence in fetch(client, digest)? {
            match wanted.judge(&evidence) {
                Ok(()) => {
                    layout.replace(&kept, &evidence::encode(&[known.as_slice(), &[evidence]].concat()))?;
                    return Ok(Ok(()));
                }
                Err(why) if !reasons.contains(&why) => reasons.push(why),
                Err(_) => {}
            }
        }
    }
    Ok(Err(if reasons.is_empty() { "unsigned".to_owned() } else { reasons.join("; ") }))
}

/// Everything the registry has that looks like a signature of this digest.
fn fetch(client: &Client, digest: &Digest) -> Result<Vec<Evidence>, Error> {
    let mut found = Vec::new();
    if let Some(manifest) = get(client, &format!("manifests/sha256-{}.sig", digest.hex()))? {
        take(client, &manifest, &mut found)?;
    }
    if !found.is_empty() {
        return Ok(found);
    }
    // A registry without the referrers API has their list under a tag (distribution specification 1.1, "Referrers Tag Schema").
    let index = match get(client, &format!("referrers/{digest}"))? {
        Some(index) => Some(index),
        None => get(client, &format!("manifests/sha256-{}", digest.hex()))?,
    };
    let index: Value = index.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let entries = index.get("manifests").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let kind = |entry: &Value| entry.get("artifactType").and_then(Value::as_str).unwrap_or_default().to_owned();
    let may_be = |entry: &&Value| ARTIFACTS.contains(&kind(entry).as_str()) || kind(entry).starts_with(bundle::BUNDLE);
    for entry in entries.iter().filter(may_be).take(SIGNATURES_MAX) {
        let Some(Ok(digest)) = entry.get("digest").and_then(Value::as_str).map(str::parse::<Digest>) else { continue };
        if let Some(manifest) = get(client, &format!("manifests/{digest}"))?.filter(|bytes| Digest::of(bytes) == digest)
        {
            take(client, &manifest, &mut found)?;
        }
    }
    Ok(found)
}

/// A document, if there is one.
fn get(client: &Client, path: &str) -> Result<Option<Vec<u8>>, Error> {
    let response = match client.get(path, &[("accept", manifest::accept())]) {
        Ok(response) => response,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    read(response.into_body().into_reader(), DOCUMENT_BYTES_MAX, &format!("{}: {path}", client.reference())).map(Some)
}

/// Adds the signatures that a manifest lists. What is malformed is no signature.
fn take(client: &Client, manifest: &[u8], found: &mut Vec<Evidence>) -> Result<(), Error> {
    let list = listed(manifest).unwrap_or_else(|why| {
        log::warn!("{}: its signatures: {why}", client.reference());
        Vec::new()
    });
    for one in list.into_iter().take(SIGNATURES_MAX.saturating_sub(found.len())) {
        let what = format!("{}: signed document {}", client.reference(), one.blob);
        let bytes = read(Blob::new(client, &one.blob, one.size, 0, &crate::Silent), one.size, &what)?;
        if Digest::of(&bytes) != one.blob {
            return Err(Error::corrupt(what, format!("its bytes have the digest {}", Digest::of(&bytes))));
        }
        match one.signature {
            Some(signature) => found.push(Evidence { payload: bytes, signature, envelope: None }),
            None => found.extend(bundle::read(&bytes).unwrap_or_else(|why| {
                log::warn!("{what}: {why}");
                Vec::new()
            })),
        }
    }
    Ok(())
}

fn read(reader: impl std::io::Read, max: u64, what: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut Hashing::new(reader, max), &mut bytes).map_err(|e| {
        match e.downcast::<Error>() {
            Ok(own) => own,
            Err(e) => Error::Network { what: what.to_owned(), why: e.to_string(), retryable: true },
        }
    })?;
    Ok(bytes)
}
