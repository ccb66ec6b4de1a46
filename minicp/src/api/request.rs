//! What a request asks for: from method, path and query to a typed question. Pure; nothing is looked up but kinds.

use std::rc::Rc;

use mote_api::kind::{Kind, Registry};
use mote_api::schema::Unknown;
use mote_api::selector::{FieldSelector, LabelSelector};
use mote_api::status::Status;
pub use mote_api::uri::{decode, encode};

use crate::user::UserInfo;

/// What is done, in the words of RBAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
    pub fn reads(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// A request for a resource.
#[derive(Clone)]
pub struct Target {
    pub verb: Verb,
    pub kind: Rc<Kind>,
    /// "": cluster scope, or all namespaces
    pub ns: String,
    /// "": the collection
    pub name: String,
    /// "": the object itself
    pub sub: String,
}

/// Whether the path is `/api/...` or `/apis/...` with a group and version and more.
fn split(path: &str) -> Option<(&str, &str, Vec<&str>)> {
    let mut parts = path.trim_start_matches('/').split('/');
    let group = match parts.next()? {
        "api" => "",
        "apis" => parts.next()?,
        _ => return None,
    };
    let version = parts.next()?;
    let rest: Vec<_> = parts.collect();
    (!rest.is_empty() && !rest.contains(&"")).then_some((group, version, rest))
}

/// How many of a path's parts come before what a proxied request asks of its pod, Service or node: that part means nothing to us.
pub(crate) fn before_tail(path: &str) -> Option<usize> {
    let mut parts = path.trim_start_matches('/').split('/');
    let proxy = match (parts.next()?, parts.next()?, parts.next()?) {
        ("api", _, "namespaces") => 6,
        ("api", _, "nodes") => 4,
        _ => return None,
    };
    (parts.nth(proxy - 3)? == "proxy").then_some(proxy + 1)
}

/// A path without what a proxied request asks.
fn without_tail(path: &str) -> &str {
    let Some(count) = before_tail(path) else { return path };
    let own = path.trim_start_matches('/');
    own.match_indices('/').nth(count - 1).map_or(own, |(end, _)| own.get(..end).unwrap_or(own))
}

impl Target {
    /// `path` percent-decoded. None: not a resource's path.
    pub fn parse(registry: &Registry, method: &str, path: &str, query: &Query) -> Option<Result<Target, Status>> {
        let (group, version, mut rest) = split(without_tail(path))?;
        // Of a proxied request the query is another's.
        let mut watch = query.flag("watch") && before_tail(path).is_none();
        if rest.first() == Some(&"watch") {
            rest.remove(0);
            watch = true;
        }
        let own = |s: Option<&&str>| s.map_or_else(String::new, |s| (*s).to_owned());
        let find = |plural: &str| registry.by_resource(group, version, plural).cloned();
        let in_namespace = rest.first() == Some(&"namespaces") && rest.len() > 2;
        let namespaced = in_namespace.then(|| rest.get(2).and_then(|p| find(p)).filter(|k| k.namespaced)).flatten();
        let (kind, ns, tail) = match namespaced {
            Some(kind) => (kind, own(rest.get(1)), rest.get(3..).unwrap_or_default()),
            // Also /namespaces/x/status and /namespaces/x/finalize.
            None => match rest.first().and_then(|p| find(p)) {
                Some(kind) => (kind, String::new(), rest.get(1..).unwrap_or_default()),
                None => return Some(Err(Status::no_such_resource())),
            },
        };
        let (name, sub) = (own(tail.first()), tail.get(1..).unwrap_or_default().join("/"));
        let plain_sub = sub.split('/').next().unwrap_or_default();
        if (!plain_sub.is_empty() && !kind.has(plain_sub)) || (kind.namespaced && ns.is_empty() && !name.is_empty()) {
            return Some(Err(Status::no_such_resource()));
        }
        let verb = match (method, name.is_empty()) {
            ("GET" | "HEAD", _) if watch => Verb::Watch,
            ("GET" | "HEAD", true) => Verb::List,
            ("GET" | "HEAD", false) => Verb::Get,
            ("POST", true) => Verb::Create,
            ("POST", false) if !sub.is_empty() => Verb::Create,
            ("PUT", false) => Verb::Update,
            ("PATCH", false) => Verb::Patch,
            ("DELETE", true) => Verb::DeleteCollection,
            ("DELETE", false) => Verb::Delete,
            _ => return Some(Err(Status::method_not_allowed(&kind, &method.to_lowercase()))),
        };
        Some(Ok(Target { verb, kind, ns, name, sub }))
    }
}

/// The decoded query of a URL. Kubernetes' own parameters are few: a list is enough.
#[derive(Default, Clone)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|p| !p.is_empty());
        Query(pairs.map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(k, v)| (decode(k), decode(v))).collect())
    }
    /// "" when absent.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v)
    }
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(k, _)| k == name)
    }
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1" | "t" | "True" | "TRUE") || (self.has(name) && self.get(name).is_empty())
    }
    pub fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        match self.get(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Status::bad_request(format!("invalid value for parameter {name}: {text:?}"))),
        }
    }
    /// All pairs but those named, encoded again: for requests passed on to a node.
    pub fn encode(&self) -> String {
        let pair = |(k, v): &(String, String)| format!("{}={}", encode(k), encode(v));
        self.0.iter().map(pair).collect::<Vec<_>>().join("&")
    }
}

