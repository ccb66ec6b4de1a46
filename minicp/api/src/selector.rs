//! Label selectors (the object form and the string form) and field selectors, as upstream's `apimachinery/labels` and `fields`.

mod field;

use std::fmt;

use crate::meta;
use crate::tree::{Map, Value, list_at, map_at, str_at};

pub use field::FieldSelector;

/// Requirements in one selector.
const REQUIREMENTS_MAX: usize = 256;

/// Labels as they stand in an object's metadata.
pub type Labels = Map<String, Value>;

/// Why a text or an object is no selector; upstream-like message.
#[derive(thiserror::Error, Debug, PartialEq, Eq, Clone)]
#[error("{0}")]
pub struct SelectorError(pub String);

fn error<T>(message: impl Into<String>) -> Result<T, SelectorError> {
    Err(SelectorError(message.into()))
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Test {
    /// The value is one of these.
    In(Vec<String>),
    /// The value is none of these, or there is none.
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Requirement {
    key: String,
    test: Test,
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key).map(|v| v.as_str().unwrap_or(""));
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.test {
            Test::In(all) => value.is_some_and(|v| all.iter().any(|a| a == v)),
            Test::NotIn(all) => value.is_none_or(|v| all.iter().all(|a| a != v)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Gt(than) => number().is_some_and(|n| n > *than),
            Test::Lt(than) => number().is_some_and(|n| n < *than),
        }
    }
}

/// All requirements must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }
    /// `?labelSelector=`: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>3`
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut rest = Tokens { text };
        let mut requirements = Vec::new();
        while rest.peek() != Token::End {
            requirements.push(rest.requirement()?);
            if requirements.len() > REQUIREMENTS_MAX {
                return error(format!("more than {REQUIREMENTS_MAX} requirements"));
            }
            match rest.next() {
                Token::End => break,
                Token::Sign(",") if rest.peek() != Token::End => {}
                found => return error(format!("found '{found}', expected: ',' or 'end of string'")),
            }
        }
        Ok(Self { requirements, nothing: false })
    }
    /// `{matchLabels, matchExpressions}`: null selects nothing, `{}` everything (upstream's `LabelSelectorAsSelector`).
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut all = map_at(selector, &["matchLabels"]).map_or_else(Self::everything, Self::from_map);
        all.requirements.extend(Self::from_expressions(list_at(selector, &["matchExpressions"]))?.requirements);
        Ok(all)
    }
    /// A map of equalities (Service, ReplicationController, nodeSelector): empty selects everything.
    pub fn from_map(map: &Labels) -> Self {
        let equals = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            test: Test::In(vec![value.as_str().unwrap_or("").to_string()]),
        };
        Self { requirements: map.iter().map(equals).collect(), nothing: false }
    }
    /// A list of `{key, operator, values}`; also node selector terms, which add `Gt` and `Lt`.
    pub fn from_expressions(expressions: &[Value]) -> Result<Self, SelectorError> {
        if expressions.len() > REQUIREMENTS_MAX {
            return error(format!("more than {REQUIREMENTS_MAX} requirements"));
        }
        let requirements = expressions.iter().map(|e| {
            let values =
                list_at(e, &["values"]).iter().filter_map(Value::as_str).map(str::to_string).collect::<Vec<_>>();
            new_requirement(str_at(e, &["key"]), str_at(e, &["operator"]), values)
        });
        Ok(Self { requirements: requirements.collect::<Result<_, _>>()?, nothing: false })
    }
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.holds(labels))
    }
    /// By `metadata.labels`.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(meta::labels(object))
    }
}

