//! Port-forward: every connection that kubectl takes is a pair of SPDY streams (errors, data) of one `requestid`, and becomes a TCP
//! connection to the port on the loopback of the pod's network namespace, where even a server shows that listens nowhere else.
//!
//! One task reads what the client sends and hands it to one task per connection; each queue is short, so that who reads slowly holds
//! the sender back and not the bytes.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::negotiate::Wire;
use super::spdy::{Event, REFUSED, Spdy, StreamId};
use super::websocket::{self, Message, Reader};
use crate::net::netns::{Netns, connect_loopback};

/// Connections at once through one port-forward.
const CONNECTIONS_MAX: usize = 256;
/// Pieces that wait for a slow reader.
const BACKLOG: usize = 4;
const PIECE_BYTES: usize = 32 << 10;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Where the ports are.
#[derive(Clone)]
pub(crate) enum Ports {
    /// This machine's own.
    Host,
    /// Those of the network namespace at this path.
    Pod(PathBuf),
}

impl Ports {
    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let place = self.clone();
        let connected = tokio::task::spawn_blocking(move || match place {
            Ports::Host => connect_loopback(port, CONNECT_WITHIN).map_err(|e| format!("connect to port {port}: {e}")),
            Ports::Pod(path) => Netns::open(&path)
                .and_then(|netns| netns.connect_loopback(port, CONNECT_WITHIN))
                .map_err(|e| format!("connect to port {port}: {e}")),
        });
        let stream = connected.await.map_err(|e| e.to_string())??;
        let ready = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        ready.map_err(|e| format!("connect to port {port}: {e}"))
    }
}

/// What a connection's task says to the one that writes to the client.
enum Said {
    Data(StreamId, Vec<u8>),
    End(StreamId),
}

/// The carrier of SPDY frames: bytes as they are, or in WebSocket messages.
enum Carrier {
    Plain,
    Messages(Reader),
}

impl Carrier {
    /// Hands what came over to `spdy`; false once the client has closed.
    fn unpack(&mut self, bytes: &[u8], spdy: &mut Spdy, out: &mut Vec<u8>) -> Result<bool, &'static str> {
        let Carrier::Messages(reader) = self else {
            spdy.receive(bytes);
            return Ok(true);
        };
        reader.receive(bytes);
        while let Some(message) = reader.next()? {
            match message {
                Message::Binary(bytes) | Message::Text(bytes) => spdy.receive(&bytes),
                Message::Ping(payload) => websocket::write_pong(out, &payload),
                Message::Close => return Ok(false),
            }
        }
        Ok(true)
    }

    fn pack(&self, frames: &[u8], out: &mut Vec<u8>) {
        match self {
            Carrier::Plain => out.extend_from_slice(frames),
            Carrier::Messages(_) if frames.is_empty() => {}
            Carrier::Messages(_) => websocket::write(out, websocket::BINARY, &[frames]),
        }
    }
}

/// Half of a pair: which stream, and what its headers say.
struct Half {
    id: StreamId,
    port: u16,
}

/// Serves one port-forward to its end.
pub(crate) async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(
    mut client: IO,
    wire: Wire,
    ports: Ports,
) -> io::Result<()> {
    let mut carrier = if wire == Wire::Tunnel { Carrier::Messages(Reader::default()) } else { Carrier::Plain };
    let (say, mut said) = mpsc::channel(BACKLOG);
    let mut state = Forward { ports, say, errors: BTreeMap::new(), connections: BTreeMap::new() };
    let (mut spdy, mut input) = (Spdy::new(), vec![0; PIECE_BYTES]);
    loop {
        let (mut out, mut frames, mut open) = (Vec::new(), Vec::new(), true);
        tokio::select! {
            read = client.read(&mut input) => {
                let bytes = input.get(..read?).unwrap_or_default();
                if bytes.is_empty() {
                    return Ok(());
                }
                open = carrier.unpack(bytes, &mut spdy, &mut out).map_err(io::Error::other)?;
                while let Some(event) = spdy.next(&mut frames).map_err(io::Error::other)? {
                    state.on(event, &mut spdy, &mut frames).await;
                }
            }
            Some(next) = said.recv() => match next {
                Said::Data(id, bytes) => Spdy::data(&mut frames, id, &bytes, false),
                Said::End(id) => {
                    Spdy::data(&mut frames, id, &[], true);
                    state.connections.remove(&id);
                }
            }
        }
        carrier.pack(&frames, &mut out);
        if !open {
            websocket::write_close(&mut out, websocket::NORMAL);
        }
        client.write_all(&out).await?;
        client.flush().await?;
        if !open {
            return Ok(());
        }
    }
}

