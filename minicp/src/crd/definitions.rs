//! What is known of the definitions: their heads (no schemas) and the kinds made of them.

use std::collections::BTreeMap;
use std::rc::Rc;

use mote_api::crd::{self, CLEANUP_FINALIZER, Names};
use mote_api::kind::{Kind, Registry};
use mote_api::meta;
use mote_api::time::Time;
use mote_api::tree::{Value, list_mut, remove, set};

use crate::api::object;
use crate::store::Entry;

pub(super) struct Definitions {
    by_name: BTreeMap<String, Known>,
    names: Names,
}

struct Known {
    /// Without schemas and managed fields: they are large, and said in `kinds`.
    head: Value,
    kinds: Vec<Rc<Kind>>,
    /// Its objects are gone, and it goes.
    retired: bool,
    /// Told since it was planned last.
    new: bool,
}

impl Known {
    /// Whether there may be something to do: what is settled and has not changed needs no look, whatever the others do.
    fn is_open(&self) -> bool {
        self.new || meta::is_deleting(&self.head) || !crd::condition_is_true(&self.head, "NamesAccepted")
    }
}

/// What is to be done about one definition.
pub(super) enum Step {
    /// Its status should be this.
    Tell { name: String, status: Value },
    /// Its objects are to end.
    End { name: String, kind: Rc<Kind> },
}

impl Step {
    pub(super) fn name(&self) -> &str {
        match self {
            Step::Tell { name, .. } | Step::End { name, .. } => name,
        }
    }
}

impl Definitions {
    pub(super) fn new() -> Definitions {
        Definitions { by_name: BTreeMap::new(), names: Names::new(&Registry::builtin()) }
    }

    /// A definition as it is stored now; None: it is gone.
    pub(super) fn learn(&mut self, own: &Kind, key: &str, entry: Option<&Entry>) {
        let name = key.rsplit('/').next().unwrap_or(key).to_owned();
        if let Some(before) = self.by_name.remove(&name) {
            self.names.remove(&before.head);
        }
        let Some(entry) = entry else { return };
        let mut head = object::decode(own, entry);
        let (kinds, wrong) = crd::kinds(&head, entry.modified.0);
        for why in wrong {
            log::warn!("definition {name} is not served whole: {why}");
        }
        for version in list_mut(&mut head, &["spec", "versions"]) {
            remove(version, &["schema"]);
        }
        remove(&mut head, &["metadata", "managedFields"]);
        let kinds = kinds.into_iter().map(Rc::new).collect();
        self.names.add(&head);
        self.by_name.insert(name, Known { head, kinds, retired: false, new: true });
    }

    /// What to do. Names are given in the order of creation; what is planned counts at once.
    pub(super) fn plan(&mut self, now: Time) -> Vec<Step> {
        let open = self.by_name.iter().filter(|(_, known)| known.is_open());
        let mut open: Vec<(String, String)> =
            open.map(|(name, known)| (meta::creation_timestamp(&known.head).to_owned(), name.clone())).collect();
        open.sort();
        let mut steps = Vec::new();
        for (_, name) in open {
            let Some(known) = self.by_name.get_mut(&name) else { continue };
            known.new = false;
            if meta::is_deleting(&known.head) {
                if meta::finalizers(&known.head).any(|f| f == CLEANUP_FINALIZER) {
                    steps.push(Step::End { name, kind: Rc::new(crd::stored_kind(&known.head)) });
                }
                continue;
            }
            let status = crd::status_of(&known.head, &self.names, now);
            if known.head.get("status") != Some(&status) {
                self.names.remove(&known.head);
                set(&mut known.head, &["status"], status.clone());
                self.names.add(&known.head);
                steps.push(Step::Tell { name, status });
            }
        }
        steps
    }

    /// What was planned was not written: it is to be planned again.
    pub(super) fn untold(&mut self, name: &str) {
        if let Some(known) = self.by_name.get_mut(name) {
            self.names.remove(&known.head);
            remove(&mut known.head, &["status", "conditions"]);
            self.names.add(&known.head);
        }
    }

