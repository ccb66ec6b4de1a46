//! Whether a schema is structural, in upstream's words (apiextensions `schema/validation.go`, `validation/validation.go`).

use crate::field::{Error, Path};
use crate::rules::{Rule, Rules};
use crate::structural::{self, Node, pattern::Pattern};
use crate::tree::{Value, at, bool_at, json, list_at, map_at, str_at};

/// Errors told of one schema.
const ERRORS_MAX: usize = 50;
const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
/// JSON schema that structural schemas have no use for.
const UNSUPPORTED: &[&str] =
    &["$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties", "$schema"];
/// What the alternatives of `anyOf` and its like must leave to the schema around them.
const NOT_IN_LOGIC: &[&str] = &[
    "type",
    "default",
    "description",
    "title",
    "additionalProperties",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];

/// Where a schema stands: what is said when it has no type.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Field,
    Item,
}

/// All that keeps a schema from being structural.
pub(super) fn check(schema: &Value, at: Path<'_>) -> Vec<Error> {
    let mut check = Check { errors: Vec::new() };
    check.level(schema, at, Level::Root);
    check.errors.truncate(ERRORS_MAX);
    check.errors
}

struct Check {
    errors: Vec<Error>,
}

fn has(schema: &Value, flag: &str) -> bool {
    bool_at(schema, &[flag]) == Some(true)
}

impl Check {
    fn forbid(&mut self, at: Path<'_>, why: &str) {
        self.errors.push(Error::forbidden(at, why));
    }

    fn level(&mut self, schema: &Value, here: Path<'_>, level: Level) {
        if self.errors.len() >= ERRORS_MAX {
            return;
        }
        if !schema.is_object() {
            return self.errors.push(Error::invalid(here, schema, "must be an object"));
        }
        self.ty(schema, here, level);
        self.unsupported(schema, here);
        self.extensions(schema, here);
        self.values(schema, here);
        if level == Level::Root || has(schema, "x-kubernetes-embedded-resource") {
            self.metadata(schema, here);
        }
        for (name, below) in map_at(schema, &["properties"]).into_iter().flatten() {
            // How an object is called is not for the schema to type.
            let meta = level == Level::Root && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
            let properties = here.f("properties");
            if meta && str_at(below, &["type"]).is_empty() && below.is_object() {
                continue;
            }
            self.level(below, properties.k(name), Level::Field);
        }
        match schema.get("additionalProperties") {
            None | Some(Value::Bool(true) | Value::Null) => {}
            Some(Value::Bool(false)) => {
                self.forbid(here.f("additionalProperties"), "additionalProperties cannot be set to false")
            }
            Some(below) => self.level(below, here.f("additionalProperties"), Level::Field),
        }
        let properties = map_at(schema, &["properties"]).is_some_and(|p| !p.is_empty());
        if properties && schema.get("additionalProperties").is_some_and(|a| *a != json!(false)) {
            self.forbid(here.f("additionalProperties"), "additionalProperties and properties are mutual exclusive");
        }
        match schema.get("items") {
            Some(Value::Array(_)) => {
                self.forbid(here.f("items"), "items must be a schema object and not an array");
            }
            Some(below) => self.level(below, here.f("items"), Level::Item),
            None if str_at(schema, &["type"]) == "array" => {
                self.errors.push(Error::required(here.f("items"), "must be specified"));
            }
            None => {}
        }
        for (field, nested) in alternatives(schema) {
            let list = here.f(field);
            for (i, inner) in nested.iter().enumerate() {
                let at = if field == "not" { list } else { list.i(i) };
                self.logic(inner, schema, at);
            }
        }
    }

