//! The environment of a container, and `$(NAME)` in its words (kubernetes.io/docs: "Define Dependent Environment Variables"). Pure:
//! ConfigMaps and Secrets come as they were read before.

use std::collections::BTreeMap;
use std::rc::Rc;

use base64::Engine as _;
use mote_api::quantity::Quantity;
use mote_api::tree::{Map, Value, at, bool_at, list_at, map_at, str_at};

/// Objects a pod refers to, read before; `None` for those that do not exist.
#[derive(Default)]
pub struct Refs {
    /// By name.
    pub config_maps: BTreeMap<String, Option<Rc<Value>>>,
    /// By name.
    pub secrets: BTreeMap<String, Option<Rc<Value>>>,
}

/// What a pod may ask about itself and its node.
pub struct Self_<'a> {
    /// The pod object.
    pub pod: &'a Value,
    /// The pod's address.
    pub pod_ip: &'a str,
    /// The node's address.
    pub host_ip: &'a str,
    /// The node's name.
    pub node_name: &'a str,
    /// The node's CPU in thousandths, what a container without a limit can have.
    pub node_cpu_milli: i64,
    /// The node's memory in bytes, likewise.
    pub node_memory_bytes: i64,
}

/// Expands `$(NAME)`; `$$` is a dollar, an unknown name stays as it is written.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, after) = rest.split_at(dollar);
        out.push_str(before);
        let after = after.get(1..).unwrap_or_default();
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|tail| tail.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The environment: `services` first, then `envFrom`, then `env`, later names replacing earlier ones, in order of first appearance.
///
/// # Errors
/// In the kubelet's words (`configmap "x" not found`): `CreateContainerConfigError`.
pub fn environment(
    container: &Value,
    refs: &Refs,
    me: &Self_<'_>,
    services: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let mut env: Vec<(String, String)> = services.to_vec();
    for source in list_at(container, &["envFrom"]) {
        let prefix = str_at(source, &["prefix"]);
        for (field, what, objects) in
            [("configMapRef", "configmap", &refs.config_maps), ("secretRef", "secret", &refs.secrets)]
        {
            let Some(reference) = at(source, &[field]) else { continue };
            let name = str_at(reference, &["name"]);
            match objects.get(name).and_then(Option::as_ref) {
                Some(object) => {
                    for (key, value) in strings(object, field == "secretRef") {
                        put(&mut env, format!("{prefix}{key}"), value);
                    }
                }
                None if bool_at(reference, &["optional"]) == Some(true) => {}
                None => return Err(format!("{what} {name:?} not found")),
            }
        }
    }
    for entry in list_at(container, &["env"]) {
        let name = str_at(entry, &["name"]);
        if name.is_empty() {
            continue;
        }
        let value = match at(entry, &["valueFrom"]) {
            None => Some(expand(str_at(entry, &["value"]), &|wanted| find(&env, wanted))),
            Some(from) => value_from(from, container, refs, me)?,
        };
        if let Some(value) = value {
            put(&mut env, name.to_owned(), value);
        }
    }
    Ok(env)
}

