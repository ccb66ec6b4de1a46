//! Ways out of a container that were open once, each named after its advisory. What counts is that the host is not reached; whether a
//! runtime refuses or renders harmless is its own choice.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

const SECRET: &str = "the host's own words";

/// A file of the host that no container should see or change.
fn secret(bundle: &Bundle) -> PathBuf {
    let path = bundle.dir.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    path
}

fn untouched(path: &Path) {
    assert_eq!(std::fs::read_to_string(path).unwrap(), SECRET, "written from within");
}

fn drop_mount(bundle: &mut Bundle, destination: &str) {
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| !m["destination"].as_str().unwrap().starts_with(destination));
}

#[test]
fn cve_2024_21626_no_working_directory_leads_out() {
    for fd in 3..16 {
        let mut bundle = Bundle::new("");
        let secret = secret(&bundle);
        let up = "../".repeat(12);
        let script = format!("cat {up}{} 2>/dev/null; cat {up}proc/1/cgroup >/dev/null 2>&1; true", secret.display());
        bundle.set("/process/args/2", json!(script)).set("/process/cwd", json!(format!("/proc/self/fd/{fd}")));
        let (_, out, err) = bundle.run();
        assert!(!out.contains(SECRET), "fd {fd}: {err}");
    }
}

#[test]
fn cve_2024_21626_no_working_directory_of_an_exec_leads_out() {
    let bundle = Bundle::new("sleep 100");
    let secret = secret(&bundle);
    bundle.ok(&["run", "--detach", "ID"]);
    for fd in 3..16 {
        let cwd = format!("/proc/self/fd/{fd}");
        let path = format!("{}{}", "../".repeat(12), secret.display());
        let output = bundle.call(&["exec", "--cwd", &cwd, "ID", "/bin/cat", &path]);
        assert!(!String::from_utf8_lossy(&output.stdout).contains(SECRET), "fd {fd}");
    }
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn cve_2024_21626_and_2016_9962_an_exec_inherits_no_descriptor() {
    let bundle = Bundle::new("sleep 100");
    bundle.ok(&["run", "--detach", "ID"]);
    let out = bundle.ok(&["exec", "ID", "/bin/sh", "-c", "ls -l /proc/self/fd | grep -c -- '->'"]);
    let open: u32 = out.trim().parse().unwrap();
    assert!((3..=4).contains(&open), "stdin, stdout, stderr and perhaps ls's own: {open}");
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn cve_2019_5736_the_runtime_is_not_overwritten_by_an_exec() {
    // As the exploit did it: whoever enters is caught by /proc/PID/exe, and written to once it has ended.
    let script = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) continue;; esac; \
        if exec 9<$p/exe; then echo overwritten 2>/dev/null >/proc/self/fd/9; exec 9<&-; fi 2>/dev/null; done; done";
    let mut bundle = Bundle::new(script);
    bundle.set("/process/noNewPrivileges", json!(false));
    let runtime = runtime();
    let before = std::fs::read(&runtime).unwrap();
    bundle.ok(&["run", "--detach", "ID"]);
    for _ in 0..20 {
        let _ = bundle.call(&["exec", "ID", "/bin/true"]);
    }
    let _ = bundle.call(&["delete", "--force", "ID"]);
    assert!(std::fs::read(&runtime).unwrap() == before, "{} was written from within", runtime.display());
}

#[test]
fn cve_2019_5736_the_runtime_is_no_program_of_a_container() {
    // Harmless as a sealed copy, so what is asked for is only that the file stays as it is; ours refuses outright.
    let runtime = runtime();
    let before = std::fs::read(&runtime).unwrap();
    let mut bundle = Bundle::new("");
    std::fs::write(bundle.rootfs("bin/entry"), "#!/proc/self/exe --version\n").unwrap();
    std::fs::set_permissions(bundle.rootfs("bin/entry"), PermissionsExt::from_mode(0o755)).unwrap();
    for program in ["/proc/self/exe", "/bin/entry"] {
        bundle.set("/process/args", json!([program, "--version"]));
        let (code, out, err) = bundle.run();
        if !another() {
            assert!(code != 0 && err.contains("the runtime itself"), "{program}: {code} {out}{err}");
        }
        bundle.nothing_left();
    }
    assert!(std::fs::read(&runtime).unwrap() == before);
}

#[test]
fn cve_2025_31133_a_masked_path_never_shows_what_dev_null_points_to() {
    let mut bundle = Bundle::new("cat /data/masked; echo written >/data/masked; cat /dev/null");
    drop_mount(&mut bundle, "/dev");
    let secret = secret(&bundle);
    std::fs::write(bundle.rootfs("data/masked"), "mask me").unwrap();
    symlink(&secret, bundle.rootfs("dev/null")).unwrap();
    bundle.push("/linux/maskedPaths", json!("/data/masked"));
    let (_, out, _) = bundle.run();
    assert!(!out.contains(SECRET) && !out.contains("mask me"), "{out}");
    untouched(&secret);
}

#[test]
fn cve_2025_31133_a_masked_folder_is_empty_and_not_writable() {
    let mut bundle = Bundle::new("ls /data/masked; touch /data/masked/x && echo made");
    std::fs::create_dir(bundle.rootfs("data/masked")).unwrap();
    std::fs::write(bundle.rootfs("data/masked/inside"), "").unwrap();
    bundle.push("/linux/maskedPaths", json!("/data/masked"));
    let (_, out, _) = bundle.run();
    assert_eq!(out, "");
    assert!(!bundle.rootfs("data/masked/x").exists());
}

#[test]
fn cve_2025_52565_console_and_ptmx_of_the_image_are_not_followed() {
    let mut bundle = Bundle::new("true");
    let secret = secret(&bundle);
    drop_mount(&mut bundle, "/dev");
    bundle.push(
        "/mounts",
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}),
    );
    for name in ["console", "ptmx", "tty", "full", "stdin"] {
        symlink(&secret, bundle.rootfs("dev").join(name)).unwrap();
    }
    let _ = bundle.run();
    untouched(&secret);
}

