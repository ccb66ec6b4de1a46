//! A container's control group: where it is and what may be used in it.

use super::DeviceKind;
use serde::{Deserialize, Serialize};

/// `path` is relative to the root of each hierarchy: `<cgroup-parent>/pod<uid>/<container-id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    pub path: String,
    pub resources: Resources,
}

/// Limits; absent = leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes.
    pub memory_max: Option<u64>,
    /// Bytes of memory *and* swap together (OCI `memory.swap`); equal to `memory_max` = no swap, which is the kubelet's policy.
    pub memory_swap_max: Option<u64>,
    /// v1 scale, 2 to 262144 (1024 = one request of a full core); converted to `cpu.weight` on v2.
    pub cpu_shares: Option<u64>,
    /// Microseconds per period; negative = no limit.
    pub cpu_quota_us: Option<i64>,
    /// Microseconds, kernel default 100000.
    pub cpu_period_us: Option<u64>,
    pub pids_max: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// In order; empty = leave alone. The first is usually "deny all".
    pub devices: Vec<DeviceRule>,
    /// What has no field of its own.
    #[serde(skip)]
    pub settings: Vec<Setting>,
    /// cgroup v2 file -> value, written last.
    pub unified: Vec<(String, String)>,
}

/// One value for one file of a group; an empty file name = that cgroup version has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// By its v1 name.
    pub controller: &'static str,
    pub v1: String,
    pub v1_value: String,
    pub v2: String,
    pub v2_value: String,
    /// One of several files of which a kernel has one.
    pub either: bool,
}

impl Setting {
    pub(crate) fn new(controller: &'static str, v1: &str, v2: &str, value: &str) -> Self {
        Self { controller, v1: v1.into(), v1_value: value.into(), v2: v2.into(), v2_value: value.into(), either: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    pub allow: bool,
    /// `None` = all kinds.
    pub kind: Option<DeviceKind>,
    /// `None` = any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Letters of `rwm`.
    pub access: String,
}
