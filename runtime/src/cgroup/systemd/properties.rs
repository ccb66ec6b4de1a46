//! [`Resources`] in systemd's words (org.freedesktop.systemd1(5), systemd.resource-control(5)): what it would otherwise set back when it
//! reloads.

use super::wire::Value;
use crate::cgroup::{Layout, limits};
use crate::container::extras::cpu_list;
use crate::container::{DeviceKind, DeviceRule, Resources};

/// Microseconds; the kernel's period where none is given.
const CPU_PERIOD_US: u64 = 100_000;
/// systemd keeps whole hundredths of a core.
const QUOTA_STEP_US: u64 = 10_000;

pub(super) type Property = (&'static str, Value);

fn v2(layout: &Layout) -> bool {
    layout.v1.is_empty()
}

pub(super) fn accounting(layout: &Layout) -> [Property; 4] {
    let io = if v2(layout) { "IOAccounting" } else { "BlockIOAccounting" };
    ["MemoryAccounting", "CPUAccounting", "TasksAccounting", io].map(|name| (name, Value::Bool(true)))
}

pub(super) fn limits(layout: &Layout, r: &Resources) -> Vec<Property> {
    let v2 = v2(layout);
    let mut all = Vec::new();
    let mut add = |name, value: Option<u64>| all.extend(value.map(|n| (name, Value::U64(n))));
    add(if v2 { "MemoryMax" } else { "MemoryLimit" }, r.memory_max);
    if v2 {
        // There swap is counted alone.
        let swap = |total: u64| if total == u64::MAX { total } else { total.saturating_sub(r.memory_max.unwrap_or(0)) };
        add("MemorySwapMax", r.memory_swap_max.map(swap));
        add("MemoryLow", setting(r, "memory.low"));
        add("CPUWeight", r.cpu_shares.map(limits::weight));
    } else {
        add("CPUShares", r.cpu_shares);
    }
    add("TasksMax", r.pids_max);
    if let Some(quota) = r.cpu_quota_us {
        let period = r.cpu_period_us.unwrap_or(CPU_PERIOD_US).max(1);
        let per_second = u64::try_from(quota).ok().filter(|q| *q > 0).map_or(u64::MAX, |quota| {
            (u128::from(quota) * 1_000_000).div_ceil(u128::from(period)).try_into().unwrap_or(u64::MAX)
        });
        let rounded = per_second.checked_next_multiple_of(QUOTA_STEP_US).unwrap_or(u64::MAX);
        add("CPUQuotaPerSecUSec", Some(rounded));
    }
    add("CPUQuotaPeriodUSec", r.cpu_period_us);
    if v2 {
        for (name, list) in [("AllowedCPUs", &r.cpuset_cpus), ("AllowedMemoryNodes", &r.cpuset_mems)] {
            all.extend(list.as_deref().and_then(mask).map(|bits| (name, Value::Bytes(bits))));
        }
    } else if !r.devices.is_empty() {
        // A v1 systemd writes the lists anew whenever it reloads; on v2 our program stays.
        all.push(("DevicePolicy", Value::Text("strict".into())));
        all.push(("DeviceAllow", Value::Pairs(devices(&r.devices))));
    }
    all
}

fn setting(r: &Resources, file: &str) -> Option<u64> {
    r.settings.iter().find(|s| s.v2 == file).and_then(|s| s.v2_value.parse().ok())
}

/// As many bytes as the highest CPU needs, lowest first.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = cpu_list(list)?.iter().flat_map(|word| word.to_le_bytes()).collect();
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    bytes.truncate(used);
    (!bytes.is_empty()).then_some(bytes)
}

/// What is allowed in the end; systemd has no word for a refusal, and none for the devices of a major number without a driver.
fn devices(rules: &[DeviceRule]) -> Vec<(String, String)> {
    let drivers = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    let mut all: Vec<(String, String)> = Vec::new();
    for rule in rules {
        let everything = rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none();
        if everything && !rule.allow {
            all.clear();
        }
        let kinds: &[(&str, &str)] = match rule.kind {
            None => &[("char", "Character devices:"), ("block", "Block devices:")],
            Some(DeviceKind::Block) => &[("block", "Block devices:")],
            Some(DeviceKind::Char | DeviceKind::Fifo) => &[("char", "Character devices:")],
        };
        for (kind, heading) in kinds.iter().filter(|_| rule.allow) {
            let name = match (rule.major, rule.minor) {
                (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
                (Some(major), None) => driver(&drivers, heading, major).map(|driver| format!("{kind}-{driver}")),
                (None, _) => Some(format!("{kind}-*")),
            };
            all.extend(name.map(|name| (name, rule.access.clone())));
        }
    }
    all
}

fn driver<'a>(devices: &'a str, heading: &str, major: u32) -> Option<&'a str> {
    let section = devices.split("\n\n").find(|s| s.trim_start().starts_with(heading))?;
    section.lines().find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name)
    })
}