    fn ty(&mut self, schema: &Value, here: Path<'_>, level: Level) {
        let (ty, at) = (str_at(schema, &["type"]), here.f("type"));
        let either = has(schema, "x-kubernetes-int-or-string");
        match ty {
            "" if level == Level::Root => self.errors.push(Error::required(at, "must not be empty at the root")),
            "" if either || has(schema, "x-kubernetes-preserve-unknown-fields") => {}
            "" if level == Level::Item => {
                self.errors.push(Error::required(at, "must not be empty for specified array items"))
            }
            "" => self.errors.push(Error::required(at, "must not be empty for specified object fields")),
            _ if either => {
                self.errors.push(Error::invalid_str(at, ty, "must be empty if x-kubernetes-int-or-string is true"))
            }
            ty if !TYPES.contains(&ty) => self.errors.push(Error::not_supported(at, &json!(ty), TYPES)),
            ty if level == Level::Root && ty != "object" => {
                self.errors.push(Error::invalid_str(at, ty, "must be object at the root"))
            }
            _ => {}
        }
    }

    fn unsupported(&mut self, schema: &Value, here: Path<'_>) {
        for field in UNSUPPORTED {
            if schema.get(*field).is_some_and(|v| !v.is_null() && *v != json!({})) {
                self.forbid(here.f(field), &format!("{field} is not supported"));
            }
        }
        if has(schema, "uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbid(here.f("uniqueItems"), why);
        }
        if let Err(why) = Pattern::new(str_at(schema, &["pattern"])) {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.errors.push(Error::invalid_str(here.f("pattern"), str_at(schema, &["pattern"]), &why));
        }
    }

    fn extensions(&mut self, schema: &Value, here: Path<'_>) {
        let ty = str_at(schema, &["type"]);
        if bool_at(schema, &["x-kubernetes-preserve-unknown-fields"]) == Some(false) {
            let at = here.f("x-kubernetes-preserve-unknown-fields");
            self.errors.push(Error::invalid(at, &json!(false), "must be true or undefined"));
        }
        if has(schema, "x-kubernetes-embedded-resource") {
            if ty != "object" {
                let why = "must be object if x-kubernetes-embedded-resource is true";
                self.errors.push(Error::invalid_str(here.f("type"), ty, why));
            }
            let fields = map_at(schema, &["properties"]).is_some_and(|p| !p.is_empty());
            if !fields && !has(schema, "x-kubernetes-preserve-unknown-fields") {
                let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
                self.errors.push(Error::required(here.f("properties"), why));
            }
        }
        let map_type = str_at(schema, &["x-kubernetes-map-type"]);
        if !matches!(map_type, "" | "atomic" | "granular") {
            let at = here.f("x-kubernetes-map-type");
            self.errors.push(Error::not_supported(at, &json!(map_type), &["atomic", "granular"]));
        }
        let list_type = str_at(schema, &["x-kubernetes-list-type"]);
        if !matches!(list_type, "" | "atomic" | "map" | "set") {
            let at = here.f("x-kubernetes-list-type");
            self.errors.push(Error::not_supported(at, &json!(list_type), &["atomic", "map", "set"]));
        }
        if !list_type.is_empty() && ty != "array" {
            let why = "must be array if x-kubernetes-list-type is specified";
            self.errors.push(Error::invalid_str(here.f("type"), ty, why));
        }
        self.map_keys(schema, here, list_type);
    }

