//! What to do about `401 Unauthorized` and about redirects. Pure: headers in, decisions out (RFC 9110, 11; Docker's token protocol,
//! distribution `auth/token`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Credentials;
use super::url::{Url, encode, is_loopback};

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    params: Vec<(String, String)>,
}

/// How to go on after a challenge.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Repeat the request with this `Authorization`.
    Authorize(String),
    /// Ask for a token: GET `url`, with `Authorization` if there is one.
    Token { url: Url, authorization: Option<String> },
    /// Exchange a refresh token: POST this form to `url`. A server that does not know how takes it as a password: GET `instead`.
    Exchange { url: Url, form: String, instead: Url },
    /// There is nothing we could answer.
    Refused(String),
}

/// The value of `Authorization` for basic authentication (RFC 7617). An identity token stands in for the password.
pub fn basic(credentials: &Credentials) -> String {
    let secret = credentials.identity_token.as_ref().unwrap_or(&credentials.password);
    format!("Basic {}", STANDARD.encode(format!("{}:{secret}", credentials.username)))
}

/// Chooses an answer to the challenges of `from`. `scope` is asked for where the challenge names none, `also` in any case (if it is not
/// empty): a registry challenges for what it was asked, and may not know yet what comes next.
pub fn answer(from: &Url, headers: &[String], credentials: Option<&Credentials>, scope: &str, also: &str) -> Answer {
    let challenges: Vec<Challenge> = headers.iter().flat_map(|header| challenges(header)).collect();
    if let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
        return token_request(from, bearer, credentials, scope, also);
    }
    if challenges.iter().any(|challenge| challenge.scheme == "basic") {
        return match credentials {
            Some(credentials) => Answer::Authorize(basic(credentials)),
            None => Answer::Refused("the registry wants a user name and password, none are configured".to_owned()),
        };
    }
    match challenges.first() {
        Some(other) => {
            Answer::Refused(format!("the registry wants authentication by {:?}, which is not supported", other.scheme))
        }
        None => Answer::Refused("unauthorized, and the registry does not say how to authenticate".to_owned()),
    }
}

fn token_request(
    from: &Url,
    challenge: &Challenge,
    credentials: Option<&Credentials>,
    scope: &str,
    also: &str,
) -> Answer {
    let param = |name: &str| challenge.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let Some(realm) = param("realm").and_then(Url::parse) else {
        return Answer::Refused("the registry's token challenge names no valid realm".to_owned());
    };
    if !realm.https && from.https && !is_loopback(&realm.authority) {
        return Answer::Refused(format!("the registry asks to fetch a token by plain HTTP from {}", realm.authority));
    }
    let mut scopes: Vec<&str> = param("scope").unwrap_or(scope).split(' ').filter(|one| !one.is_empty()).collect();
    if !also.is_empty() && !scopes.contains(&also) {
        scopes.push(also);
    }
    let service = param("service").unwrap_or_default();
    let mut url = realm.clone();
    if !service.is_empty() {
        url = url.with_query(&format!("service={}", encode(service)));
    }
    for scope in &scopes {
        url = url.with_query(&format!("scope={}", encode(scope)));
    }
    if let Some(token) = credentials.and_then(|credentials| credentials.identity_token.as_deref()) {
        let form = format!(
            "grant_type=refresh_token&service={}&client_id=mote&scope={}&refresh_token={}",
            encode(service),
            encode(&scopes.join(" ")),
            encode(token)
        );
        return Answer::Exchange { url: realm, form, instead: url };
    }
    if let Some(credentials) = credentials {
        url = url.with_query(&format!("account={}", encode(&credentials.username)));
    }
    Answer::Token { url, authorization: credentials.map(basic) }
}

/// `scheme key=value, key="quoted \" value", other-scheme …`
fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let cut = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at_checked(cut).unwrap_or((rest, ""));
        let trimmed = after.trim_start();
        if let Some(value) = trimmed.strip_prefix('=').filter(|_| !word.is_empty() && !found.is_empty()) {
            let (value, after) = parameter(value.trim_start());
            if let Some(last) = found.last_mut() {
                last.params.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            if !word.is_empty() {
                found.push(Challenge { scheme: word.to_ascii_lowercase(), params: Vec::new() });
            }
            rest = trimmed.strip_prefix('=').unwrap_or(trimmed);
        }
        rest = rest.trim_start_matches([',', ' ', '\t']);
    }
    found
}

fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let cut = text.find([',', ' ']).unwrap_or(text.len());
        let (value, rest) = text.split_at_checked(cut).unwrap_or((text, ""));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// Where a redirect leads, and whether credentials may go along: only to the same scheme, host and port. From HTTPS to plain HTTP
