//! `linux.resources` -> [`Resources`]: the everyday limits by name, the rarer ones as files and values of either cgroup version.

use super::tree::{digits, fields, filled, flag, list, number, pairs, small, text};
use crate::container::{DeviceKind, DeviceRule, Resources, Setting};
use serde_json::Value;

pub(crate) fn resources(value: &Value) -> Resources {
    let at = |group: &str, key: &str| value.get(group).and_then(|g| number(g, key));
    let positive = |n: i64| u64::try_from(n).ok();
    // Negative = no limit.
    let bytes = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    let cpu = value.get("cpu").unwrap_or(&Value::Null);
    Resources {
        memory_max: at("memory", "limit").filter(|n| *n != 0).map(bytes),
        memory_swap_max: at("memory", "swap").filter(|n| *n != 0).map(bytes),
        cpu_shares: at("cpu", "shares").and_then(positive).filter(|n| *n > 0),
        cpu_quota_us: at("cpu", "quota").filter(|n| *n != 0),
        cpu_period_us: at("cpu", "period").and_then(positive).filter(|n| *n > 0),
        pids_max: at("pids", "limit").filter(|n| *n != 0).map(bytes),
        cpuset_cpus: filled(cpu, "cpus"),
        cpuset_mems: filled(cpu, "mems"),
        devices: device_rules(value),
        settings: settings(value),
        unified: pairs(value, "unified"),
    }
}

/// Group and key in the description, controller, file on v1, file on v2 (empty = has none there).
const PLAIN: [(&str, &str, &str, &str, &str); 11] = [
    ("memory", "reservation", "memory", "memory.soft_limit_in_bytes", "memory.low"),
    ("memory", "swappiness", "memory", "memory.swappiness", ""),
    ("memory", "kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", ""),
    ("cpu", "realtimePeriod", "cpu", "cpu.rt_period_us", ""),
    ("cpu", "realtimeRuntime", "cpu", "cpu.rt_runtime_us", ""),
    ("cpu", "burst", "cpu", "cpu.cfs_burst_us", "cpu.max.burst"),
    ("cpu", "idle", "cpu", "cpu.idle", "cpu.idle"),
    ("blockIO", "weight", "blkio", "blkio.bfq.weight", "io.bfq.weight"),
    ("blockIO", "weight", "blkio", "blkio.weight", "io.weight"),
    ("blockIO", "leafWeight", "blkio", "blkio.leaf_weight", ""),
    ("network", "classID", "net_cls", "net_cls.classid", ""),
];

/// Where nothing is a limit too. Of all others it says that none is wanted, as with runc: Docker sends a weight of 0 with every container.
const ZEROES: [&str; 3] = ["swappiness", "burst", "idle"];

/// Key of a list of `{major, minor, rate}`, file on v1, word in `io.max` on v2.
const THROTTLES: [(&str, &str, &str); 4] = [
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
];

fn settings(value: &Value) -> Vec<Setting> {
    let mut all = Vec::new();
    for (group, key, controller, v1, v2) in PLAIN {
        let wanted = |digits: &String| digits != "0" || ZEROES.contains(&key);
        let Some(digits) = value.get(group).and_then(|g| digits(g, key)).filter(wanted) else { continue };
        // The second file of a weight is for kernels that have not the first.
        let mut setting = Setting::new(controller, v1, v2, &digits);
        if v2 == "io.weight" {
            setting.v2_value = io_weight(&digits);
        }
        setting.either = key == "weight";
        all.push(setting);
    }
    if value.get("memory").is_some_and(|m| flag(m, "disableOOMKiller")) {
        all.push(Setting::new("memory", "memory.oom_control", "", "1"));
    }
    let block = value.get("blockIO").unwrap_or(&Value::Null);
    for (key, v1, word) in THROTTLES {
        for (device, entry) in block_devices(block, key) {
            let Some(rate) = digits(entry, "rate") else { continue };
            let mut setting = Setting::new("blkio", v1, "io.max", &format!("{device} {rate}"));
            setting.v2_value = format!("{device} {word}={rate}");
            all.push(setting);
        }
    }
    for (device, entry) in block_devices(block, "weightDevice") {
        for (key, v1, v2) in
            [("weight", "blkio.weight_device", "io.bfq.weight"), ("leafWeight", "blkio.leaf_weight_device", "")]
        {
            if let Some(weight) = digits(entry, key).filter(|weight| weight != "0") {
                all.push(Setting::new("blkio", v1, v2, &format!("{device} {weight}")));
            }
        }
    }
    for page in list(value, "hugepageLimits") {
        let (size, limit) = (text(page, "pageSize"), digits(page, "limit").unwrap_or_default());
        let (v1, v2) = (format!("hugetlb.{size}.limit_in_bytes"), format!("hugetlb.{size}.max"));
        all.push(Setting::new("hugetlb", &v1, &v2, &limit));
    }
    for priority in list(value.get("network").unwrap_or(&Value::Null), "priorities") {
        let line = format!("{} {}", text(priority, "name"), digits(priority, "priority").unwrap_or_default());
        all.push(Setting::new("net_prio", "net_prio.ifpriomap", "", &line));
    }
    for (device, limit) in fields(value, "rdma") {
        let mut line = device.clone();
        for (key, word) in [("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")] {
            if let Some(count) = digits(limit, key) {
                line.push_str(&format!(" {word}={count}"));
            }
        }
        all.push(Setting::new("rdma", "rdma.max", "rdma.max", &line));
    }
    all
}

