//! What kinds there are: names, scope and subresources, as rows of data.
//!
//! The built-in rows are `kind/builtin.txt`; a CustomResourceDefinition adds rows of the same shape at run time.

use std::borrow::Cow;
use std::rc::Rc;

use crate::tree::{Value, at, bool_at, list_at, str_at};

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
    /// The kinds that a CustomResourceDefinition serves, one per served version, the stored one first. They have no schema in the table: `of_crd` kinds keep
    /// every field.
    pub fn of_crd(crd: &Value) -> Vec<Kind> {
        let names = |field: &str| Text::Owned(str_at(crd, &["spec", "names", field]).to_string());
        let words = |field: &str| {
            list_at(crd, &["spec", "names", field])
                .iter()
                .filter_map(Value::as_str)
                .map(|w| Text::Owned(w.to_string()))
                .collect::<Vec<Text>>()
        };
        let one = |version: &Value| {
            let subresources = ["scale", "status"]
                .into_iter()
                .filter(|s| at(version, &["subresources", s]).is_some())
                .map(Cow::Borrowed);
            Kind {
                group: str_at(crd, &["spec", "group"]).to_string().into(),
                version: str_at(version, &["name"]).to_string().into(),
                kind: names("kind"),
                plural: names("plural"),
                singular: names("singular"),
                short_names: words("shortNames"),
                categories: words("categories"),
                namespaced: str_at(crd, &["spec", "scope"]) == "Namespaced",
                verbs: Verbs::All,
                subresources: subresources.collect(),
                type_name: "".into(),
            }
        };
        let mut served: Vec<&Value> =
            list_at(crd, &["spec", "versions"]).iter().filter(|v| bool_at(v, &["served"]) == Some(true)).collect();
        served.sort_by_key(|v| bool_at(v, &["storage"]) != Some(true));
        served.into_iter().map(one).collect()
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
        })
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
    /// Adds a kind, or replaces the one of the same group, version and plural.
    pub fn insert(&mut self, kind: Kind) {
        self.remove(&kind.group, &kind.version, &kind.plural);
        self.kinds.push(Rc::new(kind));
    }
    /// Takes a kind away.
    pub fn remove(&mut self, group: &str, version: &str, plural: &str) -> Option<Rc<Kind>> {
        let i = self.kinds.iter().position(|k| k.plural == plural && k.group == group && k.version == version)?;
        Some(self.kinds.remove(i))
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
                assert!(short.insert(s.clone()) || k.group == "events.k8s.io", "{s}");
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
    fn kinds_come_and_go() {
        let mut r = Registry::builtin();
        let n = r.all().len();
        let mut k = Kind::clone(r.find("pods").unwrap());
        (k.group, k.plural) = ("mote.dev".into(), "widgets".into());
        r.insert(k.clone());
        r.insert(k);
        assert_eq!(r.all().len(), n + 1);
        assert!(r.remove("mote.dev", "v1", "widgets").is_some());
        assert!(r.find("widgets.mote.dev").is_none());
    }

    #[test]
    fn kinds_of_definitions() {
        let crd = crate::tree::json!({"spec": {"group": "mote.dev", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "shortNames": ["wd"]},
            "versions": [{"name": "v0", "served": false}, {"name": "v1", "served": true}, {"name": "v2", "served": true, "storage": true, "subresources": {"status": {}}}]}});
        let kinds = Kind::of_crd(&crd);
        assert_eq!(
            kinds.iter().map(|k| (k.api_version(), k.status())).collect::<Vec<_>>(),
            [("mote.dev/v2".into(), true), ("mote.dev/v1".into(), false)]
        );
        assert_eq!((kinds[0].resource().as_str(), kinds[0].namespaced), ("widgets.mote.dev", true));
    }
}
