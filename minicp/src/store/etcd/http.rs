//! Calls to the members of an etcd: connections that are kept, time limits, and the next member when one does not answer.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mote_api::tree::{Value, at};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::config::Address;
use super::wire;

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// etcd itself gives up a proposal after 5 s and an election.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a call goes on asking one member after another.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two rounds through all members.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Connections kept to each member.
const IDLE_MAX: usize = 32;

type Sender = SendRequest<Full<Bytes>>;

/// Why a call was not answered.
#[derive(Debug)]
pub(super) enum CallError {
    /// Nobody got the request.
    Unsent(String),
    /// It was sent; what became of it is not known.
    Unknown(String),
    /// etcd answered that it will not, by a code of gRPC's.
    Refused(u64, String),
}

/// gRPC's Unavailable: no leader, not yet started, on its way out.
const UNAVAILABLE: u64 = 14;

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (CallError::Unsent(why) | CallError::Unknown(why) | CallError::Refused(_, why)) = self;
        f.write_str(why)
    }
}

struct Member {
    address: Address,
    idle: RefCell<Vec<Sender>>,
}

/// All members; one of them is asked as long as it answers.
pub(super) struct Cluster {
    members: Vec<Member>,
    current: Cell<usize>,
    tls: Option<Arc<ClientConfig>>,
    /// Why the last one that failed did.
    trouble: RefCell<String>,
}

/// A stream of lines, as long as it is held.
pub(super) struct Lines {
    body: Incoming,
    unread: Vec<u8>,
    /// Bytes of `unread` known to hold no line's end.
    searched: usize,
    _sender: Sender,
}

impl Lines {
    /// The next line, or why there is none.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let end = self.unread.get(self.searched..).and_then(|new| new.iter().position(|b| *b == b'\n'));
            if let Some(end) = end {
                let rest = self.unread.split_off(self.searched + end + 1);
                self.searched = 0;
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            self.searched = self.unread.len();
            if self.unread.len() > ANSWER_BYTES_MAX {
                return Err("a line without end".into());
            }
            let frame = self.body.frame().await.ok_or("the stream ended")?.map_err(|e| e.to_string())?;
            if let Some(data) = frame.data_ref() {
                self.unread.extend_from_slice(data);
            }
        }
    }
}

