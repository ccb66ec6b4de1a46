//! Pushes: what is asked first, what is sent, and how an upload that breaks goes on. Against a registry that takes uploads as a test says,
//! and against docker-registry.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use mote_images::*;

use crate::scripted::{self, Server};
use crate::stock::{Registry, Stock, pull};

/// What the registry does with the next body that is uploaded.
#[derive(Clone, Copy)]
enum Fate {
    /// Takes so many bytes, then the connection breaks.
    Cut(usize),
    /// Takes so many bytes of it, and says so.
    Part(usize),
    /// As [`Fate::Cut`], and remembers nothing of the upload.
    Forget(usize),
    /// Is busy.
    Busy,
}

#[derive(Default)]
struct Taken {
    /// What happens to bodies in turn; after the last, all is taken.
    fates: Vec<Fate>,
    /// The upload's bytes, by number.
    uploads: BTreeMap<usize, Vec<u8>>,
    /// How often an upload's address changed: only the latest is good.
    turns: usize,
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: usize,
    /// `METHOD path content-range`
    asked: Vec<String>,
    /// Body bytes of uploads that arrived.
    arrived: usize,
}

/// A registry that takes uploads; ends with the test's process.
struct Taker {
    addr: SocketAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Taker {
    fn new(fates: &[Fate]) -> Taker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Taken { fates: fates.iter().rev().copied().collect(), ..Taken::default() }));
        let shared = taken.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let taken = shared.clone();
                std::thread::spawn(move || while serve(&client, &taken).is_some() {});
            }
        });
        Taker { addr, taken }
    }
    fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.addr).parse().unwrap()
    }
    /// Requests with this method for blobs.
    fn count(&self, method: &str) -> usize {
        self.asked().iter().filter(|line| line.starts_with(method) && line.contains("/blobs/")).count()
    }
    fn asked(&self) -> Vec<String> {
        self.taken.lock().unwrap().asked.clone()
    }
}

/// One request; `None` ends the connection.
fn serve(mut client: &TcpStream, taken: &Mutex<Taken>) -> Option<()> {
    let mut reader = BufReader::with_capacity(1, client); // no byte beyond what is asked for
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let found = head[1..].iter().filter_map(|line| line.split_once(": "));
        found.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let (method, path) = head[0].rsplit_once(' ').unwrap().0.split_once(' ').unwrap();
    let range = header("content-range").unwrap_or_default();
    let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
    let mut state = taken.lock().unwrap();
    state.asked.push(format!("{method} {path} {range}").trim().to_owned());
    let is_upload = path.contains("/uploads/");
    let fate = if is_upload && length > 0 { state.fates.pop() } else { None };
    let wanted = match fate {
        Some(Fate::Cut(n) | Fate::Forget(n)) => n.min(length),
        _ => length,
    };
    let mut body = vec![0; wanted];
    client.read_exact(&mut body).ok()?;
    state.arrived += if is_upload { body.len() } else { 0 };
    if let Some(Fate::Part(n)) = fate {
        body.truncate(n);
    }
    let answer = match fate {
        Some(Fate::Busy) => answer(503, "retry-after: 0"),
        _ => state.take(method, path, &range, &body),
    };
    match fate {
        Some(Fate::Forget(_)) => state.uploads.clear(),
        Some(Fate::Cut(_)) => {}
        _ => return client.write_all(answer.as_bytes()).ok(),
    }
    client.shutdown(std::net::Shutdown::Both).ok()?;
    None
}

fn answer(status: u16, header: &str) -> String {
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    format!("HTTP/1.1 {status} X\r\n{header}content-length: 0\r\n\r\n")
}

impl Taken {
    /// A location is `/v2/x/blobs/uploads/NUMBER?turn=TURN`, with the digest behind it at the end.
    fn take(&mut self, method: &str, path: &str, range: &str, body: &[u8]) -> String {
        let (place, query) = path.split_once('?').unwrap_or((path, ""));
        let name = place.rsplit('/').next().unwrap();
        if method == "PUT" && place.contains("/manifests/") {
            self.manifests += 1;
            return answer(201, "");
        }
        if method == "HEAD" {
            return answer(if self.blobs.contains_key(name) { 200 } else { 404 }, "");
        }
        if method == "POST" {
            let number = self.asked.len();
            self.uploads.insert(number, Vec::new());
            return self.located(202, number, "");
        }
        let number: usize = name.parse().unwrap();
        let turn = query.split('&').next().unwrap().strip_prefix("turn=").unwrap();
        let Some(bytes) = self.uploads.get_mut(&number) else { return answer(404, "") };
        // Whoever asks may come with an old address: it is how a broken upload is found again.
        if method != "GET" && turn.parse() != Ok(self.turns) {
            return answer(404, "");
        }
        let at = bytes.len();
        if method == "PATCH" {
            if (at > 0 || !range.is_empty()) && range.split('-').next() != Some(&at.to_string()) {
                return self.located(416, number, "");
            }
            bytes.extend_from_slice(body);
        }
        if method == "PUT" {
            bytes.extend_from_slice(body);
            let digest = query.rsplit_once("digest=sha256%3A").unwrap().1;
            let is_right = Digest::of(bytes).hex() == digest;
            let bytes = self.uploads.remove(&number).unwrap();
            self.blobs.insert(format!("sha256:{digest}"), bytes);
            return answer(if is_right { 201 } else { 400 }, "");
        }
        let has = format!("range: 0-{}\r\n", bytes.len().saturating_sub(1));
        self.located(if method == "GET" { 204 } else { 202 }, number, &has)
    }

