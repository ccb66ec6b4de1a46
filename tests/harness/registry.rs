//! Debian's own registry on a free loopback port, serving the fixture images (`images/fixtures/build`).
//!
//! The images are packed and pushed by `mote image` once; every guard serves that folder by a registry process of its own.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::slot::Slot;
use super::{cache, mote, need, run, top, until};

pub const IMAGES: [&str; 4] = ["busybox", "debian", "nginx", "python"];

pub struct Registry {
    process: Child,
    port: u16,
    _slot: Slot,
    scratch: tempfile::TempDir,
}

impl Registry {
    /// A registry with the fixture images of this machine's architecture.
    pub fn with_images() -> Registry {
        Self::serve(&stocked())
    }

    /// The same for nobody but `me` with the password `secret`.
    pub fn private() -> Registry {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let users = scratch.path().join("htpasswd");
        // bcrypt of "secret"
        fs::write(&users, "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n").expect("password file");
        let more = format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", users.display());
        Self::start(&stocked(), scratch, &more)
    }

    /// A registry over its own copy of `images`, to be damaged by the test.
    pub fn empty() -> Registry {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let storage = scratch.path().join("storage");
        Self::start(&storage, scratch, "")
    }

    fn serve(storage: &Path) -> Registry {
        Self::start(storage, tempfile::tempdir().expect("scratch folder"), "")
    }

    fn start(storage: &Path, scratch: tempfile::TempDir, more: &str) -> Registry {
        need("docker-registry", "docker-registry");
        let slot = Slot::take();
        let port = slot.port(10);
        let config = scratch.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{more}",
            storage.display()
        );
        fs::write(&config, text).expect("registry configuration");
        let log = fs::File::create(scratch.path().join("log")).expect("registry log");
        let process = Command::new("docker-registry")
            .args(["serve", config.to_str().expect("UTF-8 path")])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        let registry = Registry { process, port, _slot: slot, scratch };
        until("docker-registry to listen", 10, || TcpStream::connect(("127.0.0.1", port)).ok());
        registry
    }

    /// The reference of a fixture image in this registry.
    pub fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}:1", self.port)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where an empty registry keeps its files.
    pub fn storage(&self) -> PathBuf {
        self.scratch.path().join("storage")
    }

    /// Packs and pushes a fixture image (or a damaged copy of one) into this registry; `more` are further arguments of `mote image pack`.
    pub fn push(&self, name: &str, more: &[&str]) {
        push(&self.address(), name, more, self.scratch.path());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Debian's name of this machine's architecture.
pub fn debian_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64el",
        other => other,
    }
}

fn fixtures() -> PathBuf {
    cache().join("fixtures").join(debian_arch())
}

/// The arguments of `mote image pack` for a fixture image.
pub fn pack_arguments(name: &str) -> Vec<String> {
    let path = fixtures().join(format!("{name}.pack"));
    fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}: run images/fixtures/build", path.display()))
        .lines()
        .map(str::to_owned)
        .collect()
}

fn push(address: &str, name: &str, more: &[&str], scratch: &Path) {
    let store = scratch.join("push-store");
    let data_dir = store.to_str().expect("UTF-8 path");
    let reference = format!("{address}/{name}:1");
    let program = mote();
    let program = program.to_str().expect("UTF-8 path");
    let arguments = pack_arguments(name);
    let mut pack = vec!["image", "pack", "--data-dir", data_dir];
    pack.extend(arguments.iter().map(String::as_str));
    pack.extend(more);
    pack.push(&reference);
    run(program, &pack);
    run(program, &["image", "push", "--data-dir", data_dir, &reference]);
}

/// The shared folder with all fixture images, made when missing or older than the fixtures.
fn stocked() -> PathBuf {
    run(top().join("images/fixtures/build").to_str().expect("UTF-8 path"), &[]);
    let stamp = fs::read_to_string(fixtures().join("stamp")).expect("fixtures' stamp");
    let storage = fixtures().join("registry");
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(fixtures().join("registry.lock"))
        .expect("lock");
    lock.lock().expect("lock of the stocked registry");
    let done = storage.join("stamp");
    if fs::read_to_string(&done).ok().as_deref() != Some(&stamp) {
        let _ = fs::remove_dir_all(&storage);
        fs::create_dir_all(&storage).expect("storage folder");
        let registry = Registry::serve(&storage);
        for name in IMAGES {
            registry.push(name, &[]);
        }
        fs::write(&done, &stamp).expect("stamp");
    }
    storage
}
