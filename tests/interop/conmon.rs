//! conmon, CRI-O's monitor (podman's too), driven as CRI-O drives it: create, start, attach socket, exec, exit file, log.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::{Place, WAIT, bounded, runtime};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A bundle, and what conmon is told about it.
struct Conmon {
    place: Place,
    id: String,
}

impl Conmon {
    fn new(name: &str, script: &str) -> Self {
        let place = Place::new(name);
        let tar = place.image();
        let root = place.dir.path().join("bundle/rootfs");
        std::fs::create_dir_all(&root).unwrap();
        assert!(Command::new("tar").args(["-C", root.to_str().unwrap(), "-xf", &tar]).status().unwrap().success());
        let mut spec = Command::new(runtime());
        spec.args(["spec", "--bundle", &place.path("bundle")]);
        assert!(spec.status().unwrap().success());
        let file = place.dir.path().join("bundle/config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["process"]["terminal"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/c", place.group));
        std::fs::write(&file, config.to_string()).unwrap();
        for folder in ["exits", "sockets", "persist"] {
            std::fs::create_dir(place.dir.path().join(folder)).unwrap();
        }
        let id = format!("{}-c", place.group);
        Self { place, id }
    }

    fn runtime(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(runtime());
        command.args(["--root", &self.place.path("state")]).args(words);
        super::told(bounded(command, &self.place, ""))
    }

    /// conmon goes into the background once the runtime has created the container.
    fn create(&self) {
        let mut command = Command::new("conmon");
        command.args(["--api-version", "1", "-c", &self.id, "-u", &self.id, "-n", "c", "-r", runtime()]);
        command.args(["--runtime-arg", "--root", "--runtime-arg", &self.place.path("state")]);
        for (flag, path) in [
            ("-b", "bundle"),
            ("-p", "pid"),
            ("-P", "conmon.pid"),
            ("--exit-dir", "exits"),
            ("-l", "log"),
            ("--socket-dir-path", "sockets"),
            ("-0", "persist"),
        ] {
            command.args([flag, &self.place.path(path)]);
        }
        command.args(["-i", "--log-level", "error"]);
        let (code, out, err) = super::told(bounded(command, &self.place, ""));
        assert_eq!(code, 0, "{out}{err}");
        wait("a pid file", || std::fs::read_to_string(self.place.path("pid")).ok().filter(|t| !t.is_empty()));
    }

    fn exit_file(&self) -> PathBuf {
        self.place.dir.path().join("exits").join(&self.id)
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.place.path("log")).unwrap();
        text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

impl Drop for Conmon {
    fn drop(&mut self) {
        let _ = self.runtime(&["delete", "--force", &self.id]);
    }
}

fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + WAIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn conmon_watches_logs_and_tells_the_exit() {
    let conmon = Conmon::new("cm-life", "echo out; echo err >&2; read x; echo got $x; exit 42");
    conmon.create();
    let state: Value = serde_json::from_str(&conmon.runtime(&["state", &conmon.id]).1).unwrap();
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"].to_string(), std::fs::read_to_string(conmon.place.path("pid")).unwrap());
    assert_eq!(conmon.runtime(&["start", &conmon.id]).0, 0);
    wait("output", || conmon.log().iter().any(|l| l == "stdout F out").then_some(()));
    assert_eq!(conmon.runtime(&["exec", &conmon.id, "sh", "-c", "exit 7"]).0, 7);
    // What CRI-O does for kubectl attach.
    let socket = conmon.place.dir.path().join("sockets").join(&conmon.id).join("attach");
    let path = if socket.exists() { socket } else { conmon.place.dir.path().join("bundle/attach") };
    let mut attached = seqpacket(&path);
    attached.write_all(b"typed\n").unwrap();
    let mut heard = [0u8; 1024];
    attached.set_read_timeout(Some(WAIT)).unwrap();
    let count = attached.read(&mut heard).unwrap();
    // The first byte says which stream.
    assert_eq!(&heard[1..count], b"got typed\n");
    let code = wait("exit file", || std::fs::read_to_string(conmon.exit_file()).ok());
    assert_eq!(code, "42");
    let mut lines = conmon.log();
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F got typed", "stdout F out"]);
    let state: Value = serde_json::from_str(&conmon.runtime(&["state", &conmon.id]).1).unwrap();
    assert_eq!(state["status"], "stopped");
    assert_eq!(conmon.runtime(&["delete", &conmon.id]).0, 0);
}

#[test]
fn conmon_hears_why_nothing_was_created() {
    let conmon = Conmon::new("cm-fail", "true");
    let file = conmon.place.dir.path().join("bundle/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["process"]["args"] = json!(["/no/such"]);
    std::fs::write(&file, config.to_string()).unwrap();
    // CRI-O hears by a pipe whose number is in the environment.
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3>\"$0\"; exec conmon \"$@\"", &conmon.place.path("sync")]).env("_OCI_SYNCPIPE", "3");
    command.args(["--api-version", "1", "-c", &conmon.id, "-u", &conmon.id, "-n", "c", "-r", runtime(), "--sync"]);
    command.args(["--runtime-arg", "--root", "--runtime-arg", &conmon.place.path("state")]);
    for (flag, path) in
        [("-b", "bundle"), ("-p", "pid"), ("--exit-dir", "exits"), ("-l", "log"), ("--socket-dir-path", "sockets")]
    {
        command.args([flag, &conmon.place.path(path)]);
    }
    let (code, out, err) = super::told(bounded(command, &conmon.place, ""));
    assert_ne!(code, 0, "{out}{err}");
    // {"data": -1, "message": its words}
    let said = std::fs::read_to_string(conmon.place.path("sync")).unwrap();
    assert!(said.contains("/no/such") && said.contains("\"data\": -1"), "the runtime's own words: {said}");
    assert!(!conmon.place.dir.path().join("state").join(&conmon.id).exists());
}

/// conmon's attach socket keeps records apart.
fn seqpacket(path: &std::path::Path) -> UnixStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    fd.into()
}
