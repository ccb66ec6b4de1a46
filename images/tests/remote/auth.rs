//! Challenges, tokens, redirects, and registries that ask for patience.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mote_images::*;

use crate::scripted::{Asked, Server, answer};
use crate::stock::{Stock, file_of, pull};

fn me() -> Credentials {
    Credentials { username: "me".into(), password: "pw".into(), identity_token: None }
}

/// A registry that wants `Bearer <token>` of the token server at `realm`.
fn behind_tokens(stock: Stock, realm: String, good: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    Server::plain(move |asked| match asked.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if good(token) => stock.serve(asked),
        _ => answer(401, r#"{"errors":[{"message":"authentication required"}]}"#).with(
            "www-authenticate",
            format!("Bearer realm=\"http://{realm}/token\",service=\"reg,istry\",scope=\"repository:team/app:pull\""),
        ),
    })
}

#[test]
fn tokens_are_fetched_and_renewed() {
    let tmp = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    let tokens = Server::plain(move |_| {
        answer(200, format!("{{\"access_token\":\"t{}\",\"expires_in\":60}}", count.fetch_add(1, Ordering::Relaxed)))
    });
    // each token is good for two requests: the third finds it expired
    let uses = AtomicUsize::new(0);
    let registry = behind_tokens(Stock::with("1", b"x"), tokens.addr.to_string(), move |token| {
        token == format!("t{}", uses.fetch_add(1, Ordering::Relaxed) / 3)
    });
    let name = format!("{}/team/app:1", registry.addr);
    pull(&tmp.path().join("anonymous"), &name, &Registries::default(), None).unwrap();
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1, "one token for one pull");
    assert_eq!(asked[0].path, "/token?service=reg%2Cistry&scope=repository%3Ateam%2Fapp%3Apull");
    assert!(!asked[0].has("authorization"));
    // a new pull: the same server, another token; with a name and a password the token server gets them, the registry does not
    pull(&tmp.path().join("named"), &name, &Registries::default(), Some(me())).unwrap();
    let last = tokens.asked().pop().unwrap();
    assert!(last.path.ends_with("&account=me") && last.header("authorization") == Some("Basic bWU6cHc="));
    assert!(
        registry
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_none_or(|value| value.starts_with("Bearer ")))
    );
}

#[test]
fn a_token_that_expires_in_the_middle_is_renewed() {
    let tmp = tempfile::tempdir().unwrap();
    let count = AtomicUsize::new(0);
    let tokens =
        Server::plain(move |_| answer(200, format!("{{\"token\":\"t{}\"}}", count.fetch_add(1, Ordering::Relaxed))));
    let current = std::sync::Arc::new(AtomicUsize::new(0));
    let now = current.clone();
    let registry = behind_tokens(Stock::with("1", b"x"), tokens.addr.to_string(), move |token| {
        // the manifest by t0; after that t0 has expired
        token == format!("t{}", now.load(Ordering::Relaxed)) && {
            now.store(1, Ordering::Relaxed);
            true
        }
    });
    pull(&tmp.path().join("store"), &format!("{}/team/app:1", registry.addr), &Registries::default(), None).unwrap();
    assert_eq!(tokens.count("/token"), 2);
}