/// Which objects.
#[derive(Clone)]
pub struct Filter {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Filter {
    pub fn everything() -> Filter {
        Filter { labels: LabelSelector::everything(), fields: FieldSelector::default() }
    }
    pub fn parse(query: &Query) -> Result<Filter, Status> {
        let mut filter = Filter::everything();
        let bad = |e: mote_api::selector::SelectorError| Status::bad_request(e.to_string());
        if !query.get("labelSelector").is_empty() {
            filter.labels = LabelSelector::parse(query.get("labelSelector")).map_err(bad)?;
        }
        if !query.get("fieldSelector").is_empty() {
            filter.fields = FieldSelector::parse(query.get("fieldSelector")).map_err(bad)?;
        }
        Ok(filter)
    }
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
    pub fn matches(&self, object: &mote_api::tree::Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// How to write.
#[derive(Clone)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub unknown: Unknown,
    pub manager: String,
    pub force: bool,
    /// Server-side apply: who owns what is worked out already.
    pub applied: bool,
    pub user: Rc<UserInfo>,
}

impl WriteOptions {
    /// What components inside this process use.
    pub fn internal(manager: &str) -> WriteOptions {
        WriteOptions {
            dry_run: false,
            unknown: Unknown::Drop,
            manager: manager.into(),
            force: false,
            applied: false,
            user: Rc::new(UserInfo::new("system:kube-controller-manager", &["system:masters"])),
        }
    }
    pub fn parse(query: &Query, user_agent: &str, user: &Rc<UserInfo>) -> Result<WriteOptions, Status> {
        let dry_run = match query.get("dryRun") {
            "" => false,
            "All" => true,
            other => return Err(Status::bad_request(format!("invalid dryRun value {other:?}: only All is supported"))),
        };
        let unknown = match query.get("fieldValidation") {
            "Strict" => Unknown::Error,
            "" | "Warn" => Unknown::Warn,
            "Ignore" => Unknown::Drop,
            other => return Err(Status::bad_request(format!("invalid fieldValidation value {other:?}"))),
        };
        let agent = user_agent.split('/').next().unwrap_or_default();
        let manager = match query.get("fieldManager") {
            "" if agent.is_empty() => "unknown",
            "" => agent,
            manager => manager,
        };
        let force = query.flag("force");
        Ok(WriteOptions { dry_run, unknown, manager: manager.into(), force, applied: false, user: user.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, path: &str, query: &str) -> String {
        match Target::parse(&Registry::builtin(), method, path, &Query::parse(query)) {
            None => "-".into(),
            Some(Err(s)) => s.code.to_string(),
            Some(Ok(t)) => format!("{} {} {} {} {}", t.verb.name(), t.kind.resource(), t.ns, t.name, t.sub),
        }
    }

    #[test]
    fn paths() {
        for (method, path, query, want) in [
            ("GET", "/api/v1/pods", "", "list pods   "),
            ("GET", "/api/v1/pods", "watch=1", "watch pods   "),
            ("GET", "/api/v1/watch/pods", "", "watch pods   "),
            ("GET", "/api/v1/namespaces/x/pods", "watch=false", "list pods x  "),
            ("GET", "/api/v1/namespaces/x/pods/p", "", "get pods x p "),
            ("GET", "/api/v1/namespaces/x/pods/p/log", "", "get pods x p log"),
            ("POST", "/api/v1/namespaces/x/pods/p/binding", "", "create pods x p binding"),
            ("POST", "/api/v1/namespaces/x/pods/p", "", "405"),
            ("GET", "/api/v1/namespaces", "", "list namespaces   "),
            ("GET", "/api/v1/namespaces/x", "", "get namespaces  x "),
            ("PUT", "/api/v1/namespaces/x/finalize", "", "update namespaces  x finalize"),
            ("PUT", "/api/v1/namespaces/x/status", "", "update namespaces  x status"),
            ("DELETE", "/apis/apps/v1/namespaces/x/deployments", "", "deletecollection deployments.apps x  "),
            ("PATCH", "/apis/apps/v1/namespaces/x/deployments/d/scale", "", "patch deployments.apps x d scale"),
            ("GET", "/apis/apps/v1/namespaces/x/deployments/d/nonsense", "", "404"),
            ("GET", "/apis/apps/v9/deployments", "", "404"),
            ("GET", "/api/v1/pods/p", "", "404"),
            ("GET", "/api/v1/namespaces/x/services/http:s:80/proxy", "watch=1", "get services x http:s:80 proxy"),
            ("POST", "/api/v1/namespaces/x/pods/p/proxy/a//b/", "", "create pods x p proxy"),
            ("GET", "/api/v1/nodes/n/proxy/metrics/", "", "get nodes  n proxy"),
            ("GET", "/api/v1/namespaces/x/configmaps/c/proxy/a", "", "404"),
            ("GET", "/api/v1/namespaces//pods/p/proxy/a", "", "-"),
            ("GET", "/api/v1/namespaces//pods", "", "-"),
            ("GET", "/api/v1", "", "-"),
            ("GET", "/version", "", "-"),
        ] {
            assert_eq!(parse(method, path, query), want, "{method} {path}");
        }
    }

    #[test]
    fn queries() {
        let q = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&limit=5&watch&x=%zz");
        assert_eq!(q.get("labelSelector"), "a=b,c in (d)");
        assert_eq!(q.number("limit"), Ok(Some(5)));
        assert!(q.flag("watch") && !q.flag("nothing"));
        assert_eq!(q.get("x"), "%zz");
        assert!(Query::parse("limit=-1").number("limit").is_err());
        assert_eq!(Query::parse("a=b%20c&d=%2F").encode(), "a=b%20c&d=%2F");
    }
}