    /// The definition serves no more.
    pub(super) fn retire(&mut self, name: &str) {
        if let Some(known) = self.by_name.get_mut(name) {
            known.retired = true;
        }
    }

    /// Built-in kinds and those of established definitions.
    pub(super) fn registry(&self) -> Registry {
        let served = self.by_name.values().filter(|k| !k.retired && crd::condition_is_true(&k.head, "Established"));
        Registry::with(served.flat_map(|k| k.kinds.iter().cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;
    use mote_api::tree::json;

    fn definition(name: &str, plural: &str, created: &str) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": {"group": "g.example.com", "scope": "Cluster",
            "names": {"plural": plural, "singular": plural, "kind": plural, "listKind": format!("{plural}List"), "shortNames": ["x"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    fn learn(all: &mut Definitions, object: Value) {
        let registry = Registry::builtin();
        let own = registry.find(crd::RESOURCE).unwrap();
        let name = meta::name(&object).to_owned();
        let entry = Entry { value: object::encode(object), created: Revision(1), modified: Revision(1) };
        all.learn(own, &format!("/registry/x/{name}"), Some(&entry));
    }

    #[test]
    fn two_that_come_at_once_do_not_both_get_a_name() {
        let mut all = Definitions::new();
        learn(&mut all, definition("bs.g.example.com", "bs", "2026-01-01T00:00:02Z"));
        learn(&mut all, definition("cs.g.example.com", "cs", "2026-01-01T00:00:01Z"));
        let steps = all.plan(Time::from_unix(1_800_000_000));
        assert_eq!(steps.iter().map(Step::name).collect::<Vec<_>>(), ["cs.g.example.com", "bs.g.example.com"]);
        let registry = all.registry();
        assert!(registry.find("cs.g.example.com").is_some(), "the first gets it");
        assert!(registry.find("bs.g.example.com").is_none(), "both want x");
        assert!(all.plan(Time::from_unix(1_900_000_000)).is_empty(), "all is said");
    }

    #[test]
    fn what_is_settled_is_left_alone_and_a_freed_name_is_given() {
        let now = Time::from_unix(1_800_000_000);
        let mut all = Definitions::new();
        let mut first = definition("cs.g.example.com", "cs", "2026-01-01T00:00:01Z");
        learn(&mut all, first.clone());
        learn(&mut all, definition("bs.g.example.com", "bs", "2026-01-01T00:00:02Z"));
        assert_eq!(all.plan(now).len(), 2);
        let open = |all: &Definitions| all.by_name.values().filter(|k| k.is_open()).count();
        assert_eq!(open(&all), 1, "the one that waits for its name");
        first["spec"]["names"].as_object_mut().unwrap().remove("shortNames");
        learn(&mut all, first);
        let told: Vec<String> = all.plan(now).iter().map(|s| s.name().to_owned()).collect();
        assert_eq!(told, ["cs.g.example.com", "bs.g.example.com"]);
        assert!(all.registry().find("bs.g.example.com").is_some() && open(&all) == 0);
    }

    #[test]
    fn what_is_deleted_ends_its_objects_first() {
        let mut all = Definitions::new();
        let mut object = definition("cs.g.example.com", "cs", "2026-01-01T00:00:01Z");
        learn(&mut all, object.clone());
        all.plan(Time::from_unix(1_800_000_000));
        set(&mut object, &["status"], json!({"conditions": [{"type": "Established", "status": "True"}]}));
        set(&mut object, &["metadata", "deletionTimestamp"], json!("2026-01-01T00:00:03Z"));
        set(&mut object, &["metadata", "finalizers"], json!([CLEANUP_FINALIZER]));
        learn(&mut all, object);
        let steps = all.plan(Time::from_unix(1_800_000_000));
        assert!(matches!(steps.as_slice(), [Step::End { kind, .. }] if kind.plural == "cs"));
        let served = all.registry().find("cs.g.example.com").cloned();
        assert!(
            served.is_some_and(|k| k.custom.as_ref().is_some_and(|c| c.terminating)),
            "until they are gone it is served"
        );
        all.retire("cs.g.example.com");
        assert!(all.registry().find("cs.g.example.com").is_none());
    }
}
