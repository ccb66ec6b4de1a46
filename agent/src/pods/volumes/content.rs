//! What the files of configMap, secret, downwardAPI and projected volumes hold.

use std::collections::BTreeMap;

use mote_api::tree::{Value, at, bool_at, i64_at, list_at, str_at};

use super::atomic::File;
use crate::pods::model::Pod;
use crate::pods::spec::env::{self, Refs, Self_};

/// Service-account tokens by audience (empty = the API server's own).
pub type Tokens = BTreeMap<String, String>;

/// What volumes are filled from.
pub struct Content<'a> {
    /// ConfigMaps and Secrets.
    pub refs: &'a Refs,
    /// What the pod may know about itself.
    pub me: &'a Self_<'a>,
    /// Tokens for projected volumes.
    pub tokens: &'a Tokens,
}

fn mode_of(item: &Value, default: &Value) -> u32 {
    let mode = i64_at(item, &["mode"]).or_else(|| i64_at(default, &["defaultMode"])).unwrap_or(0o644);
    u32::try_from(mode).unwrap_or(0o644)
}

/// The files of a volume of that kind, by path.
pub(super) fn files(
    pod: &Pod,
    source: &Value,
    kind: &str,
    content: &Content<'_>,
) -> Result<BTreeMap<String, File>, String> {
    let mut out = BTreeMap::new();
    match kind {
        "configMap" => keyed(source, source, str_at(source, &["name"]), false, pod, content, &mut out)?,
        "secret" => keyed(source, source, str_at(source, &["secretName"]), true, pod, content, &mut out)?,
        "downwardAPI" => downward(source, source, pod, content, &mut out)?,
        _ => {
            for part in list_at(source, &["sources"]) {
                if let Some(part) = at(part, &["configMap"]) {
                    keyed(part, source, str_at(part, &["name"]), false, pod, content, &mut out)?;
                } else if let Some(part) = at(part, &["secret"]) {
                    keyed(part, source, str_at(part, &["name"]), true, pod, content, &mut out)?;
                } else if let Some(part) = at(part, &["downwardAPI"]) {
                    downward(part, source, pod, content, &mut out)?;
                } else if let Some(part) = at(part, &["serviceAccountToken"])
                    && let Some(token) = content.tokens.get(str_at(part, &["audience"]))
                {
                    let file = File { bytes: token.as_bytes().to_vec(), mode: mode_of(&Value::Null, source) };
                    out.insert(str_at(part, &["path"]).to_owned(), file);
                }
            }
        }
    }
    Ok(out)
}

/// Files of a ConfigMap or Secret: all keys, or those `items` names.
fn keyed(
    source: &Value,
    modes: &Value,
    name: &str,
    secret: bool,
    pod: &Pod,
    content: &Content<'_>,
    out: &mut BTreeMap<String, File>,
) -> Result<(), String> {
    let (what, objects) =
        if secret { ("secret", &content.refs.secrets) } else { ("configmap", &content.refs.config_maps) };
    let optional = bool_at(source, &["optional"]) == Some(true);
    let Some(object) = objects.get(name).and_then(Option::as_ref) else {
        return if optional { Ok(()) } else { Err(format!("{what} {name:?} not found")) };
    };
    let mut entries = env::bytes(object, secret);
    let items = list_at(source, &["items"]);
    if items.is_empty() {
        out.extend(entries.into_iter().map(|(key, bytes)| (key, File { bytes, mode: mode_of(&Value::Null, modes) })));
        return Ok(());
    }
    for item in items {
        let key = str_at(item, &["key"]);
        match entries.remove(key) {
            Some(bytes) => {
                out.insert(str_at(item, &["path"]).to_owned(), File { bytes, mode: mode_of(item, modes) });
            }
            None if optional => {}
            None => return Err(format!("{what} {}/{name} references non-existent key: {key}", pod.namespace)),
        }
    }
    Ok(())
}

fn downward(
    source: &Value,
    modes: &Value,
    pod: &Pod,
    content: &Content<'_>,
    out: &mut BTreeMap<String, File>,
) -> Result<(), String> {
    for item in list_at(source, &["items"]) {
        let text = match (at(item, &["fieldRef"]), at(item, &["resourceFieldRef"])) {
            (Some(field), _) => env::self_field(content.me, str_at(field, &["fieldPath"]))?,
            (None, Some(field)) => {
                let named = pod.container(str_at(field, &["containerName"])).map(|wanted| &wanted.spec);
                env::resource_field(named.unwrap_or(&Value::Null), field, content.me)?
            }
            (None, None) => String::new(),
        };
        out.insert(str_at(item, &["path"]).to_owned(), File { bytes: text.into_bytes(), mode: mode_of(item, modes) });
    }
    Ok(())
}
