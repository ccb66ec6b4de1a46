//! One blob on its way up (distribution specification, "Pushing blobs"). A small one goes in one PUT. A larger one goes in one PATCH and a
//! PUT that closes it; where that breaks, the registry is asked how much it has, and the rest follows by another PATCH. A registry that
//! has forgotten the upload (docker-registry 2.8 does, whenever a connection breaks within a PATCH) is sent all of it once more. What is
//! decided is in [`received`], [`verdict`] and [`Patience`].

use std::io::{self, Read};

use super::auth::redirect;
use super::client::{Client, back_off};
use super::exchange::{Request, Right, header};
use super::transport::{Payload, Response, without_query};
use super::url::{Url, encode};
use crate::digest::Digest;
use crate::limits::{ATTEMPTS_MAX, UPLOAD_WHOLE_BYTES_MAX};
use crate::{Error, Observer, Progress, Reference};

/// Bytes between two words about progress.
const TELL_EVERY_BYTES: u64 = 256 << 10;

/// Yields a blob's content from a position on.
pub type Content<'a> = dyn Fn(u64) -> Result<Box<dyn Read>, Error> + 'a;

/// What is uploaded.
pub struct Parcel<'a> {
    pub digest: Digest,
    pub size: u64,
    pub content: &'a Content<'a>,
    /// Number of the layer, for the observer.
    pub index: usize,
    pub observer: &'a dyn Observer,
}

/// An upload that the registry has begun.
struct Session {
    place: usize,
    /// Where the next request of it goes; every answer may change it.
    url: Url,
    /// Bytes the registry is known to have.
    at: u64,
}

impl Client {
    /// Has the registry taken the blob from another of its repositories? Any answer but a plain yes is a no.
    pub fn mount_blob(&self, digest: &Digest, from: &Reference) -> bool {
        let (from, digest) = (encode(from.repository()), encode(&digest.to_string()));
        let Ok((place, url)) = self.push_place("blobs/uploads/") else { return false };
        let url = url.with_query(&format!("mount={digest}")).with_query(&format!("from={from}"));
        let done = self.request(&upload_request("POST", place, url, Payload::None));
        // A 202 begins an upload, which the registry forgets when nothing follows.
        done.is_ok_and(|(_, response)| response.status().as_u16() == 201)
    }

    /// Uploads a blob.
    pub fn push_blob(&self, parcel: &Parcel<'_>) -> Result<(), Error> {
        let mut session = self.begin(parcel)?;
        let mut patience = Patience::default();
        loop {
            let broken = match self.send(parcel, &mut session) {
                Ok(()) => return Ok(()),
                Err(e @ Error::Network { retryable: true, .. }) => e,
                Err(e) => return Err(e),
            };
            let Some(failures) = patience.again(session.at) else { return Err(broken) };
            log::info!("upload {}: {broken}; goes on", parcel.digest);
            self.pause(back_off(failures))?;
            match self.ask(parcel, &session)? {
                Some(known) => session = known,
                None => session = self.begin(parcel)?,
            }
            parcel.observer.event(Progress::Resumed { index: parcel.index, at: session.at });
        }
    }

    fn begin(&self, parcel: &Parcel<'_>) -> Result<Session, Error> {
        let path = "blobs/uploads/";
        let (place, url) = self.push_place(path)?;
        let (url, response) = self.request(&upload_request("POST", place, url, Payload::None))?;
        let response = self.expect(response, &[202], path)?;
        let url = self.next_url(parcel, &url, &response)?.ok_or_else(|| no_location(parcel))?;
        Ok(Session { place, url, at: 0 })
    }

    /// Sends what the registry does not have yet, and closes the upload.
    fn send(&self, parcel: &Parcel<'_>, session: &mut Session) -> Result<(), Error> {
        if session.at > 0 || parcel.size > UPLOAD_WHOLE_BYTES_MAX {
            while session.at < parcel.size {
                self.patch(parcel, session)?;
            }
        }
        self.put(parcel, session)
    }