/// The value of a name.
pub fn find(env: &[(String, String)], name: &str) -> Option<String> {
    env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

fn put(env: &mut Vec<(String, String)>, name: String, value: String) {
    match env.iter_mut().find(|(key, _)| *key == name) {
        Some(entry) => entry.1 = value,
        None => env.push((name, value)),
    }
}

fn value_from(from: &Value, container: &Value, refs: &Refs, me: &Self_<'_>) -> Result<Option<String>, String> {
    if let Some(field) = at(from, &["fieldRef"]) {
        return self_field(me, str_at(field, &["fieldPath"])).map(Some);
    }
    if let Some(field) = at(from, &["resourceFieldRef"]) {
        return resource_field(container, field, me).map(Some);
    }
    for (field, what, objects) in
        [("configMapKeyRef", "configmap", &refs.config_maps), ("secretKeyRef", "secret", &refs.secrets)]
    {
        let Some(reference) = at(from, &[field]) else { continue };
        let (name, key) = (str_at(reference, &["name"]), str_at(reference, &["key"]));
        let optional = bool_at(reference, &["optional"]) == Some(true);
        let object = objects.get(name).and_then(Option::as_ref);
        let value = object.and_then(|object| strings(object, field == "secretKeyRef").remove(key));
        return match (value, object) {
            (Some(value), _) => Ok(Some(value)),
            (None, _) if optional => Ok(None),
            (None, None) => Err(format!("{what} {name:?} not found")),
            (None, Some(_)) => {
                Err(format!("couldn't find key {key} in {what} {}/{name}", str_at(me.pod, &["metadata", "namespace"])))
            }
        };
    }
    Ok(Some(String::new()))
}

/// The text entries of a ConfigMap or Secret; those that are no text are left out.
fn strings(object: &Value, secret: bool) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (key, value) in map_at(object, &["data"]).into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if secret {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
            if let Ok(text) = String::from_utf8(bytes) {
                out.insert(key.clone(), text);
            }
        } else {
            out.insert(key.clone(), text.to_owned());
        }
    }
    out
}

/// All entries of a ConfigMap or Secret as bytes.
pub fn bytes(object: &Value, secret: bool) -> BTreeMap<String, Vec<u8>> {
    let decode = |value: &Value| {
        base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default()
    };
    let mut out = BTreeMap::new();
    for (key, value) in map_at(object, &["data"]).into_iter().flatten() {
        let data = if secret { decode(value) } else { value.as_str().unwrap_or_default().as_bytes().to_vec() };
        out.insert(key.clone(), data);
    }
    for (key, value) in map_at(object, &["binaryData"]).into_iter().flatten() {
        out.insert(key.clone(), decode(value));
    }
    out
}

