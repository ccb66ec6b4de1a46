//! Cluster DNS: names of Services and pods answered from the same [`Services`] the proxy uses; all other names are asked of the
//! host's own name servers.
//!
//! `wire` (bytes to question, answer to bytes) and `answer` (question and Services to answer) do no IO; this file and
//! `upstream` do. Tasks: one per UDP socket and listener, one per TCP client, one per question that went on to other servers.

mod answer;
mod upstream;
mod wire;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};

use crate::proxy::Services;
use answer::{Outcome, Zone};
use upstream::{Upstream, read_framed, send_framed};
use wire::{Answer, Bad, Query, Rcode, Record};

/// Questions under way at other servers at one time; more are told to try again (SERVFAIL).
const FORWARDS_MAX: usize = 256;
/// TCP clients at one time, and how long one may be idle.
const CLIENTS_MAX: usize = 64;
const CLIENT_IDLE_MAX: Duration = Duration::from_secs(10);
/// A question over UDP that is longer is none.
const QUESTION_LEN_MAX: usize = 4096;
/// Pause after the kernel refused a packet or a connection, so that a lasting refusal does not spin.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// What the DNS server must know.
#[derive(Clone)]
pub struct DnsConfig {
    /// Where to listen, UDP and TCP (the cluster DNS address, port 53).
    pub listen: Vec<SocketAddr>,
    /// The cluster domain, e.g. `cluster.local`.
    pub domain: String,
    /// Name servers for all other names; empty: those of `/etc/resolv.conf`, read again when it changes.
    pub upstreams: Vec<SocketAddr>,
}

/// A running DNS server; dropping it ends its tasks. Lives in a `LocalSet`.
pub struct Server {
    tasks: Vec<AbortHandle>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[error("listen for DNS on {address}: {cause}")]
pub struct StartError {
    address: SocketAddr,
    cause: io::Error,
}

/// What all tasks share.
struct Shared {
    services: Rc<RefCell<Services>>,
    zone: Zone,
    upstream: Upstream,
    forwards: Cell<usize>,
    clients: Cell<usize>,
}

/// A place under a limit, given back when dropped (also when its task is aborted).
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(count: &'a Cell<usize>, max: usize) -> Option<Place<'a>> {
        (count.get() < max).then(|| {
            count.set(count.get() + 1);
            Place(count)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Server {
    /// Binds the sockets and answers from then on.
    ///
    /// # Errors
    /// When an address cannot be bound (53 taken by a resolver that listens on all addresses, no such local address).
    pub async fn start(config: DnsConfig, services: Rc<RefCell<Services>>) -> Result<Server, StartError> {
        let shared = Rc::new(Shared {
            services,
            zone: Zone::new(&config.domain),
            upstream: Upstream::new(config.upstreams, config.listen.clone()),
            forwards: Cell::new(0),
            clients: Cell::new(0),
        });
        let mut server = Server { tasks: Vec::new() };
        for address in config.listen {
            let failed = |cause| StartError { address, cause };
            let socket = UdpSocket::bind(address).await.map_err(failed)?;
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            server.tasks.push(spawn_local(serve_udp(shared.clone(), Rc::new(socket))).abort_handle());
            server.tasks.push(spawn_local(serve_tcp(shared.clone(), listener)).abort_handle());
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn serve_udp(shared: Rc<Shared>, socket: Rc<UdpSocket>) {
    let mut buffer = vec![0; QUESTION_LEN_MAX];
    loop {
        let (len, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(e) => {
                log::debug!("receive DNS question: {e}");
                sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let question = buffer.get(..len).unwrap_or_default();
        let query = match Query::parse(question) {
            Ok(query) => query,
            Err(Bad::Ignore) => continue,
            Err(Bad::Reply(reply)) => {
                send_udp(&socket, &reply, client).await;
                continue;
            }
        };
        // Most questions are answered on the spot; only those for other servers get a task.
        let outcome = answer::answer(&query, &shared.services.borrow(), &shared.zone);
        if let Outcome::Reply(answer) = outcome {
            send_udp(&socket, &query.reply(&answer, query.udp_max()), client).await;
            continue;
        }
        let (shared, socket, question) = (shared.clone(), socket.clone(), question.to_vec());
        spawn_local(async move {
            let max = query.udp_max();
            let reply = shared.ask_others(&query, &question, outcome, max, false).await;
            send_udp(&socket, &reply, client).await;
        });
    }
}

async fn send_udp(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(e) = socket.send_to(reply, client).await {
        log::debug!("answer DNS client {client}: {e}");
    }
}

async fn serve_tcp(shared: Rc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let shared = shared.clone();
                spawn_local(async move {
                    if let Err(e) = serve_client(&shared, stream).await {
                        log::debug!("serve DNS client {client}: {e}");
                    }
                });
            }
            Err(e) => {
                log::debug!("accept DNS client: {e}");
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

async fn serve_client(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    let Some(_place) = Place::take(&shared.clients, CLIENTS_MAX) else { return Ok(()) };
    while let Ok(question) = timeout(CLIENT_IDLE_MAX, read_framed(&mut stream)).await {
        let Some(question) = question? else { break };
        let reply = match Query::parse(&question) {
            Err(Bad::Ignore) => break,
            Err(Bad::Reply(reply)) => reply,
            Ok(query) => {
                let outcome = answer::answer(&query, &shared.services.borrow(), &shared.zone);
                match outcome {
                    Outcome::Reply(answer) => query.reply(&answer, usize::from(u16::MAX)),
                    other => shared.ask_others(&query, &question, other, usize::from(u16::MAX), true).await,
                }
            }
        };
        timeout(CLIENT_IDLE_MAX, send_framed(&mut stream, &reply)).await??;
    }
    Ok(())
}

impl Shared {
    /// The reply to a question that needs other servers.
    async fn ask_others(&self, query: &Query, question: &[u8], outcome: Outcome, max: usize, whole: bool) -> Vec<u8> {
        let failed = |rcode| query.reply(&Answer::failed(rcode), max);
        let Some(_place) = Place::take(&self.forwards, FORWARDS_MAX) else { return failed(Rcode::ServFail) };
        match outcome {
            Outcome::Reply(answer) => query.reply(&answer, max),
            Outcome::Forward => {
                let reply = self.upstream.ask(query, question, whole).await;
                reply.unwrap_or_else(|| failed(Rcode::ServFail))
            }
            Outcome::Chase(mut answer, target) => {
                let id = self.upstream.id();
                let Some(message) = Query::ask(id, &target, query.kind) else { return failed(Rcode::ServFail) };
                let Ok(own) = Query::parse(&message) else { return failed(Rcode::ServFail) };
                // Without its addresses the alias alone is still the truth.
                let reply = self.upstream.ask(&own, &message, whole).await;
                let found = reply.and_then(|reply| wire::addresses(&reply)).unwrap_or_default();
                let owner = Some(target);
                answer.answers.extend(found.into_iter().map(|(ttl_s, data)| Record {
                    owner: owner.clone(),
                    ttl_s,
                    data,
                }));
                query.reply(&answer, max)
            }
        }
    }
}
