//! One host that is asked: how it is reached, what is sent to it, what it taught us.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::exchange::{Request, header};
use super::hosts::Endpoint;
use super::transport::{Http, Response, Trust};
use super::url::Url;
use crate::Error;

/// A mirror or the registry itself, and what we learned about it.
pub(super) struct Place {
    pub endpoint: Endpoint,
    pub http: Http,
    /// `Authorization` for this host.
    pub authorization: Mutex<Option<String>>,
    /// It answered by TLS where plain HTTP was guessed.
    tls: AtomicBool,
    /// A mirror that failed: not asked again by this client.
    pub down: AtomicBool,
}

impl Place {
    /// A host of which nothing is known yet; `ca_pem` are trust anchors beside its own.
    pub(super) fn new(mut endpoint: Endpoint, ca_pem: &[u8]) -> Place {
        let mut anchors = std::mem::take(&mut endpoint.ca_pem);
        anchors.extend(ca_pem);
        let client = std::mem::take(&mut endpoint.client);
        let trust = Trust { ca_pem: anchors, client, skip_verify: endpoint.skip_verify, mirror: endpoint.mirror };
        Place {
            endpoint,
            http: Http::new(trust),
            authorization: Mutex::default(),
            tls: AtomicBool::new(false),
            down: AtomicBool::new(false),
        }
    }

    pub(super) fn known(&self) -> Option<String> {
        self.authorization.lock().ok()?.clone()
    }

    /// The URL with the scheme this host turned out to speak.
    pub(super) fn seen(&self, url: Url) -> Url {
        let tls = self.tls.load(Ordering::Relaxed) && url.authority == self.endpoint.base.authority;
        Url { https: url.https || tls, ..url }
    }

    /// One exchange. A registry on loopback that answers nonsense to plain HTTP is asked by HTTPS, unless plain HTTP was configured.
    pub(super) fn send(
        &self,
        request: &Request<'_>,
        url: &Url,
        headers: &[(&str, String)],
        own_host: bool,
    ) -> Result<Response, Error> {
        let url = self.seen(url.clone());
        let done = self.http.send(request.method, &url, headers, &request.payload, own_host);
        let may_be_tls = self.endpoint.guessed && !url.https && url.authority == self.endpoint.base.authority;
        let is_nonsense = match &done {
            Ok(response) => {
                response.status().as_u16() == 400 && header(response, "docker-distribution-api-version").is_none()
            }
            Err(Error::Network { why, .. }) => !why.contains("refused") && !why.contains("timed out"),
            Err(_) => false,
        };
        if !may_be_tls || !is_nonsense {
            return done;
        }
        let secure = self.http.send(request.method, &Url { https: true, ..url }, headers, &request.payload, own_host);
        match &secure {
            // It speaks no TLS either, or nothing at all: then the first answer is the one to tell.
            Err(Error::Network { why, .. }) if !why.starts_with("TLS: ") => done,
            _ => {
                self.tls.store(true, Ordering::Relaxed);
                secure
            }
        }
    }
}
