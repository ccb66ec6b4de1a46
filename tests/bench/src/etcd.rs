//! `bench-etcd ADDR CLIENTS REQUESTS`: durable puts into an etcd by its own API (the JSON gateway), each client with a connection of its own and one
//! request under way; the values are as long as the objects that `bench-load … create` makes. Prints one line of JSON like `bench-load`.
#![forbid(unsafe_code)]

use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use tokio::net::TcpStream;

type Fault = Box<dyn Error>;
const USAGE: &str = "usage: bench-etcd ADDR CLIENTS REQUESTS";
/// Bytes of a stored ConfigMap of `bench-load`, base64.
const VALUE: usize = 700;

/// The alphabet is enough for keys: letters, digits and `-` stand for themselves in no encoding, so hexadecimal digits of four bytes do.
fn key(number: usize) -> String {
    let letters = b"ABCDEFGHIJKLMNOP";
    (0..16).rev().filter_map(|i| letters.get((number >> (4 * i)) & 15)).map(|b| char::from(*b)).collect()
}

async fn client(address: &str, me: usize, count: usize) -> Result<Vec<Duration>, Fault> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(tcp)).await?;
    tokio::task::spawn_local(connection);
    let mut took = Vec::with_capacity(count);
    for i in 0..count {
        // Both are base64 as they stand.
        let body = format!("{{\"key\":\"{}\",\"value\":\"{}\"}}", key(me << 32 | i), "e".repeat(VALUE));
        let request = Request::post("/v3/kv/put").header("Host", address).body(Full::new(Bytes::from(body)))?;
        let began = Instant::now();
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("put: {status}: {}", String::from_utf8_lossy(&text)).into());
        }
        took.push(began.elapsed());
    }
    Ok(took)
}

async fn run(arguments: &[String]) -> Result<serde_json::Value, Fault> {
    let [address, clients, requests] = arguments else { return Err(USAGE.into()) };
    let (clients, requests): (usize, usize) = (clients.parse()?, requests.parse()?);
    let address: Rc<str> = address.as_str().into();
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for k in 0..clients {
        let address = address.clone();
        let me = std::process::id() as usize * 64 + k;
        running.spawn_local(
            async move { client(&address, me, requests / clients.max(1)).await.map_err(|e| e.to_string()) },
        );
    }
    let mut took = Vec::new();
    while let Some(done) = running.join_next().await {
        took.extend(done??);
    }
    let seconds = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).map_or(0.0, |d| d.as_secs_f64() * 1000.0);
    Ok(serde_json::json!({"per_second": took.len() as f64 / seconds, "median_ms": at(50), "p99_ms": at(99)}))
}

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", tokio::task::LocalSet::new().block_on(&runtime, run(&arguments))?);
    Ok(())
}
