//! Requests to one repository: whom to ask, authentication, redirects, retries. Decisions are in [`super::auth`], [`super::hosts`] and
//! [`super::url`]; one exchange
//! ([`super::exchange`]) is [`super::place`]'s.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::auth::redirect;
use super::exchange::{Request, Right, header, read_all, reason};
use super::hosts::{Disk, Need, endpoints};
use super::place::Place;
use super::transport::{Payload, Response, without_query};
use super::url::{Url, encode};
use super::{Credentials, Registries};
use crate::digest::Digest;
use crate::limits::{ATTEMPTS_MAX, REDIRECTS_MAX};
use crate::{Cancel, Error, Reference};

/// A connection to the registry (and mirrors) of one repository; shared by the threads of a pull.
pub struct Client {
    pub(super) reference: Reference,
    /// The caller's, for the registry itself.
    pub(super) credentials: Option<Credentials>,
    pub(super) registries: Registries,
    /// Another repository of this registry that blobs may be taken from.
    pub(super) source: Option<String>,
    /// In the order to ask: mirrors, then the registry itself.
    places: Vec<Place>,
    cancel: Cancel,
}

impl Client {
    /// For the repository of this reference.
    pub fn new(
        reference: &Reference,
        credentials: Option<Credentials>,
        registries: &Registries,
        cancel: &Cancel,
    ) -> Result<Client, Error> {
        let places = endpoints(reference, registries, &Disk)?;
        let places = places.into_iter().map(|endpoint| Place::new(endpoint, &registries.ca_pem));
        Ok(Client {
            reference: reference.clone(),
            credentials,
            registries: registries.clone(),
            source: None,
            places: places.collect(),
            cancel: cancel.clone(),
        })
    }

    /// Asks for the right to take blobs from this repository of the same registry too, with every token to push.
    pub fn taking_from(self, repository: &str) -> Client {
        Client { source: Some(repository.to_owned()), ..self }
    }

    /// Which repository.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Places (and URLs there) to ask for `<path>` of the repository, mirrors first.
    pub fn places(&self, path: &str, need: Need) -> Vec<(usize, Url)> {
        let repository = self.reference.repository();
        let fit = self.places.iter().enumerate().filter(|(_, place)| place.endpoint.can.allow(need));
        fit.map(|(index, place)| {
            let base = &place.endpoint.base;
            let url = Url { path: format!("{}/{repository}/{path}", base.path), ..base.clone() };
            match place.endpoint.mirror {
                true => (index, url.with_query(&format!("ns={}", encode(self.reference.registry())))),
                false => (index, url),
            }
        })
        .collect()
    }

