//! The managers of an object: `metadata.managedFields`, read and written.

use super::Writer;
use super::fields::Fields;
use crate::kind::Kind;
use crate::status::Status;
use crate::tree::{Value, json, list_at, set, str_at};

/// Entries of writers that do not apply; more are folded into one (as upstream).
const UPDATERS_MAX: usize = 10;
const FOLDED: &str = "ancient-changes";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One entry.
#[derive(Clone)]
pub(super) struct Manager {
    name: String,
    operation: Operation,
    api_version: String,
    subresource: String,
    time: String,
    pub(super) fields: Fields,
}

impl Manager {
    fn of(entry: &Value) -> Manager {
        let text = |field: &str| str_at(entry, &[field]).to_string();
        Manager {
            name: text("manager"),
            operation: if str_at(entry, &["operation"]) == "Apply" { Operation::Apply } else { Operation::Update },
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: entry.get("fieldsV1").map(Fields::from_v1).unwrap_or_default(),
        }
    }

    fn to_value(&self) -> Value {
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        let mut entry = json!({
            "manager": self.name, "operation": operation, "apiVersion": self.api_version, "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_v1(),
        });
        for (field, text) in [("time", &self.time), ("subresource", &self.subresource)] {
            if !text.is_empty() {
                set(&mut entry, &[field], json!(text));
            }
        }
        entry
    }

    /// As conflicts name it: one who applies by its name alone, as upstream does.
    fn shown(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
            if !self.time.is_empty() {
                text += &format!(" at {}", self.time);
            }
        }
        text
    }
}

/// Who owns which fields of one object.
#[derive(Default)]
pub(super) struct Managers(Vec<Manager>);

impl Managers {
    pub(super) fn of(object: &Value) -> Managers {
        Managers(
            list_at(object, &["metadata", "managedFields"])
                .iter()
                .map(Manager::of)
                .filter(|m| !m.fields.is_empty())
                .collect(),
        )
    }
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub(super) fn sets(&self) -> impl Iterator<Item = &Fields> {
        self.0.iter().map(|m| &m.fields)
    }
    /// An object that nobody was noted for belongs to those before.
    pub(super) fn before_first_apply(&mut self, kind: &Kind, fields: Fields) {
        self.0.push(Manager {
            name: "before-first-apply".into(),
            operation: Operation::Update,
            api_version: kind.api_version(),
            subresource: String::new(),
            time: String::new(),
            fields,
        });
    }
    fn take(&mut self, is: impl Fn(&Manager) -> bool) -> Option<Manager> {
        let at = self.0.iter().position(is)?;
        Some(self.0.remove(at))
    }
    /// What the applier owned so far, in whatever version.
    pub(super) fn take_applier(&mut self, writer: &Writer<'_>) -> Option<Manager> {
        self.take(|m| {
            m.operation == Operation::Apply && m.name == writer.manager && m.subresource == writer.subresource
        })
    }
    pub(super) fn take_updater(&mut self, kind: &Kind, writer: &Writer<'_>) -> Option<Manager> {
        let version = kind.api_version();
        self.take(|m| {
            m.operation == Operation::Update
                && m.name == writer.manager
                && m.subresource == writer.subresource
                && m.api_version == version
        })
    }
    pub(super) fn add(&mut self, kind: &Kind, writer: &Writer<'_>, operation: Operation, fields: Fields) {
        self.0.push(Manager {
            name: writer.manager.to_string(),
            operation,
            api_version: kind.api_version(),
            subresource: writer.subresource.to_string(),
            time: writer.now.to_string(),
            fields,
        });
        self.fold();
    }
    /// Too many updaters: the oldest become one.
    fn fold(&mut self) {
        let mut updaters: Vec<Manager> = Vec::new();
        while self.0.iter().filter(|m| m.operation == Operation::Update).count() + usize::from(!updaters.is_empty())
            > UPDATERS_MAX
        {
            let oldest = self
                .0
                .iter()
                .filter(|m| m.operation == Operation::Update)
                .map(|m| m.time.clone())
                .min()
                .unwrap_or_default();
            match self.take(|m| m.operation == Operation::Update && m.time == oldest) {
                Some(m) => updaters.push(m),
                None => break,
            }
        }
        let Some(mut folded) = updaters.pop() else { return };
        for m in updaters {
            folded.fields.join(&m.fields);
        }
        (folded.name, folded.subresource) = (FOLDED.into(), String::new());
        self.0.push(folded);
    }
    /// Takes fields from all.
    pub(super) fn lose(&mut self, fields: &Fields) {
        if fields.is_empty() {
            return;
        }
        for m in &mut self.0 {
            m.fields = m.fields.minus(fields);
        }
        self.0.retain(|m| !m.fields.is_empty());
    }
    /// Which managers own which of the fields that are about to change.
    pub(super) fn conflicts(&self, altered: &Fields) -> Vec<(String, Vec<String>)> {
        let one = |m: &Manager| {
            let paths = m.fields.common(altered).paths();
            (!paths.is_empty()).then(|| (m.shown(), paths))
        };
        let mut all: Vec<_> = self.0.iter().filter_map(one).collect();
        all.sort();
        all
    }
    pub(super) fn to_value(&self) -> Value {
        Value::Array(self.0.iter().map(Manager::to_value).collect())
    }
}

pub(super) fn conflict_status(kind: &Kind, name: &str, conflicts: &[(String, Vec<String>)]) -> Status {
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let message = match conflicts {
        [(manager, paths)] if paths.len() == 1 => {
            format!("Apply failed with 1 conflict: conflict with {manager}: {}", paths.join(""))
        }
        _ => {
            let lines: Vec<String> = conflicts
                .iter()
                .flat_map(|(manager, paths)| {
                    std::iter::once(format!("conflicts with {manager}:")).chain(paths.iter().map(|p| format!("- {p}")))
                })
                .collect();
            format!("Apply failed with {count} conflicts: {}", lines.join("\n"))
        }
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .flat_map(|(manager, paths)| {
            paths.iter().map(move |p| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": p}))
        })
        .collect();
    let mut status = Status::conflict(kind, name, "");
    status.message = message;
    set(&mut status.details, &["causes"], json!(causes));
    status
}
