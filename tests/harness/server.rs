//! `mote server` alone, and Debian's etcd: on loopback, with folders and ports of their own, ended by their process ids.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use super::{Kubectl, kubectl, machine, mote, need, until};

const READY_S: u64 = 60;

/// One control plane, or what is left of it.
pub struct Server {
    dir: PathBuf,
    port: u16,
    more: Vec<String>,
    process: Option<Child>,
    runs: u32,
}

impl Server {
    /// Nothing runs yet; all of it lies in `dir`.
    pub fn prepared(dir: &Path, port: u16, more: &[&str]) -> Server {
        fs::create_dir_all(dir.join("data")).expect("data folder");
        let more = more.iter().map(|arg| (*arg).to_owned()).collect();
        Server { dir: dir.to_owned(), port, more, process: None, runs: 0 }
    }

    pub fn up(dir: &Path, port: u16, more: &[&str]) -> Server {
        let mut server = Self::prepared(dir, port, more);
        server.start();
        server
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Takes over the certificates of another one, as an operator copies them.
    pub fn copy_pki(&self, from: &Path) {
        let to = self.data().join("pki");
        fs::create_dir_all(&to).expect("pki folder");
        for entry in fs::read_dir(from.join("pki")).expect("pki").flatten() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
        }
    }

    pub fn start(&mut self) {
        self.start_by(Command::new(mote()));
    }

    /// By a command that ends with the executable.
    pub fn start_by(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "already started");
        self.runs += 1;
        let kubeconfig = self.dir.join("kubeconfig");
        let _ = fs::remove_file(&kubeconfig);
        let log = fs::File::create(self.log_path()).expect("log file");
        command.args(["server", "--listen", &self.address(), "--data-dir"]).arg(self.data());
        command.arg("--write-kubeconfig").arg(&kubeconfig).args(&self.more);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log file")).stderr(log);
        self.process = Some(command.spawn().expect("start mote"));
        let answers = || {
            let ended = self.process.as_mut().expect("started").try_wait().expect("wait");
            assert!(
                ended.is_none(),
                "mote server ended: {}",
                fs::read_to_string(self.dir.join(format!("log-{}", self.runs))).unwrap_or_default()
            );
            (kubeconfig.exists() && TcpStream::connect(("127.0.0.1", self.port)).is_ok()).then_some(())
        };
        until("the control plane", READY_S, answers);
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("log-{}", self.runs))
    }

    /// What the current (or last) run said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(kubectl::NEWEST, &self.dir.join("kubeconfig"), &self.dir)
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("started");
        machine::signal(process.id().cast_signed(), signal);
    }

    /// Ends it by a signal and waits for that.
    pub fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.process.take().expect("started").wait().expect("wait");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// One member, alone.
pub struct Etcd {
    pub url: String,
    process: Child,
}

impl Etcd {
    pub fn up(dir: &Path, port: u16, peer: u16) -> Etcd {
        need("etcd", "etcd-server");
        let [url, peer] = [port, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new("etcd");
        for (name, value) in [
            ("name", "one"),
            ("data-dir", dir.to_str().expect("UTF-8")),
            ("listen-client-urls", &url),
            ("advertise-client-urls", &url),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", &format!("one={peer}")),
            ("log-level", "error"),
        ] {
            command.args([format!("--{name}"), value.to_owned()]);
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start etcd");
        until("etcd", READY_S, || TcpStream::connect(("127.0.0.1", port)).ok());
        Etcd { url, process }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
