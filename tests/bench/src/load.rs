//! `bench-load ADDR CA.pem CLIENT.pem create|fill|get|pods|list|watch|crowd|cluster|day|quiet CLIENTS REQUESTS`: many clients of one API server, each with a connection
//! of its own and one request under way, over TLS as kubectl does it. Prints one line of JSON: requests per second over all clients,
//! and how long one took (median and 99th percentile, in milliseconds). One thread: on a small machine the rest is the server's.
//!
//! `create` makes ConfigMaps, `get` reads one of them, `pods` lists the pods, `watch` makes them one after another and measures from just
//! before the request is sent until the ADDED event of another connection's watch is here. `fill` makes ConfigMaps of 2 kB, `list` lists them all.
//! `crowd` opens CLIENTS watches of one object and changes it REQUESTS times; `cluster` makes the objects of CLIENTS nodes; `day` is what these say in
//! REQUESTS hours, as fast as it goes, and `quiet` their leases for REQUESTS seconds of real time.
#![forbid(unsafe_code)]

mod clients;
mod cluster;
mod crowd;
mod day;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;

use clients::Fault;

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const USAGE: &str =
    "usage: bench-load ADDR CA.pem CLIENT.pem create|fill|get|pods|list|watch|crowd|cluster|day|quiet CLIENTS REQUESTS";
/// Bytes of one event of a watch; more is not ours.
const EVENT_BYTES_MAX: usize = 1 << 20;

struct Target {
    address: String,
    tls: tokio_rustls::TlsConnector,
}

impl Target {
    fn new(address: &str, ca: &str, client: &str) -> Result<Target, Fault> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca)? {
            roots.add(certificate?)?;
        }
        let chain = CertificateDer::pem_file_iter(client)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(client)?;
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Target { address: address.to_owned(), tls: Arc::new(config).into() })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Fault> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(tcp.peer_addr()?.ip());
        let stream = self.tls.connect(name, tcp).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    method: &str,
    path: &str,
    body: String,
) -> Result<Response<Incoming>, Fault> {
    sender.ready().await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "127.0.0.1")
        .header("Content-Type", if method == "PATCH" { "application/merge-patch+json" } else { "application/json" })
        .body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await?;
    if !answer.status().is_success() {
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        return Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(&text)).into());
    }
    Ok(answer)
}

/// A ConfigMap with so many bytes of data.
async fn create(sender: &mut SendRequest<Full<Bytes>>, name: &str, bytes: usize) -> Result<(), Fault> {
    let body = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b".repeat(bytes)}});
    ask(sender, "POST", PATH, body.to_string()).await?.into_body().collect().await?;
    Ok(())
}

/// Asks and counts the bytes, keeping none.
async fn drain(sender: &mut SendRequest<Full<Bytes>>, path: &str) -> Result<usize, Fault> {
    let mut body = ask(sender, "GET", path, String::new()).await?.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(bytes)
}

/// A watch of everything that comes from now on.
struct Watch {
    body: Incoming,
    unread: Vec<u8>,
}

impl Watch {
    async fn open(target: &Target) -> Result<Watch, Fault> {
        let mut sender = target.connect().await?;
        let list = ask(&mut sender, "GET", PATH, String::new()).await?.into_body().collect().await?.to_bytes();
        let list: serde_json::Value = serde_json::from_slice(&list)?;
        let version =
            list.pointer("/metadata/resourceVersion").and_then(|v| v.as_str()).ok_or("a list without version")?;
        let path = format!("{PATH}?watch=true&resourceVersion={version}");
        let body = ask(&mut sender, "GET", &path, String::new()).await?.into_body();
        Ok(Watch { body, unread: Vec::new() })
    }

    async fn see(&mut self, name: &str) -> Result<(), Fault> {
        loop {
            if let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let event: serde_json::Value = serde_json::from_slice(&line)?;
                if event.pointer("/object/metadata/name").and_then(|v| v.as_str()) == Some(name) {
                    return Ok(());
                }
                continue;
            }
            let frame = self.body.frame().await.ok_or("the watch ended")??;
            self.unread.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            if self.unread.len() > EVENT_BYTES_MAX {
                return Err("an event without end".into());
            }
        }
    }
}

/// One client: `count` requests one after another; what each took.
async fn client(target: &Target, what: &str, me: &str, count: usize) -> Result<Vec<Duration>, Fault> {
    let mut sender = target.connect().await?;
    let mut watch = if what == "watch" { Some(Watch::open(target).await?) } else { None };
    if what == "get" {
        create(&mut sender, me, 100).await?;
    }
    let mut took = Vec::with_capacity(count);
    for i in 0..count {
        let (name, one) = (format!("{me}-{i}"), format!("{PATH}/{me}"));
        let began = Instant::now();
        match (what, &mut watch) {
            ("create", _) => create(&mut sender, &name, 100).await?,
            ("fill", _) => create(&mut sender, &name, 2000).await?,
            ("list", _) => drop(drain(&mut sender, PATH).await?),
            ("get", _) => drop(ask(&mut sender, "GET", &one, String::new()).await?.into_body().collect().await?),
            ("pods", _) => drop(drain(&mut sender, PODS).await?),
            ("watch", Some(watch)) => {
                let (made, seen) = tokio::join!(create(&mut sender, &name, 100), async {
                    watch.see(&name).await.map(|()| began.elapsed())
                });
                made?;
                took.push(seen?);
                continue;
            }
            _ => return Err(USAGE.into()),
        }
        took.push(began.elapsed());
    }
    Ok(took)
}

async fn run(arguments: &[String]) -> Result<serde_json::Value, Fault> {
    let [address, ca, pem, what, clients, requests] = arguments else { return Err(USAGE.into()) };
    let (clients, requests): (usize, usize) = (clients.parse()?, requests.parse()?);
    let target = std::rc::Rc::new(Target::new(address, ca, pem)?);
    match what.as_str() {
        "crowd" => return crowd::watch(&target, clients, requests).await,
        "cluster" => return cluster::make(&target, clients).await,
        "day" => return day::compressed(target, clients, requests).await,
        "quiet" => return day::quiet(&target, clients, requests).await,
        _ => {}
    }
    clients::run(clients, requests, |k, count| {
        let (target, what) = (target.clone(), what.clone());
        let me = format!("{what}-{}-{k}", std::process::id());
        async move { client(&target, &what, &me, count).await }
    })
    .await
}

fn main() -> Result<(), Fault> {
    clients::print(run)
}
