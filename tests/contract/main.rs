//! Black-box suite for OCI runtimes: any binary with runc's command line.
//!
//! `CONTRACT_RUNTIME=/usr/sbin/runc cargo test -p mote-runtime --test contract` judges another one; without it, our own. It is validated against
//! Debian's runc and crun: where they differ from each other, it asks for neither. Needs root and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[path = "../harness/bounded.rs"]
mod bounded;
mod cases;
mod control;
mod escapes;
mod exec;
mod hooks;
mod host;
mod seccomp;
mod terminal;
mod users;

const WAIT: Duration = Duration::from_secs(20);

fn runtime() -> PathBuf {
    std::env::var_os("CONTRACT_RUNTIME").map_or_else(|| env!("CARGO_BIN_EXE_mote-oci").into(), PathBuf::from)
}

/// Not our own, which alone is asked for what Debian's runc and crun are too old for, or say in other words.
fn another() -> bool {
    runtime().file_name().is_none_or(|name| name != "mote-oci")
}

/// By a process of its own: a file we had open for writing ourselves would be busy for who executes it, as long as any child that another
/// test is just spawning has a copy of our descriptors.
fn copy_executable(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success(), "copy {}", from.display());
}

/// A bundle of its own, and everything it may leave, for one test.
struct Bundle {
    dir: tempfile::TempDir,
    id: String,
    config: Value,
}

impl Bundle {
    /// Runs `script` by busybox sh in namespaces of every kind we promise.
    fn new(script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::Builder::new().prefix("rt-contract-").tempdir().unwrap();
        let bin = dir.path().join("rootfs/bin");
        for folder in ["bin", "proc", "sys", "dev", "tmp", "etc", "data"] {
            std::fs::create_dir_all(dir.path().join("rootfs").join(folder)).unwrap();
        }
        copy_executable(Path::new("/bin/busybox"), &bin.join("busybox")); // Debian's busybox-static
        let applets = "sh true false sleep cat echo ls rm id mount umount hostname ps env dd touch mkdir grep wc readlink stat ip kill trap tty stty nproc cut ionice date head tr tail";
        for applet in applets.split(' ') {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let id = format!("rt-contract-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = base_config(script, &id);
        Self { dir, id, config }
    }

    fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.path().join("rootfs").join(path)
    }

    fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        *self.config.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
        self
    }

    fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        self.config.pointer_mut(pointer).and_then(Value::as_array_mut).unwrap().push(value);
        self
    }

    /// The runtime with these words; `ID` stands for the id.
    fn command(&self, words: &[&str]) -> Command {
        std::fs::write(self.dir.path().join("config.json"), self.config.to_string()).unwrap();
        let runtime = runtime();
        // crun takes a mounted "unified" hierarchy for a pure v2 host; hidden from it alone.
        let hide = runtime.to_string_lossy().contains("crun") && Path::new("/sys/fs/cgroup/unified").exists();
        let mut command = if hide {
            let mut c = Command::new("unshare");
            c.args(["-m", "sh", "-c", "umount /sys/fs/cgroup/unified; exec \"$@\"", "sh"]).arg(&runtime);
            c
        } else {
            Command::new(&runtime)
        };
        command.arg("--root").arg(self.dir.path().join("state"));
        command.args(words.iter().map(|w| if *w == "ID" { self.id.as_str() } else { w }));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn call(&self, words: &[&str]) -> Output {
        bounded::output(self.command(words), &self.dir.path().join(words[0]), WAIT)
    }

    /// `run` in the foreground: exit code, stdout, stderr.
    fn run(&self) -> (i32, String, String) {
        let output = self.call(&["run", "ID"]);
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// `run` that must succeed: stdout.
    fn output(&self) -> String {
        let (code, out, err) = self.run();
        assert_eq!(code, 0, "stdout: {out}\nstderr: {err}");
        out
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.call(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", "ID"])).unwrap()
    }

    fn wait_for(&self, status: &str) {
        let until = Instant::now() + WAIT;
        while self.state()["status"] != status {
            assert!(Instant::now() < until, "never {status}: {}", self.state());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for line in mounts.lines().filter(|l| l.contains(" - cgroup")) {
            let path = Path::new(line.split(' ').nth(4).unwrap()).join(&self.id);
            if path.exists() {
                found.push(path);
            }
        }
        found
    }

    fn nothing_left(&self) {
        assert!(!self.dir.path().join("state").join(&self.id).exists(), "state folder left");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups left");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "mounts left");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.dir.path().join("state").join(&self.id).exists() {
            let _ = self.command(&["delete", "--force", "ID"]).output();
        }
        for group in self.cgroups() {
            let _ = std::fs::remove_dir(group); // only our own id's, and only if empty
        }
    }
}

fn base_config(script: &str, id: &str) -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0, "additionalGids": []}, "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin", "CONTRACT=yes"], "cwd": "/", "noNewPrivileges": true, "rlimits": [],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities}
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "contract",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "memory": {}, "pids": {"limit": 100}},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
