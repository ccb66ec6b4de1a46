use super::*;
use crate::kind::Registry;
use crate::time::Time;
use crate::tree::{json, set};

fn crontab() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList", "shortNames": ["ct"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"cronSpec": {"type": "string"}, "replicas": {"type": "integer"}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}}],
        },
    })
}

fn schema(crd: &mut Value) -> &mut Value {
    &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

#[test]
fn a_right_definition_gives_kinds() {
    let crd = crontab();
    assert_eq!(validate(&crd, None), []);
    let (kinds, wrong) = kinds(&crd, 7);
    assert!(wrong.is_empty());
    assert_eq!(kinds[0].api_version(), "stable.example.com/v1");
    assert_eq!((kinds[0].resource().as_str(), kinds[0].namespaced), ("crontabs.stable.example.com", true));
    assert!(kinds[0].status() && kinds[0].scale());
    let custom = kinds[0].custom.as_ref().unwrap();
    assert!(custom.stale(7) && !custom.stale(8));
}

#[test]
fn what_is_wrong_is_told_as_upstream() {
    type Spoil = fn(&mut Value);
    let cases: &[(Spoil, &str)] = &[
        (
            |c| c["metadata"]["name"] = json!("x"),
            "metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            |c| c["spec"]["scope"] = json!("Global"),
            "spec.scope: Unsupported value: \"Global\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            |c| c["spec"]["versions"][0]["storage"] = json!(false),
            "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version",
        ),
        (
            |c| c["spec"]["names"]["listKind"] = json!("CronTab"),
            "spec.names.listKind: Invalid value: \"CronTab\": kind and listKind may not be the same",
        ),
        (
            |c| c["spec"]["conversion"] = json!({"strategy": "Webhook"}),
            "spec.conversion.strategy: Unsupported value: \"Webhook\": supported values: \"None\"",
        ),
        (
            |c| c["spec"]["versions"][0]["schema"] = json!({}),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            |c| schema(c)["type"] = json!("string"),
            "spec.versions[0].schema.openAPIV3Schema.type: Invalid value: \"string\": must be object at the root",
        ),
        (
            |c| drop(schema(c)["properties"]["spec"].as_object_mut().unwrap().remove("type")),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            |c| schema(c)["properties"]["x"] = json!({"type": "array"}),
            "spec.versions[0].schema.openAPIV3Schema.properties[x].items: Required value: must be specified",
        ),
        (
            |c| schema(c)["properties"]["x"] = json!({"type": "array", "items": {}}),
            "spec.versions[0].schema.openAPIV3Schema.properties[x].items.type: Required value: must not be empty for specified array items",
        ),
        (
            |c| schema(c)["properties"]["x"] = json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            "spec.versions[0].schema.openAPIV3Schema.properties[x].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            |c| schema(c)["properties"]["x"] = json!({"type": "string", "pattern": "("}),
            "spec.versions[0].schema.openAPIV3Schema.properties[x].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: missing closing ) at character 1",
        ),
        (
            |c| schema(c)["properties"]["x"] = json!({"type": "string", "default": 5}),
            "spec.versions[0].schema.openAPIV3Schema.properties[x].default: Invalid value: \"integer\": spec.versions[0].schema.openAPIV3Schema.properties[x].default in body must be of type string: \"integer\"",
        ),
        (
            |c| schema(c)["properties"]["x"] = json!({"type": "string", "x-kubernetes-int-or-string": true}),
            "spec.versions[0].schema.openAPIV3Schema.properties[x].type: Invalid value: \"string\": must be empty if x-kubernetes-int-or-string is true",
        ),
        (
            |c| schema(c)["properties"]["x"] = json!({"type": "array", "items": {"type": "object", "properties": {"n": {"type": "string"}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}),
            "spec.versions[0].schema.openAPIV3Schema.properties[x].items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            |c| schema(c)["properties"]["x"] = json!({"type": "string", "anyOf": [{"type": "string"}]}),
            "spec.versions[0].schema.openAPIV3Schema.properties[x].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            |c| {
                c["spec"]["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "A", "type": "text", "jsonPath": ".a"}])
            },
            "spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
        ),
        (
            |c| c["spec"]["versions"][0]["subresources"]["scale"]["specReplicasPath"] = json!(".status.x"),
            "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec",
        ),
    ];
    for (spoil, want) in cases {
        let mut crd = crontab();
        spoil(&mut crd);
        let errors: Vec<String> = validate(&crd, None).iter().map(ToString::to_string).collect();
        assert_eq!(errors, [*want]);
    }
}

#[test]
fn some_things_may_not_change() {
    let old = crontab();
    let mut new = old.clone();
    new["spec"]["scope"] = json!("Cluster");
    assert_eq!(validate(&new, Some(&old))[0].to_string(), "spec.scope: Invalid value: \"Cluster\": field is immutable");
    let mut new = old.clone();
    new["status"] = json!({"storedVersions": ["v0", "v1"]});
    assert!(
        validate(&new, Some(&old))[0]
            .to_string()
            .starts_with("status.storedVersions[0]: Invalid value: \"v0\": missing from spec.versions")
    );
}

#[test]
fn names_are_given_once() {
    let (registry, now) = (Registry::builtin(), Time::from_unix(1_800_000_000));
    let mut first = crontab();
    first["status"] = status_of(&first, std::slice::from_ref(&first), &registry, now);
    assert!(condition_is_true(&first, "Established"));
    let later = now.plus_seconds(60);
    assert_eq!(
        first["status"],
        status_of(&first, std::slice::from_ref(&first), &registry, later),
        "nothing new is said"
    );
    let mut second = crontab();
    set(&mut second, &["metadata", "name"], json!("cts.stable.example.com"));
    set(&mut second, &["spec", "names", "plural"], json!("cts"));
    let both = [first.clone(), second.clone()];
    second["status"] = status_of(&second, &both, &registry, now);
    assert!(!condition_is_true(&second, "Established"));
    let conditions = &second["status"]["conditions"];
    assert_eq!(
        (&conditions[0]["reason"], &conditions[0]["message"]),
        (&json!("SingularConflict"), &json!("\"crontab\" is already in use"))
    );
    // In another group the same names are free.
    set(&mut second, &["spec", "group"], json!("other.example.com"));
    assert!(condition_is_true(&json!({"status": status_of(&second, &both, &registry, now)}), "Established"));
    // A built-in kind keeps its names.
    let mut third = crontab();
    set(&mut third, &["spec", "group"], json!("networking.k8s.io"));
    set(&mut third, &["spec", "names", "shortNames"], json!(["netpol"]));
    third["status"] = status_of(&third, &[], &registry, now);
    assert_eq!(third["status"]["conditions"][0]["reason"], "ShortNamesConflict");
}

#[test]
fn rules_that_are_not_enforced_are_told() {
    let mut crd = crontab();
    assert!(warnings(&crd).is_empty());
    schema(&mut crd)["properties"]["spec"]["properties"]["cronSpec"]["x-kubernetes-validations"] =
        json!([{"rule": "true"}]);
    assert_eq!(warnings(&crd).len(), 1);
}
