//! Which names a definition gets, and what its status says about it (upstream's naming, establishing and finalizing controllers). Pure.

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

/// Names in use in a group, by what they are.
#[derive(Default)]
struct Taken {
    /// Plural, singular and short names share the URL and the command line.
    resources: Vec<String>,
    kinds: Vec<String>,
}

fn taken(crd: &Value, others: &[Value], builtin: &Registry) -> Taken {
    let group = str_at(crd, &["spec", "group"]);
    let mut taken = Taken::default();
    for kind in builtin.all().iter().filter(|k| k.group == group && k.custom.is_none()) {
        taken.resources.extend([kind.plural.to_string(), kind.singular.to_string()]);
        taken.resources.extend(kind.short_names.iter().map(ToString::to_string));
        taken.kinds.extend([kind.kind.to_string(), kind.list_kind()]);
    }
    let others = others.iter().filter(|o| str_at(o, &["spec", "group"]) == group && meta::name(o) != meta::name(crd));
    for other in others {
        let accepted = |field: &str| str_at(other, &["status", "acceptedNames", field]).to_owned();
        taken.resources.extend([accepted("plural"), accepted("singular")]);
        let short = list_at(other, &["status", "acceptedNames", "shortNames"]).iter().filter_map(Value::as_str);
        taken.resources.extend(short.map(str::to_owned));
        taken.kinds.extend([accepted("kind"), accepted("listKind")]);
    }
    taken.resources.retain(|n| !n.is_empty());
    taken.kinds.retain(|n| !n.is_empty());
    taken
}

/// The status that a definition should have. `others`: all definitions.
pub fn status_of(crd: &Value, others: &[Value], builtin: &Registry, now: Time) -> Value {
    let taken = taken(crd, others, builtin);
    let mut status = at(crd, &["status"]).cloned().unwrap_or_else(|| json!({}));
    let mut conflict: Option<(&str, String)> = None;
    for (field, reason) in
        FIELDS.into_iter().zip(["PluralConflict", "SingularConflict", "KindConflict", "ListKindConflict"])
    {
        let wanted = str_at(crd, &["spec", "names", field]);
        let used = if field.ends_with("ind") { &taken.kinds } else { &taken.resources };
        if used.iter().any(|n| n == wanted) {
            conflict.get_or_insert((reason, format!("{wanted:?} is already in use")));
        } else {
            set(&mut status, &["acceptedNames", field], json!(wanted));
        }
    }
    let short = list_at(crd, &["spec", "names", "shortNames"]).iter().filter_map(Value::as_str);
    match short.clone().find(|s| taken.resources.iter().any(|n| n == s)) {
        Some(used) => drop(conflict.get_or_insert(("ShortNamesConflict", format!("{used:?} is already in use")))),
        None => copy(crd, &mut status, WORDS[0]),
    }
    copy(crd, &mut status, WORDS[1]);
    let established = others.iter().filter(|o| condition_is_true(o, "Established")).count();
    if established >= DEFINITIONS_MAX && !condition_is_true(crd, "Established") {
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
