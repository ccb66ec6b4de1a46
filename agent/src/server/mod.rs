//! The kubelet API of this node: container logs, the pods, exec, attach, port-forward, health. Served to the API server only: over an in-memory stream within one
//! process, or over TLS to a client certificate of the cluster's CA.

pub mod logs;
mod stream;
pub(crate) mod tls;

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mote_api::tree::{bool_at, json};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::clock::Moment;
use crate::keeper::{self, State, label};
use crate::pods::model::Pod;
use logs::Options;
use stream::forward::Ports;

/// Chunks of a log that wait for a slow reader.
const BACKLOG: usize = 4;
const STREAM_BYTES: usize = 64 << 10;

/// A body whose parts come through a channel, or one that is all there.
pub enum Reply {
    /// All of it.
    Whole(Option<Bytes>),
    /// Part by part.
    Parts(mpsc::Receiver<Bytes>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Reply::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Reply::Parts(receiver) => receiver.poll_recv(cx).map(|part| part.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }
}

fn answer(code: StatusCode, kind: &str, body: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Some(body.into())));
    *response.status_mut() = code;
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert("content-type", kind);
    }
    response
}

/// A connection from within this process.
pub fn dial(agent: &Rc<Agent>) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
    tokio::task::spawn_local(serve(agent.clone(), ours));
    theirs
}

/// Serves one connection whose peer is proven to be the API server.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(agent: Rc<Agent>, stream: S) {
    let service = service_fn(move |request| {
        let agent = agent.clone();
        async move { Ok::<_, Infallible>(route(&agent, request).await) }
    });
    let http = hyper::server::conn::http1::Builder::new()
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = http.await {
        log::debug!("kubelet connection: {error}");
    }
}

async fn route(agent: &Rc<Agent>, request: Request<Incoming>) -> Response<Reply> {
    let path = request.uri().path().to_owned();
    let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match path.as_slice() {
        ["healthz"] => answer(StatusCode::OK, "text/plain", "ok"),
        ["pods"] => {
            let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": agent.list()});
            answer(StatusCode::OK, "application/json", serde_json::to_vec(&list).unwrap_or_default())
        }
        ["containerLogs", namespace, pod, container] => {
            let query = request.uri().query().unwrap_or_default();
            match options(query, Moment::now()) {
                Ok((options, previous)) => container_logs(agent, namespace, pod, container, options, previous),
                Err(why) => answer(StatusCode::BAD_REQUEST, "text/plain", why),
            }
        }
        [what @ ("exec" | "attach"), namespace, name, container] => match running(agent, namespace, name, container) {
            Err((code, why)) => answer(code, "text/plain", why),
            Ok((pod, id)) if *what == "exec" => exec(agent, request, &pod, container, id).await,
            Ok((pod, id)) => attach(agent, request, &pod, container, id),
        },
        ["portForward", namespace, pod] => match agent.find(namespace, pod) {
            None => no_pod(namespace, pod),
            Some(pod) if pod.host_network => stream::port_forward(request, Ports::Host),
            Some(pod) => {
                let netns = agent.keeper.dir().namespace(pod.uid.as_str(), "net");
                stream::port_forward(request, Ports::Pod(netns))
            }
        },
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "404 page not found\n"),
    }
}

async fn exec(
    agent: &Rc<Agent>,
    request: Request<Incoming>,
    pod: &Pod,
    container: &str,
    id: String,
) -> Response<Reply> {
    let (wanted, args) = stream::command_of(request.uri().query().unwrap_or_default());
    if args.is_empty() {
        return answer(StatusCode::BAD_REQUEST, "text/plain", "you must specify at least one command");
    }
    let mut process = match crate::worker::describe::process_of(agent, pod, container).await {
        Ok(process) => process,
        Err(why) => return answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", why),
    };
    process.args = args;
    if wanted.tty && !process.env.iter().any(|pair| pair.starts_with("TERM=")) {
        process.env.push("TERM=xterm".into());
    }
    let keeper = agent.keeper.dir().clone();
    stream::exec(request, stream::exec::Command { keeper, container: id, process, wanted })
}

fn attach(agent: &Rc<Agent>, request: Request<Incoming>, pod: &Pod, container: &str, id: String) -> Response<Reply> {
    let (wanted, _) = stream::command_of(request.uri().query().unwrap_or_default());
    let spec = pod.container(container).map(|wanted| &wanted.spec);
    let has_stdin = spec.and_then(|spec| bool_at(spec, &["stdin"])) == Some(true);
    let keeper = agent.keeper.dir().clone();
    stream::attach(request, stream::attach::Target { keeper, container: id, has_stdin, wanted })
}

/// The pod, and the id of its container that runs; else what to say.
fn running(
    agent: &Agent,
    namespace: &str,
    name: &str,
    container: &str,
) -> Result<(Rc<Pod>, String), (StatusCode, String)> {
    let Some(pod) = agent.find(namespace, name) else {
        return Err((StatusCode::NOT_FOUND, unknown(namespace, name)));
    };
    let running = agent.keeper.of_pod(pod.uid.as_str()).into_iter();
    let running = running.filter(|listed| label(listed, "container") == container && listed.state == State::Running);
    match running.max_by_key(|listed| listed.started_at) {
        Some(listed) => Ok((pod, listed.id)),
        None => {
            let text = format!("container {container:?} of pod {name:?} is not running");
            Err((StatusCode::BAD_REQUEST, text))
        }
    }
}

