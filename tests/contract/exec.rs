//! A second process in a running container.
use super::*;

fn running(script: &str) -> Bundle {
    let bundle = Bundle::new(script);
    bundle.ok(&["create", "ID"]);
    bundle.ok(&["start", "ID"]);
    bundle.wait_for("running");
    bundle
}

#[test]
fn an_exec_is_inside() {
    let bundle = running("sleep 1000");
    let script = "for n in pid net ipc uts mnt; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done; hostname; echo $CONTRACT";
    let out = bundle.ok(&["exec", "ID", "sh", "-c", script]);
    let lines: Vec<&str> = out.lines().collect();
    for pair in lines[..10].chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    assert_eq!(lines[10..], ["contract", "yes"]);
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn an_execs_exit_code_comes_through() {
    let bundle = running("sleep 1000");
    assert_eq!(bundle.call(&["exec", "ID", "sh", "-c", "exit 42"]).status.code(), Some(42));
    assert_eq!(bundle.call(&["exec", "ID", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    let missing = bundle.call(&["exec", "ID", "nosuch"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nosuch"));
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn an_exec_shares_groups_and_capabilities() {
    let bundle = running("sleep 1000");
    let out = bundle.ok(&[
        "exec",
        "ID",
        "sh",
        "-c",
        "cat /proc/self/cgroup; grep Cap /proc/self/status; grep NoNew /proc/self/status",
    ]);
    assert!(out.contains(&format!("pids:/{}", bundle.id)) || out.contains(&format!("0::/{}", bundle.id)), "{out}");
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(out.contains(&format!("{set}:\t00000000000004e1")), "{out}");
    }
    // crun 1.8 forgets it for an exec that is given by words.
    assert!(out.contains("NoNewPrivs:\t1") || runtime().to_string_lossy().contains("crun"), "{out}");
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn an_execs_words_change_user_folder_and_environment() {
    let bundle = running("sleep 1000");
    let words =
        ["exec", "--user", "1000:1001", "--cwd", "/tmp", "--env", "A=b", "--env", "PATH=/bin", "ID", "sh", "-c"];
    let out = bundle.ok(&[&words[..], &["id -u; id -g; pwd; echo $A; grep CapEff /proc/self/status"]].concat());
    assert!(out.starts_with("1000\n1001\n/tmp\nb\n"), "{out}");
    assert!(out.contains("0000000000000000"), "{out}");
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn an_exec_by_a_file_may_be_detached() {
    let bundle = running("sleep 1000");
    let process = json!({"cwd": "/tmp", "user": {"uid": 5, "gid": 6, "additionalGids": [7]}, "env": ["PATH=/bin", "X=y"],
        "args": ["sh", "-c", "echo $(id -u) $(id -G) $X $(pwd) > /tmp/done; sleep 1000"],
        "capabilities": {"bounding": ["CAP_KILL"]}});
    std::fs::write(bundle.dir.path().join("process.json"), process.to_string()).unwrap();
    std::fs::set_permissions(bundle.rootfs("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    bundle.ok(&["exec", "--detach", "--process", "process.json", "--pid-file", "exec-pid", "ID"]);
    let pid = std::fs::read_to_string(bundle.dir.path().join("exec-pid")).unwrap();
    let net = std::fs::read_link(format!("/proc/{}/ns/net", pid.trim())).unwrap();
    assert_ne!(net, std::fs::read_link("/proc/self/ns/net").unwrap());
    let until = Instant::now() + WAIT;
    while std::fs::read_to_string(bundle.rootfs("tmp/done")).unwrap_or_default().is_empty() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(std::fs::read_to_string(bundle.rootfs("tmp/done")).unwrap(), "5 6 7 y /tmp\n");
    let pids: Vec<i64> = serde_json::from_str(&bundle.ok(&["ps", "--format", "json", "ID"])).unwrap();
    assert!(pids.len() >= 2 && pids.contains(&pid.trim().parse().unwrap()), "{pids:?}");
    bundle.ok(&["delete", "--force", "ID"]);
    bundle.nothing_left();
}

#[test]
fn an_exec_inherits_stdin() {
    let bundle = running("sleep 1000");
    std::fs::write(bundle.dir.path().join("input"), "typed\n").unwrap();
    let mut command = bundle.command(&["exec", "ID", "cat"]);
    command.stdin(std::fs::File::open(bundle.dir.path().join("input")).unwrap());
    assert_eq!(command.output().unwrap().stdout, b"typed\n");
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn nothing_runs_in_a_stopped_container() {
    let bundle = running("sleep 1000");
    bundle.ok(&["kill", "ID", "KILL"]);
    bundle.wait_for("stopped");
    assert!(!bundle.call(&["exec", "ID", "true"]).status.success());
    assert!(!bundle.call(&["kill", "ID", "TERM"]).status.success());
    bundle.ok(&["delete", "ID"]);
}

#[test]
fn an_exec_leaks_no_descriptor() {
    // CVE-2024-21626, in its exec form.
    let bundle = running("sleep 1000");
    let host = std::fs::File::open("/").unwrap();
    nix::fcntl::fcntl(&host, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    assert_eq!(bundle.ok(&["exec", "ID", "ls", "/proc/self/fd"]).lines().count(), 4);
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn descriptors_are_kept_when_asked_for() {
    let bundle = Bundle::new("cat <&3");
    std::fs::write(bundle.dir.path().join("kept"), "kept\n").unwrap();
    let command = bundle.command(&["run", "--preserve-fds", "1", "ID"]);
    let mut words = vec![command.get_program().to_owned()];
    words.extend(command.get_args().map(std::ffi::OsStr::to_owned));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec 3<kept; exec \"$@\"", "sh"])
        .args(words)
        .current_dir(bundle.dir.path())
        .stdin(Stdio::null());
    let output = shell.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "kept\n", "{}", String::from_utf8_lossy(&output.stderr));
}
