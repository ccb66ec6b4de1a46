//! What a container may expect, and what it must not get.
use super::*;

#[test]
fn true_ends_with_zero_and_leaves_nothing() {
    let bundle = Bundle::new("true");
    assert_eq!(bundle.run().0, 0);
    bundle.nothing_left();
}

#[test]
fn exit_codes_come_through() {
    for (script, expected) in [("exit 42", 42), ("kill -9 $$; sleep 1; exit 3", 3)] {
        let (code, _, err) = Bundle::new(script).run();
        assert_eq!(code, expected, "{script}: {err}"); // the second: pid 1 is deaf to itself
    }
}

#[test]
fn environment_and_working_directory() {
    let mut bundle = Bundle::new("pwd; echo $CONTRACT; env | grep -c =");
    bundle.set("/process/cwd", json!("/tmp"));
    let out = bundle.output();
    assert!(out.starts_with("/tmp\nyes\n"), "{out}");
}

#[test]
fn a_missing_working_directory_is_made() {
    let mut bundle = Bundle::new("pwd");
    bundle.set("/process/cwd", json!("/made/here"));
    assert_eq!(bundle.output(), "/made/here\n");
}

#[test]
fn user_and_groups() {
    let mut bundle = Bundle::new("id -u; id -g; id -G; grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6]}));
    let out = bundle.output();
    let mut lines = out.lines();
    assert_eq!((lines.next(), lines.next()), (Some("1000"), Some("1001")));
    let groups: Vec<&str> = lines.next().unwrap().split(' ').collect();
    assert_eq!(groups, ["1001", "5", "6"]);
    assert!(lines.all(|l| l.ends_with("\t0000000000000000")), "an ordinary user holds no capability: {out}");
}

#[test]
fn capabilities_are_those_given() {
    let out = Bundle::new("grep Cap /proc/self/status; grep NoNewPrivs /proc/self/status").output();
    // CHOWN 0, KILL 5, SETGID 6, SETUID 7, NET_BIND_SERVICE 10
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(out.contains(&format!("{set}:\t00000000000004e1")), "{out}");
    }
    assert!(out.contains("CapInh:\t0000000000000000") && out.contains("CapAmb:\t0000000000000000"), "{out}");
    assert!(out.contains("NoNewPrivs:\t1"), "{out}");
}