#[test]
fn refresh_tokens_are_exchanged() {
    let tmp = tempfile::tempdir().unwrap();
    let token = Credentials { identity_token: Some("refresh me".into()), ..me() };
    let good = |token: &str| token == "yes";
    // a server that knows OAuth2
    let tokens = Server::plain(|asked| match asked.method.as_str() {
        "POST" => answer(200, r#"{"access_token":"yes"}"#),
        _ => answer(500, ""),
    });
    let registry = behind_tokens(Stock::with("1", b"x"), tokens.addr.to_string(), good);
    pull(
        &tmp.path().join("one"),
        &format!("{}/team/app:1", registry.addr),
        &Registries::default(),
        Some(token.clone()),
    )
    .unwrap();
    let asked = tokens.asked().pop().unwrap();
    assert!(
        asked.body.contains("grant_type=refresh_token") && asked.body.contains("refresh_token=refresh%20me"),
        "{asked:?}"
    );
    assert!(asked.body.contains("scope=repository%3Ateam%2Fapp%3Apull") && asked.path == "/token");
    // and one that does not: the token as a password
    let tokens = Server::plain(|asked| match asked.method.as_str() {
        "POST" => answer(405, ""),
        _ => answer(200, r#"{"token":"yes"}"#),
    });
    let registry = behind_tokens(Stock::with("1", b"x"), tokens.addr.to_string(), good);
    pull(&tmp.path().join("two"), &format!("{}/team/app:1", registry.addr), &Registries::default(), Some(token))
        .unwrap();
    assert_eq!(tokens.asked().pop().unwrap().header("authorization"), Some("Basic bWU6cmVmcmVzaCBtZQ=="));
    // a wrong one is said to be wrong, once
    let tokens = Server::plain(|_| answer(401, r#"{"details":"incorrect username or password"}"#));
    let registry = behind_tokens(Stock::with("1", b"x"), tokens.addr.to_string(), good);
    let error =
        pull(&tmp.path().join("three"), &format!("{}/team/app:1", registry.addr), &Registries::default(), Some(me()))
            .err()
            .unwrap();
    assert!(
        matches!(error, Error::Unauthorized { .. }) && error.to_string().contains("incorrect username or password"),
        "{error}"
    );
    assert_eq!(tokens.count("/token"), 1);
}

#[test]
fn redirects_take_no_secret_to_another_host() {
    let tmp = tempfile::tempdir().unwrap();
    let stock = Stock::with("1", b"from the store of blobs");
    let served = stock.clone();
    let cdn = Server::plain(move |asked| served.serve(asked));
    let target = cdn.addr;
    let registry = Server::plain(move |asked| {
        if !asked.has("authorization") {
            return answer(401, "{}").with("www-authenticate", "Basic realm=\"x\"");
        }
        match asked.path.split_once("/blobs/") {
            Some((_, digest)) => {
                answer(307, "").with("location", format!("http://{target}/bucket/blobs/{digest}?signature=s"))
            }
            // on the own host the secret goes along
            None if !asked.path.contains("moved") => {
                answer(302, "").with("location", format!("/v2/moved{}", asked.path))
            }
            None => stock.serve(asked),
        }
    });
    let name = format!("{}/team/app:1", registry.addr);
    let image = pull(&tmp.path().join("store"), &name, &Registries::default(), Some(me())).unwrap();
    assert_eq!(file_of(&image), b"from the store of blobs");
    let asked = cdn.asked();
    assert!(
        asked.len() == 2 && asked.iter().all(|asked| !asked.has("authorization") && asked.path.contains("signature=s")),
        "{asked:?}"
    );
    assert!(registry.asked().iter().any(|asked| asked.path.contains("moved") && asked.has("authorization")));
    // in circles, and to nowhere
    for (location, want) in
        [("/v2/again", "more than 5 redirects"), ("ftp://x/", "not found"), ("http://a b/", "invalid location")]
    {
        let circle = Server::plain(move |asked: &Asked| match asked.path.contains("ftp") {
            true => answer(404, ""),
            false => answer(302, "").with("location", location),
        });
        let error = pull(&tmp.path().join("store"), &format!("{}/x:1", circle.addr), &Registries::default(), None)
            .err()
            .unwrap();
        assert!(error.to_string().contains(want), "{location}: {error}");
        assert!(circle.count("") <= 6);
    }
}

#[test]
fn a_busy_registry_is_asked_again_when_it_said_so() {
    let tmp = tempfile::tempdir().unwrap();
    let stock = Stock::with("1", b"x");
    for (status, retry_after, at_least) in [(429, Some("1"), 1000), (503, Some("1"), 1000), (502, None, 150)] {
        let first = AtomicUsize::new(0);
        let served = stock.clone();
        let registry = Server::plain(move |asked| match first.fetch_add(1, Ordering::Relaxed) {
            0 => {
                let busy = answer(status, "{}");
                retry_after.into_iter().fold(busy, |busy, seconds| busy.with("retry-after", seconds))
            }
            _ => served.serve(asked),
        });
        let began = Instant::now();
        pull(&tmp.path().join(status.to_string()), &format!("{}/x:1", registry.addr), &Registries::default(), None)
            .unwrap();
        assert!(began.elapsed() >= Duration::from_millis(at_least), "{status}: {:?}", began.elapsed());
        assert_eq!(registry.count("/manifests/1"), 2);
    }
    // one that is always busy is left after five attempts, and its status is said
    let registry = Server::plain(|_| answer(429, "{}").with("retry-after", "0"));
    let error =
        pull(&tmp.path().join("never"), &format!("{}/x:1", registry.addr), &Registries::default(), None).err().unwrap();
    assert!(error.to_string().contains("429 Too Many Requests") && error.is_retryable(), "{error}");
    assert_eq!(registry.count(""), 5);
    // what will not get better is asked once
    let registry = Server::plain(|_| answer(403, r#"{"errors":[{"message":"no"}]}"#));
    let error =
        pull(&tmp.path().join("never"), &format!("{}/x:1", registry.addr), &Registries::default(), None).err().unwrap();
    assert!(matches!(error, Error::Unauthorized { .. }) && registry.count("") == 1, "{error}");
}

#[test]
fn a_body_that_is_cut_goes_on_where_it_stopped() {
    let tmp = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..400_000u32).flat_map(|n| n.to_be_bytes()).collect();
    let stock = Stock::with("1", &content);
    let registry = Server::plain(move |asked| {
        let mut whole = stock.serve(asked);
        let length = whole.body.len();
        whole.body.truncate(300_000);
        whole.with("content-length", length.to_string())
    });
    let image =
        pull(&tmp.path().join("store"), &format!("{}/x:1", registry.addr), &Registries::default(), None).unwrap();
    assert_eq!(file_of(&image), content);
    let ranges: Vec<String> =
        registry.asked().iter().filter_map(|asked| asked.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges[..3], ["bytes=300000-", "bytes=600000-", "bytes=900000-"]);
}