#[test]
fn cve_2025_52881_a_sysctl_is_written_to_procfs_alone() {
    // Debian's runc 1.1.5 is older than the advisory and fails this one.
    let mut bundle = Bundle::new("true");
    drop_mount(&mut bundle, "/proc");
    let secret = secret(&bundle);
    let fake = bundle.rootfs("proc/sys/net/ipv4");
    std::fs::create_dir_all(&fake).unwrap();
    symlink("/data/target", fake.join("ip_forward")).unwrap();
    symlink(&secret, fake.join("ip_default_ttl")).unwrap();
    std::fs::write(bundle.rootfs("data/target"), "untouched").unwrap();
    for key in ["net.ipv4.ip_forward", "net.ipv4.ip_default_ttl"] {
        bundle.config["linux"]["sysctl"] = json!({ key: "1" });
        let _ = bundle.run();
        assert_eq!(std::fs::read_to_string(bundle.rootfs("data/target")).unwrap(), "untouched", "{key}");
        untouched(&secret);
    }
}

#[test]
fn cve_2023_27561_and_2019_19921_a_linked_proc_is_no_way_round_the_masks() {
    let bundle = Bundle::new(
        "for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern; do [ -e $f ] && echo x 2>/dev/null >$f && echo wrote $f; done; \
        cat /proc/keys; true",
    );
    std::fs::remove_dir(bundle.rootfs("proc")).unwrap();
    std::fs::create_dir(bundle.rootfs("elsewhere")).unwrap();
    symlink("/elsewhere", bundle.rootfs("proc")).unwrap();
    // Without CAP_SYS_ADMIN the kernel may refuse by itself: with it only the masks stand in the way. Harmless words are written.
    let (code, out, _) = bundle.run();
    assert!(code != 0 || out.trim().is_empty(), "{out}");
}

