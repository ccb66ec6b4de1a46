//! Requests that a node answers: container logs. In the same process over memory, else over TLS to the node's kubelet port.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mote_api::status::Status;
use mote_api::tree::{Value, i64_at, list_at, str_at};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::App;
use super::answer::Answer;
use super::body::AnswerBody;
use super::route::Asked;
use crate::api::object;
use crate::api::request::{Target, encode};

/// Time to reach a node.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const KUBELET_PORT: i64 = 10250;

pub(super) async fn log(app: &Rc<App>, asked: &Asked, target: &Target) -> Result<Answer, Status> {
    let pod = object::decode(&target.kind, &app.api.entry(&target.kind, &target.ns, &target.name).await?);
    let container = container_of(&pod, &target.name, asked.query.get("container"))?;
    let node = str_at(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", target.name)));
    }
    let path = format!(
        "/containerLogs/{}/{}/{}?{}",
        encode(&target.ns),
        encode(&target.name),
        encode(&container),
        asked.query.encode()
    );
    ask_node(app, node, &path).await
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

async fn ask_node(app: &Rc<App>, node: &str, path: &str) -> Result<Answer, Status> {
    let dial = app.local_nodes.borrow().get(node).cloned();
    if let Some(dial) = dial {
        return send(dial(), node, path).await;
    }
    let kind = app.api.registry().find("nodes").cloned().ok_or_else(Status::no_such_resource)?;
    let object = object::decode(&kind, &app.api.entry(&kind, "", node).await?);
    let address =
        address_of(&object).ok_or_else(|| Status::internal(format!("node {node} has no InternalIP address")))?;
    let failed =
        |e: &dyn std::fmt::Display| Status::new(502, "BadGateway", format!("dial node {node} at {address}: {e}"));
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        tokio_rustls::TlsConnector::from(app.node_tls.clone()).connect(ServerName::from(address.ip()), tcp).await
    };
    let tls = tokio::time::timeout(DIAL_TIMEOUT, connect)
        .await
        .map_err(|_| failed(&"no answer in time"))?
        .map_err(|e| failed(&e))?;
    send(tls, node, path).await
}

fn address_of(node: &Value) -> Option<SocketAddr> {
    let addresses = list_at(node, &["status", "addresses"]);
    let internal = addresses.iter().find(|a| str_at(a, &["type"]) == "InternalIP")?;
    let ip: IpAddr = str_at(internal, &["address"]).parse().ok()?;
    let port = i64_at(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).unwrap_or(KUBELET_PORT);
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

async fn send<IO: AsyncRead + AsyncWrite + Unpin + 'static>(io: IO, node: &str, path: &str) -> Result<Answer, Status> {
    let failed = |e: hyper::Error| Status::new(502, "BadGateway", format!("ask node {node}: {e}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
    // Ends with the answer's body.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let request = Request::get(path).header(hyper::header::HOST, node).body(Empty::<Bytes>::new());
    let request = request.map_err(|e| Status::internal(format!("ask node {node}: {e}")))?;
    let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    let mut answer = Response::new(AnswerBody::Passed(body));
    *answer.status_mut() = head.status;
    if let Some(ty) = head.headers.get(CONTENT_TYPE) {
        answer.headers_mut().insert(CONTENT_TYPE, ty.clone());
    }
    Ok(answer)
}
