//! Role-based access control: who was bound to which role, and what its rules allow.
//!
//! `rule` judges one rule; this index finds the rules of a user (a mirror of the store, see [`crate::mirror`]); `table` has the roles every cluster begins
//! with. Nothing here asks the API: [`crate::api::admit`] keeps people from granting what they do not hold, [`crate::auth::bootstrap`] writes.

pub(crate) mod rule;
pub(crate) mod table;

use std::collections::HashMap;
use std::rc::Rc;

use mote_api::tree::{Value, list_at, str_at};

use crate::mirror::{Form, Mirror};
use crate::user::{Attributes, UserInfo, account_name};
use rule::Rule;

/// Where the four kinds are in the store.
const PREFIX: &str = "/registry/rbac.authorization.k8s.io/";

/// The index of a store, empty.
pub(crate) fn mirror() -> Mirror<Index> {
    Mirror::new(PREFIX)
}

/// The role that a binding names: (is a ClusterRole, name).
pub(crate) fn role_ref(binding: &Value) -> (bool, &str) {
    (str_at(binding, &["roleRef", "kind"]) == "ClusterRole", str_at(binding, &["roleRef", "name"]))
}

/// A RoleBinding or ClusterRoleBinding.
pub(crate) struct Binding {
    pub name: Box<str>,
    /// (is a ClusterRole, name)
    pub role: (bool, Box<str>),
    /// (is a group, name); service accounts by their user name
    subjects: Vec<(bool, Box<str>)>,
}

impl Binding {
    fn parse(name: &str, object: &Value) -> Binding {
        let subject = |s: &Value| {
            let name = str_at(s, &["name"]);
            match str_at(s, &["kind"]) {
                "Group" => (true, name.into()),
                "ServiceAccount" => (false, account_name(str_at(s, &["namespace"]), name).into()),
                _ => (false, name.into()),
            }
        };
        let (cluster, role) = role_ref(object);
        Binding {
            name: name.into(),
            role: (cluster, role.into()),
            subjects: list_at(object, &["subjects"]).iter().map(subject).collect(),
        }
    }
}

/// The bindings of one namespace, or of the cluster.
#[derive(Default)]
struct Bindings {
    by_name: HashMap<Box<str>, Rc<Binding>>,
    by_subject: [HashMap<Box<str>, Vec<Rc<Binding>>>; 2],
}

impl Bindings {
    fn remove(&mut self, name: &str) {
        let Some(old) = self.by_name.remove(name) else { return };
        for (group, subject) in &old.subjects {
            if let Some(map) = self.by_subject.get_mut(usize::from(*group))
                && let Some(list) = map.get_mut(subject)
            {
                list.retain(|b| !Rc::ptr_eq(b, &old));
                if list.is_empty() {
                    map.remove(subject);
                }
            }
        }
    }
    fn put(&mut self, binding: Binding) {
        self.remove(&binding.name);
        let binding = Rc::new(binding);
        for (group, subject) in &binding.subjects {
            if let Some(map) = self.by_subject.get_mut(usize::from(*group)) {
                map.entry(subject.clone()).or_default().push(binding.clone());
            }
        }
        self.by_name.insert(binding.name.clone(), binding);
    }
    fn of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Rc<Binding>> {
        let [users, groups] = &self.by_subject;
        users.get(&*user.name).into_iter().chain(user.groups.iter().filter_map(|g| groups.get(&**g))).flatten()
    }
}

/// All roles and bindings.
#[derive(Default)]
pub(crate) struct Index {
    /// By `clusterroles/NAME` and `roles/NAMESPACE/NAME`, as the store's keys end.
    roles: HashMap<Box<str>, Rc<[Rule]>>,
    cluster: Bindings,
    local: HashMap<Box<str>, Bindings>,
}

impl Form for Index {
    fn put(&mut self, key: &str, value: &[u8]) {
        let object: Value = serde_json::from_slice(value).unwrap_or_default();
        match key.split_once('/') {
            Some(("roles" | "clusterroles", _)) => drop(self.roles.insert(key.into(), Rule::all(&object).into())),
            Some(("clusterrolebindings", name)) => self.cluster.put(Binding::parse(name, &object)),
            Some((_, rest)) => {
                let (ns, name) = rest.split_once('/').unwrap_or(("", rest));
                self.local.entry(ns.into()).or_default().put(Binding::parse(name, &object));
            }
            None => {}
        }
    }
    fn remove(&mut self, key: &str) {
        match key.split_once('/') {
            Some(("roles" | "clusterroles", _)) => drop(self.roles.remove(key)),
            Some(("clusterrolebindings", name)) => self.cluster.remove(name),
            Some((_, rest)) => {
                let (ns, name) = rest.split_once('/').unwrap_or(("", rest));
                if let Some(bindings) = self.local.get_mut(ns) {
                    bindings.remove(name);
                    if bindings.by_name.is_empty() {
                        self.local.remove(ns);
                    }
                }
            }
            None => {}
        }
    }
}

/// What one binding gives a user.
pub(crate) struct Grant<'a> {
    /// "": by a ClusterRoleBinding
    pub ns: &'a str,
    pub binding: &'a Binding,
    /// None: the role is not there.
    pub rules: Option<&'a Rc<[Rule]>>,
}

