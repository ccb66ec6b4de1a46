//! The rarer parts of config.json -> [`Extras`].

use super::tree::{fields, filled, flag, list, number, small, strings, text};
use super::{BundleError, invalid};
use crate::container::extras::{Extras, Hook, Hooks, ID_MAP_LINES_MAX, IdMap, MountMaps, ProcessExtras, Scheduler};
use crate::container::rdt::Rdt;
use serde_json::Value;

pub(super) fn extras(config: &Value, linux: &Value, process: &Value) -> Result<Extras, BundleError> {
    let empty = Value::Null;
    let mut mount_maps = Vec::new();
    for (place, mount) in list(config, "mounts").enumerate() {
        let options = strings(mount, "options");
        let word = |w: &str| options.iter().any(|o| o == w);
        let (uid, gid) = (id_maps(mount, "uidMappings")?, id_maps(mount, "gidMappings")?);
        if word("idmap") || word("ridmap") || !uid.is_empty() || !gid.is_empty() {
            mount_maps.push((place, MountMaps { uid, gid, recursive: word("ridmap") }));
        }
    }
    Ok(Extras {
        hooks: hooks(config.get("hooks").unwrap_or(&empty))?,
        uid_maps: id_maps(linux, "uidMappings")?,
        gid_maps: id_maps(linux, "gidMappings")?,
        time_offsets: fields(linux, "timeOffsets")
            .map(|(clock, o)| (clock.clone(), number(o, "secs").unwrap_or(0), small(o, "nanosecs").unwrap_or(0)))
            .collect(),
        personality: personality(linux.get("personality").unwrap_or(&empty))?,
        mount_label: filled(linux, "mountLabel"),
        mount_maps,
        devices: devices(linux)?,
        rdt: linux.get("intelRdt").filter(|v| !v.is_null()).map(rdt),
        process: process_extras(process)?,
        ..Extras::default()
    })
}

fn id_maps(value: &Value, key: &str) -> Result<Vec<IdMap>, BundleError> {
    let mut maps = Vec::new();
    for map in list(value, key) {
        let field = |name| small(map, name).ok_or_else(|| invalid(format!("{key}: {name} is missing or out of range")));
        maps.push(IdMap { inside: field("containerID")?, outside: field("hostID")?, count: field("size")? });
    }
    if maps.len() > ID_MAP_LINES_MAX {
        return Err(invalid(format!("{key}: more than {ID_MAP_LINES_MAX} lines")));
    }
    Ok(maps)
}

/// The name there is the name here unless another is given; a namespace must be there to move to.
fn devices(linux: &Value) -> Result<Vec<(String, String)>, BundleError> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, device) in fields(linux, "netDevices") {
        let new = filled(device, "name").unwrap_or_else(|| name.clone());
        if let Some(bad) = [name, &new].into_iter().find(|n| !crate::stages::netdev_name(n)) {
            return Err(invalid(format!("linux.netDevices: invalid network device name {bad:?}")));
        }
        if all.iter().any(|(_, taken)| *taken == new) {
            return Err(invalid(format!("linux.netDevices: {new:?} given twice")));
        }
        all.push((name.clone(), new));
    }
    if !all.is_empty() && !list(linux, "namespaces").any(|n| text(n, "type") == "network") {
        return Err(invalid("linux.netDevices: need a network namespace of the container's"));
    }
    Ok(all)
}

fn rdt(value: &Value) -> Rdt {
    // Bandwidth has a key of its own; a cache schema that says it too would win.
    let cache = text(value, "l3CacheSchema").lines().filter(|l| !l.trim_start().starts_with("MB:"));
    let plain = cache.chain(text(value, "memBwSchema").lines()).map(str::to_owned);
    Rdt {
        clos: filled(value, "closID"),
        schemata: plain.chain(strings(value, "schemata")).collect(),
        monitored: ["enableMonitoring", "enableCMT", "enableMBM"].iter().any(|key| flag(value, key)),
    }
}

fn personality(value: &Value) -> Result<Option<u32>, BundleError> {
    match text(value, "domain") {
        "" => Ok(None),
        "LINUX" => Ok(Some(0)),
        "LINUX32" => Ok(Some(8)),
        other => Err(invalid(format!("linux.personality: unknown domain {other:?}"))),
    }
}

fn hooks(value: &Value) -> Result<Hooks, BundleError> {
    let all = |key: &str| list(value, key).map(|h| hook(h, key)).collect::<Result<Vec<_>, _>>();
    Ok(Hooks {
        prestart: all("prestart")?,
        create_runtime: all("createRuntime")?,
        create_container: all("createContainer")?,
        start_container: all("startContainer")?,
        poststart: all("poststart")?,
        poststop: all("poststop")?,
    })
}

fn hook(value: &Value, kind: &str) -> Result<Hook, BundleError> {
    let path = text(value, "path");
    if !path.starts_with('/') {
        return Err(invalid(format!("hooks.{kind}: path {path:?} must be absolute")));
    }
    let timeout_s = match number(value, "timeout") {
        None => None,
        Some(seconds) => Some(
            u32::try_from(seconds)
                .ok()
                .filter(|s| *s > 0)
                .ok_or_else(|| invalid(format!("hooks.{kind}: timeout {seconds} must be greater than zero")))?,
        ),
    };
    Ok(Hook { path: path.into(), args: strings(value, "args"), env: strings(value, "env"), timeout_s })
}

