//! On the real hierarchies of this machine, as root, in groups of our own name.
use super::*;

struct Group(Layout, String);

impl Group {
    fn new(name: &str) -> Self {
        Self(Layout::discover(), format!("rt-test-{}-{name}", std::process::id()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = remove(&self.0, &self.1);
    }
}

#[test]
fn paths_never_leave_the_hierarchy() {
    for bad in ["", "/", "..", "a/../b", "./a"] {
        assert!(checked(bad).is_err() || bad == "./a", "{bad}");
    }
    assert_eq!(checked("/a/b").unwrap(), Path::new("a/b"));
}

#[test]
fn limits_bind_and_removal_leaves_nothing() {
    let group = Group::new("limits");
    let path = format!("{}/pod/c", group.1);
    let resources = Resources {
        memory_max: Some(64 << 20),
        memory_swap_max: Some(64 << 20),
        pids_max: Some(7),
        cpu_shares: Some(512),
        cpu_quota_us: Some(20_000),
        cpu_period_us: Some(100_000),
        ..Resources::default()
    };
    create(&group.0, &path, &resources).unwrap();
    create(&group.0, &path, &resources).unwrap();
    let (pids, _) = group.0.find("pids").unwrap();
    assert_eq!(fs::read_to_string(pids.join(&path).join("pids.max")).unwrap().trim(), "7");
    update(
        &group.0,
        &path,
        &Resources { memory_max: Some(128 << 20), memory_swap_max: Some(128 << 20), ..Resources::default() },
    )
    .unwrap();
    let (memory, v2) = group.0.find("memory").unwrap();
    let file = memory.join(&path).join(if v2 { "memory.max" } else { "memory.limit_in_bytes" });
    assert_eq!(fs::read_to_string(file).unwrap().trim(), (128u64 << 20).to_string());
    assert_eq!(stats(&group.0, &path).unwrap().pids, 0);

    let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
    fs::write(pids.join(&path).join("cgroup.procs"), child.id().to_string()).unwrap();
    assert_eq!(processes(&group.0, &path).unwrap(), [child.id() as i32]);
    assert!(try_remove(&group.0, &path).is_err(), "must not remove a group in use");
    let waiter = std::thread::spawn(move || child.wait());
    remove(&group.0, &group.1).unwrap();
    assert!(!waiter.join().unwrap().unwrap().success());
    assert!(group.0.existing(&group.1).unwrap().is_empty());
    remove(&group.0, &group.1).unwrap();
    assert!(stats(&group.0, &path).is_err());
}

#[test]
fn a_refused_limit_leaves_no_group() {
    let group = Group::new("refused");
    let resources = Resources { cpu_period_us: Some(1), cpu_quota_us: Some(1), ..Resources::default() };
    let error = create(&group.0, &group.1, &resources).unwrap_err().to_string();
    assert!(error.contains(&group.1) && error.contains("cpu"), "{error}");
    assert!(group.0.existing(&group.1).unwrap().is_empty());
}
