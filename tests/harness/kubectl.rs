//! The real kubectl, of three releases (fetched by `tests/interop/fetch`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The newest release: what tests use that are not about kubectl itself.
pub const NEWEST: &str = "1.36";
/// Every release that must work.
pub const RELEASES: [&str; 3] = ["1.20", "1.32", "1.36"];

pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
    netns: Option<PathBuf>,
}

pub struct Answer {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Kubectl {
    pub fn new(release: &str, kubeconfig: &Path, home: &Path) -> Kubectl {
        let program = super::cache().join("kubectl").join(release).join("kubectl");
        assert!(program.exists(), "kubectl {release} is missing: run tests/interop/fetch");
        Kubectl {
            program,
            kubeconfig: kubeconfig.to_owned(),
            home: home.join(format!("kubectl-{release}")),
            netns: None,
        }
    }

    /// The same kubectl, run inside a network namespace.
    pub fn inside(mut self, netns: &Path) -> Kubectl {
        self.netns = Some(netns.to_owned());
        self
    }

    /// The executable, for a shell that starts it.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.netns {
            None => Command::new(&self.program),
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.display())).arg(&self.program);
                command
            }
        };
        // Its own HOME: the discovery cache is filed by host and port, which tests use again.
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home).args(args);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs it with `input` on stdin.
    pub fn answer(&self, args: &[&str], input: &str) -> Answer {
        let mut command = self.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start kubectl");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).ok();
        let out = child.wait_with_output().expect("kubectl");
        Answer {
            ok: out.status.success(),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// Must succeed; its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        self.ok_with(args, "")
    }

    /// Must succeed with `input` on stdin; its stdout.
    pub fn ok_with(&self, args: &[&str], input: &str) -> String {
        let answer = self.answer(args, input);
        assert!(
            answer.ok,
            "kubectl {args:?} failed\nstdin: {input}\nstdout: {}\nstderr: {}",
            answer.stdout, answer.stderr
        );
        answer.stdout
    }

    /// Must fail; what it said on stderr.
    pub fn fails(&self, args: &[&str], input: &str) -> String {
        let answer = self.answer(args, input);
        assert!(
            !answer.ok,
            "kubectl {args:?} should have failed\nstdin: {input}\nstdout: {}\nstderr: {}",
            answer.stdout, answer.stderr
        );
        answer.stderr
    }

    /// Runs without waiting for the end (`logs -f`, `get -w`), stdout into a file.
    pub fn start(&self, args: &[&str], stdout: &Path) -> Running {
        let file = std::fs::File::create(stdout).expect("output file");
        Running {
            child: self.command(args).stdin(Stdio::null()).stdout(file).spawn().expect("start kubectl"),
            stdout: stdout.to_owned(),
        }
    }

    /// The same with an input that stays open, for [`Running::say`].
    pub fn start_with_input(&self, args: &[&str], stdout: &Path) -> Running {
        let file = std::fs::File::create(stdout).expect("output file");
        Running {
            child: self.command(args).stdin(Stdio::piped()).stdout(file).spawn().expect("start kubectl"),
            stdout: stdout.to_owned(),
        }
    }

    pub fn apply(&self, manifest: &str) -> String {
        self.ok_with(&["apply", "-f", "-"], manifest)
    }

    /// The object, or `None` when it does not exist.
    pub fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let answer = self.answer(&["get", kind, name, "-o", "json"], "");
        if !answer.ok {
            assert!(
                answer.stderr.contains("NotFound") || answer.stderr.contains("not found"),
                "kubectl get {kind} {name}: {}",
                answer.stderr
            );
            return None;
        }
        Some(serde_json::from_str(&answer.stdout).expect("kubectl's JSON"))
    }

    /// All objects of a kind with this label selector ("" for all).
    pub fn objects(&self, kind: &str, selector: &str) -> Vec<Value> {
        let text = self.ok(&["get", kind, "-l", selector, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).expect("kubectl's JSON");
        list["items"].as_array().cloned().unwrap_or_default()
    }
}

/// A kubectl in the background; killed at the end.
pub struct Running {
    child: Child,
    stdout: PathBuf,
}

impl Running {
    /// Types something.
    pub fn say(&mut self, text: &str) {
        self.child.stdin.as_mut().expect("started with an input").write_all(text.as_bytes()).ok();
    }

    pub fn so_far(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
