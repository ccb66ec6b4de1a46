//! Values against a structural schema, with the messages of upstream (kube-openapi `validation/validate`, apiextensions `validation`).

use super::{ListType, Node, Rules, Ty, format};
use crate::field::{Error, Path, Reason};
use crate::tree::{Map, Value, as_i64};

/// Errors told to the client.
const ERRORS_MAX: usize = 100;

/// All that is wrong with `new`. With `old`, what an object had before and has still is not held against it (upstream's ratcheting).
pub fn validate(node: &Node, new: &Value, old: Option<&Value>) -> Vec<Error> {
    violations(node, new, old, Path::Root)
}

/// The same for a value that stands at `at`.
pub fn violations(node: &Node, new: &Value, old: Option<&Value>, at: Path<'_>) -> Vec<Error> {
    let mut check = Check { errors: Vec::new() };
    check.value(node, new, old, at);
    check.errors
}

struct Check {
    errors: Vec<Error>,
}

/// As schemas name it.
pub fn type_name(ty: Ty) -> &'static str {
    match ty {
        Ty::Any => "any",
        Ty::Object => "object",
        Ty::Array => "array",
        Ty::String => "string",
        Ty::Integer => "integer",
        Ty::Number => "number",
        Ty::Boolean => "boolean",
        Ty::IntOrString => "integer,string",
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() && as_i64(value).is_none() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is(ty: Ty, value: &Value) -> bool {
    match ty {
        Ty::Any => true,
        Ty::Object => value.is_object(),
        Ty::Array => value.is_array(),
        Ty::String => value.is_string(),
        Ty::Integer => value.is_u64() || as_i64(value).is_some(),
        Ty::Number => value.is_number(),
        Ty::Boolean => value.is_boolean(),
        Ty::IntOrString => value.is_string() || as_i64(value).is_some(),
    }
}

impl Check {
    fn add(&mut self, error: Error) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }
    /// `spec.replicas in body should be ...`
    fn invalid(&mut self, at: Path<'_>, value: &Value, what: &str) {
        let text = format!("{at} in body {what}");
        self.add(Error::invalid(at, value, text.trim_start()));
    }

    fn value(&mut self, node: &Node, new: &Value, old: Option<&Value>, at: Path<'_>) {
        if self.errors.len() >= ERRORS_MAX || old == Some(new) {
            return;
        }
        if new.is_null() && node.nullable {
            return;
        }
        if !is(node.ty, new) {
            let (want, have) = (type_name(node.ty), type_of(new));
            let text = format!("{at} in body must be of type {want}: {have:?}");
            let mut error = Error::invalid(at, &Value::from(have), text.trim_start());
            error.reason = Reason::TypeInvalid;
            return self.add(error);
        }
        if let Some(rules) = &node.rules {
            self.rules(rules, new, at);
        }
        match new {
            Value::Object(map) => self.map(node, map, old, at),
            Value::Array(list) => self.list(node, list, old, at),
            _ => {}
        }
    }

    fn map(&mut self, node: &Node, map: &Map<String, Value>, old: Option<&Value>, at: Path<'_>) {
        for (key, value) in map {
            let (named, old) = (node.property(key), old.and_then(|o| o.get(key)));
            match (named, &node.additional) {
                // The author may say how an object is called; all else is said by its own type.
                (Some(meta), _) if node.is_meta(key) && key == "metadata" => self.value(meta, value, old, at.f(key)),
                _ if node.is_meta(key) => {}
                (Some(below), _) => self.value(below, value, old, at.f(key)),
                (None, Some(below)) => self.value(below, value, old, at.k(key)),
                (None, None) => {}
            }
        }
        if node.embedded && !matches!(at, Path::Root) {
            for name in ["apiVersion", "kind"] {
                if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    self.add(Error::required(at.f(name), "must not be empty"));
                }
            }
        }
    }

    fn list(&mut self, node: &Node, list: &[Value], old: Option<&Value>, at: Path<'_>) {
        let Some(items) = &node.items else { return };
        let keys = |item: &Value| -> Vec<Value> {
            node.map_keys.split(',').map(|k| item.get(k).cloned().unwrap_or_default()).collect()
        };
        let before = old.and_then(Value::as_array).filter(|_| node.list == ListType::Map);
        for (i, item) in list.iter().enumerate() {
            let same = before.and_then(|b| b.iter().find(|o| keys(o) == keys(item)));
            self.value(items, item, same, at.i(i));
        }
        if node.list == ListType::Atomic {
            return;
        }
        let mut seen = std::collections::HashSet::new();
        for (i, item) in list.iter().enumerate() {
            let key = match node.list {
                ListType::Map => {
                    let named = node.map_keys.split(',').filter_map(|k| Some((k.to_owned(), item.get(k)?.clone())));
                    Value::Object(named.collect())
                }
                _ => item.clone(),
            };
            if !seen.insert(key.to_string()) {
                self.add(Error::duplicate(at.i(i), &key));
            }
        }
    }

    fn rules(&mut self, rules: &Rules, value: &Value, at: Path<'_>) {
        match value {
            Value::Object(map) => self.object(rules, map, value, at),
            Value::Array(list) => {
                let bounds = rules.items;
                if bounds.too_many(list.len()) {
                    self.add(Error::too_many(at, list.len(), bounds.most as usize));
                }
                if bounds.too_few(list.len()) {
                    self.invalid(at, value, &format!("should have at least {} items", bounds.least));
                }
            }
            Value::String(text) => self.text(rules, text, value, at),
            Value::Number(_) => self.number(rules, value, at),
            _ => {}
        }
        if !rules.one_of_values.is_empty() && !rules.one_of_values.iter().any(|v| same(v, value)) {
            let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            let allowed: Vec<String> = rules.one_of_values.iter().map(plain).collect();
            let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
            self.add(Error::not_supported(at, value, &allowed));
        }
        self.alternatives(rules, value, at);
    }

    fn object(&mut self, rules: &Rules, map: &Map<String, Value>, value: &Value, at: Path<'_>) {
        for name in &rules.required {
            if !map.contains_key(&**name) {
                self.add(Error::required(at.f(name), ""));
            }
        }
        let bounds = rules.properties;
        if bounds.too_many(map.len()) {
            self.add(Error::too_many(at, map.len(), bounds.most as usize));
        }
        if bounds.too_few(map.len()) {
            self.invalid(at, value, &format!("should have at least {} properties", bounds.least));
        }
    }

    fn text(&mut self, rules: &Rules, text: &str, value: &Value, at: Path<'_>) {
        let bounds = rules.length;
        let length = if bounds.speaks() { text.chars().count() } else { 0 };
        if bounds.too_many(length) {
            self.add(Error::too_long(at, bounds.most as usize));
        }
        if bounds.too_few(length) {
            self.invalid(at, value, &format!("should be at least {} chars long", bounds.least));
        }
        if let Some(pattern) = &rules.pattern
            && !pattern.matches(text)
        {
            self.invalid(at, value, &format!("should match '{pattern}'"));
        }
        if !format::holds(&rules.format, text) {
            self.invalid(at, value, &format!("must be of type {}: {value}", rules.format));
        }
    }

    fn number(&mut self, rules: &Rules, value: &Value, at: Path<'_>) {
        let Some(n) = value.as_f64() else { return };
        if let Some((most, exclusive)) = rules.maximum
            && (n > most || (exclusive && n == most))
        {
            self.invalid(
                at,
                value,
                &format!("should be less than {}{most}", if exclusive { "" } else { "or equal to " }),
            );
        }
        if let Some((least, exclusive)) = rules.minimum
            && (n < least || (exclusive && n == least))
        {
            let or = if exclusive { "" } else { "or equal to " };
            self.invalid(at, value, &format!("should be greater than {or}{least}"));
        }
        if let Some(step) = rules.multiple_of
            && step > 0.0
            && (n / step).fract().abs() > 1e-9
        {
            self.invalid(at, value, &format!("should be a multiple of {step}"));
        }
        let fits = match (&*rules.format, as_i64(value)) {
            ("int32", Some(n)) => i32::try_from(n).is_ok(),
            _ => true,
        };
        if !fits {
            self.invalid(at, value, &format!("must be of type int32: {value}"));
        }
    }

    fn alternatives(&mut self, rules: &Rules, value: &Value, at: Path<'_>) {
        let fits = |node: &Node| violations(node, value, None, at).is_empty();
        if !rules.any_of.is_empty() && !rules.any_of.iter().any(fits) {
            self.invalid(at, value, "must validate at least one schema (anyOf)");
        }
        if !rules.one_of.is_empty() {
            match rules.one_of.iter().filter(|n| fits(n)).count() {
                1 => {}
                0 => self.invalid(at, value, "must validate one and only one schema (oneOf). Found none valid"),
                n => self.invalid(
                    at,
                    value,
                    &format!("must validate one and only one schema (oneOf). Found {n} valid alternatives"),
                ),
            }
        }
        if !rules.all_of.is_empty() {
            let wrong: Vec<Error> = rules.all_of.iter().flat_map(|n| violations(n, value, None, at)).collect();
            if !wrong.is_empty() {
                wrong.into_iter().for_each(|e| self.add(e));
                self.invalid(at, value, "must validate all the schemas (allOf)");
            }
        }
        if rules.not.as_deref().is_some_and(fits) {
            self.invalid(at, value, "must not validate the schema (not)");
        }
    }
}

/// Equal as JSON means it: 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}
