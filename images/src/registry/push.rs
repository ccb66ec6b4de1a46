//! What a push asks and ends with (distribution specification, "Pushing"); blobs are [`super::upload`]'s.

use super::client::Client;
use super::exchange::{Request, Right};
use super::hosts::Need;
use super::transport::{Payload, Response};
use super::url::Url;
use crate::digest::Digest;
use crate::{Error, Reference};

impl Client {
    /// Is the blob there already?
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let response = self.own("HEAD", &path, Vec::new(), Payload::None)?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => self.expect(response, &[200], &path).map(|_| true),
        }
    }

    /// Uploads a manifest under the reference's tag, or its digest where it has none.
    pub fn push_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        let selector = reference.tag().map_or_else(|| Digest::of(bytes).to_string(), str::to_owned);
        let path = format!("manifests/{selector}");
        let response = self.own("PUT", &path, vec![("content-type", media_type.to_owned())], Payload::Bytes(bytes))?;
        self.expect(response, &[200, 201, 202], &path).map(drop)
    }

    /// A request to the place that takes what is pushed.
    fn own<'a>(
        &self,
        method: &'a str,
        path: &str,
        headers: Vec<(&'a str, String)>,
        payload: Payload<'a>,
    ) -> Result<Response, Error> {
        let (place, url) = self.push_place(path)?;
        let request = Request { method, place, url, headers, payload, right: Right::Push };
        self.request(&request).map(|(_, response)| response)
    }

    /// The place that takes what is pushed: the last that may, the registry itself unless a `hosts.toml` says otherwise.
    pub(super) fn push_place(&self, path: &str) -> Result<(usize, Url), Error> {
        self.places(path, Need::Push).pop().ok_or_else(|| {
            Error::refused(self.reference().to_string(), "none of the registry's configured hosts may be pushed to")
        })
    }
}
