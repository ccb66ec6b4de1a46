use super::*;
use crate::tree::json;

fn node(schema: Value) -> Node {
    Node::of_schema(&schema).unwrap_or_else(|e| panic!("{e}"))
}

fn object() -> Node {
    node(json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["cron"], "properties": {
            "cron": {"type": "string", "pattern": "^\\d+$", "maxLength": 5},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3},
            "ratio": {"type": "number", "exclusiveMaximum": true, "maximum": 1},
            "color": {"type": "string", "enum": ["blue", "red"]},
            "size": {"x-kubernetes-int-or-string": true},
            "note": {"type": "string", "nullable": true, "default": "x"},
            "when": {"type": "string", "format": "date-time"},
            "list": {"type": "array", "maxItems": 2, "items": {"type": "object", "properties": {"a": {"type": "string", "default": "q"}}}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"], "items": {"type": "object",
                "required": ["port"], "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"n": {"type": "integer"}}},
            "one": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        }},
    }}))
}

#[test]
fn prunes() {
    let mut value = json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "odd": 1}, "extra": 1, "spec": {
        "cron": "1", "odd": 1, "list": [{"a": "x", "b": 1}], "labels": {"any": "y"}, "free": {"n": 1, "odd": {"x": 1}}, "map": [{"port": 1}]}});
    let unknown = prune(&object(), &mut value);
    assert_eq!(unknown, ["spec.list[0].b", "spec.odd", "extra"]);
    assert_eq!(
        value,
        json!({"apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "odd": 1}, "spec": {
        "cron": "1", "list": [{"a": "x"}], "labels": {"any": "y"}, "free": {"n": 1, "odd": {"x": 1}}, "map": [{"port": 1, "protocol": "TCP"}]}})
    );
}

#[test]
fn fills_in() {
    let mut value = json!({"spec": {"list": [{}, {"a": null}], "note": null, "replicas": null}});
    fill(&object(), &mut value);
    assert_eq!(value, json!({"spec": {"list": [{"a": "q"}, {"a": "q"}], "note": null, "replicas": 3}}));
    let mut value = json!({});
    fill(&object(), &mut value);
    assert_eq!(value, json!({}));
}

#[test]
fn tells_what_is_wrong_as_upstream() {
    for (spec, want) in [
        (json!({"cron": "1"}), vec![]),
        (json!({}), vec!["spec.cron: Required value"]),
        (
            json!({"cron": 5}),
            vec!["spec.cron: Invalid value: \"integer\": spec.cron in body must be of type string: \"integer\""],
        ),
        (json!({"cron": "x"}), vec!["spec.cron: Invalid value: \"x\": spec.cron in body should match '^\\d+$'"]),
        (json!({"cron": "123456"}), vec!["spec.cron: Too long: may not be more than 5 bytes"]),
        (
            json!({"cron": "1", "replicas": 0}),
            vec!["spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1"],
        ),
        (
            json!({"cron": "1", "replicas": 11}),
            vec!["spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"],
        ),
        (json!({"cron": "1", "replicas": 3.0}), vec![]),
        (
            json!({"cron": "1", "replicas": 3.5}),
            vec!["spec.replicas: Invalid value: \"number\": spec.replicas in body must be of type integer: \"number\""],
        ),
        (
            json!({"cron": "1", "ratio": 1}),
            vec!["spec.ratio: Invalid value: 1: spec.ratio in body should be less than 1"],
        ),
        (
            json!({"cron": "1", "color": "green"}),
            vec!["spec.color: Unsupported value: \"green\": supported values: \"blue\", \"red\""],
        ),
        (json!({"cron": "1", "size": "5%"}), vec![]),
        (
            json!({"cron": "1", "size": true}),
            vec![
                "spec.size: Invalid value: \"boolean\": spec.size in body must be of type integer,string: \"boolean\"",
            ],
        ),
        (json!({"cron": "1", "note": null}), vec![]),
        (
            json!({"cron": null}),
            vec!["spec.cron: Invalid value: \"null\": spec.cron in body must be of type string: \"null\""],
        ),
        (
            json!({"cron": "1", "when": "soon"}),
            vec!["spec.when: Invalid value: \"soon\": spec.when in body must be of type date-time: \"soon\""],
        ),
        (json!({"cron": "1", "list": [{}, {}, {}]}), vec!["spec.list: Too many: 3: must have at most 2 items"]),
        (json!({"cron": "1", "set": ["a", "b", "a"]}), vec!["spec.set[2]: Duplicate value: \"a\""]),
        (json!({"cron": "1", "map": [{"port": 1}, {"port": 1}]}), vec!["spec.map[1]: Duplicate value: {\"port\":1}"]),
        (
            json!({"cron": "1", "labels": {"a": 1}}),
            vec![
                "spec.labels[a]: Invalid value: \"integer\": spec.labels[a] in body must be of type string: \"integer\"",
            ],
        ),
        (
            json!({"cron": "1", "free": {"n": "x", "y": 1}}),
            vec!["spec.free.n: Invalid value: \"string\": spec.free.n in body must be of type integer: \"string\""],
        ),
        (json!({"cron": "1", "one": {"a": 1}}), vec![]),
        (
            json!({"cron": "1", "one": {}}),
            vec![
                "spec.one: Invalid value: {}: spec.one in body must validate one and only one schema (oneOf). Found none valid",
            ],
        ),
    ] {
        let errors: Vec<String> =
            validate(&object(), &json!({"spec": spec}), None).iter().map(ToString::to_string).collect();
        assert_eq!(errors, want, "{spec}");
    }
}

