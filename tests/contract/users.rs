//! User and time namespaces, mounts with other owners, attributes of the process.
use super::*;

/// Ids on the host that stand for the container's.
const BASE: u32 = 700_000;

fn mapped(script: &str) -> Bundle {
    let mut bundle = Bundle::new(script);
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": BASE, "size": 1000}]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    // The container's root must be able to reach and change its files.
    std::fs::set_permissions(bundle.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for folder in ["", "tmp", "etc", "data", "dev", "proc", "sys"] {
        std::os::unix::fs::chown(bundle.rootfs(folder), Some(BASE), Some(BASE)).unwrap();
    }
    bundle
}

#[test]
fn root_inside_is_nobody_outside() {
    let bundle = mapped(
        "id -u; cat /proc/self/uid_map /proc/self/gid_map; echo x > /tmp/mine; (: >/proc/sysrq-trigger) 2>/dev/null || echo refused",
    );
    let out = bundle.output();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "700000", "1000", "0", "700000", "1000", "refused"]);
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(bundle.rootfs("tmp/mine")).unwrap());
    assert_eq!(owner, BASE);
    bundle.nothing_left();
}

#[test]
fn a_user_inside_and_capabilities_over_its_own() {
    let mut bundle = mapped("id -u; id -g; id -G; grep CapEff /proc/self/status; hostname");
    bundle.set("/process/user", json!({"uid": 7, "gid": 8, "additionalGids": [9]}));
    assert_eq!(bundle.output(), "7\n8\n8 9\nCapEff:\t0000000000000000\ncontract\n");
    let bundle = mapped("grep CapEff /proc/self/status; cat /dev/null && echo null; echo > /dev/full || echo full");
    assert_eq!(bundle.output(), "CapEff:\t00000000000004e1\nnull\nfull\n");
}

#[test]
fn an_exec_joins_the_user_namespace() {
    let bundle = mapped("sleep 1000");
    bundle.ok(&["create", "ID"]);
    bundle.ok(&["start", "ID"]);
    bundle.wait_for("running");
    let out = bundle.ok(&[
        "exec",
        "ID",
        "sh",
        "-c",
        "id -u; readlink /proc/1/ns/user; readlink /proc/self/ns/user; grep CapEff /proc/self/status",
    ]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines[0], lines[3]), ("0", "CapEff:\t00000000000004e1"), "{out}");
    assert_eq!(lines[1], lines[2]);
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn a_user_namespace_is_joined_by_path() {
    let first = mapped("sleep 1000");
    first.ok(&["create", "--pid-file", "pid", "ID"]);
    let pid = std::fs::read_to_string(first.dir.path().join("pid")).unwrap();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", pid.trim());
    let theirs = |kind: &str| std::fs::read_link(path(kind)).unwrap().to_str().unwrap().to_owned();
    let mut second = mapped("readlink /proc/self/ns/user; readlink /proc/self/ns/net; id -u");
    second.set("/linux/namespaces/5", json!({"type": "user", "path": path("user")}));
    second.set("/linux/namespaces/1", json!({"type": "network", "path": path("net")}));
    if !runtime().to_string_lossy().ends_with("runc") {
        // runc 1.1 wants them said again.
        for key in ["uidMappings", "gidMappings"] {
            second.config["linux"].as_object_mut().unwrap().remove(key);
        }
    }
    assert_eq!(second.output(), format!("{}\n{}\n0\n", theirs("user"), theirs("net")));
    first.ok(&["delete", "--force", "ID"]);
}

#[test]
fn a_network_of_the_hosts_can_be_joined_with_users_of_its_own() {
    let mut bundle = mapped("readlink /proc/self/ns/net; id -u");
    bundle
        .set("/linux/namespaces/1", json!({"type": "network", "path": format!("/proc/{}/ns/net", std::process::id())}));
    // sysfs belongs to the network namespace's owner.
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| m["destination"] != "/sys");
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(bundle.output(), format!("{}\n0\n", host.display()));
}

