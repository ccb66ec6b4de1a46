use super::*;
use crate::kind::Registry;
use crate::tree::json;

fn labels(text: &str) -> Labels {
    text.split(',')
        .filter(|t| !t.is_empty())
        .filter_map(|t| t.split_once('='))
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

#[test]
fn string_form() {
    for (selector, yes, no) in [
        ("", &["", "a=b"][..], &[][..]),
        ("a=b", &["a=b"], &["", "a=c"]),
        ("a==b,c", &["a=b,c=x"], &["a=b", "c=x"]),
        ("a!=b", &["", "a=c"], &["a=b"]),
        (" a in (b, c) ", &["a=b", "a=c"], &["", "a=d"]),
        ("a notin (b,c)", &["", "a=d"], &["a=b"]),
        ("!a", &["", "b=a"], &["a=b"]),
        ("a=", &["a="], &["", "a=b"]),
        ("a in (,b)", &["a=", "a=b"], &["a=c"]),
        ("n>3,n<5", &["n=4"], &["n=3", "n=5", "n=x", ""]),
        ("x.io/in in (in),notin", &["x.io/in=in,notin=1"], &["notin=1"]),
    ] {
        let s = LabelSelector::parse(selector).unwrap();
        yes.iter().for_each(|l| assert!(s.matches_labels(&labels(l)), "{selector} on {l}"));
        no.iter().for_each(|l| assert!(!s.matches_labels(&labels(l)), "{selector} on {l}"));
        assert_eq!(LabelSelector::parse(&s.to_string()).unwrap(), s);
    }
    for bad in
        ["a in", "a in (", "a in (b", "a b", ",", "a,", "a==b=c", "!", "a>b", "a in b", "-x", "a=b c", "a=$", "x/y/z"]
    {
        assert!(LabelSelector::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn object_form() {
    let s = LabelSelector::from_object(
        &json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}]}),
    )
    .unwrap();
    assert!(s.matches(&json!({"metadata": {"labels": {"a": "b"}}})));
    assert!(!s.matches(&json!({"metadata": {"labels": {"a": "b", "c": "d"}}})));
    assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches(&json!({})));
    assert!(LabelSelector::from_object(&json!({})).unwrap().matches(&json!({})));
    for bad in [
        json!({"key": "a", "operator": "In"}),
        json!({"key": "a", "operator": "Exists", "values": ["x"]}),
        json!({"key": "a", "operator": "in", "values": ["x"]}),
    ] {
        assert!(LabelSelector::from_expressions(&[bad]).is_err());
    }
}

#[test]
fn fields() {
    let pod = json!({"metadata": {"name": "x"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": "1.1.1.1"}]}});
    for (text, expect) in [
        ("", true),
        ("metadata.name=x", true),
        ("metadata.name==x,spec.nodeName!=n2", true),
        ("spec.nodeName!=n1", false),
        ("spec.hostNetwork=false", true),
        ("status.phase!=Running", false),
        ("spec.schedulerName=", true),
        ("status.podIPs=1.1.1.1", true),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap().matches(&pod), expect, "{text}");
    }
    let f = FieldSelector::parse(r"metadata.name=a\,b\=c\\,spec.foo=1").unwrap();
    assert_eq!(f.exact("metadata.name"), Some(r"a,b=c\"));
    let registry = Registry::builtin();
    assert_eq!(f.unsupported(registry.find("pods").unwrap()), Some("spec.foo"));
    assert_eq!(
        FieldSelector::parse("metadata.namespace=x").unwrap().unsupported(registry.find("nodes").unwrap()),
        Some("metadata.namespace")
    );
    assert!(
        FieldSelector::parse("a").is_err()
            && FieldSelector::parse(r"a=\x").is_err()
            && FieldSelector::parse("a=b=c").is_err()
    );
}