#[test]
fn what_was_wrong_before_is_let_be() {
    let old = json!({"spec": {"cron": "bad", "replicas": 1, "map": [{"port": "x", "protocol": "TCP"}]}});
    let errors = |new: Value| validate(&object(), &new, Some(&old)).len();
    assert_eq!(
        errors(
            json!({"spec": {"cron": "bad", "replicas": 2, "map": [{"port": "x", "protocol": "TCP"}, {"port": 1, "protocol": "TCP"}]}})
        ),
        0
    );
    assert_eq!(errors(json!({"spec": {"cron": "worse", "replicas": 2, "map": old["spec"]["map"]}})), 1);
}

#[test]
fn shapes_are_those_of_the_table() {
    use crate::schema::Shape;
    let kind = {
        let mut kind = crate::kind::Kind::clone(crate::kind::Registry::builtin().find("pods").unwrap());
        let custom = crate::custom::Custom {
            schema: object(),
            rules: None,
            columns: Vec::new(),
            selectable: Vec::new(),
            scale: None,
            since: 0,
            mark: 0,
            alone: true,
            terminating: false,
            deprecated: None,
        };
        kind.custom = Some(std::rc::Rc::new(custom));
        kind
    };
    let root = crate::schema::of(&kind);
    assert!(matches!(root.child("metadata"), Some(Shape::Struct(t, _)) if t.name == "meta/v1.ObjectMeta"));
    let spec = root.child("spec").unwrap();
    assert!(matches!(spec.child("map"), Some(Shape::List(_, rules)) if rules.map_keys == "port,protocol"));
    assert!(matches!(spec.child("set"), Some(Shape::List(_, rules)) if rules.set));
    assert!(matches!(spec.child("labels"), Some(Shape::Map(_, false))));
    assert!(matches!(spec.child("free").and_then(|f| f.child("n")), Some(Shape::Int64)));
    assert!(spec.child("odd").is_none());
}

#[test]
fn too_large_is_refused() {
    let fields: serde_json::Map<String, Value> =
        (0..NODES_MAX).map(|i| (format!("f{i}"), json!({"type": "string"}))).collect();
    assert!(matches!(Node::of_schema(&json!({"type": "object", "properties": fields})), Err(SchemaError::TooLarge)));
}
