//! Debian's podman, containerd, Docker and conmon, unchanged, on our runtime: run, exec, logs, stats, kill, pause, limits, volumes, terminals, removal.
//!
//! Each test has stores, sockets and cgroups of its own. Needs root and Debian's podman, containerd, docker.io, conmon and busybox-static.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

#[path = "../harness/bounded.rs"]
mod bounded;
mod conmon;
mod docker;

const WAIT: Duration = Duration::from_secs(60);
/// Runs until it is told to end.
const LOOP: &str = "trap 'exit 9' TERM; echo out; echo err >&2; while true; do sleep 0.05; done";

fn runtime() -> &'static str {
    env!("CARGO_BIN_EXE_mote-oci")
}

/// A name and a folder of this test's own, and its cgroups' end.
struct Place {
    dir: tempfile::TempDir,
    group: String,
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("mote-it-").tempdir_in("/tmp").unwrap();
        Self { dir, group: format!("mote-it-{name}-{}", std::process::id()) }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A root file system of busybox alone, as tar.
    fn image(&self) -> String {
        let root = self.dir.path().join("image");
        for folder in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("needs Debian's busybox-static");
        for applet in "sh true sleep cat echo ls id tty pwd".split(' ') {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        let tar = self.path("image.tar");
        assert!(Command::new("tar").args(["-C", root.to_str().unwrap(), "-cf", &tar, "."]).status().unwrap().success());
        tar
    }

    fn groups(&self) -> Vec<PathBuf> {
        let points = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
        points.chain([PathBuf::from("/sys/fs/cgroup")]).map(|p| p.join(&self.group)).filter(|p| p.is_dir()).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What a killed container leaves is in its groups for a moment yet, and each engine has some to go over.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let groups = self.groups();
            groups.iter().for_each(|group| remove_empty(group));
            if groups.is_empty() || Instant::now() > until {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Engines leave their parents' groups behind; only empty ones go.
fn remove_empty(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

/// Bounded in time, with `stdin` to read.
fn bounded(mut command: Command, place: &Place, stdin: &str) -> Output {
    let file = tempfile::NamedTempFile::new_in(place.dir.path()).unwrap();
    std::fs::write(file.path(), stdin).unwrap();
    command.stdin(std::fs::File::open(file.path()).unwrap());
    bounded::output(command, file.path(), WAIT)
}

/// Code and both streams as text.
fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

struct Podman(Place);

impl Podman {
    fn new(name: &str) -> Self {
        let podman = Self(Place::new(name));
        let tar = podman.0.image();
        podman.ok(&["import", &tar, "mote-it:1"]);
        podman
    }

    fn call(&self, words: &[&str], stdin: &str) -> (i32, String, String) {
        let mut command = Command::new("podman");
        for (flag, folder) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.args([flag, &self.0.path(folder)]);
        }
        command.args(["--runtime", runtime(), "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.args(["--storage-driver", "vfs", "--log-level", "error"]).args(words);
        told(bounded(command, &self.0, stdin))
    }

    fn ok(&self, words: &[&str]) -> String {
        let (code, out, err) = self.call(words, "");
        assert_eq!(code, 0, "{words:?}: {out}{err}");
        out
    }

    /// `run` with what every container of ours here gets.
    fn run(&self, more: &[&str]) -> (i32, String, String) {
        let group = format!("/{}", self.0.group);
        let base = ["run", "--network", "none", "--ulimit", "host", "--cgroup-parent", &group];
        self.call(&[&base[..], more].concat(), "")
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.call(&["rm", "--all", "--force", "--time", "0"], "");
    }
}

#[test]
fn podman_runs_and_tells_what_went_wrong() {
    let podman = Podman::new("pm-run");
    let (code, out, err) = podman.run(&["--rm", "mote-it:1", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((code, out.as_str()), (7, "out\n"), "{err}");
    assert!(err.contains("err\n"), "{err}");
    let (code, _, err) = podman.run(&["--rm", "mote-it:1", "nosuch"]);
    assert_eq!(code, 127, "{err}");
    let (code, _, err) = podman.run(&["--rm", "mote-it:1", "/etc/passwd"]);
    assert_eq!(code, 126, "{err}");
    // Its default seccomp profile is in force.
    let (code, out, err) = podman.run(&["--rm", "mote-it:1", "cat", "/proc/self/status"]);
    assert!(code == 0 && out.contains("Seccomp:\t2"), "{out}{err}");
}

#[test]
fn podman_handles_a_containers_whole_life() {
    let podman = Podman::new("pm-life");
    let volume = podman.0.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "from outside\n").unwrap();
    let volume = format!("{}:/data:ro", volume.display());
    let limits = ["-d", "--name", "a", "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "-v", &volume];
    let (code, _, err) = podman.run(&[&limits[..], &["mote-it:1", "sh", "-c", LOOP]].concat());
    assert_eq!(code, 0, "{err}");
    assert_eq!(podman.ok(&["exec", "a", "cat", "/data/file"]), "from outside\n");
    assert_ne!(podman.call(&["exec", "a", "sh", "-c", "echo x > /data/new"], "").0, 0, "the volume is read-only");
    assert_eq!(podman.call(&["exec", "a", "sh", "-c", "exit 5"], "").0, 5);
    assert_eq!(podman.call(&["exec", "-i", "a", "cat"], "typed\n").1, "typed\n");
    assert_eq!(
        podman.ok(&["exec", "-u", "1000", "-w", "/tmp", "-e", "X=y", "a", "sh", "-c", "id -u; pwd; echo $X"]),
        "1000\n/tmp\ny\n"
    );
    let (_, out, err) = podman.call(&["logs", "a"], "");
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let stats = podman.ok(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "a"]);
    assert!(stats.contains("67.11MB"), "{stats}");
    podman.ok(&["pause", "a"]);
    assert_eq!(podman.ok(&["inspect", "-f", "{{.State.Status}}", "a"]), "paused\n");
    podman.ok(&["unpause", "a"]);
    assert!(podman.ok(&["top", "a", "pid", "args"]).contains("sleep"));
    podman.ok(&["stop", "--time", "10", "a"]);
    assert_eq!(podman.ok(&["wait", "a"]), "9\n");
    podman.ok(&["start", "a"]);
    podman.ok(&["kill", "a"]);
    assert_eq!(podman.ok(&["wait", "a"]), "137\n");
    podman.ok(&["rm", "a"]);
    assert_eq!(podman.ok(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn podman_maps_users_and_shares_a_pods_namespaces() {
    let podman = Podman::new("pm-user");
    let maps = ["--rm", "--uidmap", "0:700000:1000", "--gidmap", "0:700000:1000"];
    let (code, out, err) = podman.run(&[&maps[..], &["mote-it:1", "cat", "/proc/self/uid_map"]].concat());
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!((code, words.as_slice()), (0, &["0", "700000", "1000"][..]), "{err}");
    let (code, _, err) = podman.run(&["-d", "--name", "one", "mote-it:1", "sh", "-c", LOOP]);
    assert_eq!(code, 0, "{err}");
    let shared = ["--rm", "--pid", "container:one", "--ipc", "container:one", "mote-it:1", "cat", "/proc/1/cmdline"];
    let (code, out, err) = podman.run(&shared);
    assert!(code == 0 && out.contains("trap"), "{out}{err}");
}

struct Containerd {
    place: Place,
    daemon: Child,
}

impl Containerd {
    fn new(name: &str) -> Self {
        let place = Place::new(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            place.path("root"),
            place.path("state"),
            place.path("socket"),
            place.path("ttrpc")
        );
        std::fs::write(place.path("config.toml"), config).unwrap();
        let log = std::fs::File::create(place.path("log")).unwrap();
        let mut command = Command::new("containerd");
        command.args(["--config", &place.path("config.toml"), "--log-level", "warn"]).stdin(Stdio::null());
        let daemon = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("needs Debian's containerd");
        let this = Self { place, daemon };
        let until = Instant::now() + WAIT;
        while this.call(&["version"]).0 != 0 {
            assert!(Instant::now() < until, "containerd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        this.image();
        this
    }

    /// An OCI layout by podman, which knows how to write one.
    fn image(&self) {
        let podman = Podman(Place::new("ctd-image"));
        let tar = podman.0.image();
        podman.ok(&["import", &tar, "mote-it:1"]);
        let archive = self.place.path("image.oci");
        podman.ok(&["save", "--format", "oci-archive", "-o", &archive, "mote-it:1"]);
        self.ok(&["images", "import", &archive]);
    }

    fn call(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new("ctr");
        command.args(["--address", &self.place.path("socket"), "--namespace", &self.place.group]).args(words);
        told(bounded(command, &self.place, ""))
    }

    fn ok(&self, words: &[&str]) -> String {
        let (code, out, err) = self.call(words);
        assert_eq!(code, 0, "{words:?}: {out}{err}");
        out
    }

    fn run(&self, more: &[&str]) -> (i32, String, String) {
        let state = self.place.path("runc");
        let base = ["run", "--runc-binary", runtime(), "--runc-root", &state];
        self.call(&[&base[..], more].concat())
    }

    fn tasks(&self) -> String {
        self.ok(&["task", "ls"])
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.call(&["task", "rm", "--force", "a"]);
        let _ = self.call(&["container", "rm", "a"]);
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.daemon.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.daemon.wait();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for point in mounts.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| p.starts_with(&self.place.path("")))
        {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

#[test]
fn containerd_handles_a_tasks_whole_life() {
    let containerd = Containerd::new("ctd");
    let image = "localhost/mote-it:1";
    let (code, out, err) = containerd.run(&["--rm", image, "x", "sh", "-c", "echo hi; exit 3"]);
    assert_eq!((code, out.as_str()), (3, "hi\n"), "{err}");
    let (code, _, err) = containerd.run(&["--rm", image, "y", "nosuch"]);
    assert!(code != 0 && err.contains("executable file not found in $PATH"), "{err}");

    let (code, _, err) = containerd.run(&["--detach", "--memory-limit", "67108864", image, "a", "sh", "-c", LOOP]);
    assert_eq!(code, 0, "{err}");
    assert!(containerd.tasks().contains("RUNNING"));
    let (code, out, _) = containerd.call(&["task", "exec", "--exec-id", "e", "a", "sh", "-c", "id -u; exit 5"]);
    assert_eq!((code, out.as_str()), (5, "0\n"));
    assert!(containerd.ok(&["task", "metrics", "a"]).contains("67108864"));
    assert!(containerd.ok(&["task", "ps", "a"]).lines().count() >= 2);
    containerd.ok(&["task", "pause", "a"]);
    assert!(containerd.tasks().contains("PAUSED"));
    containerd.ok(&["task", "resume", "a"]);
    assert!(containerd.tasks().contains("RUNNING"));
    containerd.ok(&["task", "kill", "--signal", "SIGTERM", "a"]);
    let until = Instant::now() + WAIT;
    while !containerd.tasks().contains("STOPPED") {
        assert!(Instant::now() < until, "{}", containerd.tasks());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, _, err) = containerd.call(&["task", "rm", "a"]);
    assert!(err.contains("exit code 9"), "{err}");
    containerd.ok(&["container", "rm", "a"]);
    assert!(std::fs::read_dir(containerd.place.path("runc")).is_ok_and(|d| {
        d.flatten().all(|namespace| std::fs::read_dir(namespace.path()).is_ok_and(|mut left| left.next().is_none()))
    }));
}