impl Cluster {
    pub(super) fn new(members: Vec<Address>, tls: Option<Arc<ClientConfig>>) -> Cluster {
        let member = |address| Member { address, idle: RefCell::default() };
        Cluster {
            members: members.into_iter().map(member).collect(),
            current: Cell::new(0),
            tls,
            trouble: RefCell::default(),
        }
    }
    fn member(&self) -> Result<(usize, &Member), CallError> {
        let at = self.current.get() % self.members.len().max(1);
        let member = self.members.get(at).ok_or_else(|| CallError::Unsent("no member is known".into()))?;
        Ok((at, member))
    }
    /// Why the last call that failed did, for who has no patience for the answer.
    pub(super) fn trouble(&self) -> String {
        self.trouble.borrow().clone()
    }
    /// Another one than `at` is asked from now on (unless another one is already).
    pub(super) fn leave(&self, at: usize) {
        if self.current.get() == at && self.members.len() > 1 {
            self.current.set((at + 1) % self.members.len());
            if let Some(next) = self.members.get(self.current.get()) {
                log::warn!("etcd: going on with {}", next.address);
            }
        }
    }
    /// Asks one member after another. `again`: the question may be asked twice.
    pub(super) async fn call(&self, path: &str, body: String, again: bool) -> Result<Value, CallError> {
        let body = Bytes::from(body);
        let began = Instant::now();
        let mut tries = 0;
        loop {
            let (at, member) = self.member()?;
            let error = match self.call_one(member, path, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tries += 1;
            *self.trouble.borrow_mut() = error.to_string();
            match &error {
                CallError::Unsent(_) => {}
                CallError::Refused(UNAVAILABLE, _) | CallError::Unknown(_) if again => {}
                CallError::Refused(code, _) => {
                    if *code == UNAVAILABLE {
                        self.leave(at);
                    }
                    return Err(error);
                }
                CallError::Unknown(_) => {
                    self.leave(at);
                    return Err(error);
                }
            }
            self.leave(at);
            if began.elapsed() >= PATIENCE {
                return Err(error);
            }
            if tries % self.members.len() == 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    }
    async fn call_one(&self, member: &Member, path: &str, body: Bytes) -> Result<Value, CallError> {
        let named = |why: String| format!("{}: {why}", member.address);
        let exchange = async {
            let (sender, answer) = self.send(member, path, body).await?;
            let code = answer.status();
            let limited = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            let bytes = limited.collect().await.map_err(|e| CallError::Unknown(named(e.to_string())))?.to_bytes();
            let value: Value = serde_json::from_slice(&bytes).map_err(|_| {
                let text: String = String::from_utf8_lossy(&bytes).chars().take(100).collect();
                CallError::Unknown(named(format!("{code}: no JSON gateway? {text:?}")))
            })?;
            if member.idle.borrow().len() < IDLE_MAX {
                member.idle.borrow_mut().push(sender);
            }
            if code.is_success() {
                return Ok(value);
            }
            let grpc = at(&value, &["code"]).and_then(Value::as_u64).unwrap_or(0);
            Err(CallError::Refused(grpc, wire::refusal(&value)))
        };
        let answer = timeout(ANSWER_WITHIN, exchange).await;
        answer.unwrap_or_else(|_| Err(CallError::Unknown(named("no answer in time".into()))))
    }
    /// A stream of lines from the member that is asked now; and which one that is, for [`Self::leave`].
    pub(super) async fn stream(&self, path: &str, body: String) -> (usize, Result<Lines, CallError>) {
        let (at, member) = match self.member() {
            Ok(member) => member,
            Err(e) => return (0, Err(e)),
        };
        let opened = timeout(ANSWER_WITHIN, self.send(member, path, body.into())).await;
        let (sender, answer) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(e)) => return (at, Err(e)),
            Err(_) => return (at, Err(CallError::Unknown(format!("{}: no answer in time", member.address)))),
        };
        if !answer.status().is_success() {
            return (at, Err(CallError::Refused(0, format!("{}: watch: {}", member.address, answer.status()))));
        }
        (at, Ok(Lines { body: answer.into_body(), unread: Vec::new(), searched: 0, _sender: sender }))
    }
    /// Sends by a connection that is there, or by a new one.
    async fn send(&self, member: &Member, path: &str, body: Bytes) -> Result<(Sender, Response<Incoming>), CallError> {
        let named = |why: String| format!("{}: {why}", member.address);
        let request = || {
            Request::post(path)
                .header("host", member.address.to_string())
                .header("content-type", "application/json")
                .body(Full::new(body.clone()))
                .map_err(|e| CallError::Unsent(e.to_string()))
        };
        loop {
            let kept = member.idle.borrow_mut().pop();
            let (mut sender, was_kept) = match kept {
                Some(mut sender) => match sender.ready().await {
                    Ok(()) => (sender, true),
                    Err(_) => continue,
                },
                None => (self.connect(&member.address).await.map_err(|e| CallError::Unsent(named(e)))?, false),
            };
            match sender.try_send_request(request()?).await {
                Ok(answer) => return Ok((sender, answer)),
                // A kept connection that had ended meanwhile, and hyper still has the request.
                Err(mut e) => match (e.take_message().is_some(), was_kept) {
                    (true, true) => {}
                    (true, false) => return Err(CallError::Unsent(named(e.into_error().to_string()))),
                    (false, _) => return Err(CallError::Unknown(named(e.into_error().to_string()))),
                },
            }
        }
    }
    async fn connect(&self, to: &Address) -> Result<Sender, String> {
        let connected = async {
            let tcp = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(|e| format!("connect: {e}"))?;
            let _ = tcp.set_nodelay(true);
            match self.tls.as_ref().filter(|_| to.https) {
                None => begin(tcp).await,
                Some(tls) => {
                    let name = ServerName::try_from(to.host.clone()).map_err(|e| e.to_string())?;
                    let tls = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, tcp).await;
                    begin(tls.map_err(|e| format!("TLS handshake: {e}"))?).await
                }
            }
        };
        timeout(CONNECT_WITHIN, connected).await.unwrap_or_else(|_| Err("connect: no answer in time".into()))
    }
}

async fn begin<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> Result<Sender, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| format!("connect: {e}"))?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}