#[test]
fn cve_2021_30465_a_linked_mount_target_stays_inside() {
    let mut bundle = Bundle::new("echo inside >/data/link/file; cat /data/link/file");
    let outside = bundle.dir.path().join("outside");
    std::fs::create_dir_all(outside.join("deep")).unwrap();
    symlink(&outside, bundle.rootfs("data/link")).unwrap();
    std::fs::create_dir(bundle.dir.path().join("source")).unwrap();
    bundle.push(
        "/mounts",
        json!({"destination": "/data/link/deep", "type": "bind", "source": "source", "options": ["rbind", "rw"]}),
    );
    bundle.push(
        "/mounts",
        json!({"destination": "/data/link", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]}),
    );
    let _ = bundle.run();
    let names: Vec<_> = std::fs::read_dir(&outside).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["deep"], "made outside");
    assert!(std::fs::read_dir(outside.join("deep")).unwrap().next().is_none());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(outside.to_str().unwrap()));
}

#[test]
fn cve_2024_45310_a_missing_mount_target_is_not_made_outside() {
    let mut bundle = Bundle::new("true");
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path().join("new"), bundle.rootfs("data/dangling")).unwrap();
    symlink(outside.path(), bundle.rootfs("data/folder")).unwrap();
    std::fs::write(bundle.dir.path().join("source"), "").unwrap();
    for destination in ["/data/dangling", "/data/folder/made", "/data/../../../../../../tmp/../data/folder/made"] {
        let mut one =
            Bundle { dir: tempfile::tempdir().unwrap(), id: bundle.id.clone(), config: bundle.config.clone() };
        std::mem::swap(&mut one.config, &mut bundle.config);
        bundle.config = one.config.clone();
        bundle.push(
            "/mounts",
            json!({"destination": destination, "type": "bind", "source": "source", "options": ["bind"]}),
        );
        let _ = bundle.run();
        assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none(), "{destination} made something outside");
        bundle.config = one.config.clone();
    }
}

#[test]
fn ids_lead_nowhere() {
    let bundle = Bundle::new("true");
    for id in ["..", "../x", "a/../../x", "/tmp/x", ""] {
        let output = bundle.call(&["run", id]);
        assert!(!output.status.success(), "{id:?}");
    }
    assert!(!bundle.dir.path().join("x").exists());
}

#[test]
fn cve_2022_29162_and_24769_nothing_is_inheritable() {
    let bundle = Bundle::new("sleep 100");
    bundle.ok(&["run", "--detach", "ID"]);
    let out = bundle.ok(&["exec", "ID", "/bin/grep", "CapInh", "/proc/self/status"]);
    assert_eq!(out.trim(), "CapInh:\t0000000000000000");
    bundle.ok(&["delete", "--force", "ID"]);
}

#[test]
fn cve_2018_7169_groups_of_the_starter_are_dropped() {
    let mut bundle = Bundle::new("id -G; cat /proc/self/setgroups 2>/dev/null; true");
    bundle.set("/process/user", json!({"uid": 1234, "gid": 1234}));
    assert_eq!(bundle.output().lines().next(), Some("1234"));
}

#[test]
fn a_joined_namespace_of_the_wrong_kind_is_refused() {
    let mut bundle = Bundle::new("true");
    bundle.config["linux"]["namespaces"][1]["path"] = json!("/proc/self/ns/uts");
    let (code, ..) = bundle.run();
    assert_ne!(code, 0, "a uts namespace is no network");
    bundle.nothing_left();
}

#[test]
fn the_hosts_processes_and_mounts_are_out_of_sight() {
    let out = Bundle::new("ls /proc | grep -c '^[0-9]'; cat /proc/self/mountinfo; cat /proc/1/environ | tr '\\0' ' '")
        .output();
    let processes: u32 = out.lines().next().unwrap().parse().unwrap();
    assert!(processes < 6 && out.contains("CONTRACT=yes"), "{out}");
    assert!(!out.contains("/oldroot") && !out.lines().any(|l| l.contains(" / / ") && l.contains("..")), "{out}");
}
