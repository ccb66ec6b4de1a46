//! Which names a definition gets, and what its status says about it (upstream's naming, establishing and finalizing controllers). Pure.

use std::collections::BTreeMap;

use super::{CLEANUP_FINALIZER, DEFINITIONS_MAX};
use crate::kind::Registry;
use crate::meta;
use crate::time::Time;
use crate::tree::{Value, at, json, list_at, set, str_at};

const FIELDS: [&str; 4] = ["plural", "singular", "kind", "listKind"];
const WORDS: [&str; 2] = ["shortNames", "categories"];

/// Whether the condition of this type is True.
pub fn condition_is_true(crd: &Value, ty: &str) -> bool {
    list_at(crd, &["status", "conditions"])
        .iter()
        .any(|c| str_at(c, &["type"]) == ty && str_at(c, &["status"]) == "True")
}

/// Who has which names: built-in kinds (an owner without a name), and definitions whose names were accepted. Kept as definitions come, change
/// and go, so that one of many is judged without a look at the others.
#[derive(Default)]
pub struct Names {
    /// Group, what the name is for, name; then who has it. Plural, singular and short names share the URL and the command line.
    owners: BTreeMap<(String, Sort, String), Vec<String>>,
    established: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Resource,
    Kind,
}

impl Names {
    pub fn new(builtin: &Registry) -> Names {
        let mut names = Names::default();
        for kind in builtin.all().iter().filter(|k| k.custom.is_none()) {
            let resources = [kind.plural.to_string(), kind.singular.to_string()].into_iter();
            let resources = resources.chain(kind.short_names.iter().map(ToString::to_string));
            let kinds = [kind.kind.to_string(), kind.list_kind()].into_iter();
            let all = resources.map(|n| (Sort::Resource, n)).chain(kinds.map(|n| (Sort::Kind, n)));
            all.for_each(|(sort, name)| names.owner(&kind.group, sort, name).push(String::new()));
        }
        names
    }

    fn owner(&mut self, group: &str, sort: Sort, name: String) -> &mut Vec<String> {
        self.owners.entry((group.to_owned(), sort, name)).or_default()
    }

    /// Takes in the names that a definition was given.
    pub fn add(&mut self, crd: &Value) {
        self.established += usize::from(condition_is_true(crd, "Established"));
        for (sort, name) in accepted(crd) {
            self.owner(str_at(crd, &["spec", "group"]), sort, name).push(meta::name(crd).to_owned());
        }
    }

    /// Lets go what [`Self::add`] took in of the same state.
    pub fn remove(&mut self, crd: &Value) {
        self.established = self.established.saturating_sub(usize::from(condition_is_true(crd, "Established")));
        for (sort, name) in accepted(crd) {
            let owners = self.owner(str_at(crd, &["spec", "group"]), sort, name.clone());
            if let Some(at) = owners.iter().position(|o| o == meta::name(crd)) {
                owners.swap_remove(at);
            }
            if owners.is_empty() {
                self.owners.remove(&(str_at(crd, &["spec", "group"]).to_owned(), sort, name));
            }
        }
    }

    /// Whether somebody else has the name.
    fn is_taken(&self, crd: &Value, sort: Sort, name: &str) -> bool {
        let key = (str_at(crd, &["spec", "group"]).to_owned(), sort, name.to_owned());
        self.owners.get(&key).is_some_and(|owners| owners.iter().any(|o| o != meta::name(crd)))
    }
}

fn accepted(crd: &Value) -> Vec<(Sort, String)> {
    let of = |field: &str| str_at(crd, &["status", "acceptedNames", field]).to_owned();
    let short = list_at(crd, &["status", "acceptedNames", "shortNames"]).iter().filter_map(Value::as_str);
    let mut all: Vec<(Sort, String)> = short.map(|n| (Sort::Resource, n.to_owned())).collect();
    all.extend(["plural", "singular"].map(|field| (Sort::Resource, of(field))));
    all.extend(["kind", "listKind"].map(|field| (Sort::Kind, of(field))));
    all.retain(|(_, name)| !name.is_empty());
    all
}

