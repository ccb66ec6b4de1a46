//! `x-kubernetes-validations`: rules in CEL that a schema's author wrote, with upstream's words for what is wrong (apiextensions
//! `schema/cel/validation.go`).

use super::validate::type_name;
use super::{ListType, Node};
use crate::cel::{Budget, Old, Program, Stop, Wanted};
use crate::field::{Error, Path, Reason};
use crate::jsonpath::JsonPath;
use crate::tree::{Value, bool_at, list_at, str_at};

/// Errors told to the client.
const ERRORS_MAX: usize = 100;

/// One rule.
pub(crate) struct Expression {
    text: Box<str>,
    /// Or why it cannot be used: a definition that was stored by another server.
    pub(crate) program: Result<Program, String>,
    message: Box<str>,
    pub(crate) message_program: Option<Result<Program, String>>,
    reason: Reason,
    /// As written.
    pub(crate) message_text: Box<str>,
    pub(crate) place_text: Box<str>,
    /// What stands after the path of the value: `.a[b]`; or what is wrong with it.
    pub(crate) place: Result<Box<str>, &'static str>,
    /// It runs without an old value, too.
    pub(crate) optional_old: bool,
}

impl Expression {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The rules of one schema; `node`: what was read of it otherwise.
pub(super) fn read(schema: &Value, node: &Node) -> Box<[Expression]> {
    let rules = list_at(schema, &["x-kubernetes-validations"]).iter();
    rules.map(|rule| one(rule, node)).collect()
}

fn one(rule: &Value, node: &Node) -> Expression {
    let text = |field: &str| str_at(rule, &[field]).trim();
    let optional_old = bool_at(rule, &["optionalOldSelf"]) == Some(true);
    let told = text("messageExpression");
    Expression {
        text: text("rule").into(),
        program: Program::new(str_at(rule, &["rule"]), node, Wanted::Truth, optional_old),
        message: text("message").into(),
        message_program: (!told.is_empty()).then(|| Program::new(told, node, Wanted::Text, optional_old)),
        reason: match text("reason") {
            "FieldValueRequired" => Reason::Required,
            "FieldValueForbidden" => Reason::Forbidden,
            "FieldValueDuplicate" => Reason::Duplicate,
            _ => Reason::Invalid,
        },
        message_text: told.into(),
        place_text: str_at(rule, &["fieldPath"]).into(),
        place: place(str_at(rule, &["fieldPath"]), node),
        optional_old,
    }
}

/// The field that a `fieldPath` names, as errors write it.
fn place(path: &str, node: &Node) -> Result<Box<str>, &'static str> {
    const WRONG: &str = "fieldPath must be a valid path: names of existing fields only";
    if path.is_empty() {
        return Ok("".into());
    }
    let parsed = JsonPath::parse(path).map_err(|_| WRONG)?;
    let (mut out, mut node) = (String::new(), node);
    for name in parsed.names().ok_or(WRONG)? {
        match (node.property(name), node.additional.as_deref()) {
            (Some(below), _) => {
                out.push('.');
                out.push_str(name);
                node = below;
            }
            (None, Some(below)) => {
                out.push_str(&format!("[{name}]"));
                node = below;
            }
            (None, None) => return Err(WRONG),
        }
    }
    Ok(out.into())
}

/// All rules that `new` breaks. Rules that look at the old value run where it can be told which one that is.
pub(crate) fn check(node: &Node, new: &Value, old: Option<&Value>, at: Path<'_>) -> Vec<Error> {
    let mut walk = Walk { errors: Vec::new(), budget: Budget::new() };
    walk.value(node, new, old, at);
    walk.errors
}

struct Walk {
    errors: Vec<Error>,
    budget: Budget,
}

impl Walk {
    fn is_over(&self) -> bool {
        self.errors.len() >= ERRORS_MAX || self.budget.is_spent()
    }