    fn patch(&self, parcel: &Parcel<'_>, session: &mut Session) -> Result<(), Error> {
        let from = session.at;
        let open = || counted(parcel, from);
        let payload = Payload::Stream { open: &open, length: parcel.size - from };
        let mut request = upload_request("PATCH", session.place, session.url.clone(), payload);
        request.headers.push(("content-type", "application/octet-stream".to_owned()));
        if from > 0 {
            // The first stretch is sent as Docker does, without: some registries take no other.
            request.headers.push(("content-range", format!("{from}-{}", parcel.size - 1)));
        }
        let (url, response) = self.once(&request)?;
        let status = response.status().as_u16();
        if let Verdict::Broken = verdict(status, from) {
            return Err(broken(parcel, format!("PATCH: status {status}")));
        }
        let response = self.expect(response, &[200, 201, 202, 204], &blob_path(parcel))?;
        session.url = self.next_url(parcel, &url, &response)?.unwrap_or_else(|| session.url.clone());
        // One that says nothing has it all.
        let at = header(&response, "range").map_or(Some(parcel.size), |range| received(&range));
        session.at = at.filter(|at| *at > from && *at <= parcel.size).ok_or_else(|| {
            broken(
                parcel,
                format!("the registry says it has {:?} of it", header(&response, "range").unwrap_or_default()),
            )
        })?;
        Ok(())
    }

    /// Closes the upload, with the content where nothing of it was sent yet.
    fn put(&self, parcel: &Parcel<'_>, session: &Session) -> Result<(), Error> {
        let url = session.url.with_query(&format!("digest={}", encode(&parcel.digest.to_string())));
        let open = || counted(parcel, session.at);
        let payload = Payload::Stream { open: &open, length: parcel.size - session.at };
        let mut request = upload_request("PUT", session.place, url, payload);
        request.headers.push(("content-type", "application/octet-stream".to_owned()));
        let (_, response) = self.once(&request)?;
        let status = response.status().as_u16();
        match verdict(status, session.at) {
            Verdict::Broken => Err(broken(parcel, format!("PUT: status {status}"))),
            Verdict::Judge => self.expect(response, &[201, 204], &blob_path(parcel)).map(drop),
        }
    }

    /// How much of an upload the registry has; `None` if it knows of no such upload (or has all of it: then there is nothing to send).
    fn ask(&self, parcel: &Parcel<'_>, session: &Session) -> Result<Option<Session>, Error> {
        let request = upload_request("GET", session.place, session.url.clone(), Payload::None);
        let (url, response) = self.request(&request)?;
        if !matches!(response.status().as_u16(), 200 | 202 | 204) {
            return Ok(None);
        }
        let at = header(&response, "range").and_then(|range| received(&range)).filter(|at| *at <= parcel.size);
        let Some(at) = at else { return Ok(None) };
        let url = self.next_url(parcel, &url, &response)?.unwrap_or_else(|| session.url.clone());
        Ok(Some(Session { place: session.place, url, at }))
    }

    /// Where an answer sends the next request. A registry behind a proxy may not know that it is reached by HTTPS.
    fn next_url(&self, parcel: &Parcel<'_>, here: &Url, response: &Response) -> Result<Option<Url>, Error> {
        let Some(location) = header(response, "location") else { return Ok(None) };
        let next = here.join(&location).ok_or_else(|| no_location(parcel))?;
        if next.authority == here.authority {
            return Ok(Some(Url { https: here.https, ..next }));
        }
        let led = redirect(here, &location, &self.registries.plain_http);
        led.map(|(url, _)| Some(url)).map_err(|why| Error::Network { what: without_query(here), why, retryable: false })
    }
}

fn upload_request<'a>(method: &'a str, place: usize, url: Url, payload: Payload<'a>) -> Request<'a> {
    // A body of no bytes must say so: some registries wait for it otherwise (distribution specification).
    let none = matches!(payload, Payload::None) && method != "GET";
    let headers = if none { vec![("content-length", "0".to_owned())] } else { Vec::new() };
    Request { method, place, url, headers, payload, right: Right::Push }
}