/// The status that a definition should have.
pub fn status_of(crd: &Value, names: &Names, now: Time) -> Value {
    let mut status = at(crd, &["status"]).cloned().unwrap_or_else(|| json!({}));
    let mut conflict: Option<(&str, String)> = None;
    for (field, reason) in
        FIELDS.into_iter().zip(["PluralConflict", "SingularConflict", "KindConflict", "ListKindConflict"])
    {
        let wanted = str_at(crd, &["spec", "names", field]);
        let sort = if field.ends_with("ind") { Sort::Kind } else { Sort::Resource };
        if names.is_taken(crd, sort, wanted) {
            conflict.get_or_insert((reason, format!("{wanted:?} is already in use")));
        } else {
            set(&mut status, &["acceptedNames", field], json!(wanted));
        }
    }
    let short = list_at(crd, &["spec", "names", "shortNames"]).iter().filter_map(Value::as_str);
    match short.clone().find(|s| names.is_taken(crd, Sort::Resource, s)) {
        Some(used) => drop(conflict.get_or_insert(("ShortNamesConflict", format!("{used:?} is already in use")))),
        None => copy(crd, &mut status, WORDS[0]),
    }
    copy(crd, &mut status, WORDS[1]);
    if names.established >= DEFINITIONS_MAX && !condition_is_true(crd, "Established") {
        conflict.get_or_insert(("TooManyDefinitions", format!("this server serves {DEFINITIONS_MAX} definitions")));
    }
    match conflict {
        Some((reason, why)) => {
            condition(&mut status, "NamesAccepted", ("False", reason, &why), now);
            // What was established once stays so with the names it got.
            if !condition_is_true(crd, "Established") {
                condition(&mut status, "Established", ("False", "NotAccepted", "not all names are accepted"), now);
            }
        }
        None => {
            condition(&mut status, "NamesAccepted", ("True", "NoConflicts", "no conflicts found"), now);
            let told = ("True", "InitialNamesAccepted", "the initial names have been accepted");
            condition(&mut status, "Established", told, now);
        }
    }
    status
}

fn copy(crd: &Value, status: &mut Value, field: &str) {
    match at(crd, &["spec", "names", field]) {
        Some(words) => set(status, &["acceptedNames", field], words.clone()),
        None => drop(crate::tree::remove(status, &["acceptedNames", field])),
    }
}

/// Sets a condition; its time is that of the last change of its status.
fn condition(status: &mut Value, ty: &str, (is, reason, message): (&str, &str, &str), now: Time) {
    let old = list_at(status, &["conditions"]).iter().position(|c| str_at(c, &["type"]) == ty);
    let since = old
        .and_then(|i| list_at(status, &["conditions"]).get(i))
        .filter(|c| str_at(c, &["status"]) == is)
        .map_or_else(|| now.to_string(), |c| str_at(c, &["lastTransitionTime"]).to_owned());
    let new = json!({"type": ty, "status": is, "reason": reason, "message": message, "lastTransitionTime": since});
    if at(status, &["conditions"]).and_then(Value::as_array).is_none() {
        set(status, &["conditions"], json!([]));
    }
    let list = crate::tree::slot(status, &["conditions"]).as_array_mut();
    match (list, old) {
        (Some(list), Some(i)) => {
            if let Some(place) = list.get_mut(i) {
                *place = new;
            }
        }
        (Some(list), None) => list.push(new),
        (None, _) => {}
    }
}

/// A definition whose deletion begins: its objects go first.
pub fn terminating(crd: &mut Value, now: Time) {
    let list = crate::tree::slot(crd, &["metadata", "finalizers"]);
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|f| f == CLEANUP_FINALIZER)
    {
        list.push(CLEANUP_FINALIZER.into());
    }
    let told = (
        "True",
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    );
    condition(crate::tree::slot(crd, &["status"]), "Terminating", told, now);
}