fn no_pod(namespace: &str, name: &str) -> Response<Reply> {
    answer(StatusCode::NOT_FOUND, "text/plain", unknown(namespace, name))
}

fn unknown(namespace: &str, name: &str) -> String {
    format!("pod {name:?} not found in namespace {namespace:?}\n")
}

/// Reads the query of a log request: the options, and whether the run before is meant.
fn options(query: &str, now: Moment) -> Result<(Options, bool), String> {
    let mut out = Options::default();
    let mut previous = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = || value.parse::<u64>().map_err(|_| format!("{key}={value} is no number"));
        match key {
            "follow" => out.follow = value == "true" || value == "1",
            "previous" => previous = value == "true" || value == "1",
            "timestamps" => out.timestamps = value == "true" || value == "1",
            "tailLines" => out.tail = Some(number()?),
            "limitBytes" => out.limit_bytes = Some(number()?),
            "sinceSeconds" => {
                let seconds = i64::try_from(number()?).unwrap_or(i64::MAX);
                out.since = Some(Moment(now.0.saturating_sub(Moment::from_seconds(seconds).0)));
            }
            "sinceTime" => {
                let text = value.replace("%3A", ":").replace("%3a", ":").replace("%2B", "+").replace("%2b", "+");
                out.since = Some(crate::clock::parse(&text).ok_or_else(|| format!("{key}={value} is no time"))?);
            }
            _ => {}
        }
    }
    Ok((out, previous))
}

fn container_logs(
    agent: &Rc<Agent>,
    namespace: &str,
    name: &str,
    container: &str,
    options: Options,
    previous: bool,
) -> Response<Reply> {
    let bad = |why: String| answer(StatusCode::BAD_REQUEST, "text/plain", why);
    let Some(pod) = agent.find(namespace, name) else {
        return no_pod(namespace, name);
    };
    if pod.container(container).is_none() {
        return bad(format!("container {container:?} in pod {name:?} is not available"));
    }
    let mut runs: Vec<(u32, String, State)> = agent
        .keeper
        .of_pod(pod.uid.as_str())
        .into_iter()
        .filter(|listed| label(listed, "container") == container)
        .map(|listed| (label(&listed, "attempt").parse().unwrap_or(0), listed.id.clone(), listed.state))
        .collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.0));
    let run = if previous { runs.into_iter().nth(1) } else { runs.into_iter().next() };
    let Some((attempt, id, _)) = run else {
        return if previous {
            bad(format!("previous terminated container {container:?} in pod {name:?} not found"))
        } else {
            let reason = waiting_reason(agent, &pod, container);
            bad(format!("container {container:?} in pod {name:?} is waiting to start: {reason}"))
        };
    };
    let file = agent.config.roots.log(&pod, container, attempt);
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let (agent, uid) = (agent.clone(), pod.uid.clone());
    tokio::task::spawn_local(async move {
        let ended = || {
            let runs = agent.keeper.of_pod(uid.as_str());
            !runs.iter().any(|listed| listed.id == id && !matches!(listed.state, keeper::State::Exited(_)))
        };
        if let Err(error) = logs::send(&file, options, sender, ended).await {
            log::debug!("read log {}: {error}", file.display());
        }
    });
    let mut response = Response::new(Reply::Parts(receiver));
    if let Ok(kind) = "text/plain".parse() {
        response.headers_mut().insert("content-type", kind);
    }
    response
}

fn waiting_reason(agent: &Agent, pod: &crate::pods::model::Pod, container: &str) -> String {
    use mote_api::tree::{list_at, str_at};
    let said = agent.said.borrow();
    let Some(status) = said.get(&pod.uid) else { return "ContainerCreating".into() };
    let both = [list_at(status, &["containerStatuses"]), list_at(status, &["initContainerStatuses"])];
    let entry = both.into_iter().flatten().find(|entry| str_at(entry, &["name"]) == container);
    let waiting = entry
        .map(|entry| (str_at(entry, &["state", "waiting", "reason"]), str_at(entry, &["state", "waiting", "message"])));
    match waiting {
        Some(("", _)) | None => "ContainerCreating".into(),
        Some((reason @ ("ContainerCreating" | "PodInitializing"), _)) => reason.to_owned(),
        Some((_, message)) if reason_is_pull(message) => "trying and failing to pull image".into(),
        Some((reason, _)) => reason.to_owned(),
    }
}

fn reason_is_pull(message: &str) -> bool {
    message.starts_with("Back-off pulling image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let now = Moment::from_seconds(1000);
        let (read, previous) =
            options("follow=true&tailLines=5&sinceSeconds=10&timestamps=true&limitBytes=7&previous=true", now).unwrap();
        let expected = Options {
            follow: true,
            tail: Some(5),
            since: Some(Moment::from_seconds(990)),
            timestamps: true,
            limit_bytes: Some(7),
        };
        assert!(read == expected && previous);
        assert!(options("tailLines=x", now).is_err() && options("sinceTime=x", now).is_err());
        let (read, _) = options("sinceTime=1970-01-01T00%3A00%3A05Z", now).unwrap();
        assert_eq!(read.since, Some(Moment::from_seconds(5)));
    }
}
