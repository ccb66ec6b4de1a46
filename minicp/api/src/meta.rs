//! ObjectMeta: accessors, owner references, and the rules for names (apimachinery `util/validation`).

use std::sync::LazyLock;

use crate::tree::{Map, Value, bool_at, i64_at, json, list_at, map_at, set, str_at};

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

pub fn name(object: &Value) -> &str {
    str_at(object, &["metadata", "name"])
}
/// "" for objects of cluster scope.
pub fn namespace(object: &Value) -> &str {
    str_at(object, &["metadata", "namespace"])
}
pub fn uid(object: &Value) -> &str {
    str_at(object, &["metadata", "uid"])
}
/// Opaque to clients; "" when absent.
pub fn resource_version(object: &Value) -> &str {
    str_at(object, &["metadata", "resourceVersion"])
}
/// 0 when absent.
pub fn generation(object: &Value) -> i64 {
    i64_at(object, &["metadata", "generation"]).unwrap_or(0)
}
/// Values are strings; empty when absent.
pub fn labels(object: &Value) -> &Map<String, Value> {
    map_at(object, &["metadata", "labels"]).unwrap_or(&EMPTY)
}
pub fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    str_at(object, &["metadata", "labels", key])
}
pub fn annotations(object: &Value) -> &Map<String, Value> {
    map_at(object, &["metadata", "annotations"]).unwrap_or(&EMPTY)
}
pub fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    str_at(object, &["metadata", "annotations", key])
}
/// RFC 3339, as written; "" when absent.
pub fn creation_timestamp(object: &Value) -> &str {
    str_at(object, &["metadata", "creationTimestamp"])
}
/// Some once deletion was asked for.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    Some(str_at(object, &["metadata", "deletionTimestamp"])).filter(|t| !t.is_empty())
}
pub fn is_deleting(object: &Value) -> bool {
    deletion_timestamp(object).is_some()
}
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list_at(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str)
}

/// One entry of `metadata.ownerReferences`, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnerRef<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

pub fn owners(object: &Value) -> impl Iterator<Item = OwnerRef<'_>> {
    list_at(object, &["metadata", "ownerReferences"]).iter().map(|o| OwnerRef {
        api_version: str_at(o, &["apiVersion"]),
        kind: str_at(o, &["kind"]),
        name: str_at(o, &["name"]),
        uid: str_at(o, &["uid"]),
        controller: bool_at(o, &["controller"]).unwrap_or(false),
        block_owner_deletion: bool_at(o, &["blockOwnerDeletion"]).unwrap_or(false),
    })
}
/// The one owner that manages the object.
pub fn controller_of(object: &Value) -> Option<OwnerRef<'_>> {
    owners(object).find(|o| o.controller)
}
/// The reference by which a dependant names `owner`. `owner` must carry apiVersion, kind, name and uid.
pub fn owner_reference(owner: &Value, controller: bool) -> Value {
    let mut reference = json!({"apiVersion": str_at(owner, &["apiVersion"]), "kind": str_at(owner, &["kind"]), "name": name(owner), "uid": uid(owner)});
    if controller {
        set(&mut reference, &["controller"], json!(true));
        set(&mut reference, &["blockOwnerDeletion"], json!(true));
    }
    reference
}

/// Bytes of a DNS label (RFC 1123).
pub const DNS_LABEL_MAX: usize = 63;
/// Bytes of a DNS subdomain.
pub const DNS_SUBDOMAIN_MAX: usize = 253;
const LABEL_VALUE_MAX: usize = 63;
const QUALIFIED_NAME_MAX: usize = 63;

const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_1123: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn no_more_than(what: &str, max: usize) -> String {
    format!("{what}must be no more than {max} bytes")
}
fn lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}
/// First and last byte by `edge`, all by `edge` or one of `inner`, not empty.
fn shaped(text: &str, edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    let b = text.as_bytes();
    b.first().is_some_and(|c| edge(*c))
        && b.last().is_some_and(|c| edge(*c))
        && b.iter().all(|c| edge(*c) || inner.contains(c))
}

