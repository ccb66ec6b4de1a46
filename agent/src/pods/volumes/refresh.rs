//! When content of volumes has to be looked at again. Pure.

use std::time::Duration;

use mote_api::tree::{Value, list_at, str_at};

use super::kind;
use crate::clock::Moment;
use crate::objects::{ROOT_CA, ROOT_CA_AGE_MAX};

/// How often ConfigMaps and Secrets in volumes are read again.
pub const REFRESH: Duration = Duration::from_secs(60);

/// Names of the ConfigMaps and Secrets in the pod's volumes.
pub fn referred(pod: &Value) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    let note = |list: &mut Vec<String>, name: &str| {
        if !name.is_empty() && !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
    };
    for volume in list_at(pod, &["spec", "volumes"]) {
        note(&mut config_maps, str_at(volume, &["configMap", "name"]));
        note(&mut secrets, str_at(volume, &["secret", "secretName"]));
        for source in list_at(volume, &["projected", "sources"]) {
            note(&mut config_maps, str_at(source, &["configMap", "name"]));
            note(&mut secrets, str_at(source, &["secret", "name"]));
        }
    }
    (config_maps, secrets)
}

/// Whether files of the pod tell what its labels and annotations are.
pub fn tells_of_itself(pod: &Value) -> bool {
    list_at(pod, &["spec", "volumes"]).iter().any(|volume| match kind(volume) {
        Ok("downwardAPI") => true,
        Ok("projected") => {
            list_at(volume, &["projected", "sources"]).iter().any(|source| source.get("downwardAPI").is_some())
        }
        _ => false,
    })
}

/// When to look again: at the node's next tick for ConfigMaps and Secrets (`shift` moves the ticks, so that not all nodes of a cluster
/// ask in the same second, but all pods of one do), when the first token is due (`token`), or never.
pub fn look_again(pod: &Value, token: Option<Moment>, shift: Duration, now: Moment) -> Option<Moment> {
    let (config_maps, secrets) = referred(pod);
    let every = if !secrets.is_empty() || config_maps.iter().any(|name| name != ROOT_CA) {
        Some(REFRESH)
    } else if config_maps.is_empty() {
        None
    } else {
        Some(ROOT_CA_AGE_MAX)
    };
    every.map(|every| tick(now, every, shift)).into_iter().chain(token).min()
}

/// The first moment after `now` that is a multiple of `every` from 1970, and `shift`.
fn tick(now: Moment, every: Duration, shift: Duration) -> Moment {
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX).max(1);
    let (every, shift) = (nanos(every), nanos(shift));
    let since = now.0.saturating_sub(shift).rem_euclid(every);
    Moment(now.0.saturating_add(every - since))
}

#[cfg(test)]
mod tests {
    use mote_api::tree::json;

    use super::*;

    #[test]
    fn each_content_has_its_own_patience() {
        let at = Moment::from_seconds;
        let shift = Duration::from_secs(7);
        let pod = |volumes: Value| json!({"spec": {"volumes": volumes}});
        let root = json!({"name": "a", "projected": {"sources": [{"serviceAccountToken": {}}, {"configMap": {"name": ROOT_CA}}]}});
        for (volumes, token, expected) in [
            (json!([]), None, None),
            (json!([{"name": "e", "emptyDir": {}}]), None, None),
            (json!([root]), None, Some(1207)),
            (json!([root]), Some(at(1100)), Some(1100)),
            (json!([root, {"name": "c", "configMap": {"name": "mine"}}]), Some(at(5000)), Some(1027)),
            (json!([{"name": "s", "secret": {"secretName": "x"}}]), None, Some(1027)),
            (json!([{"name": "s", "projected": {"sources": [{"secret": {"name": "x"}}]}}]), None, Some(1027)),
        ] {
            assert_eq!(look_again(&pod(volumes.clone()), token, shift, at(1000)), expected.map(at), "{volumes}");
        }
        assert_eq!(tick(at(1027), REFRESH, shift).0 / 1_000_000_000, 1087, "a tick is not its own next");
    }

    #[test]
    fn downward_files_tell_of_the_pod() {
        let pod = |volume: Value| json!({"spec": {"volumes": [volume]}});
        assert!(tells_of_itself(&pod(json!({"name": "d", "downwardAPI": {"items": []}}))));
        assert!(tells_of_itself(&pod(json!({"name": "d", "projected": {"sources": [{"downwardAPI": {}}]}}))));
        assert!(!tells_of_itself(&pod(json!({"name": "d", "projected": {"sources": [{"secret": {"name": "x"}}]}}))));
    }
}
