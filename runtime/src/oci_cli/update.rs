//! `update`: new limits for a running container.

use super::args::Args;
use super::state::{State, Status};
use super::warn;
use crate::bundle;
use crate::cgroup::systemd::{self, Address};
use crate::cgroup::{self, Layout, rdt};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;

/// Flag, group and key in `linux.resources`, kind of value.
const FLAGS: [(&str, &str, &str, Kind); 14] = [
    ("blkio-weight", "blockIO", "weight", Kind::Number),
    ("cpu-burst", "cpu", "burst", Kind::Number),
    ("cpu-idle", "cpu", "idle", Kind::Number),
    ("cpu-period", "cpu", "period", Kind::Number),
    ("cpu-quota", "cpu", "quota", Kind::Number),
    ("cpu-rt-period", "cpu", "realtimePeriod", Kind::Number),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::Number),
    ("cpu-share", "cpu", "shares", Kind::Number),
    ("cpuset-cpus", "cpu", "cpus", Kind::Text),
    ("cpuset-mems", "cpu", "mems", Kind::Text),
    ("memory", "memory", "limit", Kind::Bytes),
    ("memory-reservation", "memory", "reservation", Kind::Bytes),
    ("memory-swap", "memory", "swap", Kind::Bytes),
    ("pids-limit", "pids", "limit", Kind::Number),
];

#[derive(Clone, Copy)]
enum Kind {
    Number,
    Bytes,
    Text,
}

pub(super) fn update(args: &Args, id: &str) -> Result<u8, String> {
    let state = State::read(args, id)?;
    if state.status() == Status::Stopped {
        return Err("container not running".into());
    }
    schemas(args, &state)?;
    let given = match args.value("resources") {
        Some(path) => read(path)?,
        None => by_flags(args)?,
    };
    let resources = bundle::resources(&given);
    let (layout, told) = (Layout::discover(), |e: cgroup::CgroupError| e.to_string());
    if let Some(unit) = state.unit() {
        systemd::update(&Address::of_host(), &unit, &layout, &resources).map_err(told)?;
    }
    let warnings = cgroup::update(&layout, state.cgroup(), &resources).map_err(told)?;
    warnings.iter().for_each(|w| warn(w));
    Ok(0)
}

/// `--l3-cache-schema`, `--mem-bw-schema`: for the group of the container's own.
fn schemas(args: &Args, state: &State) -> Result<(), String> {
    let given = [args.value("l3-cache-schema"), args.value("mem-bw-schema")];
    let lines: Vec<String> = given.into_iter().flatten().filter(|l| !l.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let root = Path::new(rdt::ROOT);
    let rdt = state.described()?.extras.rdt.unwrap_or_default();
    let folder = root.join(rdt.clos.as_deref().unwrap_or(state.id()));
    if !root.join("info").is_dir() || !folder.is_dir() {
        return Err("Intel RDT: the container has no group of it".into());
    }
    rdt::set(&folder, &lines).map_err(|e| e.to_string())
}

fn read(path: &str) -> Result<Value, String> {
    let mut bytes = Vec::new();
    let limit = bundle::CONFIG_BYTES_MAX;
    if path == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes).map_err(|e| format!("read stdin: {e}"))?;
    } else {
        let told = |e: std::io::Error| format!("read {path}: {e}");
        std::fs::File::open(path).and_then(|f| f.take(limit).read_to_end(&mut bytes)).map_err(told)?;
    }
    serde_json::from_slice(&bytes).map_err(|e| format!("parse {path}: {e}"))
}

fn by_flags(args: &Args) -> Result<Value, String> {
    let mut all = Map::new();
    for (flag, group, key, kind) in FLAGS {
        let Some(text) = args.value(flag) else { continue };
        let wrong = || format!("invalid value for {flag}: {text}");
        let value = match kind {
            Kind::Text => json!(text),
            Kind::Number => json!(text.parse::<i64>().map_err(|_| wrong())?),
            Kind::Bytes => json!(bytes(text).ok_or_else(wrong)?),
        };
        if let Some(group) = all.entry(group).or_insert_with(|| json!({})).as_object_mut() {
            group.insert(key.into(), value);
        }
    }
    Ok(Value::Object(all))
}

/// `64m`, `1GiB`, `4096`, `-1`.
fn bytes(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.trim_end_matches('b').trim_end_matches('i');
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        for (text, value) in [("4096", Some(4096)), ("64m", Some(64 << 20)), ("1GiB", Some(1 << 30)), ("-1", Some(-1))]
        {
            assert_eq!(bytes(text), value, "{text}");
        }
        for bad in ["", "m", "1x", "9999999999999t"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
