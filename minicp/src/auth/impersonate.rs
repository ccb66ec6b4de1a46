//! Acting as another: the `Impersonate-*` headers, each allowed by the verb `impersonate` on what it names.

use std::rc::Rc;

use hyper::HeaderMap;
use mote_api::kind::Kind;
use mote_api::status::Status;

use crate::api::Api;
use crate::api::request::decode;
use crate::user::{Attributes, UserInfo, account_of};

const EXTRA: &str = "impersonate-extra-";
/// Groups and further facts of one request.
const VALUES_MAX: usize = 64;

/// Who is asked for; None: nobody but the sender.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let all = |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned);
    let groups: Vec<String> = all("impersonate-group").take(VALUES_MAX).collect();
    let mut user = UserInfo { name: text("impersonate-user"), uid: text("impersonate-uid"), groups, extra: Vec::new() };
    for key in headers.keys().filter_map(|k| k.as_str().strip_prefix(EXTRA)).take(VALUES_MAX) {
        user.extra.push((decode(key), all(&format!("{EXTRA}{key}")).take(VALUES_MAX).collect()));
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user == UserInfo::default() {
        return Ok(None);
    }
    Err(Status::internal(format!("requested {:?} without impersonating a user", user.groups)))
}

/// The user a request is made as.
pub(crate) async fn apply(api: &Api, user: Rc<UserInfo>, headers: &HeaderMap) -> Result<Rc<UserInfo>, Status> {
    // The common case, at the cost of one look.
    if !headers.keys().any(|k| k.as_str().starts_with("impersonate-")) {
        return Ok(user);
    }
    let Some(mut to) = wanted(headers)? else { return Ok(user) };
    let core = Attributes { verb: "impersonate", ..Attributes::default() };
    let beside = Attributes { group: "authentication.k8s.io", ..core };
    let mut asks = match account_of(&to.name) {
        Some((ns, name)) => vec![Attributes { resource: "serviceaccounts", ns, name, ..core }],
        None => vec![Attributes { resource: "users", name: &to.name, ..core }],
    };
    asks.extend(to.groups.iter().map(|name| Attributes { resource: "groups", name, ..core }));
    if !to.uid.is_empty() {
        asks.push(Attributes { resource: "uids", name: &to.uid, ..beside });
    }
    for (sub, values) in &to.extra {
        asks.extend(values.iter().map(|name| Attributes { resource: "userextras", sub, name, ..beside }));
    }
    for ask in asks {
        if let Err(why) = api.authorize(&user, &ask).await {
            return Err(Status::forbidden(&pseudo_kind(&ask), ask.name, &why));
        }
    }
    if to.groups.is_empty()
        && let Some((ns, _)) = account_of(&to.name)
    {
        to.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{ns}")];
    }
    let base = if to.name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !to.is_in(base) {
        to.groups.push(base.into());
    }
    Ok(Rc::new(to))
}

/// Users and groups are no kinds; a refusal speaks of them as if they were.
fn pseudo_kind(ask: &Attributes<'_>) -> Kind {
    Kind {
        group: ask.group.to_owned().into(),
        version: "v1".into(),
        kind: ask.resource.to_owned().into(),
        plural: ask.resource.to_owned().into(),
        singular: "".into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: !ask.ns.is_empty(),
        verbs: mote_api::kind::Verbs::CreateOnly,
        subresources: Vec::new(),
        type_name: "".into(),
        custom: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    #[test]
    fn headers() {
        let parse = |list: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in list {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            wanted(&headers)
        };
        assert_eq!(parse(&[]).unwrap(), None);
        let user = parse(&[
            ("impersonate-user", "a"),
            ("impersonate-group", "g"),
            ("impersonate-group", "h"),
            ("impersonate-extra-x%2fy", "1"),
        ]);
        let user = user.unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups.join(",").as_str()), ("a", "g,h"));
        assert_eq!(user.extra, [("x/y".to_owned(), vec!["1".to_owned()])]);
        assert_eq!(parse(&[("impersonate-group", "g")]).unwrap_err().code, 500);
    }
}
