//! A node under test. Dropping it runs `mote down` and fails the test when anything is left on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::leftovers::Traces;
use super::slot::Slot;
use super::{Kubectl, eventually, kubectl, machine, mote, until};

const READY_S: u64 = 20;
const DOWN_S: u64 = 40;

pub struct Node {
    pub dir: tempfile::TempDir,
    pub slot: Slot,
    pub name: String,
    pub traces: Traces,
    more: Vec<String>,
    process: Option<Child>,
    runs: u32,
    kubectl: Option<Kubectl>,
}

impl Node {
    /// `mote up`, ready, with names, addresses and folders of its own.
    pub fn up() -> Node {
        Self::up_with(&[])
    }

    /// The same with further arguments.
    pub fn up_with(more: &[&str]) -> Node {
        let mut node = Self::prepared(more);
        node.start();
        node.wait_ready();
        node
    }

    /// Starts a prepared node with further arguments; ready.
    pub fn started_with(mut self, more: &[&str]) -> Node {
        self.more.extend(more.iter().map(|arg| (*arg).to_owned()));
        self.start();
        self.wait_ready();
        self
    }

    /// Everything made but nothing started.
    pub fn prepared(more: &[&str]) -> Node {
        assert!(nix::unistd::geteuid().is_root(), "end-to-end tests must run as root");
        let slot = Slot::take();
        let dir = tempfile::Builder::new().prefix("mote-e2e-").tempdir().expect("test folder");
        fs::create_dir(dir.path().join("data")).expect("data folder");
        let cgroup_parent = format!("mote-e2e-{}-{}", std::process::id(), slot.number);
        let traces = Traces::of(&dir.path().join("data"), &cgroup_parent);
        let name = format!("node-{}", slot.number);
        let more = more.iter().map(|arg| (*arg).to_owned()).collect();
        Node { dir, slot, name, traces, more, process: None, runs: 0, kubectl: None }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    pub fn listen(&self) -> String {
        format!("127.0.0.1:{}", self.slot.port(0))
    }

    /// The command line of `mote up` for this node.
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: &Path| path.to_str().expect("UTF-8 path").to_owned();
        let mut arguments: Vec<String> = ["up", "--data-dir"].map(str::to_owned).to_vec();
        arguments.push(path(&self.data_dir()));
        let pairs = [
            ("--listen", self.listen()),
            ("--write-kubeconfig", path(&self.kubeconfig())),
            ("--node-name", self.name.clone()),
            ("--cluster-cidr", self.slot.cluster_cidr()),
            ("--service-cidr", self.slot.service_cidr()),
            ("--cgroup-parent", self.traces.cgroup_parent.clone()),
        ];
        arguments.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        arguments.extend(self.more.iter().cloned());
        arguments
    }

