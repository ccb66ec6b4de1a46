//! The answer to a challenge, where it takes another request: credentials are looked up, a token is fetched.

use serde_json::Value;

use super::Credentials;
use super::auth::{Answer, answer, basic};
use super::client::Client;
use super::exchange::{Request, Right, read_all, reason};
use super::place::Place;
use super::transport::{Payload, Response, without_query};
use super::url::Url;
use crate::Error;

impl Client {
    /// The `Authorization` that answers a 401.
    pub(super) fn challenged(
        &self,
        request: &Request<'_>,
        place: &Place,
        url: &Url,
        response: &Response,
    ) -> Result<String, Error> {
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
        let also = match (&self.source, request.right) {
            (Some(source), Right::Push) => format!("repository:{source}:pull"),
            _ => String::new(),
        };
        let credentials = self.credentials_of(place)?;
        match answer(url, &challenges, credentials.as_ref(), &scope, &also) {
            Answer::Authorize(value) => Ok(value),
            Answer::Token { url, authorization } => self.token(place, &url, authorization, None),
            Answer::Exchange { url, form, instead } => match self.token(place, &url, None, Some(form)) {
                // Not every token server knows OAuth2; those take the token as a password.
                Err(Error::Network { retryable: false, .. } | Error::NotFound { .. }) => {
                    self.token(place, &instead, credentials.as_ref().map(basic), None)
                }
                done => done,
            },
            Answer::Refused(why) => Err(Error::Unauthorized { what: self.reference.to_string(), reason: why }),
        }
    }

    /// What the caller gave is for the registry itself and never for a mirror; what the docker configuration says is by host.
    fn credentials_of(&self, place: &Place) -> Result<Option<Credentials>, Error> {
        if !place.endpoint.mirror && self.credentials.is_some() {
            return Ok(self.credentials.clone());
        }
        let Some(path) = &self.registries.docker_config else { return Ok(None) };
        let host = if place.endpoint.mirror { &place.endpoint.base.authority } else { self.reference.registry() };
        Credentials::from_docker_config_file(path, host, self.reference.repository())
    }

    fn token(
        &self,
        place: &Place,
        url: &Url,
        authorization: Option<String>,
        form: Option<String>,
    ) -> Result<String, Error> {
        let what = format!("token from {}", without_query(url));
        let own_host = url.authority == place.endpoint.base.authority;
        let mut headers: Vec<(&str, String)> =
            authorization.into_iter().map(|value| ("authorization", value)).collect();
        let response = match &form {
            None => place.http.send("GET", url, &headers, &Payload::None, own_host)?,
            Some(form) => {
                headers.push(("content-type", "application/x-www-form-urlencoded".to_owned()));
                place.http.send("POST", url, &headers, &Payload::Bytes(form.as_bytes()), own_host)?
            }
        };
        let status = response.status().as_u16();
        let body = read_all(response);
        if status != 200 {
            let reason = reason(status, &body);
            return Err(match status {
                404 => Error::NotFound { what, reason },
                400..=403 => Error::Unauthorized { what, reason },
                _ => Error::Network { what, why: reason, retryable: status >= 500 || status == 429 },
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