/// A field of the pod by its downward API path.
pub fn self_field(me: &Self_<'_>, path: &str) -> Result<String, String> {
    let pod = me.pod;
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let field = match map {
            "metadata.labels" => "labels",
            "metadata.annotations" => "annotations",
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map_at(pod, &["metadata", field])
            .and_then(|map| map.get(key))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned());
    }
    Ok(match path {
        "metadata.name" | "metadata.namespace" | "metadata.uid" => {
            str_at(pod, &["metadata", path.get(9..).unwrap_or_default()]).to_owned()
        }
        "metadata.labels" => lines(map_at(pod, &["metadata", "labels"])),
        "metadata.annotations" => lines(map_at(pod, &["metadata", "annotations"])),
        "spec.nodeName" => me.node_name.to_owned(),
        "spec.serviceAccountName" => {
            let name = str_at(pod, &["spec", "serviceAccountName"]);
            if name.is_empty() { "default".into() } else { name.to_owned() }
        }
        "status.hostIP" | "status.hostIPs" => me.host_ip.to_owned(),
        "status.podIP" | "status.podIPs" => me.pod_ip.to_owned(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn lines(map: Option<&Map<String, Value>>) -> String {
    let mut entries: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={:?}", value.as_str().unwrap_or_default()))
        .collect();
    entries.sort();
    entries.join("\n")
}

/// A resource of this container (or of the one the reference names), divided by the divisor and rounded up.
pub fn resource_field(container: &Value, field: &Value, me: &Self_<'_>) -> Result<String, String> {
    let named = str_at(field, &["containerName"]);
    let container = if named.is_empty() {
        container
    } else {
        let all = [list_at(me.pod, &["spec", "containers"]), list_at(me.pod, &["spec", "initContainers"])];
        all.into_iter()
            .flatten()
            .find(|other| str_at(other, &["name"]) == named)
            .ok_or_else(|| format!("container {named} not found"))?
    };
    let resource = str_at(field, &["resource"]);
    let (side, kind) = resource.split_once('.').ok_or_else(|| format!("unsupported container resource: {resource}"))?;
    let mut amount = at(container, &["resources", side, kind]).and_then(Quantity::of);
    if amount.is_none() && side == "limits" {
        amount = match kind {
            "cpu" => Some(Quantity::from_milli(me.node_cpu_milli)),
            "memory" => Some(Quantity::from_bytes(me.node_memory_bytes)),
            _ => None,
        };
    }
    let amount = amount.unwrap_or_default();
    let divisor =
        at(field, &["divisor"]).and_then(Quantity::of).filter(|divisor| !divisor.is_zero() && !divisor.is_negative());
    let up = |a: i64, b: i64| a.div_euclid(b.max(1)).saturating_add(i64::from(a.rem_euclid(b.max(1)) > 0));
    Ok(match kind {
        "cpu" => up(amount.milli(), divisor.map_or(1000, |d| d.milli())),
        _ => up(amount.value(), divisor.map_or(1, |d| d.value())),
    }
    .to_string())
}

/// Names of the ConfigMaps and Secrets that a container's environment refers to.
pub fn referred(container: &Value) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    let note = |list: &mut Vec<String>, name: &str| {
        if !name.is_empty() && !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
    };
    for entry in list_at(container, &["env"]) {
        note(&mut config_maps, str_at(entry, &["valueFrom", "configMapKeyRef", "name"]));
        note(&mut secrets, str_at(entry, &["valueFrom", "secretKeyRef", "name"]));
    }
    for source in list_at(container, &["envFrom"]) {
        note(&mut config_maps, str_at(source, &["configMapRef", "name"]));
        note(&mut secrets, str_at(source, &["secretRef", "name"]));
    }
    (config_maps, secrets)
}

#[cfg(test)]
mod tests {
    use mote_api::tree::json;

    use super::*;

    #[test]
    fn expansion() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("$$", "$"),
            ("ä$(A)ü", "ä1ü"),
        ] {
            assert_eq!(expand(text, &lookup), expected, "{text}");
        }
    }

    fn me(pod: &Value) -> Self_<'_> {
        Self_ {
            pod,
            pod_ip: "10.42.0.2",
            host_ip: "10.0.0.1",
            node_name: "n1",
            node_cpu_milli: 2000,
            node_memory_bytes: 1 << 30,
        }
    }

    #[test]
    fn every_source() {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "labels": {"a": "b"}}});
        let mut refs = Refs::default();
        refs.config_maps.insert("cm".into(), Some(json!({"data": {"k": "v", "A": "from"}}).into()));
        refs.secrets.insert("s".into(), Some(json!({"data": {"p": "c2VjcmV0"}}).into()));
        refs.secrets.insert("no".into(), None);
        let container = json!({
            "resources": {"requests": {"cpu": "250m"}},
            "envFrom": [{"prefix": "X_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "no", "optional": true}}],
            "env": [
                {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(X_k)$(C)"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
                {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
                {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
                {"name": "O", "valueFrom": {"secretKeyRef": {"name": "s", "key": "nokey", "optional": true}}},
                {"name": "R", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
                {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "A", "value": "2"}]});
        let env = environment(&container, &refs, &me(&pod), &[]).unwrap();
        let text: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text.join(" "), "X_A=from X_k=v A=2 B=1v$(C) IP=10.42.0.2 L=b K=v P=secret R=1 M=1024");
    }

    #[test]
    fn what_is_missing_is_named() {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns"}});
        let refs = Refs { config_maps: [("cm".into(), Some(json!({}).into()))].into(), ..Refs::default() };
        for (from, expected) in [
            (json!({"configMapKeyRef": {"name": "x", "key": "k"}}), "configmap \"x\" not found"),
            (json!({"configMapKeyRef": {"name": "cm", "key": "k"}}), "couldn't find key k in configmap ns/cm"),
            (json!({"secretKeyRef": {"name": "x", "key": "k"}}), "secret \"x\" not found"),
            (json!({"fieldRef": {"fieldPath": "spec.nope"}}), "unsupported fieldPath: spec.nope"),
        ] {
            let container = json!({"env": [{"name": "A", "valueFrom": from}]});
            assert_eq!(environment(&container, &refs, &me(&pod), &[]).unwrap_err(), expected);
        }
    }
}
