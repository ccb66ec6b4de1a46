//! `bench-etcd ADDR put|get CLIENTS REQUESTS`: durable puts into an etcd, or gets of one key, by its own API (the JSON gateway), each client with a connection of its own and one
//! request under way; the values are as long as the objects that `bench-load … create` makes. Prints one line of JSON like `bench-load`.
#![forbid(unsafe_code)]

mod clients;

use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use tokio::net::TcpStream;

use clients::Fault;

const USAGE: &str = "usage: bench-etcd ADDR put|get CLIENTS REQUESTS";
/// Bytes of a stored ConfigMap of `bench-load`, base64.
const VALUE: usize = 700;

/// The alphabet is enough for keys: letters, digits and `-` stand for themselves in no encoding, so hexadecimal digits of four bytes do.
fn key(number: usize) -> String {
    let letters = b"ABCDEFGHIJKLMNOP";
    (0..16).rev().filter_map(|i| letters.get((number >> (4 * i)) & 15)).map(|b| char::from(*b)).collect()
}

async fn client(address: &str, put: bool, me: usize, count: usize) -> Result<Vec<Duration>, Fault> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(tcp)).await?;
    tokio::task::spawn_local(connection);
    let mut took = Vec::with_capacity(count);
    for i in 0..count {
        // Both are base64 as they stand.
        let (path, body) = if put || i == 0 {
            let name = key(me << 32 | i);
            ("/v3/kv/put", format!("{{\"key\":\"{name}\",\"value\":\"{}\"}}", "e".repeat(VALUE)))
        } else {
            ("/v3/kv/range", format!("{{\"key\":\"{}\"}}", key(me << 32)))
        };
        let request = Request::post(path).header("Host", address).body(Full::new(Bytes::from(body)))?;
        let began = Instant::now();
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&text)).into());
        }
        took.push(began.elapsed());
    }
    Ok(took)
}

fn main() -> Result<(), Fault> {
    clients::print(async |arguments| {
        let [address, what, clients, requests] = arguments else { return Err(USAGE.into()) };
        let put = match what.as_str() {
            "put" => true,
            "get" => false,
            _ => return Err(USAGE.into()),
        };
        let address: Rc<str> = address.as_str().into();
        clients::run(clients.parse()?, requests.parse()?, |k, count| {
            let (address, me) = (address.clone(), std::process::id() as usize * 64 + k);
            async move { client(&address, put, me, count).await }
        })
        .await
    })
}