pub(super) fn process_extras(process: &Value) -> Result<ProcessExtras, BundleError> {
    let empty = Value::Null;
    let size = process.get("consoleSize").unwrap_or(&empty);
    let side = |key| small(size, key).and_then(|n| u16::try_from(n).ok());
    let affinity = process.get("execCPUAffinity").unwrap_or(&empty);
    Ok(ProcessExtras {
        terminal: flag(process, "terminal"),
        console_size: side("height").zip(side("width")),
        apparmor: filled(process, "apparmorProfile"),
        selinux: filled(process, "selinuxLabel"),
        scheduler: scheduler(process.get("scheduler").unwrap_or(&empty))?,
        io_priority: io_priority(process.get("ioPriority").unwrap_or(&empty))?,
        cpu_affinity: (filled(affinity, "initial"), filled(affinity, "final")),
    })
}

/// By number as in sched(7); 4 is not used by Linux.
const POLICIES: [&str; 7] =
    ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"];
/// Bit by bit as in sched_setattr(2).
const SCHED_FLAGS: [&str; 7] = [
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];

fn place(names: &[&str], name: &str, what: &str) -> Result<u32, BundleError> {
    let at = names.iter().position(|n| *n == name);
    at.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| invalid(format!("process.{what}: unknown name {name:?}")))
}

fn scheduler(value: &Value) -> Result<Option<Scheduler>, BundleError> {
    let policy = text(value, "policy");
    if policy.is_empty() {
        return Ok(None);
    }
    let mut flags = 0;
    for name in strings(value, "flags") {
        flags |= 1u64 << place(&SCHED_FLAGS, &name, "scheduler")?;
    }
    let large = |key| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    Ok(Some(Scheduler {
        policy: place(&POLICIES, policy, "scheduler")?,
        flags,
        nice: number(value, "nice").and_then(|n| i32::try_from(n).ok()).unwrap_or(0),
        priority: small(value, "priority").unwrap_or(0),
        runtime_ns: large("runtime"),
        deadline_ns: large("deadline"),
        period_ns: large("period"),
    }))
}

fn io_priority(value: &Value) -> Result<Option<u32>, BundleError> {
    const CLASSES: [&str; 4] = ["IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];
    let class = text(value, "class");
    if class.is_empty() {
        return Ok(None);
    }
    Ok(Some(place(&CLASSES, class, "ioPriority")? << 13 | small(value, "priority").unwrap_or(0).min(7)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hooks_are_read_in_their_kinds() {
        let value =
            json!({"prestart": [{"path": "/a", "args": ["a", "b"], "timeout": 3}], "poststop": [{"path": "/z"}]});
        let all = hooks(&value).ok().unwrap();
        assert_eq!((all.prestart[0].timeout_s, all.prestart[0].args.len()), (Some(3), 2));
        assert_eq!((all.poststop[0].path.to_str(), all.poststop[0].timeout_s), (Some("/z"), None));
        for bad in [json!({"prestart": [{"path": "a"}]}), json!({"poststop": [{"path": "/a", "timeout": 0}]})] {
            assert!(hooks(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_and_shares_are_read() {
        let linux = |devices: Value| json!({"netDevices": devices, "namespaces": [{"type": "network"}]});
        let found = devices(&linux(json!({"eth1": {"name": "eth0"}, "x": {}}))).ok().unwrap();
        assert_eq!(found, [("eth1".into(), "eth0".into()), ("x".into(), "x".into())]);
        for bad in [json!({"a": {"name": "b"}, "b": {}}), json!({"a/b": {}}), json!({"a": {"name": "a:b"}})] {
            assert!(devices(&linux(bad.clone())).is_err(), "{bad}");
        }
        assert!(devices(&json!({"netDevices": {"a": {}}})).is_err(), "no namespace to move to");
        let shares =
            rdt(&json!({"l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=20", "enableMonitoring": true}));
        assert_eq!(shares, Rdt { clos: None, schemata: vec!["L3:0=f".into(), "MB:0=20".into()], monitored: true });
    }

    #[test]
    fn processes_may_be_scheduled() {
        let p = process_extras(
            &json!({"scheduler": {"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4}, "consoleSize": {"height": 10, "width": 20}}),
        );
        let p = p.ok().unwrap();
        assert_eq!(p.scheduler.map(|s| (s.policy, s.nice, s.flags)), Some((3, 5, 1)));
        assert_eq!((p.io_priority, p.console_size), (Some(2 << 13 | 4), Some((10, 20))));
        assert!(process_extras(&json!({"scheduler": {"policy": "SCHED_X"}})).is_err());
        assert!(process_extras(&json!({"ioPriority": {"class": "X"}})).is_err());
    }

    #[test]
    fn maps_need_all_three_numbers() {
        let maps = id_maps(&json!({"m": [{"containerID": 0, "hostID": 5, "size": 7}]}), "m").ok().unwrap();
        assert_eq!(maps, [IdMap { inside: 0, outside: 5, count: 7 }]);
        assert!(id_maps(&json!({"m": [{"containerID": 0, "size": 7}]}), "m").is_err());
    }
}
