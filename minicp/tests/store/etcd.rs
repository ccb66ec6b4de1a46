//! A real etcd (Debian's `etcd-server`) on loopback, with a folder and ports of its own; ended by its process id.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minicp::EtcdConfig;
use serde_json::{Value, json};

/// Certificates of an etcd that wants to know its clients.
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) server: (PathBuf, PathBuf),
    pub(crate) client: (PathBuf, PathBuf),
}

impl Tls {
    pub(crate) fn make(dir: &Path) -> Tls {
        use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let write = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name)
        };
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
            // The gateway inside etcd is a client of etcd with this very certificate.
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let cert = params.signed_by(&key, &issuer).unwrap();
            (write(&format!("{name}.crt"), &cert.pem()), write(&format!("{name}.key"), &key.serialize_pem()))
        };
        let (server, client) = (issue("server"), issue("client"));
        Tls { ca: write("ca.crt", &ca_pem), server, client }
    }
}

/// One member.
pub(crate) struct Etcd {
    pub(crate) dir: tempfile::TempDir,
    arguments: Vec<String>,
    pub(crate) port: u16,
    child: Option<Child>,
    pub(crate) tls: Option<Tls>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    pub(crate) fn start() -> Etcd {
        let mut etcd = Etcd::members(1, false).remove(0);
        etcd.run();
        etcd.wait();
        etcd
    }
    pub(crate) fn start_tls() -> Etcd {
        let mut etcd = Etcd::members(1, true).remove(0);
        etcd.run();
        etcd.wait_port();
        etcd
    }
    /// So many that know each other; none runs yet.
    pub(crate) fn members(count: usize, secure: bool) -> Vec<Etcd> {
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
        let peer = |n: usize| format!("http://127.0.0.1:{}", ports[n].1);
        let cluster: Vec<String> = (0..count).map(|n| format!("m{n}={}", peer(n))).collect();
        let scheme = if secure { "https" } else { "http" };
        let member = |n: usize| {
            let dir = tempfile::tempdir().unwrap();
            let client = format!("{scheme}://127.0.0.1:{}", ports[n].0);
            let mut arguments: Vec<String> = Vec::new();
            for (name, value) in [
                ("name", format!("m{n}")),
                ("data-dir", dir.path().join("data").display().to_string()),
                ("listen-client-urls", client.clone()),
                ("advertise-client-urls", client),
                ("listen-peer-urls", peer(n)),
                ("initial-advertise-peer-urls", peer(n)),
                ("initial-cluster", cluster.join(",")),
                ("initial-cluster-token", format!("{}", ports[0].0)),
                ("heartbeat-interval", "20".into()),
                ("election-timeout", "200".into()),
                ("log-level", "error".into()),
            ] {
                arguments.extend([format!("--{name}"), value]);
            }
            let tls = secure.then(|| Tls::make(dir.path()));
            if let Some(tls) = &tls {
                for (name, file) in
                    [("trusted-ca-file", &tls.ca), ("cert-file", &tls.server.0), ("key-file", &tls.server.1)]
                {
                    arguments.extend([format!("--{name}"), file.display().to_string()]);
                }
                arguments.push("--client-cert-auth".into());
            }
            Etcd { dir, arguments, port: ports[n].0, child: None, tls }
        };
        (0..count).map(member).collect()
    }
    pub(crate) fn run(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("etcd").args(&self.arguments).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.unwrap_or_else(|e| panic!("etcd: {e} (apt-get install etcd-server)")));
    }
    /// `kill -9`
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    fn wait_port(&self) {
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("etcd does not listen: {}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
    }
    pub(crate) fn wait(&self) {
        self.wait_port();
        for _ in 0..600 {
            if self.ask("/v3/kv/range", json!({"key": "AA=="})).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("etcd does not answer: {}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
    }
    pub(crate) fn url(&self) -> String {
        format!("http{}://127.0.0.1:{}", if self.tls.is_some() { "s" } else { "" }, self.port)
    }
    pub(crate) fn config(&self) -> EtcdConfig {
        let mut config = EtcdConfig::new(vec![self.url()]);
        config.patience = Duration::from_secs(15);
        if let Some(tls) = &self.tls {
            config.ca_file = Some(tls.ca.clone());
            (config.cert_file, config.key_file) = (Some(tls.client.0.clone()), Some(tls.client.1.clone()));
        }
        config
    }
    /// A question of somebody else's; blocks.
    pub(crate) fn ask(&self, path: &str, body: Value) -> Result<Value, String> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head =
            format!("POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).map_err(|e| e.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let value: Value = serde_json::from_str(body).map_err(|e| e.to_string())?;
        if head.contains(" 200 ") { Ok(value) } else { Err(body.to_owned()) }
    }
    /// The key as etcd has it.
    pub(crate) fn raw(&self, key: &str) -> Value {
        let answer = self.ask("/v3/kv/range", json!({"key": STANDARD.encode(key)})).unwrap();
        answer["kvs"][0].clone()
    }
    pub(crate) fn put(&self, key: &str, value: &str) -> u64 {
        let put =
            self.ask("/v3/kv/put", json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)})).unwrap();
        put["header"]["revision"].as_str().unwrap().parse().unwrap()
    }
    pub(crate) fn compact(&self, revision: u64) {
        self.ask("/v3/kv/compaction", json!({"revision": revision.to_string()})).unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