/// `org.systemd.property.NAME` in GVariant's text format: a quoted text, a truth, a number with or without its type. `…Sec` is in seconds, and
/// what systemd takes is microseconds.
pub(super) fn annotated(name: &str, text: &str) -> Option<(String, Value)> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let text = text.trim();
    let value = match text.split_once(' ') {
        _ if text == "true" || text == "false" => Value::Bool(text == "true"),
        _ if text.starts_with(['\'', '"']) => {
            let quote = text.chars().next()?;
            let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
            Value::Text((!inner.contains([quote, '\\'])).then_some(inner)?.to_owned())
        }
        Some(("uint64", number)) => Value::U64(number.trim().parse().ok()?),
        Some(("int64", number)) => Value::I64(number.trim().parse().ok()?),
        Some(("uint32", number)) => Value::U32(number.trim().parse().ok()?),
        Some(("int32", number)) => Value::I32(number.trim().parse().ok()?),
        None => Value::I32(text.parse().ok()?),
        Some(_) => return None,
    };
    match (name.strip_suffix("Sec").filter(|n| !n.ends_with('U')), value) {
        (None, value) => Some((name.to_owned(), value)),
        (Some(stem), value) => {
            let seconds = match value {
                Value::U64(n) => n,
                Value::U32(n) => u64::from(n),
                Value::I32(n) => u64::try_from(n).ok()?,
                Value::I64(n) => u64::try_from(n).ok()?,
                _ => return None,
            };
            Some((format!("{stem}USec"), Value::U64(seconds.saturating_mul(1_000_000))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(v1: bool) -> Layout {
        let v1 = if v1 { vec![("/m".into(), vec!["memory".into()])] } else { Vec::new() };
        Layout { v1, v2: Some(("/v2".into(), Vec::new())), ..Layout::default() }
    }

    fn told(v1: bool, r: &Resources) -> Vec<Property> {
        limits(&layout(v1), r)
    }

    #[test]
    fn limits_in_either_version() {
        let r = Resources {
            memory_max: Some(100),
            memory_swap_max: Some(150),
            cpu_shares: Some(1024),
            pids_max: Some(u64::MAX),
            cpuset_cpus: Some("0-1,9".into()),
            ..Resources::default()
        };
        assert_eq!(
            told(false, &r),
            [
                ("MemoryMax", Value::U64(100)),
                ("MemorySwapMax", Value::U64(50)),
                ("CPUWeight", Value::U64(39)),
                ("TasksMax", Value::U64(u64::MAX)),
                ("AllowedCPUs", Value::Bytes(vec![3, 2])),
            ]
        );
        assert_eq!(
            told(true, &r),
            [("MemoryLimit", Value::U64(100)), ("CPUShares", Value::U64(1024)), ("TasksMax", Value::U64(u64::MAX))]
        );
        assert_eq!(told(false, &Resources::default()), []);
    }

    #[test]
    fn quotas_are_told_by_the_second_in_hundredths() {
        for (quota, period, expected) in [
            (50_000, None, 500_000),
            (1, Some(100_000), 10_000),
            (33_333, Some(100_000), 340_000),
            (-1, Some(50_000), u64::MAX),
            (i64::MAX, Some(1), u64::MAX),
        ] {
            let r = Resources { cpu_quota_us: Some(quota), cpu_period_us: period, ..Resources::default() };
            let all = told(false, &r);
            assert_eq!(all.first(), Some(&("CPUQuotaPerSecUSec", Value::U64(expected))), "{quota}/{period:?}");
        }
    }

    #[test]
    fn devices_on_v1() {
        let rule =
            |allow, kind, major, minor, access: &str| DeviceRule { allow, kind, major, minor, access: access.into() };
        let char = Some(DeviceKind::Char);
        let rules = [
            rule(true, char, Some(9), Some(9), "r"),
            rule(false, None, None, None, "rwm"),
            rule(true, None, None, None, "m"),
            rule(true, char, Some(1), Some(3), "rw"),
            rule(true, char, Some(136), None, "rw"),
            rule(true, char, Some(4095), None, "rw"),
        ];
        let names: Vec<String> = devices(&rules).into_iter().map(|(n, a)| format!("{n} {a}")).collect();
        assert_eq!(names, ["char-* m", "block-* m", "/dev/char/1:3 rw", "char-pts rw"]);
    }

    #[test]
    fn annotations_are_properties() {
        for (name, text, expected) in [
            ("CollectMode", "'inactive-or-failed'", ("CollectMode", Value::Text("inactive-or-failed".into()))),
            ("SendSIGHUP", "true", ("SendSIGHUP", Value::Bool(true))),
            ("TimeoutStopUSec", "uint64 5", ("TimeoutStopUSec", Value::U64(5))),
            ("TimeoutStopSec", "uint64 5", ("TimeoutStopUSec", Value::U64(5_000_000))),
            ("KillSignal", "9", ("KillSignal", Value::I32(9))),
        ] {
            assert_eq!(annotated(name, text), Some((expected.0.to_owned(), expected.1)), "{name}");
        }
        for (name, text) in
            [("", "true"), ("a b", "true"), ("X", "'open"), ("X", "'a\\n'"), ("XSec", "'a'"), ("X", "[1]")]
        {
            assert_eq!(annotated(name, text), None, "{name} {text}");
        }
    }
}