impl Index {
    pub(crate) fn role(&self, cluster: bool, ns: &str, name: &str) -> Option<&Rc<[Rule]>> {
        match cluster {
            true => self.roles.get(&*format!("clusterroles/{name}")),
            false => self.roles.get(&*format!("roles/{ns}/{name}")),
        }
    }
    /// All that is granted to the user in a namespace ("": in the cluster's scope).
    pub(crate) fn grants<'a>(&'a self, user: &'a UserInfo, ns: &'a str) -> impl Iterator<Item = Grant<'a>> {
        let grant = move |ns, binding: &'a Rc<Binding>| {
            let rules = self.role(binding.role.0, ns, &binding.role.1);
            Grant { ns, binding, rules }
        };
        let local = self.local.get(ns).filter(|_| !ns.is_empty()).into_iter();
        let local = local.flat_map(move |b| b.of(user)).map(move |b| grant(ns, b));
        self.cluster.of(user).map(move |b| grant("", b)).chain(local)
    }
    /// Why the user may, in upstream's words; Err: why not ("" when nothing is to be said).
    pub(crate) fn judge(&self, user: &UserInfo, what: &Attributes<'_>) -> Result<String, String> {
        let mut missing = Vec::new();
        for grant in self.grants(user, what.ns) {
            match grant.rules {
                Some(rules) if rules.iter().any(|r| r.allows(what)) => return Ok(grant.words()),
                Some(_) => {}
                None if missing.len() < 8 => missing.push(grant.missing()),
                None => {}
            }
        }
        Err(match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }
    pub(crate) fn rules(&self, user: &UserInfo, ns: &str) -> Vec<Rule> {
        self.grants(user, ns).filter_map(|g| g.rules).flat_map(|r| r.iter().cloned()).collect()
    }
}

impl Grant<'_> {
    fn words(&self) -> String {
        let (binding, role) = (&self.binding.name, &self.binding.role);
        let role = format!("{} {:?}", if role.0 { "ClusterRole" } else { "Role" }, role.1);
        match self.ns {
            "" => format!("RBAC: allowed by ClusterRoleBinding {binding:?} of {role}"),
            ns => format!("RBAC: allowed by RoleBinding \"{binding}/{ns}\" of {role}"),
        }
    }
    fn missing(&self) -> String {
        let kind = if self.binding.role.0 { "clusterrole" } else { "role" };
        format!("{kind}.rbac.authorization.k8s.io {:?} not found", self.binding.role.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::json;

    fn index() -> Index {
        let mut index = Index::default();
        let role = |verb: &str, resource: &str| json!({"rules": [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]});
        let bind = |kind: &str, role: &str, subject: Value| json!({"roleRef": {"kind": kind, "name": role}, "subjects": [subject]});
        for (key, object) in [
            ("clusterroles/reader", role("get", "pods")),
            ("roles/a/writer", role("create", "pods")),
            ("clusterrolebindings/c", bind("ClusterRole", "reader", json!({"kind": "Group", "name": "g"}))),
            ("clusterrolebindings/lost", bind("ClusterRole", "gone", json!({"kind": "User", "name": "lost"}))),
            ("rolebindings/a/w", bind("Role", "writer", json!({"kind": "User", "name": "u"}))),
            (
                "rolebindings/a/r",
                bind("ClusterRole", "reader", json!({"kind": "ServiceAccount", "namespace": "b", "name": "s"})),
            ),
        ] {
            index.put(key, object.to_string().as_bytes());
        }
        index
    }

    fn pods<'a>(verb: &'a str, ns: &'a str) -> Attributes<'a> {
        Attributes { verb, resource: "pods", ns, ..Attributes::default() }
    }

    #[test]
    fn bindings_reach_as_far_as_their_scope() {
        let mut index = index();
        let (u, g) = (UserInfo::new("u", &[]), UserInfo::new("x", &["g"]));
        let s = UserInfo::new("system:serviceaccount:b:s", &[]);
        for (user, verb, ns, want) in [
            (&g, "get", "", true),
            (&g, "get", "a", true),
            (&g, "list", "a", false),
            (&u, "create", "a", true),
            (&u, "create", "b", false),
            (&u, "create", "", false),
            (&u, "get", "a", false),
            (&s, "get", "a", true),
            (&s, "get", "b", false),
        ] {
            assert_eq!(index.judge(user, &pods(verb, ns)).is_ok(), want, "{} {verb} {ns}", user.name);
        }
        let why = index.judge(&u, &pods("create", "a")).unwrap();
        assert_eq!(why, "RBAC: allowed by RoleBinding \"w/a\" of Role \"writer\"");
        let why = index.judge(&UserInfo::new("lost", &[]), &pods("get", "a")).unwrap_err();
        assert_eq!(why, "RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found");
        index.remove("rolebindings/a/w");
        assert!(index.judge(&u, &pods("create", "a")).is_err());
        index.remove("clusterroles/reader");
        assert!(index.judge(&g, &pods("get", "a")).is_err());
        // Changed in place: the old subjects lose it.
        let moved = json!({"roleRef": {"kind": "Role", "name": "writer"}, "subjects": [{"kind": "User", "name": "v"}]});
        index.put("rolebindings/a/w", moved.to_string().as_bytes());
        index.put("rolebindings/a/w", moved.to_string().as_bytes());
        assert!(index.judge(&UserInfo::new("v", &[]), &pods("create", "a")).is_ok());
        assert!(index.judge(&u, &pods("create", "a")).is_err());
    }
}
