//! A registry that does what a test says: serves the images of a packed store over HTTP/1.1 on loopback, cuts connections, holds bytes
//! back, refuses ranges; and counts every request and every byte of a body it sends.
#![allow(dead_code, unreachable_pub)] // each test uses a part

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What does not compress.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

#[derive(Default)]
pub struct Script {
    /// Folder with blobs by hex digest.
    blobs: Mutex<PathBuf>,
    /// Manifest digest (hex) by tag.
    tags: Mutex<BTreeMap<String, String>>,
    /// Body bytes after which a connection is cut; 0: never.
    pub cut_every: AtomicU64,
    /// Bytes a second, all connections together; 0: as fast as can be.
    pub rate: AtomicU64,
    pub no_ranges: AtomicBool,
    /// `METHOD path`, in order.
    pub requests: Mutex<Vec<String>>,
    /// Body bytes sent, by path.
    pub sent: Mutex<BTreeMap<String, u64>>,
    /// When the next byte may go.
    due: Mutex<Option<Instant>>,
    closed: AtomicBool,
}

/// A running server; ends when dropped.
pub struct Server {
    pub addr: SocketAddr,
    pub script: Arc<Script>,
}

impl Server {
    /// Serves what lies in a store's `blobs` folder.
    pub fn start(blobs: PathBuf) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let script = Arc::new(Script { blobs: Mutex::new(blobs), ..Script::default() });
        let shared = script.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Relaxed) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let _ = serve(&shared, client);
                });
            }
        });
        Server { addr, script }
    }
    /// `name:tag` is the manifest of this digest.
    pub fn tag(&self, tag: &str, manifest_hex: String) {
        self.script.tags.lock().unwrap().insert(tag.to_owned(), manifest_hex);
    }
    pub fn requests(&self) -> Vec<String> {
        self.script.requests.lock().unwrap().clone()
    }
    pub fn forget(&self) {
        self.script.requests.lock().unwrap().clear();
        self.script.sent.lock().unwrap().clear();
    }
    /// Body bytes of a blob that went out.
    pub fn sent(&self, hex: &str) -> u64 {
        let sent = self.script.sent.lock().unwrap();
        sent.iter().filter(|(path, _)| path.ends_with(hex)).map(|(_, bytes)| bytes).sum()
    }
    pub fn sent_in_all(&self) -> u64 {
        self.script.sent.lock().unwrap().values().sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.script.closed.store(true, Relaxed);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(script: &Script, client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?; // else each answer's body waits for the acknowledgement of its head
    let mut out = client.try_clone()?;
    let mut input = BufReader::new(client);
    let mut left = match script.cut_every.load(Relaxed) {
        0 => u64::MAX,
        n => n,
    };
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 || script.closed.load(Relaxed) {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
        let mut range = None;
        loop {
            let mut header = String::new();
            input.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(from) = header.strip_prefix("range: bytes=").and_then(|text| text.strip_suffix('-')) {
                range = from.parse::<u64>().ok().filter(|_| !script.no_ranges.load(Relaxed));
            }
        }
        script.requests.lock().unwrap().push(format!("{method} {path}"));
        let name = path.rsplit('/').next().unwrap_or("");
        let hex = match name.strip_prefix("sha256:") {
            Some(hex) => hex.to_owned(),
            None => script.tags.lock().unwrap().get(name).cloned().unwrap_or_default(),
        };
        let file = script.blobs.lock().unwrap().join(&hex);
        let Ok(bytes) = std::fs::read(&file) else {
            out.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        let from = range.unwrap_or(0).min(bytes.len() as u64);
        let kind = if path.contains("/manifests/") {
            "application/vnd.oci.image.manifest.v1+json"
        } else {
            "application/octet-stream"
        };
        let rest = &bytes[from as usize..];
        let head = match range {
            Some(_) => format!(
                "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{}/{}\r\n",
                bytes.len() - 1,
                bytes.len()
            ),
            None => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        write!(out, "{head}content-type: {kind}\r\ncontent-length: {}\r\n\r\n", rest.len())?;
        if method == "HEAD" {
            continue;
        }
        for piece in rest.chunks(8192) {
            let n = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            hold_back(script, n as u64);
            out.write_all(&piece[..n])?;
            *script.sent.lock().unwrap().entry(path.clone()).or_default() += n as u64;
            left -= n as u64;
            if left == 0 {
                return out.shutdown(std::net::Shutdown::Both);
            }
        }
    }
}

fn hold_back(script: &Script, bytes: u64) {
    let rate = script.rate.load(Relaxed);
    if rate == 0 {
        return;
    }
    let wait = {
        let mut due = script.due.lock().unwrap();
        let now = Instant::now();
        let at = due.unwrap_or(now).max(now);
        *due = Some(at + Duration::from_secs_f64(bytes as f64 / rate as f64));
        at - now
    };
    std::thread::sleep(wait);
}
