//! Upload of blobs and manifests (distribution specification, "Pushing"): one POST, then one PUT with the whole content.

use std::io::Read;

use super::client::{Client, Request, Right, header};
use super::hosts::Need;
use super::transport::Payload;
use crate::digest::Digest;
use crate::{Error, Reference};

impl Client {
    /// Is the blob there already?
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let (_, _, response) = self.own("HEAD", &path, Vec::new(), Payload::None)?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => self.expect(response, &[200], &path).map(|_| true),
        }
    }

    /// Uploads `length` bytes, which `open` yields anew for each attempt, unless they are there.
    pub fn push_blob(
        &self,
        digest: &Digest,
        length: u64,
        open: &dyn Fn() -> Result<Box<dyn Read>, Error>,
    ) -> Result<(), Error> {
        if self.has_blob(digest)? {
            return Ok(());
        }
        let path = "blobs/uploads/";
        let (place, url, response) = self.own("POST", path, vec![("content-length", "0".to_owned())], Payload::None)?;
        let response = self.expect(response, &[202], path)?;
        let invalid = || Error::Network {
            what: format!("upload {digest}"),
            why: "the registry names no valid upload location".to_owned(),
            retryable: false,
        };
        let to = header(&response, "location").and_then(|location| url.join(&location)).ok_or_else(invalid)?;
        drop(response);
        let to = to.with_query(&format!("digest={}", super::url::encode(&digest.to_string())));
        let headers = vec![("content-type", "application/octet-stream".to_owned())];
        let (_, response) = self.request(&Request {
            method: "PUT",
            place,
            url: to,
            headers,
            payload: Payload::Stream { open, length },
            right: Right::Push,
        })?;
        self.expect(response, &[201, 204], path).map(drop)
    }

    /// Uploads a manifest under the reference's tag, or its digest where it has none.
    pub fn push_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        let selector = reference.tag().map_or_else(|| Digest::of(bytes).to_string(), str::to_owned);
        let path = format!("manifests/{selector}");
        let (_, _, response) =
            self.own("PUT", &path, vec![("content-type", media_type.to_owned())], Payload::Bytes(bytes))?;
        self.expect(response, &[200, 201, 202], &path).map(drop)
    }

    /// A request to the place that takes what is pushed: the last that may, the registry itself unless a `hosts.toml` says otherwise.
    fn own<'a>(
        &self,
        method: &'a str,
        path: &str,
        headers: Vec<(&'a str, String)>,
        payload: Payload<'a>,
    ) -> Result<(usize, super::url::Url, super::transport::Response), Error> {
        let (place, url) = self.places(path, Need::Push).pop().ok_or_else(|| {
            Error::refused(self.reference().to_string(), "none of the registry's configured hosts may be pushed to")
        })?;
        let (url, response) = self.request(&Request { method, place, url, headers, payload, right: Right::Push })?;
        Ok((place, url, response))
    }
}
