//! What the host has to give: network devices, ranges of ids, scheduling, pressure. Asked of our own runtime alone: Debian's runc and crun are
//! older than most of it.
use super::*;

impl Bundle {
    /// `run` with `before` done in fresh namespaces of the host's (`unshare` flags): code, stdout, stderr.
    fn run_after(&self, unshare: &[&str], before: &str) -> (i32, String, String) {
        let command = self.command(&["run", "ID"]);
        let mut outer = Command::new("unshare");
        outer.args(unshare).args(["sh", "-c", &format!("set -e; {before}; exec \"$@\""), "sh"]);
        outer.arg(command.get_program()).args(command.get_args());
        outer.current_dir(self.dir.path()).stdin(Stdio::null());
        let output = bounded::output(outer, &self.dir.path().join("outer"), WAIT);
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn network_devices_move_in_with_their_addresses() {
    if another() {
        return;
    }
    let mut bundle = Bundle::new("ip link show eth0; ip addr show eth0; ip link show kept");
    bundle.config["linux"]["netDevices"] = json!({"rtc0": {"name": "eth0"}, "kept": {}});
    let before = "ip link add rtc0 type veth peer name rtc1; ip link add kept type veth peer name kept1; \
        ip link set rtc0 address 02:00:00:00:00:07 mtu 1400; ip addr add 10.9.8.7/24 dev rtc0; ip addr add fd00::7/64 dev rtc0 nodad; \
        ip addr add 169.254.1.1/16 dev rtc0 scope link; ip link set rtc0 up";
    let (code, out, err) = bundle.run_after(&["-n"], before);
    assert_eq!(code, 0, "{out}{err}");
    for part in ["eth0@", "mtu 1400", "02:00:00:00:00:07", "10.9.8.7/24", "fd00::7/64", "kept@"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(out.contains("<BROADCAST,MULTICAST,UP") || out.contains(",UP"), "it is up: {out}");
    assert!(!out.contains("169.254.1.1"), "what is the link's stays behind: {out}");
    bundle.nothing_left();
}

#[test]
fn network_devices_that_cannot_move_are_told() {
    if another() {
        return;
    }
    let mut bundle = Bundle::new("true");
    bundle.config["linux"]["netDevices"] = json!({"nosuch0": {}});
    let (code, _, err) = bundle.run_after(&["-n"], "true");
    assert!(code != 0 && err.contains("nosuch0") && err.contains("no such device"), "{code} {err}");
    bundle.config["linux"]["netDevices"] = json!({"rtc0": {"name": "lo"}});
    let (code, _, err) = bundle.run_after(&["-n"], "ip link add rtc0 type veth peer name rtc1");
    assert!(code != 0 && err.contains("has a lo already"), "{code} {err}");
    bundle.config["linux"]["netDevices"] = json!({"rtc0": {"name": "a/b"}});
    let (code, _, err) = bundle.run();
    assert!(code != 0 && err.contains("a/b"), "{code} {err}");
    bundle.nothing_left();
}

/// An ordinary user with a range in /etc/subuid (a file of this test's own, bound over the host's).
#[test]
fn newuidmap_gives_an_ordinary_user_a_range() {
    if another() {
        return;
    }
    assert!(Path::new("/usr/bin/newuidmap").exists(), "newuidmap is missing: apt-get install uidmap");
    let mut bundle =
        Bundle::new("id -u; cat /proc/self/uid_map /proc/self/gid_map; echo x >/tmp/mine; stat -c %u /tmp/mine");
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    let map = |own: u32| json!([{"containerID": 0, "hostID": own, "size": 1}, {"containerID": 1, "hostID": 300_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = map(65_534);
    bundle.config["linux"]["gidMappings"] = map(65_534);
    bundle.set("/process/user", json!({"uid": 5, "gid": 5}));
    bundle.config["linux"].as_object_mut().unwrap().remove("resources");
    let place = bundle.dir.path().to_owned();
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(bundle.rootfs("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    for folder in ["", "rootfs", "rootfs/tmp", "rootfs/etc", "rootfs/dev", "rootfs/proc", "rootfs/sys"] {
        std::os::unix::fs::chown(place.join(folder), Some(65_534), Some(65_534)).unwrap();
    }
    // The build folder is root's own.
    copy_executable(&runtime(), &place.join("runtime"));
    std::fs::write(place.join("sub"), "nobody:300000:65536\n").unwrap();
    let command = bundle.command(&["run", "ID"]);
    let mut outer = Command::new("unshare");
    outer.args([
        "-m",
        "sh",
        "-c",
        "set -e; mount --bind sub /etc/subuid; mount --bind sub /etc/subgid; exec \"$@\"",
        "sh",
    ]);
    outer.args([
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "env",
        "-u",
        "XDG_RUNTIME_DIR",
        "./runtime",
    ]);
    outer.args(command.get_args()).current_dir(&place).stdin(Stdio::null());
    let output = bounded::output(outer, &place.join("outer"), WAIT);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = out.split_whitespace().collect();
    let map = ["0", "65534", "1", "1", "300000", "65536"];
    let expected: Vec<&str> = ["5"].into_iter().chain(map).chain(map).chain(["5"]).collect();
    assert_eq!(words, expected, "{}", String::from_utf8_lossy(&output.stderr));
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(bundle.rootfs("tmp/mine")).unwrap());
    assert_eq!(owner, 300_004);
}

#[test]
fn another_personality() {
    if another() || !cfg!(target_arch = "x86_64") {
        return; // runc 1.1 knows none, and the name is this architecture's
    }
    let mut bundle = Bundle::new("busybox uname -m");
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    assert_eq!(bundle.output(), "i686\n");
}

#[test]
fn an_exec_has_processors_of_its_own() {
    if another() {
        return;
    }
    let mut bundle = Bundle::new("sleep 1000");
    let last = std::thread::available_parallelism().map_or(0, |n| n.get() - 1).to_string();
    bundle.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": last});
    bundle.ok(&["run", "--detach", "ID"]);
    let out = bundle.ok(&["exec", "ID", "grep", "Cpus_allowed_list", "/proc/self/status"]);
    assert_eq!(out, format!("Cpus_allowed_list:\t{last}\n"));
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn bursts_are_written() {
    if another() {
        return;
    }
    let mut bundle = Bundle::new("sleep 1000");
    bundle.config["linux"]["resources"]["cpu"] = json!({"quota": 50_000, "period": 100_000, "burst": 20_000});
    bundle.ok(&["create", "ID"]);
    assert_eq!(bundle.limit("cpu.cfs_burst_us", "cpu.max.burst"), "20000");
    bundle.ok(&["update", "--cpu-burst", "10000", "ID"]);
    assert_eq!(bundle.limit("cpu.cfs_burst_us", "cpu.max.burst"), "10000");
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

/// Where the kernel tells it: groups of a v2 hierarchy.
#[test]
fn pressure_is_told() {
    if another() {
        return;
    }
    let bundle = Bundle::new("sleep 1000");
    bundle.ok(&["run", "--detach", "ID"]);
    let told = bundle.cgroups().iter().any(|g| g.join("cpu.pressure").exists());
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", "ID"])).unwrap();
    for group in ["cpu", "memory", "blkio"] {
        assert_eq!(stats["data"][group]["psi"]["some"]["total"].is_u64(), told, "{group}: {stats}");
    }
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn apparmor_that_is_not_there_is_told() {
    if another() || Path::new("/sys/module/apparmor").exists() {
        return;
    }
    let mut bundle = Bundle::new("true");
    bundle.config["process"]["apparmorProfile"] = json!("cri-containerd.apparmor.d");
    let (code, _, err) = bundle.run();
    assert!(code != 0 && err.contains("AppArmor"), "{code} {err}");
    bundle.nothing_left();
}

#[test]
fn intel_rdt_that_is_not_there_is_told() {
    if another() || Path::new("/sys/fs/resctrl/info").exists() {
        return;
    }
    let mut bundle = Bundle::new("true");
    bundle.config["linux"]["intelRdt"] = json!({"closID": "gold", "l3CacheSchema": "L3:0=f"});
    let (code, _, err) = bundle.run();
    assert!(code != 0 && err.contains("Intel RDT is not supported or enabled"), "{code} {err}");
    bundle.nothing_left();
}

#[test]
fn systemd_that_is_not_there_is_told() {
    if another() || Path::new("/run/systemd/system").exists() {
        return;
    }
    let bundle = Bundle::new("true");
    let output = bundle.call(&["--systemd-cgroup", "run", "ID"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("systemd not running on this host"), "{said}");
    bundle.nothing_left();
}

#[test]
fn flags_stand_before_and_after_the_id() {
    if another() {
        return; // runc wants them before, crun either
    }
    let bundle = Bundle::new("sleep 1000");
    bundle.ok(&["create", "ID", "--pid-file", "pid"]);
    assert!(bundle.dir.path().join("pid").exists());
    bundle.ok(&["start", "ID"]);
    bundle.ok(&["kill", "ID", "--all", "KILL"]);
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "ID", "--force"]);
    bundle.nothing_left();
}

#[test]
fn features_name_what_there_is() {
    if another() {
        return;
    }
    let features: Value = serde_json::from_str(&Bundle::new("").ok(&["features"])).unwrap();
    assert_eq!(features["linux"]["cgroup"]["systemd"], true);
    for part in ["intelRdt", "netDevices", "seccomp"] {
        assert_eq!(features["linux"][part]["enabled"], true, "{part}");
    }
    let has = |list: &Value, word: &str| list.as_array().unwrap().iter().any(|v| v == word);
    assert!(has(&features["hooks"], "poststop") && has(&features["mountOptions"], "rro"));
    assert!(has(&features["linux"]["namespaces"], "time"));
}

#[test]
fn reasons_are_logged_as_text_too() {
    let mut bundle = Bundle::new("");
    bundle.set("/process/args", json!(["/bin/foo"]));
    let output = bundle.call(&["--log", "log.txt", "--log-format", "text", "create", "ID"]);
    assert!(!output.status.success());
    let text = std::fs::read_to_string(bundle.dir.path().join("log.txt")).unwrap();
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains("level=error") || runtime().to_string_lossy().contains("crun"), "{text}");
    assert!(last.contains("/bin/foo"), "{text}");
    let strange = bundle.call(&["--log-format", "xml", "list"]);
    assert!(!strange.status.success());
}
