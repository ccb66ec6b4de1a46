//! The rules of each kind beyond types: upstream's field paths and messages (`pkg/apis/*/validation`, apimachinery `api/validation`).
//!
//! Objects come here after `schema::check` and `defaults`: types are right, defaults are written. Kinds without own rules are checked for their metadata.

mod data;
mod metadata;
mod pod;
mod service;
mod workload;

use crate::crd;
use crate::field::{Error, Path};
use crate::kind::Kind;
use crate::rules;
use crate::tree::{Value, i64_at, json, list_at, map_at, str_at};

/// Errors told to the client.
const ERRORS_MAX: usize = 100;

/// All that is wrong with an object about to be made (after defaults; `metadata.name` and namespace filled).
pub fn create(kind: &Kind, object: &Value) -> Vec<Error> {
    let mut check = Check::default();
    metadata::object(&mut check, kind, object);
    by_kind(&mut check, kind, object, None);
    if kind.is("", "Pod") {
        pod::created(&mut check, object);
    }
    check.errors
}

/// All that is wrong with `new` as the successor of `old`, immutable fields included. `subresource`: "" or `status`, `scale`, ...
pub fn update(kind: &Kind, new: &Value, old: &Value, subresource: &str) -> Vec<Error> {
    let mut check = Check::default();
    metadata::object(&mut check, kind, new);
    metadata::update(&mut check, new, old);
    if kind.custom.is_some() && !subresource.is_empty() {
        by_kind(&mut check, kind, new, Some(old));
    }
    if subresource.is_empty() {
        by_kind(&mut check, kind, new, Some(old));
        match (&*kind.group, &*kind.kind) {
            ("", "Pod") => pod::update(&mut check, new, old),
            ("", "Service") => service::update(&mut check, new, old),
            ("", "ConfigMap" | "Secret") => data::update(&mut check, new, old),
            ("", "PersistentVolumeClaim") => data::claim_update(&mut check, new, old),
            ("apps" | "batch", _) => workload::update(&mut check, kind, new, old),
            ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding")
                if new.get("roleRef") != old.get("roleRef") =>
            {
                check.invalid(Path::Root.f("roleRef"), new.get("roleRef"), "cannot change roleRef");
            }
            _ => {}
        }
    }
    check.errors
}

fn by_kind(check: &mut Check, kind: &Kind, object: &Value, old: Option<&Value>) {
    if let Some(custom) = &kind.custom {
        rules::validate(&custom.schema, custom.rules.as_ref(), object, old).into_iter().for_each(|e| check.add(e));
        return;
    }
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => pod::spec(check, object.get("spec").unwrap_or(&Value::Null), Path::Root.f("spec")),
        ("", "Service") => service::service(check, object),
        ("", "ConfigMap") => data::config_map(check, object),
        ("", "Secret") => data::secret(check, object),
        ("", "Node") => data::node(check, object),
        ("", "Event") => data::event(check, object),
        ("", "ReplicationController") | ("apps" | "batch", _) => workload::workload(check, kind, object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            crd::validate(object, old).into_iter().for_each(|e| check.add(e));
        }
        ("coordination.k8s.io", "Lease") => data::lease(check, object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => data::role_binding(check, object),
        ("networking.k8s.io", "NetworkPolicy") => {
            check.selector(object.get("spec").and_then(|s| s.get("podSelector")), Path::Root.f("spec").f("podSelector"))
        }
        _ => {}
    }
}

/// What is wrong so far.
#[derive(Default)]
struct Check {
    errors: Vec<Error>,
}

