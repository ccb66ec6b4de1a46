//! The part of JSONPath that definitions use: `.spec.host`, `.metadata.annotations.a\.b`, `.status.conditions[?(@.type=="Ready")].status`, `[0]`, `[*]`, `['key']`.

use crate::tree::Value;

/// Steps of one path.
const STEPS_MAX: usize = 64;
/// Values that one path yields.
const FOUND_MAX: usize = 1_000;

/// Why a text is no path.
#[derive(thiserror::Error, Debug, PartialEq, Eq)]
#[error("{0}")]
pub struct PathError(&'static str);

/// A path into an object.
pub struct JsonPath(Vec<Step>);

enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items for which `path op value`; without an operator: that have `path`.
    Where(Vec<Step>, Op, Value),
}

#[derive(Clone, Copy, PartialEq)]
enum Op {
    Exists,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl JsonPath {
    pub fn parse(text: &str) -> Result<JsonPath, PathError> {
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let text = text.strip_prefix('$').unwrap_or(text);
        steps(text).map(JsonPath)
    }
    /// What the path leads to, in order.
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        walk(&self.0, object)
    }
    /// The names, if the path is only of names.
    pub fn names(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|s| if let Step::Field(name) = s { Some(name.as_str()) } else { None }).collect()
    }
}

fn walk<'a>(steps: &[Step], object: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps {
        let mut next: Vec<&Value> = Vec::new();
        for value in found {
            match (step, value) {
                (Step::Field(name), Value::Object(map)) => next.extend(map.get(name)),
                (Step::Index(i), Value::Array(list)) => {
                    let at = if *i < 0 { list.len().checked_add_signed(*i as isize) } else { usize::try_from(*i).ok() };
                    next.extend(at.and_then(|at| list.get(at)));
                }
                (Step::All, Value::Array(list)) => next.extend(list),
                (Step::All, Value::Object(map)) => next.extend(map.values()),
                (Step::Where(path, op, wanted), Value::Array(list)) => {
                    next.extend(list.iter().filter(|item| walk(path, item).iter().any(|v| op.holds(v, wanted))));
                }
                _ => {}
            }
        }
        next.truncate(FOUND_MAX);
        found = next;
    }
    found
}

impl Op {
    fn holds(self, value: &Value, wanted: &Value) -> bool {
        let order = match (value, wanted) {
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => value.as_f64().zip(wanted.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
        };
        match self {
            Op::Exists => true,
            Op::Eq => order.is_some_and(|o| o.is_eq()),
            Op::Ne => order.is_none_or(|o| o.is_ne()),
            Op::Lt => order.is_some_and(|o| o.is_lt()),
            Op::Le => order.is_some_and(|o| o.is_le()),
            Op::Gt => order.is_some_and(|o| o.is_gt()),
            Op::Ge => order.is_some_and(|o| o.is_ge()),
        }
    }
}

fn steps(mut rest: &str) -> Result<Vec<Step>, PathError> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() >= STEPS_MAX {
            return Err(PathError("too many steps"));
        }
        let step;
        (step, rest) = match rest.strip_prefix('.') {
            Some(".") | Some("") => (None, ""),
            Some(r) if r.starts_with('.') => return Err(PathError("recursive descent (..) is not supported")),
            Some(r) if r.starts_with('[') => (None, r),
            Some(r) => name(r)?,
            None if rest.starts_with('[') => bracket(rest)?,
            None => return Err(PathError("a step must begin with . or [")),
        };
        steps.extend(step);
    }
    Ok(steps)
}

fn name(text: &str) -> Result<(Option<Step>, &str), PathError> {
    let (mut name, mut escaped) = (String::new(), false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => (name.push(c), escaped = false).0,
            '\\' => escaped = true,
            '.' | '[' => return Ok((field(name), text.get(i..).unwrap_or(""))),
            c if c.is_whitespace() || c.is_control() => return Err(PathError("a name must not hold spaces")),
            c => name.push(c),
        }
    }
    Ok((field(name), ""))
}

