//! What is set on the process itself: scheduling, io priority, personality, security labels, session keyring.

use super::Child;
use super::report::{Fault, at, errno, plain};
use crate::container::extras::{ProcessExtras, cpu_list};
use crate::sys;
use nix::errno::Errno;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// While the starter's rights and /proc are ours.
pub(super) fn before(child: &mut Child<'_>) -> Result<(), Fault> {
    let extras = child.extras;
    if extras.own_keyring {
        session_keyring(child)?;
    }
    if let Some(number) = extras.personality {
        sys::personality(number).map_err(at("set", "personality"))?;
    }
    if let Some(scheduler) = &extras.process.scheduler {
        sys::set_scheduler(scheduler).map_err(at("set", "scheduler"))?;
    }
    if let Some(priority) = extras.process.io_priority {
        sys::set_io_priority(priority).map_err(at("set", "io priority"))?;
    }
    child.labels = labels(&extras.process)?;
    Ok(())
}

/// A keyring of the container's own, so that it finds none of the starter's keys.
fn session_keyring(child: &Child<'_>) -> Result<(), Fault> {
    let name = std::ffi::CString::new(format!("_ses.{}", child.container.id));
    match sys::join_session_keyring(&name.unwrap_or_default()) {
        // Not built in, not allowed here, or too many of them: not worth a container.
        Ok(()) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES | Errno::EDQUOT) => Ok(()),
        Err(e) => Err(at("make", "session keyring")(e)),
    }
}

/// Files that take a label for the next exec, opened in the host's /proc, and what to write there.
pub(super) fn labels(wanted: &ProcessExtras) -> Result<Vec<(File, String)>, Fault> {
    let mut labels = Vec::new();
    if let Some(profile) = &wanted.apparmor {
        let on = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y'));
        if !on {
            return Err(plain(format!("process.apparmorProfile {profile}: this kernel has no AppArmor")));
        }
        let own = "/proc/self/attr/apparmor/exec";
        let path = if Path::new(own).exists() { own } else { "/proc/self/attr/exec" };
        labels.push((open(path)?, format!("exec {profile}")));
    }
    if let Some(label) = &wanted.selinux {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(plain("selinux label is specified in config, but selinux is disabled or not supported"));
        }
        labels.push((open("/proc/self/attr/exec")?, label.clone()));
    }
    Ok(labels)
}

fn open(path: &str) -> Result<File, Fault> {
    File::options().write(true).open(path).map_err(|e| at("open", path)(errno(&e)))
}

/// The last thing before the program: nothing else may be executed under its label.
pub(super) fn apply(labels: &[(File, String)]) -> Result<(), Fault> {
    for (file, label) in labels {
        let mut file = file;
        file.write_all(label.as_bytes()).map_err(|e| at("apply label", label)(errno(&e)))?;
    }
    Ok(())
}

/// CPUs of an exec, before and after it enters the container's group.
pub(super) fn affinity(list: Option<&String>) -> Result<(), Fault> {
    let Some(list) = list else { return Ok(()) };
    let mask = cpu_list(list).ok_or_else(|| plain(format!("cpu affinity {list:?}: no list of CPUs")))?;
    sys::set_affinity(&mask).map_err(at("set cpu affinity", list))
}
