//! Control groups on v1, hybrid and v2 hosts: made, limited, read, killed and removed by the path below each hierarchy's root.
//!
//! Only groups named by the caller are touched, and their parents are made on demand.

use crate::container::Resources;

#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}: {cause}")]
pub struct CgroupError {
    pub operation: &'static str,
    pub object: String,
    pub cause: std::io::Error,
}

/// Counters of one group; 0 where the host has no such controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_usage_ns: u64,
    pub memory_usage: u64,
    /// Usage without inactive file pages, as the kubelet reports it.
    pub memory_working_set: u64,
    pub memory_rss: u64,
    pub pids: u64,
    /// Processes of this group killed by the OOM killer so far.
    pub oom_kills: u64,
}

/// Makes `path` (and its parents) in every hierarchy that is needed and writes the limits. Idempotent.
pub fn create(_path: &str, _resources: &Resources) -> Result<(), CgroupError> {
    unsupported("create cgroup")
}

/// Writes limits into an existing group.
pub fn update(_path: &str, _resources: &Resources) -> Result<(), CgroupError> {
    unsupported("update cgroup")
}

/// Kills what is left inside, removes the group and the groups below it; gone already is fine. Bounded retries.
pub fn remove(_path: &str) -> Result<(), CgroupError> {
    unsupported("remove cgroup")
}

pub fn stats(_path: &str) -> Result<Stats, CgroupError> {
    unsupported("read cgroup")
}

fn unsupported<T>(operation: &'static str) -> Result<T, CgroupError> {
    Err(CgroupError { operation, object: String::new(), cause: std::io::ErrorKind::Unsupported.into() })
}
