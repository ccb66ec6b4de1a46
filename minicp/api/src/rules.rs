//! `x-kubernetes-validations`: rules in CEL that a schema's author wrote, with upstream's words for what is wrong (apiextensions
//! `schema/cel/validation.go`).

use crate::cel::{Budget, Old, Program, Stop, Wanted};
use crate::field::{Error, Path, Reason};
use crate::jsonpath::JsonPath;
use crate::structural::{self, ListType, Node, type_name};
use crate::tree::{Value, at, bool_at, list_at, map_at, str_at};

/// Errors told to the client.
const ERRORS_MAX: usize = 100;

/// One rule.
pub(crate) struct Rule {
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

impl Rule {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The rules of a schema and of what is below it, in its shape; what has no rules is left out.
pub struct Rules {
    pub(crate) here: Box<[Rule]>,
    pub(crate) properties: Box<[(Box<str>, Rules)]>,
    pub(crate) items: Option<Box<Rules>>,
    pub(crate) additional: Option<Box<Rules>>,
}

impl Rules {
    /// Those of a schema; `node`: what was read of it. None: there are none.
    pub fn read(schema: &Value, node: &Node) -> Option<Rules> {
        let here: Box<[Rule]> =
            list_at(schema, &["x-kubernetes-validations"]).iter().map(|rule| one(rule, node)).collect();
        let fields = map_at(schema, &["properties"]).into_iter().flatten();
        let mut properties: Vec<(Box<str>, Rules)> = fields
            .filter_map(|(name, below)| Some((name.as_str().into(), Rules::read(below, node.property(name)?)?)))
            .collect();
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        let below = |field: &str, node: Option<&Node>| Rules::read(at(schema, &[field])?, node?).map(Box::new);
        let items = below("items", node.items.as_deref());
        let additional = below("additionalProperties", node.additional.as_deref());
        let any = !here.is_empty() || !properties.is_empty() || items.is_some() || additional.is_some();
        any.then(|| Rules { here, properties: properties.into(), items, additional })
    }
    pub(crate) fn property(&self, name: &str) -> Option<&Rules> {
        let i = self.properties.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        self.properties.get(i).map(|(_, rules)| rules)
    }
}

/// All that is wrong with `new`: by its schema, and then by the rules of its author. With `old`, what an object had before and has still is not held
/// against it.
pub fn validate(node: &Node, rules: Option<&Rules>, new: &Value, old: Option<&Value>) -> Vec<Error> {
    let mut errors = structural::validate(node, new, old);
    let Some(rules) = rules else { return errors };
    // Upstream's rule: expressions may count on types, required fields and bounds.
    let blocks =
        |e: &Error| matches!(e.reason, Reason::Required | Reason::TooLong | Reason::TooMany | Reason::TypeInvalid);
    if errors.iter().any(blocks) {
        let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        errors.push(Error::invalid("<nil>", &Value::Null, why));
    } else {
        errors.extend(check(node, rules, new, old, Path::Root));
    }
    errors
}

fn one(rule: &Value, node: &Node) -> Rule {
    let text = |field: &str| str_at(rule, &[field]).trim();
    let optional_old = bool_at(rule, &["optionalOldSelf"]) == Some(true);
    let told = text("messageExpression");
    Rule {
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
pub(crate) fn check(node: &Node, rules: &Rules, new: &Value, old: Option<&Value>, at: Path<'_>) -> Vec<Error> {
    let mut walk = Walk { errors: Vec::new(), budget: Budget::new() };
    walk.value(node, rules, new, old, at);
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

    fn value(&mut self, node: &Node, rules: &Rules, new: &Value, old: Option<&Value>, at: Path<'_>) {
        if new.is_null() || self.is_over() {
            return;
        }
        // What an object had before is not held against it.
        let same = !rules.here.is_empty() && old == Some(new);
        for rule in &rules.here {
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
                    match (node.property(key), rules.property(key)) {
                        (Some(node), Some(rules)) => self.value(node, rules, value, old, at.f(key)),
                        (Some(_), None) => {}
                        (None, _) => {
                            if let (Some(node), Some(rules)) = (&node.additional, &rules.additional) {
                                self.value(node, rules, value, old, at.k(key));
                            }
                        }
                    }
                }
            }
            Value::Array(list) => self.list(node, rules, list, old, at),
            _ => {}
        }
    }

    fn list(&mut self, node: &Node, rules: &Rules, list: &[Value], old: Option<&Value>, at: Path<'_>) {
        let (Some(items), Some(rules)) = (&node.items, &rules.items) else { return };
        let before = old.and_then(Value::as_array).filter(|_| node.list == ListType::Map);
        let same = |a: &Value, b: &Value| node.map_keys.split(',').all(|key| a.get(key) == b.get(key));
        for (i, item) in list.iter().enumerate() {
            let twin = before.and_then(|b| b.iter().find(|o| same(o, item)));
            self.value(items, rules, item, twin, at.i(i));
        }
    }

    fn rule(&mut self, rule: &Rule, node: &Node, new: &Value, old: Option<&Value>, at: Path<'_>) {
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
    fn detail(&mut self, rule: &Rule, node: &Node, new: &Value, old: Old<'_>) -> String {
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

#[cfg(test)]
mod tests;
