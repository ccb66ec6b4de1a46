use super::*;
use crate::kind::Registry;
use crate::tree::json;

fn pod() -> std::rc::Rc<Kind> {
    Registry::builtin().find("pods").unwrap().clone()
}

#[test]
fn every_line_is_found_and_every_shape_resolves() {
    let lines: Vec<&str> = TYPES.lines().collect();
    assert!(lines.is_sorted_by_key(|l| l.split(' ').next()));
    let mut fields = 0;
    for line in lines {
        let name = line.split(' ').next().unwrap();
        let ty = find(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(ty.name, name);
        for (text, f) in line.split(' ').skip(1).zip(ty.fields()) {
            fields += 1;
            assert_eq!(ty.field(f.name).map(|g| g.name), Some(f.name));
            let mut shape = f.shape;
            while let Shape::List(inner, _) | Shape::Map(inner, _) = shape {
                shape = inner.shape();
            }
            assert!(
                text.contains(":r") || text.contains("[r]") || text.contains("{r}") || !matches!(shape, Shape::Raw),
                "{name} {text}"
            );
        }
    }
    assert!(fields > 1500, "{fields}");
    for missing in ["", "v1.", "v1.Nope", "zzz", "a"] {
        assert!(find(missing).is_none(), "{missing}");
    }
}

#[test]
fn every_kind_has_a_type() {
    for k in Registry::builtin().all() {
        assert!(find(&k.type_name).is_some(), "{}", k.type_name);
    }
}

#[test]
fn list_rules() {
    let spec = find("v1.PodSpec").unwrap();
    let rules = |ty: Type<'static>, f: &str| match ty.field(f).unwrap().shape {
        Shape::List(_, rules) => rules,
        _ => panic!("{f} is no list"),
    };
    assert_eq!(rules(spec, "containers").patch_key, Some("name"));
    assert_eq!(rules(spec, "tolerations"), ListRules::default());
    assert!(rules(spec, "volumes").retain_keys);
    assert_eq!(
        rules(find("v1.ServiceSpec").unwrap(), "ports"),
        ListRules { set: false, map_keys: "port,protocol", patch_key: Some("port"), retain_keys: false }
    );
    assert_eq!(
        rules(find("meta/v1.ObjectMeta").unwrap(), "finalizers"),
        ListRules { set: true, map_keys: "", patch_key: Some(""), retain_keys: false }
    );
    assert!(find("apps/v1.DeploymentSpec").unwrap().retains_keys("strategy"));
    assert!(!find("apps/v1.DeploymentSpec").unwrap().retains_keys("template"));
}

#[test]
fn unknown_and_doubled_fields() {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "creationTimestamp": null}, "spek": 1, "spec": {"containers": [{"name": "a", "imagee": "b"}]}});
    let strict = check(&pod(), &mut object.clone(), &["spec.a".into()], Unknown::Error).unwrap_err();
    assert_eq!(
        strict.message,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: duplicate field \"spec.a\", unknown field \"spec.containers[0].imagee\", unknown field \"spek\""
    );
    assert_eq!(strict.code, 400);
    let mut dropped = object.clone();
    assert_eq!(
        check(&pod(), &mut dropped, &[], Unknown::Warn).unwrap(),
        ["unknown field \"spec.containers[0].imagee\"", "unknown field \"spek\""]
    );
    assert_eq!(
        dropped,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}]}})
    );
    assert!(check(&pod(), &mut object.clone(), &["spec.a".into()], Unknown::Drop).unwrap().is_empty());
}

#[test]
fn wrong_types() {
    for (spec, why) in [
        (
            json!({"containers": "x"}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            json!({"containers": [{"name": 3}]}),
            "json: cannot unmarshal number 3 into Go struct field Container.spec.containers.name of type string",
        ),
        (
            json!({"priority": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            json!({"priority": 3_000_000_000i64}),
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            json!({"hostNetwork": "yes"}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            json!({"nodeSelector": {"a": 1}}),
            "json: cannot unmarshal number 1 into Go struct field PodSpec.spec.nodeSelector of type string",
        ),
        (
            json!({"overhead": {"cpu": "x"}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (json!([]), "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec"),
    ] {
        let e = check(&pod(), &mut json!({"spec": spec}), &[], Unknown::Error).unwrap_err();
        assert_eq!(e.message, format!("Pod in version \"v1\" cannot be handled as a Pod: {why}"));
    }
    let registry = Registry::builtin();
    let secret = registry.find("secrets").unwrap();
    for (data, good) in [("aGk=", true), ("aG\nk=", true), ("aGk", false), ("a*k=", false), ("", true), ("====", false)]
    {
        assert_eq!(check(secret, &mut json!({"data": {"k": data}}), &[], Unknown::Error).is_ok(), good, "{data:?}");
    }
    assert!(check(&pod(), &mut json!([]), &[], Unknown::Drop).is_err());
}

#[test]
fn canonical_forms() {
    let mut p = json!({"metadata": {"creationTimestamp": "2026-01-01T01:00:00.5+01:00"}, "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]}});
    check(&pod(), &mut p, &[], Unknown::Error).unwrap();
    assert_eq!(p["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(p["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "500m", "memory": "1Gi"}));
}

#[test]
fn kinds_without_schema_keep_everything_but_bad_metadata() {
    let mut kind = Kind::clone(&pod());
    kind.type_name = "".into();
    let mut o = json!({"spec": {"x": null}, "metadata": {"name": "a", "foo": 1}});
    assert_eq!(check(&kind, &mut o, &[], Unknown::Warn).unwrap(), ["unknown field \"metadata.foo\""]);
    assert_eq!(o, json!({"spec": {"x": null}, "metadata": {"name": "a"}}));
}

#[test]
fn kinds_of_bodies() {
    assert_eq!(kind_of_body("autoscaling/v1.Scale").map(|k| k.api_version()), Some("autoscaling/v1".into()));
    assert!(kind_of_body("v1.Nope").is_none());
}

#[test]
fn metadata_of_whole_objects_within_is_checked_too() {
    let whole =
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    let fields =
        json!({"spec": {"type": "object", "properties": {"one": whole, "more": {"type": "array", "items": whole}}}});
    let crd = json!({"spec": {"group": "g.example.com", "names": {"kind": "K", "plural": "ks"}, "versions": [{"name": "v1", "served": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}}}]}});
    let (kinds, _) = crate::crd::kinds(&crd, 1);
    let object = json!({"metadata": {"name": "a"}, "spec": {"one": {"metadata": {"name": "b", "odd": 1}, "x": {"metadata": {"odd": 1}}},
        "more": [{"metadata": {"labels": {"a": "b"}, "odd": 1}}]}});
    let mut new = object.clone();
    let told = check(&kinds[0], &mut new, &[], Unknown::Warn).unwrap();
    assert_eq!(told, ["unknown field \"spec.more[0].metadata.odd\"", "unknown field \"spec.one.metadata.odd\""]);
    assert_eq!(
        new["spec"],
        json!({"one": {"metadata": {"name": "b"}, "x": {"metadata": {"odd": 1}}}, "more": [{"metadata": {"labels": {"a": "b"}}}]})
    );
    let mut bad = object;
    bad["spec"]["one"]["metadata"]["labels"] = json!("text");
    assert!(check(&kinds[0], &mut bad, &[], Unknown::Warn).is_err());
}