#[test]
fn ambient_capabilities_reach_an_ordinary_user() {
    let mut bundle = Bundle::new("grep CapEff /proc/self/status");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let set = json!(["CAP_NET_BIND_SERVICE"]);
    bundle.set(
        "/process/capabilities",
        json!({"bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set}),
    );
    assert_eq!(bundle.output(), "CapEff:\t0000000000000400\n");
}

#[test]
fn hostname_is_its_own() {
    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(Bundle::new("hostname").output(), "contract\n");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

#[test]
fn namespaces_are_its_own() {
    let out = Bundle::new("for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done; echo $$").output();
    let lines: Vec<&str> = out.lines().collect();
    for (name, line) in ["pid", "net", "ipc", "uts", "mnt"].iter().zip(&lines) {
        let ours = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(ours.to_str(), Some(*line), "{name}");
    }
    assert_eq!(lines[5], "1");
    assert_eq!(Bundle::new("ls /proc | grep -c '^[0-9]'").output().trim().parse::<u32>().map(|n| n <= 4), Ok(true));
}

#[test]
fn a_namespace_left_out_is_shared() {
    let mut bundle = Bundle::new("readlink /proc/self/ns/net");
    bundle.set("/linux/namespaces/1", json!({"type": "cgroup"}));
    assert_eq!(bundle.output().trim(), std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
}

#[test]
fn a_namespace_is_joined_by_path() {
    let mut bundle = Bundle::new("readlink /proc/self/ns/net");
    bundle.set("/linux/namespaces/1", json!({"type": "network", "path": "/proc/self/ns/net"}));
    let mut other = bundle.command(&["run", "ID"]);
    let program = other.get_program().to_owned();
    let args: Vec<_> = other.get_args().map(|a| a.to_owned()).collect();
    let out = other.current_dir(bundle.dir.path()).output().unwrap();
    assert!(out.status.success(), "{program:?} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(
        String::from_utf8_lossy(&out.stdout).trim(),
        std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap()
    );
}

#[test]
fn bind_mounts_read_only_and_writable() {
    let mut bundle = Bundle::new("cat /ro/file; echo x > /ro/new || echo refused; echo new > /rw/new; cat /etc/one");
    for name in ["a", "b"] {
        std::fs::create_dir(bundle.dir.path().join(name)).unwrap();
    }
    std::fs::write(bundle.dir.path().join("a/file"), "content\n").unwrap();
    let source = |name: &str| json!(bundle.dir.path().join(name));
    let mounts = [
        json!({"destination": "/ro", "type": "bind", "source": source("a"), "options": ["rbind", "ro"]}),
        json!({"destination": "/rw", "type": "bind", "source": source("b"), "options": ["bind", "rw"]}),
        json!({"destination": "/etc/one", "type": "bind", "source": source("a/file"), "options": ["bind", "ro", "nosuid"]}),
    ];
    for mount in mounts {
        bundle.push("/mounts", mount);
    }
    assert_eq!(bundle.output(), "content\nrefused\ncontent\n");
    assert_eq!(std::fs::read_to_string(bundle.dir.path().join("b/new")).unwrap(), "new\n");
    bundle.nothing_left();
}

#[test]
fn mounts_propagate_as_the_description_says() {
    let mut bundle = Bundle::new("grep -E ' /(shared|private|unbindable) ' /proc/self/mountinfo | cut -d' ' -f5,7,8");
    let source = bundle.dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for kind in ["shared", "private", "unbindable"] {
        let mount =
            json!({"destination": format!("/{kind}"), "type": "bind", "source": source, "options": ["bind", kind]});
        bundle.push("/mounts", mount);
    }
    let told = bundle.output();
    let of =
        |kind: &str| told.lines().find(|l| l.starts_with(&format!("/{kind} "))).unwrap_or_else(|| panic!("{told}"));
    assert!(of("shared").contains(" shared:"), "{told}");
    assert!(of("unbindable").contains(" unbindable"), "{told}");
    assert!(of("private").starts_with("/private - "), "{told}");
    bundle.nothing_left();
}

/// The container's start detaches its copy of the host's mounts; whom these are shared with keeps them.
#[test]
fn a_shared_root_takes_no_mount_from_the_host() {
    let mut bundle = Bundle::new("true");
    bundle.config["linux"]["rootfsPropagation"] = json!("shared");
    std::fs::create_dir(bundle.dir.path().join("marker")).unwrap();
    let inner = bundle.command(&["run", "ID"]);
    let mut outer = Command::new("unshare");
    let script = "mount -t tmpfs marker marker && \"$@\" && grep -c ' - tmpfs marker' /proc/self/mountinfo";
    outer.args(["--mount", "--propagation", "shared", "sh", "-c", script, "sh"]);
    outer.arg(inner.get_program()).args(inner.get_args()).current_dir(bundle.dir.path()).stdin(Stdio::null());
    let output = bounded::output(outer, &bundle.dir.path().join("outer"), WAIT);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{output:?}");
    bundle.nothing_left();
}

/// For a host's root that cannot be pivoted away from, such as an initramfs.
#[test]
fn without_pivot_root_the_root_is_moved_over_the_old_one() {
    let bundle = Bundle::new("ls /; ls /..; ls /proc/1/cwd/..; cut -d' ' -f5 /proc/self/mountinfo | head -1");
    let output = bundle.call(&["run", "--no-pivot", "ID"]);
    let all = "bin\ndata\ndev\netc\nproc\nsys\ntmp\n";
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(told, format!("{all}{all}{all}/\n"));
    bundle.nothing_left();
}

#[test]
fn a_mount_target_that_is_a_link_stays_inside() {
    let mut bundle = Bundle::new("cat /etc/real/file");
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(bundle.rootfs("etc/real")).unwrap();
    std::os::unix::fs::symlink("/etc/real", bundle.rootfs("link")).unwrap();
    std::fs::write(outside.path().join("file"), "via link\n").unwrap();
    bundle.push(
        "/mounts",
        json!({"destination": "/link", "type": "bind", "source": outside.path(), "options": ["bind", "ro"]}),
    );
    assert_eq!(bundle.output(), "via link\n");
}

#[test]
fn the_root_may_be_read_only() {
    let mut bundle = Bundle::new("touch /x 2>/dev/null || echo refused; touch /dev/shm/y && echo shm");
    bundle.set("/root/readonly", json!(true));
    assert_eq!(bundle.output(), "refused\nshm\n");
}

#[test]
fn masked_and_read_only_paths() {
    let out = Bundle::new(
        "cat /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/domainname || echo refused; \
         umount /proc/keys 2>/dev/null || echo kept",
    )
    .output();
    assert_eq!(out, "0\n0\nrefused\nkept\n");
}

#[test]
fn devices_are_there_and_work() {
    let out = Bundle::new(
        "for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done; dd if=/dev/zero bs=3 count=1 2>/dev/null | wc -c; \
         readlink /dev/fd; readlink /dev/stdout; echo gone > /dev/null; echo x > /dev/full || echo full",
    )
    .output();
    assert_eq!(out, "3\n/proc/self/fd\n/proc/self/fd/1\nfull\n");
}

#[test]
fn sysctls_are_set_in_its_namespaces() {
    let mut bundle = Bundle::new("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni");
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "1234"});
    assert_eq!(bundle.output(), "1\n1234\n");
}

#[test]
fn rlimits() {
    let mut bundle = Bundle::new("ulimit -n; ulimit -Hn; ulimit -c");
    bundle.set(
        "/process/rlimits",
        json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
    );
    assert_eq!(bundle.output(), "100\n200\n0\n");
}

#[test]
fn oom_score() {
    let mut bundle = Bundle::new("cat /proc/self/oom_score_adj");
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    assert_eq!(bundle.output(), "500\n");
}

#[test]
fn no_descriptor_is_inherited() {
    // CVE-2024-21626: a folder of the host behind a leaked descriptor.
    let bundle = Bundle::new("ls /proc/self/fd");
    let host = std::fs::File::open("/").unwrap();
    nix::fcntl::fcntl(&host, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let (code, out, err) = bundle.run();
    // 0, 1, 2 and the one `ls` opened.
    assert_eq!((code, out.lines().count()), (0, 4), "{out}{err}");
}

#[test]
fn the_memory_limit_kills() {
    let mut bundle = Bundle::new("unused");
    bundle.set("/process/args", json!(["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=128M", "count=1"]));
    bundle.set("/linux/resources/memory", json!({"limit": 32 << 20, "swap": 32 << 20}));
    assert_eq!(bundle.run().0, 137);
    bundle.nothing_left();
}

#[test]
fn the_pids_limit_refuses() {
    let mut bundle = Bundle::new("for i in 1 2 3 4 5 6 7 8 9; do sleep 3 & done; echo all");
    bundle.set("/linux/resources/pids", json!({"limit": 5}));
    let (_, out, err) = bundle.run();
    assert!(!out.contains("all") && err.contains("can't fork"), "{out}{err}");
}

/// A node that root may open by its mode alone, so that only the rules can refuse it; no kernel has them all.
fn guarded_node() -> &'static str {
    let nodes = ["/dev/cpu_dma_latency", "/dev/userfaultfd", "/dev/autofs", "/dev/loop-control"];
    nodes.into_iter().find(|node| Path::new(node).exists()).expect("a device that no container has by itself")
}

#[test]
fn devices_not_allowed_are_refused() {
    let mut bundle = Bundle::new("(: < /data/node) 2>&1 | grep -o 'not permitted'; cat /dev/null && echo null");
    let node = guarded_node();
    bundle.push("/mounts", json!({"destination": "/data/node", "type": "bind", "source": node, "options": ["bind"]}));
    assert_eq!(bundle.output(), "not permitted\nnull\n");
}

#[test]
fn a_device_allowed_by_a_rule_is_opened() {
    let mut bundle = Bundle::new("(: < /data/node) && echo opened; (: > /data/node) || echo refused");
    let node = guarded_node();
    let number = std::os::unix::fs::MetadataExt::rdev(&std::fs::metadata(node).unwrap());
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    bundle.push("/mounts", json!({"destination": "/data/node", "type": "bind", "source": node, "options": ["bind"]}));
    let rule = json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "r"});
    bundle.push("/linux/resources/devices", rule);
    let (_, out, err) = bundle.run();
    assert_eq!(out, "opened\nrefused\n", "{err}");
}