    fn map_keys(&mut self, schema: &Value, here: Path<'_>, list_type: &str) {
        let (at_keys, keys) = (here.f("x-kubernetes-list-map-keys"), list_at(schema, &["x-kubernetes-list-map-keys"]));
        if list_type != "map" {
            if !keys.is_empty() {
                let at = here.f("x-kubernetes-list-type");
                let why = "must be map if x-kubernetes-list-map-keys is non-empty";
                self.errors.push(Error::invalid_str(at, list_type, why));
            }
            return;
        }
        if keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            return self.errors.push(Error::required(at_keys, why));
        }
        let (items, properties) = (here.f("items"), schema.get("items").and_then(|i| map_at(i, &["properties"])));
        for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            let Some(property) = properties.and_then(|p| p.get(key)) else {
                self.errors.push(Error::invalid_str(at_keys.i(i), key, "entries must all be names of item properties"));
                continue;
            };
            let fields = items.f("properties");
            let here = fields.k(key);
            if !matches!(str_at(property, &["type"]), "string" | "integer" | "number" | "boolean") {
                let ty = str_at(property, &["type"]);
                self.errors.push(Error::invalid_str(
                    here.f("type"),
                    ty,
                    "must be a scalar type if parent array's x-kubernetes-list-type is map",
                ));
            }
            let required = list_at(schema, &["items", "required"]).iter().any(|r| r == key);
            if !required && property.get("default").is_none() {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.errors.push(Error::required(here.f("default"), why));
            }
            if keys.iter().take(i).any(|k| k == key) {
                self.errors.push(Error::duplicate(at_keys.i(i), &json!(key)));
            }
        }
    }

    /// The words of validation rules; [`rules`] looks at what they say.
    fn values(&mut self, schema: &Value, here: Path<'_>) {
        const REASONS: &[&str] =
            &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        let rules = here.f("x-kubernetes-validations");
        for (i, rule) in list_at(schema, &["x-kubernetes-validations"]).iter().enumerate() {
            let (at, get) = (rules.i(i), |field: &str| str_at(rule, &[field]));
            let lines = |text: &str| text.trim().contains(['\n', '\r']);
            let blank = |field: &str| rule.get(field).is_some() && get(field).trim().is_empty();
            if get("rule").trim().is_empty() {
                self.errors.push(Error::required(at.f("rule"), "rule is not specified"));
            }
            if blank("message") {
                self.errors.push(Error::invalid_str(
                    at.f("message"),
                    get("message"),
                    "message must be non-empty if specified",
                ));
            } else if lines(get("message")) {
                self.errors.push(Error::invalid_str(
                    at.f("message"),
                    get("message"),
                    "message must not contain line breaks",
                ));
            } else if lines(get("rule")) && get("message").is_empty() {
                self.errors
                    .push(Error::required(at.f("message"), "message must be specified if rule contains line breaks"));
            }
            if blank("messageExpression") {
                let why = "messageExpression must be non-empty if specified";
                self.errors.push(Error::required(at.f("messageExpression"), why));
            }
            if rule.get("reason").is_some() && !REASONS.contains(&get("reason")) {
                self.errors.push(Error::not_supported(at.f("reason"), &json!(get("reason")), REASONS));
            }
        }
    }

    /// Of metadata only the name may be restricted.
    fn metadata(&mut self, schema: &Value, here: Path<'_>) {
        let Some(meta) = at(schema, &["properties", "metadata"]) else { return };
        let properties = here.f("properties");
        let here = properties.k("metadata");
        let allowed = |name: &str| matches!(name, "name" | "generateName");
        let fields = map_at(meta, &["properties"]).into_iter().flatten();
        for (name, _) in fields.filter(|(name, _)| !allowed(name)) {
            let why = format!(
                "must not specify anything other than name and generateName, but metadata.{name} is implicitly specified"
            );
            self.forbid(here, &why);
        }
        for field in ["default", "x-kubernetes-preserve-unknown-fields", "additionalProperties"] {
            if meta.get(field).is_some() {
                self.forbid(here.f(field), "must not be set");
            }
        }
    }

    /// An alternative may only narrow what the schema around it has.
    fn logic(&mut self, inner: &Value, outer: &Value, here: Path<'_>) {
        if self.errors.len() >= ERRORS_MAX {
            return;
        }
        // The one form of int-or-string that is spelled out.
        let either = has(outer, "x-kubernetes-int-or-string");
        for field in NOT_IN_LOGIC.iter().filter(|f| !(either && **f == "type")) {
            if inner.get(*field).is_some_and(|v| *v != json!(false)) {
                self.forbid(here.f(field), "must be empty to be structural");
            }
        }
        if let Err(why) = Pattern::new(str_at(inner, &["pattern"])) {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.errors.push(Error::invalid_str(here.f("pattern"), str_at(inner, &["pattern"]), &why));
        }
        let null = Value::Null;
        for (name, below) in map_at(inner, &["properties"]).into_iter().flatten() {
            let properties = here.f("properties");
            let here = properties.k(name);
            match at(outer, &["properties", name]).or_else(|| outer.get("additionalProperties")) {
                Some(outer) => self.logic(below, outer, here),
                None => {
                    self.errors.push(Error::required(here, "because it is defined in the alternatives of this schema"))
                }
            }
        }
        if let Some(items) = inner.get("items") {
            self.logic(items, outer.get("items").unwrap_or(&null), here.f("items"));
        }
        for (field, nested) in alternatives(inner) {
            let list = here.f(field);
            for (i, deeper) in nested.iter().enumerate() {
                self.logic(deeper, outer, if field == "not" { list } else { list.i(i) });
            }
        }
    }
}

