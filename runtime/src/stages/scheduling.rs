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
    child.labels = labels(&extras.process, Path::new("/"))?;
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

/// Files that take a label for the next exec, opened in the host's /proc, and what to write there. `host` is its root.
pub(super) fn labels(wanted: &ProcessExtras, host: &Path) -> Result<Vec<(File, String)>, Fault> {
    let mut labels = Vec::new();
    if let Some(profile) = &wanted.apparmor {
        let on = std::fs::read_to_string(host.join("sys/module/apparmor/parameters/enabled"));
        if !on.is_ok_and(|t| t.starts_with('Y')) {
            return Err(plain(format!("process.apparmorProfile {profile}: this kernel has no AppArmor")));
        }
        let own = host.join("proc/self/attr/apparmor/exec");
        let path = if own.exists() { own } else { host.join("proc/self/attr/exec") };
        labels.push((open(&path)?, format!("exec {profile}")));
    }
    if let Some(label) = &wanted.selinux {
        if !host.join("sys/fs/selinux/enforce").exists() {
            return Err(plain("selinux label is specified in config, but selinux is disabled or not supported"));
        }
        labels.push((open(&host.join("proc/self/attr/exec"))?, label.clone()));
    }
    Ok(labels)
}

fn open(path: &Path) -> Result<File, Fault> {
    File::options().write(true).open(path).map_err(|e| at("open", path.display())(errno(&e)))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = host.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        host
    }

    fn wanted(apparmor: Option<&str>, selinux: Option<&str>) -> ProcessExtras {
        let text = |t: Option<&str>| t.map(str::to_owned);
        ProcessExtras { apparmor: text(apparmor), selinux: text(selinux), ..ProcessExtras::default() }
    }

    /// What ends up in the label files of a host with these files.
    fn applied(host: &Path, wanted: &ProcessExtras) -> (String, String) {
        apply(&labels(wanted, host).unwrap_or_else(|f| panic!("{}", f.what))).unwrap_or_else(|f| panic!("{}", f.what));
        let read = |file: &str| std::fs::read_to_string(host.join(file)).unwrap_or_default();
        (read("proc/self/attr/apparmor/exec"), read("proc/self/attr/exec"))
    }

    const ENABLED: (&str, &str) = ("sys/module/apparmor/parameters/enabled", "Y\n");
    const OLD: (&str, &str) = ("proc/self/attr/exec", "");

    #[test]
    fn apparmor_has_a_file_of_its_own_on_newer_kernels() {
        let new = host(&[ENABLED, OLD, ("proc/self/attr/apparmor/exec", "")]);
        let profile = wanted(Some("cri-default"), None);
        assert_eq!(applied(new.path(), &profile), ("exec cri-default".into(), String::new()));
        let old = host(&[ENABLED, OLD]);
        assert_eq!(applied(old.path(), &profile), (String::new(), "exec cri-default".into()));
    }

    #[test]
    fn selinux_takes_the_label_as_it_is() {
        let host = host(&[OLD, ("sys/fs/selinux/enforce", "1")]);
        let label = "system_u:system_r:container_t:s0:c1,c2";
        assert_eq!(applied(host.path(), &wanted(None, Some(label))).1, label);
    }

    #[test]
    fn a_label_nobody_keeps_is_told() {
        let none = host(&[OLD, ("sys/module/apparmor/parameters/enabled", "N\n")]);
        let refused = |wanted: &ProcessExtras| labels(wanted, none.path()).err().map(|f| f.what).unwrap_or_default();
        assert!(refused(&wanted(Some("p"), None)).contains("no AppArmor"));
        assert!(refused(&wanted(None, Some("l"))).contains("selinux is disabled"));
        assert_eq!(refused(&wanted(None, None)), "");
    }
}