    fn located(&mut self, status: u16, number: usize, more: &str) -> String {
        self.turns += 1;
        answer(status, &format!("{more}location: /v2/x/blobs/uploads/{number}?turn={}", self.turns))
    }
}

const SIZE: usize = 3_000_000;

/// A store with an image of one layer of [`SIZE`] bytes and a little, packed without compression.
fn packed(dir: &std::path::Path, name: &Reference) -> (Store, Image) {
    let store = Store::open(&dir.join("from")).unwrap();
    let noise: Vec<u8> = (0..SIZE as u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect();
    std::fs::write(dir.join("content"), noise).unwrap();
    let files = vec![("/file".to_owned(), dir.join("content"), 0o644)];
    let spec = PackSpec { compression: Compression::None, ..PackSpec::of_files(files, ImageConfig::default()) };
    let image = store.pack(name, spec, &Cancel::default()).unwrap();
    (store, image)
}

#[derive(Default)]
struct Heard(Mutex<Vec<Progress>>);
impl Observer for Heard {
    fn event(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress);
    }
}

/// Pushes against these fates: how it ended, where uploads went on, and what the registry saw.
fn pushed(fates: &[Fate]) -> (Result<Digest, Error>, Vec<u64>, Taker) {
    let tmp = tempfile::tempdir().unwrap();
    let taker = Taker::new(fates);
    let name = taker.name("x:1");
    let (store, image) = packed(tmp.path(), &name);
    let heard = Heard::default();
    let done = store.push(&name, &name, None, &PullOptions::default(), &heard, &Cancel::default());
    if let Ok(digest) = &done {
        let taken = taker.taken.lock().unwrap();
        assert_eq!((*digest, taken.manifests, taken.blobs.len()), (image.manifest, 1, 2));
        assert!(taken.blobs.iter().all(|(name, bytes)| Digest::of(bytes).to_string() == *name));
    }
    let heard = heard.0.into_inner().unwrap();
    let on = heard.iter().filter_map(|heard| match heard {
        Progress::Resumed { index: 0, at } => Some(*at),
        _ => None,
    });
    (done, on.collect(), taker)
}

#[test]
fn an_upload_that_breaks_goes_on_where_the_registry_is() {
    use Fate::*;
    // the configuration's PUT comes last and is not the script's affair
    for (fates, want_on, want_patches) in [
        (&[][..], &[][..], 1),
        (&[Cut(1_000_000), Cut(500_000), Cut(0)], &[1_000_000, 1_500_000, 1_500_000], 4),
        (&[Part(700_000), Part(1)], &[], 3),
        (&[Cut(2_000_000), Part(1), Cut(1)], &[2_000_000, 2_000_002], 4),
        (&[Forget(2_000_000), Cut(100)], &[0, 100], 3),
        (&[Busy, Cut(5), Busy], &[0, 5, 5], 4),
    ] {
        let (done, on, taker) = pushed(fates);
        let asked = taker.asked();
        assert!(done.is_ok(), "{:?}: {asked:#?}", done.err());
        assert_eq!((on.as_slice(), taker.count("PATCH")), (want_on, want_patches), "{asked:#?}");
        let layer = taker.taken.lock().unwrap().blobs.values().map(Vec::len).max().unwrap();
        let twice: usize = fates
            .iter()
            .map(|fate| match fate {
                Forget(n) => *n,
                _ => 0,
            })
            .sum();
        let sent_once = !fates.iter().any(|fate| matches!(fate, Part(_) | Busy));
        let arrived = taker.taken.lock().unwrap().arrived;
        assert!(!sent_once || (layer + twice..layer + twice + 2000).contains(&arrived), "{arrived} of {layer}");
        let first = asked.iter().find(|line| line.starts_with("PATCH")).unwrap();
        assert!(!first.contains("0-"), "the first stretch is sent as Docker does: {first}");
    }
}

#[test]
fn an_upload_that_never_moves_ends() {
    let (done, on, taker) = pushed(&[Fate::Cut(100); 20]);
    // each attempt brings a little: it goes on, as long as it takes
    assert!(done.is_ok() && on.len() == 20);
    drop(taker);
    let (done, on, taker) = pushed(&[Fate::Forget(100); 20]);
    let error = done.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("/blobs/uploads/"), "{error}");
    assert_eq!((on, taker.count("PATCH")), (vec![0; 4], 5));
    let (done, on, taker) = pushed(&[Fate::Busy; 20]);
    assert!(done.unwrap_err().to_string().ends_with("PATCH: status 503"));
    assert_eq!((on.len(), taker.count("PATCH")), (4, 5));
}