    fn value(&mut self, node: &Node, new: &Value, old: Option<&Value>, at: Path<'_>) {
        if !node.has_expressions || new.is_null() || self.is_over() {
            return;
        }
        // What an object had before is not held against it.
        let same = !node.expressions.is_empty() && old == Some(new);
        for rule in &node.expressions {
            let changes = rule.program.as_ref().is_ok_and(|p| p.uses_old);
            let runs = if changes { old.is_some() || rule.optional_old } else { !same };
            if runs && !self.is_over() {
                self.rule(rule, node, new, old, at);
            }
        }
        match new {
            Value::Object(map) => {
                for (key, value) in map.iter().filter(|(key, _)| !node.is_meta(key)) {
                    let old = old.and_then(|o| o.get(key));
                    match (node.property(key), &node.additional) {
                        (Some(below), _) => self.value(below, value, old, at.f(key)),
                        (None, Some(below)) => self.value(below, value, old, at.k(key)),
                        (None, None) => {}
                    }
                }
            }
            Value::Array(list) => self.list(node, list, old, at),
            _ => {}
        }
    }

    fn list(&mut self, node: &Node, list: &[Value], old: Option<&Value>, at: Path<'_>) {
        let Some(items) = &node.items else { return };
        let before = old.and_then(Value::as_array).filter(|_| node.list == ListType::Map);
        let same = |a: &Value, b: &Value| node.map_keys.split(',').all(|key| a.get(key) == b.get(key));
        for (i, item) in list.iter().enumerate() {
            let twin = before.and_then(|b| b.iter().find(|o| same(o, item)));
            self.value(items, item, twin, at.i(i));
        }
    }

    fn rule(&mut self, rule: &Expression, node: &Node, new: &Value, old: Option<&Value>, at: Path<'_>) {
        let ty = Value::from(type_name(node.ty));
        let own = match (&rule.program, rule.optional_old, old) {
            (Ok(program), true, old) if program.uses_old => Old::Optional(old),
            (_, _, Some(old)) => Old::Some(old),
            _ => Old::None,
        };
        let told = if rule.message.is_empty() { &rule.text } else { &rule.message };
        let field = format!("{at}{}", rule.place.as_deref().unwrap_or(""));
        let field = field.strip_prefix('.').unwrap_or(&field).to_owned();
        let error = match rule.program.as_ref().map(|program| program.truth(new, own, node, &mut self.budget)) {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => {
                let detail = self.detail(rule, node, new, own);
                match rule.reason {
                    Reason::Required => Error::required(field, &detail),
                    Reason::Forbidden => Error::forbidden(field, &detail),
                    Reason::Duplicate => Error::duplicate(field, &ty),
                    _ => Error::invalid(field, &ty, &detail),
                }
            }
            Ok(Err(Stop::Error(why))) => Error::invalid(at, &ty, &format!("{why} evaluating rule: {told}")),
            Ok(Err(Stop::Cost)) if self.budget.is_spent() => {
                let why =
                    "validation failed due to running out of cost budget, no further validation rules will be run";
                Error::invalid(at, &ty, why)
            }
            Ok(Err(Stop::Cost)) => {
                let why = "no further validation rules will be run due to call cost exceeds limit for rule";
                self.budget = Budget::empty();
                Error::invalid(at, &ty, &format!("{why}: {}", rule.text))
            }
            Err(why) => Error::invalid(at, &ty, &format!("rule compile error: {why}")),
        };
        self.errors.push(error);
    }

    /// What is said about a broken rule.
    fn detail(&mut self, rule: &Expression, node: &Node, new: &Value, old: Old<'_>) -> String {
        if let Some(Ok(program)) = &rule.message_program
            && let Ok(text) = program.text(new, old, node, &mut self.budget)
            && !text.trim().is_empty()
            && !text.contains(['\n', '\r'])
        {
            return text.trim().into();
        }
        if rule.message.is_empty() { format!("failed rule: {}", rule.text) } else { rule.message.to_string() }
    }
}
