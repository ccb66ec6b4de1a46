//! What kinds there are: names, scope and subresources, as rows of data.
//!
//! The built-in rows are `kind/builtin.txt`; a CustomResourceDefinition adds rows of the same shape at run time.

use std::borrow::Cow;
use std::rc::Rc;

use crate::custom::Custom;
use crate::tree::{Value, str_at};

/// Text that is part of the executable for built-in kinds and owned for kinds added at run time.
pub type Text = Cow<'static, str>;

const BUILTIN: &str = include_str!("kind/builtin.txt");

/// Group, version and kind as one name: what `apiVersion` and `kind` of an object say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gvk {
    /// "" for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
}

impl Gvk {
    /// What an object says it is; empty parts where it says nothing.
    pub fn of(object: &Value) -> Gvk {
        let (group, version) = split_api_version(str_at(object, &["apiVersion"]));
        Gvk { group: group.into(), version: version.into(), kind: str_at(object, &["kind"]).into() }
    }
}

/// `apps/v1` -> ("apps", "v1"); `v1` -> ("", "v1").
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

/// What may be done with the objects of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verbs {
    /// Stored: create delete deletecollection get list patch update watch.
    All,
    /// A question in the form of an object (reviews): create only, never stored.
    CreateOnly,
}

impl Verbs {
    /// As discovery lists them.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::All => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            Self::CreateOnly => &["create"],
        }
    }
}

/// One served kind in one version.
#[derive(Clone)]
pub struct Kind {
    /// "" for the core group.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    /// `pods`
    pub plural: Text,
    /// `pod`
    pub singular: Text,
    /// `po`
    pub short_names: Vec<Text>,
    /// `all`
    pub categories: Vec<Text>,
    pub namespaced: bool,
    pub verbs: Verbs,
    /// `status`, `scale`, `log`, ... as in the URL.
    pub subresources: Vec<Text>,
    /// Its type in the schema table; "" for none: every field is kept and nothing is checked.
    pub type_name: Text,
    /// What a definition said; none for built-in kinds.
    pub custom: Option<Rc<Custom>>,
}

impl Kind {
    /// `apps/v1`, `v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
    /// `deployments.apps`, `pods`: upstream's GroupResource in messages.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }
    /// `Deployment.apps`, `Pod`: upstream's GroupKind in messages.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_string() } else { format!("{}.{}", self.kind, self.group) }
    }
    /// `PodList`
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|s| s == subresource)
    }
    /// Whether `status` is written by its own subresource only.
    pub fn status(&self) -> bool {
        self.has("status")
    }
    pub fn scale(&self) -> bool {
        self.has("scale")
    }
    /// Whether this is kind `kind` of group `group`, in any version.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
    /// One row of the built-in table.
    fn parse(row: &'static str) -> Option<Kind> {
        let mut cells = row.split_ascii_whitespace();
        let mut cell = || cells.next().map(|c| if c == "-" { "" } else { c });
        let list =
            |text: &'static str| text.split(',').filter(|t| !t.is_empty()).map(Cow::Borrowed).collect::<Vec<Text>>();
        let (group, version, kind, plural, singular) = (cell()?, cell()?, cell()?, cell()?, cell()?);
        let (short_names, categories, scope, subresources) = (list(cell()?), list(cell()?), cell()?, list(cell()?));
        let type_name =
            if group.is_empty() { format!("{version}.{kind}") } else { format!("{group}/{version}.{kind}") };
        Some(Kind {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: singular.into(),
            short_names,
            categories,
            namespaced: scope.starts_with('N'),
            verbs: if scope.ends_with('!') { Verbs::CreateOnly } else { Verbs::All },
            subresources,
            type_name: type_name.into(),
            custom: None,
        })
    }
}

/// Upstream's order of versions: v2, v1, v2beta1, v1beta2, v1alpha1, then all others by name.
pub fn priority(version: &str) -> (u8, std::cmp::Reverse<(u64, u64)>, &str) {
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, tail) = rest.split_at(end);
        let (stage, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            _ if tail.is_empty() => (0, "0"),
            (Some(minor), _) => (1, minor),
            (_, Some(minor)) => (2, minor),
            _ => return None,
        };
        Some((stage, major.parse().ok()?, minor.parse().ok()?))
    });
    match parsed {
        Some((stage, major, minor)) => (stage, std::cmp::Reverse((major, minor)), ""),
        None => (3, std::cmp::Reverse((0, 0)), version),
    }
}

/// All kinds served, in the order discovery shows them.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: Vec<Rc<Kind>>,
}

