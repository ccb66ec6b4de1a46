//! One rule of a role, and what it allows. Pure.

use mote_api::tree::{Map, Value, json, list_at};

use crate::user::Attributes;

/// What a PolicyRule says (rbac.authorization.k8s.io/v1).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Rule {
    pub verbs: Box<[Box<str>]>,
    pub groups: Box<[Box<str>]>,
    pub resources: Box<[Box<str>]>,
    pub names: Box<[Box<str>]>,
    pub urls: Box<[Box<str>]>,
}

fn has(list: &[Box<str>], word: &str) -> bool {
    list.iter().any(|w| **w == *word || **w == *"*")
}

/// `*` stands for all, `*/scale` for a subresource of all; `pods` is not `pods/log`.
fn has_resource(list: &[Box<str>], resource: &str, sub: &str) -> bool {
    list.iter().any(|w| match w.split_once('/') {
        None if **w == *"*" => true,
        None => sub.is_empty() && **w == *resource,
        Some((r, s)) => !sub.is_empty() && s == sub && (r == "*" || r == resource),
    })
}

fn has_url(list: &[Box<str>], path: &str) -> bool {
    list.iter().any(|w| match w.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => **w == *path,
    })
}

impl Rule {
    pub(crate) fn parse(value: &Value) -> Rule {
        let words = |field| list_at(value, &[field]).iter().filter_map(Value::as_str).map(Into::into).collect();
        Rule {
            verbs: words("verbs"),
            groups: words("apiGroups"),
            resources: words("resources"),
            names: words("resourceNames"),
            urls: words("nonResourceURLs"),
        }
    }
    /// All rules of a Role or ClusterRole.
    pub(crate) fn all(role: &Value) -> Vec<Rule> {
        list_at(role, &["rules"]).iter().map(Rule::parse).collect()
    }
    pub(crate) fn allows(&self, what: &Attributes<'_>) -> bool {
        if !has(&self.verbs, what.verb) {
            return false;
        }
        if !what.path.is_empty() {
            return has_url(&self.urls, what.path);
        }
        has(&self.groups, what.group)
            && has_resource(&self.resources, what.resource, what.sub)
            && (self.names.is_empty() || self.names.iter().any(|n| **n == *what.name))
    }
    /// The rule in pieces of one verb and one resource or path each: what has to be covered piece by piece.
    fn pieces(&self) -> Vec<Rule> {
        let one = |w: &str| -> Box<[Box<str>]> { Box::new([w.into()]) };
        let mut out = Vec::new();
        for verb in &self.verbs {
            for url in &self.urls {
                out.push(Rule { verbs: one(verb), urls: one(url), ..Rule::default() });
            }
            for (group, resource) in self.groups.iter().flat_map(|g| self.resources.iter().map(move |r| (g, r))) {
                let piece = Rule { verbs: one(verb), groups: one(group), resources: one(resource), ..Rule::default() };
                match self.names.is_empty() {
                    true => out.push(piece),
                    false => out.extend(self.names.iter().map(|n| Rule { names: one(n), ..piece.clone() })),
                }
            }
        }
        out
    }
    /// Whether this rule alone grants all of `piece` (which has one verb, and one resource or path).
    fn covers(&self, piece: &Rule) -> bool {
        let all = |mine: &[Box<str>], theirs: &[Box<str>]| theirs.iter().all(|w| has(mine, w));
        let resource = |w: &str| {
            let (r, s) = w.split_once('/').unwrap_or((w, ""));
            self.resources.iter().any(|m| **m == *w) || has_resource(&self.resources, r, s)
        };
        all(&self.verbs, &piece.verbs)
            && all(&self.groups, &piece.groups)
            && piece.resources.iter().all(|w| resource(w))
            && piece.urls.iter().all(|u| has_url(&self.urls, u))
            && (self.names.is_empty()
                || (!piece.names.is_empty() && piece.names.iter().all(|n| self.names.contains(n))))
    }
    /// As upstream prints it in its escalation message.
    pub(crate) fn words(&self) -> String {
        let list = |name: &str, list: &[Box<str>]| match list {
            [] => None,
            list => Some(format!("{name}:[{}]", list.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(" "))),
        };
        let parts = [
            list("APIGroups", &self.groups),
            list("Resources", &self.resources),
            list("ResourceNames", &self.names),
            list("NonResourceURLs", &self.urls),
            list("Verbs", &self.verbs),
        ];
        format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
    pub(crate) fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (name, list) in [
            ("verbs", &self.verbs),
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ] {
            if !list.is_empty() {
                map.insert(name.into(), json!(list));
            }
        }
        Value::Object(map)
    }
}

