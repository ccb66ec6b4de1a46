//! Capabilities by name and number (crate `caps`).

use crate::container::CapSet;
use std::str::FromStr;

pub(crate) fn parse_capability(name: &str) -> Option<CapSet> {
    let upper = name.to_ascii_uppercase();
    if upper == "ALL" {
        return Some(kernel_capabilities());
    }
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    caps::Capability::from_str(&full).ok().map(|c| CapSet(1 << c.index()))
}

/// All bits up to /proc/sys/kernel/cap_last_cap.
pub(crate) fn kernel_capabilities() -> CapSet {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|s| s.trim().parse::<u32>().ok());
    let bits = last.unwrap_or(40).min(62) + 1;
    CapSet((1u64 << bits) - 1)
}
