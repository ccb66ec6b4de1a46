//! From a request to its answer: who asks, may they, what is meant.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request};
use mote_api::status::Status;
use mote_api::tree::{Value, json};

use super::answer::{self, Answer};
use super::asked::Asked;
use super::{App, discovery, gate, health, openapi, resource, trail};
use crate::api::request::{Query, Target, decode};
use crate::auth::impersonate;
use crate::user::UserInfo;

pub(crate) async fn handle(
    app: &Rc<App>,
    user: Option<Rc<UserInfo>>,
    from: Option<IpAddr>,
    request: Request<Incoming>,
) -> Answer {
    app.api.requests.set(app.api.requests.get() + 1);
    let (mut head, body) = request.into_parts();
    let path = decode_path(head.uri.path());
    let query = Query::parse(head.uri.query().unwrap_or(""));
    if matches!(head.method, Method::GET | Method::HEAD)
        && let Some(answer) = health::answer(app, &path, &query).await
    {
        return answer;
    }
    let received = app.api.now();
    let sender = match gate::prove(app, user, &head.headers).await {
        Ok(user) => user,
        Err(status) => return answer::status(&status),
    };
    let _seat = match app.flow.enter(&sender.name).await {
        Ok(seat) => seat,
        Err(status) => return answer::status(&status),
    };
    let upgrade = RefCell::new(head.extensions.remove::<OnUpgrade>());
    let (method, uri, headers) = (head.method, head.uri, head.headers);
    let mut asked = Asked { method, path, uri, query, headers, user: sender.clone(), upgrade, kept: None };
    let audited = app.audit.is_some().then(|| trail::Trail::new(app, &mut asked, from, received));
    let done = match impersonate::apply(&app.api, sender, &asked.headers).await {
        Ok(user) => {
            asked.user = user;
            dispatch(app, &asked, body).await
        }
        Err(status) => Err(status),
    };
    let (answer, message) = match done {
        Ok(answer) => (answer, String::new()),
        Err(status) => {
            if status.code >= 500 {
                log::warn!("{} {}: {}", asked.method, asked.path, status.message);
            }
            (answer::status(&status), status.message)
        }
    };
    if let Some(trail) = audited {
        trail.end(app, &asked, &answer, &message);
    }
    if answer::wants_yaml(&asked.headers) { answer::in_yaml(answer) } else { answer }
}

/// Percent-decoding of paths: `+` stays.
fn decode_path(path: &str) -> String {
    decode(&path.replace('+', "%2B"))
}

async fn dispatch(app: &Rc<App>, asked: &Asked, body: Incoming) -> Result<Answer, Status> {
    let registry = app.api.registry();
    if let Some(target) = Target::parse(&registry, asked.method.as_str(), &asked.path, &asked.query) {
        let target = target?;
        gate::resource(app, asked, &target).await?;
        return resource::handle(app, asked, &target, body).await;
    }
    app.api.authorize_path(&asked.user, &asked.method.as_str().to_ascii_lowercase(), &asked.path).await?;
    if asked.method != Method::GET && asked.method != Method::HEAD {
        return Err(Status::no_such_resource());
    }
    let path = asked.path.trim_end_matches('/');
    match path {
        "/version" => Ok(answer::value(200, &version())),
        "/metrics" => Ok(answer::bytes(200, "text/plain; version=0.0.4", metrics(app))),
        "/openid/v1/jwks" => Ok(answer::value(200, &app.tokens.accounts.jwks())),
        "/.well-known/openid-configuration" => Ok(answer::value(200, &app.tokens.accounts.configuration(&app.url))),
        "/openapi/v2" => openapi::v2(&app.api, &registry, asked).await,
        "/openapi/v3" => Ok(answer::value(200, &openapi::index(&registry))),
        "" => Ok(answer::value(
            200,
            &json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
        )),
        _ => match path.strip_prefix("/openapi/v3/") {
            Some(group_version) => openapi::group_version(&app.api, &registry, asked, group_version).await,
            None => discovery::answer(app, asked, &registry, path),
        },
    }
}

/// A version that clients of 1.36 compare themselves with.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": concat!("v1.36.0-mote", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    })
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn metrics(app: &App) -> String {
    let rows = [
        ("apiserver_request_total", "counter", app.api.requests.get()),
        ("apiserver_open_connections", "gauge", app.connections.get() as u64),
        ("apiserver_longrunning_requests", "gauge", app.watches.get() as u64),
        ("minicp_store_revision", "counter", app.api.store.revision().0),
    ];
    rows.iter().map(|(name, ty, value)| format!("# TYPE {name} {ty}\n{name} {value}\n")).collect()
}
