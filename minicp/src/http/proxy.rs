//! Requests that a node answers: container logs, and conversations with a pod. In the same process over memory, else over TLS to the node's kubelet port.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::request::Builder;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mote_api::status::Status;
use mote_api::tree::{Value, i64_at, list_at, str_at};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::App;
use super::answer::Answer;
use super::asked::Asked;
use super::body::AnswerBody;
use crate::api::object;
use crate::api::request::{Target, encode};

/// Time to reach a node.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const KUBELET_PORT: i64 = 10250;
/// No body.
pub(super) const NOTHING: AnswerBody = AnswerBody::Whole(None);
/// Bytes on their way through a conversation, each way.
const COPY_BYTES: usize = 16 << 10;
/// Headers by which client and node agree on a protocol.
pub(super) static PASSED: [HeaderName; 7] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("x-stream-protocol-version"),
];

pub(super) async fn log(app: &Rc<App>, asked: &Asked, target: &Target) -> Result<Answer, Status> {
    let pod = object::decode(&target.kind, &app.api.entry(&target.kind, &target.ns, &target.name).await?);
    let container = container_of(&pod, &target.name, asked.query.get("container"))?;
    let node = node_of(&pod, &target.name)?;
    let path = format!(
        "/containerLogs/{}/{}/{}?{}",
        encode(&target.ns),
        encode(&target.name),
        encode(&container),
        asked.query.encode()
    );
    ask_node(app, node, Request::get(path), NOTHING).await.map(passed)
}

/// The container whose log is meant; none named is fine where there is but one.
fn container_of(pod: &Value, name: &str, asked: &str) -> Result<String, Status> {
    let names = |list| list_at(pod, &["spec", list]).iter().map(|c| str_at(c, &["name"]).to_owned());
    let main: Vec<String> = names("containers").collect();
    let all: Vec<String> =
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(names).collect();
    if !asked.is_empty() {
        return all
            .into_iter()
            .find(|c| c == asked)
            .ok_or_else(|| Status::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    match main.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            main.join(" ")
        ))),
    }
}

/// A conversation with a pod: exec, attach, port-forward. What the client asked for is asked of the node in the same words; once both
/// have changed protocol, bytes pass through as they are, and only client and node know what they mean.
pub(super) async fn stream(app: &Rc<App>, asked: &Asked, target: &Target, sub: &str) -> Result<Answer, Status> {
    let pod = object::decode(&target.kind, &app.api.entry(&target.kind, &target.ns, &target.name).await?);
    let node = node_of(&pod, &target.name)?;
    let (ns, name) = (encode(&target.ns), encode(&target.name));
    let path = match sub {
        "portforward" => format!("/portForward/{ns}/{name}?{}", asked.query.encode()),
        _ => {
            let container = container_of(&pod, &target.name, asked.query.get("container"))?;
            format!("/{sub}/{ns}/{name}/{}?{}", encode(&container), asked.query.encode())
        }
    };
    let mut request = Request::builder().method(asked.method.clone()).uri(path);
    for name in &PASSED {
        for value in asked.headers.get_all(name) {
            request = request.header(name, value);
        }
    }
    let client = asked.upgrade.take().ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let response = ask_node(app, node, request, NOTHING).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(passed(response));
    }
    Ok(join(client, response))
}

/// The answer that changes protocol; from there on bytes pass through as they are.
pub(super) fn join(client: OnUpgrade, mut response: Response<Incoming>) -> Answer {
    let server = hyper::upgrade::on(&mut response);
    tokio::task::spawn_local(async move {
        if let Ok((client, server)) = tokio::try_join!(client, server) {
            // Whoever hangs up first: the other hears of it.
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BYTES, COPY_BYTES).await;
        }
    });
    let mut answer = Response::new(AnswerBody::Whole(None));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for name in &PASSED {
        for value in response.headers().get_all(name) {
            answer.headers_mut().append(name.clone(), value.clone());
        }
    }
    answer
}

fn node_of<'a>(pod: &'a Value, name: &str) -> Result<&'a str, Status> {
    match str_at(pod, &["spec", "nodeName"]) {
        "" => Err(Status::bad_request(format!("pod {name} does not have a host assigned"))),
        node => Ok(node),
    }
}

/// Asks the agent of a node, as this server.
pub(super) async fn ask_node(
    app: &Rc<App>,
    node: &str,
    request: Builder,
    body: AnswerBody,
) -> Result<Response<Incoming>, Status> {
    let local = app.local_nodes.borrow().get(node).cloned();
    if let Some(local) = local {
        return send(Box::new(local()), node, request.header(HOST, node), body).await;
    }
    let kind = app.api.registry().find("nodes").cloned().ok_or_else(Status::no_such_resource)?;
    let object = object::decode(&kind, &app.api.entry(&kind, "", node).await?);
    let address =
        address_of(&object).ok_or_else(|| Status::internal(format!("node {node} has no InternalIP address")))?;
    let tls = dial(address, Some(&app.node_tls))
        .await
        .map_err(|e| bad_gateway(format!("dial node {node} at {address}: {e}")))?;
    send(tls, node, request.header(HOST, node), body).await
}

pub(super) fn bad_gateway(why: String) -> Status {
    Status::new(502, "BadGateway", why)
}

pub(super) fn address_of(node: &Value) -> Option<SocketAddr> {
    let addresses = list_at(node, &["status", "addresses"]);
    let internal = addresses.iter().find(|a| str_at(a, &["type"]) == "InternalIP")?;
    let ip: IpAddr = str_at(internal, &["address"]).parse().ok()?;
    let port = i64_at(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).unwrap_or(KUBELET_PORT);
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

/// A connection, whatever is under it: one HTTP client for all keeps the executable small.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Stream for IO {}

pub(super) async fn dial(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Box<dyn Stream>> {
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        let Some(tls) = tls else { return Ok(Box::new(tcp) as Box<dyn Stream>) };
        let stream = TlsConnector::from(tls.clone()).connect(ServerName::from(address.ip()), tcp).await?;
        Ok(Box::new(stream) as Box<dyn Stream>)
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    tokio::time::timeout(DIAL_TIMEOUT, connect).await.map_err(|_| late())?
}

/// One request over a fresh connection; `to`: whom a failure names.
pub(super) async fn send(
    wire: Box<dyn Stream>,
    to: &str,
    request: Builder,
    body: AnswerBody,
) -> Result<Response<Incoming>, Status> {
    let failed = |e: hyper::Error| bad_gateway(format!("ask {to}: {e}"));
    let io = TokioIo::new(wire);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(failed)?;
    // Ends with the answer's body, or goes over into another protocol.
    tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
    });
    let request = request.body(body).map_err(|e| Status::internal(format!("ask {to}: {e}")))?;
    sender.send_request(request).await.map_err(failed)
}

pub(super) fn passed(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let mut answer = Response::new(AnswerBody::Passed(body));
    *answer.status_mut() = head.status;
    if let Some(ty) = head.headers.get(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, ty.clone());
    }
    answer
}