#[test]
fn clocks_may_run_ahead() {
    if another() {
        return; // Debian's runc and crun know no time namespaces
    }
    let mut bundle = Bundle::new("cat /proc/uptime; readlink /proc/self/ns/time");
    bundle.push("/linux/namespaces", json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 7}});
    let out = bundle.output();
    assert!(out.split('.').next().unwrap().parse::<u64>().unwrap() >= 1_000_000, "{out}");
    assert_ne!(out.lines().nth(1), std::fs::read_link("/proc/self/ns/time").unwrap().to_str());
    bundle.nothing_left();
}

#[test]
fn a_mount_shows_other_owners() {
    if another() {
        return; // Debian's runc knows no mapped mounts, its crun only its own word for them
    }
    let mut bundle = Bundle::new("stat -c %u:%g /data/file");
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("file"), "x").unwrap();
    std::os::unix::fs::chown(source.path().join("file"), Some(5), Some(6)).unwrap();
    bundle.push(
        "/mounts",
        json!({"destination": "/data", "type": "bind", "source": source.path(), "options": ["bind", "idmap"],
            "uidMappings": [{"containerID": 5, "hostID": 4005, "size": 1}], "gidMappings": [{"containerID": 6, "hostID": 4006, "size": 1}]}),
    );
    assert_eq!(bundle.output(), "4005:4006\n");
    bundle.nothing_left();
}