impl Check {
    fn add(&mut self, error: Error) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }
    fn required(&mut self, at: Path<'_>, detail: &str) {
        self.add(Error::required(at, detail));
    }
    fn invalid(&mut self, at: Path<'_>, value: Option<&Value>, detail: &str) {
        self.add(Error::invalid(at, value.unwrap_or(&Value::Null), detail));
    }
    fn forbidden(&mut self, at: Path<'_>, detail: &str) {
        self.add(Error::forbidden(at, detail));
    }
    /// A text by one of the rules of `meta`.
    fn name(&mut self, at: Path<'_>, text: &str, rule: fn(&str) -> Result<(), String>) {
        if let Err(why) = rule(text) {
            self.add(Error::invalid_str(at, text, &why));
        }
    }
    /// Required, and by a rule.
    fn required_name(&mut self, at: Path<'_>, text: &str, rule: fn(&str) -> Result<(), String>) {
        if text.is_empty() { self.required(at, "") } else { self.name(at, text, rule) }
    }
    /// Not there, or by a rule.
    fn optional_name(&mut self, at: Path<'_>, text: &str, rule: fn(&str) -> Result<(), String>) {
        if !text.is_empty() {
            self.name(at, text, rule);
        }
    }
    /// One of a few words; `allowed` is sorted.
    fn one_of(&mut self, at: Path<'_>, text: &str, allowed: &[&str]) {
        if text.is_empty() {
            self.required(at, "");
        } else if !allowed.contains(&text) {
            self.add(Error::not_supported(at, &json!(text), allowed));
        }
    }
    fn not_negative(&mut self, parent: Path<'_>, object: &Value, fields: &[&str]) {
        for field in fields {
            if i64_at(object, &[field]).is_some_and(|n| n < 0) {
                self.invalid(parent.f(field), object.get(*field), "must be greater than or equal to 0");
            }
        }
    }
    fn port(&mut self, at: Path<'_>, value: Option<&Value>) {
        if !value.and_then(Value::as_i64).is_some_and(|n| (1..=65_535).contains(&n)) {
            self.invalid(at, value, "must be between 1 and 65535, inclusive");
        }
    }
    /// A number of a port, or its name.
    fn port_or_name(&mut self, at: Path<'_>, value: Option<&Value>) {
        match value {
            Some(Value::String(name)) => self.name(at, name, port_name),
            other => self.port(at, other),
        }
    }
    fn labels(&mut self, at: Path<'_>, object: &Value, path: &[&str]) {
        for (key, value) in map_at(object, path).into_iter().flatten() {
            self.name(at, key, crate::meta::label_key);
            self.name(at, value.as_str().unwrap_or(""), crate::meta::label_value);
        }
    }
    /// A LabelSelector object.
    fn selector(&mut self, selector: Option<&Value>, at: Path<'_>) {
        const OPERATORS: &[&str] = &["DoesNotExist", "Exists", "In", "NotIn"];
        let Some(selector) = selector else { return };
        self.labels(at.f("matchLabels"), selector, &["matchLabels"]);
        for (i, e) in list_at(selector, &["matchExpressions"]).iter().enumerate() {
            let all = at.f("matchExpressions");
            let here = all.i(i);
            self.name(here.f("key"), str_at(e, &["key"]), crate::meta::label_key);
            let values = list_at(e, &["values"]).len();
            match str_at(e, &["operator"]) {
                "In" | "NotIn" if values == 0 => {
                    self.required(here.f("values"), "must be specified when `operator` is 'In' or 'NotIn'")
                }
                "Exists" | "DoesNotExist" if values > 0 => self
                    .forbidden(here.f("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
                operator if !OPERATORS.contains(&operator) => {
                    self.invalid(here.f("operator"), Some(&json!(operator)), "not a valid selector operator")
                }
                _ => {}
            }
        }
    }
}

/// An IANA service name, as ports are called: at most 15 bytes, lower case, at least one letter.
fn port_name(text: &str) -> Result<(), String> {
    const MAX: usize = 15;
    let b = text.as_bytes();
    if text.len() > MAX {
        return Err(format!("must be no more than {MAX} characters"));
    }
    if !b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-') {
        return Err("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !b.iter().any(u8::is_ascii_lowercase) {
        return Err("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        return Err("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err("must not begin or end with a hyphen".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