    /// Starts the process; does not wait.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "already started");
        self.runs += 1;
        let log = fs::File::create(self.log_path(self.runs)).expect("log file");
        let mut command = Command::new(mote());
        command.args(self.arguments()).stdin(Stdio::null()).stdout(log.try_clone().expect("log file")).stderr(log);
        self.process = Some(command.spawn().expect("start mote"));
    }

    /// The same, and nobody hears what it says: both its streams are pipes whose reader has gone.
    pub fn start_unheard(&mut self) {
        assert!(self.process.is_none(), "already started");
        self.runs += 1;
        let (reader, writer) = std::io::pipe().expect("pipe");
        let mut command = Command::new(mote());
        command.args(self.arguments()).stdin(Stdio::null());
        command.stdout(writer.try_clone().expect("pipe")).stderr(writer);
        drop(reader);
        self.process = Some(command.spawn().expect("start mote"));
    }

    fn log_path(&self, run: u32) -> PathBuf {
        self.dir.path().join(format!("mote-{run}.log"))
    }

    /// What the current (or last) run said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path(self.runs)).unwrap_or_default()
    }

    /// Waits until the API answers and the node says it is Ready.
    pub fn wait_ready(&mut self) {
        let ready = eventually(READY_S, || {
            let ended = self.process.as_mut().expect("started").try_wait().expect("wait");
            if let Some(status) = ended {
                panic!("mote up ended with {status}:\n{}", self.log());
            }
            if !self.kubeconfig().exists() {
                return None;
            }
            if self.kubectl.is_none() {
                self.kubectl = Some(Kubectl::new(kubectl::NEWEST, &self.kubeconfig(), self.dir.path()));
            }
            let answer = self.kubectl().answer(&["get", "node", &self.name, "-o", "json"], "");
            let node: Value = serde_json::from_str(&answer.stdout).ok()?;
            condition(&node, "Ready").then_some(())
        });
        assert!(ready.is_some(), "node not ready after {READY_S} s; mote said:\n{}", self.log());
    }

    pub fn kubectl(&self) -> &Kubectl {
        self.kubectl.as_ref().expect("the node was ready once")
    }

    /// Ends the process with a signal and waits for it; pods go on.
    pub fn stop(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut process = self.process.take().expect("started");
        machine::signal(process.id().cast_signed(), signal);
        let ended = eventually(DOWN_S, || process.try_wait().expect("wait"));
        ended.unwrap_or_else(|| {
            let _ = process.kill();
            let _ = process.wait();
            panic!("mote up did not end within {DOWN_S} s of {signal}:\n{}", self.log())
        })
    }

    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("started").id().cast_signed()
    }

    /// The keeper of this node.
    pub fn keeper_pid(&self) -> Option<i32> {
        let all = machine::processes();
        let run = self.traces.run_dir();
        all.iter().find(|p| p.command.contains(" keeper ") && p.command.contains(&run)).map(|p| p.pid)
    }

    /// Waits for a pod to be Running with all containers ready; the pod.
    pub fn wait_pod_ready(&self, name: &str, limit_s: u64) -> Value {
        let mut last = Value::Null;
        let ready = eventually(limit_s, || {
            last = self.kubectl().object("pod", name)?;
            condition(&last, "Ready").then(|| last.clone())
        });
        ready.unwrap_or_else(|| {
            panic!("pod {name} not ready after {limit_s} s: {:#}\nmote said:\n{}", last["status"], self.log())
        })
    }

    /// Waits until `judge` accepts the pod's status; panics with what the status was last.
    pub fn wait_pod(&self, name: &str, what: &str, limit_s: u64, judge: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let done = eventually(limit_s, || {
            last = self.kubectl().object("pod", name)?;
            judge(&last).then(|| last.clone())
        });
        done.unwrap_or_else(|| {
            panic!("pod {name} after {limit_s} s not {what}: {:#}\nmote said:\n{}", last["status"], self.log())
        })
    }

    /// Waits until nothing of any pod is on the machine.
    pub fn wait_no_pods(&self, limit_s: u64) {
        let clean = eventually(limit_s, || self.traces.of_pods().is_empty().then_some(()));
        assert!(
            clean.is_some(),
            "left behind by deleted pods:\n{}\nmote said:\n{}",
            self.traces.of_pods().join("\n"),
            self.log()
        );
    }

    /// `mote down`.
    pub fn down(&mut self) -> std::process::Output {
        let out = Command::new(mote()).args(["down", "--data-dir"]).arg(self.data_dir()).output().expect("mote down");
        if let Some(mut process) = self.process.take()
            && eventually(10, || process.try_wait().expect("wait")).is_none()
        {
            let _ = process.kill();
            let _ = process.wait();
        }
        out
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.runs == 0 {
            return;
        }
        let out = self.down();
        let clean = eventually(5, || self.traces.all().is_empty().then_some(()));
        let left = self.traces.all();
        self.traces.remove_by_force();
        if std::thread::panicking() {
            return;
        }
        assert!(out.status.success(), "mote down: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
        assert!(clean.is_some(), "left behind after mote down:\n{}\nmote said:\n{}", left.join("\n"), self.log());
    }
}

/// Whether a condition of an object is True.
pub fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == kind && c["status"] == "True"))
}

/// The first container's status.
pub fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// The pod's address.
pub fn pod_ip(pod: &Value) -> &str {
    pod["status"]["podIP"].as_str().expect("a pod with an address")
}

/// Waits for the web server of a pod.
pub fn wait_http(host: &str, port: u16, path: &str) -> String {
    until(&format!("http://{host}:{port}{path}"), 15, || super::http::get(host, port, path))
}
