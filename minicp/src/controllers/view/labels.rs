//! Labels and selectors in the lean form: sorted boxed pairs instead of a JSON map (a fifth of its memory).

use mote_api::tree::{Value, list_at, str_at};

/// Label pairs, sorted by key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    pub fn parse(map: Option<&Value>) -> Self {
        let pairs = map.and_then(Value::as_object).into_iter().flatten();
        let mut pairs: Vec<(Box<str>, Box<str>)> =
            pairs.map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into())).collect();
        pairs.sort();
        Labels(pairs.into())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.0.get(at).map(|(_, v)| &**v)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
    /// An operator we do not know matches nothing.
    Unknown,
}

/// One requirement of a selector or of a nodeSelectorTerm.
#[derive(Clone, PartialEq, Eq)]
pub struct Requirement {
    key: Box<str>,
    op: Op,
    values: Box<[Box<str>]>,
}

impl Requirement {
    fn equals(key: &str, value: &str) -> Self {
        Requirement { key: key.into(), op: Op::In, values: Box::new([value.into()]) }
    }

    pub fn parse(expression: &Value) -> Self {
        let op = match str_at(expression, &["operator"]) {
            "In" => Op::In,
            "NotIn" => Op::NotIn,
            "Exists" => Op::Exists,
            "DoesNotExist" => Op::DoesNotExist,
            "Gt" => Op::Gt,
            "Lt" => Op::Lt,
            _ => Op::Unknown,
        };
        let values = list_at(expression, &["values"]).iter().filter_map(Value::as_str).map(Into::into).collect();
        Requirement { key: str_at(expression, &["key"]).into(), op, values }
    }

    /// Against the value the object has for `key`, if any.
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|v| self.values.iter().any(|want| &**want == v));
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match self.op {
            Op::In => listed(),
            Op::NotIn => !listed(),
            Op::Exists => value.is_some(),
            Op::DoesNotExist => value.is_none(),
            Op::Gt => matches!((value.and_then(number), bound()), (Some(v), Some(b)) if v > b),
            Op::Lt => matches!((value.and_then(number), bound()), (Some(v), Some(b)) if v < b),
            Op::Unknown => false,
        }
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.holds(labels.get(&self.key))
    }

    /// The one node name that a field requirement asks for.
    pub fn only_name(&self) -> Option<&str> {
        match (&*self.key, self.op, &*self.values) {
            ("metadata.name", Op::In, [name]) => Some(name),
            _ => None,
        }
    }

    /// A field requirement of a nodeSelectorTerm: only `metadata.name` exists.
    pub fn matches_name(&self, name: &str) -> bool {
        &*self.key == "metadata.name" && self.holds(Some(name))
    }
}

/// A label selector; `None` of upstream (no selector at all) selects nothing.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Selector(Option<Box<[Requirement]>>);

impl Selector {
    /// `{matchLabels, matchExpressions}`; absent or null selects nothing, `{}` everything.
    pub fn parse(selector: Option<&Value>) -> Self {
        let Some(selector) = selector.filter(|s| s.is_object()) else { return Selector(None) };
        let labels = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
        let mut all: Vec<Requirement> =
            labels.map(|(k, v)| Requirement::equals(k, v.as_str().unwrap_or_default())).collect();
        all.extend(list_at(selector, &["matchExpressions"]).iter().map(Requirement::parse));
        Selector(Some(all.into()))
    }

    /// A map of equalities as in a Service; absent or empty selects nothing.
    pub fn parse_map(map: Option<&Value>) -> Self {
        let map = map.and_then(Value::as_object).filter(|map| !map.is_empty());
        Selector(
            map.map(|map| map.iter().map(|(k, v)| Requirement::equals(k, v.as_str().unwrap_or_default())).collect()),
        )
    }

    /// Adds `key in (value)`: spread constraints' matchLabelKeys.
    pub fn and(self, key: &str, value: &str) -> Self {
        Selector(self.0.map(|all| {
            let mut all = all.into_vec();
            all.push(Requirement::equals(key, value));
            all.into()
        }))
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_some_and(|all| all.iter().all(|r| r.matches(labels)))
    }

    /// There is a selector (which may select everything).
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Selects whatever there is.
    pub fn is_everything(&self) -> bool {
        self.0.as_ref().is_some_and(|all| all.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::tree::json;

    #[test]
    fn selectors() {
        let labels = Labels::parse(Some(&json!({"app": "web", "n": "5"})));
        let expr = |key: &str, op: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": op, "values": values}]});
        let rows = [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchLabels": {"app": "web", "x": ""}}), false),
            (expr("app", "In", &["a", "web"]), true),
            (expr("app", "NotIn", &["a", "web"]), false),
            (expr("zone", "NotIn", &["a"]), true),
            (expr("zone", "In", &["a"]), false),
            (expr("app", "Exists", &[]), true),
            (expr("app", "DoesNotExist", &[]), false),
            (expr("zone", "DoesNotExist", &[]), true),
            (expr("n", "Gt", &["4"]), true),
            (expr("n", "Gt", &["5"]), false),
            (expr("n", "Lt", &["6"]), true),
            (expr("app", "Lt", &["6"]), false),
            (expr("app", "Near", &["6"]), false),
        ];
        for (selector, want) in rows {
            assert_eq!(Selector::parse(Some(&selector)).matches(&labels), want, "{selector}");
        }
        assert!(!Selector::parse(None).matches(&labels));
        assert!(!Selector::parse_map(Some(&json!({}))).matches(&labels));
        assert!(Selector::parse_map(Some(&json!({"app": "web"}))).matches(&labels));
        assert!(Selector::parse(Some(&json!({}))).is_everything());
        assert!(!Selector::parse(Some(&json!({}))).and("app", "db").matches(&labels));
    }
}
