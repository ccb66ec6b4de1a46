//! resctrl (Documentation/filesystems/resctrl.rst): groups of tasks with shares of caches and memory bandwidth. Not a cgroup, but used like one:
//! made before the container, entered by it, removed with it.

use super::{CgroupError, fault};
use crate::container::rdt::Rdt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Where it is mounted, by convention and by the specification.
pub(crate) const ROOT: &str = "/sys/fs/resctrl";

/// Folders of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Whose `tasks` it enters, in this order.
    pub(crate) enter: Vec<PathBuf>,
    /// What goes with it, in this order.
    pub(crate) remove: Vec<PathBuf>,
}

fn named(name: &str) -> Result<&str, CgroupError> {
    let taken = ["info", "mon_groups", "mon_data"].contains(&name);
    let bad = name.is_empty() || name.starts_with('.') || name.contains(['/', '\n']) || taken;
    if bad { Err(fault("use resctrl group", name, ErrorKind::InvalidInput.into())) } else { Ok(name) }
}

/// Makes what `id` needs below `root`; nothing stays of what fails.
pub(crate) fn create(root: &Path, id: &str, rdt: &Rdt) -> Result<Groups, CgroupError> {
    if !root.join("info").is_dir() {
        let text = "intelRdt is specified but Intel RDT is not supported or enabled";
        return Err(fault("use", root, io::Error::new(ErrorKind::Unsupported, text)));
    }
    let mut groups = Groups::default();
    let made = fill(root, id, rdt, &mut groups);
    if made.is_err() {
        remove(&groups.remove);
    }
    made.map(|()| groups)
}

fn fill(root: &Path, id: &str, rdt: &Rdt, groups: &mut Groups) -> Result<(), CgroupError> {
    let folder = match &rdt.clos {
        // The root's own group.
        Some(clos) if clos == "/" => root.to_owned(),
        Some(clos) => root.join(named(clos)?),
        None if rdt.schemata.is_empty() => root.to_owned(),
        None => root.join(named(id)?),
    };
    let there = folder.is_dir();
    if !there && rdt.clos.is_some() && rdt.schemata.is_empty() {
        return Err(fault("use resctrl group", &folder, ErrorKind::NotFound.into()));
    }
    if !there {
        fs::create_dir(&folder).map_err(|e| fault("make resctrl group", &folder, e))?;
        if rdt.clos.is_none() {
            groups.remove.push(folder.clone());
        }
    }
    match (there && rdt.clos.is_some(), rdt.schemata.is_empty()) {
        (_, true) => {}
        (true, false) => same(&folder, &rdt.schemata)?,
        (false, false) => set(&folder, &rdt.schemata)?,
    }
    groups.enter.push(folder.clone());
    if rdt.monitored {
        let own = folder.join("mon_groups").join(named(id)?);
        fs::create_dir(&own).map_err(|e| fault("make resctrl group", &own, e))?;
        groups.remove.insert(0, own.clone());
        groups.enter.push(own);
    }
    Ok(())
}

/// The container's own groups below `root`, whatever of them there is: to be removed with it.
pub(crate) fn own(root: &Path, id: &str, rdt: &Rdt) -> Vec<PathBuf> {
    let folder = match &rdt.clos {
        Some(clos) if clos != "/" => root.join(clos),
        None if !rdt.schemata.is_empty() => root.join(id),
        _ => root.to_owned(),
    };
    let monitoring = rdt.monitored.then(|| folder.join("mon_groups").join(id));
    let share = (rdt.clos.is_none() && !rdt.schemata.is_empty()).then(|| folder.clone());
    monitoring.into_iter().chain(share).collect()
}

/// New shares for a group.
pub(crate) fn set(folder: &Path, schemata: &[String]) -> Result<(), CgroupError> {
    let file = folder.join("schemata");
    fs::write(&file, format!("{}\n", schemata.join("\n"))).map_err(|e| fault("write", &file, e))
}

/// A group that others use too is not changed: what is asked for must be what it has.
fn same(folder: &Path, wanted: &[String]) -> Result<(), CgroupError> {
    let file = folder.join("schemata");
    let text = fs::read_to_string(&file).map_err(|e| fault("read", &file, e))?;
    let has = |line: &str| text.lines().any(|have| plain(have) == plain(line));
    match wanted.iter().flat_map(|w| w.lines()).find(|line| !has(line)) {
        None => Ok(()),
        Some(line) => {
            let text = format!("the group exists and differs from {line:?}");
            Err(fault("use resctrl group", folder, io::Error::new(ErrorKind::InvalidInput, text)))
        }
    }
}

