//! A keeper of a test's own, and what every test asks of it.

use mote_runtime::cgroup::{self, Layout};
use mote_runtime::container::{
    CapSet, Capabilities, Container, Log, Namespace, NamespaceKind, Process, Rootfs, Stdio, defaults,
};
use mote_runtime::keeper::protocol::*;
use mote_runtime::keeper::{self, Client, RunDir};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) run: RunDir,
    pub(crate) cgroup: String,
    pub(crate) client: Client,
}

/// `KEEPER_EXE` lets a release build be judged.
pub(crate) fn exe() -> PathBuf {
    std::env::var_os("KEEPER_EXE").map_or_else(|| env!("CARGO_BIN_EXE_mote-keeper").into(), PathBuf::from)
}
/// Of what ends in milliseconds. A processor made of software takes half a minute at times: `KEEPER_WAIT_S`.
pub(crate) static WAIT: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("KEEPER_WAIT_S").ok().and_then(|n| n.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
});

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("rt-keeper-").tempdir().unwrap();
        let image = dir.path().join("layer1/bin");
        std::fs::create_dir_all(&image).unwrap();
        std::fs::create_dir_all(dir.path().join("layer2/etc")).unwrap();
        std::fs::write(dir.path().join("layer2/etc/motd"), "two\n").unwrap();
        std::fs::copy("/bin/busybox", image.join("busybox")).expect("needs Debian's busybox-static");
        for applet in
            ["sh", "sleep", "cat", "echo", "ps", "hostname", "id", "dd", "true", "wc", "seq", "ip", "tty", "stty"]
        {
            std::os::unix::fs::symlink("busybox", image.join(applet)).unwrap();
        }
        let run = RunDir::new(dir.path().join("run"));
        keeper::spawn(&exe(), run.path()).unwrap();
        let mut client = Client::connect(run.path()).unwrap();
        client.call(Request::Hello { events: true }).unwrap();
        let cgroup = format!("rt-keeper-{}-{name}", std::process::id());
        Self { dir, run, cgroup, client }
    }

    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join("logs").join(id)
    }

    pub(crate) fn container(&self, id: &str, script: &str) -> Container {
        let kinds =
            [NamespaceKind::Mount, NamespaceKind::Pid, NamespaceKind::Uts, NamespaceKind::Ipc, NamespaceKind::Cgroup];
        let mut container = Container {
            id: id.into(),
            process: Process {
                args: ["sh", "-c", script].map(String::from).to_vec(),
                env: vec![defaults::PATH.into()],
                capabilities: Capabilities::engine(CapSet::DEFAULT),
                ..Process::default()
            },
            rootfs: Rootfs::Overlay {
                lower: vec![self.dir.path().join("layer2"), self.dir.path().join("layer1")],
                upper: self.dir.path().join(format!("c/{id}/upper")),
                work: self.dir.path().join(format!("c/{id}/work")),
                volatile: false,
            },
            namespaces: kinds.map(Namespace::new).to_vec(),
            mounts: defaults::mounts(),
            masked_paths: defaults::masked_paths(),
            readonly_paths: defaults::readonly_paths(),
            stdio: Stdio::Log(Log { path: self.log(id), ..Log::default() }),
            labels: vec![("pod".into(), "p1".into())],
            ..Container::default()
        };
        container.cgroup.path = format!("{}/{id}", self.cgroup);
        std::fs::create_dir_all(self.flag(id)).unwrap();
        container.mounts.push(mote_runtime::container::Mount::bind(self.flag(id).to_str().unwrap(), "/flag", true));
        container
    }

    /// A folder of the host the container sees as `/flag`: its root's upper layer is not ours to change while it is mounted.
    pub(crate) fn flag(&self, id: &str) -> PathBuf {
        self.dir.path().join("flags").join(id.replace('/', "_"))
    }

    pub(crate) fn raise_flag(&self, id: &str) {
        std::fs::write(self.flag(id).join("up"), "").unwrap();
    }

    pub(crate) fn start(&mut self, container: Container) -> Result<Started, Failure> {
        match self.client.call(Request::Start(Box::new(container)))? {
            Reply::Started(started) => Ok(started),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn exit(&mut self, id: &str) -> Exit {
        let until = Instant::now() + *WAIT;
        while Instant::now() < until {
            match self.client.event(*WAIT).unwrap() {
                Some(Event::Exited { id: got, exit }) if got == id => return exit,
                Some(_) => {}
                None => break,
            }
        }
        panic!("{id} did not exit; keeper says: {}", self.said());
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.run.path().join(keeper::LOG)).unwrap_or_default()
    }

    pub(crate) fn lines(&self, id: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.log(id)).unwrap_or_default();
        text.lines().map(|l| l.split_once(' ').unwrap_or_default().1.to_owned()).collect()
    }

    pub(crate) fn wait_for_line(&self, id: &str, line: &str) {
        let until = Instant::now() + *WAIT;
        while !self.lines(id).iter().any(|l| l == line) {
            assert!(Instant::now() < until, "no {line:?} in {:?}", self.lines(id));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn list(&mut self) -> (Vec<Listed>, Vec<String>) {
        match self.client.call(Request::List).unwrap() {
            Reply::List { containers, sandboxes } => (containers, sandboxes),
            other => panic!("{other:?}"),
        }
    }

    /// Kills the worker as the OOM killer would; its guard starts another.
    pub(crate) fn replace_keeper(&mut self) {
        let pid = keeper::hello(self.run.path()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        let until = Instant::now() + *WAIT;
        while keeper::hello(self.run.path()).is_ok_and(|now| now == pid) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_ne!(keeper::hello(self.run.path()).unwrap(), pid, "{}", self.said());
        self.reconnect();
    }

    pub(crate) fn reconnect(&mut self) {
        self.client = Client::connect(self.run.path()).unwrap();
        self.client.call(Request::Hello { events: true }).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that failed without a keeper has containers all the same.
        let _ = keeper::spawn(&exe(), self.run.path());
        let Ok(mut client) = Client::connect(self.run.path()) else { return };
        if let Ok(Reply::List { containers, sandboxes }) = client.call(Request::List) {
            for c in &containers {
                let _ = client.call(Request::Signal { id: c.id.clone(), signal: 9, all: true });
                let until = Instant::now() + *WAIT;
                while client.call(Request::Remove { id: c.id.clone() }).is_err() && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            for id in sandboxes {
                let _ = client.call(Request::RemoveSandbox { id });
            }
        }
        let _ = client.call(Request::Shutdown);
        let _ = cgroup::remove(&Layout::discover(), &self.cgroup);
    }
}

/// The group in every hierarchy that has it.
pub(crate) fn cgroup_folders(path: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().filter(|l| l.contains(" - cgroup")).filter_map(|l| l.split(' ').nth(4));
    points.map(|point| PathBuf::from(point).join(path)).filter(|p| p.is_dir()).collect()
}

pub(crate) fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// Field 4 of /proc/PID/stat.
pub(crate) fn parent(pid: i32) -> i32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = text.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    after.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Worker and guard, once both are there.
pub(crate) fn pair(run: &RunDir) -> (i32, i32) {
    let until = Instant::now() + *WAIT;
    loop {
        let worker = keeper::hello(run.path()).unwrap_or(0);
        let guard = parent(worker);
        let name = std::fs::read_to_string(format!("/proc/{guard}/comm")).unwrap_or_default();
        if worker > 1 && guard > 1 && name.trim() == "mote-guard" {
            return (worker, guard);
        }
        assert!(Instant::now() < until, "no pair: worker {worker}, its parent {guard} {name:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
