//! Capabilities by name and number, dropped and set on the calling (single) thread by crate `caps`.

use crate::container::{CapSet, Capabilities};
use caps::errors::CapsError;
use caps::{Capability, CapsHashSet};
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

fn from_bits(set: CapSet, within: &CapsHashSet) -> CapsHashSet {
    within.iter().filter(|c| set.contains(c.index())).copied().collect()
}

fn to_bits(set: &CapsHashSet) -> CapSet {
    set.iter().fold(CapSet::EMPTY, |all, c| all.with(CapSet(c.bitmask())))
}

/// Takes everything outside `keep` out of the bounding set, while CAP_SETPCAP is still ours. Says whether `keep` holds more than we have.
pub(crate) fn drop_bounding(keep: CapSet) -> Result<bool, CapsError> {
    let have = caps::read(None, caps::CapSet::Permitted)?;
    for capability in caps::all() {
        if keep.contains(capability.index()) {
            continue;
        }
        if let Err(e) = caps::drop(None, caps::CapSet::Bounding, capability)
            // Numbers this kernel does not know are not in the set to begin with; and who may not drop need not, if they are not.
            && caps::has_cap(None, caps::CapSet::Bounding, capability).unwrap_or(false)
        {
            return Err(e);
        }
    }
    let known: CapsHashSet = caps::all();
    let wanted = to_bits(&from_bits(keep, &known));
    Ok(wanted.without(to_bits(&have)) != CapSet::EMPTY)
}

/// After the change of user (with keep-caps): what was asked for and is still ours.
pub(crate) fn set(wanted: &Capabilities) -> Result<(), CapsError> {
    let have = caps::read(None, caps::CapSet::Permitted)?;
    let permitted = from_bits(wanted.permitted, &have);
    let inheritable = from_bits(wanted.inheritable, &permitted);
    caps::set(None, caps::CapSet::Inheritable, &inheritable)?;
    caps::set(None, caps::CapSet::Effective, &from_bits(wanted.effective, &permitted))?;
    caps::set(None, caps::CapSet::Permitted, &permitted)?;
    let ambient: Vec<Capability> = from_bits(wanted.ambient, &inheritable).into_iter().collect();
    if !ambient.is_empty() || wanted.ambient != CapSet::EMPTY {
        caps::clear(None, caps::CapSet::Ambient)?;
    }
    for capability in ambient {
        caps::raise(None, caps::CapSet::Ambient, capability)?;
    }
    Ok(())
}
