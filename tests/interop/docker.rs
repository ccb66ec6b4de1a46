//! Debian's Docker, unchanged, with our runtime as its default: a daemon of its own without bridges or rules.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::{LOOP, Place, WAIT, bounded, runtime, told};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Docker {
    place: Place,
    daemon: Child,
}

impl Docker {
    fn new(name: &str) -> Self {
        let place = Place::new(name);
        let log = std::fs::File::create(place.path("log")).unwrap();
        let mut command = Command::new("dockerd");
        for (flag, value) in [
            ("--data-root", place.path("root")),
            ("--exec-root", place.path("exec")),
            ("--pidfile", place.path("pid")),
            ("--host", format!("unix://{}", place.path("socket"))),
            ("--add-runtime", format!("mote={}", runtime())),
            ("--default-runtime", "mote".into()),
            ("--cgroup-parent", format!("/{}", place.group)),
            ("--exec-opt", "native.cgroupdriver=cgroupfs".into()),
            ("--storage-driver", "vfs".into()),
            ("--bridge", "none".into()),
        ] {
            command.args([flag, &value]);
        }
        command.args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let daemon = command.spawn().expect("needs Debian's docker.io");
        let docker = Self { place, daemon };
        let until = Instant::now() + WAIT;
        while docker.call(&["version"], "").0 != 0 {
            assert!(Instant::now() < until, "{}", std::fs::read_to_string(docker.place.path("log")).unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
        let tar = docker.place.image();
        docker.ok(&["import", &tar, "mote-it:1"]);
        docker
    }

    fn call(&self, words: &[&str], stdin: &str) -> (i32, String, String) {
        let mut command = Command::new("docker");
        command.args([
            "--host",
            &format!("unix://{}", self.place.path("socket")),
            "--config",
            &self.place.path("config"),
        ]);
        command.args(words);
        told(bounded(command, &self.place, stdin))
    }

    fn ok(&self, words: &[&str]) -> String {
        let (code, out, err) = self.call(words, "");
        assert_eq!(code, 0, "{words:?}: {out}{err}");
        out
    }

    fn run(&self, more: &[&str]) -> (i32, String, String) {
        self.call(&[&["run", "--network", "none"][..], more].concat(), "")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let (_, all, _) = self.call(&["ps", "--all", "--quiet"], "");
        let all: Vec<&str> = all.split_whitespace().collect();
        if !all.is_empty() {
            let _ = self.call(&[&["rm", "--force"][..], &all].concat(), "");
        }
        let daemon = nix::unistd::Pid::from_raw(self.daemon.id() as i32);
        let _ = nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

#[test]
fn docker_runs_and_tells_what_went_wrong() {
    let docker = Docker::new("dk-run");
    let (code, out, err) = docker.run(&["--rm", "mote-it:1", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((code, out.as_str(), err.as_str()), (7, "out\n", "err\n"));
    let (code, _, err) = docker.run(&["--rm", "mote-it:1", "nosuch"]);
    assert!(code == 127 && err.contains("executable file not found in $PATH"), "{code} {err}");
    let (code, _, err) = docker.run(&["--rm", "mote-it:1", "/etc/passwd"]);
    assert!(code == 126 && err.contains("permission denied"), "{code} {err}");
    let (code, out, err) = docker.run(&["--rm", "mote-it:1", "cat", "/proc/self/status"]);
    assert!(code == 0 && out.contains("Seccomp:\t2") && out.contains("CapEff:\t00000000a80425fb"), "{out}{err}");
    let (code, out, err) = docker.run(&["--rm", "--tty", "mote-it:1", "tty"]);
    assert_eq!((code, out.trim()), (0, "/dev/pts/0"), "{err}");
    let greedy = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done";
    assert_eq!(docker.run(&["--rm", "--memory", "16m", "mote-it:1", "sh", "-c", greedy]).0, 137);
    assert_eq!(docker.ok(&["ps", "--all", "--quiet"]), "");
}

#[test]
fn docker_handles_a_containers_whole_life() {
    let docker = Docker::new("dk-life");
    let volume = docker.place.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "from outside\n").unwrap();
    let volume = format!("{}:/data:ro", volume.display());
    let limits = ["-d", "--name", "box", "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "-v", &volume];
    let (code, _, err) = docker.run(&[&limits[..], &["mote-it:1", "sh", "-c", LOOP]].concat());
    assert_eq!(code, 0, "{err}");
    assert_eq!(docker.ok(&["exec", "box", "cat", "/data/file"]), "from outside\n");
    assert_ne!(docker.call(&["exec", "box", "sh", "-c", "echo x > /data/new"], "").0, 0, "the volume is read-only");
    assert_eq!(docker.call(&["exec", "box", "sh", "-c", "exit 5"], "").0, 5);
    assert_eq!(docker.call(&["exec", "-i", "box", "cat"], "typed\n").1, "typed\n");
    let user = ["exec", "-u", "1000", "-w", "/tmp", "-e", "X=y", "box", "sh", "-c", "id -u; pwd; echo $X"];
    assert_eq!(docker.ok(&user), "1000\n/tmp\ny\n");
    let (_, out, err) = docker.call(&["logs", "box"], "");
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let used = ["stats", "--no-stream", "--format", "{{.MemUsage}}", "box"];
    assert!(docker.ok(&used).contains("/ 64MiB"));
    docker.ok(&["update", "--memory", "128m", "--memory-swap", "128m", "box"]);
    assert!(docker.ok(&used).contains("/ 128MiB"));
    docker.ok(&["pause", "box"]);
    assert_eq!(docker.ok(&["inspect", "-f", "{{.State.Status}}", "box"]), "paused\n");
    docker.ok(&["unpause", "box"]);
    assert!(docker.ok(&["top", "box"]).contains("sleep"));
    docker.ok(&["stop", "--time", "10", "box"]);
    assert_eq!(docker.ok(&["wait", "box"]), "9\n");
    docker.ok(&["start", "box"]);
    docker.ok(&["kill", "box"]);
    assert_eq!(docker.ok(&["wait", "box"]), "137\n");
    docker.ok(&["rm", "box"]);
    assert_eq!(docker.ok(&["ps", "--all", "--quiet"]), "");
}