/// only on loopback and where that host was configured for it (`plain_http`).
pub fn redirect(from: &Url, location: &str, plain_http: &[String]) -> Result<(Url, bool), String> {
    let to = from.join(location).ok_or_else(|| {
        format!("redirect to an invalid location {:?}", location.chars().take(200).collect::<String>())
    })?;
    let configured = plain_http.iter().any(|host| host.eq_ignore_ascii_case(&to.authority));
    if from.https && !to.https && !is_loopback(&to.authority) && !configured {
        return Err(format!("redirect from HTTPS to plain HTTP at {}", to.authority));
    }
    let same = to.authority == from.authority && to.https == from.https;
    Ok((to, same))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn creds() -> Credentials {
        Credentials { username: "me".into(), password: "s:x".into(), identity_token: None }
    }

    fn from() -> Url {
        Url::parse("https://r.example/v2/").unwrap()
    }

    fn ask(header: &str, credentials: Option<&Credentials>) -> Answer {
        answer(&from(), &[header.to_owned()], credentials, "repository:a/b:pull", "")
    }

    #[test]
    fn challenges_are_answered() {
        let hub = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull""#;
        let url = |account: &str| {
            Url::parse(&format!(
                "https://auth.example/token?service=r.example&scope=repository%3Aa%2Fb%3Apull{account}"
            ))
            .unwrap()
        };
        assert_eq!(ask(hub, None), Answer::Token { url: url(""), authorization: None });
        assert_eq!(
            ask(hub, Some(&creds())),
            Answer::Token { url: url("&account=me"), authorization: Some("Basic bWU6czp4".into()) }
        );
        // no scope in the challenge, unquoted values, odd case and spaces
        assert_eq!(
            ask(r#"bEaReR realm = "https://auth.example/token" , service=r.example"#, None),
            Answer::Token { url: url(""), authorization: None }
        );
        assert_eq!(ask(r#"Basic realm="x""#, Some(&creds())), Answer::Authorize("Basic bWU6czp4".into()));
        assert_eq!(
            ask(&format!("Basic realm=\"a \\\" b, c\", {hub}"), None),
            Answer::Token { url: url(""), authorization: None }
        );
        assert!(matches!(ask(r#"Basic realm="x""#, None), Answer::Refused(_)));
        for refused in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer realm=nonsense",
            "=,=,",
            r#"Bearer realm="http://auth.example/""#,
            "\"",
            "Bearer realm=\"",
        ] {
            assert!(matches!(ask(refused, Some(&creds())), Answer::Refused(_)), "{refused}");
        }
        let with_token = Credentials { identity_token: Some("t&t".into()), ..creds() };
        let Answer::Exchange { form, instead, .. } = ask(hub, Some(&with_token)) else { panic!("want an exchange") };
        assert_eq!((instead, basic(&with_token)), (url(""), "Basic bWU6dCZ0".to_owned()));
        assert!(form.contains("refresh_token=t%26t") && form.contains("scope=repository%3Aa%2Fb%3Apull"));
    }

    #[test]
    fn what_comes_next_is_asked_for_once() {
        let path = |scope: &str, also: &str| {
            let header = format!("Bearer realm=\"https://auth.example/token\"{scope}");
            match answer(&from(), &[header], None, "repository:a/b:pull,push", also) {
                Answer::Token { url, .. } => {
                    url.to_string().replace("%3A", ":").replace("%2F", "/").replace("%2C", ",")
                }
                other => panic!("{other:?}"),
            }
        };
        let (own, other) = ("scope=repository:a/b:pull,push", "repository:c/d:pull");
        let realm = "https://auth.example/token?";
        assert_eq!(path("", ""), format!("{realm}{own}"));
        assert_eq!(path("", other), format!("{realm}{own}&scope={other}"));
        assert_eq!(path(&format!(",scope=\"x {other}\""), other), format!("{realm}scope=x&scope={other}"));
    }

    #[test]
    fn credentials_stay_with_their_host() {
        for (location, want) in [
            ("https://r.example/x", Some(true)),
            ("/x", Some(true)),
            ("https://r.example:444/x", Some(false)),
            ("https://cdn.example/x", Some(false)),
            ("https://r.example.evil/x", Some(false)),
            ("http://r.example/x", None),
            ("http://plain.example/x", Some(false)),
            ("http://127.0.0.1/x", Some(false)),
            ("file:///etc/passwd", None),
        ] {
            let got = redirect(&from(), location, &["plain.example".to_owned()]).ok().map(|(_, same)| same);
            // "file:///…" reads as a path below the own host, which is harmless; it must never be another scheme
            if location.starts_with("file") {
                assert!(got.is_none_or(|same| same));
            } else {
                assert_eq!(got, want, "{location}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics(header in "[ -~é]{0,80}") {
            let _ = ask(&header, Some(&creds()));
            let _ = redirect(&from(), &header, &[]);
        }
    }
}
