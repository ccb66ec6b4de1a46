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
        (
            |c| {
                schema(c)["properties"]["x"] =
                    json!({"type": "string", "x-kubernetes-validations": [{"rule": "self.y"}]})
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[x].x-kubernetes-validations[0].rule: Invalid value: \"self.y\": compilation failed: ERROR: <input>:1:5: type 'string' does not support field selection\n | self.y\n | ....^",
        ),
        (
            |c| {
                schema(c)["properties"]["x"] =
                    json!({"type": "string", "x-kubernetes-validations": [{"rule": "isSemver(self)"}]})
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[x].x-kubernetes-validations[0].rule: Invalid value: \"isSemver(self)\": compilation failed: ERROR: <input>:1:1: function 'isSemver' is not supported by this server\n | isSemver(self)\n | ^",
        ),
        (
            |c| schema(c)["properties"]["x"] = json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}),
            "spec.versions[0].schema.openAPIV3Schema.properties[x].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within spec.versions[0].schema.openAPIV3Schema.properties[x]",
        ),
        (
            |c| {
                schema(c)["properties"]["x"] =
                    json!({"type": "string", "x-kubernetes-validations": [{"rule": "true", "reason": "Odd"}]})
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[x].x-kubernetes-validations[0].reason: Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
        (
            |c| {
                schema(c)["properties"]["x"] =
                    json!({"type": "object", "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".no"}]})
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[x].x-kubernetes-validations[0].fieldPath: Invalid value: \".no\": fieldPath must be a valid path: names of existing fields only",
        ),
        (
            |c| {
                schema(c)["properties"]["x"] =
                    json!({"type": "string", "x-kubernetes-validations": [{"rule": "true", "messageExpression": "1"}]})
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[x].x-kubernetes-validations[0].messageExpression: Invalid value: \"1\": messageExpression must evaluate to a string",
        ),
        (
            |c| {
                schema(c)["properties"]["x"] =
                    json!({"type": "string", "default": "a", "x-kubernetes-validations": [{"rule": "self != 'a'"}]})
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[x].default: Invalid value: \"string\": failed rule: self != 'a'",
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

/// The status of a definition beside others.
fn status_beside(crd: &Value, others: &[&Value], now: Time) -> Value {
    let mut names = Names::new(&Registry::builtin());
    others.iter().for_each(|o| names.add(o));
    status_of(crd, &names, now)
}

#[test]
fn names_are_given_once() {
    let now = Time::from_unix(1_800_000_000);
    let mut first = crontab();
    first["status"] = status_beside(&first, &[], now);
    assert!(condition_is_true(&first, "Established"));
    let later = now.plus_seconds(60);
    assert_eq!(first["status"], status_beside(&first, &[&first], later), "nothing new is said");
    let mut second = crontab();
    set(&mut second, &["metadata", "name"], json!("cts.stable.example.com"));
    set(&mut second, &["spec", "names", "plural"], json!("cts"));
    second["status"] = status_beside(&second, &[&first, &second], now);
    assert!(!condition_is_true(&second, "Established"));
    let conditions = &second["status"]["conditions"];
    assert_eq!(
        (&conditions[0]["reason"], &conditions[0]["message"]),
        (&json!("SingularConflict"), &json!("\"crontab\" is already in use"))
    );
    // In another group the same names are free.
    set(&mut second, &["spec", "group"], json!("other.example.com"));
    assert!(condition_is_true(&json!({"status": status_beside(&second, &[&first, &second], now)}), "Established"));
    // A built-in kind keeps its names.
    let mut third = crontab();
    set(&mut third, &["spec", "group"], json!("networking.k8s.io"));
    set(&mut third, &["spec", "names", "shortNames"], json!(["netpol"]));
    third["status"] = status_beside(&third, &[], now);
    assert_eq!(third["status"]["conditions"][0]["reason"], "ShortNamesConflict");
}

#[test]
fn names_that_go_are_free() {
    let now = Time::from_unix(1_800_000_000);
    let mut names = Names::new(&Registry::builtin());
    let mut first = crontab();
    first["status"] = status_of(&first, &names, now);
    names.add(&first);
    let mut second = crontab();
    set(&mut second, &["metadata", "name"], json!("other.stable.example.com"));
    let accepted =
        |crd: &Value, names: &Names| condition_is_true(&json!({"status": status_of(crd, names, now)}), "NamesAccepted");
    assert!(accepted(&first, &names) && !accepted(&second, &names));
    names.remove(&first);
    assert!(accepted(&second, &names));
    let mut event = crontab();
    set(&mut event, &["spec", "group"], json!("events.k8s.io"));
    set(&mut event, &["spec", "names", "kind"], json!("Event"));
    assert!(!accepted(&event, &names), "built-in kinds keep theirs");
}