/// What of `wanted` nobody of `held` grants; pieces that differ only in their verb are put together again.
pub(crate) fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for piece in wanted.iter().flat_map(Rule::pieces).filter(|p| !held.iter().any(|h| h.covers(p))) {
        let verbless = |r: &Rule| Rule { verbs: Box::default(), ..r.clone() };
        match out.iter_mut().find(|r| verbless(r) == verbless(&piece)) {
            Some(rule) if piece.verbs.iter().all(|v| rule.verbs.contains(v)) => {}
            Some(rule) => rule.verbs = rule.verbs.iter().chain(piece.verbs.iter()).cloned().collect(),
            None => out.push(piece),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str, urls: &str) -> Rule {
        let words = |t: &str| {
            t.split(',').filter(|w| !w.is_empty()).map(|w| if w == "-" { "".into() } else { w.into() }).collect()
        };
        Rule {
            verbs: words(verbs),
            groups: words(groups),
            resources: words(resources),
            names: words(names),
            urls: words(urls),
        }
    }

    #[test]
    fn allows() {
        for (r, verb, group, resource, sub, name, path, want) in [
            (rule("get,list", "-", "pods", "", ""), "get", "", "pods", "", "a", "", true),
            (rule("get,list", "-", "pods", "", ""), "watch", "", "pods", "", "", "", false),
            (rule("get", "-", "pods", "", ""), "get", "apps", "pods", "", "a", "", false),
            (rule("get", "-", "pods", "", ""), "get", "", "pods", "log", "a", "", false),
            (rule("get", "-", "pods/log", "", ""), "get", "", "pods", "log", "a", "", true),
            (rule("get", "-", "pods/log", "", ""), "get", "", "pods", "", "a", "", false),
            (rule("get", "*", "*/scale", "", ""), "get", "apps", "deployments", "scale", "a", "", true),
            (rule("get", "*", "*/scale", "", ""), "get", "apps", "deployments", "", "a", "", false),
            (rule("*", "*", "*", "", ""), "delete", "x", "y", "z", "a", "", true),
            (rule("*", "*", "*", "", ""), "get", "", "", "", "", "/metrics", false),
            (rule("get", "-", "pods", "a,b", ""), "get", "", "pods", "", "b", "", true),
            (rule("get", "-", "pods", "a,b", ""), "get", "", "pods", "", "c", "", false),
            (rule("list", "-", "pods", "a,b", ""), "list", "", "pods", "", "", "", false),
            (rule("get", "", "", "", "/healthz,/apis/*"), "get", "", "", "", "", "/apis/apps", true),
            (rule("get", "", "", "", "/healthz,/apis/*"), "get", "", "", "", "", "/healthz/x", false),
            (rule("get", "", "", "", "*"), "get", "", "", "", "", "/x", true),
            (rule("get", "", "", "", "/healthz"), "post", "", "", "", "", "/healthz", false),
        ] {
            let what = Attributes { verb, group, resource, sub, name, path, ..Attributes::default() };
            assert_eq!(r.allows(&what), want, "{} {what:?}", r.words());
        }
    }

    #[test]
    fn what_is_not_covered_is_named() {
        let held = [
            rule("get,list", "-,apps", "pods,deployments", "", ""),
            rule("get", "-", "secrets", "a", ""),
            rule("get", "", "", "", "/x/*"),
            rule("get", "-", "*/scale", "", ""),
        ];
        let missing = |wanted: Rule| uncovered(&held, &[wanted]).iter().map(Rule::words).collect::<Vec<_>>().join(" ");
        assert_eq!(missing(rule("get,list", "apps", "deployments", "", "")), "");
        assert_eq!(missing(rule("get", "-", "pods", "x", "")), "", "a name is less than all names");
        assert_eq!(missing(rule("get", "-", "secrets", "a", "")), "");
        assert_eq!(
            missing(rule("get", "-", "secrets", "", "")),
            r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#
        );
        assert_eq!(
            missing(rule("get,delete,update", "-", "pods", "", "")),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "update"]}"#
        );
        assert_eq!(missing(rule("*", "-", "pods", "", "")), r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#);
        assert_eq!(missing(rule("get", "", "", "", "/x/y")), "");
        assert_eq!(missing(rule("get", "", "", "", "/x/*")), "");
        assert_eq!(missing(rule("get", "", "", "", "/y")), r#"{NonResourceURLs:["/y"], Verbs:["get"]}"#);
        assert_eq!(missing(rule("get", "-", "pods/scale", "", "")), "");
        assert!(!missing(rule("get", "-", "*", "", "")).is_empty());
        assert_eq!(missing(rule("get", "-", "*/scale", "", "")), "");
    }
}