/// A lower-case RFC 1123 label: names of namespaces, containers, volumes.
pub fn dns_label(text: &str) -> Result<(), String> {
    if text.len() > DNS_LABEL_MAX {
        return Err(no_more_than("", DNS_LABEL_MAX));
    }
    if shaped(text, lower_alnum, b"-") { Ok(()) } else { Err(LABEL_1123.into()) }
}
/// A lower-case RFC 1123 subdomain: names of most objects.
pub fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() > DNS_SUBDOMAIN_MAX {
        return Err(no_more_than("", DNS_SUBDOMAIN_MAX));
    }
    if text.split('.').all(|l| shaped(l, lower_alnum, b"-")) { Ok(()) } else { Err(SUBDOMAIN_1123.into()) }
}
/// An RFC 1035 label (begins with a letter).
pub fn dns1035_label(text: &str) -> Result<(), String> {
    if text.len() > DNS_LABEL_MAX {
        return Err(no_more_than("", DNS_LABEL_MAX));
    }
    let letter = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if letter && shaped(text, lower_alnum, b"-") { Ok(()) } else { Err(LABEL_1035.into()) }
}
/// A label, annotation, taint or finalizer key: `[prefix/]name`.
pub fn label_key(text: &str) -> Result<(), String> {
    let (prefix, name) = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => (None, name),
        [prefix, name] => (Some(prefix), name),
        _ => {
            return Err(format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                QUALIFIED.trim_start_matches("name part ")
            ));
        }
    };
    match prefix {
        Some("") => return Err("prefix part must be non-empty".into()),
        Some(p) => dns_subdomain(p).map_err(|e| format!("prefix part {e}"))?,
        None => {}
    }
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    if name.len() > QUALIFIED_NAME_MAX {
        return Err(no_more_than("name part ", QUALIFIED_NAME_MAX));
    }
    if shaped(name, |c| c.is_ascii_alphanumeric(), b"-_.") { Ok(()) } else { Err(QUALIFIED.into()) }
}
pub fn label_value(text: &str) -> Result<(), String> {
    if text.len() > LABEL_VALUE_MAX {
        return Err(no_more_than("", LABEL_VALUE_MAX));
    }
    if text.is_empty() || shaped(text, |c| c.is_ascii_alphanumeric(), b"-_.") {
        Ok(())
    } else {
        Err(LABEL_VALUE.into())
    }
}
/// A path segment of the API, for kinds whose names are free (Role, RoleBinding, ...).
pub fn path_segment(text: &str) -> Result<(), String> {
    if text == "." || text == ".." {
        return Err(format!("may not be '{text}'"));
    }
    match text.chars().find(|c| matches!(c, '/' | '%')) {
        Some(c) => Err(format!("may not contain '{c}'")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_round_trip() {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "rs", "uid": "u1"}});
        let child =
            json!({"metadata": {"ownerReferences": [owner_reference(&owner, false), owner_reference(&owner, true)]}});
        let c = controller_of(&child).unwrap();
        assert_eq!((c.kind, c.name, c.uid, c.block_owner_deletion), ("ReplicaSet", "rs", "u1", true));
        assert_eq!(owners(&child).count(), 2);
        assert!(controller_of(&json!({})).is_none());
    }

    #[test]
    fn names() {
        let long = "a".repeat(64);
        let longer = "a".repeat(254);
        type Rule = fn(&str) -> Result<(), String>;
        let table: &[(Rule, &[&str], &[&str])] = &[
            (dns_label, &["a", "0", "a-b", "a0"], &["", "-a", "a-", "A", "a.b", "a_b", "é", &long]),
            (dns_subdomain, &["a.b", "0.a-b.c"], &["", "a..b", ".a", "a.", "a.-b", "A.b", &longer]),
            (dns1035_label, &["a", "a-0"], &["", "0a", "-a", "a-", &long]),
            (
                label_key,
                &["a", "A_b.c", "example.com/x", "k8s.io/A"],
                &["", "/a", "a/", "a/b/c", "-a", "a b", "Ex.com/x", &long],
            ),
            (label_value, &["", "A", "a_b.c-d"], &["-", "a b", "a/", &long]),
            (path_segment, &["system:node", "a b"], &[".", "..", "a/b", "a%b"]),
        ];
        for (rule, good, bad) in table {
            good.iter().for_each(|t| assert_eq!(rule(t), Ok(()), "{t:?}"));
            bad.iter().for_each(|t| assert!(rule(t).is_err(), "{t:?}"));
        }
        assert_eq!(dns_label(&long).unwrap_err(), "must be no more than 63 bytes");
        assert_eq!(label_key("x/").unwrap_err(), "name part must be non-empty");
    }
}