fn blob_path(parcel: &Parcel<'_>) -> String {
    format!("blobs/{}", parcel.digest)
}

fn no_location(parcel: &Parcel<'_>) -> Error {
    let why = "the registry names no valid upload location".to_owned();
    Error::Network { what: format!("upload {}", parcel.digest), why, retryable: false }
}

fn broken(parcel: &Parcel<'_>, why: String) -> Error {
    Error::Network { what: format!("upload {}", parcel.digest), why, retryable: true }
}

/// The content from a position on, of which the observer hears.
fn counted<'a>(parcel: &'a Parcel<'a>, from: u64) -> Result<Box<dyn Read + 'a>, Error> {
    Ok(Box::new(Counted { inner: (parcel.content)(from)?, parcel, at: from, told: from }))
}

struct Counted<'a> {
    inner: Box<dyn Read>,
    parcel: &'a Parcel<'a>,
    at: u64,
    told: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.at += n as u64;
        if self.at >= self.told + TELL_EVERY_BYTES || (n == 0 && self.at > self.told) {
            self.told = self.at;
            self.parcel.observer.event(Progress::Bytes { index: self.parcel.index, done: self.at });
        }
        Ok(n)
    }
}

/// What a status means in the middle of an upload.
#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    /// The registry may know better how much it has, or was only busy: ask it.
    Broken,
    /// A success, or the registry's last word.
    Judge,
}

/// `at`: bytes the registry had. 416 says that they are others (distribution specification); what it has forgotten is 404.
fn verdict(status: u16, at: u64) -> Verdict {
    match status {
        408 | 416 | 425 | 429 | 500..=599 => Verdict::Broken,
        404 if at > 0 => Verdict::Broken,
        _ => Verdict::Judge,
    }
}

/// Bytes that a registry says it has: `0-999` are 1000. For none registries say `0-0`, so that is none.
fn received(range: &str) -> Option<u64> {
    let text = range.trim();
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    match (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?) {
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

/// Failures in a row without the registry having more of the blob than ever before.
#[derive(Default)]
struct Patience {
    most: u64,
    failures: u32,
}

impl Patience {
    /// The number of this failure, `None` if it is one too many.
    fn again(&mut self, at: u64) -> Option<u32> {
        if at > self.most {
            (self.most, self.failures) = (at, 0);
        }
        self.failures += 1;
        (self.failures < ATTEMPTS_MAX).then_some(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_counts_of_bytes() {
        for (range, want) in [
            ("0-999", Some(1000)),
            ("bytes=0-999", Some(1000)),
            (" 0-1 ", Some(2)),
            ("0-0", Some(0)),
            ("5-9", None),
            ("0-18446744073709551615", None),
            ("0-18446744073709551614", Some(u64::MAX)),
            ("0--1", None),
            ("", None),
            ("999", None),
        ] {
            assert_eq!(received(range), want, "{range:?}");
        }
    }

    #[test]
    fn what_may_be_mended_is_told_from_the_last_word() {
        for (status, at, want) in [
            (201, 0, Verdict::Judge),
            (400, 9, Verdict::Judge),
            (403, 9, Verdict::Judge),
            (404, 0, Verdict::Judge),
            (404, 9, Verdict::Broken),
            (416, 0, Verdict::Broken),
            (429, 0, Verdict::Broken),
            (503, 0, Verdict::Broken),
        ] {
            assert_eq!(verdict(status, at), want, "{status} at {at}");
        }
    }

    #[test]
    fn patience_ends_only_where_nothing_moves() {
        let mut patience = Patience::default();
        let told: Vec<_> = [0, 0, 5, 5, 9, 3, 9, 9, 9].map(|at| patience.again(at)).into();
        assert_eq!(told, [Some(1), Some(2), Some(1), Some(2), Some(1), Some(2), Some(3), Some(4), None]);
    }
}