fn alternatives(schema: &Value) -> impl Iterator<Item = (&'static str, &[Value])> {
    let not = schema.get("not").filter(|n| n.is_object()).map(|n| ("not", std::slice::from_ref(n)));
    ["allOf", "anyOf", "oneOf"].into_iter().map(|f| (f, list_at(schema, &[f]))).chain(not)
}

/// What is wrong with the validation rules of a schema: they must be understood, and ask only for old values that can be found.
/// `loose`: where old values cannot be found any more.
pub(super) fn rules(node: &Node, all: &Rules, at: Path<'_>, loose: Option<&str>) -> Vec<Error> {
    let mut errors = Vec::new();
    let at_rules = at.f("x-kubernetes-validations");
    for (i, rule) in all.here.iter().enumerate() {
        one_rule(&mut errors, rule, at_rules.i(i), loose);
    }
    for (name, below) in &all.properties {
        let properties = at.f("properties");
        if let Some(node) = node.property(name) {
            errors.extend(rules(node, below, properties.k(name), loose));
        }
    }
    if let (Some(items), Some(below)) = (&node.items, &all.items) {
        let own = (node.list != structural::ListType::Map).then(|| at.to_string());
        errors.extend(rules(items, below, at.f("items"), loose.or(own.as_deref())));
    }
    if let (Some(free), Some(below)) = (&node.additional, &all.additional) {
        errors.extend(rules(free, below, at.f("additionalProperties"), loose));
    }
    errors.truncate(ERRORS_MAX);
    errors
}

fn one_rule(errors: &mut Vec<Error>, rule: &Rule, here: Path<'_>, loose: Option<&str>) {
    match (&rule.program, loose) {
        (Err(why), _) => errors.push(Error::invalid_str(here.f("rule"), rule.text(), why)),
        (Ok(program), Some(above)) if program.uses_old => {
            let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
            errors.push(Error::invalid_str(here.f("rule"), rule.text(), &why));
        }
        (Ok(program), None) if !program.uses_old && rule.optional_old => {
            let why = "optionalOldSelf may only be set for rules that use oldSelf";
            errors.push(Error::invalid(here.f("optionalOldSelf"), &json!(true), why));
        }
        _ => {}
    }
    if let Some(Err(why)) = &rule.message_program {
        errors.push(Error::invalid_str(here.f("messageExpression"), &rule.message_text, why));
    }
    if let Err(why) = &rule.place {
        errors.push(Error::invalid_str(here.f("fieldPath"), &rule.place_text, why));
    }
}

/// What is wrong with the defaults of a schema: they must be what it asks for.
pub(super) fn defaults(node: &Node, rules: Option<&Rules>, at: Path<'_>) -> Vec<Error> {
    let mut errors = Vec::new();
    if let Some(default) = node.default() {
        errors.extend(structural::violations(node, default, None, at.f("default")));
        if let Some(rules) = rules {
            errors.extend(crate::rules::check(node, rules, default, None, at.f("default")));
        }
        let mut pruned = default.clone();
        if !structural::prune(node, &mut pruned).is_empty() {
            errors.push(Error::invalid(at.f("default"), default, "must not have unknown fields"));
        }
    }
    for (name, below) in node.properties() {
        let properties = at.f("properties");
        errors.extend(defaults(below, rules.and_then(|r| r.property(name)), properties.k(name)));
    }
    if let Some(items) = &node.items {
        errors.extend(defaults(items, rules.and_then(|r| r.items.as_deref()), at.f("items")));
    }
    if let Some(free) = &node.additional {
        errors.extend(defaults(free, rules.and_then(|r| r.additional.as_deref()), at.f("additionalProperties")));
    }
    errors.truncate(ERRORS_MAX);
    errors
}