struct Forward {
    ports: Ports,
    say: mpsc::Sender<Said>,
    /// Error streams whose data stream is still to come, by request.
    errors: BTreeMap<String, Half>,
    /// What the client sends, by data stream; an empty piece is its end.
    connections: BTreeMap<StreamId, mpsc::Sender<Bytes>>,
}

impl Forward {
    async fn on(&mut self, event: Event, spdy: &mut Spdy, frames: &mut Vec<u8>) {
        match event {
            Event::Open { id, headers } => {
                spdy.accept(frames, id);
                if !self.opened(id, &headers) {
                    Spdy::reset(frames, id, REFUSED);
                }
            }
            Event::Data { id, bytes } => {
                if let Some(connection) = self.connections.get(&id) {
                    let _ = connection.send(bytes.into()).await;
                }
            }
            Event::End { id } => {
                if let Some(connection) = self.connections.get(&id) {
                    let _ = connection.send(Bytes::new()).await;
                }
            }
            Event::Reset { id } => {
                self.connections.remove(&id);
            }
            Event::GoAway => {}
        }
    }

    /// Notes an error stream, or starts a connection for a data stream; false if neither is meant.
    fn opened(&mut self, id: StreamId, headers: &[(String, String)]) -> bool {
        let header = |wanted| headers.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_str());
        let (Ok(port), request) = (header("port").parse(), header("requestid")) else { return false };
        match header("streamtype") {
            "error" if self.errors.len() < CONNECTIONS_MAX => {
                self.errors.insert(request.to_owned(), Half { id, port });
                true
            }
            "data" if self.connections.len() < CONNECTIONS_MAX => match self.errors.remove(request) {
                Some(error) if error.port == port => {
                    let (sender, receiver) = mpsc::channel(BACKLOG);
                    self.connections.insert(id, sender);
                    let (ports, say) = (self.ports.clone(), self.say.clone());
                    tokio::task::spawn_local(async move { connection(ports, port, error.id, id, receiver, say).await });
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }
}

async fn connection(
    ports: Ports,
    port: u16,
    error: StreamId,
    data: StreamId,
    from_client: mpsc::Receiver<Bytes>,
    say: mpsc::Sender<Said>,
) {
    match ports.connect(port).await {
        Ok(stream) => copy(stream, data, from_client, &say).await,
        Err(why) => {
            let _ = say.send(Said::Data(error, why.into_bytes())).await;
        }
    }
    // The client ends its side when both streams have ended.
    let _ = say.send(Said::End(data)).await;
    let _ = say.send(Said::End(error)).await;
}

/// Both ways, until the pod has ended its side or either is gone.
async fn copy(mut stream: TcpStream, data: StreamId, mut from_client: mpsc::Receiver<Bytes>, say: &mpsc::Sender<Said>) {
    let (mut from_pod, mut to_pod) = stream.split();
    let outgoing = async {
        while let Some(bytes) = from_client.recv().await {
            let done = if bytes.is_empty() { to_pod.shutdown().await } else { to_pod.write_all(&bytes).await };
            if done.is_err() {
                break;
            }
        }
    };
    let incoming = async {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(read @ 1..) = from_pod.read(&mut piece).await {
            let bytes = piece.get(..read).unwrap_or_default().to_vec();
            if say.send(Said::Data(data, bytes)).await.is_err() {
                break;
            }
        }
    };
    tokio::pin!(outgoing, incoming);
    tokio::select! {
        () = &mut incoming => {}
        // The client has hung up: what the pod still says has no reader.
        () = &mut outgoing => {}
    }
}
