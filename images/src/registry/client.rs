//! Requests to one repository: scheme, authentication, redirects, retries. Decisions are in [`super::auth`] and [`super::url`].

use std::collections::HashMap;
use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use super::auth::{Answer, answer, redirect};
use super::transport::{Http, Payload, Response, without_query};
use super::url::{Url, is_loopback};
use super::{Credentials, Registries};
use crate::limits::{ANSWER_BYTES_MAX, ATTEMPTS_MAX, REDIRECTS_MAX};
use crate::{Cancel, Error, Reference};

/// What a request is for, in a token's scope.
#[derive(Clone, Copy)]
pub enum Right {
    Pull,
    Push,
}

/// One request.
pub struct Request<'a> {
    pub method: &'a str,
    pub url: Url,
    pub headers: Vec<(&'a str, String)>,
    pub payload: Payload<'a>,
    pub right: Right,
}

/// A connection to the registry (and mirrors) of one repository; shared by the threads of a pull.
pub struct Client {
    http: Http,
    reference: Reference,
    credentials: Option<Credentials>,
    plain_http: Vec<String>,
    /// Base URLs, in the order to ask: mirrors, then the registry itself.
    bases: Vec<Url>,
    /// `Authorization` by authority.
    authorizations: Mutex<HashMap<String, String>>,
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
        let credentials = match (credentials, &registries.docker_config) {
            (Some(credentials), _) => Some(credentials),
            (None, Some(path)) => Credentials::from_docker_config_file(path, reference)?,
            (None, None) => None,
        };
        let authority = match reference.registry() {
            crate::reference::DEFAULT_REGISTRY => "registry-1.docker.io".to_owned(),
            other => other.to_owned(),
        };
        let mut bases = Vec::new();
        for (_, mirror) in registries.mirrors.iter().filter(|(host, _)| host == reference.registry()) {
            bases.push(
                Url::parse(mirror)
                    .ok_or_else(|| Error::refused(format!("mirror {mirror:?}"), "not an http or https URL"))?,
            );
        }
        // Loopback speaks plain HTTP unless it turns out not to; everything else only where that was configured (as docker does).
        let plain =
            is_loopback(&authority) || registries.plain_http.iter().any(|host| host.eq_ignore_ascii_case(&authority));
        bases.push(Url { https: !plain, authority, path: "/".to_owned() });
        Ok(Client {
            http: Http::new(registries.ca_pem.clone()),
            reference: reference.clone(),
            credentials,
            plain_http: registries.plain_http.clone(),
            bases,
            authorizations: Mutex::default(),
            cancel: cancel.clone(),
        })
    }

    /// Which repository.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// URLs to ask for `/v2/<repository>/<path>`, mirrors first.
    pub fn places(&self, path: &str) -> Vec<Url> {
        let repository = self.reference.repository();
        self.bases
            .iter()
            .map(|base| Url {
                path: format!("{}/v2/{repository}/{path}", base.path.trim_end_matches('/')),
                ..base.clone()
            })
            .collect()
    }

    /// GET of the first place that has it. Only 200 and 206 are successes.
    pub fn get(&self, path: &str, headers: &[(&'static str, String)]) -> Result<Response, Error> {
        let mut last = None;
        for url in self.places(path) {
            let request =
                Request { method: "GET", url, headers: headers.to_vec(), payload: Payload::None, right: Right::Pull };
            match self.request(&request).and_then(|(_, response)| self.expect(response, &[200, 206], path)) {
                Ok(response) => return Ok(response),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or(Error::Cancelled))
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
        let mut attempt = 0;
        loop {
            self.cancel.check()?;
            let outcome = self.follow(request);
            let pause = match &outcome {
                Ok((_, response)) if matches!(response.status().as_u16(), 429 | 500 | 502 | 503 | 504) => {
                    retry_after(response)
                }
                Err(e @ Error::Network { .. }) if e.is_retryable() => None,
                _ => return outcome,
            };
            attempt += 1;
            if attempt >= ATTEMPTS_MAX {
                return outcome;
            }
            self.pause(pause.unwrap_or_else(|| back_off(attempt)))?;
        }
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
        let mut url = request.url.clone();
        let home = url.clone();
        let mut may_authorize = true;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.authorized(request, &url, may_authorize && self.is_ours(&home))?;
            let status = response.status().as_u16();
            let location = header(&response, "location");
            match (status, location) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => {
                    let (next, same) = redirect(&url, &location).map_err(|why| Error::Network {
                        what: without_query(&url),
                        why,
                        retryable: false,
                    })?;
                    may_authorize &= same;
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

    /// Credentials are for the reference's own registry, never for a mirror.
    fn is_ours(&self, url: &Url) -> bool {
        self.bases.last().is_some_and(|own| own.authority == url.authority)
    }

    fn authorized(&self, request: &Request<'_>, url: &Url, with_credentials: bool) -> Result<Response, Error> {
        let mut authorization = self.known(&url.authority).filter(|_| with_credentials);
        for round in 0.. {
            let mut headers = request.headers.clone();
            headers.extend(authorization.take().map(|value| ("authorization", value)));
            let response = self.send(request, url, &headers)?;
            if response.status().as_u16() != 401 || round > 0 || !with_credentials {
                return Ok(response);
            }
            let challenges: Vec<String> = response
                .headers()
                .get_all("www-authenticate")
                .iter()
                .filter_map(|v| v.to_str().ok())
                .map(str::to_owned)
                .collect();
            let actions = match request.right {
                Right::Pull => "pull",
                Right::Push => "pull,push",
            };
            let scope = format!("repository:{}:{actions}", self.reference.repository());
            let answered = match answer(url, &challenges, self.credentials.as_ref(), &scope) {
                Answer::Authorize(value) => value,
                Answer::Token { url, authorization } => self.token(url, authorization, None)?,
                Answer::Exchange { url, form } => self.token(url, None, Some(form))?,
                Answer::Refused(why) => {
                    return Err(Error::Unauthorized { what: self.reference.to_string(), reason: why });
                }
            };
            if let Ok(mut known) = self.authorizations.lock() {
                known.insert(url.authority.clone(), answered.clone());
            }
            authorization = Some(answered);
        }
        Err(Error::Cancelled)
    }

    fn known(&self, authority: &str) -> Option<String> {
        self.authorizations.lock().ok()?.get(authority).cloned()
    }

    /// One exchange. A registry on loopback that answers nonsense to plain HTTP is asked by HTTPS, unless plain HTTP was configured.
    fn send(&self, request: &Request<'_>, url: &Url, headers: &[(&str, String)]) -> Result<Response, Error> {
        let done = self.http.send(request.method, url, headers, &request.payload);
        let may_be_tls = !url.https && is_loopback(&url.authority) && !self.plain_http.contains(&url.authority);
        let is_nonsense = match &done {
            Ok(response) => {
                response.status().as_u16() == 400 && header(response, "docker-distribution-api-version").is_none()
            }
            Err(Error::Network { why, .. }) => !why.contains("refused") && !why.contains("timed out"),
            Err(_) => false,
        };
        if may_be_tls && is_nonsense {
            let secure = Url { https: true, ..url.clone() };
            if let Ok(response) = self.http.send(request.method, &secure, headers, &request.payload) {
                return Ok(response);
            }
        }
        done
    }

    fn token(&self, url: Url, authorization: Option<String>, form: Option<String>) -> Result<String, Error> {
        let what = format!("token from {}", without_query(&url));
        let mut headers: Vec<(&str, String)> =
            authorization.into_iter().map(|value| ("authorization", value)).collect();
        let response = match &form {
            None => self.http.send("GET", &url, &headers, &Payload::None)?,
            Some(form) => {
                headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
                self.http.send("POST", &url, &headers, &Payload::Bytes(form.as_bytes()))?
            }
        };
        let status = response.status().as_u16();
        let body = read_all(response);
        if status != 200 {
            let reason = reason(status, &body);
            return Err(if matches!(status, 400..=403) {
                Error::Unauthorized { what, reason }
            } else {
                Error::Network { what, why: reason, retryable: status >= 500 || status == 429 }
            });
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = ["token", "access_token"].iter().find_map(|name| answer.get(name)?.as_str());
        match token {
            Some(token) if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(format!("Bearer {token}"))
            }
            _ => Err(Error::Unauthorized { what, reason: "the answer contains no token".to_owned() }),
        }
    }
}

/// A header's text.
pub fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Up to [`ANSWER_BYTES_MAX`] bytes of a body, as far as they come.
fn read_all(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let _ = response.into_body().into_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut body); // only to quote from
    body
}

/// Seconds of `Retry-After`, at most a minute.
fn retry_after(response: &Response) -> Option<Duration> {
    header(response, "retry-after")?.trim().parse::<u64>().ok().map(|seconds| Duration::from_secs(seconds.min(60)))
}

/// 0.2 s, doubled each time, at most 10 s.
pub fn back_off(attempt: u32) -> Duration {
    Duration::from_millis((200u64 << attempt.saturating_sub(1).min(10)).min(10_000))
}

/// What the registry says went wrong: the messages of its error document, else the status (distribution specification, "Error Codes").
fn reason(status: u16, body: &[u8]) -> String {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut said: Vec<String> = Vec::new();
    for error in document.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter().take(4)
    {
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = if text("message").is_empty() { text("code") } else { text("message") };
        said.push(message.chars().filter(|c| !c.is_control()).take(200).collect());
    }
    if said.is_empty() {
        let details =
            document.get("details").or_else(|| document.get("message")).and_then(Value::as_str).unwrap_or_default();
        if !details.is_empty() {
            said.push(details.chars().filter(|c| !c.is_control()).take(200).collect());
        }
    }
    let code = ureq::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|code| code.canonical_reason())
        .unwrap_or("unknown status");
    match said.is_empty() {
        true => format!("{status} {code}"),
        false => format!("{} ({status} {code})", said.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_speaks_for_itself() {
        let body =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}},{"code":"DENIED"}]}"#;
        assert_eq!(reason(404, body), "manifest unknown, DENIED (404 Not Found)");
        assert_eq!(
            reason(401, br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password (401 Unauthorized)"
        );
        assert_eq!(reason(502, b"<html>"), "502 Bad Gateway");
        assert_eq!(reason(799, b""), "799 unknown status");
    }

    #[test]
    fn pauses_double_and_end() {
        assert_eq!([1, 2, 3, 40].map(|n| back_off(n).as_millis()), [200, 400, 800, 10_000]);
    }
}