fn field(name: String) -> Option<Step> {
    match name.as_str() {
        "" => None,
        "*" => Some(Step::All),
        _ => Some(Step::Field(name)),
    }
}

fn bracket(text: &str) -> Result<(Option<Step>, &str), PathError> {
    const OPEN: PathError = PathError("unterminated [");
    let body = text.strip_prefix('[').unwrap_or(text);
    if let Some(filter) = body.strip_prefix("?(") {
        let end = filter.find(")]").ok_or(OPEN)?;
        let (inner, rest) = filter.split_at(end);
        return Ok((Some(condition(inner)?), rest.get(2..).unwrap_or("")));
    }
    for quote in ['\'', '"'] {
        if let Some(quoted) = body.strip_prefix(quote) {
            let end = quoted.find(quote).ok_or(OPEN)?;
            let (name, rest) = quoted.split_at(end);
            let rest = rest.get(1..).and_then(|r| r.strip_prefix(']')).ok_or(OPEN)?;
            return Ok((Some(Step::Field(name.into())), rest));
        }
    }
    let (inner, rest) = body.split_once(']').ok_or(OPEN)?;
    let step = match inner.trim() {
        "*" => Step::All,
        number => Step::Index(number.parse().map_err(|_| PathError("an index must be a number or *"))?),
    };
    Ok((Some(step), rest))
}

/// `@.type=="Ready"`
fn condition(text: &str) -> Result<Step, PathError> {
    const OPS: [(&str, Op); 6] =
        [("==", Op::Eq), ("!=", Op::Ne), ("<=", Op::Le), (">=", Op::Ge), ("<", Op::Lt), (">", Op::Gt)];
    let text = text.trim().strip_prefix('@').ok_or(PathError("a filter must begin with @"))?;
    let found = OPS.iter().filter_map(|(sign, op)| Some((text.find(sign)?, *sign, *op))).min_by_key(|(at, ..)| *at);
    let Some((at, sign, op)) = found else { return Ok(Step::Where(steps(text.trim())?, Op::Exists, Value::Null)) };
    let (path, value) = text.split_at(at);
    let value = value.get(sign.len()..).unwrap_or("").trim();
    let quoted = |q| value.strip_prefix(q).and_then(|v: &str| v.strip_suffix(q));
    let value = match quoted('\'').or_else(|| quoted('"')) {
        Some(text) => Value::String(text.into()),
        None => serde_json::from_str(value).map_err(|_| PathError("a filter compares with a text, number or truth"))?,
    };
    Ok(Step::Where(steps(path.trim())?, op, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::json;

    #[test]
    fn finds() {
        let v = json!({"spec": {"host": "a", "ports": [80, 443], "m": {"x.y": 1}},
            "status": {"conditions": [{"type": "Ready", "status": "True", "n": 2}, {"type": "Ok", "status": "False"}]}});
        for (path, want) in [
            (".spec.host", json!(["a"])),
            ("{.spec.host}", json!(["a"])),
            ("$.spec.host", json!(["a"])),
            (".spec.ports[0]", json!([80])),
            (".spec.ports[-1]", json!([443])),
            (".spec.ports[7]", json!([])),
            (".spec.ports[-7]", json!([])),
            (".spec.ports[*]", json!([80, 443])),
            (r".spec.m.x\.y", json!([1])),
            (".spec.m['x.y']", json!([1])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Ok')].status", json!(["False"])),
            (".status.conditions[?(@.type!='Ok')].status", json!(["True"])),
            (".status.conditions[?(@.n>1)].status", json!(["True"])),
            (".status.conditions[?(@.n)].type", json!(["Ready"])),
            (".spec.none.x", json!([])),
        ] {
            let found = JsonPath::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(json!(found.find(&v)), want, "{path}");
        }
        for bad in ["spec", "..x", ".a[", ".a['x]", ".a[x]", ".a[?(x)]", ".a[?(@.b==c)]", ".a b"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(JsonPath::parse(".spec.x").unwrap().names(), Some(vec!["spec", "x"]));
        assert_eq!(JsonPath::parse(".spec[0]").unwrap().names(), None);
    }
}