fn block_devices<'a>(block: &'a Value, key: &str) -> impl Iterator<Item = (String, &'a Value)> + use<'a> {
    list(block, key).map(|entry| {
        let node = |key| digits(entry, key).unwrap_or_default();
        (format!("{}:{}", node("major"), node("minor")), entry)
    })
}

/// v1 weight (10..=1000) to v2 weight (1..=10000): the linear map every runtime uses.
fn io_weight(digits: &str) -> String {
    let weight = digits.parse::<u64>().unwrap_or(0).clamp(10, 1000);
    (1 + (weight - 10) * 9_999 / 990).to_string()
}

/// The file's rules, then the nodes no container can do without: runc adds the same.
fn device_rules(value: &Value) -> Vec<DeviceRule> {
    let mut rules: Vec<DeviceRule> = list(value, "devices").map(device_rule).collect();
    if !rules.is_empty() {
        rules.extend(crate::container::defaults::device_rules().into_iter().filter(|r| r.allow));
    }
    rules
}

fn device_rule(rule: &Value) -> DeviceRule {
    let access = text(rule, "access");
    DeviceRule {
        allow: flag(rule, "allow"),
        kind: device_kind(text(rule, "type")),
        major: small(rule, "major"),
        minor: small(rule, "minor"),
        access: if access.is_empty() { "rwm".into() } else { access.to_owned() },
    }
}

pub(super) fn device_kind(name: &str) -> Option<DeviceKind> {
    match name {
        "c" | "u" => Some(DeviceKind::Char),
        "b" => Some(DeviceKind::Block),
        "p" => Some(DeviceKind::Fifo),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rarer_limits_become_files() {
        let r = resources(&json!({
            "memory": {"reservation": 4096, "disableOOMKiller": true, "swappiness": 0}, "cpu": {"burst": 100},
            "blockIO": {"weight": 505, "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 600}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
            "network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 3}]},
            "rdma": {"mlx": {"hcaHandles": 3, "hcaObjects": 9}}
        }));
        let v1: Vec<String> = r.settings.iter().map(|s| format!("{}={}", s.v1, s.v1_value)).collect();
        assert_eq!(
            v1,
            [
                "memory.soft_limit_in_bytes=4096",
                "memory.swappiness=0",
                "cpu.cfs_burst_us=100",
                "blkio.bfq.weight=505",
                "blkio.weight=505",
                "net_cls.classid=7",
                "memory.oom_control=1",
                "blkio.throttle.read_bps_device=8:1 600",
                "hugetlb.2MB.limit_in_bytes=4194304",
                "net_prio.ifpriomap=eth0 3",
                "rdma.max=mlx hca_handle=3 hca_object=9"
            ]
        );
        let v2: Vec<String> =
            r.settings.iter().filter(|s| !s.v2.is_empty()).map(|s| format!("{}={}", s.v2, s.v2_value)).collect();
        assert_eq!(
            v2,
            [
                "memory.low=4096",
                "cpu.max.burst=100",
                "io.bfq.weight=505",
                "io.weight=5000",
                "io.max=8:1 rbps=600",
                "hugetlb.2MB.max=4194304",
                "rdma.max=mlx hca_handle=3 hca_object=9"
            ]
        );
        assert!(resources(&json!({})).settings.is_empty());
    }

    /// As Docker writes what nobody asked for.
    #[test]
    fn zero_means_not_set_where_it_is_no_value() {
        let r = resources(&json!({
            "memory": {"limit": 0, "reservation": 0, "swap": 0, "swappiness": 0, "kernelTCP": 0},
            "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimePeriod": 0, "realtimeRuntime": 0, "idle": 0},
            "blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": [{"major": 8, "minor": 0, "weight": 0, "leafWeight": 5}]},
            "network": {"classID": 0}, "pids": {"limit": 0}
        }));
        let files: Vec<String> = r.settings.iter().map(|s| format!("{}={}", s.v1, s.v1_value)).collect();
        assert_eq!(files, ["memory.swappiness=0", "cpu.idle=0", "blkio.leaf_weight_device=8:0 5"]);
        assert_eq!((r.memory_max, r.cpu_shares, r.cpu_quota_us, r.pids_max), (None, None, None, None));
    }

    #[test]
    fn negative_means_no_limit() {
        let r = resources(&json!({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}));
        assert_eq!((r.memory_max, r.memory_swap_max, r.pids_max), (Some(u64::MAX), Some(u64::MAX), Some(u64::MAX)));
        assert_eq!(r.cpu_quota_us, Some(-1));
    }
}