fn new_requirement(key: &str, operator: &str, values: Vec<String>) -> Result<Requirement, SelectorError> {
    if let Err(why) = meta::label_key(key) {
        return error(format!("key: Invalid value: {key:?}: {why}"));
    }
    let number = |values: &[String]| match values {
        [one] => one.parse::<i64>().map_err(|_| {
            SelectorError(format!(
                "values[0]: Invalid value: {one:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ))
        }),
        _ => error("for 'Gt', 'Lt' operators, exactly one value is required"),
    };
    let test = match operator {
        "In" | "NotIn" if values.is_empty() => {
            return error("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            return error("values: Invalid value: values set must be empty for exists and does not exist");
        }
        "In" => Test::In(values),
        "NotIn" => Test::NotIn(values),
        "Exists" => Test::Exists,
        "DoesNotExist" => Test::DoesNotExist,
        "Gt" => Test::Gt(number(&values)?),
        "Lt" => Test::Lt(number(&values)?),
        other => return error(format!("{other:?} is not a valid label selector operator")),
    };
    if let Test::In(all) | Test::NotIn(all) = &test {
        for value in all {
            if let Err(why) = meta::label_value(value) {
                return error(format!("values[0][{key}]: Invalid value: {value:?}: {why}"));
            }
        }
    }
    Ok(Requirement { key: key.to_string(), test })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'static str),
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(w) => f.write_str(w),
            Token::Sign(s) => f.write_str(s),
            Token::End => Ok(()),
        }
    }
}

/// The rest of a selector text.
struct Tokens<'a> {
    text: &'a str,
}

impl<'a> Tokens<'a> {
    fn split(&self) -> (Token<'a>, &'a str) {
        let text = self.text.trim_start_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            return (Token::End, text);
        }
        for sign in ["==", "!=", "=", "!", ",", "(", ")", ">", "<"] {
            if let Some(rest) = text.strip_prefix(sign) {
                return (Token::Sign(sign), rest);
            }
        }
        let end = text.find([' ', '\t', '\r', '\n', '=', '!', ',', '(', ')', '>', '<']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        (Token::Word(word), rest)
    }
    fn peek(&self) -> Token<'a> {
        self.split().0
    }
    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.split();
        self.text = rest;
        token
    }
    /// A value; the empty one is written as nothing.
    fn value(&mut self) -> String {
        match self.peek() {
            Token::Word(w) => {
                self.next();
                w.to_string()
            }
            _ => String::new(),
        }
    }
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Sign("(") => {}
            found => return error(format!("found '{found}' expected: '('")),
        }
        let mut all = Vec::new();
        loop {
            all.push(self.value());
            match self.next() {
                Token::Sign(",") if all.len() < REQUIREMENTS_MAX => {}
                Token::Sign(")") => break,
                found => return error(format!("found '{found}', expected: ',', or ')'")),
            }
        }
        all.sort();
        all.dedup();
        Ok(all)
    }
    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let word = |token: Token<'a>| match token {
            Token::Word(w) => Ok(w),
            found => error(format!("found '{found}', expected: !, identifier, or 'end of string'")),
        };
        if self.peek() == Token::Sign("!") {
            self.next();
            return new_requirement(word(self.next())?, "DoesNotExist", Vec::new());
        }
        let key = word(self.next())?;
        match self.peek() {
            Token::End | Token::Sign(",") => return new_requirement(key, "Exists", Vec::new()),
            _ => {}
        }
        match self.next() {
            Token::Sign("=" | "==") => new_requirement(key, "In", vec![self.value()]),
            Token::Sign("!=") => new_requirement(key, "NotIn", vec![self.value()]),
            Token::Sign(">") => new_requirement(key, "Gt", vec![self.value()]),
            Token::Sign("<") => new_requirement(key, "Lt", vec![self.value()]),
            Token::Word("in") => new_requirement(key, "In", self.values()?),
            Token::Word("notin") => new_requirement(key, "NotIn", self.values()?),
            found => error(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }
}

impl fmt::Display for LabelSelector {
    /// The string form; what selects nothing prints as upstream's `<none>`-less empty text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match &r.test {
                Test::In(all) if all.len() == 1 => write!(f, "{}={}", r.key, all.join(",")),
                Test::In(all) => write!(f, "{} in ({})", r.key, all.join(",")),
                Test::NotIn(all) if all.len() == 1 => write!(f, "{}!={}", r.key, all.join(",")),
                Test::NotIn(all) => write!(f, "{} notin ({})", r.key, all.join(",")),
                Test::Exists => f.write_str(&r.key),
                Test::DoesNotExist => write!(f, "!{}", r.key),
                Test::Gt(n) => write!(f, "{}>{n}", r.key),
                Test::Lt(n) => write!(f, "{}<{n}", r.key),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
