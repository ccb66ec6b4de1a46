//! The systemd driver (`--systemd-cgroup`): a container's group is a transient scope (or slice) that systemd makes and knows, so that it
//! neither cleans it up nor is surprised by it; the limits are told to systemd *and* written by us (`limits`), as runc does.
//!
//! systemd makes a scope around a process that is there; ours is one that only waits, until the container's own is born inside.

mod manager;
mod properties;
pub mod wire;

pub(crate) use manager::{Address, Manager};

use super::{CgroupError, Layout, fault};
use crate::container::Resources;
use manager::Refused;
use std::io;
use wire::Value;

/// Where a container is in systemd's eyes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// `prefix-name.scope`, or a slice.
    pub name: String,
    /// The slice it is in.
    slice: String,
    /// Of `org.systemd.property.NAME` annotations.
    own: Vec<(String, Value)>,
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn refused(operation: &'static str, unit: &str, refused: Refused) -> CgroupError {
    fault(operation, unit, io::Error::other(refused.to_string()))
}

impl Unit {
    /// By the description's `slice:prefix:name`; absent = a scope of the id in the default slice.
    ///
    /// # Errors
    /// Another form, or a name that is no unit's.
    pub(crate) fn new(cgroups_path: &str, id: &str, annotations: &[(String, String)]) -> Result<Self, CgroupError> {
        let told = |text: String| fault("use cgroup path", cgroups_path, invalid(text));
        let parts: Vec<&str> = cgroups_path.split(':').collect();
        let (slice, prefix, name) = match parts.as_slice() {
            [""] => ("", "mote", id),
            [slice, prefix, name] if !name.is_empty() => (*slice, *prefix, *name),
            _ => {
                let text = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups";
                return Err(told(text.into()));
            }
        };
        let default = if nix::unistd::geteuid().is_root() { "system.slice" } else { "user.slice" };
        let slice = if slice.is_empty() { default } else { slice };
        let name = match (name.ends_with(".slice"), prefix) {
            (true, _) => name.to_owned(),
            (false, "") => format!("{name}.scope"),
            (false, prefix) => format!("{prefix}-{name}.scope"),
        };
        if expand(slice).is_none() || !unit_name(&name) {
            return Err(told("not a unit's name".into()));
        }
        let mut own = Vec::new();
        for (key, text) in annotations {
            if let Some(key) = key.strip_prefix("org.systemd.property.") {
                let property = properties::annotated(key, text);
                own.push(property.ok_or_else(|| told(format!("annotation {key}={text}: not understood")))?);
            }
        }
        Ok(Self { name, slice: slice.to_owned(), own })
    }

    /// One that is there already.
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), slice: String::new(), own: Vec::new() }
    }

    /// Its folder below each hierarchy's root, by `root`, the group of systemd itself.
    pub(crate) fn path(&self, root: &str) -> String {
        let parent = expand(&self.slice).unwrap_or_default();
        let own = if self.name.ends_with(".slice") {
            expand(&self.name).unwrap_or_default()
        } else {
            format!("{parent}/{}", self.name)
        };
        format!("{}{own}", root.trim_end_matches('/')).trim_start_matches('/').to_owned()
    }
}

/// Longest unit name (systemd's UNIT_NAME_MAX less its end).
const NAME_BYTES_MAX: usize = 255;

fn unit_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && name.bytes().all(fine)
}

/// `a-b.slice` lies in `a.slice`: `/a.slice/a-b.slice`; `-.slice` is the root (systemd.slice(5)).
fn expand(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice").filter(|_| unit_name(slice))?;
    if name == "-" {
        return Some(String::new());
    }
    let (mut path, mut so_far) = (String::new(), String::new());
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        so_far = if so_far.is_empty() { part.to_owned() } else { format!("{so_far}-{part}") };
        path.push_str(&format!("/{so_far}.slice"));
    }
    Some(path)
}

/// Folder of `unit` below each hierarchy's root.
pub(crate) fn path_of(systemd: &[Address], unit: &Unit) -> Result<String, CgroupError> {
    let told = |e| refused("find cgroup of unit", &unit.name, e);
    let root = Manager::connect(systemd).and_then(|mut m| m.control_group()).map_err(told)?;
    Ok(unit.path(&root))
}

/// Makes the unit around `pid`.
pub(crate) fn start(
    systemd: &[Address],
    unit: &Unit,
    id: &str,
    pid: i32,
    layout: &Layout,
    resources: &Resources,
) -> Result<(), CgroupError> {
    let text = |text: &str| Value::Text(text.to_owned());
    let description = format!("mote container {id}");
    let mut all: Vec<(&str, Value)> =
        vec![("Description", text(&description)), ("DefaultDependencies", Value::Bool(false))];
    if unit.name.ends_with(".slice") {
        all.push(("Wants", Value::Text(unit.slice.clone())));
    } else {
        all.push(("Slice", text(&unit.slice)));
        all.push(("Delegate", Value::Bool(true)));
        all.push(("PIDs", Value::U32s(vec![pid.cast_unsigned()])));
    }
    all.extend(properties::accounting(layout));
    all.extend(properties::limits(layout, resources));
    all.extend(unit.own.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let told = |e| refused("start unit", &unit.name, e);
    let mut manager = Manager::connect(systemd).map_err(told)?;
    let _ = manager.reset_failed(&unit.name); // only one that failed before is in the way
    manager.start_transient(&unit.name, &all).map_err(told)
}

/// Gone already is fine.
pub(crate) fn stop(systemd: &[Address], unit: &Unit) -> Result<(), CgroupError> {
    let told = |e| refused("stop unit", &unit.name, e);
    let mut manager = Manager::connect(systemd).map_err(told)?;
    match manager.stop(&unit.name) {
        Err(e) if e.name == "org.freedesktop.systemd1.NoSuchUnit" => {}
        result => result.map_err(told)?,
    }
    let _ = manager.reset_failed(&unit.name); // killed with its processes is no failure to keep
    Ok(())
}

/// New limits.
pub(crate) fn update(
    systemd: &[Address],
    unit: &Unit,
    layout: &Layout,
    resources: &Resources,
) -> Result<(), CgroupError> {
    let all = properties::limits(layout, resources);
    if all.is_empty() {
        return Ok(());
    }
    let told = |e| refused("update unit", &unit.name, e);
    Manager::connect(systemd).and_then(|mut m| m.set_properties(&unit.name, &all)).map_err(told)
}

#[cfg(test)]
mod tests;