    /// GET of the first place that has it. Only 200 and 206 are successes.
    pub fn get(&self, path: &str, headers: &[(&'static str, String)]) -> Result<Response, Error> {
        let need = match path.strip_prefix("manifests/") {
            Some(selector) if selector.parse::<Digest>().is_err() => Need::Resolve,
            _ => Need::Pull,
        };
        let places = self.places(path, need);
        let count = places.len();
        let mut last = None;
        for (nth, (place, url)) in places.into_iter().enumerate() {
            if self.place(place).is_some_and(|place| place.down.load(Ordering::Relaxed)) && nth + 1 < count {
                continue;
            }
            let named = without_query(&url);
            let request = Request {
                method: "GET",
                place,
                url,
                headers: headers.to_vec(),
                payload: Payload::None,
                right: Right::Pull,
            };
            match self.request(&request).and_then(|(_, response)| self.expect(response, &[200, 206], path)) {
                Ok(response) => return Ok(response),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(e) if nth + 1 < count => {
                    // What a mirror lacks it may have of another image; one that fails is not asked again.
                    if !matches!(e, Error::NotFound { .. }) {
                        log::warn!("mirror {named}: {e}; asking the next");
                        self.place(place).inspect(|place| place.down.store(true, Ordering::Relaxed));
                    }
                }
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::refused(
                self.reference.to_string(),
                format!("no configured host of {} may be asked for {path}", self.reference.registry()),
            )
        }))
    }

    /// The response if its status is one of `wanted`; else the registry's own reason as an error.
    pub fn expect(&self, response: Response, wanted: &[u16], path: &str) -> Result<Response, Error> {
        let status = response.status().as_u16();
        if wanted.contains(&status) {
            return Ok(response);
        }
        let reason = reason(status, &read_all(response));
        let what = match path.split_once('/') {
            Some(("manifests", _)) => self.reference.to_string(),
            _ => format!("{}/{}: {path}", self.reference.registry(), self.reference.repository()),
        };
        Err(match status {
            404 => Error::NotFound { what, reason },
            401 | 403 => Error::Unauthorized { what, reason },
            _ => Error::Network { what, why: reason, retryable: status >= 500 || matches!(status, 408 | 425 | 429) },
        })
    }

    /// Sends, answers challenges, follows redirects, tries again where that may help. Returns the last URL too.
    pub fn request(&self, request: &Request<'_>) -> Result<(Url, Response), Error> {
        let mirror = self.place(request.place).is_some_and(|place| place.endpoint.mirror)
            && request.place + 1 < self.places.len();
        let attempts = if mirror { 2 } else { ATTEMPTS_MAX };
        let mut attempt = 0;
        loop {
            self.cancel.check()?;
            let outcome = self.follow(request);
            let pause = match &outcome {
                Ok((_, response)) if matches!(response.status().as_u16(), 429 | 500 | 502 | 503 | 504) => {
                    retry_after(response)
                }
                Err(e @ Error::Network { .. }) if e.is_retryable() && !mirror => None,
                _ => return outcome,
            };
            attempt += 1;
            if attempt >= attempts {
                return outcome;
            }
            self.pause(pause.unwrap_or_else(|| back_off(attempt)))?;
        }
    }

    /// As [`Client::request`], but without another try where the connection breaks or the registry is busy.
    pub fn once(&self, request: &Request<'_>) -> Result<(Url, Response), Error> {
        self.cancel.check()?;
        self.follow(request)
    }

    fn place(&self, index: usize) -> Option<&Place> {
        self.places.get(index)
    }

    /// Sleeps in small steps, so that a cancelled pull ends at once.
    pub fn pause(&self, length: Duration) -> Result<(), Error> {
        let step = Duration::from_millis(50);
        for _ in 0..(length.as_millis() / step.as_millis()).max(1) {
            self.cancel.check()?;
            std::thread::sleep(step);
        }
        Ok(())
    }

    fn follow(&self, request: &Request<'_>) -> Result<(Url, Response), Error> {
        let place = self.place(request.place).ok_or(Error::Cancelled)?;
        let mut url = place.seen(request.url.clone());
        // Credentials, configured headers and our certificate are for the place's own host.
        let mut own_host = url.authority == place.endpoint.base.authority;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.authorized(request, place, &url, own_host)?;
            url = place.seen(url);
            let status = response.status().as_u16();
            let location = header(&response, "location");
            match (status, location) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => {
                    let (next, same) = redirect(&url, &location, &self.registries.plain_http)
                        .map_err(|why| Error::Network { what: without_query(&url), why, retryable: false })?;
                    own_host &= same;
                    url = next;
                }
                _ => return Ok((url, response)),
            }
        }
        Err(Error::Network {
            what: without_query(&request.url),
            why: format!("more than {REDIRECTS_MAX} redirects"),
            retryable: false,
        })
    }

    fn authorized(&self, request: &Request<'_>, place: &Place, url: &Url, own_host: bool) -> Result<Response, Error> {
        let mut authorization = place.known().filter(|_| own_host);
        for round in 0.. {
            let mut headers = request.headers.clone();
            if own_host {
                headers.extend(place.endpoint.headers.iter().map(|(name, value)| (name.as_str(), value.clone())));
            }
            if let Some(value) = authorization.take() {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
                headers.push(("authorization", value));
            }
            let response = place.send(request, url, &headers, own_host)?;
            if response.status().as_u16() != 401 || round > 0 || !own_host {
                return Ok(response);
            }
            let answered = self.challenged(request, place, url, &response)?;
            if let Ok(mut known) = place.authorization.lock() {
                *known = Some(answered.clone());
            }
            authorization = Some(answered);
        }
        Err(Error::Cancelled)
    }
}

/// Seconds of `Retry-After`, at most a minute.
fn retry_after(response: &Response) -> Option<Duration> {
    header(response, "retry-after")?.trim().parse::<u64>().ok().map(|seconds| Duration::from_secs(seconds.min(60)))
}

/// 0.2 s, doubled each time, at most 10 s; a quarter more or less by chance, so that a fleet does not come back in step.
pub fn back_off(attempt: u32) -> Duration {
    let mut chance = [0u8; 1];
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut chance); // without chance it is still a pause
    jittered(attempt, u32::from(u8::from_ne_bytes(chance)))
}

/// `chance` of 0 to 255 makes three to five quarters of the pause.
fn jittered(attempt: u32, chance: u32) -> Duration {
    let whole = Duration::from_millis((200u64 << attempt.saturating_sub(1).min(10)).min(10_000));
    whole * (384 + chance) / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        assert_eq!([1, 2, 3, 40].map(|n| jittered(n, 128).as_millis()), [200, 400, 800, 10_000]);
        assert_eq!([0, 255].map(|chance| jittered(1, chance).as_millis()), [150, 249]);
        assert!((150..250).contains(&back_off(1).as_millis()));
    }
}