#[test]
fn every_mount_below_becomes_read_only() {
    let mut bundle =
        Bundle::new("touch /data/inner/x 2>/dev/null || echo refused; touch /data/y 2>/dev/null || echo refused");
    let source = bundle.dir.path().join("tree");
    std::fs::create_dir_all(source.join("inner")).unwrap();
    let source = source.to_str().unwrap().to_owned();
    // A mount below the source, in a mount namespace of our own for just this runtime's start.
    bundle.push(
        "/mounts",
        json!({"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "rro"]}),
    );
    let command = bundle.command(&["run", "ID"]);
    let mut words = vec![command.get_program().to_owned()];
    words.extend(command.get_args().map(std::ffi::OsStr::to_owned));
    let mut outer = Command::new("unshare");
    outer.args(["-m", "sh", "-c", "mount -t tmpfs tmpfs tree/inner; exec \"$@\"", "sh"]).args(words);
    let output = outer.current_dir(bundle.dir.path()).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "refused\nrefused\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_copy_of_the_image_comes_up_in_a_tmpfs() {
    let mut bundle = Bundle::new("cat /etc/file; echo new > /etc/file; cat /etc/file");
    std::fs::write(bundle.rootfs("etc/file"), "old\n").unwrap();
    bundle
        .push("/mounts", json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    assert_eq!(bundle.output(), "old\nnew\n");
    assert_eq!(std::fs::read_to_string(bundle.rootfs("etc/file")).unwrap(), "old\n");
}

#[test]
fn scheduling_is_the_processs() {
    if another() {
        return; // newer than Debian's runc and crun
    }
    let mut bundle = Bundle::new("cut -d' ' -f19,41 /proc/self/stat; ionice");
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 3});
    bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    let out = bundle.output();
    assert!(out.starts_with("3 3\n") && out.contains("best-effort: prio 6"), "{out}");
}

#[test]
fn the_home_folder_is_that_of_the_user() {
    let mut bundle = Bundle::new("echo $HOME");
    std::fs::write(bundle.rootfs("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nu:x:5:5:u:/home/u:/bin/sh\n").unwrap();
    bundle.set("/process/user", json!({"uid": 5, "gid": 5}));
    assert_eq!(bundle.output(), "/home/u\n");
}

#[test]
fn labels_this_kernel_cannot_apply_are_refused() {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return;
    }
    let mut bundle = Bundle::new("true");
    bundle.config["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0");
    let (code, ..) = bundle.run();
    assert!(code != 0 || runtime().to_string_lossy().contains("crun"), "runc refuses, crun goes on");
}

/// As an ordinary user, by the runtime's own rootless example.
#[test]
fn an_ordinary_user_runs_a_container() {
    const NOBODY: u32 = 65_534;
    let bundle = Bundle::new("");
    let place = bundle.dir.path().to_owned();
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(place.join("state")).unwrap();
    for folder in ["", "state", "rootfs", "rootfs/tmp", "rootfs/etc", "rootfs/dev", "rootfs/proc", "rootfs/sys"] {
        own(&place.join(folder));
    }
    // The build folder is root's own.
    let runtime_copy = place.join("runtime");
    copy_executable(&runtime(), &runtime_copy);
    let root = place.join("state");
    let call = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "-u", "XDG_RUNTIME_DIR"]);
        command.arg(&runtime_copy).arg("--root").arg(&root).args(words).current_dir(&place).stdin(Stdio::null());
        // By files: what is created must not keep a pipe of ours open.
        let (out, err) = (place.join("rootless-out"), place.join("rootless-err"));
        command.stdout(std::fs::File::create(&out).unwrap()).stderr(std::fs::File::create(&err).unwrap());
        let status = command.status().unwrap();
        (status.code(), std::fs::read_to_string(out).unwrap(), std::fs::read_to_string(err).unwrap())
    };
    if runtime().to_string_lossy().contains("crun") {
        return; // wants a delegated cgroup or a systemd of the user's
    }
    assert_eq!(call(&["spec", "--rootless"]).0, Some(0));
    let path = place.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/sh", "-c", "id -u; cat /proc/self/uid_map; exit 4"]);
    config["root"]["readonly"] = json!(false);
    // The kernel's limits of this machine may be lower than the example's.
    config["process"]["rlimits"] = json!([]);
    std::fs::write(&path, config.to_string()).unwrap();
    let (code, out, err) = call(&["run", &bundle.id]);
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!((code, words.as_slice()), (Some(4), &["0", "0", "65534", "1"][..]), "{err}");
    // Layers of the user's own: what is deleted stays deleted, by marks that an ordinary user may set.
    for folder in ["lower", "lower/old", "upper", "work", "rootfs/merged"] {
        std::fs::create_dir(place.join(folder)).unwrap();
        own(&place.join(folder));
    }
    std::fs::write(place.join("lower/old/file"), "below").unwrap();
    own(&place.join("lower/old/file"));
    let mut layered = config.clone();
    let of = |name: &str| format!("{name}dir={}", place.join(name).display());
    let options = [of("lower"), of("upper"), of("work"), "userxattr".to_owned()];
    let merged = json!({"destination": "/merged", "type": "overlay", "source": "overlay", "options": options});
    layered["mounts"].as_array_mut().unwrap().push(merged);
    let script =
        "cat /merged/old/file; rm -r /merged/old; mkdir /merged/old; echo new > /merged/old/other; ls /merged/old";
    layered["process"]["args"] = json!(["/bin/sh", "-c", script]);
    std::fs::write(&path, layered.to_string()).unwrap();
    let (code, out, err) = call(&["run", &bundle.id]);
    assert_eq!((code, out.as_str()), (Some(0), "belowother\n"), "{err}");
    config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    std::fs::write(&path, config.to_string()).unwrap();
    assert_eq!(call(&["create", &bundle.id]).0, Some(0));
    assert_eq!(call(&["start", &bundle.id]).0, Some(0));
    let (code, out, err) = call(&["exec", &bundle.id, "/bin/sh", "-c", "id -u; exit 6"]);
    assert_eq!((code, out.as_str()), (Some(6), "0\n"), "{err}");
    assert_eq!(call(&["delete", "--force", &bundle.id]).0, Some(0));
    assert!(!root.join(&bundle.id).exists());
}