/// `L3:0=ff;1=c0`: without blanks, without leading zeros of the masks.
fn plain(line: &str) -> String {
    let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    let Some((resource, shares)) = line.split_once(':') else { return line };
    let share = |share: &str| match share.split_once('=') {
        Some((domain, mask)) => format!("{domain}={}", mask.trim_start_matches('0')),
        None => share.to_owned(),
    };
    format!("{resource}:{}", shares.split(';').map(share).collect::<Vec<_>>().join(";"))
}

/// The calling process, into each group.
pub(crate) fn enter(groups: &Groups) -> Result<(), CgroupError> {
    for folder in &groups.enter {
        let file = folder.join("tasks");
        fs::write(&file, "0").map_err(|e| fault("write", &file, e))?;
    }
    Ok(())
}

/// Gone already is fine; a group that cannot go is no reason to keep a container.
pub(crate) fn remove(folders: &[PathBuf]) {
    for folder in folders {
        let _ = fs::remove_dir(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resctrl() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("info")).unwrap();
        fs::create_dir_all(root.path().join("mon_groups")).unwrap();
        root
    }

    fn asked(clos: Option<&str>, schemata: &[&str], monitored: bool) -> Rdt {
        Rdt { clos: clos.map(str::to_owned), schemata: schemata.iter().map(|s| (*s).to_owned()).collect(), monitored }
    }

    fn read(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).unwrap_or_default()
    }

    #[test]
    fn a_group_of_its_own_goes_with_the_container() {
        let root = resctrl();
        let groups = create(root.path(), "c1", &asked(None, &["L3:0=f", "MB:0=50"], false)).unwrap();
        let own = root.path().join("c1");
        assert_eq!(read(&own, "schemata"), "L3:0=f\nMB:0=50\n");
        assert_eq!(super::own(root.path(), "c1", &asked(None, &["L3:0=f"], false)), groups.remove);
        enter(&groups).unwrap();
        assert_eq!(read(&own, "tasks"), "0");
        // A kernel's group is removed with its files.
        fs::remove_file(own.join("schemata")).unwrap();
        fs::remove_file(own.join("tasks")).unwrap();
        remove(&groups.remove);
        assert!(!own.exists());
    }

    #[test]
    fn a_shared_group_stays_and_is_not_changed() {
        let root = resctrl();
        let gold = root.path().join("gold");
        let made = create(root.path(), "c1", &asked(Some("gold"), &["L3:0=0f;1=f0"], false)).unwrap();
        assert_eq!((made.remove.len(), made.enter), (0, vec![gold.clone()]));
        fs::write(gold.join("schemata"), "    L3:0=00f;1=0f0\n    MB:0=100\n").unwrap();
        create(root.path(), "c2", &asked(Some("gold"), &["L3: 0=f;1=f0"], false)).unwrap();
        create(root.path(), "c2", &asked(Some("gold"), &[], false)).unwrap();
        let other = create(root.path(), "c3", &asked(Some("gold"), &["L3:0=f;1=f"], false)).unwrap_err();
        assert!(other.to_string().contains("differs from"), "{other}");
        assert!(read(&gold, "schemata").contains("MB:0=100"));
        assert!(create(root.path(), "c4", &asked(Some("none"), &[], false)).is_err());
    }

    #[test]
    fn a_monitoring_group_is_the_containers() {
        let root = resctrl();
        let groups = create(root.path(), "c1", &asked(None, &[], true)).unwrap();
        let own = root.path().join("mon_groups/c1");
        assert_eq!(groups, Groups { enter: vec![root.path().to_owned(), own.clone()], remove: vec![own.clone()] });
        assert!(own.is_dir());
        assert_eq!(super::own(root.path(), "c1", &asked(None, &[], true)), groups.remove);
        remove(&groups.remove);
        assert!(!own.exists());
    }

    #[test]
    fn strange_names_and_hosts_without_it_are_told() {
        let root = resctrl();
        for bad in ["..", "a/b", "", "info", "mon_groups", ".x"] {
            assert!(create(root.path(), "c", &asked(Some(bad), &["L3:0=1"], false)).is_err(), "{bad}");
        }
        let none = tempfile::tempdir().unwrap();
        let error = create(none.path(), "c", &asked(None, &["L3:0=1"], false)).unwrap_err();
        assert!(error.to_string().contains("not supported or enabled"), "{error}");
        // What was made is gone again.
        fs::create_dir(root.path().join("x")).unwrap();
        assert!(create(root.path(), "c", &Rdt { monitored: true, ..asked(Some("x"), &[], true) }).is_err());
        assert!(!root.path().join("mon_groups/c").exists());
    }
}
