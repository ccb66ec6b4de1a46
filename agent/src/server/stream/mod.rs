//! Requests that turn into conversations: port-forward, exec and attach. A client speaks WebSocket or SPDY (`negotiate`), both are pure
//! codecs (`websocket`, `spdy`), and what is said in them is the same (`session`, for
//! `exec` and `attach`, whose two sides are in `conversation`; `forward`).
//!
//! The API server passes the conversation through untouched, so that this is the only place that knows its form.

pub(crate) mod attach;
mod conversation;
pub(crate) mod exec;
pub(crate) mod forward;
pub(crate) mod negotiate;
pub(crate) mod session;
mod spdy;
mod websocket;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::{Reply, answer};
use forward::Ports;
use negotiate::Agreed;

/// What follows an upgraded request.
type Io = TokioIo<hyper::upgrade::Upgraded>;

/// Serves a port-forward into `ports`.
pub(crate) fn port_forward(request: Request<Incoming>, ports: Ports) -> Response<Reply> {
    match negotiate::port_forward(request.headers()) {
        Err(why) => answer(StatusCode::BAD_REQUEST, "text/plain", why),
        Ok(agreed) => {
            let wire = agreed.wire;
            switch(request, agreed, "port-forward", async move |io| forward::serve(io, wire, ports).await)
        }
    }
}

/// Serves an exec.
pub(crate) fn exec(request: Request<Incoming>, command: exec::Command) -> Response<Reply> {
    match negotiate::remote_command(request.headers()) {
        Err(why) => answer(StatusCode::BAD_REQUEST, "text/plain", why),
        Ok(agreed) => {
            let wire = agreed.wire;
            switch(request, agreed, "exec", async move |io| exec::serve(io, wire, command).await)
        }
    }
}

/// Serves an attach.
pub(crate) fn attach(request: Request<Incoming>, target: attach::Target) -> Response<Reply> {
    match negotiate::remote_command(request.headers()) {
        Err(why) => answer(StatusCode::BAD_REQUEST, "text/plain", why),
        Ok(agreed) => {
            let wire = agreed.wire;
            switch(request, agreed, "attach", async move |io| attach::serve(io, wire, target).await)
        }
    }
}

/// Answers that the protocol changes, and goes on with what is said then.
fn switch<F>(request: Request<Incoming>, agreed: Agreed, what: &'static str, go_on: F) -> Response<Reply>
where
    F: AsyncFnOnce(Io) -> std::io::Result<()> + 'static,
{
    tokio::task::spawn_local(async move {
        match hyper::upgrade::on(request).await {
            Ok(io) => {
                if let Err(error) = go_on(TokioIo::new(io)).await {
                    log::debug!("{what}: {error}");
                }
            }
            Err(error) => log::debug!("{what}: upgrade: {error}"),
        }
    });
    let mut response = Response::new(Reply::Whole(None));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(agreed.headers);
    response
}

/// Streams and words of an exec's or attach's query, in the API's names and in the kubelet's.
pub(crate) fn command_of(query: &str) -> (session::Wanted, Vec<String>) {
    let (mut wanted, mut words) = (session::Wanted::default(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let on = matches!(value, "true" | "1");
        match name {
            "command" => words.push(mote_api::uri::decode(value)),
            "stdin" | "input" => wanted.stdin = on,
            "stdout" | "output" => wanted.stdout = on,
            "stderr" | "error" => wanted.stderr = on,
            "tty" => wanted.tty = on,
            _ => {}
        }
    }
    // A terminal has one output.
    wanted.stderr &= !wanted.tty;
    (wanted, words)
}