#[test]
fn a_missing_program_is_named() {
    let mut bundle = Bundle::new("");
    bundle.set("/process/args", json!(["/bin/foo"]));
    let (code, _, err) = bundle.run();
    assert!(code != 0 && err.contains("/bin/foo") && err.to_lowercase().contains("no such file"), "{code} {err}");
    bundle.set("/process/args", json!(["foo"]));
    let (code, _, err) = bundle.run();
    assert!(code != 0 && err.contains("foo") && err.contains("not found in $PATH"), "{code} {err}");
    bundle.nothing_left();
}

#[test]
fn create_start_kill_delete() {
    let bundle = Bundle::new("trap 'exit 9' TERM; echo ready > /tmp/ready; while true; do sleep 0.05; done");
    bundle.ok(&["create", "--pid-file", "pid", "ID"]);
    let state = bundle.state();
    assert_eq!((state["status"].as_str(), state["id"].as_str()), (Some("created"), Some(bundle.id.as_str())));
    let pid = std::fs::read_to_string(bundle.dir.path().join("pid")).unwrap();
    assert_eq!(state["pid"].as_i64().unwrap().to_string(), pid.trim());
    assert_eq!(state["bundle"].as_str(), Some(std::fs::canonicalize(bundle.dir.path()).unwrap().to_str().unwrap()));
    assert!(!bundle.rootfs("tmp/ready").exists(), "not before start");
    assert!(!bundle.call(&["create", "ID"]).status.success(), "the id is taken");
    bundle.ok(&["start", "ID"]);
    bundle.wait_for("running");
    let until = Instant::now() + WAIT;
    while !bundle.rootfs("tmp/ready").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(!bundle.call(&["start", "ID"]).status.success(), "once only");
    assert!(!bundle.call(&["delete", "ID"]).status.success(), "it runs");
    bundle.ok(&["kill", "ID", "TERM"]);
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "ID"]);
    assert!(!bundle.call(&["state", "ID"]).status.success());
    bundle.nothing_left();
}

#[test]
fn delete_force_ends_a_running_container() {
    let bundle = Bundle::new("sleep 1000");
    bundle.ok(&["create", "ID"]);
    bundle.ok(&["start", "ID"]);
    bundle.wait_for("running");
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn a_created_container_can_be_deleted() {
    let bundle = Bundle::new("true");
    bundle.ok(&["create", "ID"]);
    bundle.ok(&["kill", "ID", "KILL"]);
    bundle.wait_for("stopped");
    bundle.ok(&["delete", "ID"]);
    bundle.nothing_left();
}

#[test]
fn the_list_knows_it() {
    let bundle = Bundle::new("sleep 1000");
    bundle.ok(&["create", "ID"]);
    let list: Value = serde_json::from_str(&bundle.ok(&["list", "--format", "json"])).unwrap();
    assert_eq!((list[0]["id"].as_str(), list[0]["status"].as_str()), (Some(bundle.id.as_str()), Some("created")));
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn strange_ids_are_refused() {
    for id in ["../x", "a/b", "..", ""] {
        let bundle = Bundle::new("true");
        assert!(!bundle.call(&["run", id]).status.success(), "{id:?}");
        assert!(!bundle.dir.path().join("x").exists());
    }
}
