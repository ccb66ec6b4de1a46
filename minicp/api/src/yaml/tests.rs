use super::*;
use crate::tree::json;
use proptest::prelude::*;

#[test]
fn scalars_as_go_reads_them() {
    for (text, value) in [
        ("yes", json!(true)),
        ("off", json!(false)),
        ("'yes'", json!("yes")),
        ("~", json!(null)),
        ("0644", json!(420)),
        ("0o17", json!(15)),
        ("0x1F", json!(31)),
        ("0b11", json!(3)),
        ("1_000", json!(1000)),
        ("-5", json!(-5)),
        ("+5", json!(5)),
        ("1.5", json!(1.5)),
        ("1e3", json!(1000.0)),
        (".5", json!(0.5)),
        ("100m", json!("100m")),
        ("1.2.3", json!("1.2.3")),
        ("10.0.0.1", json!("10.0.0.1")),
        ("2026-11-21", json!("2026-11-21")),
        ("08", json!(8.0)),
        ("!!str 1", json!("1")),
        ("!!int \"1\"", json!(1)),
        ("0", json!(0)),
        ("-", json!([null])),
        ("1-2", json!("1-2")),
        ("18446744073709551615", json!(18446744073709551615u64)),
        ("nan", json!("nan")),
    ] {
        assert_eq!(
            parse(&format!("a: {text}"))
                .map(|d| d[0]["a"].clone())
                .or_else(|_| parse(text).map(|d| d[0].clone()))
                .unwrap(),
            value,
            "{text}"
        );
    }
}

#[test]
fn streams_anchors_and_merges() {
    let docs = parse("---\na: 1\n---\n# nothing\n---\nb: &x {c: [1, 2]}\nd: *x\n...\n").unwrap();
    assert_eq!(docs, [json!({"a": 1}), json!({"b": {"c": [1, 2]}, "d": {"c": [1, 2]}})]);
    assert_eq!(parse("base: &b {x: 1, y2: 2}\nobj: {<<: *b, x: 3}").unwrap()[0]["obj"], json!({"x": 3, "y2": 2}));
    assert_eq!(parse("1: a\ntrue: b\n").unwrap()[0], json!({"1": "a", "true": "b"}));
    assert_eq!(parse("").unwrap(), [] as [Value; 0]);
    assert_eq!(parse("{\"a\": [1, \"x\\ny\"]}").unwrap()[0], json!({"a": [1, "x\ny"]}));
    assert_eq!(parse("a: |\n  x\n   y\nb: >-\n  p\n  q\n").unwrap()[0], json!({"a": "x\n y\n", "b": "p q"}));
    assert!(parse_one("a: 1\n---\nb: 1").is_err());
}

#[test]
fn bad_input_is_told_with_its_place() {
    let e = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
    assert_eq!((e.line, e.message.as_str()), (3, "key \"a\" already set in map"));
    for bad in
        ["a: [", "a: *nope", "a: &a [*a]", "a: b: c", "a: .nan", "? [a]\n: b", "a: 'x", "a: !!int x", "- a\nb: c"]
    {
        let e = parse(bad).expect_err(bad);
        assert!(e.line >= 1 && e.column >= 1, "{bad}: {e}");
    }
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..10 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb += &format!("a{i}: &a{i} [{refs}]\n");
    }
    assert!(parse(&bomb).unwrap_err().message.contains("values"));
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(parse(&"- ".repeat(1000)).is_err());
}

#[test]
fn writes_as_kubectl() {
    let v = json!({"a": [{"b": "x", "c": ["1", 1]}, [], {}], "m": "l1\nl2\n", "n": null, "t": "true", "e": "", "z": {"k": "a: b"}});
    let text = to_yaml(&v);
    assert_eq!(
        text,
        "a:\n- b: x\n  c:\n  - \"1\"\n  - 1\n- []\n- {}\ne: \"\"\nm: |\n  l1\n  l2\n\"n\": null\nt: \"true\"\nz:\n  k: \"a: b\"\n"
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~]{0,12}",
        "\\PC{0,6}",
        ".{0,8}",
        "[a-z :#\\n-]{0,14}",
        Just("0x1".to_string()),
        Just("on".to_string())
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((text.clone(), inner), 0..5)
                .prop_map(|m| Value::Object(m.into_iter().filter(|(k, _)| k != "<<").collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(v in any_value()) {
        let text = to_yaml(&v);
        prop_assert_eq!(parse_one(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?, v, "{}", text);
    }
    #[test]
    fn json_is_yaml(v in any_value()) {
        // A flow document; JSON's escapes are YAML's, but not every character JSON leaves bare.
        let text = v.to_string();
        if text.chars().all(printable) {
            prop_assert_eq!(parse_one(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?, v, "{}", text);
        }
    }
    #[test]
    fn no_text_panics(text in "[a-z:\\-\\[\\]{}&*!|>'\"%@`#\\n ?,~.0-9]{0,60}") {
        let _ = parse(&text);
    }
}
