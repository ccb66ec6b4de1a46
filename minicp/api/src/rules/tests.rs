use super::*;
use crate::tree::json;

fn told(schema: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let node = Node::of_schema(schema).unwrap();
    let rules = Rules::read(schema, &node);
    validate(&node, rules.as_ref(), new, old).iter().map(ToString::to_string).collect()
}

fn ruled() -> Value {
    let rule = |rule: &str, more: Value| {
        let mut whole = json!({"rule": rule});
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        whole
    };
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["min"],
            "x-kubernetes-validations": [
                rule("!has(self.max) || self.min <= self.max", json!({"message": "min must not be above max", "fieldPath": ".min"})),
                rule("self.min != 7", json!({"messageExpression": "'not ' + string(self.min)", "reason": "FieldValueForbidden"})),
                rule("self.min + self.max > 0 || self.min > 100", json!({})),
            ],
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"},
                "fixed": {"type": "string", "x-kubernetes-validations": [rule("self == oldSelf", json!({"message": "is immutable"}))]},
                "set": {"type": "string", "x-kubernetes-validations": [rule("oldSelf.hasValue() || self != 'late'", json!({"optionalOldSelf": true}))]},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"},
                        "name": {"type": "string", "x-kubernetes-validations": [rule("self >= oldSelf", json!({})), rule("self != 'x'", json!({"reason": "FieldValueDuplicate"}))]}}}},
            }},
    }})
}

#[test]
fn rules_are_enforced_in_upstreams_words() {
    let spec = |spec: Value| json!({"spec": spec});
    for (new, old, want) in [
        (spec(json!({"min": 1, "max": 2})), None, vec![]),
        (
            spec(json!({"min": 3, "max": 2})),
            None,
            vec!["spec.min: Invalid value: \"object\": min must not be above max"],
        ),
        (spec(json!({"min": 7, "max": 9})), None, vec!["spec: Forbidden: not 7"]),
        (
            spec(json!({"min": 1})),
            None,
            vec![
                "spec: Invalid value: \"object\": no such key: max evaluating rule: self.min + self.max > 0 || self.min > 100",
            ],
        ),
        (spec(json!({"min": 101})), None, vec![]),
        (
            spec(json!({"min": -1, "max": 0})),
            None,
            vec!["spec: Invalid value: \"object\": failed rule: self.min + self.max > 0 || self.min > 100"],
        ),
        // What was wrong before is not held against it.
        (spec(json!({"min": 3, "max": 2})), Some(spec(json!({"min": 3, "max": 2}))), vec![]),
        // Rules of change.
        (spec(json!({"min": 1, "max": 2, "fixed": "a"})), Some(spec(json!({"min": 1, "max": 2}))), vec![]),
        (
            spec(json!({"min": 1, "max": 2, "fixed": "a"})),
            Some(spec(json!({"min": 1, "max": 2, "fixed": "b"}))),
            vec!["spec.fixed: Invalid value: \"string\": is immutable"],
        ),
        (
            spec(json!({"min": 1, "max": 2, "set": "late"})),
            Some(spec(json!({"min": 1, "max": 2}))),
            vec!["spec.set: Invalid value: \"string\": failed rule: oldSelf.hasValue() || self != 'late'"],
        ),
        (spec(json!({"min": 1, "max": 2, "set": "late"})), Some(spec(json!({"min": 1, "max": 2, "set": "a"}))), vec![]),
        // Items are found by their keys.
        (
            spec(json!({"min": 1, "max": 2, "ports": [{"port": 2, "name": "a"}, {"port": 1, "name": "z"}]})),
            Some(spec(json!({"min": 1, "max": 2, "ports": [{"port": 1, "name": "b"}, {"port": 2, "name": "b"}]}))),
            vec!["spec.ports[0].name: Invalid value: \"string\": failed rule: self >= oldSelf"],
        ),
        (
            spec(json!({"min": 1, "max": 2, "ports": [{"port": 1, "name": "x"}]})),
            None,
            vec!["spec.ports[0].name: Duplicate value: \"string\""],
        ),
        // Rules count on types.
        (
            spec(json!({"max": 2})),
            None,
            vec![
                "spec.min: Required value",
                "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ],
        ),
    ] {
        let told: Vec<String> = told(&ruled(), &new, old.as_ref());
        assert_eq!(told, want, "{new} {old:?}");
    }
}

#[test]
fn rules_end_when_they_cost_too_much() {
    let costly = "self.all(a, self.all(b, self.all(c, self.all(d, a + b + c + d >= 0))))";
    let rules = json!([{"rule": costly}, {"rule": "false"}]);
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": rules}}});
    let many: Vec<usize> = (0..100).collect();
    let told: Vec<String> = told(&schema, &json!({"l": many}), None);
    let why = "no further validation rules will be run due to call cost exceeds limit for rule";
    assert_eq!(told, [format!("l: Invalid value: \"array\": {why}: {costly}")]);
}
