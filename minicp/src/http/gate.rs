//! The gate that every request passes: who asks, as whom, and may they.

use std::rc::Rc;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use mote_api::status::Status;

use super::App;
use super::asked::Asked;
use crate::api::request::{Target, Verb};
use crate::user::{Attributes, UserInfo};

/// The user of a request; `user`: known by its connection.
pub(super) async fn prove(app: &App, user: Option<Rc<UserInfo>>, headers: &HeaderMap) -> Result<Rc<UserInfo>, Status> {
    Ok(match user {
        Some(user) => user,
        None => {
            let header = headers.get(AUTHORIZATION).and_then(|h| h.to_str().ok());
            Rc::new(app.tokens.user(&app.api, header).await.ok_or_else(Status::unauthorized)?)
        }
    })
}

/// What a field selector wants of a field, by equality.
fn selected<'a>(selector: &'a str, field: &str) -> &'a str {
    let value = |term: &'a str| Some(term.trim().strip_prefix(field)?.strip_prefix('=')?.trim_start_matches('='));
    selector.split(',').find_map(value).unwrap_or("")
}

/// Whether the user may do that to the resource.
pub(super) async fn resource(app: &App, asked: &Asked, target: &Target) -> Result<(), Status> {
    let fields = match target.verb {
        Verb::List | Verb::Watch | Verb::DeleteCollection => asked.query.get("fieldSelector"),
        _ => "",
    };
    let name = if target.name.is_empty() { selected(fields, "metadata.name") } else { &target.name };
    // Over a WebSocket these come as GET: who may but read shall not run commands.
    let verb = match (target.verb, target.sub.as_str()) {
        (Verb::Get, "exec" | "attach" | "portforward") => Verb::Create,
        (verb, _) => verb,
    };
    let what = Attributes {
        verb: verb.name(),
        group: &target.kind.group,
        resource: &target.kind.plural,
        sub: &target.sub,
        ns: if target.kind.is("", "Namespace") { &target.name } else { &target.ns },
        name,
        path: "",
        node: selected(fields, "spec.nodeName"),
    };
    let verdict = app.api.authorize(&asked.user, &what).await;
    verdict.map_err(|why| Status::forbidden(&target.kind, &target.name, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        for (selector, want) in [
            ("metadata.name=a", "a"),
            ("spec.x=1,metadata.name==a", "a"),
            ("metadata.name!=a", ""),
            ("metadata.names=a", ""),
            ("", ""),
        ] {
            assert_eq!(selected(selector, "metadata.name"), want, "{selector}");
        }
    }
}