impl Registry {
    /// The kinds of Kubernetes itself.
    pub fn builtin() -> Registry {
        let rows = BUILTIN.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        Registry {
            kinds: rows
                .map(|row| Rc::new(Kind::parse(row).expect("builtin.txt: a row has nine cells (tested)")))
                .collect(),
        }
    }
    pub fn all(&self) -> &[Rc<Kind>] {
        &self.kinds
    }
    pub fn by_resource(&self, group: &str, version: &str, plural: &str) -> Option<&Rc<Kind>> {
        self.kinds.iter().find(|k| k.plural == plural && k.group == group && k.version == version)
    }
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Rc<Kind>> {
        self.kinds.iter().find(|k| k.kind == kind && k.group == group && k.version == version)
    }
    /// The kind an object says it is.
    pub fn of(&self, object: &Value) -> Option<&Rc<Kind>> {
        let (group, version) = split_api_version(str_at(object, &["apiVersion"]));
        self.by_kind(group, version, str_at(object, &["kind"]))
    }
    /// `pods`, `deployments.apps`: the first (preferred) version of a resource. Plural names only, as in code; see [`Self::guess`] for people.
    pub fn find(&self, resource: &str) -> Option<&Rc<Kind>> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        self.kinds.iter().find(|k| k.plural == plural && k.group == group)
    }
    /// What a person may have typed: plural, singular, short name or kind, in any group.
    pub fn guess(&self, word: &str) -> Option<&Rc<Kind>> {
        let (name, group) = word.split_once('.').map_or((word, None), |(n, g)| (n, Some(g)));
        self.kinds.iter().find(|k| {
            group.is_none_or(|g| k.group == g)
                && (k.plural == name || k.singular == name || k.kind == name || k.short_names.iter().any(|s| s == name))
        })
    }
    /// The built-in kinds and those of definitions, groups by name, the preferred version of a group first.
    pub fn with(mut custom: Vec<Rc<Kind>>) -> Registry {
        custom.sort_by(|a, b| {
            a.group.cmp(&b.group).then(priority(&a.version).cmp(&priority(&b.version))).then(a.plural.cmp(&b.plural))
        });
        let mut registry = Registry::builtin();
        registry.kinds.extend(custom);
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_parses_and_names_are_unique() {
        for row in BUILTIN.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            assert_eq!(row.split_ascii_whitespace().count(), 9, "{row}");
        }
        let registry = Registry::builtin();
        let mut seen = std::collections::HashSet::new();
        let mut short = std::collections::HashSet::new();
        for k in registry.all() {
            assert!(seen.insert((k.group.clone(), k.version.clone(), k.plural.clone())), "{}", k.plural);
            assert_eq!(k.singular, k.kind.to_lowercase(), "{}", k.kind);
            for s in &k.short_names {
                assert!(short.insert(s.clone()) || matches!(&*k.group, "events.k8s.io" | "autoscaling"), "{s}");
            }
        }
    }

    #[test]
    fn looks_up_by_every_name() {
        let r = Registry::builtin();
        assert_eq!(r.find("pods").unwrap().kind, "Pod");
        assert_eq!(r.find("deployments.apps").unwrap().api_version(), "apps/v1");
        assert!(r.find("deployments").is_none());
        assert_eq!(r.guess("deploy").unwrap().resource(), "deployments.apps");
        assert_eq!(r.guess("netpol").unwrap().group_kind(), "NetworkPolicy.networking.k8s.io");
        assert_eq!(r.of(&crate::tree::json!({"apiVersion": "batch/v1", "kind": "Job"})).unwrap().plural, "jobs");
        assert_eq!(r.by_resource("", "v1", "nodes").map(|k| (k.namespaced, k.status())), Some((false, true)));
        assert_eq!(r.find("subjectaccessreviews.authorization.k8s.io").unwrap().verbs.names(), ["create"]);
    }

    #[test]
    fn versions_are_ordered_as_upstream() {
        let mut all = ["foo10", "v1alpha1", "v1", "foo1", "v3beta1", "v10", "v12alpha1", "v10beta3", "v11beta2", "v2"];
        all.sort_by(|a, b| priority(a).cmp(&priority(b)));
        assert_eq!(
            all,
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v1alpha1", "foo1", "foo10"]
        );
    }

    #[test]
    fn custom_kinds_come_after_the_built_in_ones() {
        let n = Registry::builtin().all().len();
        let kind = |version: &'static str| {
            let mut k = Kind::clone(Registry::builtin().find("pods").unwrap());
            (k.group, k.version, k.plural) = ("mote.dev".into(), version.into(), "widgets".into());
            Rc::new(k)
        };
        let r = Registry::with(vec![kind("v1beta1"), kind("v1"), kind("v2alpha1")]);
        assert_eq!(r.all().len(), n + 3);
        assert_eq!(r.find("widgets.mote.dev").map(|k| &*k.version), Some("v1"));
        assert!(r.find("pods").is_some());
    }
}
