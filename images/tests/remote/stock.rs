//! Images to serve, and a real docker-registry.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use mote_images::*;
use serde_json::{Value, json};

use crate::scripted::{Answer, Asked, Server, answer};

/// Documents and blobs by tag and digest, of any repository.
#[derive(Clone, Default)]
pub struct Stock {
    items: BTreeMap<String, (String, Vec<u8>)>,
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Stock {
    pub fn put(&mut self, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.items.insert(digest.to_string(), (media_type.to_owned(), bytes.to_vec()));
        digest
    }

    pub fn tag(&mut self, tag: &str, digest: &Digest) {
        let item = self.items[&digest.to_string()].clone();
        self.items.insert(tag.to_owned(), item);
    }

    /// An image of one file with this content; its manifest's digest.
    pub fn image(&mut self, content: &[u8]) -> Digest {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, "file", content).unwrap();
        let layer = tar.into_inner().unwrap();
        let host = Platform::host();
        let config = json!({"os": host.os, "architecture": host.architecture, "config": {}, "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]}});
        let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
        let config = config.to_string().into_bytes();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": describe("application/vnd.oci.image.config.v1+json", &config), "layers": [describe("application/vnd.oci.image.layer.v1.tar", &layer)]});
        self.put("application/octet-stream", &layer);
        self.put("application/octet-stream", &config);
        self.put(MANIFEST, manifest.to_string().as_bytes())
    }

    /// An image served under a tag.
    pub fn with(tag: &str, content: &[u8]) -> Stock {
        let mut stock = Stock::default();
        let digest = stock.image(content);
        stock.tag(tag, &digest);
        stock
    }

    pub fn digest(&self, tag: &str) -> Digest {
        Digest::of(&self.items[tag].1)
    }

    /// A server of this stock by plain HTTP.
    pub fn plain(&self) -> Server {
        self.plain_unless(|_| None)
    }

    /// As [`Stock::plain`], but for what `first` answers itself.
    pub fn plain_unless(&self, first: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Server {
        let served = self.clone();
        Server::plain(move |asked| first(asked).unwrap_or_else(|| served.serve(asked)))
    }

    /// A server of this stock by TLS, with the certificate `name` of this folder.
    pub fn tls(&self, dir: &Path, name: &str) -> Server {
        let served = self.clone();
        Server::tls(dir, name, move |asked| served.serve(asked))
    }

    /// The answer to a request below any prefix; ranges are honoured.
    pub fn serve(&self, asked: &Asked) -> Answer {
        let path = asked.path.split('?').next().unwrap();
        let name = path.rsplit('/').next().unwrap();
        let fits = path.contains("/manifests/") || path.contains("/blobs/");
        let Some((kind, bytes)) = self.items.get(name).filter(|_| fits) else {
            return answer(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
        };
        let from = asked
            .header("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match from {
            Some(from) => answer(206, &bytes[from..])
                .with("content-range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
            None => answer(200, bytes.clone()).with("content-type", kind.clone()),
        }
    }
}

/// The content of the only file of the only layer.
pub fn file_of(image: &Image) -> Vec<u8> {
    std::fs::read(image.layers[0].path.join("file")).unwrap()
}

pub fn pull(
    dir: &Path,
    reference: &str,
    registries: &Registries,
    credentials: Option<Credentials>,
) -> Result<Image, Error> {
    let store = Store::open(dir).unwrap();
    let options = PullOptions { registries: registries.clone(), credentials, ..PullOptions::default() };
    store.pull(&reference.parse().unwrap(), &options, &Silent, &Cancel::default())
}

/// docker-registry on a free port, ended when dropped.
pub struct Registry {
    child: Child,
    pub dir: tempfile::TempDir,
    pub addr: SocketAddr,
}

impl Registry {
    /// By plain HTTP and for everybody.
    pub fn open() -> Registry {
        Registry::start("", "")
    }

    /// `http`: lines below `http:`, `rest`: what follows.
    pub fn start(http: &str, rest: &str) -> Registry {
        let dir = tempfile::Builder::new().prefix("mote-img-remote-").tempdir().unwrap();
        // It chooses the port itself and says which: one that was free a moment ago may be another test's by now.
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{http}{rest}",
            dir.path().join("data").display()
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("apt-get install docker-registry");
        let mut registry = Registry { child, dir, addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let began = Instant::now();
        while registry.addr.port() == 0 {
            let ended = registry.child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < Duration::from_secs(60), "{}", registry.log());
            std::thread::sleep(Duration::from_millis(20));
            let log = registry.log();
            let told = log.split("listening on ").nth(1).and_then(|rest| rest.split([',', '"']).next());
            registry.addr = told.and_then(|addr| addr.parse().ok()).unwrap_or(registry.addr);
        }
        registry
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Requests answered so far.
    pub fn requests(&self) -> usize {
        std::thread::sleep(Duration::from_millis(100)); // its log comes a little later than its answers
        let answered = |line: &&str| [200, 206, 404].iter().any(|status| line.contains(&format!("\" {status} ")));
        self.log().lines().filter(answered).count()
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.addr).parse().unwrap()
    }

    /// Uploads every item of a stock into a repository, blobs first (curl: none of the code under test).
    pub fn fill(&self, repository: &str, stock: &Stock) {
        let base = format!("http://{}/v2/{repository}", self.addr);
        let file = self.dir.path().join("upload");
        let curl = |args: &[&str]| {
            crate::scripted::run(self.dir.path(), "curl", &[&["-sSf", "--noproxy", "*"], args].concat())
        };
        let is_blob = |kind: &str| kind == "application/octet-stream";
        for (digest, (_, bytes)) in stock.items.iter().filter(|(_, (kind, _))| is_blob(kind)) {
            std::fs::write(&file, bytes).unwrap();
            let head = curl(&["-X", "POST", "-D", "-", "-o", "/dev/null", &format!("{base}/blobs/uploads/")]);
            let location = head.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim();
            let joint = if location.contains('?') { '&' } else { '?' };
            curl(&[
                "-X",
                "PUT",
                "-H",
                "content-type: application/octet-stream",
                "--data-binary",
                "@upload",
                &format!("{location}{joint}digest={digest}"),
            ]);
        }
        for (name, (kind, bytes)) in stock.items.iter().filter(|(_, (kind, _))| !is_blob(kind)) {
            std::fs::write(&file, bytes).unwrap();
            curl(&[
                "-X",
                "PUT",
                "-H",
                &format!("content-type: {kind}"),
                "--data-binary",
                "@upload",
                &format!("{base}/manifests/{name}"),
            ]);
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The manifest that holds a signature over `payload`.
pub fn signature_manifest(stock: &mut Stock, payload: &[u8], signature: &str) -> Digest {
    let layer = stock.put("application/octet-stream", payload);
    let config = json!({"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer.to_string()]}}).to_string();
    let config_digest = stock.put("application/octet-stream", config.as_bytes());
    let manifest: Value = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest.to_string(), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": layer.to_string(), "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": signature}}]});
    stock.put(MANIFEST, manifest.to_string().as_bytes())
}