#[test]
fn the_target_is_asked_before_anything_is_fetched() {
    let tmp = tempfile::tempdir().unwrap();
    let stock = Stock::with("1", &vec![7; 2_000_000]);
    let source = stock.plain();
    let from: Reference = format!("{}/x:1", source.addr).parse().unwrap();
    let store = Store::open(&tmp.path().join("store")).unwrap();
    let drop_blobs = PullOptions { blobs: BlobPolicy::Drop, ..PullOptions::default() };
    store.pull(&from, &drop_blobs, &Silent, &Cancel::default()).unwrap();
    let blobs = || std::fs::read_dir(tmp.path().join("store/blobs")).unwrap().count();
    let taker = Taker::new(&[]);
    let push = |to: &str| {
        let heard = Heard::default();
        let to = taker.name(to);
        store.push(&from, &to, None, &drop_blobs, &heard, &Cancel::default()).unwrap();
        let heard = heard.0.into_inner().unwrap();
        heard.iter().find_map(|heard| if let Progress::Pushed { present, .. } = heard { Some(*present) } else { None })
    };
    let before = (source.count("/blobs/"), blobs());
    assert_eq!(push("x:1"), Some(false));
    assert_eq!((source.count("/blobs/"), blobs()), (before.0 + 1, before.1), "what was dropped, once, and not kept");
    // the target has it: neither side moves a byte of it
    let asked = taker.asked().len();
    assert_eq!(push("x:2"), Some(true));
    assert_eq!((source.count("/blobs/"), blobs()), (before.0 + 1, before.1));
    let asked: Vec<_> = taker.asked()[asked..].iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(asked, ["HEAD", "HEAD", "PUT"]);
}

#[test]
fn docker_registry_mounts_what_another_repository_has() {
    let tmp = tempfile::tempdir().unwrap();
    let registry = Registry::open();
    let from = registry.reference("team/app:1");
    let (store, image) = packed(tmp.path(), &from);
    let options = PullOptions::default();
    store.push(&from, &from, None, &options, &Silent, &Cancel::default()).unwrap();
    let to = registry.reference("other/app:1");
    store.push(&from, &to, None, &options, &Silent, &Cancel::default()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100)); // its log comes a little later than its answers
    let log = registry.log();
    let lines = |method: &str| {
        let wanted = format!("\"{method} /v2/other/app/blobs/");
        log.lines().filter(|line| line.contains(&wanted)).collect::<Vec<_>>()
    };
    assert!(lines("PUT").is_empty() && lines("PATCH").is_empty(), "{log}");
    assert!(lines("POST").len() == 2 && lines("POST").iter().all(|line| line.contains("\" 201 ")), "{log}");
    let other = pull(&tmp.path().join("other"), &to.to_string(), &Registries::default(), None).unwrap();
    assert_eq!(other.manifest, image.manifest);
}

/// A registry that gives blobs of another repository only to who holds a token for that one too, and never asks for it: its challenge
/// knows what the request before was about.
#[test]
fn a_token_to_push_is_good_for_the_repository_blobs_are_taken_from() {
    let tmp = tempfile::tempdir().unwrap();
    let tokens = Server::plain(|asked| {
        let scopes: Vec<&str> = asked.path.split(['?', '&']).filter_map(|part| part.strip_prefix("scope=")).collect();
        scripted::answer(200, format!("{{\"token\":\"{}\"}}", scopes.join("+")))
    });
    let realm = tokens.addr.to_string();
    let registry = Server::plain(move |asked| {
        let token = asked.header("authorization").unwrap_or_default().replace("%3A", ":").replace("%2F", "/");
        let token = token.replace("%2C", ",");
        let said = |status| scripted::answer(status, "").with("location", "/v2/other/app/blobs/uploads/1");
        match asked.method.as_str() {
            _ if !token.contains("repository:other/app:pull,push") => scripted::answer(401, "{}").with(
                "www-authenticate",
                format!("Bearer realm=\"http://{realm}/token\",scope=\"repository:other/app:pull,push\""),
            ),
            "HEAD" => said(404),
            "POST" if token.contains("repository:team/app:pull") => said(201),
            "POST" | "PATCH" => said(202),
            _ => said(201),
        }
    });
    let from: Reference = format!("{}/team/app:1", registry.addr).parse().unwrap();
    let to: Reference = format!("{}/other/app:1", registry.addr).parse().unwrap();
    let (store, _) = packed(tmp.path(), &from);
    store.push(&from, &to, None, &PullOptions::default(), &Silent, &Cancel::default()).unwrap();
    let asked = registry.asked();
    let count = |method: &str| asked.iter().filter(|asked| asked.method == method).count();
    assert_eq!((count("POST"), count("PATCH"), count("PUT")), (2, 0, 1), "two mounts and the manifest");
    assert_eq!(tokens.asked().len(), 1);
}
