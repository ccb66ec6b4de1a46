//! `events`: counters every few seconds and a line when memory ran out, in runc's JSON.

use super::args::Args;
use super::state::{State, Status};
use crate::cgroup::{self, Layout};
use crate::show;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Between two lines of counters.
const INTERVAL_MS: u64 = 5000;
/// Between two looks at the container's end and its OOM count.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn events(args: &Args, id: &str) -> Result<u8, String> {
    let state = State::read(args, id)?;
    if state.status() == Status::Stopped {
        return Err(format!("container with id {id} is not running"));
    }
    let layout = Layout::discover();
    let line = || json!({"type": "stats", "id": id, "data": stats(&layout, state.cgroup())});
    if args.flag("stats") {
        show!("{}", line());
        return Ok(0);
    }
    let interval = args.value("interval").map_or(Some(Duration::from_millis(INTERVAL_MS)), duration);
    let interval = interval.filter(|i| !i.is_zero()).ok_or("duration interval must be greater than 0")?;
    let mut killed = cgroup::oom_kills(&layout, state.cgroup());
    let mut next = Instant::now() + interval;
    while state.status() != Status::Stopped {
        std::thread::sleep(LOOK.min(next.saturating_duration_since(Instant::now())));
        let now = cgroup::oom_kills(&layout, state.cgroup());
        if now > killed {
            show!("{}", json!({"type": "oom", "id": id}));
            killed = now;
        }
        if Instant::now() >= next {
            show!("{}", line());
            next = Instant::now() + interval;
        }
    }
    Ok(0)
}

/// `5s`, `300ms`, `1m30s`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        total += match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        rest = tail;
    }
    Some(total)
}

/// Fields of one file as numbers.
fn table(text: &str) -> Map<String, Value> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), json!(value.trim().parse::<u64>().ok()?)))
    };
    text.lines().filter_map(pair).collect()
}

fn stats(layout: &Layout, path: &str) -> Value {
    let read = |controller: &str, v1: &str, v2: &str| {
        layout.find(controller).map_or_else(String::new, |(root, is_v2)| {
            let file = root.join(path.trim_start_matches('/')).join(if is_v2 { v2 } else { v1 });
            std::fs::read_to_string(file).unwrap_or_default()
        })
    };
    let number = |text: String| text.trim().parse::<u64>().unwrap_or(0);
    let raw = table(&read("memory", "memory.stat", "memory.stat"));
    let field = |map: &Map<String, Value>, key: &str| map.get(key).and_then(Value::as_u64).unwrap_or(0);
    let entry = |v1: &str, v2: &str, max: &str, v1_max: &str, failures: &str| {
        json!({
            "limit": read("memory", v1_max, max).trim().parse::<u64>().unwrap_or(u64::MAX),
            "usage": number(read("memory", v1, v2)),
            "failcnt": number(read("memory", failures, "memory.none")),
        })
    };
    let cpu = table(&read("cpu", "cpu.stat", "cpu.stat"));
    let usage = if layout.find("cpuacct").is_some_and(|(_, v2)| v2) {
        json!({"total": field(&cpu, "usage_usec") * 1000, "kernel": field(&cpu, "system_usec") * 1000,
            "user": field(&cpu, "user_usec") * 1000, "percpu": []})
    } else {
        let percpu = read("cpuacct", "cpuacct.usage_percpu", "");
        let percpu: Vec<u64> = percpu.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        json!({"total": number(read("cpuacct", "cpuacct.usage", "")), "percpu": percpu,
            "kernel": number(read("cpuacct", "cpuacct.usage_sys", "")), "user": number(read("cpuacct", "cpuacct.usage_user", ""))})
    };
    let throttled = field(&cpu, "throttled_time").max(field(&cpu, "throttled_usec") * 1000);
    let pressure = |controller: &str, file: &str| psi(&read(controller, "", file));
    let mut all = json!({
        "cpu": {"usage": usage, "throttling": {"periods": field(&cpu, "nr_periods"),
            "throttledPeriods": field(&cpu, "nr_throttled"), "throttledTime": throttled}},
        "memory": {
            "cache": field(&raw, "cache").max(field(&raw, "file")),
            "usage": entry("memory.usage_in_bytes", "memory.current", "memory.max", "memory.limit_in_bytes", "memory.failcnt"),
            "swap": entry("memory.memsw.usage_in_bytes", "memory.swap.current", "memory.swap.max", "memory.memsw.limit_in_bytes",
                "memory.memsw.failcnt"),
            "kernel": entry("memory.kmem.usage_in_bytes", "memory.none", "memory.none", "memory.kmem.limit_in_bytes",
                "memory.kmem.failcnt"),
            "raw": raw,
        },
        "pids": {"current": number(read("pids", "pids.current", "pids.current")),
            "limit": number(read("pids", "pids.max", "pids.max"))},
        "blkio": {}, "hugetlb": {}, "intel_rdt": {}, "network_interfaces": null,
    });
    // As runc 1.2: only where the kernel tells it.
    for (group, controller, file) in
        [("cpu", "cpu", "cpu.pressure"), ("memory", "memory", "memory.pressure"), ("blkio", "blkio", "io.pressure")]
    {
        if let (Some(told), Some(group)) =
            (pressure(controller, file), all.get_mut(group).and_then(Value::as_object_mut))
        {
            group.insert("psi".into(), told);
        }
    }
    all
}

/// Pressure stall information (Documentation/accounting/psi.rst): `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, percent and microseconds.
fn psi(text: &str) -> Option<Value> {
    let mut all = Map::new();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let mut fields = Map::new();
        for (key, value) in rest.split(' ').filter_map(|field| field.split_once('=')) {
            let value =
                if key == "total" { json!(value.parse::<u64>().ok()?) } else { json!(value.parse::<f64>().ok()?) };
            fields.insert(key.to_owned(), value);
        }
        all.insert(kind.to_owned(), Value::Object(fields));
    }
    (!all.is_empty()).then_some(Value::Object(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.25 total=3\n";
        let expected = json!({"some": {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 12},
            "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.25, "total": 3}});
        assert_eq!(psi(text), Some(expected));
        assert_eq!((psi(""), psi("some avg10=x")), (None, None));
    }

    #[test]
    fn durations() {
        for (text, ms) in [("5s", 5000), ("300ms", 300), ("1m30s", 90_000), ("0s", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["5", "s", "5x", "-1s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
