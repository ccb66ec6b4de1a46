//! HTTP/1.1 in front of the API: connections, the way from a request to an answer, limits.
//!
//! `serve` runs one connection (TLS or memory); `route` finds what a request means; `answer` forms bodies (objects, Status), `list` those of lists, piece by piece; `watch`
//! streams; `discovery` and `openapi` describe what is served; `proxy` passes on to node agents what they answer, `relay` what pods, Services and nodes do.

pub(crate) mod answer;
pub(crate) mod asked;
pub(crate) mod body;
mod discovery;
mod gate;
mod health;
mod list;
mod openapi;
pub(crate) mod proxy;
mod relay;
mod resource;
mod route;
mod stall;
mod trail;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch::Receiver;

use crate::Dial;
use crate::api::Api;
use crate::audit::Audit;
use crate::auth::tokens::Tokens;
use crate::flow::Flow;
use crate::user::UserInfo;

/// Time for a client to send a request's head, and the longest rest between two requests of a connection.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for a client to send a request's body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// What every request needs.
pub(crate) struct App {
    pub api: Rc<Api>,
    pub tokens: Tokens,
    /// `https://ADDRESS:PORT`
    pub url: String,
    /// In-process node agents by node name.
    pub local_nodes: RefCell<HashMap<String, Dial>>,
    pub node_tls: Arc<rustls::ClientConfig>,
    /// To pods that want TLS: nobody signed for them.
    pub pod_tls: Arc<rustls::ClientConfig>,
    pub connections: Cell<usize>,
    /// Connections by address.
    pub peers: RefCell<HashMap<IpAddr, usize>>,
    pub flow: Rc<Flow>,
    pub audit: Option<Audit>,
    /// True once the server stops.
    pub stopping: Receiver<bool>,
    pub watches: Cell<usize>,
}

/// Runs a connection to its end. `user`: who the other side is known to be (client certificate, or this very process); `from`: its address, if it is not
/// in this process.
pub(crate) async fn serve<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    app: Rc<App>,
    io: IO,
    user: Option<Rc<UserInfo>>,
    from: Option<IpAddr>,
) {
    app.connections.set(app.connections.get() + 1);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (app, user) = (app.clone(), user.clone());
        async move { Ok::<_, Infallible>(route::handle(&app, user, from, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).half_close(false);
    if from.is_some() {
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    } else {
        builder.header_read_timeout(None);
    }
    let io = stall::Stall::new(io, stall::WRITE_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    tokio::pin!(connection);
    let mut stopping = app.stopping.clone();
    tokio::select! {
        // A client that hangs up is nobody's error.
        _ = connection.as_mut() => {}
        _ = stopping.wait_for(|s| *s) => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(Duration::from_secs(2), connection).await;
        }
    }
    app.connections.set(app.connections.get() - 1);
}
