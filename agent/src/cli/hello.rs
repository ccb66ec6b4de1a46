//! `mote hello` (hidden): the demo's web page, served by our own executable from within a pod.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// Requests larger than this are cut.
const REQUEST_BYTES_MAX: usize = 4096;

/// Serves the page on port `PORT` (8080) for ever.
pub(super) fn run(_: lexopt::Parser) -> ExitCode {
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(error) => return super::failed(&format!("listen on port {port}: {error}")),
    };
    // The first process of a PID namespace is spared signals it has no handler for.
    std::thread::spawn(|| {
        let _ = super::process::block_on(super::process::signalled());
        std::process::exit(0);
    });
    say!("hello: listening on port {port}");
    for stream in listener.incoming() {
        if let Err(error) = stream.and_then(answer) {
            complain!("hello: {error}");
        }
    }
    ExitCode::SUCCESS
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = [0u8; REQUEST_BYTES_MAX];
    let n = stream.read(&mut request)?;
    if n == 0 {
        return Ok(()); // a TCP probe: connected, asked nothing, gone
    }
    let text = String::from_utf8_lossy(request.get(..n).unwrap_or_default()).into_owned();
    say!("{} {}", stream.peer_addr()?, text.lines().next().unwrap_or_default());
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "?".into());
    let body = format!(
        "<!doctype html><meta charset=utf-8><title>mote</title>\n<h1>Hello from mote</h1>\n\
         <p>pod {} ({}) on node {}, {}</p>\n",
        variable("POD_NAME"),
        variable("POD_IP"),
        variable("NODE_NAME"),
        mote_images::Platform::host()
    );
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
