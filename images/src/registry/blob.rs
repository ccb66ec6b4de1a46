//! A blob as a stream that survives broken connections: it goes on by `Range` where it stopped. Verification is the reader's.

use std::io::{self, Read};

use ureq::BodyReader;

use super::client::{Client, back_off};
use super::exchange::header;
use crate::digest::Digest;
use crate::limits::ATTEMPTS_MAX;
use crate::{Error, Observer, Progress};

/// Reads exactly `size` bytes of a blob.
pub struct Blob<'a> {
    client: &'a Client,
    path: String,
    size: u64,
    at: u64,
    body: Option<BodyReader<'static>>,
    failures: u32,
    index: usize,
    observer: &'a dyn Observer,
}

impl<'a> Blob<'a> {
    /// The blob `digest` of the client's repository; layer number `index` for the observer.
    pub fn new(client: &'a Client, digest: &Digest, size: u64, index: usize, observer: &'a dyn Observer) -> Blob<'a> {
        Blob { client, path: format!("blobs/{digest}"), size, at: 0, body: None, failures: 0, index, observer }
    }

    /// Begins at byte `at`, by Range (RFC 9110, 14).
    pub fn starting_at(self, at: u64) -> Blob<'a> {
        Blob { at, ..self }
    }

    fn open(&mut self) -> Result<BodyReader<'static>, Error> {
        let mut headers = Vec::new();
        if self.at > 0 {
            headers.push(("range", format!("bytes={}-", self.at)));
        }
        let response = self.client.get(&self.path, &headers)?;
        let skip = match response.status().as_u16() {
            206 => {
                let range = header(&response, "content-range").unwrap_or_default();
                if !range.starts_with(&format!("bytes {}-", self.at)) {
                    return Err(Error::corrupt(
                        self.path.clone(),
                        format!("asked to go on at byte {}, the registry answered {range:?}", self.at),
                    ));
                }
                0
            }
            _ => {
                if self.at > 0 {
                    self.observer.event(Progress::NoRanges { index: self.index, lost: self.at });
                }
                self.at
            }
        };
        let mut body = response.into_body().into_reader();
        // A registry without ranges begins anew; what we have is read over.
        let skipped =
            io::copy(&mut (&mut body).take(skip), &mut io::sink()).map_err(|e| broken(&self.path, e.to_string()))?;
        if skipped < skip {
            return Err(broken(&self.path, "connection closed early".to_owned()));
        }
        Ok(body)
    }

    fn step(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let body = self.open()?;
                self.body.insert(body)
            }
        };
        match body.read(out) {
            Ok(0) => Err(broken(&self.path, format!("connection closed after {} of {} bytes", self.at, self.size))),
            Ok(n) => Ok(n),
            Err(e) => Err(broken(&self.path, e.to_string())),
        }
    }
}

fn broken(what: &str, why: String) -> Error {
    Error::Network { what: what.to_owned(), why, retryable: true }
}

impl Read for Blob<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
        let length = out.len().min(left);
        let out = out.get_mut(..length).unwrap_or_default();
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.step(out) {
                Ok(n) => {
                    self.at += n as u64;
                    self.failures = 0;
                    return Ok(n);
                }
                Err(e @ Error::Network { retryable: true, .. }) => {
                    self.body = None;
                    self.failures += 1;
                    if self.failures >= ATTEMPTS_MAX {
                        return Err(io::Error::other(e));
                    }
                    self.client.pause(back_off(self.failures)).map_err(io::Error::other)?;
                    self.observer.event(Progress::Resumed { index: self.index, at: self.at });
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
    }
}
